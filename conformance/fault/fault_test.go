package fault_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/naming-go/naming/conformance/fault"
)

// echo starts a server that sends back every byte, and returns its address.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); io.Copy(c, c) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// client is a connection to an echo server.
type client struct {
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, p *fault.Proxy) *client {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &client{c, bufio.NewReader(c)}
}

// say sends a line and reads it back within limit.
func (c *client) say(line string, limit time.Duration) error {
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return err
	}
	return c.hear(line, limit)
}

// hear reads a line within limit, and returns an error if it is another line.
func (c *client) hear(line string, limit time.Duration) error {
	if err := c.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	got, err := c.r.ReadString('\n')
	if err == nil && strings.TrimSpace(got) != line {
		err = errors.New("got " + got)
	}
	return err
}

const long, short = 20 * time.Second, 50 * time.Millisecond

// works fails t if the connection does not echo.
func works(t *testing.T, what string, c *client) {
	t.Helper()
	if err := c.say("hello", long); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

func TestCut(t *testing.T) {
	p := fault.New(t, echo(t))
	c := dial(t, p)
	works(t, "before", c)
	p.Cut()
	if err := c.say("hello", long); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection that was cut: %v", err)
	}
	works(t, "a new connection", dial(t, p))
	if n := p.Accepted(); n != 2 {
		t.Errorf("accepted %d connections, want 2", n)
	}
	if up, down := p.Delivered(); up != 12 || down != 12 {
		t.Errorf("delivered %d and %d bytes, want 12 and 12", up, down)
	}
}

func TestSilence(t *testing.T) {
	p := fault.New(t, echo(t))
	c := dial(t, p)
	works(t, "before", c)
	heal, healToo := p.Silence(), p.Silence()
	if err := c.say("held", short); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("in a silence: %v", err)
	}
	late := dial(t, p) // new connections are accepted
	heal()
	heal()
	if err := late.say("late", short); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("in two silences, of which one ended: %v", err)
	}
	healToo()
	if err := c.hear("held", long); err != nil {
		t.Errorf("a line that was kept back: %v", err)
	}
	if err := late.hear("late", long); err != nil {
		t.Errorf("a line of a new connection that was kept back: %v", err)
	}
}

func TestDown(t *testing.T) {
	p := fault.New(t, echo(t))
	c := dial(t, p)
	works(t, "before", c)
	heal := p.Silence()
	up, upToo := p.Down(), p.Down()
	if err := c.hear("", long); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection when the server went down: %v", err)
	}
	refused := func() {
		t.Helper()
		if c, err := net.Dial("tcp", p.Addr()); err == nil {
			c.Close()
			t.Error("a server that is down accepted a connection")
		}
	}
	refused()
	up()
	up()
	refused()
	heal()
	refused()
	upToo()
	works(t, "after", dial(t, p))
}

func TestSlow(t *testing.T) {
	p := fault.New(t, echo(t))
	c := dial(t, p)
	first := p.Slow(time.Hour, 0)
	if err := c.say("slow", short); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("with a latency of an hour: %v", err)
	}
	second := p.Slow(0, 1)
	first() // has no effect: the second call replaced the first
	if err := c.hear("slow", short); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("with a byte a second: %v", err)
	}
	second()
	p.Cut()
	works(t, "after", dial(t, p))
}

// A proxy that is closed while faults last leaves no goroutine.
func TestClose(t *testing.T) {
	target := echo(t)
	before := runtime.NumGoroutine()
	p := fault.New(t, target)
	c := dial(t, p)
	works(t, "before", c)
	heal, up := p.Silence(), p.Down()
	p.Close()
	p.Close()
	up()
	heal()
	if conn, err := net.Dial("tcp", p.Addr()); err == nil {
		conn.Close()
		t.Error("a closed proxy accepted a connection")
	}
	deadline := time.Now().Add(long)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > before {
		buf := make([]byte, 1<<16)
		t.Errorf("%d goroutines were left:\n%s", n-before, buf[:runtime.Stack(buf, true)])
	}
}
