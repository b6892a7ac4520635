// Package fault disturbs the link between a store and its registry, for the tests of a
// backend.
//
// A [Proxy] provides what the fields Interrupt, Silence and Down of a
// [github.com/naming-go/naming/conformance.Harness] need, for any registry that is
// reached over TCP. The test starts a Proxy for the address of the server, and gives
// the client the address of the Proxy.
package fault

import (
	"sync"
	"testing"
	"time"

	"github.com/naming-go/naming/internal/faultproxy"
)

// Proxy forwards TCP connections to one server, and fails as networks do. Several faults
// may last at once: each lasts until the function that it returned is called. All
// methods may be called concurrently, at any time, also after Close.
type Proxy struct {
	link *faultproxy.Proxy

	mu     sync.Mutex // held while a fault of link begins or ends
	silent int        // guarded by mu: the calls of Silence that last
	down   int        // guarded by mu: the calls of Down that last
	slows  int        // guarded by mu: the calls of Slow so far
}

// New starts a proxy on 127.0.0.1 for the server at target, which is host:port. The
// proxy is closed when tb ends. New fails tb if it finds no port to listen on.
func New(tb testing.TB, target string) *Proxy {
	tb.Helper()
	return &Proxy{link: faultproxy.New(tb, target)}
}

// Addr returns the address that clients dial, as host:port. It never changes.
func (p *Proxy) Addr() string { return p.link.Addr() }

// Cut resets all open connections. New connections are accepted. It suits
// Harness.Interrupt for a store whose watches end with their connection.
func (p *Proxy) Cut() { p.link.Reset() }

// Silence delivers nothing in either direction until heal is called. Connections stay
// open, and new connections are accepted. heal delivers the bytes that were kept back.
// Silence suits Harness.Silence. Only the first call of heal has an effect.
func (p *Proxy) Silence() (heal func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.silent++; p.silent == 1 {
		p.link.BlackHole()
	}
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.silent--; p.silent == 0 {
			p.link.Release()
		}
	})
}

// Down resets all connections and refuses new connections until up is called. It suits
// Harness.Down. Only the first call of up has an effect. up fails the test if another
// program uses the port meanwhile.
func (p *Proxy) Down() (up func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down++; p.down == 1 {
		p.link.Cut()
	}
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.down--; p.down == 0 {
			p.link.Restore()
		}
	})
}

// Slow delays all bytes by latency, and delivers at most bytesPerSecond in each
// direction of each connection, until heal is called. 0 bytesPerSecond means no limit.
// A later call of Slow replaces an earlier one, whose heal then has no effect. Only the
// first call of heal has an effect.
func (p *Proxy) Slow(latency time.Duration, bytesPerSecond int) (heal func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slows++
	own := p.slows
	p.link.Delay(latency)
	p.link.Throttle(bytesPerSecond)
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.slows == own {
			p.link.Delay(0)
			p.link.Throttle(0)
		}
	})
}

// Accepted returns the number of connections that clients have made so far.
func (p *Proxy) Accepted() int { return int(p.link.Stats().Accepted) }

// Delivered returns the number of bytes delivered so far, to the server and to
// clients.
func (p *Proxy) Delivered() (toServer, toClients int64) {
	s := p.link.Stats()
	return s.Up, s.Down
}

// Close resets all connections and refuses new connections for good. It returns when no
// goroutine of the proxy is left. The end of the test calls Close.
func (p *Proxy) Close() { p.link.Close() }
