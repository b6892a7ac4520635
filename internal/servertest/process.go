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
		for _, p := range ps {
			p.Launch(tb)
		}
		for _, p := range ps {
			// If one has ended, the others may wait for it for ever.
			if err = p.await(ps...); err != nil {
				break
			}
		}
		if err == nil {
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

// Launch starts the process and does not wait until it is healthy. It does
// nothing if it runs.
func (p *Process) Launch(tb testing.TB) {
	tb.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isRunning() {
		return
	}
	if err := p.launch(); err != nil {
		tb.Fatalf("%s: %v", p.name, err)
	}
}

func (p *Process) launch() error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(log, "--- %s %q\n", p.cmd.Path, p.cmd.Args)
	cmd := exec.Command(p.cmd.Path, p.cmd.Args...)
	cmd.Env = append(os.Environ(), p.cmd.Env...)
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
	var ended error
	err := poll(p.name+" is not healthy", func() error {
		// After what answered, too: if p has ended, that is somebody else's
		// server on our port.
		unhealthy := p.cmd.Healthy()
		for _, q := range group {
			if ended = q.ended(); ended != nil {
				return nil
			}
		}
		return unhealthy
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
	p.Launch(tb)
	p.Await(tb)
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
