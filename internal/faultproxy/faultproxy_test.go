package faultproxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// patience bounds the wait for an event that must happen.
const patience = time.Minute

// target is a server that only accepts connections.
type target struct {
	addr  string
	conns chan net.Conn // accepted connections
}

func newTarget(t *testing.T) *target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &target{l.Addr().String(), make(chan net.Conn, 100)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(s.conns)
				return
			}
			s.conns <- c
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
		for c := range s.conns {
			c.Close()
		}
	})
	return s
}

// dial returns the two ends of a connection through the proxy.
func dial(t *testing.T, p *Proxy, s *target) (client, server net.Conn) {
	t.Helper()
	client = dialOnly(t, p)
	return client, s.accept(t)
}

func dialOnly(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", p.Addr(), patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (s *target) accept(t *testing.T) net.Conn {
	t.Helper()
	select {
	case c := <-s.conns:
		t.Cleanup(func() { c.Close() })
		return c
	case <-time.After(patience):
		t.Fatal("the target is not dialed")
		return nil
	}
}

// pass checks that one end receives what the other end sends.
func pass(t *testing.T, from, to net.Conn, text string) {
	t.Helper()
	send(t, from, text)
	receive(t, to, text)
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, c net.Conn, text string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, len(text))
	if n, err := io.ReadFull(c, buf); err != nil || string(buf) != text {
		t.Fatalf("received %q, %v, want %q", buf[:n], err, text)
	}
}

// silent checks that nothing arrives, and that the connection is open.
func silent(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	n, err := c.Read(make([]byte, 1))
	if nerr, ok := errors.AsType[net.Error](err); n != 0 || !ok || !nerr.Timeout() {
		t.Fatalf("read %d bytes, %v, want silence", n, err)
	}
}

// isReset checks that the connection has been reset, not closed.
func isReset(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("read %d bytes, %v, want a reset", n, err)
	}
}

func TestForward(t *testing.T) {
	s := newTarget(t)
	p := New(t, s.addr)
	client, server := dial(t, p, s)
	pass(t, client, server, "hello")
	pass(t, server, client, "you too")
	if got, want := p.Stats(), (Stats{Accepted: 1, Open: 1, Up: 5, Down: 7}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}

	// One end may close its direction and still receive.
	if err := client.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = server.SetReadDeadline(time.Now().Add(patience))
	if n, err := server.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read %d bytes, %v, want the end", n, err)
	}
	pass(t, server, client, "more")
	server.Close()
	if n, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read %d bytes, %v, want the end", n, err)
	}

	// A reset arrives as a reset, in either direction.
	client, server = dial(t, p, s)
	abort(client)
	isReset(t, server)
	client, server = dial(t, p, s)
	abort(server)
	isReset(t, client)

	// A large amount arrives whole.
	client, server = dial(t, p, s)
	much := bytes.Repeat([]byte("0123456789abcdef"), 1<<17)
	go func() {
		_, _ = client.Write(much)
		client.Close()
	}()
	_ = server.SetReadDeadline(time.Now().Add(patience))
	if got, err := io.ReadAll(server); err != nil || !bytes.Equal(got, much) {
		t.Errorf("received %d bytes, %v, want the %d sent", len(got), err, len(much))
	}
}

func TestNoTarget(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	// The reset may come before Dial has returned.
	c, err := net.DialTimeout("tcp", New(t, l.Addr().String()).Addr(), patience)
	if errors.Is(err, syscall.ECONNRESET) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	isReset(t, c)
}

func TestCut(t *testing.T) {
	s := newTarget(t)
	p := New(t, s.addr)
	// More than once: the proxy must get its port again each time.
	for range 20 {
		client, server := dial(t, p, s)
		pass(t, client, server, "x")
		p.Cut()
		isReset(t, client)
		isReset(t, server)
		if c, err := net.DialTimeout("tcp", p.Addr(), patience); !errors.Is(err, syscall.ECONNREFUSED) {
			if err == nil {
				c.Close()
			}
			t.Fatalf("dialing while cut: %v, want refused", err)
		}
		if n := p.Stats().Open; n != 0 {
			t.Errorf("%d connections are open while cut", n)
		}
		p.Heal()
	}
	client, server := dial(t, p, s)
	pass(t, client, server, "x")
}

func TestReset(t *testing.T) {
	s := newTarget(t)
	p := New(t, s.addr)
	client, server := dial(t, p, s)
	p.Reset()
	isReset(t, client)
	isReset(t, server)
	client, server = dial(t, p, s)
	pass(t, client, server, "x")
}

func TestBlackHole(t *testing.T) {
	s := newTarget(t)
	p := New(t, s.addr)
	client, server := dial(t, p, s)
	pass(t, client, server, "x")
	leaver, half := dial(t, p, s)
	p.BlackHole()
	send(t, client, "to the server")
	send(t, server, "to the client")
	silent(t, client)
	silent(t, server)

	// A new connection is made, as the client sees it.
	late := dialOnly(t, p)
	send(t, late, "late")
	silent(t, late)
	select {
	case <-s.conns:
		t.Error("a connection to the target in a black hole")
	default:
	}

	// The end of a connection does not arrive either.
	leaver.Close()
	silent(t, half)

	p.Heal()
	receive(t, server, "to the server")
	receive(t, client, "to the client")
	_ = half.SetReadDeadline(time.Now().Add(patience))
	if n, err := half.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read %d bytes, %v, want the end", n, err)
	}
	receive(t, s.accept(t), "late")
}

func TestDrop(t *testing.T) {
	s := newTarget(t)
	p := New(t, s.addr)
	client, server := dial(t, p, s)

	p.DropUpstream()
	send(t, client, "held")
	pass(t, server, client, "heard")
	silent(t, server)
	c2, s2 := dial(t, p, s)
	pass(t, s2, c2, "heard")
	p.Heal()
	receive(t, server, "held")

	p.DropDownstream()
	send(t, server, "held")
	pass(t, client, server, "heard")
	silent(t, client)
	p.Heal()
	receive(t, client, "held")

	// Both directions together are a black hole.
	p.DropUpstream()
	p.DropDownstream()
	dialOnly(t, p)
	silent(t, client)
	select {
	case <-s.conns:
		t.Error("a connection to the target in a black hole")
	default:
	}
}

func TestCutAfter(t *testing.T) {
	s := newTarget(t)
	p := New(t, s.addr)
	client, server := dial(t, p, s)
	pass(t, server, client, "before")
	p.CutAfter(5)
	c2, s2 := dial(t, p, s)
	for _, c := range [][2]net.Conn{{client, server}, {c2, s2}} {
		client, server := c[0], c[1]
		pass(t, client, server, "requests count for nothing")
		pass(t, server, client, "abc")
		send(t, server, "defgh")
		receive(t, client, "de")
		isReset(t, client)
		isReset(t, server)
	}

	p.CutAfter(0)
	client, server = dial(t, p, s)
	pass(t, client, server, "request")
	send(t, server, "answer")
	isReset(t, client)

	client, server = dial(t, p, s)
	p.Heal()
	pass(t, server, client, "any number of bytes")
}

// bubble runs f in a synctest bubble, with two ends of a connection that is forwarded
// there. The ends are pipes: a goroutine that waits for a network connection keeps the
// time of the bubble from passing.
func bubble(t *testing.T, f func(t *testing.T, p *Proxy, client, server net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxy(t, "")
		client, a := net.Pipe()
		server, b := net.Pipe()
		l := newLink(p, a)
		p.links[l] = struct{}{}
		p.wg.Go(func() { l.forward(a, b) })
		f(t, p, client, server)
		p.Close()
	})
}

func TestDelay(t *testing.T) {
	bubble(t, func(t *testing.T, p *Proxy, client, server net.Conn) {
		p.Delay(time.Second)
		start := time.Now()
		// Bytes that are sent at once arrive at once: a delay does not throttle.
		for _, c := range "abcde" {
			send(t, client, string(c))
		}
		send(t, server, "x")
		receive(t, server, "abcde")
		receive(t, client, "x")
		if d := time.Since(start); d != time.Second {
			t.Errorf("received after %v, want 1s", d)
		}

		// The end of the connection is delayed too.
		start = time.Now()
		client.Close()
		if n, err := server.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read %d bytes, %v, want the end", n, err)
		}
		if d := time.Since(start); d != time.Second {
			t.Errorf("ended after %v, want 1s", d)
		}
	})
	bubble(t, func(t *testing.T, p *Proxy, client, server net.Conn) {
		p.Delay(time.Hour)
		start := time.Now()
		send(t, client, "x")
		time.AfterFunc(time.Second, p.Heal)
		receive(t, server, "x")
		if d := time.Since(start); d != time.Second {
			t.Errorf("received after %v, want when healed, after 1s", d)
		}
	})
}

func TestThrottle(t *testing.T) {
	bubble(t, func(t *testing.T, p *Proxy, client, server net.Conn) {
		p.Throttle(1000)
		start := time.Now()
		text := strings.Repeat("x", 5000)
		go func() { _, _ = io.WriteString(client, text) }()
		// The first piece does not wait.
		for i := range 5 {
			receive(t, server, text[:1000])
			if d := time.Since(start).Round(100 * time.Millisecond); d != time.Duration(i+1)*time.Second {
				t.Errorf("%d bytes after %v", (i+1)*1000, d)
			}
		}
		p.Throttle(0)
		start = time.Now()
		pass(t, client, server, text)
		if d := time.Since(start); d != 0 {
			t.Errorf("%v without a throttle", d)
		}
	})
}

// All methods are called concurrently while connections come and go. No goroutine is left,
// and the race detector finds nothing.
func TestConcurrent(t *testing.T) {
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait) // runs after the target has ended
	s := newTarget(t)
	p := New(t, s.addr)
	wg.Go(func() {
		for c := range s.conns {
			wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	verbs := []func(){
		p.Cut, p.Heal, p.BlackHole, p.Reset, p.DropUpstream, p.DropDownstream,
		func() { p.Delay(time.Millisecond) }, func() { p.Throttle(1 << 20) },
		func() { p.CutAfter(100) }, func() { p.Stats() },
	}
	var work sync.WaitGroup
	for _, verb := range verbs {
		work.Go(func() {
			for range 50 {
				verb()
				runtime.Gosched()
			}
		})
	}
	for range 4 {
		work.Go(func() {
			for range 50 {
				c, err := net.DialTimeout("tcp", p.Addr(), patience)
				if err != nil {
					continue
				}
				_ = c.SetDeadline(time.Now().Add(5 * time.Millisecond))
				_, _ = c.Write(make([]byte, 1000))
				_, _ = c.Read(make([]byte, 1000))
				c.Close()
			}
		})
	}
	work.Wait()
	p.Close()
	p.Close()
	p.Heal() // has no effect after Close
	if n := p.Stats().Open; n != 0 {
		t.Errorf("%d connections are open after Close", n)
	}
	if _, err := net.DialTimeout("tcp", p.Addr(), patience); err == nil {
		t.Error("connected after Close")
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	if bytes.Contains(stacks, []byte("faultproxy.(*link)")) || bytes.Contains(stacks, []byte("faultproxy.(*Proxy)")) {
		t.Errorf("goroutines after Close:\n%s", stacks)
	}
}
