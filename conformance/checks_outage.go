package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/naming-go/naming"
)

// outage is how long the registry is down in checks of what happens then: longer
// than a lease lives.
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

// whileDown renews a lease again and again in an outage. No renewal may succeed,
// and none may find that the lease is lost, since nobody could be asked.
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
		// The outage lasts as long as the caller says, and no longer.
		e.pause(min(max(l.TTL()/4, 50*time.Millisecond), time.Until(end)))
	}
}

// verdict renews a lease that may have ended until Renew says what became of
// it: it returns nil or ErrLeaseLost. Other errors are those of a registry that
// is not back yet.
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

// One silence takes as long as two outages: calls end with their context only.
func verdictAfterSilence(e *env) error { return e.verdicts(silent, 1) }

// expires lets a lease expire while the registry is away.
func (e *env) expires(how away) error {
	s := e.scene("greeter")
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
	s.readers[0].free() // it may end, and may see the outage as it likes
	e.keep(l)           // the machine may be slow
	if err := e.apply(s.service, add(l, some(2, "")...)...); err != nil {
		return err
	}
	e.unkept(l)
	back := how.begin(e)
	e.pause(e.outage(l))
	back()
	again := e.scene(s.service)
	again.now = sets(stays)
	if err := e.within(expiry(l), func() error { return e.listed(s.service, again.now) }); err != nil {
		return fmt.Errorf("a lease of %v expired while the registry was %s for %v, and nobody renews it: %w", l.TTL(), how.what, e.outage(l), err)
	}
	if err := again.watch(); err != nil {
		return err
	}
	return again.holds()
}

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

// afterOutage lets a lease expire in an outage of a service that has the state
// now, and looks at everything when the outage is over.
func (e *env) afterOutage(how away, service string, now set) error {
	l, err := e.grant(e.ttl)
	if err != nil {
		return err
	}
	held := some(2, `{"weight":1}`)
	e.keep(l) // the machine may be slow
	if err := e.apply(service, add(l, held...)...); err != nil {
		return err
	}
	e.unkept(l)
	back := how.begin(e)
	err = e.whileDown(l, e.outage(l))
	back()
	if err != nil {
		return err
	}
	after := fmt.Sprintf("a lease of %v, when the registry is back after %v: ", l.TTL(), e.outage(l))
	lost, err := e.verdict(l)
	if err != nil {
		return fmt.Errorf("%s%w", after, err)
	}
	if lost {
		// ErrLeaseLost vouches that nothing is there, nor will be: what the
		// caller puts next is free, and stays.
		if err := e.listed(service, now); err != nil {
			return fmt.Errorf("%safter Renew has returned %q: %w", after, naming.ErrLeaseLost, err)
		}
		var leases []naming.Lease
		if err := e.eventually(func() (err error) { leases, err = e.grants(1); return err }); err != nil {
			return err
		}
		if err := e.eventually(func() error { return e.apply(service, ifFree(leases[0], held...)...) }); err != nil {
			return err
		}
		e.pause(e.outage(l))
		if err := e.listed(service, now.with(held...)); err != nil {
			return fmt.Errorf("%safter Renew has returned %q, what was put under a new lease: %w", after, naming.ErrLeaseLost, err)
		}
		l = leases[0]
	} else {
		e.keep(l)
		if err := e.listed(service, now.with(held...)); err != nil {
			return fmt.Errorf("%safter Renew has returned nil: %w", after, err)
		}
	}
	if err := e.revoke(l); err != nil {
		return err
	}
	if err := e.eventually(func() error { return e.listed(service, now) }); err != nil {
		return fmt.Errorf("%safter Revoke: %w", after, err)
	}
	// And everything works again.
	var leases []naming.Lease
	if err := e.eventually(func() (err error) { leases, err = e.grants(1); return err }); err != nil {
		return err
	}
	for _, m := range e.methods("other", leases[0]) {
		if err := e.eventually(func() error { return e.call(m.name, m.call) }); err != nil {
			return fmt.Errorf("when the registry is back after %v: %w", e.outage(l), err)
		}
	}
	return nil
}

// A busy machine may make an outage longer than it should be, and a client is slow
// to connect again. The lease may then expire rightly, and what lives longer tries
// the same outage again.
func shortOutage(e *env) error {
	for ttl, try := 4*e.ttl, 1; ; ttl, try = 2*ttl, try+1 {
		late, err := e.short(fmt.Sprintf("greeter-%d", try), ttl, 4*e.ttl/3)
		if err == nil || !late || try == 3 {
			return err
		}
	}
}

// short takes the registry down for less than a lease lives. It reports whether
// the lease was found to be lost only after its time to live, so rightly.
func (e *env) short(service string, ttl, outage time.Duration) (late bool, err error) {
	l, err := e.grant(ttl)
	if err != nil {
		return false, err
	}
	held := some(2, "")
	if err := e.apply(service, add(l, held...)...); err != nil {
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
	if err := e.listed(service, sets(held...)); err != nil {
		return false, fmt.Errorf("what a lease of %v holds, after an outage of %v: %w", l.TTL(), outage, err)
	}
	return false, e.revoke(l)
}

func lostLease(e *env) error {
	s := e.scene("greeter")
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
	l, held := leases[0], some(2, `{"weight":1}`)
	if err := s.apply(add(l, held...)...); err != nil {
		return err
	}
	if err := e.renew(l); err != nil {
		return err
	}
	now, r := sets(stays), s.readers[0]
	r.free()
	e.lose(l)
	// A watch shows the loss, or ends and the next one shows it.
	if err := r.await(patience, now); err != nil {
		select {
		case <-r.done:
			err = r.fate(0)
		default:
		}
		if err == nil {
			err = e.eventually(func() error { return e.listed(s.service, now) })
		}
		if err != nil {
			return fmt.Errorf("after the registry has lost a lease: %w", err)
		}
	}
	for range 2 {
		lost, err := e.verdict(l)
		if err != nil {
			return fmt.Errorf("after the registry has lost the lease: %w", err)
		}
		now := now
		if !lost {
			now = now.with(held...)
		}
		if err := e.listed(s.service, now); err != nil {
			return fmt.Errorf("after the registry has lost the lease, and Renew has returned %s: %w", map[bool]string{true: "ErrLeaseLost", false: "nil"}[lost], err)
		}
	}
	// A new lease is as good as any.
	if leases, err = e.grants(1); err != nil {
		return err
	}
	again := e.scene(s.service)
	if again.now, err = e.list(s.service); err != nil {
		return err
	}
	if err := e.eventually(again.watch); err != nil {
		return err
	}
	if err := again.apply(add(leases[0], held...)...); err != nil {
		return fmt.Errorf("under a new lease, after the registry has lost one: %w", err)
	}
	if err := e.renew(leases[0]); err != nil {
		return fmt.Errorf("of a new lease, after the registry has lost one: %w", err)
	}
	if err := again.holds(); err != nil {
		return err
	}
	return again.loosely(patience, now, func() error { return e.revoke(leases[0]) })
}

// large makes n endpoints with as much metadata, from 8 KB to 64 KB, as the
// backend takes: one that takes less says so with ErrInvalid.
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
	if err := e.listed("greeter", want); err != nil { // the first may dial
		return err
	}
	begin := time.Now()
	if err := e.listed("greeter", want); err != nil {
		return err
	}
	took, rnd := time.Since(begin), e.rand(0)
	for round := range rounds {
		// Each list is whole or an error, wherever in it the failure comes.
		stop := make(chan struct{})
		err := together(func() error {
			for {
				got, err := e.list("greeter")
				if errors.Is(err, errBroken) {
					return err
				}
				if err == nil && !got.equal(want) {
					return fmt.Errorf("list %d, of large values and during an interruption: %s", round+1, diff(got, want))
				}
				select {
				case <-stop:
					return nil
				default:
					e.pause(time.Millisecond) // one that fails at once must not spin
				}
			}
		}, func() error {
			defer close(stop)
			if took > 0 {
				e.pause(time.Duration(rnd.Int64N(int64(took) + 1)))
			}
			e.interrupt()
			return nil
		})
		if err != nil {
			return e.seeded(err)
		}
		if err := e.eventually(func() error { _, err := e.list("greeter"); return err }); err != nil {
			return fmt.Errorf("after an interruption: %w", err)
		}
	}
	return e.seeded(e.listed("greeter", want))
}
