package servertest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

func procAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		// A signal of the terminal must end the test before the server.
		Setpgid: true,
		// A test that is killed cannot kill its server.
		Pdeathsig: syscall.SIGKILL,
	}
}

func pause(p *os.Process) error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	// A running thread stops a little later.
	return poll("not all threads have stopped", func() error { return stopped(p.Pid) })
}

// stopped returns an error unless every thread of the process has been stopped.
func stopped(pid int) error {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(stats) == 0 {
		return errors.Join(err, errors.New("the process does not exist"))
	}
	for _, stat := range stats {
		s, err := os.ReadFile(stat)
		if err != nil {
			return err
		}
		// The state of the thread follows the name of the program. The name is in
		// parentheses and may contain parentheses.
		if i := bytes.LastIndexByte(s, ')'); i < 0 || i+2 >= len(s) || s[i+2] != 'T' {
			return fmt.Errorf("%s: %s", stat, s)
		}
	}
	return nil
}

func resume(p *os.Process) error { return p.Signal(syscall.SIGCONT) }

func reload(p *os.Process) error { return p.Signal(syscall.SIGHUP) }
