package naming

import (
	"maps"
	"slices"
	"strings"
)

// endpointSet is the set of a service's endpoints, and the forms in which readers get
// it. It is part of shared, and guarded by its mu.
type endpointSet struct {
	entries  map[string]*entry // by ID
	withheld int               // how many entries are withheld
	flagged  bool              // flags of an entry changed since the followers were woken

	// The entries in order, as of step orderAt, and as the lists of a View, as of step
	// listsAt. They are nil until a reader asks. The slices are never modified.
	order   []*entry
	orderAt *step
	lists   viewLists
	listsAt *step
}

// viewLists are the lists of a View.
type viewLists struct {
	endpoints []Endpoint
	withheld  []Withheld
}

// usable returns the number of entries that may be used.
func (s *endpointSet) usable() int { return len(s.entries) - s.withheld }

// checkBatch returns an error if the set would break a limit with batch b, or if b
// deletes an empty ID that the set does not have.
func (s *endpointSet) checkBatch(b Batch) error {
	if n := s.sizeAfter(b); n > MaxEndpoints {
		return errTooMany("endpoints", n, MaxEndpoints)
	}
	if len(b.Deleted) > 0 && b.Deleted[0] == "" && s.entries[""] == nil {
		return errBroken("a deletion with an empty ID, which no endpoint has")
	}
	return nil
}

// sizeAfter returns the size of the set after a batch, or any size within the limit if
// the batch cannot exceed the limit.
func (s *endpointSet) sizeAfter(b Batch) int {
	n := len(b.Put) + len(b.Withheld)
	if b.Snapshot || len(s.entries)+n <= MaxEndpoints {
		return n
	}
	n = len(s.entries)
	for i := range b.Put {
		if s.entries[b.Put[i].ID] == nil {
			n++
		}
	}
	for i := range b.Withheld {
		if s.entries[b.Withheld[i].Endpoint.ID] == nil {
			n++
		}
	}
	for _, id := range b.Deleted {
		if s.entries[id] != nil {
			n--
		}
	}
	return n
}

// applyFirstSnapshot makes the endpoints of a snapshot the set, before step at. It
// returns no changes, because readers get the whole set. The lists of the snapshot
// become the lists of the View.
func (s *endpointSet) applyFirstSnapshot(b Batch, at *step) {
	if b.Put == nil {
		b.Put = []Endpoint{}
	}
	list := b.entries()
	s.entries = make(map[string]*entry, len(list))
	order := make([]*entry, len(list))
	for i := range list {
		order[i] = &list[i]
		s.entries[list[i].ID] = &list[i]
	}
	if len(b.Withheld) > 0 {
		slices.SortFunc(order, compareEntries)
	}
	s.withheld = len(b.Withheld)
	s.order, s.orderAt = order, at
	s.lists, s.listsAt = viewLists{slices.Clip(b.Put), slices.Clip(b.Withheld)}, at
}

// applyChanges applies a batch of changes to the set and returns the changes that had
// an effect, sorted by ID.
func (s *endpointSet) applyChanges(b Batch) []change {
	changes := make([]change, 0, len(b.Deleted)+len(b.Put)+len(b.Withheld))
	for _, id := range b.Deleted {
		if old := s.entries[id]; old != nil {
			delete(s.entries, id)
			changes = append(changes, change{old: old})
		}
	}
	list := b.entries()
	for i := range list {
		e := &list[i]
		if old := s.entries[e.ID]; !sameEntry(old, e) {
			s.entries[e.ID] = e
			changes = append(changes, change{old: old, new: e})
		} else if !sameFlags(old, e) {
			s.entries[e.ID] = e
			s.setFlagged()
		}
	}
	s.finishChanges(changes)
	return changes
}

// applySnapshot makes the endpoints of a snapshot the set, and returns the difference,
// sorted by ID.
func (s *endpointSet) applySnapshot(b Batch) []change {
	var changes []change
	list := b.entries()
	entries := make(map[string]*entry, len(list))
	for i := range list {
		e := &list[i]
		switch old := s.entries[e.ID]; {
		case !sameEntry(old, e):
			changes = append(changes, change{old: old, new: e})
		case sameFlags(old, e):
			e = old
		default:
			s.setFlagged()
		}
		entries[e.ID] = e
	}
	for id, old := range s.entries {
		if entries[id] == nil {
			changes = append(changes, change{old: old})
		}
	}
	s.entries = entries
	s.finishChanges(changes)
	return changes
}

// setFlagged says that the flags of an entry changed. The order and the lists have the
// old flags, and no step of the chain says so, so they are made anew.
func (s *endpointSet) setFlagged() {
	s.flagged = true
	s.order, s.orderAt = nil, nil
	s.lists, s.listsAt = viewLists{}, nil
}

// finishChanges updates the number of withheld entries, and sorts changes.
func (s *endpointSet) finishChanges(changes []change) {
	for _, c := range changes {
		if c.old != nil && c.old.withheld != nil {
			s.withheld--
		}
		if c.new != nil && c.new.withheld != nil {
			s.withheld++
		}
	}
	if !slices.IsSortedFunc(changes, compareChanges) {
		slices.SortFunc(changes, compareChanges)
	}
}

// skipEmptyStep moves the lists from step at to next, if they are as of at. The step
// changed no endpoint.
func (s *endpointSet) skipEmptyStep(at, next *step) {
	if s.listsAt == at {
		s.listsAt = next
	}
}

// releaseChain drops the order and the lists unless they are as of step tail, because
// they hold the chain from their step on.
func (s *endpointSet) releaseChain(tail *step) {
	if s.orderAt != tail {
		s.order, s.orderAt = nil, nil
	}
	if s.listsAt != tail {
		s.lists, s.listsAt = viewLists{}, nil
	}
}

// ordered returns the entries sorted by ID. tail is the end of the chain. The slice must
// not be modified.
func (s *endpointSet) ordered(tail *step) []*entry {
	switch {
	case s.order == nil:
		s.order = slices.AppendSeq(make([]*entry, 0, len(s.entries)), maps.Values(s.entries))
		slices.SortFunc(s.order, compareEntries)
	case s.orderAt != tail:
		s.order = merge(s.order, changesSince(s.orderAt, tail), entryID, func(e *entry) *entry { return e })
	}
	s.orderAt = tail
	return s.order
}

func entryID(e *entry) string { return e.ID }

func endpointID(e Endpoint) string { return e.ID }

// changesSince returns the net changes of the steps from at to tail, sorted by ID.
func changesSince(at, tail *step) []change {
	if at.next == tail {
		return at.changes // the usual case, which needs no map
	}
	d := make(diff)
	for ; at != tail; at = at.next {
		d.add(at.changes)
	}
	return d.sorted()
}

// merge returns list with changes made to it. Both are sorted by ID. id returns the ID of an
// element, and element the element of an entry.
func merge[T any](list []T, changes []change, id func(T) string, element func(*entry) T) []T {
	if len(changes) == 0 {
		return list
	}
	merged := make([]T, 0, len(list)+len(changes))
	for _, c := range changes {
		i, found := slices.BinarySearchFunc(list, c.id(), func(x T, of string) int { return strings.Compare(id(x), of) })
		merged = append(merged, list[:i]...)
		if found {
			i++
		}
		list = list[i:]
		if c.new != nil {
			merged = append(merged, element(c.new))
		}
	}
	return slices.Clip(append(merged, list...))
}

// viewLists returns the lists of a View. tail is the end of the chain. The slices must
// not be modified.
func (s *endpointSet) viewLists(tail *step) viewLists {
	if s.listsAt == tail {
		return s.lists
	}
	order := s.ordered(tail)
	if s.listsAt != nil && s.withheld == 0 && len(s.lists.withheld) == 0 {
		// To copy the list is faster than to visit each entry.
		changes := changesSince(s.listsAt, tail)
		s.lists.endpoints = merge(s.lists.endpoints, changes, endpointID, func(e *entry) Endpoint { return *e.Endpoint })
	} else {
		s.makeLists(order)
	}
	s.listsAt = tail
	return s.lists
}

// makeLists makes the lists of a View from all entries.
func (s *endpointSet) makeLists(order []*entry) {
	s.lists = viewLists{endpoints: make([]Endpoint, 0, s.usable())}
	if s.withheld > 0 {
		s.lists.withheld = make([]Withheld, 0, s.withheld)
	}
	for _, e := range order {
		if e.withheld == nil {
			s.lists.endpoints = append(s.lists.endpoints, *e.Endpoint)
		} else {
			s.lists.withheld = append(s.lists.withheld, *e.withheld)
		}
	}
}
