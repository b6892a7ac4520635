package conformance

import (
	"context"
	"errors"
	"fmt"

	"github.com/naming-go/naming"
)

// mark is Mark of the store, bounded by patience. It is skipped for a Store that is not a
// naming.Marker.
func (e *env) mark(service, id string, marked bool) error {
	m, ok := e.store.(naming.Marker)
	if !ok {
		return skip("the store is not a naming.Marker, so that nobody can mark the endpoints of other programs")
	}
	return e.call(fmt.Sprintf("Mark(%q, %v)", id, marked), func(ctx context.Context) error {
		return m.Mark(ctx, e.prefix+service, id, marked)
	})
}

// marks is mark(service, id, true). It is skipped for a Store that refuses marks, after it
// has checked that the Store stored nothing.
func (e *env) marks(service, id string, now set) error {
	err := e.mark(service, id, true)
	if !errors.Is(err, naming.ErrInvalid) {
		return err
	}
	if err := e.listed(service, now); err != nil {
		return fmt.Errorf("a Mark that was refused has stored something: %w", err)
	}
	return skip("the store has no place for the mark: %v", err)
}

// awaitMarked waits until the watch shows a endpoint as marked, and the others as before.
func (v *tracker) awaitMarked(others set, a naming.Endpoint) error {
	return v.until(patience, func() string { return v.unmarked(others, a) })
}

// unmarked returns how the watch differs from one that shows a as draining, or as withheld
// for maintenance, and others as usable. It returns "" if it does not differ. mu is held.
func (v *tracker) unmarked(others set, a naming.Endpoint) string {
	marked := v.amiss(others.with(draining(a)), 0)
	if marked == "" {
		return ""
	}
	withheld := v.amiss(others, naming.Maintenance, a)
	if withheld == "" {
		return ""
	}
	return fmt.Sprintf("%s is not marked: %s; and it is not in maintenance: %s", show(a), marked, withheld)
}

// firstShowsMarked is firstShows for a marked endpoint.
func (e *env) firstShowsMarked(service string, others set, a naming.Endpoint) error {
	v := e.track(service)
	first := ""
	err := v.until(patience, func() string {
		if v.yields == 0 {
			return "it yielded nothing"
		}
		first = v.unmarked(others, a)
		return ""
	})
	if err == nil && first != "" {
		err = fmt.Errorf("a watch that began after Mark had returned nil: %s", first)
	}
	if fault := v.stop(); err == nil {
		err = fault
	}
	return err
}

// markIsInPlace: the mark comes and goes, and the entry keeps everything else.
func markIsInPlace(e *env) error {
	const service = "greeter"
	leases, err := e.grants(2)
	if err != nil {
		return err
	}
	a, b, c := ep("a", "10.0.0.1:80", `{"weight":1,"tags":["x"],"more":[1.50,null]}`), ep("b/%", "10.0.0.2:80", ""), ep("c", "unix:/run/c.sock", `"text"`)
	all := sets(a, b, c)
	if err := e.apply(service, append(add(leases[0], a), append(add(leases[1], b), add(nil, c)...)...)...); err != nil {
		return err
	}
	v := e.track(service)
	if err := v.await(all, 0); err != nil {
		return err
	}
	for _, one := range []naming.Endpoint{a, b, c} {
		others := all.without(one.ID)
		if err := e.marks(service, one.ID, all); err != nil {
			return err
		}
		if err := errors.Join(e.firstShowsMarked(service, others, one), v.awaitMarked(others, one)); err != nil {
			return err
		}
		if err := e.mark(service, one.ID, false); err != nil {
			return err
		}
		if err := errors.Join(e.listed(service, all), v.await(all, 0), v.noneDeleted()); err != nil {
			return err
		}
	}
	return e.markKeepsLease(v, service, a, all, leases[0], leases[1])
}

// markKeepsLease: a marked entry is still under its lease, and under no other.
func (e *env) markKeepsLease(v *tracker, service string, a naming.Endpoint, all set, own, other naming.Lease) error {
	others := all.without(a.ID)
	if err := e.mark(service, a.ID, true); err != nil {
		return err
	}
	if err := e.apply(service, naming.Change{Op: naming.Delete, Endpoint: a, Lease: other}); err != nil {
		return err
	}
	if err := errors.Join(e.renew(own), v.awaitMarked(others, a)); err != nil {
		return fmt.Errorf("after a Delete under another lease: %w", err)
	}
	if err := e.revoke(own); err != nil {
		return err
	}
	if err := v.await(others, 0); err != nil {
		return fmt.Errorf("after its lease was revoked: %w", err)
	}
	return nil
}

// markOfNothing: an entry that is not there stays away.
func markOfNothing(e *env) error {
	const service = "greeter"
	leases, err := e.grants(1)
	if err != nil {
		return err
	}
	a, gone := ep("a", "10.0.0.1:80", ""), ep("gone", "10.0.0.2:80", `{"weight":1}`)
	if err := e.apply(service, append(add(nil, a), add(leases[0], gone)...)...); err != nil {
		return err
	}
	if err := e.marks(service, gone.ID, sets(a, gone)); err != nil {
		return err
	}
	if err := errors.Join(e.mark(service, gone.ID, false), e.apply(service, del(gone)...)); err != nil {
		return err
	}
	for _, x := range []struct {
		service, id string
		want        error
	}{
		{service, gone.ID, naming.ErrNotFound}, {service, "never", naming.ErrNotFound}, {"nobody", a.ID, naming.ErrNotFound},
		{service, "", naming.ErrInvalid}, {service, "\xff", naming.ErrInvalid},
	} {
		for _, marked := range []bool{true, false} {
			if err := e.mark(x.service, x.id, marked); !errors.Is(err, x.want) {
				return fmt.Errorf("the mark of %q in %q: got error %v, want %q", x.id, x.service, err, x.want)
			}
			if err := errors.Join(e.listed(service, sets(a)), e.listed("nobody", set{})); err != nil {
				return fmt.Errorf("after a Mark of an entry that is not there: %w", err)
			}
		}
	}
	return nil
}

// markAgain: a Mark that changes nothing shows no reader anything.
func markAgain(e *env) error {
	const service = "greeter"
	a, b := ep("a", "10.0.0.1:80", `{"weight":1}`), ep("b", "10.0.0.2:80", "")
	if err := e.apply(service, add(nil, a, b)...); err != nil {
		return err
	}
	v := e.track(service)
	if err := v.await(sets(a, b), 0); err != nil {
		return err
	}
	if err := e.marks(service, a.ID, sets(a, b)); err != nil {
		return err
	}
	if err := v.awaitMarked(sets(b), a); err != nil {
		return err
	}
	before := v.count()
	if err := errors.Join(e.mark(service, a.ID, true), e.mark(service, b.ID, false)); err != nil {
		return fmt.Errorf("the entry is so already: %w", err)
	}
	if err := v.during(e.quiet); err != nil {
		return err
	}
	if n := v.count() - before; n > 0 {
		return fmt.Errorf("two Marks that change nothing made a watch yield %d times", n)
	}
	return e.firstShowsMarked(service, sets(b), a)
}

// count returns how often the watch has yielded.
func (v *tracker) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.yields
}

// markOfMalformed: an entry that cannot be understood is not replaced.
func markOfMalformed(e *env) error {
	const service = "greeter"
	a := ep("a", "10.0.0.1:80", "")
	if err := e.apply(service, add(nil, a)...); err != nil {
		return err
	}
	if err := e.marks(service, a.ID, sets(a)); err != nil {
		return err
	}
	if err := e.mark(service, a.ID, false); err != nil {
		return err
	}
	e.malformed(service, "bad")
	return e.eventually(func() error {
		if err := e.mark(service, "bad", true); !errors.Is(err, naming.ErrInvalid) {
			return fmt.Errorf("the mark of an entry that cannot be understood: got error %v, want %q", err, naming.ErrInvalid)
		}
		return e.listed(service, sets(a))
	})
}

// markRace: a Mark at the same time as an Apply or a Revoke undoes neither.
func markRace(e *env) error {
	const service = "greeter"
	a := ep("a", "10.0.0.1:80", "")
	for round := range 10 {
		l, err := e.grant(long)
		if err != nil {
			return err
		}
		last, err := e.updateAndMark(service, a, l)
		if err != nil {
			return err
		}
		got, err := e.anyState(service, a.ID)
		if err != nil {
			return err
		}
		if last.Draining = got.Draining; !got.Equal(last) {
			return fmt.Errorf("round %d: after updates and Marks at the same time, got %s, want %s", round, show(got), show(last))
		}
		end := func() error { return e.revoke(l) }
		if round%2 == 0 {
			end = func() error { return e.apply(service, del(a)...) }
		}
		if err := together(end, func() error { return e.markWhile(service, a.ID, 3) }); err != nil {
			return err
		}
		if err := e.listed(service, set{}); err != nil {
			return fmt.Errorf("round %d: after a removal and Marks at the same time: %w", round, err)
		}
		if err := e.revoke(l); err != nil {
			return err
		}
	}
	return nil
}

// updateAndMark puts an endpoint several times while it is marked, and returns the last state.
func (e *env) updateAndMark(service string, a naming.Endpoint, l naming.Lease) (last naming.Endpoint, err error) {
	update := func() error {
		a.Metadata = fmt.Appendf(nil, `{"weight":%d}`, e.count.Add(1))
		return e.apply(service, add(l, a)...)
	}
	if err := update(); err != nil {
		return a, err
	}
	if err := e.mark(service, a.ID, true); isSkip(err) || errors.Is(err, naming.ErrInvalid) {
		return a, skip("the store cannot mark: %v", err)
	}
	err = together(func() error {
		for range 8 {
			if err := update(); err != nil {
				return err
			}
		}
		return nil
	}, func() error { return e.markWhile(service, a.ID, 8) })
	return a, err
}

// markWhile marks an endpoint n times. A Mark that met too many writes, or no entry, failed
// as it may.
func (e *env) markWhile(service, id string, n int) error {
	for i := range n {
		err := e.mark(service, id, i%2 == 0)
		if errors.Is(err, errBroken) || errors.Is(err, naming.ErrInvalid) || errors.Is(err, naming.ErrPermission) {
			return err
		}
	}
	return nil
}

// anyState returns an endpoint from the first batch of a watch, usable or withheld.
func (e *env) anyState(service, id string) (naming.Endpoint, error) {
	v := e.track(service)
	if err := v.begun(); err != nil {
		return naming.Endpoint{}, err
	}
	v.mu.Lock()
	got, ok := v.usable[id]
	if !ok {
		got = v.withheld[id].Endpoint
	}
	v.mu.Unlock()
	return got, v.stop()
}
