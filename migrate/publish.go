package migrate

import (
	"maps"

	"github.com/naming-go/naming"
)

// view is what a reader knows of a service in one registry.
type view struct {
	synced bool // the registry has answered
	fresh  bool // synced, and the entries follow the registry
	failed bool // stale, so that an answer is not waited for
	late   bool // an answer was awaited for FirstWait: see keep

	// Sorted by ID. Copies of a bridge are shown as the endpoints that they are copies
	// of. The slices are shared and never modified.
	usable   []naming.Endpoint
	withheld []naming.Withheld

	// The addresses that are draining, which setLists finds once for each list. The map is
	// never modified afterwards.
	draining map[string]struct{}
}

// setLists sets the entries of a view.
func (v *view) setLists(usable []naming.Endpoint, withheld []naming.Withheld) {
	v.usable, v.withheld, v.draining = usable, withheld, nil
	for e := range v.entries {
		if e.Addr != "" && isDraining(e) {
			v.draining = add(v.draining, e.Addr)
		}
	}
	if len(v.draining) == 0 {
		return
	}
	for e := range v.entries {
		if !isDraining(e) {
			delete(v.draining, e.Addr) // a successor has the address already
		}
	}
}

// pending reports whether the registry has neither answered nor failed.
func (v *view) pending() bool { return !v.synced && !v.failed }

// awaited reports whether the registry may have endpoints that the reader does not know, and
// has time to answer.
func (v *view) awaited() bool { return !v.fresh && !v.late }

// choice is how a reader reads a service.
type choice struct {
	// lead is the registry whose data count where both have an endpoint.
	lead sideIndex
	// narrow says that the reader wants the lead alone.
	narrow bool
	// sticky says that a reader that has left the other registry does not come back
	// to it. Otherwise it comes back whenever the lead does not cover the other.
	sticky bool
	// cautious says that the other registry must have answered before the reader
	// leaves it.
	cautious bool
	// alone says that a reader that begins in this phase reads the lead alone from
	// the start.
	alone bool
}

// choose returns how a reader reads in a state. inShare says that the reader is in the
// share of PreferNew.
func choose(s State, known, inShare bool) choice {
	switch {
	case !known:
		return choice{lead: oldSide}
	case s.Phase <= Shadow:
		return choice{lead: oldSide, narrow: true, sticky: true, alone: true}
	case s.Phase == PreferNew && inShare:
		return choice{lead: newSide, narrow: true, cautious: true}
	case s.Phase == Union || s.Phase == PreferNew:
		return choice{lead: oldSide}
	case s.Phase == NewRead:
		return choice{lead: newSide, narrow: true, sticky: true, cautious: true}
	}
	return choice{lead: newSide, narrow: true, sticky: true, alone: true}
}

// memory is what a reader remembers of earlier views and sets.
type memory struct {
	// narrow says that the reader has left the registry other than to.
	narrow bool
	to     sideIndex
	// published says that a set was published.
	published bool
	// waited says that the first answers were waited for long enough.
	waited bool
	// left are the addresses that left a registry in order, by the registry that they
	// left: they were seen draining there, and then were gone. The maps are never
	// modified.
	left [2]map[string]struct{}
	// draining are the addresses that were draining in the last fresh view of each
	// registry. The maps are never modified.
	draining [2]map[string]struct{}
	// seen are the usable entries of the last view of each registry, and kept are the
	// entries of each registry that stay shown although they vanished: see keep. The
	// slices are sorted by ID, shared, and never modified.
	seen, kept [2][]naming.Endpoint
}

// result is what a reader publishes.
type result struct {
	publish   bool // false: nothing can be published, and the last set stays
	usable    []naming.Endpoint
	withheld  []naming.Withheld
	narrow    bool     // the set is that of the lead alone
	uncovered []string // live addresses that only the other registry has, sorted
}

// publish decides what a reader publishes. m has observed the views. The rules make a
// migration safe:
//
//   - A reader leaves a registry only when the other one is fresh and has every live
//     address of the first.
//   - The entries of a stale registry stay as long as the registry is stale, except those
//     that left the other registry in order.
//   - While no registry is fresh, the last set stays.
//   - The first set waits for both registries. An empty set is published only when both
//     have answered, and neither has an endpoint that may be used.
//   - After the first set, an entry that vanishes from a registry stays until the other
//     registry is fresh, for FirstWait at most: see keep.
//
// It has no side effects and modifies nothing that it gets.
func publish(c choice, views *[2]view, m *memory) result {
	lead, other := &views[c.lead], &views[c.lead.other()]
	alone := result{publish: lead.synced, usable: lead.usable, withheld: lead.withheld, narrow: true}
	if m.hasLeft(c) {
		return alone
	}
	switch {
	case !m.published && !m.waited && (lead.pending() || other.pending()):
		return result{}
	case !lead.fresh && !other.fresh && (m.published || !lead.synced && !other.synced):
		return result{}
	}
	w := merge(c.lead, m.withKept(views), m, c.narrow)
	if len(w.usable) == 0 && !(lead.synced && other.synced) {
		return result{}
	}
	covers := len(w.uncovered) == 0 && (len(w.leadUsable) > 0 || len(w.usable) == 0)
	keeps := len(m.kept[c.lead]) > 0 // the set of the lead alone would lack them
	if !c.narrow || !lead.fresh || !covers || keeps || c.cautious && !other.synced {
		return result{publish: true, usable: w.usable, withheld: w.withheld, uncovered: w.uncovered}
	}
	if c.sticky {
		return alone
	}
	return result{publish: true, usable: w.leadUsable, withheld: w.leadWithheld, narrow: true}
}

// step observes the views and decides what a reader publishes. It returns the memory for
// the next step.
func (m memory) step(c choice, views *[2]view) (result, memory) {
	if !m.published {
		m.narrow, m.to = c.alone, c.lead
	}
	m = m.keep(c, views)
	m = m.observe(views)
	r := publish(c, views, &m)
	if !r.publish {
		r.narrow = m.narrow && m.to == c.lead // the last set stays
		return r, m
	}
	m.published, m.narrow, m.to = true, r.narrow, c.lead
	return r, m
}

// alone reports whether the published set is that of one registry alone.
func (m *memory) alone() bool { return m.published && m.narrow }

// wanted returns the registries to watch: the lead, and the other one unless the reader
// has left it and nothing compares the two.
func (m *memory) wanted(c choice, compare bool) (watch [2]bool) {
	watch[c.lead] = true
	watch[c.lead.other()] = !m.hasLeft(c) || compare
	return watch
}

// hasLeft reports whether the reader has left the registry other than the lead, and does not
// come back to it.
func (m *memory) hasLeft(c choice) bool { return c.narrow && c.sticky && m.narrow && m.to == c.lead }

// observe returns the memory with what the views show. A reader observes the views before
// publish decides, because an endpoint that left in order must not be taken from the
// registry that is stale at that moment.
func (m *memory) observe(views *[2]view) memory {
	next := *m
	for i := range views {
		if views[i].fresh {
			next.left[i], next.draining[i] = m.leave(sideIndex(i), views), views[i].draining
		}
	}
	return next
}

// forget returns the memory without what was observed in registry i, which is not watched
// from now on.
func (m *memory) forget(i sideIndex) memory {
	next := *m
	next.left[i], next.draining[i], next.seen[i], next.kept[i] = nil, nil, nil, nil
	return next
}

// leave returns the addresses that left registry i in order. The registry is fresh.
func (m *memory) leave(i sideIndex, views *[2]view) (left map[string]struct{}) {
	v, other := &views[i], &views[i.other()]
	if len(m.left[i])+len(m.draining[i]) == 0 {
		return nil
	}
	gone := make(map[string]struct{}, len(m.left[i])+len(m.draining[i]))
	maps.Copy(gone, m.left[i])
	maps.Copy(gone, m.draining[i])
	for e := range v.entries {
		delete(gone, e.Addr)
	}
	// Nobody has to remember an address that the other registry does not have.
	for e := range other.entries {
		if has(gone, e.Addr) {
			left = add(left, e.Addr)
		}
	}
	return left
}

// entries yields all entries of a view, withheld or not.
func (v *view) entries(yield func(*naming.Endpoint) bool) {
	for i := range v.usable {
		if !yield(&v.usable[i]) {
			return
		}
	}
	for i := range v.withheld {
		if !yield(&v.withheld[i].Endpoint) {
			return
		}
	}
}

// addresses returns the addresses of all entries of a view.
func addresses(v *view) map[string]struct{} {
	set := make(map[string]struct{}, len(v.usable)+len(v.withheld))
	for e := range v.entries {
		set[e.Addr] = struct{}{}
	}
	return set
}

func add(set map[string]struct{}, s string) map[string]struct{} {
	if set == nil {
		set = make(map[string]struct{})
	}
	set[s] = struct{}{}
	return set
}

func has(set map[string]struct{}, s string) bool {
	_, ok := set[s]
	return ok
}
