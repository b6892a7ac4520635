package conformance

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/naming-go/naming"
)

func leaseReturnsTTL(e *env) error {
	for _, ttl := range []time.Duration{e.ttl, 3 * e.ttl, e.ttl + e.ttl/3, long} {
		l, err := e.grant(ttl)
		if err != nil {
			return err
		}
		got := l.TTL()
		if got <= 0 {
			return fmt.Errorf("a lease granted for %v has a TTL of %v", ttl, got)
		}
		// Grant may round down only to the longest that the registry supports.
		if got < ttl && (e.maxTTL == 0 || got < e.maxTTL) {
			return fmt.Errorf("a lease granted for %v has a TTL of %v, which is less, and the MaxTTL of the harness is %v (0: there is no longest)", ttl, got, e.maxTTL)
		}
		for range 2 {
			if err := e.renew(l); err != nil {
				return err
			}
			if again := l.TTL(); again != got {
				return fmt.Errorf("the TTL of a lease was %v and is %v after Renew", got, again)
			}
		}
		if err := e.revoke(l); err != nil {
			return err
		}
		if again := l.TTL(); again != got {
			return fmt.Errorf("the TTL of a lease was %v and is %v after Revoke", got, again)
		}
	}
	// Far too long times to live are refused or rounded. They must not overflow.
	for _, ttl := range []time.Duration{100 * 365 * 24 * time.Hour, math.MaxInt64} {
		l, err := e.grant(ttl)
		if errors.Is(err, errBroken) || errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		if err != nil {
			continue
		}
		if got := l.TTL(); got <= 0 || got < e.maxTTL {
			return fmt.Errorf("a lease granted for %v has a TTL of %v", ttl, got)
		}
		if err := e.renew(l); err != nil {
			return fmt.Errorf("a lease granted for %v: %w", ttl, err)
		}
		if err := e.revoke(l); err != nil {
			return fmt.Errorf("a lease granted for %v: %w", ttl, err)
		}
	}
	return nil
}

func revokeRemoves(e *env) error {
	s := e.newScene("greeter")
	leases, err := e.grants(2)
	if err != nil {
		return err
	}
	a, b, c, d := ep("a", "10.0.0.1:80", ""), ep("b", "10.0.0.2:80", `{"weight":1}`), ep("c", "10.0.0.3:80", ""), ep("d", "10.0.0.4:80", "")
	if err := s.apply(add(nil, a)...); err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	if err := s.apply(append(add(leases[0], b, c), add(leases[1], d)...)...); err != nil {
		return err
	}
	if err := s.advanceLoosely(patience, sets(a, d), func() error { return e.revoke(leases[0]) }); err != nil {
		return err
	}
	if err := s.flush(); err != nil {
		return err
	}
	if err := s.advance(sets(a), func() error { return e.revoke(leases[1]) }); err != nil {
		return err
	}
	// An endpoint that was first put under no lease, and then under one.
	leases, err = e.grants(1)
	if err != nil {
		return err
	}
	if err := s.apply(add(leases[0], a)...); err != nil {
		return err
	}
	if err := s.advance(set{}, func() error { return e.revoke(leases[0]) }); err != nil {
		return err
	}
	return s.stays()
}

func revokeAgain(e *env) error {
	s := e.newScene("greeter")
	if err := s.watch(); err != nil {
		return err
	}
	leases, err := e.grants(2)
	if err != nil {
		return err
	}
	a := ep("a", "10.0.0.1:80", "")
	if err := s.apply(add(leases[0], a)...); err != nil {
		return err
	}
	if err := s.advance(set{}, func() error { return e.revoke(leases[0]) }); err != nil {
		return err
	}
	if err := s.apply(add(leases[1], a)...); err != nil {
		return err
	}
	for range 2 {
		if err := e.revoke(leases[0]); err != nil {
			return fmt.Errorf("a lease that was revoked: %w", err)
		}
	}
	short, err := e.grant(e.ttl)
	if err != nil {
		return err
	}
	b := ep("b", "10.0.0.2:80", "")
	if err := s.apply(add(short, b)...); err != nil {
		return err
	}
	if err := s.advanceWithin(expiry(short), sets(a), func() error { return nil }); err != nil {
		return err
	}
	if err := e.revoke(short); err != nil {
		return fmt.Errorf("a lease that expired: %w", err)
	}
	return s.stays()
}

func leaseExpires(e *env) error {
	s := e.newScene("greeter")
	if err := s.apply(add(nil, ep("stays", "10.0.0.1:80", ""))...); err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	granted := time.Now()
	l, err := e.grant(e.ttl)
	if err != nil {
		return err
	}
	if err := s.apply(add(l, ep("goes", "10.0.0.2:80", ""))...); err != nil {
		return err
	}
	if err := s.advanceWithin(expiry(l), s.now.without("goes"), func() error { return nil }); err != nil {
		return fmt.Errorf("a lease of %v that is not renewed: %w", l.TTL(), err)
	}
	if lived := time.Since(granted); lived < l.TTL() {
		return fmt.Errorf("a lease of %v ended after %v", l.TTL(), lived)
	}
	return s.stays()
}

func renewKeeps(e *env) error {
	for try := 1; ; try++ {
		late, err := e.renewInTime("greeter-" + strconv.Itoa(try))
		if err == nil || !late || try == 3 {
			return err
		}
	}
}

// renewInTime renews a lease ten times in time, and then lets it expire. It reports
// whether it was late itself, so that the lease may have expired rightly.
func (e *env) renewInTime(service string) (late bool, err error) {
	want := sets(ep("a", "10.0.0.1:80", ""))
	seen, gone := false, false // guarded by the watch's mu
	r := e.watch(service, nil, func(s set) error {
		seen = seen || s.equal(want)
		gone = gone || seen && !s.equal(want)
		return nil
	})
	l, err := e.grant(e.ttl)
	if err != nil {
		return false, err
	}
	err = func() error {
		last := time.Now()
		renewed := func(err error) error {
			late = late || time.Since(last) >= l.TTL()
			last = time.Now()
			return err
		}
		if err := renewed(e.apply(service, add(l, want["a"])...)); err != nil {
			return err
		}
		if err := r.await(patience, want); err != nil {
			return renewed(err)
		}
		for range 10 {
			if err := r.during(l.TTL() / 4); err != nil {
				return err
			}
			if err := renewed(e.renew(l)); err != nil {
				return fmt.Errorf("a lease of %v, after a quarter of it: %w", l.TTL(), err)
			}
			if err := e.listed(service, want); err != nil {
				return renewed(err)
			}
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if gone {
			return fmt.Errorf("%s: an endpoint was removed while its lease of %v was renewed each quarter of it", r.what, l.TTL())
		}
		return nil
	}()
	if err != nil {
		return late, err
	}
	return false, r.await(expiry(l), set{})
}

func renewAfterEnd(e *env) error {
	for _, end := range ends {
		s := e.newScene("greeter-" + end.name)
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
		eps := []naming.Endpoint{ep("a", "10.0.0.2:80", `{"weight":1}`), ep("b", "10.0.0.3:80", "")}
		if err := s.apply(add(l, eps...)...); err != nil {
			return err
		}
		if err := s.advanceLoosely(expiry(l), sets(stays), func() error { return end.act(e, l) }); err != nil {
			return err
		}
		for range 2 {
			if err := renewEnded(s, l, eps...); err != nil {
				return fmt.Errorf("a lease that was %s: %w", end.name, err)
			}
		}
	}
	return nil
}

// renewEnded renews a lease that had the endpoints when it ended. Either Renew restores
// all of them, or it returns ErrLeaseLost.
func renewEnded(s *scene, l naming.Lease, eps ...naming.Endpoint) error {
	for _, r := range s.readers {
		r.acceptAny()
	}
	err := s.e.renew(l)
	want := s.now
	if err == nil {
		want = s.now.with(eps...)
		if err := s.e.listed(s.service, want); err != nil {
			return fmt.Errorf("after Renew has returned nil: %w", err)
		}
	} else if err := kind("Renew", err, naming.ErrLeaseLost); err != nil {
		return err
	}
	return s.advanceLoosely(patience, want, func() error { return nil })
}

// ends are the ways in which a lease ends.
var ends = []struct {
	name string
	act  func(*env, naming.Lease) error
}{
	{"revoked", (*env).revoke},
	{"expired", func(*env, naming.Lease) error { return nil }}, // the caller waits until it has expired
}

func renewBringsNothingBack(e *env) error {
	s := e.newScene("greeter")
	if err := s.watch(); err != nil {
		return err
	}
	leases, err := e.grants(2)
	if err != nil {
		return err
	}
	l, other := leases[0], leases[1]
	a, b, c, d := ep("a", "10.0.0.1:80", ""), ep("b", "10.0.0.2:80", ""), ep("c", "10.0.0.3:80", `1`), ep("d", "10.0.0.4:80", "")
	leaveOne := func(l naming.Lease) error {
		if err := s.apply(add(l, a, b, c, d)...); err != nil {
			return err
		}
		// a is deleted, b is put under another lease, c under none. Only d stays
		// under the lease.
		if err := s.apply(slices.Concat(del(a), add(other, b), add(nil, ep(c.ID, c.Addr, `2`)))...); err != nil {
			return err
		}
		return s.apply(del(b)...)
	}
	if err := leaveOne(l); err != nil {
		return err
	}
	for range 2 {
		if err := e.renew(l); err != nil {
			return err
		}
		if err := s.flush(); err != nil {
			return fmt.Errorf("after Renew: %w", err)
		}
	}
	short, err := e.grant(e.ttl)
	if err != nil {
		return err
	}
	if err := leaveOne(short); err != nil {
		return err
	}
	if err := s.advanceWithin(expiry(short), s.now.without("d"), func() error { return nil }); err != nil {
		return err
	}
	if err := renewEnded(s, short, d); err != nil {
		return err
	}
	return s.stays()
}

func replacedLeaseIsRevoked(e *env) error {
	return replacedLease(e, long, (*env).revoke)
}

func replacedLeaseExpires(e *env) error {
	return replacedLease(e, e.ttl, nil)
}

// replacedLease puts endpoints of a lease of ttl under other leases, and calls end,
// which ends the lease. A nil end lets the lease expire.
func replacedLease(e *env, ttl time.Duration, end func(*env, naming.Lease) error) error {
	s := e.newScene("greeter")
	if err := s.watch(); err != nil {
		return err
	}
	leases, err := e.grants(2)
	if err != nil {
		return err
	}
	old, err := e.grant(ttl)
	if err != nil {
		return err
	}
	var (
		other = ep("now under another lease", "10.0.0.1:80", `1`)
		none  = ep("now under none", "10.0.0.2:80", `1`)
		moved = ep("now under another lease, at another address", "10.0.0.3:80", `1`)
		still = ep("still under the old lease", "10.0.0.4:80", `1`)
		late  = ep("only now under the old lease", "10.0.0.5:80", `1`)
		back  = ep("under the old lease again", "10.0.0.6:80", `1`)
	)
	for _, changes := range [][]naming.Change{
		append(add(old, other, none, moved, still, back), add(nil, late)...),
		add(leases[0], other, back), // only the lease changes
		add(nil, none),
		add(leases[1], ep(moved.ID, "[::1]:80", `1`)),
		add(old, late, back),
	} {
		if err := s.apply(changes...); err != nil {
			return err
		}
	}
	want, limit := s.now.without(still.ID, late.ID, back.ID), patience
	if end == nil {
		limit, end = expiry(old), func(*env, naming.Lease) error { return nil }
	}
	if err := s.advanceLoosely(limit, want, func() error { return end(e, old) }); err != nil {
		return err
	}
	if err := s.stays(); err != nil {
		return fmt.Errorf("after the old lease has ended: %w", err)
	}
	// The new leases bound the lives of their endpoints.
	if err := s.advance(s.now.without(other.ID), func() error { return e.revoke(leases[0]) }); err != nil {
		return err
	}
	if err := s.advance(s.now.without(moved.ID), func() error { return e.revoke(leases[1]) }); err != nil {
		return err
	}
	return s.flush()
}

func applyUnderLostLease(e *env) error {
	for _, end := range ends {
		s := e.newScene("greeter-" + end.name)
		a := ep("a", "10.0.0.1:80", "")
		if err := s.apply(add(nil, a)...); err != nil {
			return err
		}
		if err := s.watch(); err != nil {
			return err
		}
		l, err := e.grant(e.ttl)
		if err != nil {
			return err
		}
		b := ep("b", "10.0.0.2:80", "")
		if err := s.apply(add(l, b)...); err != nil {
			return err
		}
		if err := s.advanceWithin(expiry(l), sets(a), func() error { return end.act(e, l) }); err != nil {
			return err
		}
		tries := [][]naming.Change{add(l, b), add(l, ep(a.ID, "10.0.0.3:80", "")), add(l, b, ep("c", "10.0.0.4:80", ""))}
		if e.atomic {
			tries = append(tries, append(add(nil, ep("d", "10.0.0.5:80", "")), add(l, b)...))
		}
		for _, changes := range tries {
			err := guard(patience, "Apply", func() error { return e.write(e.ctx, e.prefix+s.service, changes...) })
			if err := kind("Apply under a lease that was "+end.name, err, naming.ErrLeaseLost); err != nil {
				return err
			}
		}
		if err := s.stays(); err != nil {
			return fmt.Errorf("after Apply under a lease that was %s: %w", end.name, err)
		}
	}
	return nil
}

func sharedLease(e *env) error {
	leases, err := e.grants(1)
	if err != nil {
		return err
	}
	var scenes []*scene
	for i := range 3 {
		s := e.newScene("greeter-" + strconv.Itoa(i))
		if err := s.watch(); err != nil {
			return err
		}
		if err := s.apply(append(add(nil, ep("stays", "10.0.0.1:80", "")), add(leases[0], some(5, strconv.Itoa(i))...)...)...); err != nil {
			return err
		}
		scenes = append(scenes, s)
	}
	if err := scenes[1].apply(add(leases[0], ep("id-00000", "10.0.0.9:80", "9"))...); err != nil {
		return err
	}
	if err := e.renew(leases[0]); err != nil {
		return err
	}
	for _, s := range scenes {
		if err := s.flush(); err != nil {
			return err
		}
	}
	for i, s := range scenes {
		if err := s.advanceLoosely(patience, sets(ep("stays", "10.0.0.1:80", "")), func() error {
			if i > 0 {
				return nil
			}
			for _, s := range scenes {
				for _, r := range s.readers {
					r.acceptAny()
				}
			}
			return e.revoke(leases[0])
		}); err != nil {
			return fmt.Errorf("after the lease of three services was revoked: %w", err)
		}
	}
	if err := quietAll(e, scenes); err != nil {
		return err
	}
	for _, s := range scenes {
		if err := e.listed(s.service, s.now); err != nil {
			return err
		}
	}
	return nil
}

// deleteUnder returns changes that delete endpoints if they are under a lease.
func deleteUnder(l naming.Lease, eps ...naming.Endpoint) []naming.Change {
	changes := del(eps...)
	for i := range changes {
		changes[i].Lease = l
	}
	return changes
}

// conditional makes changes with conditions, which bring the service into its next
// state.
func (s *scene) conditional(next set, changes ...naming.Change) error {
	return s.advance(next, func() error { return s.e.apply(s.service, changes...) })
}

// ineffective makes changes whose conditions do not hold: each list changes nothing.
func (s *scene) ineffective(lists ...[]naming.Change) error {
	for _, changes := range lists {
		if err := s.conditional(s.now, changes...); err != nil {
			return err
		}
	}
	return s.flush()
}

func deleteOnlyUnderLease(e *env) error {
	s := e.newScene("greeter")
	if err := s.watch(); err != nil {
		return err
	}
	leases, err := e.grants(3)
	if err != nil {
		return err
	}
	l, other, ended := leases[0], leases[1], leases[2]
	if err := e.revoke(ended); err != nil {
		return err
	}
	a, b, c, d := ep("a", "10.0.0.1:80", ""), ep("b", "10.0.0.2:80", ""), ep("c", "10.0.0.3:80", ""), ep("d", "10.0.0.4:80", "")
	if err := s.apply(slices.Concat(add(l, a), add(other, b), add(nil, c), add(l, d))...); err != nil {
		return err
	}
	if err := s.apply(add(other, d)...); err != nil {
		return err
	}
	if err := s.ineffective(
		deleteUnder(l, b), deleteUnder(l, c), deleteUnder(l, d), deleteUnder(other, a), deleteUnder(other, c),
		deleteUnder(l, ep("nothing", "", "")),
		deleteUnder(ended, a), deleteUnder(ended, b), deleteUnder(ended, c),
		slices.Concat(deleteUnder(other, a), deleteUnder(l, b, c, d)),
	); err != nil {
		return fmt.Errorf("deletions under leases that the endpoints are not under: %w", err)
	}
	if err := s.conditional(s.now.without("a"), deleteUnder(l, a)...); err != nil {
		return err
	}
	if err := s.conditional(s.now.without("d"), deleteUnder(other, d)...); err != nil {
		return err
	}
	// One condition does not hold. The other changes are made.
	next := s.now.without("b").with(a)
	if !e.atomic {
		for _, r := range s.readers {
			r.allow(s.now.without("b"))
		}
	}
	if err := s.conditional(next, slices.Concat(deleteUnder(other, b), deleteUnder(l, c), add(nil, a))...); err != nil {
		return err
	}
	return s.flush()
}

// changed returns an endpoint with other metadata.
func changed(ep naming.Endpoint) naming.Endpoint {
	ep.Metadata = []byte(`{"changed":true}`)
	return ep
}

func putOnlyIfFree(e *env) error {
	s := e.newScene("greeter")
	if err := s.watch(); err != nil {
		return err
	}
	leases, err := e.grants(3)
	if err != nil {
		return err
	}
	l, other, ended := leases[0], leases[1], leases[2]
	if err := e.revoke(ended); err != nil {
		return err
	}
	a, b, c, fresh := ep("a", "10.0.0.1:80", `1`), ep("b", "10.0.0.2:80", `1`), ep("c", "10.0.0.3:80", `1`), ep("fresh", "10.0.0.5:80", "")
	for _, changes := range [][]naming.Change{
		ifFree(l, a),          // free
		ifFree(l, a),          // under the lease already
		ifFree(l, changed(a)), // the same
		append(ifFree(l, ep("a", "[::1]:80", `2`), ep("d", "10.0.0.4:80", "")), add(other, b)...),
		add(nil, c),
	} {
		if err := s.apply(changes...); err != nil {
			return err
		}
	}
	if err := s.ineffective(
		ifFree(l, changed(b)), ifFree(l, b), ifFree(l, changed(c)), ifFree(l, c), ifFree(other, changed(a)), ifFree(other, changed(c)),
		slices.Concat(ifFree(l, changed(b), changed(c)), ifFree(other, changed(a))),
	); err != nil {
		return fmt.Errorf("puts of endpoints that are not free: %w", err)
	}
	// One condition does not hold. The other change is made.
	if err := s.conditional(s.now.with(fresh), append(ifFree(l, changed(b)), add(nil, fresh)...)...); err != nil {
		return err
	}
	if err := s.flush(); err != nil {
		return fmt.Errorf("after puts of endpoints that were not free: %w", err)
	}
	err = guard(patience, "Apply", func() error {
		return e.write(e.ctx, e.prefix+s.service, ifFree(ended, ep("late", "10.0.0.6:80", ""))...)
	})
	if err := kind("Apply under a lease that was revoked, if the ID is free", err, naming.ErrLeaseLost); err != nil {
		return err
	}
	return s.freeLeases(l, other, b, sets(c, fresh))
}

// freeLeases revokes the leases of putOnlyIfFree. An endpoint that was not free is
// still under its old lease. An endpoint that was put is under the new one. left is
// the state at the end.
func (s *scene) freeLeases(l, other naming.Lease, b naming.Endpoint, left set) error {
	if err := s.advance(s.now.without("b"), func() error { return s.e.revoke(other) }); err != nil {
		return err
	}
	if err := s.apply(ifFree(l, b)...); err != nil {
		return err
	}
	if err := s.advanceLoosely(patience, left, func() error { return s.e.revoke(l) }); err != nil {
		return err
	}
	return s.flush()
}

// revokeCost compares the requests of a lease under which one endpoint was put once
// with those of a lease under which it was put often.
func revokeCost(e *env) error {
	cost := func(service string, puts int) (renew, revoke int, err error) {
		leases, err := e.grants(1)
		if err != nil {
			return 0, 0, err
		}
		for i := range puts {
			if err := e.apply(service, add(leases[0], ep("a", "10.0.0.1:80", strconv.Itoa(i)))...); err != nil {
				return 0, 0, err
			}
		}
		e.stopRenewing(leases[0])
		defer e.pauseRenewers()()
		before := e.calls()
		if err := e.renew(leases[0]); err != nil {
			return 0, 0, err
		}
		between := e.calls()
		if err := e.revoke(leases[0]); err != nil {
			return 0, 0, err
		}
		return between - before, e.calls() - between, nil
	}
	const puts, few = 100, 4
	if _, _, err := cost("first", 1); err != nil { // the first requests may dial
		return err
	}
	renew1, revoke1, err := cost("once", 1)
	if err != nil {
		return err
	}
	renew, revoke, err := cost("often", puts)
	if err != nil {
		return err
	}
	if renew > 2*renew1+few {
		return fmt.Errorf("after one endpoint was put %d times under a lease, Renew made %d requests; after it was put once, %d", puts, renew, renew1)
	}
	if revoke > 2*revoke1+few {
		return fmt.Errorf("after one endpoint was put %d times under a lease, Revoke made %d requests; after it was put once, %d", puts, revoke, revoke1)
	}
	return nil
}

func manyUnderOneLease(e *env) error {
	stays := ep("stays", "10.0.0.1:80", "")
	eps := some(e.many, `{"weight":1,"zone":"eu-1a"}`)
	for _, end := range ends {
		service := "greeter-" + end.name
		if err := e.apply(service, add(nil, stays)...); err != nil {
			return err
		}
		ttl := long
		if end.name == "expired" {
			ttl = 5 * e.ttl // a backend may renew each endpoint with its own request
		}
		l, err := e.grant(ttl)
		if err != nil {
			return err
		}
		if l.TTL() < long {
			e.renewInBackground(l) // while the endpoints are put
		}
		if err := e.chunks(service, add(l, eps...)); err != nil {
			return err
		}
		want := sets(stays).with(eps...)
		r := e.watch(service, nil, nil)
		if err := r.await(patience, want); err != nil {
			return err
		}
		if err := e.renew(l); err != nil {
			return fmt.Errorf("a lease with %d endpoints: %w", e.many, err)
		}
		e.stopRenewing(l)
		if err := end.act(e, l); err != nil {
			return fmt.Errorf("a lease with %d endpoints: %w", e.many, err)
		}
		if err := r.settled(expiry(l), sets(stays)); err != nil {
			return fmt.Errorf("a lease with %d endpoints was %s: %w", e.many, end.name, err)
		}
		if err := e.listed(service, sets(stays)); err != nil {
			return fmt.Errorf("a lease with %d endpoints was %s: %w", e.many, end.name, err)
		}
		if err := r.stop(); err != nil {
			return err
		}
	}
	return nil
}

// reclaimPut returns Adds with IfFree and Reclaim, with other metadata.
func reclaimPut(l naming.Lease, eps ...naming.Endpoint) []naming.Change {
	changes := ifFree(l, eps...)
	for i := range changes {
		changes[i].Endpoint = changed(changes[i].Endpoint)
		changes[i].Reclaim = true
	}
	return changes
}

// reclaimDelete returns Deletes with a lease and Reclaim.
func reclaimDelete(l naming.Lease, eps ...naming.Endpoint) []naming.Change {
	changes := deleteUnder(l, eps...)
	for i := range changes {
		changes[i].Reclaim = true
	}
	return changes
}

// reclaim puts back, and deletes, endpoints that are under no lease. Endpoints under
// another lease stay.
func reclaim(e *env) error {
	s := e.newScene("greeter")
	if err := s.watch(); err != nil {
		return err
	}
	leases, err := e.grants(2)
	if err != nil {
		return err
	}
	l, other := leases[0], leases[1]
	a, b, c, d := ep("a", "10.0.0.1:80", `1`), ep("b", "10.0.0.2:80", `1`), ep("c", "10.0.0.3:80", `1`), ep("d", "10.0.0.4:80", `1`)
	for _, changes := range [][]naming.Change{
		slices.Concat(add(l, a, b, c), add(other, d)),
		add(nil, a, b, c), // an operator edits the entries
		reclaimPut(l, a),  // a is under no lease
		reclaimPut(l, a),  // a is under the lease now
		reclaimPut(l, ep("e", "10.0.0.5:80", "")), // e does not exist
	} {
		if err := s.apply(changes...); err != nil {
			return err
		}
	}
	if err := s.ineffective(
		reclaimPut(l, d), reclaimDelete(l, d), // d is under the other lease
		reclaimDelete(l, ep("nothing", "", "")),
		reclaimDelete(other, a),
	); err != nil {
		return fmt.Errorf("changes with Reclaim of endpoints that are under another lease: %w", err)
	}
	if err := s.conditional(s.now.without("b"), reclaimDelete(l, b)...); err != nil {
		return err
	}
	if err := s.flush(); err != nil {
		return fmt.Errorf("after a deletion with Reclaim of an endpoint that is under no lease: %w", err)
	}
	if err := s.conditional(s.now.without("e"), reclaimDelete(l, ep("e", "", ""))...); err != nil {
		return err
	}
	// a was put back under the lease and is removed with it. c was not, and stays.
	if err := s.advance(s.now.without("a"), func() error { return e.revoke(l) }); err != nil {
		return err
	}
	if err := s.flush(); err != nil {
		return fmt.Errorf("after the lease was revoked under which endpoints were put back: %w", err)
	}
	return nil
}
