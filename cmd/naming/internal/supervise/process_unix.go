//go:build unix

package supervise

import (
	"errors"
	"os"
	"syscall"
)

// stopSignal is the signal to stop that a program gets when its context is done.
var stopSignal os.Signal = syscall.SIGTERM

// Signals are the signals to pass to Run. The rest cannot be caught, is about this process
// alone, or is used by the runtime of Go.
var Signals = []os.Signal{
	syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT,
}

func isStop(sig os.Signal) bool {
	return sig == syscall.SIGTERM || sig == syscall.SIGINT || sig == syscall.SIGQUIT
}

// process is a program that runs.
type process struct {
	pid  int
	done chan struct{} // closed when the program has ended
	// status is set before done is closed.
	status int
}

// startProcess starts a program in a process group of its own, so that Ctrl-C in a terminal
// reaches it only after its endpoint was drained.
func startProcess(path string, args []string) (*process, error) {
	p, err := os.StartProcess(path, args, &os.ProcAttr{
		Env:   os.Environ(),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return nil, err
	}
	run := &process{pid: p.Pid, done: make(chan struct{})}
	_ = p.Release() // wait reaps the program
	go run.wait()
	return run, nil
}

// wait waits for the program. As the init process of a container, it also reaps the
// orphans that the kernel hands to process 1.
func (p *process) wait() {
	defer close(p.done)
	of := p.pid
	if os.Getpid() == 1 {
		of = -1
	}
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(of, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			p.status = 1 // somebody else has reaped the program
			return
		case pid != p.pid || !ws.Exited() && !ws.Signaled():
		case ws.Signaled():
			p.status = statusSignal + int(ws.Signal())
			return
		default:
			p.status = ws.ExitStatus()
			return
		}
	}
}

// signal sends a signal to the program and to the processes that it started.
func (p *process) signal(sig os.Signal) {
	if s, ok := sig.(syscall.Signal); ok {
		_ = syscall.Kill(-p.pid, s)
	}
}

func (p *process) kill() { p.signal(syscall.SIGKILL) }
