package migrate

import (
	"slices"
	"strings"

	"github.com/naming-go/naming"
)

// checkRules checks what holds for every result, without the reference.
func (w *world) checkRules(c choice, was memory, out result) {
	w.checkForm(out)
	w.checkFreshness(c, was, out)
	if !out.publish || out.narrow && c.sticky && was.narrow && was.to == c.lead {
		return
	}
	w.checkSuperset(c, out)
	w.checkCoverage(c, was, out)
}

// checkForm checks that the lists are sorted, that no ID occurs twice, and that no address
// occurs twice if no registry has it twice.
func (w *world) checkForm(out result) {
	var ids, addrs []string
	for _, e := range out.usable {
		ids, addrs = append(ids, e.ID), append(addrs, e.Addr)
	}
	if !slices.IsSorted(ids) {
		w.t.Errorf("the endpoints are not sorted: %q", ids)
	}
	n := len(ids)
	for _, e := range out.withheld {
		ids, addrs = append(ids, e.Endpoint.ID), append(addrs, e.Endpoint.Addr)
	}
	if !slices.IsSorted(ids[n:]) {
		w.t.Errorf("the withheld endpoints are not sorted: %q", ids[n:])
	}
	if twice := repeated(ids); len(twice) > 0 {
		w.t.Errorf("IDs occur twice: %q", twice)
	}
	allowed := ""
	for i := range w.views {
		var own []string
		for e := range w.views[i].entries {
			own = append(own, e.Addr)
		}
		for _, e := range w.memory.kept[i] {
			own = append(own, e.Addr)
		}
		allowed += strings.Join(repeated(own), " ")
	}
	for _, addr := range repeated(addrs) {
		if addr != "" && !strings.Contains(allowed, addr) {
			w.t.Errorf("address %q occurs twice", addr)
		}
	}
	if !slices.IsSorted(out.uncovered) || len(repeated(out.uncovered)) > 0 {
		w.t.Errorf("the uncovered addresses are not sorted or occur twice: %q", out.uncovered)
	}
}

func repeated(list []string) (twice []string) {
	list = slices.Sorted(slices.Values(list))
	for i := 1; i < len(list); i++ {
		if list[i] == list[i-1] {
			twice = append(twice, list[i])
		}
	}
	return twice
}

// checkFreshness checks that nothing is published while no registry is fresh, that the
// first set waits for both, and that an empty set is the last resort.
func (w *world) checkFreshness(c choice, was memory, out result) {
	lead, other := &w.views[c.lead], &w.views[c.lead.other()]
	left := c.narrow && c.sticky && was.narrow && was.to == c.lead
	if !out.publish {
		if left && lead.synced || !left && lead.fresh && other.fresh {
			w.t.Error("nothing was published although the registries are fresh")
		}
		return
	}
	if left {
		return
	}
	if was.published && !lead.fresh && !other.fresh {
		w.t.Error("a set was published while no registry is fresh")
	}
	if !was.published && !was.waited && (lead.pending() || other.pending()) {
		w.t.Error("the first set did not wait for both registries")
	}
	if len(out.usable) == 0 && !(lead.synced && other.synced) {
		w.t.Error("an empty set was published before both registries answered")
	}
	if len(out.usable) == 0 && len(w.mustBeUsable(c.lead))+len(w.mustBeUsable(c.lead.other())) > 0 {
		w.t.Error("an empty set was published although there are endpoints")
	}
}

// mustBeUsable returns the addresses that registry i says to use, that no registry says
// not to use, and that did not leave the other registry in order.
func (w *world) mustBeUsable(i sideIndex) (addrs []string) {
	for _, e := range w.views[i].usable {
		doubted := e.Addr == "" || !w.views[i].fresh && w.ref.left[i.other()][e.Addr]
		for _, v := range w.views {
			doubted = doubted || slices.ContainsFunc(v.withheld, func(o naming.Withheld) bool { return o.Endpoint.Addr == e.Addr })
		}
		if !doubted {
			addrs = append(addrs, e.Addr)
		}
	}
	return addrs
}

// checkSuperset checks that the set has every address that a registry in use says to use.
func (w *world) checkSuperset(c choice, out result) {
	for i := range w.views {
		if out.narrow && sideIndex(i) != c.lead {
			continue
		}
		for _, addr := range w.mustBeUsable(sideIndex(i)) {
			if !slices.ContainsFunc(out.usable, func(e naming.Endpoint) bool { return e.Addr == addr }) {
				w.t.Errorf("address %q is missing", addr)
			}
		}
	}
}

// checkCoverage checks that a reader that leaves a registry keeps every live address of the
// registry, and that the set it keeps comes from a fresh registry.
func (w *world) checkCoverage(c choice, was memory, out result) {
	if !out.narrow {
		return
	}
	lead, other := &w.views[c.lead], &w.views[c.lead.other()]
	if !lead.fresh {
		w.t.Error("the reader left a registry for one that is not fresh")
	}
	if c.cautious && !other.synced {
		w.t.Error("the reader left a registry that has not answered")
	}
	for _, e := range other.usable {
		hidden := !other.fresh && w.ref.left[c.lead][e.Addr]
		covered := slices.ContainsFunc(lead.usable, func(l naming.Endpoint) bool { return l.Addr == e.Addr && (e.Addr != "" || l.ID == e.ID) })
		covered = covered || slices.ContainsFunc(lead.withheld, func(l naming.Withheld) bool {
			return l.Endpoint.Addr == e.Addr && (l.Reason != naming.FailedCheck || !other.fresh)
		})
		drains := isDraining(&e) || slices.ContainsFunc(other.usable, func(o naming.Endpoint) bool { return o.Addr == e.Addr && isDraining(&o) })
		if !hidden && !covered && !drains && e.Addr != "" {
			w.t.Errorf("the reader left a registry that alone has %q", e.Addr)
		}
	}
	if len(out.usable) == 0 && len(w.mustBeUsable(c.lead.other())) > 0 {
		w.t.Error("the reader left a registry for an empty one")
	}
}

// checkVanished checks that an endpoint that vanished from one registry is in the set while
// the other registry may still have it, and that an endpoint that was draining is not. before
// are the views of the last step.
func (w *world) checkVanished(c choice, was memory, before *[2]view, out result) {
	if !out.publish || out.narrow || !was.published {
		return
	}
	for i := range before {
		now, other := &w.views[i], &w.views[1-i]
		for _, e := range before[i].usable {
			if isDraining(&e) || other.fresh || other.late || !now.fresh || w.isWithheld(e.Addr) {
				continue
			}
			if !hasEntry(now, func(n *naming.Endpoint) bool { return n.ID == e.ID || e.Addr != "" && n.Addr == e.Addr }) &&
				!slices.ContainsFunc(out.usable, func(n naming.Endpoint) bool {
					return n.Addr == e.Addr && (e.Addr != "" || strings.HasPrefix(n.ID, e.ID))
				}) {
				w.t.Errorf("endpoint %q at %q vanished before the other registry was fresh", e.ID, e.Addr)
			}
		}
		for addr := range before[i].draining {
			isAt := func(n *naming.Endpoint) bool { return n.Addr == addr }
			if now.fresh && !hasEntry(now, isAt) && !hasEntry(other, isAt) && slices.ContainsFunc(out.usable, func(n naming.Endpoint) bool { return isAt(&n) }) {
				w.t.Errorf("address %q was draining and vanished, and is in the set", addr)
			}
		}
	}
}

func (w *world) isWithheld(addr string) bool {
	return slices.ContainsFunc(slices.Concat(w.views[0].withheld, w.views[1].withheld), func(o naming.Withheld) bool { return o.Endpoint.Addr == addr })
}

func hasEntry(v *view, is func(*naming.Endpoint) bool) bool {
	for e := range v.entries {
		if is(e) {
			return true
		}
	}
	return false
}
