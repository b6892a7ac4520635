package migrate

import (
	"slices"

	"github.com/naming-go/naming"
)

// keep returns the memory with the entries that stay shown although they vanished.
//
// The other registry may have an entry that vanishes from one registry, and the reader may
// not know. One reason is that the reader has just opened the watch of the other one. Another
// one is that the other one was down: servers that move to it leave the first one, and the
// reader waits for its next attempt, which hurry makes at once. So an entry that vanishes
// from a registry stays shown until the other registry is fresh, for FirstWait at most. A
// reader does not leave the other registry meanwhile. These entries do not stay:
//
//   - An entry that was draining left in order.
//   - An entry that was withheld was not in use.
//   - If the registry still has an entry with the address or with the ID, then this entry
//     counts, even if it is withheld.
//   - A reader that has left the other registry, or only compares it, waits for no answer.
func (m *memory) keep(c choice, views *[2]view) memory {
	next := *m
	for i := range views {
		next.seen[i], next.kept[i] = views[i].usable, nil
		if m.published && !m.hasLeft(c) && views[1-i].awaited() {
			next.kept[i] = m.vanished(sideIndex(i), &views[i])
		}
	}
	return next
}

// vanished returns the entries of registry i that were seen or kept, and are gone from v.
func (m *memory) vanished(i sideIndex, v *view) (list []naming.Endpoint) {
	if len(m.kept[i]) == 0 && sameList(m.seen[i], v.usable) {
		return nil
	}
	addrs, ids := addresses(v), make(map[string]struct{}, len(v.usable)+len(v.withheld))
	for e := range v.entries {
		ids[e.ID] = struct{}{}
	}
	for _, before := range [][]naming.Endpoint{m.kept[i], m.seen[i]} {
		for j := range before {
			e := &before[j]
			if has(ids, e.ID) || e.Addr != "" && has(addrs, e.Addr) || isDraining(e) {
				continue
			}
			list = append(list, *e)
		}
	}
	sortEndpoints(list)
	return list
}

// withKept returns the views with the entries that are kept.
func (m *memory) withKept(views *[2]view) *[2]view {
	if len(m.kept[oldSide])+len(m.kept[newSide]) == 0 {
		return views
	}
	with := *views
	for i, kept := range m.kept {
		if len(kept) > 0 {
			// No ID is in both lists.
			with[i].usable = slices.Concat(kept, views[i].usable)
			sortEndpoints(with[i].usable)
		}
	}
	return &with
}
