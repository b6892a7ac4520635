package consul

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/naming-go/naming"
)

// renewAtOnce is how many registrations of a lease are renewed at once. More would
// renew a large lease sooner, and take the requests of the Store's other leases.
const renewAtOnce = 8

// Renew implements [naming.Lease].
func (l *lease) Renew(ctx context.Context) error {
	if err := l.renew(ctx); err != nil {
		return fmt.Errorf("consul: renew: %w", describe(ctx, err))
	}
	return nil
}

func (l *lease) renew(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !l.live() {
		return l.lost(ctx)
	}
	token, err := l.store.token(ctx)
	if err != nil {
		return err
	}
	all := l.all()
	if err := l.renewAll(ctx, all, token); err != nil {
		return err
	}
	if len(all) == 0 {
		if err := l.store.ping(ctx); err != nil {
			return err
		}
	}
	if !l.prolong() {
		// The lease expired meanwhile, and Grant may have removed it from the set.
		return l.lost(ctx)
	}
	return nil
}

// renewAll renews registrations. If the agent has none of them left, the lease has
// ended.
func (l *lease) renewAll(ctx context.Context, all []*registration, token string) error {
	var kept, gone atomic.Int64
	err := forEach(ctx, all, func(ctx context.Context, r *registration) error {
		result, err := l.renewOne(ctx, r, token)
		switch result {
		case renewalKept:
			kept.Add(1)
		case renewalGone:
			gone.Add(1)
		}
		return err
	})
	if err != nil {
		return err
	}
	if n := gone.Load(); n > 0 && kept.Load() == 0 {
		l.end()
		return fmt.Errorf("%w: the agent has forgotten all of its %d endpoints", naming.ErrLeaseLost, n)
	}
	return nil
}

// renewal is what renewing a registration showed.
type renewal int

const (
	renewalUnknown renewal = iota // an error, or the registration was removed or replaced meanwhile
	renewalKept                   // the agent has the registration
	renewalGone                   // the registration was in the catalogue, and the agent has forgotten it
)

// renewOne makes the check of a registration pass.
func (l *lease) renewOne(ctx context.Context, r *registration, token string) (renewal, error) {
	err := l.store.pass(ctx, r.service.ID)
	if unknown(err) {
		err = l.passAgain(ctx, r)
	}
	current, listed, rotated := l.compareToken(r, token)
	switch {
	case !current:
		return renewalUnknown, nil
	case unknown(err):
		l.forgetExactly(r)
		if listed {
			return renewalGone, nil
		}
		return renewalUnknown, nil
	case err != nil:
		return renewalUnknown, err
	case rotated:
		err = l.reregister(ctx, r)
	}
	return renewalKept, err
}

// compareToken reports whether a registration is under the lease, whether it was in
// the catalogue, and whether it was made with another token.
func (l *lease) compareToken(r *registration, token string) (current, listed, rotated bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.registrations[r.service.ID] == r, r.listed, r.token != token
}

// lost ends a renewal of a lease that has ended.
func (l *lease) lost(ctx context.Context) error {
	if err := l.removeRest(ctx); err != nil {
		return err
	}
	return naming.ErrLeaseLost
}

// prolong starts the time to live again, and reports false if the lease has ended. The
// checks got their full time before. So when the lease expires, its endpoints are no
// longer listed.
func (l *lease) prolong() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.liveLocked() {
		return false
	}
	l.deadline = time.Now().Add(l.ttl)
	return true
}

// removeRest removes what is left of a lease that has ended, before Renew returns
// ErrLeaseLost. Two things may have made a check pass again: an agent that was
// restarted starts the time of its checks again, and a request that was made in a
// silence arrives when the silence is over. A registration in maintenance mode stays,
// with a critical check, because the next registration takes over the maintenance.
func (l *lease) removeRest(ctx context.Context) error {
	all := l.all()
	if len(all) == 0 {
		return l.store.ping(ctx)
	}
	return forEach(ctx, all, func(ctx context.Context, r *registration) error {
		id := r.service.ID
		out, err := l.store.inMaintenance(ctx, id)
		switch {
		case err != nil:
		case out:
			err = l.store.fail(ctx, id)
		default:
			err = l.store.deregister(ctx, id)
		}
		if err != nil && !unknown(err) {
			return err
		}
		l.forgetExactly(r)
		return nil
	})
}

// forEach calls f for all registrations, renewAtOnce at a time, until a call has
// failed. It returns the first error after all calls have returned.
func forEach(ctx context.Context, all []*registration, f func(context.Context, *registration) error) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(renewAtOnce)
	for _, r := range all {
		g.Go(func() error {
			if err := gctx.Err(); err != nil {
				return err // another call has failed
			}
			return f(gctx, r)
		})
	}
	err := g.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// passAgain makes a check pass when no call is about to put or remove its
// registration. If only the check was removed, it is made again: without a check, the
// endpoint would stay listed for ever.
func (l *lease) passAgain(ctx context.Context, r *registration) error {
	release, err := l.store.locks.acquire(ctx, r.name)
	if err != nil {
		return err
	}
	defer release()
	err = l.store.pass(ctx, r.service.ID)
	if !unknown(err) {
		return err
	}
	if known, e := l.store.hasRegistered(ctx, r.service.ID); e != nil {
		return e
	} else if !known {
		return err
	}
	return l.registerCurrent(ctx, r)
}

// reregister makes a registration again, with another token.
func (l *lease) reregister(ctx context.Context, r *registration) error {
	release, err := l.store.locks.acquire(ctx, r.name)
	if err != nil {
		return err
	}
	defer release()
	return l.registerCurrent(ctx, r)
}

// registerCurrent makes a registration again if it is still under the lease. The
// caller holds the lock of the service.
func (l *lease) registerCurrent(ctx context.Context, r *registration) error {
	if !l.isCurrent(r) {
		return nil
	}
	return l.store.register(ctx, r)
}

func (l *lease) isCurrent(r *registration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.registrations[r.service.ID] == r && !l.ended
}
