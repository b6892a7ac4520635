package naming

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// close withdraws the endpoint until ctx is done. It marks the endpoint and waits for
// clients unless drainDelay is 0. timeout is the time until ctx is done.
func (g *announcer) close(ctx context.Context, timeout, drainDelay time.Duration) error {
	if !g.intent.setClosed() {
		<-g.closed // a sync.Once would stop the time of a synctest bubble
		return g.closeErr
	}
	close(g.closing)
	defer close(g.closed)
	drainDelay = min(drainDelay, timeout-min(closeMargin, timeout/2))
	err := g.drainAndWithdraw(ctx, drainDelay, (timeout-drainDelay)/2)
	if errors.Is(err, ErrReplaced) {
		g.client.wg.Go(g.bequeath)
		return nil
	}
	g.closeErr = err
	g.logWithdrawError(err)
	if f := g.client.hooks.Withdrawn; f != nil {
		e, _, _ := g.intent.wanted()
		f(WithdrawnInfo{Service: g.service, Endpoint: e, Err: err})
	}
	return err
}

func (g *announcer) logWithdrawError(err error) {
	if err != nil {
		g.client.log.Warn("naming: endpoint not withdrawn, its lease will end", g.serviceAttr(), g.endpointAttr(), slog.Any("err", err))
	}
}

// drainAndWithdraw marks the endpoint, for which it waits for patience at most, waits
// for drainDelay, and removes the endpoint. It returns ErrReplaced as soon as a newer
// Registration has the entry.
func (g *announcer) drainAndWithdraw(ctx context.Context, drainDelay, patience time.Duration) error {
	if !g.claim.isOwner(g) {
		return ErrReplaced
	}
	marked := drainDelay > 0 && g.markDraining(ctx, patience)
	if marked && !g.linger(ctx, drainDelay) {
		return ErrReplaced
	}
	g.stopKeeper(ctx)
	listed := g.intent.isListed()
	if err := g.withdraw(ctx); err != nil {
		return err
	}
	if listed && !marked && drainDelay > 0 {
		// Clients did not see a mark, so they get the time after the removal.
		sleep(ctx, drainDelay)
	}
	return nil
}

// markDraining marks the endpoint as draining, and reports whether it succeeded within
// d. No client knows an endpoint that was never put, so such an endpoint is not marked.
func (g *announcer) markDraining(ctx context.Context, d time.Duration) bool {
	if !g.intent.isListed() {
		return false
	}
	c := g.ask(true, true, func(want *Endpoint) { want.Draining = true })
	defer g.intent.forgetCall(c)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case err := <-c.done:
		return err == nil
	case <-t.C:
	case <-g.done:
	case <-ctx.Done():
	}
	return false
}

// linger waits for d, and reports false as soon as a newer Registration has the entry.
func (g *announcer) linger(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-g.claim.ownershipLost(g):
		return false
	}
	return true
}

// stopKeeper ends the keeper. A call that the keeper has begun in the store gets a
// second to end by itself, because a call that is given up may take effect later.
func (g *announcer) stopKeeper(ctx context.Context) {
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	select {
	case g.claim.busy <- struct{}{}:
		g.cancel()
		<-g.claim.busy
	case <-short.Done():
		g.cancel()
	}
	<-g.done
	g.keeper.cursor.close()
}

// withdraw removes the endpoint from the registry after the keeper has ended. It
// returns ErrReplaced, and leaves the leases to the newer Registration, if a newer
// Registration has the entry.
func (g *announcer) withdraw(ctx context.Context) error {
	var failed error
	var leases []*sharedLease
	if k := g.keeper; k.lease != nil {
		leases = append(leases, k.lease)
		k.lease = nil
	}
	for {
		leases = append(leases, g.claim.inheritLeases(g)...)
		for len(leases) > 0 {
			switch err := g.remove(ctx, leases[0]); {
			case !errors.Is(err, ErrReplaced):
				failed = cmp.Or(failed, err)
				leases = leases[1:]
			case g.claim.bequeath(g, leases...):
				return ErrReplaced
			default:
				// The newer Registration has closed meanwhile: g owns the entry again.
			}
		}
		if g.claim.resign(g) {
			break
		}
	}
	g.intent.setWithdrawn()
	return failed
}

// remove removes the endpoint if it is under lease l, and releases l.
func (g *announcer) remove(ctx context.Context, l *sharedLease) error {
	err := g.deleteUnder(ctx, l)
	if err != nil && (errors.Is(err, ErrReplaced) || !g.claim.addOrphan(g, l)) {
		return ErrReplaced
	}
	if last := l.release(); last && (err == nil || errors.Is(err, ErrPermission)) {
		// The lease has no other endpoint. Its end removes the endpoint as well and
		// takes fewer rights: a conditional removal reads. After a removal, a revoke
		// that fails does no harm, because the lease ends by itself.
		if l.revoke(ctx) == nil {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("naming: withdraw %q from %q: stays listed for up to %v: %w", cut(g.id), g.service, l.granted, err)
	}
	return nil
}

// deleteUnder deletes the endpoint if it is under lease l. It tries until ctx is done,
// unless the credentials are refused or a newer Registration has the entry.
func (g *announcer) deleteUnder(ctx context.Context, l *sharedLease) error {
	var b backoff
	for {
		call, cancel := context.WithTimeout(ctx, callTimeout(g.opts.TTL))
		err := g.keeper.apply(call, l, Change{Op: Delete, Endpoint: Endpoint{ID: g.id, Addr: g.addr}, Lease: l.lease, Reclaim: g.keeper.mayReclaim()})
		cancel()
		if err == nil || errors.Is(err, ErrReplaced) || errors.Is(err, ErrPermission) {
			return err
		}
		if !g.linger(ctx, b.delay()) {
			return ErrReplaced
		}
		if ctx.Err() != nil {
			return err
		}
	}
}

// bequeath ends a Registration that was closed while a newer one had the entry. It
// leaves the lease to the newer one, which releases it when the entry is under another
// lease. If there is no newer one by then, it withdraws the entry.
func (g *announcer) bequeath() {
	ctx, cancel := context.WithTimeout(context.Background(), g.opts.CloseTimeout)
	defer cancel()
	g.stopKeeper(ctx)
	if k := g.keeper; k.lease != nil && g.claim.bequeath(g, k.lease) {
		k.lease = nil
		return
	}
	if err := g.withdraw(ctx); !errors.Is(err, ErrReplaced) {
		g.logWithdrawError(err)
	}
}
