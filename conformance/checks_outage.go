package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/naming-go/naming"
)

// outage returns how long the registry is away in a check: longer than the lease
// lives.
func (e *env) outage(l naming.Lease) time.Duration { return 2*l.TTL() + e.quiet }

// away is a way in which the registry cannot be asked for a while.
type away struct {
	what  string
	begin func(*env) (end func())
}

var (
	down   = away{"down", func(e *env) func() { return e.down() }}
	silent = away{"silent", func(e *env) func() { return e.silence() }}
)

// whileDown renews a lease again and again for d while the registry is away. No
// renewal may succeed. None may return ErrLeaseLost, as the registry cannot be asked.
func (e *env) whileDown(l naming.Lease, d time.Duration) error {
	what := "Renew while the registry cannot be asked"
	end := time.Now().Add(d)
	for {
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		if err := e.ctx.Err(); err != nil {
			return err
		}
		limit := min(e.quiet, soon, left)
		err := guard(limit+soon, what, func() error {
			ctx, cancel := context.WithTimeout(e.ctx, limit)
			defer cancel()
			return l.Renew(ctx)
		})
		if err := kind(what, err, nil); err != nil {
			return err
		}
		// The outage must not last longer than d.
		e.pause(min(max(l.TTL()/4, 50*time.Millisecond), time.Until(end)))
	}
}

// verdict renews a lease that may have ended until Renew returns nil or ErrLeaseLost.
// Any other error means that the registry is not back yet.
func (e *env) verdict(l naming.Lease) (lost bool, err error) {
	err = e.within(expiry(l), func() error {
		err := e.renew(l)
		if lost = errors.Is(err, naming.ErrLeaseLost); lost {
			return nil
		}
		return err
	})
	if err != nil {
		err = fmt.Errorf("Renew neither restores the lease nor returns %q: %w", naming.ErrLeaseLost, err)
	}
	return lost, err
}

func expiresWhileDown(e *env) error   { return e.expires(down) }
func expiresInSilence(e *env) error   { return e.expires(silent) }
func verdictAfterOutage(e *env) error { return e.verdicts(down, 2) }

// A silence takes twice as long as an outage, as calls end only with their context. So
// there is one round.
func verdictAfterSilence(e *env) error { return e.verdicts(silent, 1) }

// expires lets a lease expire while the registry is away. The endpoints are gone soon
// after the registry is back.
func (e *env) expires(how away) error {
	s := e.newScene("greeter")
	stays := ep("stays", "10.0.0.1:80", "")
	if err := s.apply(add(nil, stays)...); err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	l, err := e.grant(e.ttl)
	if err != nil {
		return err
	}
	s.readers[0].acceptAny() // the watch may end in the outage
	e.renewInBackground(l)   // a slow machine must not let it expire early
	if err := e.apply(s.service, add(l, some(2, "")...)...); err != nil {
		return err
	}
	e.stopRenewing(l)
	back := how.begin(e)
	e.pause(e.outage(l))
	back()
	again := e.newScene(s.service)
	again.now = sets(stays)
	if err := e.within(expiry(l), func() error { return e.listed(s.service, again.now) }); err != nil {
		return fmt.Errorf("a lease of %v expired while the registry was %s for %v, and is not renewed: %w", l.TTL(), how.what, e.outage(l), err)
	}
	if err := again.watch(); err != nil {
		return err
	}
	return again.stays()
}

// verdicts makes rounds of outages of one service.
func (e *env) verdicts(how away, rounds int) error {
	stays := ep("stays", "10.0.0.1:80", "")
	if err := e.apply("greeter", add(nil, stays)...); err != nil {
		return err
	}
	for round := range rounds {
		if err := e.afterOutage(how, "greeter", sets(stays)); err != nil {
			return fmt.Errorf("outage %d, in which the registry was %s: %w", round+1, how.what, err)
		}
	}
	return nil
}

// afterOutage lets a lease expire while the registry is away, and then checks the
// verdict of Renew and that everything works again. now is the state of the service.
func (e *env) afterOutage(how away, service string, now set) error {
	l, err := e.grant(e.ttl)
	if err != nil {
		return err
	}
	eps := some(2, `{"weight":1}`)
	e.renewInBackground(l) // a slow machine must not let it expire early
	if err := e.apply(service, add(l, eps...)...); err != nil {
		return err
	}
	e.stopRenewing(l)
	back := how.begin(e)
	err = e.whileDown(l, e.outage(l))
	back()
	if err != nil {
		return err
	}
	if err := e.afterVerdict(l, service, now, eps); err != nil {
		return fmt.Errorf("a lease of %v, when the registry is back after %v: %w", l.TTL(), e.outage(l), err)
	}
	leases, err := e.grantsEventually(1)
	if err != nil {
		return err
	}
	for _, m := range e.methods("other", leases[0]) {
		if err := e.eventually(func() error { return e.call(m.name, m.call) }); err != nil {
			return fmt.Errorf("when the registry is back after %v: %w", e.outage(l), err)
		}
	}
	return nil
}

// afterVerdict renews a lease after an outage, checks that the service agrees with the
// verdict, and revokes the lease that then has the endpoints.
func (e *env) afterVerdict(l naming.Lease, service string, now set, eps []naming.Endpoint) error {
	lost, err := e.verdict(l)
	switch {
	case err != nil:
		return err
	case lost:
		l, err = e.putAfterLoss(l, service, now, eps)
		if err != nil {
			return fmt.Errorf("after Renew has returned %q: %w", naming.ErrLeaseLost, err)
		}
	default:
		e.renewInBackground(l)
		if err := e.listed(service, now.with(eps...)); err != nil {
			return fmt.Errorf("after Renew has returned nil: %w", err)
		}
	}
	if err := e.revoke(l); err != nil {
		return err
	}
	if err := e.eventually(func() error { return e.listed(service, now) }); err != nil {
		return fmt.Errorf("after Revoke: %w", err)
	}
	return nil
}

// putAfterLoss puts the endpoints of a lost lease under a new lease, which it returns.
// ErrLeaseLost vouches that none of the endpoints is in the registry, nor will be: the
// IDs are free, and the endpoints stay under the new lease.
func (e *env) putAfterLoss(lost naming.Lease, service string, now set, eps []naming.Endpoint) (naming.Lease, error) {
	if err := e.listed(service, now); err != nil {
		return nil, err
	}
	leases, err := e.grantsEventually(1)
	if err != nil {
		return nil, err
	}
	if err := e.eventually(func() error { return e.apply(service, ifFree(leases[0], eps...)...) }); err != nil {
		return nil, err
	}
	e.pause(e.outage(lost))
	if err := e.listed(service, now.with(eps...)); err != nil {
		return nil, fmt.Errorf("the endpoints under a new lease: %w", err)
	}
	return leases[0], nil
}

// grantsEventually is grants for a registry that comes back.
func (e *env) grantsEventually(n int) (leases []naming.Lease, err error) {
	err = e.eventually(func() (err error) { leases, err = e.grants(n); return err })
	return leases, err
}

// shortOutage takes the registry down for less than a lease lives. A busy machine may
// make the outage longer, and a client takes time to connect again. If the lease may
// have expired rightly, the same outage is tried again with a lease that lives longer.
func shortOutage(e *env) error {
	for ttl, try := 4*e.ttl, 1; ; ttl, try = 2*ttl, try+1 {
		late, err := e.short(fmt.Sprintf("greeter-%d", try), ttl, 4*e.ttl/3)
		if err == nil || !late || try == 3 {
			return err
		}
	}
}

// short makes one outage with a lease of ttl. It reports whether the verdict came only
// after the time to live, so that the lease may have expired rightly.
func (e *env) short(service string, ttl, outage time.Duration) (late bool, err error) {
	l, err := e.grant(ttl)
	if err != nil {
		return false, err
	}
	eps := some(2, "")
	if err := e.apply(service, add(l, eps...)...); err != nil {
		return false, err
	}
	last := time.Now()
	if err := e.renew(l); err != nil {
		return false, err
	}
	up := e.down()
	err = e.whileDown(l, outage)
	up()
	if err != nil {
		return false, err
	}
	lost, err := e.verdict(l)
	if late = time.Since(last) >= l.TTL(); err == nil && lost {
		err = naming.ErrLeaseLost
	}
	if err != nil {
		return late, fmt.Errorf("a lease of %v, after an outage of %v: %w", l.TTL(), outage, err)
	}
	if err := e.listed(service, sets(eps...)); err != nil {
		return false, fmt.Errorf("the endpoints of a lease of %v, after an outage of %v: %w", l.TTL(), outage, err)
	}
	return false, e.revoke(l)
}

func lostLease(e *env) error {
	s := e.newScene("greeter")
	stays := ep("stays", "10.0.0.1:80", "")
	if err := s.apply(add(nil, stays)...); err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	leases, err := e.grants(1)
	if err != nil {
		return err
	}
	l, eps := leases[0], some(2, `{"weight":1}`)
	if err := s.apply(add(l, eps...)...); err != nil {
		return err
	}
	if err := e.renew(l); err != nil {
		return err
	}
	now, r := sets(stays), s.readers[0]
	r.acceptAny()
	e.lose(l)
	if err := e.lossIsShown(r, s.service, now); err != nil {
		return fmt.Errorf("after the registry has lost a lease: %w", err)
	}
	for range 2 {
		if err := e.lossIsTheVerdict(l, s.service, now, eps); err != nil {
			return fmt.Errorf("after the registry has lost the lease: %w", err)
		}
	}
	return e.newLeaseAfterLoss(s.service, now, eps)
}

// lossIsShown waits until the watch shows the loss of a lease. If the watch ends
// instead, a list shows the loss.
func (e *env) lossIsShown(r *reader, service string, now set) error {
	err := r.await(patience, now)
	if err == nil {
		return nil
	}
	select {
	case <-r.done:
		err = r.outcome(0)
	default:
	}
	if err != nil {
		return err
	}
	return e.eventually(func() error { return e.listed(service, now) })
}

// lossIsTheVerdict renews a lease that the registry has lost. now is the state of the
// service without the lease's endpoints.
func (e *env) lossIsTheVerdict(l naming.Lease, service string, now set, eps []naming.Endpoint) error {
	lost, err := e.verdict(l)
	if err != nil {
		return err
	}
	returned := "ErrLeaseLost"
	if !lost {
		returned, now = "nil", now.with(eps...)
	}
	if err := e.listed(service, now); err != nil {
		return fmt.Errorf("Renew has returned %s: %w", returned, err)
	}
	return nil
}

// newLeaseAfterLoss puts the endpoints of a lost lease under a new one. now is the
// state of the service without them.
func (e *env) newLeaseAfterLoss(service string, now set, eps []naming.Endpoint) error {
	leases, err := e.grants(1)
	if err != nil {
		return err
	}
	s := e.newScene(service)
	if s.now, err = e.list(service); err != nil {
		return err
	}
	if err := e.eventually(s.watch); err != nil {
		return err
	}
	if err := s.apply(add(leases[0], eps...)...); err != nil {
		return fmt.Errorf("under a new lease, after the registry has lost one: %w", err)
	}
	if err := e.renew(leases[0]); err != nil {
		return fmt.Errorf("a new lease, after the registry has lost one: %w", err)
	}
	if err := s.stays(); err != nil {
		return err
	}
	return s.advanceLoosely(patience, now, func() error { return e.revoke(leases[0]) })
}

// large puts n endpoints with 8 KB to 64 KB of metadata and returns them. If the
// backend refuses 64 KB with ErrInvalid, large halves the sizes until the backend
// accepts them.
func (e *env) large(service string, n int) ([]naming.Endpoint, error) {
	size := 64 << 10
	make1 := func(i, size int) naming.Endpoint {
		return ep(fmt.Sprintf("id-%05d", i), "10.0.0.1:80", `"`+strings.Repeat(fmt.Sprintf("%08d", i), size/8)+`"`)
	}
	for {
		err := e.apply(service, add(nil, make1(0, size))...)
		if err == nil {
			break
		}
		if size /= 2; !errors.Is(err, naming.ErrInvalid) || size < 64 {
			return nil, err
		}
	}
	eps := make([]naming.Endpoint, n)
	for i := range eps {
		eps[i] = make1(i, max(size/8, size*(i%8+1)/8))
		if err := e.apply(service, add(nil, eps[i])...); err != nil {
			return nil, err
		}
	}
	return eps, nil
}

func partialRead(e *env) error {
	const rounds = 20
	eps, err := e.large("greeter", 60)
	if err != nil {
		return err
	}
	want := sets(eps...)
	if err := e.listed("greeter", want); err != nil { // the first list may dial
		return err
	}
	begin := time.Now()
	if err := e.listed("greeter", want); err != nil {
		return err
	}
	took, rnd := time.Since(begin), e.rand(0)
	for round := range rounds {
		stop := make(chan struct{})
		if err := together(func() error {
			if err := e.listUntil(stop, "greeter", want); err != nil {
				return fmt.Errorf("list %d, of large values and during an interruption: %w", round+1, err)
			}
			return nil
		}, func() error {
			defer close(stop)
			if took > 0 {
				e.pause(time.Duration(rnd.Int64N(int64(took) + 1)))
			}
			e.interrupt()
			return nil
		}); err != nil {
			return e.seeded(err)
		}
		if err := e.eventually(func() error { _, err := e.list("greeter"); return err }); err != nil {
			return fmt.Errorf("after an interruption: %w", err)
		}
	}
	return e.seeded(e.listed("greeter", want))
}

// listUntil lists a service again and again, until stop is closed. A list may fail. It
// must not be smaller than the set that is wanted, wherever in it the failure comes.
func (e *env) listUntil(stop <-chan struct{}, service string, want set) error {
	for {
		got, err := e.list(service)
		if errors.Is(err, errBroken) {
			return err
		}
		if err == nil && !got.equal(want) {
			return errors.New(diff(got, want))
		}
		select {
		case <-stop:
			return nil
		default:
			e.pause(time.Millisecond) // a list that fails at once must not spin
		}
	}
}
