// Package faultproxy is a TCP proxy for tests. It does to connections what networks do: it
// resets, silences, delays and throttles them.
package faultproxy

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/naming-go/naming/internal/servertest"
)

// Proxy forwards connections to one target. Its methods may be called concurrently, at any
// time. Several faults may last at once. Heal ends all of them.
type Proxy struct {
	tb     testing.TB
	addr   string // never changes after New
	target string
	ctx    context.Context // done when the proxy is closed
	cancel context.CancelFunc

	up, down atomic.Int64 // bytes delivered
	accepted atomic.Int64

	wg sync.WaitGroup // every goroutine of the proxy

	listening sync.Mutex    // locked before mu
	listener  net.Listener  // guarded by listening: nil while cut
	deaf      chan struct{} // guarded by listening: closed when the last Accept has returned

	mu      sync.Mutex
	faults  faults             // guarded by mu
	changed chan struct{}      // guarded by mu: closed and replaced when faults change
	links   map[*link]struct{} // guarded by mu: the open connections
	closed  bool               // guarded by mu
}

// faults are the faults that last.
type faults struct {
	held  [2]bool // by direction
	delay time.Duration
	rate  int // bytes per second, 0 for no limit
	cut   bool
	// after is the number of bytes that a new connection delivers to its client
	// before it is reset. A negative number means no limit.
	after int64
}

var healthy = faults{after: -1}

// direction is an index for values that each direction has.
type direction int

const (
	upstream   direction = iota // from the client to the target
	downstream                  // from the target to the client
)

// Stats are counts since the proxy was made.
type Stats struct {
	// Accepted is the number of connections that clients made.
	Accepted int64
	// Open is the number of connections that are open now.
	Open int
	// Up is the number of bytes delivered to the target, Down of those to clients.
	Up, Down int64
}

// New starts a proxy on 127.0.0.1 for the server at target, which is host:port. The proxy
// is closed when tb ends.
func New(tb testing.TB, target string) *Proxy {
	tb.Helper()
	p := newProxy(tb, target)
	// After a Cut the proxy listens on the same port again. So the port must be one that
	// the kernel gives to no other program that asks for any port.
	for range 5 {
		p.addr = servertest.Addr(servertest.Ports(tb, 1)[0])
		if err := p.listen(); err == nil {
			tb.Cleanup(p.Close)
			return p
		}
	}
	tb.Fatal("faultproxy: no port to listen on")
	return nil
}

func newProxy(tb testing.TB, target string) *Proxy {
	p := &Proxy{
		tb:      tb,
		target:  target,
		faults:  healthy,
		changed: make(chan struct{}),
		links:   make(map[*link]struct{}),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Addr returns the address that clients dial.
func (p *Proxy) Addr() string { return p.addr }

// Stats returns the counts.
func (p *Proxy) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{Accepted: p.accepted.Load(), Open: len(p.links), Up: p.up.Load(), Down: p.down.Load()}
}

// Close resets all connections and refuses new connections for good. It returns when no
// goroutine of the proxy is left.
func (p *Proxy) Close() {
	p.listening.Lock()
	defer p.listening.Unlock()
	p.mu.Lock()
	p.closed = true
	p.reset()
	p.mu.Unlock()
	p.unlisten()
	p.cancel()
	p.wg.Wait()
}

// Cut resets all connections and refuses new connections.
func (p *Proxy) Cut() {
	p.listening.Lock()
	defer p.listening.Unlock()
	p.set(func(f *faults) {
		f.cut = true
		p.reset()
	})
	p.unlisten()
}

// Reset resets all open connections. New connections are accepted.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reset()
}

// BlackHole delivers nothing in either direction, not even the end of a connection. New
// connections are accepted, and not made to the target. As TCP sends lost bytes again,
// no bytes are lost: Heal delivers them if the connection still exists.
func (p *Proxy) BlackHole() { p.set(func(f *faults) { f.held = [2]bool{true, true} }) }

// DropUpstream is BlackHole in one direction: the target receives nothing, and clients
// receive what the target sends.
func (p *Proxy) DropUpstream() { p.set(func(f *faults) { f.held[upstream] = true }) }

// DropDownstream is BlackHole in one direction: clients receive nothing, and the target
// receives what clients send.
func (p *Proxy) DropDownstream() { p.set(func(f *faults) { f.held[downstream] = true }) }

// Delay delivers all bytes, in each direction, d after they arrived.
func (p *Proxy) Delay(d time.Duration) { p.set(func(f *faults) { f.delay = d }) }

// Throttle limits each direction of each connection to a number of bytes per second. 0 means
// no limit.
func (p *Proxy) Throttle(bytesPerSecond int) {
	p.set(func(f *faults) { f.rate = max(bytesPerSecond, 0) })
}

// CutAfter resets every open and every new connection when it has delivered n more bytes to
// its client. With 0 it resets a connection instead of delivering the first byte. So an
// answer ends in its middle, and its request has taken effect.
func (p *Proxy) CutAfter(n int64) {
	p.set(func(f *faults) {
		f.after = max(n, 0)
		for l := range p.links {
			l.left.Store(f.after)
		}
	})
}

// Release ends BlackHole, DropUpstream and DropDownstream, and no other fault.
// The bytes that were kept back are delivered.
func (p *Proxy) Release() { p.set(func(f *faults) { f.held = [2]bool{} }) }

// Restore ends Cut, and no other fault.
func (p *Proxy) Restore() {
	p.tb.Helper()
	p.heal(func(f *faults) { f.cut = false })
}

// Heal ends all faults. The bytes that were kept back are delivered.
func (p *Proxy) Heal() {
	p.tb.Helper()
	p.heal(func(f *faults) {
		*f = healthy
		for l := range p.links {
			l.left.Store(f.after)
		}
	})
}

// heal calls change, which ends a cut, and listens again.
func (p *Proxy) heal(change func(*faults)) {
	p.tb.Helper()
	p.listening.Lock()
	defer p.listening.Unlock()
	var closed bool
	p.set(func(f *faults) {
		change(f)
		closed = p.closed
	})
	if p.listener != nil || closed {
		return
	}
	if err := p.listen(); err != nil {
		p.tb.Fatalf("faultproxy: heal: %v", err)
	}
}

// set changes the faults and wakes all links.
func (p *Proxy) set(change func(*faults)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.faults)
	close(p.changed)
	p.changed = make(chan struct{})
}

// now returns the faults, and a channel that is closed when they change.
func (p *Proxy) now() (faults, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults, p.changed
}

// listen starts to accept connections. p.listening is held, or p is not shared yet.
func (p *Proxy) listen() error {
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		return err
	}
	deaf := make(chan struct{})
	p.listener, p.deaf = l, deaf
	p.wg.Go(func() {
		defer close(deaf)
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			p.accept(conn)
		}
	})
	return nil
}

// unlisten stops accepting connections. p.listening is held. p.mu is not held, as the
// goroutine that accepts may wait for p.mu.
func (p *Proxy) unlisten() {
	if p.listener == nil {
		return
	}
	p.listener.Close()
	// The kernel keeps the port open until the last Accept has returned.
	<-p.deaf
	p.listener = nil
}

// reset resets all connections. p.mu is held.
func (p *Proxy) reset() {
	for l := range p.links {
		l.reset()
		delete(p.links, l)
	}
}

// accept starts to serve a connection.
func (p *Proxy) accept(client net.Conn) {
	l := newLink(p, client)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.accepted.Add(1)
	if p.closed || p.faults.cut {
		// The connection was made while the listener was being closed.
		l.reset()
		return
	}
	l.left.Store(p.faults.after)
	p.links[l] = struct{}{}
	p.wg.Go(func() {
		l.serve(client)
		p.mu.Lock()
		delete(p.links, l)
		p.mu.Unlock()
	})
}
