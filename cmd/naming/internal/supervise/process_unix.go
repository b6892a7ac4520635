//go:build unix

package supervise

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"syscall"
)

// stopSignal is the signal to stop that a program gets when its context is done.
var stopSignal os.Signal = syscall.SIGTERM

// Signals are the signals to pass to Run. The rest cannot be caught, is about this process
// alone, or is used by the runtime of Go.
var Signals = []os.Signal{
	syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT, syscall.SIGTSTP,
}

// contSignal has a paused program go on.
var contSignal os.Signal = syscall.SIGCONT

func isStop(sig os.Signal) bool {
	return sig == syscall.SIGTERM || sig == syscall.SIGINT || sig == syscall.SIGQUIT
}

// isSuspend reports whether a signal asks for a pause, as Ctrl-Z in a terminal does.
func isSuspend(sig os.Signal) bool { return sig == syscall.SIGTSTP }

// pauseSelf stops this process until it gets SIGCONT.
func pauseSelf() { _ = syscall.Kill(os.Getpid(), syscall.SIGSTOP) }

// process is a program that runs.
type process struct {
	pid  int
	done chan struct{} // closed when the program has ended
	// status is set before done is closed.
	status int
	// paused gets true when a signal has stopped the program, and false when the program goes
	// on. It must be received from until done is closed.
	paused chan bool

	life life
}

// life guards against a signal to a process that was reaped: its ID may be that of another
// process by then.
type life struct {
	mu    sync.Mutex
	ended bool
}

// startProcess starts a program in a process group of its own, so that Ctrl-C in a terminal
// reaches it only after its endpoint was drained.
//
// The program dies with this process where the system allows it: see endWithParent. The
// system ends it with the thread that started it. So that thread belongs to one goroutine
// until the program has ended.
func startProcess(path string, args []string, t *terminal) (*process, error) {
	p := &process{done: make(chan struct{}), paused: make(chan bool)}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		err := p.start(path, args, t)
		started <- err
		if err == nil {
			p.wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) start(path string, args []string, t *terminal) error {
	in, done, err := t.input()
	if err != nil {
		return err
	}
	defer done()
	sys := &syscall.SysProcAttr{Setpgid: true, Foreground: t.owned(), Ctty: int(os.Stdin.Fd())}
	endWithParent(sys)
	proc, err := os.StartProcess(path, args, &os.ProcAttr{
		Env: os.Environ(), Files: []*os.File{in, os.Stdout, os.Stderr}, Sys: sys,
	})
	if err != nil {
		return err
	}
	p.pid = proc.Pid
	return proc.Release() // wait reaps the program
}

// wait waits for the program, and then asks the processes that it left behind to end. As
// process 1 of a container, and as a subreaper, it also reaps the orphans that the kernel
// hands to it.
func (p *process) wait() {
	of := p.pid
	if adopts(os.Getpid(), isSubreaper()) {
		of = -1
	}
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(of, &ws, syscall.WUNTRACED|syscall.WCONTINUED, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			p.end(1) // somebody else has reaped the program
			return
		case pid != p.pid:
		case ws.Stopped():
			p.paused <- true
		case ws.Continued():
			p.paused <- false
		case ws.Signaled():
			p.end(statusSignal + int(ws.Signal()))
			return
		case ws.Exited():
			p.end(ws.ExitStatus())
			return
		}
	}
}

// adopts reports whether the kernel hands orphans to a process.
func adopts(pid int, subreaper bool) bool { return pid == 1 || subreaper }

func (p *process) end(status int) {
	p.life.mu.Lock()
	p.life.ended = true
	p.life.mu.Unlock()
	// The number of the group cannot be used again while a process is in the group.
	_ = syscall.Kill(-p.pid, syscall.SIGTERM)
	p.status = status
	close(p.done)
}

// signal sends a signal to the program and to the processes that it started.
func (p *process) signal(sig os.Signal) {
	p.life.mu.Lock()
	defer p.life.mu.Unlock()
	if s, ok := sig.(syscall.Signal); ok && !p.life.ended {
		_ = syscall.Kill(-p.pid, s)
	}
}

func (p *process) kill() { p.signal(syscall.SIGKILL) }
