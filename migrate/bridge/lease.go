package bridge

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/naming-go/naming"
)

// perLease is how many copies share a lease. A lost lease costs that many puts.
const perLease = 250

// callTimeout bounds every call of a registry.
const callTimeout = 30 * time.Second

// sharedLease is a lease that copies are under.
type sharedLease struct {
	naming.Lease

	// Guarded by leasePool.mu.
	copies int
	lost   bool
	due    time.Time // when the lease is to be renewed
}

// leasePool are the leases of one term. A lease ends by its time to live only: copies
// outlive the Bridge, so the pool revokes nothing.
type leasePool struct {
	store naming.Store
	ttl   time.Duration
	// granting has one place: of several workers that need a lease, one makes it.
	granting chan struct{}
	// lostAny is called without a lock after leases were lost.
	lostAny func()
	// failed is called without a lock after a renewal failed.
	failed func(error)

	mu     sync.Mutex
	leases []*sharedLease
	wake   chan struct{} // capacity 1: has a token when a lease was added
}

func newLeasePool(store naming.Store, ttl time.Duration) *leasePool {
	return &leasePool{store: store, ttl: ttl, granting: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
}

// take returns a lease with room, and counts one copy more for it.
func (p *leasePool) take(ctx context.Context) (*sharedLease, error) {
	if l := p.withRoom(); l != nil {
		return l, nil
	}
	select {
	case p.granting <- struct{}{}:
		defer func() { <-p.granting }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if l := p.withRoom(); l != nil {
		return l, nil
	}
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	lease, err := p.store.Grant(bounded, p.ttl)
	if err != nil {
		return nil, err
	}
	return p.add(lease), nil
}

// withRoom returns a lease that has room for a copy, which it counts, or nil.
func (p *leasePool) withRoom() *sharedLease {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.leases) - 1; i >= 0; i-- { // the newest has room most often
		if l := p.leases[i]; !l.lost && l.copies < perLease {
			l.copies++
			return l
		}
	}
	return nil
}

func (p *leasePool) add(lease naming.Lease) *sharedLease {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &sharedLease{Lease: lease, copies: 1, due: time.Now().Add(renewAfter(lease.TTL()))}
	p.leases = append(p.leases, l)
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return l
}

// renewAfter returns when a lease is renewed: after a third of its time, with jitter, so
// that leases made together are not renewed together.
func renewAfter(ttl time.Duration) time.Duration {
	d := ttl / 3
	return d - rand.N(d/5+1)
}

// release counts one copy less.
func (p *leasePool) release(l *sharedLease) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.copies--
}

// isLost reports whether a lease has ended.
func (p *leasePool) isLost(l *sharedLease) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return l.lost
}

// run renews the leases until ctx is done.
func (p *leasePool) run(ctx context.Context) {
	for ctx.Err() == nil {
		l, wait := p.nextDue()
		if l != nil {
			p.renew(ctx, l)
			continue
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-p.wake:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// nextDue returns a lease that is to be renewed now, or how long to wait for one. It drops
// leases that nothing is under: they lapse.
func (p *leasePool) nextDue() (*sharedLease, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, wait := time.Now(), p.ttl
	for _, l := range slices.Clone(p.leases) {
		d := l.due.Sub(now)
		switch {
		case d > 0:
			wait = min(wait, d)
		case l.copies == 0:
			p.drop(l)
		default:
			return l, 0
		}
	}
	return nil, wait
}

// renew renews a lease. A failure that is not its end is tried again soon.
func (p *leasePool) renew(ctx context.Context, l *sharedLease) {
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := l.Renew(bounded)
	if ctx.Err() != nil {
		return
	}
	if p.settle(l, err) {
		p.lostAny()
	}
	if err != nil && !errors.Is(err, naming.ErrLeaseLost) {
		p.failed(err)
	}
}

// settle notes the result of a renewal. It reports whether the lease was lost.
func (p *leasePool) settle(l *sharedLease, err error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil:
		l.due = time.Now().Add(renewAfter(l.TTL()))
		return false
	case errors.Is(err, naming.ErrLeaseLost):
		l.lost = true
		p.drop(l)
		return true
	}
	l.due = time.Now().Add(l.TTL()/20 + rand.N(time.Second))
	return false
}

// drop removes a lease from the list. mu is held.
func (p *leasePool) drop(l *sharedLease) {
	p.leases = slices.DeleteFunc(p.leases, func(other *sharedLease) bool { return other == l })
}
