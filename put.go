package naming

import (
	"context"
	"errors"
)

// checkLease reports whether the endpoint's lease has ended, and then gives the lease
// up. Otherwise it reports whether the lease can be assumed to have ended.
func (k *keeper) checkLease() (lost, overdue bool) {
	if k.lease == nil {
		return true, false
	}
	select {
	case <-k.lease.ended:
		k.lease.release()
		k.lease = nil
		return true, false
	default:
	}
	_, err := k.lease.overdueError()
	return false, err != nil
}

// dropLease gives up the lease. If an earlier put that failed may have stored the
// endpoint after all, the lease removes the endpoint.
func (k *keeper) dropLease(ctx context.Context) {
	l := k.lease
	k.lease = nil
	if l == nil {
		return
	}
	if k.g.intent.isListed() {
		k.g.claim.addOrphan(k.g, l)
	}
	if l.release() {
		_ = l.revoke(ctx)
	}
}

// dropInheritedLeases gives up the leases of older Registrations, after the entry was
// put under the own one.
func (k *keeper) dropInheritedLeases(ctx context.Context) {
	for _, l := range k.g.claim.inheritLeases(k.g) {
		if l.release() {
			_ = l.revoke(ctx)
		}
	}
}

// put puts the endpoint under a lease, which it acquires if need be. If gentle, it
// leaves an entry that another lease has.
func (k *keeper) put(ctx context.Context, want Endpoint, gentle bool) error {
	if err := k.ensureLease(ctx); err != nil {
		return err
	}
	call, cancel := context.WithTimeout(ctx, callTimeout(k.g.opts.TTL))
	defer cancel()
	err := k.apply(call, k.lease, Change{Endpoint: want, Lease: k.lease.lease, IfFree: gentle, Reclaim: gentle && k.mayReclaim()})
	if errors.Is(err, ErrLeaseLost) {
		k.lease.end()
		k.lease.release()
		k.lease = nil
	}
	return err
}

// ensureLease acquires a lease if the keeper has none, and waits until it is granted.
func (k *keeper) ensureLease(ctx context.Context) error {
	if k.lease != nil {
		return nil
	}
	l := k.g.client.leases.acquire(k.g.opts.TTL)
	select {
	case <-l.ready:
	case <-ctx.Done():
		l.release()
		return ctx.Err()
	}
	if l.err != nil {
		l.release()
		return l.err
	}
	k.lease = l
	return nil
}

// mayReclaim reports whether an entry that is under no lease is ours: the watch shows
// our address, or shows nothing. An entry with another address was put on purpose.
func (k *keeper) mayReclaim() bool {
	p := k.presence()
	return p.endpoint == nil || p.endpoint.Addr == k.g.addr
}

// apply makes a change to the entry under lease l. If a newer Registration has the
// entry, it returns ErrReplaced. Only one of the Registrations of an entry is in the
// store at a time: the last call of an older one has ended before a newer one puts its
// own entry.
func (k *keeper) apply(ctx context.Context, l *sharedLease, c Change) error {
	g := k.g
	select {
	case g.claim.busy <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-g.claim.busy }()
	if !g.claim.isOwner(g) {
		return ErrReplaced
	}
	if c.Op == Delete {
		return SafeError(g.client.answered(g.client.store.Apply(ctx, g.service, c)))
	}
	if !l.dropOrphan(ctx, g.service, g.id) {
		return ctx.Err()
	}
	listed := g.intent.setListed(true)
	err := g.client.answered(g.client.store.Apply(ctx, g.service, c))
	if err != nil && errors.Is(err, ErrInvalid) {
		g.intent.setListed(listed) // nothing was stored
	}
	return SafeError(err)
}
