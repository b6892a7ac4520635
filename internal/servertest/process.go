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

// Command says how to run a server.
type Command struct {
	// Path is the program, Args are its arguments.
	Path string
	Args []string
	// Env is added to the environment of the test.
	Env []string
	// Healthy returns nil once the server can be used. It is polled; a call of
	// it must end by itself.
	Healthy func() error
	// Serving, if any, returns nil once the other servers of a cluster can
	// talk to it. It is polled before the next one is started.
	Serving func() error
}

// Process is a server. Its methods are verbs of a test: one that cannot be
// carried out fails the test that it is given, with FailNow.
type Process struct {
	name, log string

	mu      sync.Mutex // serializes the verbs
	cmd     Command
	running *running // nil when there is none
}

// running is one run of a program.
type running struct {
	os   *os.Process
	done chan struct{} // closed when the process is gone and waited for
	err  error         // as of [exec.Cmd.Wait]; valid when done is closed

	paused bool // guarded by Process.mu
}

// NewProcess returns a server that does not run yet. It is killed when tb ends.
// If tb fails, the end of what the server wrote is logged.
func NewProcess(tb testing.TB, name string, cmd Command) *Process {
	tb.Helper()
	// The directory comes first, since it has to be removed last.
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

// errTaken is why a start is worth to be tried again, with other ports.
var errTaken = errors.New("a port was taken")

// Start starts what build returns until it is healthy. Should one of the
// processes find its port taken by somebody else, all are killed, and Start
// tries again with what build returns then.
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
		tb.Log(err, "- again with other ports")
	}
	tb.Fatal(err)
}

func startAll(ps []*Process) error {
	for _, p := range ps {
		if err := p.launch(); err != nil {
			return err
		}
	}
	for _, p := range ps {
		// If one has ended, the others may wait for it for ever.
		if err := p.await(ps...); err != nil {
			return err
		}
	}
	return nil
}

// StartAll starts those of the processes that do not run, one after the other,
// and waits until all are healthy.
func StartAll(tb testing.TB, ps []*Process) {
	tb.Helper()
	if err := startAll(ps); err != nil {
		tb.Fatal(err)
	}
}

// launch starts the process, if it does not run, and waits until it serves.
func (p *Process) launch() error {
	p.mu.Lock()
	var err error
	if !p.isRunning() {
		err = p.exec()
	}
	p.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	if p.cmd.Serving == nil {
		return nil
	}
	return p.poll("does not serve", p.cmd.Serving, p)
}

func (p *Process) exec() error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(log, "--- %s %q\n", p.cmd.Path, p.cmd.Args)
	cmd := exec.Command(p.cmd.Path, p.cmd.Args...)
	// What is set for the servers of whoever runs the tests is not for ours.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "ETCD_") || strings.HasPrefix(v, "CONSUL_")
	})
	cmd.Env = append(cmd.Env, p.cmd.Env...)
	// Files, unlike other writers, need no goroutine that copies.
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = procAttr()

	r := &running{done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel kills the process when the thread that started it ends,
		// not the whole test: that thread has to stay.
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
		// Also after it answered: if p has ended, that was somebody else's
		// server on our port.
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

// ended returns nil as long as there is a process, or why there is none.
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

// Kill kills the process as kill -9 does, stopped or not, and returns when it
// is gone. It does nothing if there is none.
func (p *Process) Kill(tb testing.TB) {
	tb.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kill()
}

func (p *Process) kill() {
	if p.running == nil {
		return
	}
	// It fails if the process has ended, which is as good.
	_ = p.running.os.Kill()
	<-p.running.done
	p.running = nil
}

// Pause stops the process as kill -STOP does: its connections stay open, and
// nothing on them is answered. It returns when every thread of it stands still.
func (p *Process) Pause(tb testing.TB) {
	tb.Helper()
	p.signal(tb, "pause", func(r *running) error {
		r.paused = true
		return pause(r.os)
	})
}

// Continue lets a process go on that was paused.
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

// Up reports whether there is a process that is not paused.
func (p *Process) Up() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.isRunning() && !p.running.paused
}

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

// Pid returns the id of the process, 0 if there is none.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.isRunning() {
		return 0
	}
	return p.running.os.Pid
}

// tail returns the end of what the process wrote.
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
