package migrate

import (
	"bytes"
	"slices"
	"strings"

	"github.com/naming-go/naming"
)

// view is what a reader knows of a service in one registry.
type view struct {
	synced bool // the registry has answered
	fresh  bool // synced, and not stale
	failed bool // stale, so that an answer is not waited for

	// Sorted by ID. Copies of a bridge are shown as the endpoints that they are copies
	// of. The slices are shared and never modified.
	usable   []naming.Endpoint
	withheld []naming.Withheld
}

// pending reports whether the registry has neither answered nor failed.
func (v *view) pending() bool { return !v.synced && !v.failed }

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

// memory is what a reader remembers of earlier sets.
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
}

// result is what a reader publishes.
type result struct {
	publish   bool // false: nothing can be published, and the last set stays
	usable    []naming.Endpoint
	withheld  []naming.Withheld
	narrow    bool     // the set is that of the lead alone
	uncovered []string // live addresses that only the other registry has, if the lead is wanted alone
}

// publish decides what a reader publishes. It has the rules that make a migration safe:
//
//   - A reader leaves a registry only when the other one is fresh and has every live
//     address of the first.
//   - The entries of a stale registry stay as long as the registry is stale, except those
//     that left the other registry in order.
//   - While no registry is fresh, the last set stays.
//   - The first set waits for both registries. An empty set is published only when both
//     have answered.
//
// It has no side effects and modifies nothing that it gets.
func publish(c choice, views *[2]view, m *memory) result {
	lead, other := &views[c.lead], &views[c.lead.other()]
	if c.narrow && c.sticky && m.narrow && m.to == c.lead {
		return result{publish: lead.synced, usable: lead.usable, withheld: lead.withheld, narrow: true}
	}
	switch {
	case !m.published && !m.waited && (lead.pending() || other.pending()):
		return result{}
	case !lead.fresh && !other.fresh && (m.published || !lead.synced && !other.synced):
		return result{}
	}
	w := merge(c.lead, views, m)
	if len(w.usable)+len(w.withheld) == 0 && !(lead.synced && other.synced) {
		return result{}
	}
	r := result{publish: true, usable: w.usable, withheld: w.withheld, uncovered: w.uncovered}
	if c.narrow && lead.fresh && len(w.uncovered) == 0 && (other.synced || !c.cautious) {
		r.narrow, r.usable, r.withheld = true, w.leadUsable, w.leadWithheld
	}
	return r
}

// remember returns the memory after a set was published. before and now are the views of
// then and now.
func (m *memory) remember(c choice, r result, views *[2]view) memory {
	next := *m
	next.narrow, next.to = r.narrow, c.lead
	next.published = m.published || r.publish
	for i := range views {
		v := &views[i]
		if v.fresh {
			next.left[i], next.draining[i] = m.leave(sideIndex(i), views)
		}
	}
	return next
}

// leave returns the addresses that left registry i in order, and those that are draining
// there now. The registry is fresh.
func (m *memory) leave(i sideIndex, views *[2]view) (left, draining map[string]struct{}) {
	v, other := &views[i], &views[i.other()]
	for j := range v.usable {
		if e := &v.usable[j]; e.Addr != "" && e.Info().Draining {
			draining = add(draining, e.Addr)
		}
	}
	if len(m.left[i])+len(m.draining[i]) == 0 {
		return nil, draining
	}
	here, there := addresses(v), addresses(other)
	for _, before := range []map[string]struct{}{m.left[i], m.draining[i]} {
		for addr := range before {
			// Nobody has to remember an address that the other registry does not have.
			if !has(here, addr) && has(there, addr) {
				left = add(left, addr)
			}
		}
	}
	return left, draining
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

// addresses returns the addresses of all entries of a view.
func addresses(v *view) map[string]struct{} {
	set := make(map[string]struct{}, len(v.usable)+len(v.withheld))
	for i := range v.usable {
		set[v.usable[i].Addr] = struct{}{}
	}
	for i := range v.withheld {
		set[v.withheld[i].Endpoint.Addr] = struct{}{}
	}
	return set
}

// merged is the endpoints of both registries together.
type merged struct {
	usable    []naming.Endpoint
	withheld  []naming.Withheld
	uncovered []string // sorted

	// The part of it that the lead has.
	leadUsable   []naming.Endpoint
	leadWithheld []naming.Withheld
}

// merge returns the endpoints of both registries, each address once. Where both have an
// address, the data of the lead count.
func merge(lead sideIndex, views *[2]view, m *memory) merged {
	if equalEntries(&views[lead], &views[lead.other()], m) {
		v := &views[lead]
		return merged{usable: v.usable, leadUsable: v.usable}
	}
	x := merger{lead: lead, views: views, memory: m}
	x.prepare()
	x.mergeSide(lead)
	x.out.leadUsable, x.out.leadWithheld = slices.Clone(x.out.usable), slices.Clone(x.out.withheld)
	x.mergeSide(lead.other())
	x.sort()
	return x.out
}

// equalEntries reports whether both registries have the same addresses under the same
// IDs, and nothing else has to be looked at. It is the usual case, and costs no memory.
func equalEntries(lead, other *view, m *memory) bool {
	if len(lead.usable) != len(other.usable) || len(lead.withheld)+len(other.withheld) > 0 {
		return false
	}
	if len(m.left[oldSide])+len(m.left[newSide]) > 0 {
		return false
	}
	for i := range lead.usable {
		l, o := &lead.usable[i], &other.usable[i]
		if l.ID != o.ID || l.Addr != o.Addr || l.Draining != o.Draining {
			return false
		}
		if !bytes.Equal(l.Metadata, o.Metadata) && l.Info().Draining != o.Info().Draining {
			return false
		}
	}
	return true
}

// merger merges the endpoints of both registries.
type merger struct {
	lead   sideIndex
	views  *[2]view
	memory *memory

	usable   [2]map[string]struct{}      // the addresses that each registry says to use
	draining map[string]struct{}         // addresses that are draining in a fresh registry
	veto     map[string]*naming.Withheld // addresses that a fresh registry says not to use
	ids      map[string]string           // the address of each ID in the result
	apart    map[string]struct{}         // addresses of the result's withheld endpoints
	out      merged
}

// prepare collects what each registry says about each address.
func (x *merger) prepare() {
	x.ids = make(map[string]string)
	x.veto = make(map[string]*naming.Withheld)
	for i := range x.views {
		v := &x.views[i]
		x.usable[i] = make(map[string]struct{}, len(v.usable))
		for j := range v.usable {
			e := &v.usable[j]
			if e.Addr == "" || x.hasLeft(sideIndex(i), e.Addr) {
				continue
			}
			x.usable[i][e.Addr] = struct{}{}
			if v.fresh && e.Info().Draining {
				x.draining = add(x.draining, e.Addr)
			}
		}
	}
	for i := range x.views {
		x.prepareVetoes(sideIndex(i))
	}
}

// prepareVetoes collects the addresses that registry i says not to use. An operator's
// decision in one registry counts in both. A failed check counts unless the other registry
// vouches for the endpoint.
func (x *merger) prepareVetoes(i sideIndex) {
	v, other := &x.views[i], &x.views[i.other()]
	for j := range v.withheld {
		w := &v.withheld[j]
		addr := w.Endpoint.Addr
		switch {
		case addr == "":
		case w.Reason == naming.FailedCheck && other.fresh && has(x.usable[i.other()], addr):
		case v.fresh, !has(x.usable[i.other()], addr):
			if x.veto[addr] == nil || v.fresh {
				x.veto[addr] = w
			}
		}
	}
}

// hasLeft reports whether an entry of registry i left the other registry in order, and
// registry i is stale, so that it does not know.
func (x *merger) hasLeft(i sideIndex, addr string) bool {
	return !x.views[i].fresh && has(x.memory.left[i.other()], addr)
}

// mergeSide adds the endpoints of registry i, except those whose address the lead has.
func (x *merger) mergeSide(i sideIndex) {
	v := &x.views[i]
	for j := range v.usable {
		e := v.usable[j]
		switch {
		case x.hasLeft(i, e.Addr):
		case i != x.lead && e.Addr != "" && has(x.usable[x.lead], e.Addr):
		case x.veto[e.Addr] != nil:
			w := *x.veto[e.Addr]
			x.withhold(naming.Withheld{Endpoint: e, Reason: w.Reason, Detail: w.Detail})
		default:
			if has(x.draining, e.Addr) {
				e.Draining = true
			} else if i != x.lead && e.Addr != "" {
				x.out.uncovered = append(x.out.uncovered, e.Addr)
			}
			if x.claimID(&e) {
				x.out.usable = append(x.out.usable, e)
			}
		}
	}
	for j := range v.withheld {
		if w := v.withheld[j]; x.veto[w.Endpoint.Addr] != nil || w.Endpoint.Addr == "" {
			x.withhold(w)
		}
	}
}

// withhold adds an endpoint that is not to be used, unless its address was added.
func (x *merger) withhold(w naming.Withheld) {
	if has(x.apart, w.Endpoint.Addr) {
		return
	}
	if w.Endpoint.Addr != "" {
		x.apart = add(x.apart, w.Endpoint.Addr)
	}
	if x.claimID(&w.Endpoint) {
		x.out.withheld = append(x.out.withheld, w)
	}
}

// claimID makes the ID of e unique in the result. It reports false if the result has the
// same entry. One ID with two addresses, one in each registry, is two endpoints.
func (x *merger) claimID(e *naming.Endpoint) bool {
	addr, taken := x.ids[e.ID]
	if taken && addr == e.Addr {
		return false
	}
	for taken {
		e.ID += "@" + e.Addr
		_, taken = x.ids[e.ID]
	}
	x.ids[e.ID] = e.Addr
	return true
}

// sort sorts the lists of the result.
func (x *merger) sort() {
	for _, list := range [][]naming.Endpoint{x.out.usable, x.out.leadUsable} {
		slices.SortFunc(list, func(a, b naming.Endpoint) int { return strings.Compare(a.ID, b.ID) })
	}
	for _, list := range [][]naming.Withheld{x.out.withheld, x.out.leadWithheld} {
		slices.SortFunc(list, func(a, b naming.Withheld) int { return strings.Compare(a.Endpoint.ID, b.Endpoint.ID) })
	}
	slices.Sort(x.out.uncovered)
	x.out.uncovered = slices.Compact(x.out.uncovered)
}

// asNatives returns the endpoints of a registry with the copies of bridges shown as their
// natives. A copy is left out if the registry has its native, by ID or by address. Lists
// without copies are returned as they are.
func asNatives(usable []naming.Endpoint, withheld []naming.Withheld) ([]naming.Endpoint, []naming.Withheld) {
	if !slices.ContainsFunc(usable, func(e naming.Endpoint) bool { return isCopy(e.ID) }) &&
		!slices.ContainsFunc(withheld, func(w naming.Withheld) bool { return isCopy(w.Endpoint.ID) }) {
		return usable, withheld
	}
	ids, addrs := make(map[string]struct{}), make(map[string]struct{})
	claim := func(e *naming.Endpoint) bool {
		if has(ids, e.ID) || e.Addr != "" && has(addrs, e.Addr) {
			return false
		}
		ids[e.ID], addrs[e.Addr] = struct{}{}, struct{}{}
		return true
	}
	var natives []naming.Endpoint
	var apart []naming.Withheld
	for _, copies := range []bool{false, true} {
		for _, e := range usable {
			if n, is := Native(e); is == copies && (claim(&n) || !copies) {
				natives = append(natives, n)
			}
		}
		for _, w := range withheld {
			if n, is := Native(w.Endpoint); is == copies && (claim(&n) || !copies) {
				w.Endpoint = n
				apart = append(apart, w)
			}
		}
	}
	slices.SortFunc(natives, func(a, b naming.Endpoint) int { return strings.Compare(a.ID, b.ID) })
	slices.SortFunc(apart, func(a, b naming.Withheld) int { return strings.Compare(a.Endpoint.ID, b.Endpoint.ID) })
	return natives, apart
}

func isCopy(id string) bool {
	_, _, ok := ParseCopyID(id)
	return ok
}
