package naming

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// leaseLoad is how many endpoints share a lease. One renewal is much cheaper than a
// hundred. But the cost of a lease in the registry grows with the endpoints under it,
// and endpoints that share a lease are lost together.
const leaseLoad = 100

// callTimeout bounds a call to the store on behalf of a lease or a registration. A call
// that gets no answer leaves time for another one before the lease ends.
func callTimeout(ttl time.Duration) time.Duration {
	return min(max(ttl/3, time.Second), 10*time.Second)
}

// leases are the leases of a Client's registrations.
type leases struct {
	client *Client // set once, by New

	mu   sync.Mutex                       // also guards fields of every sharedLease
	open map[time.Duration][]*sharedLease // by the requested time to live; guarded by mu
}

// sharedLease is a lease that up to leaseLoad registrations share, and the goroutine
// that renews it.
type sharedLease struct {
	pool   *leases
	ttl    time.Duration // requested
	cancel context.CancelFunc
	ended  chan struct{} // closed when the lease has ended

	// Set by run, and read by others after ready was closed.
	ready   chan struct{}
	lease   Lease
	granted time.Duration // its time to live, checked
	err     error

	// Guarded by leases.mu.
	members  int
	closed   bool // not in the pool
	orphans  map[orphan]struct{}
	removing orphan        // is being removed while removed is not nil
	removed  chan struct{} // closed when the removal in progress is over

	renewal struct {
		mu      sync.Mutex
		overdue error         // not nil: not renewed for longer than the time to live, and why
		changed chan struct{} // closed, and replaced, when overdue changes
	}
}

// orphan is an endpoint under the lease whose registration was closed while the
// registry could not be reached.
type orphan struct{ service, id string }

// acquire returns a lease with room for one more member, which must release it. It does
// not wait: the caller waits for ready.
func (p *leases) acquire(ttl time.Duration) *sharedLease {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.open[ttl] {
		if l.members < leaseLoad {
			l.members++
			return l
		}
	}
	ctx, cancel := context.WithCancel(p.client.ctx)
	l := &sharedLease{
		pool: p, ttl: ttl, cancel: cancel, members: 1,
		ready: make(chan struct{}),
		ended: make(chan struct{}),
	}
	l.renewal.changed = make(chan struct{})
	if p.open == nil {
		p.open = make(map[time.Duration][]*sharedLease)
	}
	p.open[ttl] = append(p.open[ttl], l)
	p.client.wg.Go(func() { l.run(ctx) })
	return l
}

// release ends the membership that acquire began, and reports whether the caller was the
// last member. Renewals then stop, and the caller may revoke the lease.
func (l *sharedLease) release() (last bool) {
	p := l.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	l.members--
	if l.members > 0 {
		return false
	}
	l.leavePool()
	l.cancel()
	return true
}

// leavePool removes the lease from the pool. leases.mu is held.
func (l *sharedLease) leavePool() {
	if l.closed {
		return
	}
	l.closed = true
	open := l.pool.open
	open[l.ttl] = slices.DeleteFunc(open[l.ttl], func(o *sharedLease) bool { return o == l })
}

// end says that the lease has ended, and closes ended for the members. It may be called
// more than once.
func (l *sharedLease) end() {
	p := l.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	l.leavePool()
	l.cancel()
	select {
	case <-l.ended:
	default:
		close(l.ended)
	}
}

// addOrphan has an endpoint removed from the registry after the next renewal. Otherwise
// the lease would keep the endpoint alive for as long as it has another member.
func (l *sharedLease) addOrphan(service, id string) {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	if l.orphans == nil {
		l.orphans = make(map[orphan]struct{})
	}
	l.orphans[orphan{service, id}] = struct{}{}
}

// dropOrphan undoes addOrphan before the endpoint is put again, and waits for a removal
// in progress. It reports false if ctx is done before the removal is over.
func (l *sharedLease) dropOrphan(ctx context.Context, service, id string) bool {
	o := orphan{service, id}
	for {
		removed := l.cancelRemoval(o)
		if removed == nil {
			return true
		}
		select {
		case <-removed:
		case <-ctx.Done():
			return false
		}
	}
}

// cancelRemoval removes o from the orphans. If o is being removed from the registry, it
// returns a channel that is closed when the removal is over, and otherwise nil.
func (l *sharedLease) cancelRemoval(o orphan) (removed <-chan struct{}) {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	delete(l.orphans, o)
	if l.removed != nil && l.removing == o {
		return l.removed
	}
	return nil
}

// removeOrphans removes the orphans from the registry, until one removal fails.
func (l *sharedLease) removeOrphans(ctx context.Context) {
	for {
		o, ok := l.beginRemoval()
		if !ok {
			return
		}
		call, cancel := context.WithTimeout(ctx, callTimeout(l.ttl))
		err := l.pool.client.store.Apply(call, o.service, Change{Op: Delete, Endpoint: Endpoint{ID: o.id}, Lease: l.lease})
		cancel()
		l.endRemoval(o, err == nil)
		if err != nil {
			return
		}
	}
}

// beginRemoval returns an orphan to remove, or false if no orphan is left.
func (l *sharedLease) beginRemoval() (o orphan, ok bool) {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	for o = range l.orphans {
		delete(l.orphans, o)
		l.removing, l.removed = o, make(chan struct{})
		return o, true
	}
	return o, false
}

// endRemoval ends the removal of o, which is tried again later if it failed.
func (l *sharedLease) endRemoval(o orphan, ok bool) {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	if !ok {
		l.orphans[o] = struct{}{}
	}
	close(l.removed)
	l.removed = nil
}

// grant requests a lease from the store, and checks its time to live. It calls TTL once,
// because the pace of the renewals follows from the time to live. A lease with too short
// a time to live is refused, and one with too long a time to live is renewed as one of
// the longest that is allowed.
func (l *sharedLease) grant(ctx context.Context) error {
	call, cancel := context.WithTimeout(ctx, callTimeout(l.ttl))
	defer cancel()
	lease, err := l.pool.client.store.Grant(call, l.ttl)
	if l.pool.client.answered(err) != nil {
		return SafeError(err)
	}
	if lease == nil {
		return errNoLease
	}
	l.lease = lease
	ttl := lease.TTL()
	if ttl < minTTL {
		_ = l.revoke(ctx)
		return fmt.Errorf("the store broke its contract: asked for a lease of %v, it granted one of %v; less than %v is refused", l.ttl, ttl, minTTL)
	}
	l.granted = min(ttl, maxTTL)
	return nil
}

var errNoLease = errors.New("the store broke its contract: it granted a nil lease")

// revoke revokes a lease without members. If that fails, the lease ends by itself.
func (l *sharedLease) revoke(ctx context.Context) error {
	call, cancel := context.WithTimeout(ctx, callTimeout(l.ttl))
	defer cancel()
	return l.lease.Revoke(call)
}

// run requests the lease, and renews it until ctx is done or the lease has ended.
func (l *sharedLease) run(ctx context.Context) {
	l.err = l.grant(ctx)
	if l.err != nil {
		l.closePool()
	}
	close(l.ready)
	if l.err == nil {
		l.keepAlive(ctx)
	}
}

// closePool removes the lease from the pool, so that it gets no new members.
func (l *sharedLease) closePool() {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	l.leavePool()
}

// keepAlive renews the lease. It goes on trying when the time to live is over: a
// registry that was down may have kept the lease, and otherwise answers that the lease
// is lost.
func (l *sharedLease) keepAlive(ctx context.Context) {
	ttl := l.granted
	renewed := time.Now()
	var b backoff
	for wait := jitter(ttl / 3); sleep(ctx, wait); {
		call, cancel := context.WithTimeout(ctx, callTimeout(ttl))
		begun := time.Now()
		err := SafeError(l.pool.client.answered(l.lease.Renew(call)))
		cancel()
		switch {
		case err == nil:
			renewed = begun
			b.reset()
			l.setOverdue(nil)
			l.removeOrphans(ctx)
			wait = jitter(ttl / 3)
		case errors.Is(err, ErrLeaseLost):
			l.end()
			return
		default:
			wait = b.delay()
			if time.Since(renewed) >= ttl {
				l.setOverdue(fmt.Errorf("not renewed for longer than its time to live of %v: %w", ttl, err))
			} else {
				// A registry that is back in time must find the lease renewed in time.
				wait = min(wait, ttl/6)
			}
		}
	}
}

// setOverdue says why the lease can be assumed to have ended. nil means that the lease
// lives.
func (l *sharedLease) setOverdue(err error) {
	r := &l.renewal
	r.mu.Lock()
	defer r.mu.Unlock()
	if (r.overdue == nil) == (err == nil) {
		return
	}
	r.overdue = err
	close(r.changed)
	r.changed = make(chan struct{})
}

// overdueError returns why the lease can be assumed to have ended, or nil, and a channel
// that is closed when that changes.
func (l *sharedLease) overdueError() (changed <-chan struct{}, overdue error) {
	r := &l.renewal
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed, r.overdue
}
