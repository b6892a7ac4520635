package conformance

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/naming-go/naming"
)

// tracker is the loop over a watch. It keeps the usable endpoints and the withheld
// ones apart.
type tracker struct {
	*loop

	// The following fields are guarded by loop.mu.
	usable   set
	withheld map[string]naming.Withheld
	deleted  map[string]int  // how often each ID was in Deleted
	never    map[string]bool // IDs that must not be usable
}

// track starts a watch of a service.
func (e *env) track(service string) *tracker {
	v := &tracker{usable: make(set), withheld: make(map[string]naming.Withheld), deleted: make(map[string]int), never: make(map[string]bool)}
	first := true
	v.loop = startLoop(e, e.ctx, "a watch of "+brief(service), func(ctx context.Context) iter.Seq2[naming.Batch, error] {
		return e.store.Watch(ctx, e.prefix+service)
	}, func(b naming.Batch) error {
		defer func() { first = false }()
		return v.applyBatch(b, first)
	})
	return v
}

// applyBatch applies a batch to both sets. It returns an error if the batch is
// malformed, or shows an endpoint as usable that must not be. mu is held.
func (v *tracker) applyBatch(b naming.Batch, first bool) error {
	if err := v.usable.applyBatch(b, first); err != nil {
		return err
	}
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
}

// amiss returns how the watch differs from the state that is wanted, or "". mu is
// held.
func (v *tracker) amiss(usable set, reason naming.Reason, withheld ...naming.Endpoint) string {
	if !v.usable.equal(usable) {
		return "of the usable endpoints, " + diff(v.usable, usable)
	}
	got := make(set)
	for id, w := range v.withheld {
		got[id] = w.Endpoint
		if w.Reason != reason {
			return fmt.Sprintf("%s is withheld for the reason %v, want %v", show(w.Endpoint), w.Reason, reason)
		}
		if w.Detail != naming.SafeText(w.Detail) {
			return fmt.Sprintf("%s is withheld with the detail %q, which does not have the form of SafeText", show(w.Endpoint), w.Detail)
		}
	}
	if want := sets(withheld...); !got.equal(want) {
		return "of the withheld endpoints, " + diff(got, want)
	}
	return ""
}

// await waits until the watch shows the state that is wanted.
func (v *tracker) await(usable set, reason naming.Reason, withheld ...naming.Endpoint) error {
	return v.until(patience, func() string { return v.amiss(usable, reason, withheld...) })
}

// forbid makes the loop fail if the watch shows an ID as usable.
func (v *tracker) forbid(id string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.never[id] = true
}

// allowAll undoes every forbid.
func (v *tracker) allowAll() {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.never)
}

// noneDeleted returns an error if the watch has shown an ID as deleted.
func (v *tracker) noneDeleted() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.deleted) > 0 {
		return fmt.Errorf("%s: it shows %q as deleted", v.what, slices.Sorted(maps.Keys(v.deleted)))
	}
	return nil
}

// firstShows returns an error if the first batch of a new watch is not the state that
// is wanted.
func (e *env) firstShows(service string, usable set, reason naming.Reason, withheld ...naming.Endpoint) error {
	v := e.track(service)
	first := ""
	err := v.until(patience, func() string {
		if v.yields == 0 {
			return "it yielded nothing"
		}
		first = v.amiss(usable, reason, withheld...)
		return ""
	})
	if err == nil && first != "" {
		err = fmt.Errorf("a new watch of %s: %s", brief(service), first)
	}
	if fault := v.stop(); err == nil {
		err = fault
	}
	return err
}

// reasons are the reasons for which a registry may withhold an endpoint.
var reasons = []naming.Reason{naming.Maintenance, naming.FailedCheck}

// withholdAny withholds an endpoint for the first reason that the registry has.
func (e *env) withholdAny(service, id string) (naming.Reason, func(), error) {
	for _, reason := range reasons {
		if undo := e.withhold(service, id, reason); undo != nil {
			return reason, undo, nil
		}
	}
	return 0, nil, skip("the registry withholds endpoints for none of the reasons %v", reasons)
}

// eachReason withholds an endpoint for each reason that the registry has, and calls
// f while it is withheld. f calls undo.
func (e *env) eachReason(service, id string, f func(reason naming.Reason, undo func()) error) error {
	tried := 0
	for _, reason := range reasons {
		undo := e.withhold(service, id, reason)
		if undo == nil {
			continue
		}
		tried++
		if err := f(reason, undo); err != nil {
			return fmt.Errorf("withheld for the reason %v: %w", reason, err)
		}
	}
	if tried == 0 {
		return skip("the registry withholds endpoints for none of the reasons %v", reasons)
	}
	return nil
}

// withheldIsShown: an endpoint that an operator took out of use is in Withheld, with
// the reason, and is not deleted.
func withheldIsShown(e *env) error {
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
	v := e.track(service)
	if err := v.await(all, 0); err != nil {
		return err
	}
	if err := e.eachReason(service, b.ID, func(reason naming.Reason, undo func()) error {
		if err := v.await(all.without(b.ID), reason, b); err != nil {
			return err
		}
		if err := v.noneDeleted(); err != nil {
			return err
		}
		if err := e.firstShows(service, all.without(b.ID), reason, b); err != nil {
			return err
		}
		// The other endpoints change as before.
		c.Metadata = fmt.Appendf(nil, `{"weight":%d}`, 10+reason)
		all = all.with(c)
		if err := e.apply(service, add(nil, c)...); err != nil {
			return err
		}
		if err := v.await(all.without(b.ID), reason, b); err != nil {
			return fmt.Errorf("after a change of another endpoint: %w", err)
		}
		undo()
		if err := v.await(all, 0); err != nil {
			return fmt.Errorf("and usable again: %w", err)
		}
		if err := e.firstShows(service, all, 0); err != nil {
			return fmt.Errorf("and usable again: %w", err)
		}
		return nil
	}); err != nil {
		return err
	}
	return e.withheldIsListed(service, leases[0])
}

// withheldIsListed: a service is in the list of services though none of its endpoints
// may be used. other is a second service that is in the list.
func (e *env) withheldIsListed(other string, l naming.Lease) error {
	const service = "one"
	a := ep("a", "10.0.0.1:80", `{"weight":1}`)
	if err := e.apply(service, add(l, a)...); err != nil {
		return err
	}
	names := e.watchNames()
	if err := names.await(patience, other, service); err != nil {
		return err
	}
	return e.eachReason(service, a.ID, func(reason naming.Reason, undo func()) error {
		if err := e.eventually(func() error { return e.firstShows(service, set{}, reason, a) }); err != nil {
			return err
		}
		if err := names.during(e.quiet); err != nil {
			return err
		}
		if err := names.await(soon, other, service); err != nil {
			return fmt.Errorf("a service whose only endpoint is withheld: %w", err)
		}
		if got, err := e.names(); err != nil || !slices.Equal(got, []string{other, service}) {
			return fmt.Errorf("a service whose only endpoint is withheld: got services %q, error %v, want %q", got, err, []string{other, service})
		}
		undo()
		return e.eventually(func() error { return e.firstShows(service, sets(a), 0) })
	})
}

// withheldIsKept: the server whose endpoint is withheld renews, updates and deletes it
// as before.
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
	v := e.track(service)
	if err := v.await(sets(a, b), 0); err != nil {
		return err
	}
	if err := e.eachReason(service, a.ID, func(reason naming.Reason, undo func()) error {
		if err := v.await(sets(b), reason, a); err != nil {
			return err
		}
		v.forbid(a.ID)
		for range 3 {
			if err := e.renew(l); err != nil {
				return fmt.Errorf("a lease whose endpoint is withheld: %w", err)
			}
		}
		var err error
		if a, err = e.updateWithheld(v, service, reason, a, sets(b), l, other); err != nil {
			return fmt.Errorf("an update of a withheld endpoint: %w", err)
		}
		if err := v.during(e.quiet); err != nil {
			return err
		}
		if err := e.firstShows(service, sets(b), reason, a); err != nil {
			return err
		}
		v.allowAll()
		undo()
		return v.await(sets(a, b), 0)
	}); err != nil {
		return err
	}
	if err := e.endWithheld(v, service, l, a, b, sets(b), func() error { return e.apply(service, del(a)...) }); err != nil {
		return fmt.Errorf("a withheld endpoint is deleted: %w", err)
	}
	if err := e.endWithheld(v, service, l, a, b, set{}, func() error { return e.revoke(l) }); err != nil {
		return fmt.Errorf("the lease of a withheld endpoint is revoked: %w", err)
	}
	return e.firstShows(service, set{}, 0)
}

// updateWithheld puts a withheld endpoint again under its lease, with other addresses
// and metadata, and returns its last state. The endpoint stays withheld. An Add with
// IfFree under another lease is skipped, as the ID is not free.
func (e *env) updateWithheld(v *tracker, service string, reason naming.Reason, a naming.Endpoint, usable set, l, other naming.Lease) (naming.Endpoint, error) {
	for _, addr := range []string{"10.0.0.7:80", "10.0.0.8:80", "10.0.0.1:80"} {
		a.Addr, a.Metadata = addr, fmt.Appendf(nil, `{"weight":%d,"addr":%q}`, reason, addr)
		if err := e.apply(service, add(l, a)...); err != nil {
			return a, err
		}
		if err := e.apply(service, ifFree(other, ep(a.ID, "10.0.0.99:80", ""))...); err != nil {
			return a, err
		}
		if err := v.await(usable, reason, a); err != nil {
			return a, err
		}
	}
	return a, nil
}

// endWithheld withholds endpoint a and calls end, which removes it from the registry.
// The watch shows that a is gone, and never that a is usable. left is the set of
// usable endpoints afterwards.
func (e *env) endWithheld(v *tracker, service string, l naming.Lease, a, b naming.Endpoint, left set, end func() error) error {
	if err := e.apply(service, add(l, a, b)...); err != nil {
		return err
	}
	if err := v.await(sets(a, b), 0); err != nil {
		return err
	}
	reason, undo, err := e.withholdAny(service, a.ID)
	if err != nil {
		return err
	}
	if err := v.await(sets(b), reason, a); err != nil {
		return err
	}
	v.forbid(a.ID)
	if err := end(); err != nil {
		return err
	}
	if err := v.await(left, 0); err != nil {
		return err
	}
	if err := v.during(e.quiet); err != nil {
		return err
	}
	if err := v.await(left, 0); err != nil {
		return err
	}
	v.allowAll()
	undo()
	return nil
}

// withheldOutlivesLease: an operator's decision outlives the lease of the endpoint.
func withheldOutlivesLease(e *env) error {
	const service = "greeter"
	b := ep("b", "10.0.0.2:80", "")
	if err := e.apply(service, add(nil, b)...); err != nil {
		return err
	}
	stay := func(naming.Lease) error { return nil }
	if err := e.maintenanceStays(service, b, ep("a-0", "10.0.0.1:80", `{"weight":1}`), long, stay); err != nil {
		return fmt.Errorf("in maintenance, and put again under another lease, before the old one ends: %w", err)
	}
	expire := func(old naming.Lease) error {
		return e.within(expiry(old), func() error { return e.firstShows(service, sets(b), 0) })
	}
	if err := e.maintenanceStays(service, b, ep("a-1", "10.0.0.1:80", `{"weight":1}`), e.ttl, expire); err != nil {
		return fmt.Errorf("in maintenance, and put again after its lease has expired: %w", err)
	}
	return nil
}

// maintenanceStays puts endpoint a under a lease of ttl, withholds it for maintenance
// and puts it again under another lease. It calls between before the second put. The
// endpoint stays withheld until the operator ends the maintenance. b is the other
// endpoint of the service.
func (e *env) maintenanceStays(service string, b, a naming.Endpoint, ttl time.Duration, between func(old naming.Lease) error) error {
	old, err := e.grant(ttl)
	if err != nil {
		return err
	}
	e.renewInBackground(old) // a slow machine must not let it expire early
	if err := e.apply(service, add(old, a)...); err != nil {
		return err
	}
	undo := e.withhold(service, a.ID, naming.Maintenance)
	if undo == nil {
		return skip("the registry has no maintenance, the one reason that only an operator ends")
	}
	leases, err := e.grants(1)
	if err != nil {
		return err
	}
	e.stopRenewing(old)
	if err := between(old); err != nil {
		return err
	}
	v := e.track(service)
	v.forbid(a.ID)
	if err := e.apply(service, add(leases[0], a)...); err != nil {
		return err
	}
	if err := v.await(sets(b), naming.Maintenance, a); err != nil {
		return err
	}
	if err := e.revoke(old); err != nil {
		return err
	}
	if err := v.during(e.quiet); err != nil {
		return err
	}
	if err := e.firstShows(service, sets(b), naming.Maintenance, a); err != nil {
		return err
	}
	v.allowAll()
	undo()
	if err := v.await(sets(a, b), 0); err != nil {
		return fmt.Errorf("after the maintenance: %w", err)
	}
	if err := e.revoke(leases[0]); err != nil {
		return err
	}
	return v.await(sets(b), 0)
}
