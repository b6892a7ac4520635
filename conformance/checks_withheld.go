package conformance

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/naming-go/naming"
)

// viewer is a watch that keeps apart what may be used and what is withheld.
type viewer struct {
	*follower

	// The following fields are guarded by follower.mu.
	usable   set
	withheld map[string]naming.Withheld
	deleted  map[string]int  // how often an ID was told as deleted
	never    map[string]bool // IDs that must not be usable
}

// view starts a watch of a service.
func (e *env) view(service string) *viewer {
	v := &viewer{usable: make(set), withheld: make(map[string]naming.Withheld), deleted: make(map[string]int), never: make(map[string]bool)}
	first := true
	v.follower = follow(e, e.ctx, "a watch of "+brief(service), func(ctx context.Context) iter.Seq2[naming.Batch, error] {
		return e.store.Watch(ctx, e.prefix+service)
	}, func(b naming.Batch) error {
		if err := v.usable.take(b, first); err != nil {
			return err
		}
		first = false
		if b.Snapshot {
			clear(v.withheld)
		}
		for _, ep := range b.Put {
			delete(v.withheld, ep.ID)
		}
		for _, id := range b.Deleted {
			delete(v.withheld, id)
			v.deleted[id]++
		}
		for _, w := range b.Withheld {
			v.withheld[w.Endpoint.ID] = w
		}
		for id := range v.never {
			if ep, ok := v.usable[id]; ok {
				return fmt.Errorf("it shows %s as usable, which is withheld", show(ep))
			}
		}
		return nil
	})
	return v
}

// amiss says in what the watch differs from the state wanted; "" is nothing. mu
// is held.
func (v *viewer) amiss(usable set, reason naming.Reason, withheld ...naming.Endpoint) string {
	if !v.usable.equal(usable) {
		return "of the endpoints to be used, " + diff(v.usable, usable)
	}
	got := make(set)
	for id, w := range v.withheld {
		got[id] = w.Endpoint
		if w.Reason != reason {
			return fmt.Sprintf("%s is withheld for the reason %v, want %v", show(w.Endpoint), w.Reason, reason)
		}
		if w.Detail != naming.SafeText(w.Detail) {
			return fmt.Sprintf("%s is withheld with the detail %q, which has not the form of SafeText", show(w.Endpoint), w.Detail)
		}
	}
	if want := sets(withheld...); !got.equal(want) {
		return "of the withheld endpoints, " + diff(got, want)
	}
	return ""
}

func (v *viewer) await(usable set, reason naming.Reason, withheld ...naming.Endpoint) error {
	return v.until(patience, func() string { return v.amiss(usable, reason, withheld...) })
}

// without forbids that IDs are shown as usable; no IDs end that.
func (v *viewer) without(ids ...string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.never)
	for _, id := range ids {
		v.never[id] = true
	}
}

// viewed fails if a new watch does not begin with the state wanted.
func (e *env) viewed(service string, usable set, reason naming.Reason, withheld ...naming.Endpoint) error {
	v := e.view(service)
	first := ""
	err := v.until(patience, func() string {
		if v.n == 0 {
			return "it yielded nothing"
		}
		first = v.amiss(usable, reason, withheld...)
		return ""
	})
	if err == nil && first != "" {
		err = fmt.Errorf("a new watch of %s: %s", brief(service), first)
	}
	if fault := v.finish(); err == nil {
		err = fault
	}
	return err
}

// reasons are those that a registry may have to withhold an endpoint.
var reasons = []naming.Reason{naming.Maintenance, naming.FailedCheck}

// withheldIsTold: an endpoint that an operator took out of use is not lost (case W1
// of the field).
func withheldIsTold(e *env) error {
	const service = "greeter"
	leases, err := e.grants(1)
	if err != nil {
		return err
	}
	a, b, c := ep("a", "10.0.0.1:80", `{"weight":1}`), ep("b", "10.0.0.2:80", `{"weight":2}`), ep("c", "10.0.0.3:80", "")
	all := sets(a, b, c)
	if err := e.apply(service, append(add(leases[0], a, b), add(nil, c)...)...); err != nil {
		return err
	}
	if err := e.apply("one", add(leases[0], a)...); err != nil {
		return err
	}
	v, names := e.view(service), e.watchNames()
	if err := v.await(all, 0); err != nil {
		return err
	}
	if err := names.await(patience, service, "one"); err != nil {
		return err
	}
	tried := 0
	for _, reason := range reasons {
		undo := e.withhold(service, b.ID, reason)
		if undo == nil {
			continue
		}
		tried++
		if err := v.await(all.without(b.ID), reason, b); err != nil {
			return fmt.Errorf("withheld for the reason %v: %w", reason, err)
		}
		v.mu.Lock()
		deleted := maps.Clone(v.deleted)
		v.mu.Unlock()
		if len(deleted) > 0 {
			return fmt.Errorf("%s: withheld for the reason %v: it told %q as deleted", v.what, reason, slices.Sorted(maps.Keys(deleted)))
		}
		if err := e.viewed(service, all.without(b.ID), reason, b); err != nil {
			return fmt.Errorf("withheld for the reason %v: %w", reason, err)
		}
		// The others go on as ever.
		c.Metadata = []byte(fmt.Sprintf(`{"weight":%d}`, 10+reason))
		all = all.with(c)
		if err := e.apply(service, add(nil, c)...); err != nil {
			return err
		}
		if err := v.await(all.without(b.ID), reason, b); err != nil {
			return fmt.Errorf("a change of another endpoint: %w", err)
		}
		undo()
		if err := v.await(all, 0); err != nil {
			return fmt.Errorf("withheld for the reason %v, and no longer: %w", reason, err)
		}
		if err := e.viewed(service, all, 0); err != nil {
			return fmt.Errorf("withheld for the reason %v, and no longer: %w", reason, err)
		}
		// A service has endpoints, though none may be used.
		undo = e.withhold("one", a.ID, reason)
		if err := e.eventually(func() error { return e.viewed("one", set{}, reason, a) }); err != nil {
			return err
		}
		if err := names.during(e.quiet); err != nil {
			return err
		}
		if err := names.await(soon, service, "one"); err != nil {
			return fmt.Errorf("a service whose only endpoint is withheld: %w", err)
		}
		if got, err := e.names(); err != nil || !slices.Equal(got, []string{service, "one"}) {
			return fmt.Errorf("a service whose only endpoint is withheld: got services %q, error %v, want %q", got, err, []string{service, "one"})
		}
		undo()
	}
	if tried == 0 {
		return fmt.Errorf("the harness withholds endpoints for reasons other than %v", reasons)
	}
	return nil
}

// withheldIsKept: who holds a withheld endpoint goes on as ever (W2).
func withheldIsKept(e *env) error {
	const service = "greeter"
	leases, err := e.grants(2)
	if err != nil {
		return err
	}
	l, other := leases[0], leases[1]
	a, b := ep("a", "10.0.0.1:80", `{"weight":1}`), ep("b", "10.0.0.2:80", "")
	if err := e.apply(service, add(l, a, b)...); err != nil {
		return err
	}
	v := e.view(service)
	if err := v.await(sets(a, b), 0); err != nil {
		return err
	}
	for _, reason := range reasons {
		undo := e.withhold(service, a.ID, reason)
		if undo == nil {
			continue
		}
		if err := v.await(sets(b), reason, a); err != nil {
			return err
		}
		v.without(a.ID)
		for range 3 {
			if err := e.renew(l); err != nil {
				return fmt.Errorf("of a lease whose endpoint is withheld: %w", err)
			}
		}
		// An update of the endpoint stays withheld; another one's put of the
		// ID is left alone, as the ID is not free.
		for _, addr := range []string{"10.0.0.7:80", "10.0.0.8:80", "10.0.0.1:80"} {
			a.Addr, a.Metadata = addr, []byte(fmt.Sprintf(`{"weight":%d,"addr":%q}`, reason, addr))
			if err := e.apply(service, add(l, a)...); err != nil {
				return fmt.Errorf("an update of a withheld endpoint: %w", err)
			}
			if err := e.apply(service, ifFree(other, ep(a.ID, "10.0.0.99:80", ""))...); err != nil {
				return err
			}
			if err := v.await(sets(b), reason, a); err != nil {
				return fmt.Errorf("an update of a withheld endpoint: %w", err)
			}
		}
		if err := v.during(e.quiet); err != nil {
			return err
		}
		if err := e.viewed(service, sets(b), reason, a); err != nil {
			return err
		}
		v.without()
		undo()
		if err := v.await(sets(a, b), 0); err != nil {
			return err
		}
	}
	// What is withheld goes like any other, and is told as deleted.
	for _, end := range []func() error{
		func() error { return e.apply(service, del(a)...) },
		func() error { return e.revoke(l) },
	} {
		if err := e.apply(service, add(l, a, b)...); err != nil {
			return err
		}
		if err := v.await(sets(a, b), 0); err != nil {
			return err
		}
		reason := naming.Maintenance
		undo := e.withhold(service, a.ID, reason)
		if undo == nil {
			reason = naming.FailedCheck
			undo = e.withhold(service, a.ID, reason)
		}
		if err := v.await(sets(b), reason, a); err != nil {
			return err
		}
		if err := end(); err != nil {
			return err
		}
		if err := v.until(patience, func() string {
			if len(v.withheld) > 0 {
				return fmt.Sprintf("it still shows %d withheld endpoints, which are gone", len(v.withheld))
			}
			return ""
		}); err != nil {
			return err
		}
		undo()
	}
	if err := v.await(set{}, 0); err != nil {
		return err
	}
	return e.viewed(service, set{}, 0)
}

// withheldOutlivesLease: what an operator decided outlives the lease (W3).
func withheldOutlivesLease(e *env) error {
	const service = "greeter"
	b := ep("b", "10.0.0.2:80", "")
	if err := e.apply(service, add(nil, b)...); err != nil {
		return err
	}
	for i, again := range []struct {
		what string
		end  func(old naming.Lease) error // before the endpoint is put again; nil: the old lease is revoked after
	}{
		{"put again under another lease, before the old one ends", nil},
		{"put again after its lease has expired", func(old naming.Lease) error {
			return e.within(expiry(old), func() error { return e.viewed(service, sets(b), 0) })
		}},
	} {
		a := ep(fmt.Sprintf("a-%d", i), "10.0.0.1:80", `{"weight":1}`)
		ttl := long
		if again.end != nil {
			ttl = e.ttl
		}
		old, err := e.grant(ttl)
		if err != nil {
			return err
		}
		e.keep(old) // the machine may be slow
		if err := e.apply(service, add(old, a)...); err != nil {
			return err
		}
		undo := e.withhold(service, a.ID, naming.Maintenance)
		if undo == nil {
			return nil // the registry has no maintenance, which only an operator ends
		}
		leases, err := e.grants(1)
		if err != nil {
			return err
		}
		e.unkept(old)
		if again.end != nil {
			if err := again.end(old); err != nil {
				return err
			}
		}
		v := e.view(service)
		v.without(a.ID)
		if err := e.apply(service, add(leases[0], a)...); err != nil {
			return err
		}
		if err := v.await(sets(b), naming.Maintenance, a); err != nil {
			return fmt.Errorf("in maintenance, and %s: %w", again.what, err)
		}
		if err := e.revoke(old); err != nil {
			return err
		}
		if err := v.during(e.quiet); err != nil {
			return fmt.Errorf("in maintenance, and %s: %w", again.what, err)
		}
		if err := e.viewed(service, sets(b), naming.Maintenance, a); err != nil {
			return fmt.Errorf("in maintenance, and %s: %w", again.what, err)
		}
		v.without()
		undo()
		if err := v.await(sets(a, b), 0); err != nil {
			return fmt.Errorf("in maintenance, %s, and no longer in maintenance: %w", again.what, err)
		}
		if err := e.revoke(leases[0]); err != nil {
			return err
		}
		if err := v.await(sets(b), 0); err != nil {
			return err
		}
	}
	return nil
}
