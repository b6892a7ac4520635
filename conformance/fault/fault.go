// Package fault disturbs the link between a store and its registry, for the tests
// of a backend. It is what the fields Interrupt, Silence and Down of a
// [github.com/naming-go/naming/conformance.Harness] need, for any registry that is
// reached over TCP.
//
// A [Proxy] stands between the client and the server: the test starts one for the
// server's address, and gives the client the proxy's address.
package fault

import (
	"sync"
	"testing"
	"time"

	"github.com/naming-go/naming/internal/faultproxy"
)

// Proxy forwards TCP connections to one server, and fails as networks do. Faults
// add up: each lasts until the function that it returned is called. All methods
// may be called concurrently, at any time.
type Proxy struct {
	link *faultproxy.Proxy

	mu     sync.Mutex // held while a fault of link begins or ends
	silent int        // how many Silence last
	down   int        // how many Down last
	slow   int        // which Slow counts; 0 is none
	slows  int        // how many Slow there were
}

// New starts a proxy on 127.0.0.1 for the server at target, which is host:port.
// It is closed when tb ends. New fails tb if there is no port to listen on.
func New(tb testing.TB, target string) *Proxy {
	tb.Helper()
	return &Proxy{link: faultproxy.New(tb, target)}
}

// Addr returns the address that clients dial, as host:port. It never changes.
func (p *Proxy) Addr() string { return p.link.Addr() }

// Cut resets all connections that there are. New ones are accepted. It suits
// Harness.Interrupt for a store whose watches end with their connection.
func (p *Proxy) Cut() { p.link.Reset() }

// Silence delivers nothing in either direction until heal is called: connections
// stay open, and new ones are accepted. Heal delivers what was held back. It suits
// Harness.Silence. Only the first call of heal has an effect.
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

// Down resets all connections and refuses new ones until up is called. It suits
// Harness.Down. Only the first call of up has an effect. Up fails the test if
// another program has taken the port meanwhile.
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

// Slow delivers everything, in each direction, latency later, and at most
// bytesPerSecond of each connection and direction; 0 is no limit. The last call
// counts, until its heal is called. Only the first call of heal has an effect.
func (p *Proxy) Slow(latency time.Duration, bytesPerSecond int) (heal func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slows++
	mine := p.slows
	p.slow = mine
	p.link.Delay(latency)
	p.link.Throttle(bytesPerSecond)
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.slow == mine {
			p.link.Delay(0)
			p.link.Throttle(0)
		}
	})
}

// Accepted returns the number of connections that clients made so far.
func (p *Proxy) Accepted() int { return int(p.link.Stats().Accepted) }

// Delivered returns the number of bytes delivered so far, to the server and to
// clients.
func (p *Proxy) Delivered() (toServer, toClients int64) {
	s := p.link.Stats()
	return s.Up, s.Down
}

// Close resets all connections and refuses new ones for good. It returns when no
// goroutine of the proxy is left. The test's end calls it.
func (p *Proxy) Close() { p.link.Close() }
