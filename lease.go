package naming

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// leaseLoad is how many endpoints share a lease. To renew one lease is much
// cheaper than a hundred; but what a registry does to a lease grows with what
// the lease holds, and what shares a lease is lost together.
const leaseLoad = 100

// callTimeout bounds a call to the store on behalf of a lease or registration,
// so that one that gets no answer leaves time for another before the lease ends.
func callTimeout(ttl time.Duration) time.Duration {
	return min(max(ttl/3, time.Second), 10*time.Second)
}

// leases are the leases of a Client's registrations.
type leases struct {
	client *Client
	mu     sync.Mutex
	open   map[time.Duration][]*sharedLease // by the time to live asked for
}

// sharedLease is a lease that up to leaseLoad registrations share, and the
// goroutine that renews it for them.
type sharedLease struct {
	pool   *leases
	ttl    time.Duration // asked for
	cancel context.CancelFunc

	// Guarded by leases.mu.
	members  int
	closed   bool // not in the pool any more
	orphans  map[orphan]struct{}
	removing orphan        // is being removed while removed is not nil
	removed  chan struct{} // closed when the removal in progress is over

	ready   chan struct{} // closed when the following are set
	lease   Lease
	granted time.Duration // its time to live, checked
	err     error

	gone chan struct{} // closed when the lease has ended

	mu      sync.Mutex
	overdue error         // not nil: not renewed for longer than its time to live, and why
	changed chan struct{} // closed, and replaced, when overdue changes
}

// take returns a lease with room for one more member, which must leave it. It
// does not wait: the caller awaits ready.
func (p *leases) take(ttl time.Duration) *sharedLease {
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
		ready:   make(chan struct{}),
		gone:    make(chan struct{}),
		changed: make(chan struct{}),
	}
	if p.open == nil {
		p.open = make(map[time.Duration][]*sharedLease)
	}
	p.open[ttl] = append(p.open[ttl], l)
	p.client.wg.Go(func() { l.run(ctx) })
	return l
}

// leave gives up what take returned, and reports whether that was the last
// member's: the lease is then not renewed any more and may be revoked.
func (l *sharedLease) leave() (last bool) {
	p := l.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	l.members--
	if l.members > 0 {
		return false
	}
	l.drop()
	l.cancel()
	return true
}

// drop takes the lease out of the pool. leases.mu is held.
func (l *sharedLease) drop() {
	if l.closed {
		return
	}
	l.closed = true
	rest := l.pool.open[l.ttl][:0:0]
	for _, o := range l.pool.open[l.ttl] {
		if o != l {
			rest = append(rest, o)
		}
	}
	l.pool.open[l.ttl] = rest
}

// lost notes that the lease has ended, and tells the members. It may be called
// more than once.
func (l *sharedLease) lost() {
	p := l.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	l.drop()
	l.cancel()
	select {
	case <-l.gone:
	default:
		close(l.gone)
	}
}

// orphan is an endpoint under the lease whose registration was closed while the
// registry could not be told.
type orphan struct{ service, id string }

// orphan makes the lease remove an endpoint, which otherwise it would keep alive
// as long as another member does.
func (l *sharedLease) orphan(service, id string) {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	if l.orphans == nil {
		l.orphans = make(map[orphan]struct{})
	}
	l.orphans[orphan{service, id}] = struct{}{}
}

// adopt sees to it that an endpoint is not removed as an orphan any more, before
// it is put again. It reports false if ctx is done before that is certain.
func (l *sharedLease) adopt(ctx context.Context, service, id string) bool {
	o := orphan{service, id}
	for {
		l.pool.mu.Lock()
		delete(l.orphans, o)
		removed := l.removed
		busy := removed != nil && l.removing == o
		l.pool.mu.Unlock()
		if !busy {
			return true
		}
		select {
		case <-removed:
		case <-ctx.Done():
			return false
		}
	}
}

// removeOrphans tries to remove the orphans there are.
func (l *sharedLease) removeOrphans(ctx context.Context) {
	mu := &l.pool.mu
	for {
		mu.Lock()
		for l.removing = range l.orphans {
			break
		}
		o, some := l.removing, len(l.orphans) > 0
		delete(l.orphans, o)
		removed := make(chan struct{})
		if some {
			l.removed = removed
		}
		mu.Unlock()
		if !some {
			return
		}
		call, cancel := context.WithTimeout(ctx, callTimeout(l.ttl))
		err := l.pool.client.store.Apply(call, o.service, Change{Op: Delete, Endpoint: Endpoint{ID: o.id}, Lease: l.lease})
		cancel()
		mu.Lock()
		l.removed = nil
		if err != nil {
			l.orphans[o] = struct{}{}
		}
		mu.Unlock()
		close(removed)
		if err != nil {
			return
		}
	}
}

// grant asks the store for a lease, and checks what it says of it. TTL is asked
// once: the pace of the renewals follows from it, so that of a store which gives
// nonsense is refused, and none is renewed more often than three times a second or
// less often than three times in the longest time to live there is.
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

// revoke ends the lease, of which nothing is expected any longer. If that fails the
// lease ends by itself.
func (l *sharedLease) revoke(ctx context.Context) error {
	call, cancel := context.WithTimeout(ctx, callTimeout(l.ttl))
	defer cancel()
	return l.lease.Revoke(call)
}

// run grants the lease and renews it until ctx is done or the lease has ended.
// It does not stop trying when the time to live is over: a registry that was
// down may have kept the lease, and if not it will say so.
func (l *sharedLease) run(ctx context.Context) {
	if l.err = l.grant(ctx); l.err != nil {
		l.pool.mu.Lock()
		l.drop()
		l.pool.mu.Unlock()
		close(l.ready)
		return
	}
	close(l.ready)

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
			l.lost()
			return
		default:
			wait = b.delay()
			if time.Since(renewed) >= ttl {
				l.setOverdue(fmt.Errorf("not renewed for longer than its time to live of %v: %w", ttl, err))
			} else {
				// Often enough to find the registry that is back in time.
				wait = min(wait, ttl/6)
			}
		}
	}
}

func (l *sharedLease) setOverdue(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if (l.overdue == nil) == (err == nil) {
		return
	}
	l.overdue = err
	close(l.changed)
	l.changed = make(chan struct{})
}

// state returns why the lease can be assumed to have ended, nil if it can not,
// and a channel that is closed when that changes.
func (l *sharedLease) state() (changed <-chan struct{}, overdue error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed, l.overdue
}
