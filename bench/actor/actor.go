// Package actor runs parts of the bench in processes of their own. A process may panic,
// hang or need many files without harm to the rest. It gets commands and sends events,
// both as JSON.
package actor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// Role is the work of such a process. The process ends when the Role returns, or when the
// process that started it closes it or ends. send sends an event. It may be called
// concurrently.
type Role func(commands <-chan json.RawMessage, send func(event any)) error

const variable = "NAMING_BENCH_ROLE"

// Main runs a role if [Start] started this process, and then does not return. A program
// that calls Start has to call Main first.
func Main(roles map[string]Role) {
	name := os.Getenv(variable)
	if name == "" {
		return
	}
	commands := make(chan json.RawMessage)
	go func() {
		for in := json.NewDecoder(os.Stdin); ; {
			var c json.RawMessage
			if in.Decode(&c) != nil {
				os.Exit(0)
			}
			commands <- c
		}
	}()
	var mu sync.Mutex
	// Libraries may log to the standard output, so events do not go there.
	out := json.NewEncoder(os.NewFile(3, "events"))
	send := func(event any) {
		mu.Lock()
		defer mu.Unlock()
		if err := out.Encode(event); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	role, ok := roles[name]
	if !ok {
		fmt.Fprintln(os.Stderr, "there is no role", name)
		os.Exit(1)
	}
	if err := role(commands, send); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Process is a process that runs a role. Its methods may be called concurrently.
type Process struct {
	cmd   *exec.Cmd      // set once, by Start
	stdin io.WriteCloser // set once, by Start
	done  chan struct{}  // closed when the process has ended and all events were delivered
	err   error          // set once, before done is closed

	mu  sync.Mutex
	out *json.Encoder // guarded by mu
}

// Start starts a process in which [Main] runs the role. event is called with every event,
// one call at a time.
func Start(role string, event func(json.RawMessage)) (*Process, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	var stderr tail
	p := &Process{cmd: exec.Command(path), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), variable+"="+role)
	p.cmd.ExtraFiles = []*os.File{w}
	p.cmd.Stdout, p.cmd.Stderr = &stderr, &stderr
	if p.stdin, err = p.cmd.StdinPipe(); err == nil {
		err = p.cmd.Start()
	}
	w.Close()
	if err != nil {
		r.Close()
		return nil, err
	}
	p.out = json.NewEncoder(p.stdin)
	go func() {
		defer close(p.done)
		defer r.Close()
		for in := json.NewDecoder(r); ; {
			var e json.RawMessage
			if in.Decode(&e) != nil {
				break
			}
			event(e)
		}
		if p.err = p.cmd.Wait(); p.err != nil {
			p.err = fmt.Errorf("%w: %s", p.err, stderr.reason())
		}
	}()
	return p, nil
}

// Send sends a command to the process.
func (p *Process) Send(command any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Encode(command)
}

// Done returns a channel that is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns the error with which the process ended, and the reason from its output. It
// returns nil if the process succeeded or has not ended.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Close kills the process. It returns when the process has ended.
func (p *Process) Close() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// tail keeps the end of a process's output.
type tail struct {
	mu  sync.Mutex
	buf []byte // guarded by mu
}

func (t *tail) Write(b []byte) (int, error) {
	const enough = 64 << 10
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if n := len(t.buf) - enough; n > 0 {
		t.buf = t.buf[n:]
	}
	return len(b), nil
}

// reason returns the line of a panic, or the last line.
func (t *tail) reason() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(string(bytes.TrimSpace(t.buf)), "\n")
	for _, l := range lines {
		if strings.HasPrefix(l, "panic: ") || strings.HasPrefix(l, "fatal error: ") {
			return l
		}
	}
	return lines[len(lines)-1]
}
