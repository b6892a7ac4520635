package kitexnaming

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cloudwego/kitex/client"

	"github.com/naming-go/naming/internal/servertest"
)

// program is a kitex server, or a kitex client if Addr is empty, in a process of its own:
// the test's binary with the program in programVariable.
type program struct {
	Registry string // a key of registries
	Etcd     []string
	Service  string
	Addr     string
}

const programVariable = "KITEXNAMING_PROGRAM"

func TestMain(m *testing.M) {
	text := os.Getenv(programVariable)
	if text == "" {
		os.Exit(m.Run())
	}
	var p program
	err := json.Unmarshal([]byte(text), &p)
	if err == nil {
		err = p.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run is the program. It ends with the test's process, which closes its standard input.
func (p program) run() error {
	if p.Addr == "" {
		return p.runClient()
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	r, err := registries[p.Registry].server(p.Etcd)
	if err != nil {
		return err
	}
	s, err := newServer(r, p.Service, p.Addr)
	if err != nil {
		return err
	}
	return s.Run()
}

// runClient makes a call for each line of standard input, which is the call's number.
func (p program) runClient() error {
	r, err := registries[p.Registry].client(p.Etcd)
	if err != nil {
		return err
	}
	call, _, err := newClientOf(p.Service, client.WithResolver(r))
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	var mu sync.Mutex // of out
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		go func(number string) {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			addr, err := call(ctx)
			reply := map[string]string{"number": number, "addr": addr}
			if err != nil {
				reply["err"] = err.Error()
			}
			mu.Lock()
			defer mu.Unlock()
			_ = out.Encode(reply)
		}(lines.Text())
	}
	return nil
}

// start starts the program. Its standard error is logged when it has ended.
func (p program) start(tb testing.TB) (cmd *exec.Cmd, in io.WriteCloser, out io.Reader, wait func()) {
	tb.Helper()
	text, err := json.Marshal(p)
	if err != nil {
		tb.Fatal(err)
	}
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), programVariable+"="+string(text))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if in, err = cmd.StdinPipe(); err != nil {
		tb.Fatal(err)
	}
	if out, err = cmd.StdoutPipe(); err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	return cmd, in, out, func() {
		if err := cmd.Wait(); err != nil {
			tb.Logf("%s, %s: %v\n%s", p.Registry, p.Addr, err, stderr.String())
		}
	}
}

// serve runs a server, and returns when it accepts. stop sends it the signal that a
// supervisor sends.
func (p program) serve(tb testing.TB) (stop func()) {
	cmd, in, _, wait := p.start(tb)
	accepts(tb, p.Addr)
	return func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			tb.Error(err)
		}
		wait()
		_ = in.Close()
	}
}

// dial runs a client.
func (p program) dial(tb testing.TB) (call func(context.Context) (string, error), hangUp func()) {
	_, in, out, wait := p.start(tb)
	c := &calls{in: in, open: make(map[string]chan reply)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.receive(out)
	}()
	return c.call, func() {
		_ = in.Close()
		<-ended
		wait()
	}
}

// calls are the calls of a client that have no reply yet.
type calls struct {
	mu   sync.Mutex
	in   io.Writer             // guarded by mu
	last int                   // guarded by mu: the last number
	open map[string]chan reply // guarded by mu: by number
}

type reply struct{ Number, Addr, Err string }

// call makes a call.
func (c *calls) call(ctx context.Context) (string, error) {
	done := make(chan reply, 1)
	if err := c.send(done); err != nil {
		return "", err
	}
	select {
	case r := <-done:
		if r.Err != "" {
			return "", errors.New(r.Err)
		}
		return r.Addr, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (c *calls) send(done chan reply) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	c.open[fmt.Sprint(c.last)] = done
	_, err := fmt.Fprintln(c.in, c.last)
	return err
}

// receive passes the replies on until the client has ended.
func (c *calls) receive(out io.Reader) {
	for dec := json.NewDecoder(out); ; {
		var r reply
		if dec.Decode(&r) != nil {
			return
		}
		if done := c.remove(r.Number); done != nil {
			done <- r
		}
	}
}

func (c *calls) remove(number string) chan reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	done := c.open[number]
	delete(c.open, number)
	return done
}

// accepts returns when a server accepts connections.
func accepts(tb testing.TB, addr string) {
	tb.Helper()
	servertest.Poll(tb, "the kitex server accepts", func() error { return knock(addr) })
}
