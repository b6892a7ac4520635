package naming

import (
	"context"
	"errors"
	"time"
)

const (
	// refusedInterval is the rest after the store refused content with ErrInvalid,
	// unless the content changes. The cause may pass, such as a datacenter that does
	// not exist yet, but seldom does.
	refusedInterval = 10 * time.Minute

	// maxLostRest bounds the rest after the registry has said that a lease is lost.
	// The registry has answered, so a long rest does not spare it. The bound leaves
	// room for many registrations that lost their leases in one moment.
	maxLostRest = 5 * time.Second

	// maxReturn bounds the rest after somebody deleted the endpoint.
	maxReturn = time.Second

	// confirmAfter is how long the watch may take to show a put.
	confirmAfter = 5 * time.Second
)

// errUnleased is the error of a Registration whose entry is under no lease.
var errUnleased = errors.New("the entry is under no lease, as if somebody had put it by hand: it is put under the lease again")

// keeper keeps the endpoint of a Registration in the registry. Its fields are owned by
// the goroutine of run, and by the goroutine of Close after run has ended.
type keeper struct {
	g        *announcer
	cursor   *cursor            // wakes run when the watch shows something new of the service
	lease    *sharedLease       // nil: none
	reported RegistrationStatus // the argument of the last call of OnChange

	failures  backoff // of puts that failed, and of lost leases
	deletions backoff // of endpoints that somebody deleted
	missing   bool    // the endpoint has to be put, even if its content did not change
	gentle    bool    // a put leaves the entry to another lease that has it
	last      lastPut
	confirm   *time.Timer // fires when the watch had time to show the last put
	owned     time.Time   // when the first put since the entry was lost had ended
	inspected inspection
	marked    time.Time // when the last put with the mark had ended, or a mark was adopted
}

// lastPut is the put that succeeded last.
type lastPut struct {
	endpoint Endpoint
	ended    time.Time // when the put had ended; zero: before the first
	shown    bool      // the watch has shown the endpoint since
	listed   bool      // the endpoint is known to be in the registry, and was reported
	before   *Endpoint // as the watch showed it when the put began; nil: not shown
	seen     *Endpoint // as the watch showed it when the put ended, or at the last inspect
}

func newKeeper(g *announcer, c *cursor) *keeper {
	k := &keeper{g: g, cursor: c, missing: true, deletions: backoff{most: maxReturn}, confirm: time.NewTimer(0)}
	k.confirm.Stop()
	return k
}

// run keeps the endpoint in the registry until ctx is done.
func (k *keeper) run(ctx context.Context) {
	defer close(k.g.done)
	defer k.confirm.Stop()
	for ctx.Err() == nil {
		// An entry from before the first put is a predecessor's, and is
		// replaced. After a loss, another entry is a successor's, and stays.
		before := k.presence().endpoint
		if !k.missing {
			k.inspectMark(ctx, before)
		}
		if want, version, applied := k.g.intent.wanted(); k.missing || !applied {
			if err := k.put(ctx, want, k.gentle); err != nil {
				k.handlePutError(ctx, want, version, err)
				continue
			}
			k.handlePut(ctx, want, version, before)
		}
		if why := k.waitForLoss(ctx); why != nil {
			k.handleLoss(ctx, why)
		}
	}
}

// presence returns the endpoint as the watch shows it.
func (k *keeper) presence() presence { return k.cursor.shared.presence(k.g.id) }

// handlePut records and reports a put that succeeded. before is the endpoint as the
// watch showed it when the put began.
func (k *keeper) handlePut(ctx context.Context, put Endpoint, version int, before *Endpoint) {
	if !k.last.ended.IsZero() && time.Since(k.last.ended) >= healthyAfter {
		k.failures.reset()
		k.deletions.reset()
	}
	k.lease.setOverdue(nil) // the registry accepted the endpoint, so the lease lives
	k.g.intent.setApplied(version, put)
	if before != nil && before.Draining == k.last.endpoint.Draining {
		k.inspected.excuse(before) // it is older than this put, and has the mark of the put before
	}
	k.last = lastPut{endpoint: put, ended: time.Now(), before: before, seen: k.presence().endpoint}
	k.confirm.Reset(confirmAfter)
	// A gentle put may have done nothing. The entry that it left may be about to end,
	// such as our own of before, so the watch has to show the endpoint first.
	k.last.listed = !k.missing || !k.gentle
	if put.Draining {
		k.marked = k.last.ended
	}
	if k.missing {
		k.owned = k.last.ended
	}
	k.missing, k.gentle = false, true
	if k.last.listed {
		k.report(nil, false)
	}
	k.dropInheritedLeases(ctx)
}

// handlePutError decides how to go on after a put that failed, reports it, and rests.
func (k *keeper) handlePutError(ctx context.Context, put Endpoint, version int, err error) {
	if ctx.Err() != nil {
		return
	}
	if errors.Is(err, ErrReplaced) {
		k.missing, k.gentle = true, true
		k.giveWay(ctx)
		return
	}
	if errors.Is(err, ErrInvalid) {
		switch k.refuse(put, version, err) {
		case markUndone, changeUndone:
			return
		case final:
			k.dropLease(ctx)
			k.restRefused(ctx)
			return
		}
	}
	lost, overdue := k.checkLease()
	k.missing = k.missing || lost
	k.report(err, k.missing || overdue)
	if errors.Is(err, ErrPermission) {
		k.g.intent.giveUpMark(err)
	}
	delay := k.failures.delay()
	if errors.Is(err, ErrLeaseLost) {
		delay = min(delay, maxLostRest)
	}
	k.rest(ctx, delay)
}

// waitForLoss waits until the keeper has something to do. It returns why the endpoint
// has to be put again, or nil if it need not be.
func (k *keeper) waitForLoss(ctx context.Context) error {
	if lost := k.inspect(); lost != nil {
		return lost
	}
	changed, overdue := k.lease.overdueError()
	if k.last.listed && (overdue == nil) != k.g.Status().Registered {
		k.report(overdue, true)
	}
	select {
	case <-ctx.Done():
	case <-changed:
	case <-k.lease.ended:
		k.checkLease()
		return ErrLeaseLost
	case <-k.g.wake:
		if !k.g.claim.isOwner(k.g) {
			k.missing = true
			k.giveWay(ctx)
		}
	case <-k.confirm.C:
		return k.confirmPut(ctx)
	}
	return nil
}

// handleLoss reports that the endpoint was lost, and rests.
func (k *keeper) handleLoss(ctx context.Context, why error) {
	k.missing = true
	k.report(why, why != errUnleased)
	// Many registrations may have lost their leases in one moment. A deletion does not
	// mean that the registry is overloaded.
	if why == ErrLeaseLost {
		k.rest(ctx, min(k.failures.delay(), maxLostRest))
	} else {
		k.rest(ctx, k.deletions.delay())
	}
}

// inspect compares the endpoint as the watch shows it with the last put. It returns why
// the endpoint has to be put again, or nil if it need not be.
func (k *keeper) inspect() error {
	p, last := k.presence(), &k.last
	// A set that is stale is as old as its watch, which may be new enough.
	newer := p.begun.After(last.ended)
	if !p.known && !newer {
		return nil
	}
	k.setWithheld(p.withheld)
	if p.endpoint == nil {
		if last.shown || newer {
			return ErrDeleted
		}
		// The watch began before the put had ended and has not shown the endpoint
		// yet: confirmPut asks when the watch had time enough.
		return nil
	}
	same := p.endpoint == last.seen
	last.seen = p.endpoint
	unleased := k.isUnleased(p.endpoint)
	if newer || !unleased && (!same || p.endpoint.Equal(last.endpoint)) {
		last.shown = true
	}
	k.reportListed()
	// The put replaced the entry that the watch showed before the put began. If the
	// same entry was put by hand once more since, confirmPut finds it. An entry that
	// the watch has shown since may still be older than the put: then a second put
	// does no harm.
	if unleased && (newer || p.endpoint != last.before) {
		return errUnleased
	}
	return nil
}

// isUnleased reports whether e is our entry without its lease.
func (k *keeper) isUnleased(e *Endpoint) bool { return e.Unleased && e.Addr == k.g.addr }

// confirmPut is called when the watch had time to show the last put. If the watch has
// not, because it does not run or began before the put had ended, confirmPut asks the
// registry: a read that began after the put is proof. It returns why the endpoint has
// to be put again, or nil if it need not be.
func (k *keeper) confirmPut(ctx context.Context) error {
	if k.last.shown {
		return nil
	}
	k.confirm.Reset(jitter(confirmAfter))
	p := k.presence()
	if !p.known {
		k.reportListed() // the put succeeded, and nothing else is known
		return nil
	}
	call, cancel := context.WithTimeout(ctx, callTimeout(k.g.opts.TTL))
	defer cancel()
	b, err := k.g.client.readSnapshot(call, k.g.service)
	if err != nil {
		return nil
	}
	e := b.find(k.g.id)
	switch {
	case e == nil:
		return ErrDeleted
	case k.isUnleased(e):
		return errUnleased
	case p.endpoint != nil && e.Equal(*p.endpoint):
		k.last.shown = true // the watch agrees with a read after the put
	}
	return nil
}

// rest waits for d, or less if a newer Registration has the entry.
func (k *keeper) rest(ctx context.Context, d time.Duration) {
	k.restUntil(ctx, d, func() bool { return !k.g.claim.isOwner(k.g) })
}

// restRefused waits until refused content is tried again: the content was changed, a
// newer Registration has the entry, or a long time has passed.
func (k *keeper) restRefused(ctx context.Context) {
	k.restUntil(ctx, jitter(refusedInterval), func() bool {
		return !k.g.intent.isFinal() || !k.g.claim.isOwner(k.g)
	})
}

// restUntil waits for d, until ctx is done, or until enough returns true, which it
// calls when the keeper is woken.
func (k *keeper) restUntil(ctx context.Context, d time.Duration, enough func() bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			return
		case <-ctx.Done():
			return
		case <-k.g.wake:
			if enough() {
				return
			}
		}
	}
}

// giveWay reports that a newer Registration has the entry, and waits until this one
// owns the entry again or ctx is done. It keeps the lease: the entry is under the lease
// until the newer Registration has put its own.
func (k *keeper) giveWay(ctx context.Context) {
	k.g.intent.endAllCalls(ErrReplaced)
	k.report(ErrReplaced, true)
	for !k.g.claim.isOwner(k.g) {
		select {
		case <-ctx.Done():
			return
		case <-k.g.wake:
		}
	}
}
