// Package faultproxy is a TCP proxy for tests that does to connections what
// networks do: it cuts them, lets them fall silent, delays and throttles them.
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

// Proxy forwards connections to one target. Its methods can be called at any
// time, by several goroutines at once. Faults add up until Heal ends them all.
type Proxy struct {
	tb     testing.TB
	addr   string
	target string
	ctx    context.Context // over once the proxy is closed
	cancel context.CancelFunc

	up, down atomic.Int64 // bytes delivered
	accepted atomic.Int64

	wg sync.WaitGroup // every goroutine of the proxy

	listening sync.Mutex    // held before mu
	listener  net.Listener  // nil while cut
	deaf      chan struct{} // closed when nothing accepts from it any more

	mu      sync.Mutex
	faults  faults
	changed chan struct{} // closed and replaced when faults change
	links   map[*link]struct{}
	closed  bool
}

// faults is what is wrong with the network.
type faults struct {
	held  [2]bool // by direction
	delay time.Duration
	rate  int // bytes per second, 0 for no limit
	cut   bool
	// after is how many bytes a new connection carries to the client before
	// it is reset, negative for no limit.
	after int64
}

var healthy = faults{after: -1}

// direction indexes what there is one of for each.
type direction int

const (
	upstream   direction = iota // from the client to the target
	downstream                  // from the target to the client
)

// Stats counts what a proxy did since it was made.
type Stats struct {
	// Accepted is the number of connections that clients made.
	Accepted int64
	// Open is how many of them there are now.
	Open int
	// Up is the number of bytes delivered to the target, Down to clients.
	Up, Down int64
}

// New starts a proxy on 127.0.0.1 for the server at target, host:port. It is
// closed when tb ends.
func New(tb testing.TB, target string) *Proxy {
	tb.Helper()
	p := newProxy(tb, target)
	// After a Cut the port has to be had again, so the kernel must not give it
	// to somebody who asks for any.
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

// Addr returns the address clients dial.
func (p *Proxy) Addr() string { return p.addr }

// Stats returns the counts.
func (p *Proxy) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{Accepted: p.accepted.Load(), Open: len(p.links), Up: p.up.Load(), Down: p.down.Load()}
}

// Close resets all connections and refuses new ones, for good. It returns when
// no goroutine of the proxy is left.
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

// Cut resets all connections and refuses new ones.
func (p *Proxy) Cut() {
	p.listening.Lock()
	defer p.listening.Unlock()
	p.set(func(f *faults) {
		f.cut = true
		p.reset()
	})
	p.unlisten()
}

// Reset resets all connections that there are. New ones are accepted.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reset()
}

// BlackHole delivers nothing more in either direction, on connections that
// there are and on new ones, which are accepted but not made to the target. Not
// even the end of a connection reaches the other side. As TCP repeats what is
// lost, nothing is: Heal delivers it, if the connection lasts so long.
func (p *Proxy) BlackHole() { p.set(func(f *faults) { f.held = [2]bool{true, true} }) }

// DropUpstream is BlackHole in one direction only: the target hears nothing of
// its clients, and they hear the target.
func (p *Proxy) DropUpstream() { p.set(func(f *faults) { f.held[upstream] = true }) }

// DropDownstream is BlackHole in one direction only: clients hear nothing of
// the target, and it hears them.
func (p *Proxy) DropDownstream() { p.set(func(f *faults) { f.held[downstream] = true }) }

// Delay delivers everything, in each direction, d after it came.
func (p *Proxy) Delay(d time.Duration) { p.set(func(f *faults) { f.delay = d }) }

// Throttle limits each direction of each connection to a number of bytes per
// second; 0 is no limit.
func (p *Proxy) Throttle(bytesPerSecond int) {
	p.set(func(f *faults) { f.rate = max(bytesPerSecond, 0) })
}

// CutAfter resets every connection, those that there are and new ones, as soon
// as it has delivered n more bytes to its client; with 0, when the first would
// be. An answer ends in its middle, while the request took effect.
func (p *Proxy) CutAfter(n int64) {
	p.set(func(f *faults) {
		f.after = max(n, 0)
		for l := range p.links {
			l.left.Store(f.after)
		}
	})
}

// Release ends BlackHole, DropUpstream and DropDownstream, and no other fault.
// What was held back is delivered.
func (p *Proxy) Release() { p.set(func(f *faults) { f.held = [2]bool{} }) }

// Restore ends Cut, and no other fault.
func (p *Proxy) Restore() {
	p.tb.Helper()
	p.heal(func(f *faults) { f.cut = false })
}

// Heal ends all faults. What was held back is delivered.
func (p *Proxy) Heal() {
	p.tb.Helper()
	p.heal(func(f *faults) {
		*f = healthy
		for l := range p.links {
			l.left.Store(f.after)
		}
	})
}

// heal changes the faults to some without a cut, and listens.
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

// set changes the faults and tells everybody.
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

// listen begins to accept connections; p.listening is held, or p is not shared
// yet.
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

// unlisten refuses connections; p.listening is held, and p.mu is not.
func (p *Proxy) unlisten() {
	if p.listener == nil {
		return
	}
	p.listener.Close()
	// Until the last Accept has returned the kernel keeps the port open.
	<-p.deaf
	p.listener = nil
}

// reset resets all connections; p.mu is held.
func (p *Proxy) reset() {
	for l := range p.links {
		l.reset()
		delete(p.links, l)
	}
}

// accept serves a connection until it ends.
func (p *Proxy) accept(client net.Conn) {
	l := newLink(p, client)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.accepted.Add(1)
	if p.closed || p.faults.cut {
		// It came while the listener was being closed.
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
