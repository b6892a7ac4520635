package servertest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Command is how to run a server.
type Command struct {
	// Path is the path of the program. Args are its arguments.
	Path string
	Args []string
	// Env is added to the environment of the test.
	Env []string
	// Healthy returns nil when the server can be used. It is polled, and must
	// return soon.
	Healthy func() error
	// Serving, if not nil, returns nil when the other servers of a cluster can connect
	// to this one. It is polled before the next server is started.
	Serving func() error
}

// Process is a server. A method that cannot do its work fails its test with FailNow. All
// methods may be called concurrently.
type Process struct {
	name, log string

	cmd Command // never changes

	mu      sync.Mutex // held while the process starts or ends
	running *running   // guarded by mu: nil before the first start and after Kill
}

// running is one run of a program.
type running struct {
	os   *os.Process
	done chan struct{} // closed when the process has ended
	err  error         // of [exec.Cmd.Wait]; valid when done is closed

	paused bool // guarded by Process.mu
}

// NewProcess returns a server that does not run yet. The end of tb kills it. If tb has
// failed, NewProcess logs the end of the server's output.
func NewProcess(tb testing.TB, name string, cmd Command) *Process {
	tb.Helper()
	// TempDir comes before Cleanup: the directory must be removed after the server has
	// ended.
	p := &Process{name: name, cmd: cmd, log: filepath.Join(tb.TempDir(), name+".log")}
	tb.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.kill()
		if tb.Failed() {
			tb.Logf("%s wrote:\n%s", name, p.tail())
		}
	})
	return p
}

// errTaken is the error of a start that another program's use of a port failed.
var errTaken = errors.New("a port was taken")

// Start starts the processes that build returns, and waits until all are healthy. If another
// program uses a port of a process, Start kills all of them, calls build again and starts
// the new processes, up to five times.
func Start(tb testing.TB, build func() []*Process) {
	tb.Helper()
	var err error
	for range 5 {
		ps := build()
		if err = startAll(ps); err == nil {
			return
		}
		for _, p := range ps {
			p.mu.Lock()
			p.kill()
			p.mu.Unlock()
		}
		if !errors.Is(err, errTaken) {
			break
		}
		tb.Log(err, "- retry with other ports")
	}
	tb.Fatal(err)
}

// startAll is StartAll that returns an error.
func startAll(ps []*Process) error {
	for _, p := range ps {
		if err := p.launch(); err != nil {
			return err
		}
	}
	for _, p := range ps {
		// If one process has ended, the others may wait for it forever.
		if err := p.await(ps...); err != nil {
			return err
		}
	}
	return nil
}

// StartAll starts the processes that do not run, one after the other, and waits until all
// processes are healthy.
func StartAll(tb testing.TB, ps []*Process) {
	tb.Helper()
	if err := startAll(ps); err != nil {
		tb.Fatal(err)
	}
}

// launch starts the process, if it does not run, and waits until it serves.
func (p *Process) launch() error {
	if err := p.ensureRunning(); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	if p.cmd.Serving == nil {
		return nil
	}
	return p.poll("does not serve", p.cmd.Serving, p)
}

// ensureRunning starts the process if it does not run.
func (p *Process) ensureRunning() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isRunning() {
		return nil
	}
	return p.exec()
}

// exec starts the process. p.mu is held.
func (p *Process) exec() error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(log, "--- %s %q\n", p.cmd.Path, p.cmd.Args)
	cmd := exec.Command(p.cmd.Path, p.cmd.Args...)
	// The variables of the developer's servers must not affect those of the tests.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "ETCD_") || strings.HasPrefix(v, "CONSUL_")
	})
	cmd.Env = append(cmd.Env, p.cmd.Env...)
	// A file needs no goroutine that copies the output.
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = procAttr()

	r := &running{done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel kills the process when the thread that started it ends. So this
		// thread must not end before the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		r.os = cmd.Process
		started <- nil
		r.err = cmd.Wait()
		close(r.done)
	}()
	if err := <-started; err != nil {
		return err
	}
	p.running = r
	return nil
}

// Await waits until the process is healthy.
func (p *Process) Await(tb testing.TB) {
	tb.Helper()
	if err := p.await(p); err != nil {
		tb.Fatal(err)
	}
}

// await waits until p is healthy or one of group, which includes p, has ended.
func (p *Process) await(group ...*Process) error {
	return p.poll("is not healthy", p.cmd.Healthy, group...)
}

// poll waits until f returns nil or one of group, which includes p, has ended.
func (p *Process) poll(what string, f func() error, group ...*Process) error {
	var ended error
	err := poll(p.name+" "+what, func() error {
		// Also if f returned nil: if p has ended, another server on the same port
		// answered.
		err := f()
		for _, q := range group {
			if ended = q.ended(); ended != nil {
				return nil
			}
		}
		return err
	})
	if ended != nil {
		return ended
	}
	return err
}

// ended returns nil while the process runs, or why it does not.
func (p *Process) ended() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.isRunning():
		return nil
	case p.running == nil:
		return fmt.Errorf("%s does not run", p.name)
	}
	end := p.tail()
	if bytes.Contains(end, []byte("address already in use")) {
		return fmt.Errorf("%s: %w", p.name, errTaken)
	}
	return fmt.Errorf("%s ended: %v\n%s", p.name, p.running.err, end)
}

// Restart kills the process if it runs, starts it again and waits until it is
// healthy.
func (p *Process) Restart(tb testing.TB) {
	tb.Helper()
	p.Kill(tb)
	StartAll(tb, []*Process{p})
}

// Kill kills the process as kill -9 does, also a paused one, and returns when the process has
// ended. It does nothing if the process does not run.
func (p *Process) Kill(tb testing.TB) {
	tb.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kill()
}

// kill is Kill. p.mu is held.
func (p *Process) kill() {
	if p.running == nil {
		return
	}
	// The error means that the process has ended already.
	_ = p.running.os.Kill()
	<-p.running.done
	p.running = nil
}

// Pause stops the process as kill -STOP does: its connections stay open, and get no answers.
// It returns when every thread of the process has stopped.
func (p *Process) Pause(tb testing.TB) {
	tb.Helper()
	p.signal(tb, "pause", func(r *running) error {
		r.paused = true
		return pause(r.os)
	})
}

// Continue resumes a paused process.
func (p *Process) Continue(tb testing.TB) {
	tb.Helper()
	p.signal(tb, "continue", func(r *running) error {
		r.paused = false
		return resume(r.os)
	})
}

// Reload sends the signal that makes a server read its configuration again.
func (p *Process) Reload(tb testing.TB) {
	tb.Helper()
	p.signal(tb, "reload", func(r *running) error { return reload(r.os) })
}

// signal calls send with the running process.
func (p *Process) signal(tb testing.TB, verb string, send func(*running) error) {
	tb.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.isRunning() {
		tb.Fatalf("%s %s: it does not run", verb, p.name)
	}
	if err := send(p.running); err != nil {
		tb.Fatalf("%s %s: %v", verb, p.name, err)
	}
}

// Up reports whether the process runs and is not paused.
func (p *Process) Up() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.isRunning() && !p.running.paused
}

// isRunning reports whether the process runs. p.mu is held.
func (p *Process) isRunning() bool {
	if p.running == nil {
		return false
	}
	select {
	case <-p.running.done:
		return false
	default:
		return true
	}
}

// Pid returns the id of the process, or 0 if it does not run.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.isRunning() {
		return 0
	}
	return p.running.os.Pid
}

// tail returns the end of the output of the process.
func (p *Process) tail() []byte {
	const enough = 16 << 10
	f, err := os.Open(p.log)
	if err != nil {
		return []byte(err.Error())
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > enough {
		_, _ = f.Seek(-enough, io.SeekEnd)
	}
	end, err := io.ReadAll(f)
	if err != nil {
		return []byte(err.Error())
	}
	return end
}
