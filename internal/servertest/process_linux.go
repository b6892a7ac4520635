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
		// Signals of the terminal are for the test; the server is not to end
		// before it.
		Setpgid: true,
		// A test that is killed cannot clean up.
		Pdeathsig: syscall.SIGKILL,
	}
}

func pause(p *os.Process) error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	// Threads that are at work stop a little later.
	return poll("not all of its threads have stopped", func() error { return stopped(p.Pid) })
}

// stopped returns an error unless every thread of the process has been stopped.
func stopped(pid int) error {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(stats) == 0 {
		return errors.Join(err, errors.New("there is none"))
	}
	for _, stat := range stats {
		s, err := os.ReadFile(stat)
		if err != nil {
			return err
		}
		// The state follows the name of the program, which is in parentheses
		// and may contain some.
		if i := bytes.LastIndexByte(s, ')'); i < 0 || i+2 >= len(s) || s[i+2] != 'T' {
			return fmt.Errorf("%s: %s", stat, s)
		}
	}
	return nil
}

func resume(p *os.Process) error { return p.Signal(syscall.SIGCONT) }

func reload(p *os.Process) error { return p.Signal(syscall.SIGHUP) }
