package resolver

import (
	"slices"
	"strings"

	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/naming-go/naming"
)

// members are the usable endpoints of a service. Slices that are sorted take the place
// of maps: most sets are small, and for large ones a map takes several times the memory.
type members struct {
	// All members, sorted by ID and by address.
	byID, byAddr []*member

	// The members that represent their address, sorted by ID. The slices are never
	// modified.
	active   []grpcresolver.Endpoint
	draining []grpcresolver.Endpoint
}

// applySnapshot replaces all members by the endpoints of a snapshot, which are sorted.
// It keeps put.
func (s *members) applySnapshot(put []naming.Endpoint) {
	k := newMaker(len(put))
	s.byID = make([]*member, 0, len(put))
	for i := range put {
		if put[i].Addr != "" {
			s.byID = append(s.byID, k.newMember(&put[i]))
		}
	}
	s.byAddr = slices.Clone(s.byID)
	slices.SortFunc(s.byAddr, compareByAddr)
	others := unrepresentative(s.byAddr)
	s.active = make([]grpcresolver.Endpoint, 0, len(s.byID))
	s.draining = nil
	for _, m := range s.byID {
		switch {
		case len(others) > 0 && others[m]:
		case m.draining():
			s.draining = append(s.draining, m.grpc())
		default:
			s.active = append(s.active, m.grpc())
		}
	}
}

// unrepresentative returns the members of a list, sorted by address, that do not
// represent their address.
func unrepresentative(byAddr []*member) map[*member]bool {
	others := make(map[*member]bool)
	for rest := byAddr; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].addr() == rest[0].addr() {
			n++
		}
		if n > 1 {
			for _, m := range rest[:n] {
				others[m] = true
			}
			delete(others, representative(rest[:n]))
		}
		rest = rest[n:]
	}
	return others
}

// at returns the member that represents an address, or nil.
func (s *members) at(addr string) *member {
	i, ok := slices.BinarySearchFunc(s.byAddr, addr, func(m *member, addr string) int { return strings.Compare(m.addr(), addr) })
	if !ok {
		return nil
	}
	n := 1
	for i+n < len(s.byAddr) && s.byAddr[i+n].addr() == addr {
		n++
	}
	return representative(s.byAddr[i : i+n])
}

// representative returns the first of members that is not draining, or else the first.
func representative(members []*member) *member {
	for _, m := range members {
		if !m.draining() {
			return m
		}
	}
	return members[0]
}

// applyChanges makes the changes of a batch. An ID occurs once in the batch. It keeps
// b.Put.
func (s *members) applyChanges(b naming.Batch) {
	gone, come := s.diff(b)
	addrs := addresses(gone, come)
	before := make([]*member, len(addrs)) // the members that represented the addresses
	for i, addr := range addrs {
		before[i] = s.at(addr)
	}
	s.byID = replace(s.byID, gone, come, compareByID)
	s.byAddr = replace(s.byAddr, gone, come, compareByAddr)
	var active, draining []edit
	add := func(m *member, leaves bool) {
		switch {
		case m == nil:
		case m.draining():
			draining = append(draining, edit{m, leaves})
		default:
			active = append(active, edit{m, leaves})
		}
	}
	for i, addr := range addrs {
		if m := s.at(addr); m != before[i] {
			add(before[i], true)
			add(m, false)
		}
	}
	s.active = merge(s.active, active)
	s.draining = merge(s.draining, draining)
}

// diff returns the members that leave with a batch, and the new ones.
func (s *members) diff(b naming.Batch) (gone, come []*member) {
	drop := func(id string) {
		if i, ok := slices.BinarySearchFunc(s.byID, id, func(m *member, id string) int { return strings.Compare(m.endpoint.ID, id) }); ok {
			gone = append(gone, s.byID[i])
		}
	}
	for _, id := range b.Deleted {
		drop(id)
	}
	for i := range b.Withheld {
		drop(b.Withheld[i].Endpoint.ID)
	}
	k := newMaker(len(b.Put))
	for i := range b.Put {
		drop(b.Put[i].ID)
		if b.Put[i].Addr != "" {
			come = append(come, k.newMember(&b.Put[i]))
		}
	}
	return gone, come
}

// addresses returns the addresses of two lists, sorted, each of them once.
func addresses(a, b []*member) []string {
	addrs := make([]string, 0, len(a)+len(b))
	for _, m := range a {
		addrs = append(addrs, m.addr())
	}
	for _, m := range b {
		addrs = append(addrs, m.addr())
	}
	slices.Sort(addrs)
	return slices.Compact(addrs)
}

// edit is a change to a sorted list: the member is inserted, or leaves the list.
type edit struct {
	member *member
	leaves bool
}

// compareEdits sorts edits by ID. Of two members with one ID, the old one leaves first.
func compareEdits(a, b edit) int {
	if c := compareByID(a.member, b.member); c != 0 || a.leaves == b.leaves {
		return c
	}
	if a.leaves {
		return -1
	}
	return 1
}

// replace takes the members gone out of a sorted list, and puts the members come in. It
// modifies the list, and sorts gone and come.
func replace(list, gone, come []*member, compare func(a, b *member) int) []*member {
	slices.SortFunc(gone, compare)
	slices.SortFunc(come, compare)
	return insertMembers(removeMembers(list, gone, compare), come, compare)
}

// removeMembers takes the members gone, which are in the list, out of the list. Both are
// sorted. It modifies both.
func removeMembers(list, gone []*member, compare func(a, b *member) int) []*member {
	if len(gone) == 0 {
		return list
	}
	i := find(list, gone[0], compare)
	kept, rest := list[:i], list[i:]
	for len(gone) > 0 {
		rest, gone = rest[1:], gone[1:]
		n := len(rest)
		if len(gone) > 0 {
			n = find(rest, gone[0], compare)
		}
		kept, rest = append(kept, rest[:n]...), rest[n:]
	}
	clear(list[len(kept):])
	return kept
}

// insertMembers puts the members come into the list. Both are sorted. It modifies the list.
func insertMembers(list, come []*member, compare func(a, b *member) int) []*member {
	// From the end, so that every member moves once.
	n := len(list)
	list = slices.Grow(list, len(come))[:n+len(come)]
	for j := len(come) - 1; j >= 0; j-- {
		i := find(list[:n], come[j], compare)
		copy(list[i+j+1:], list[i:n])
		list[i+j] = come[j]
		n = i
	}
	return list
}

// find returns the place of m in a sorted list.
func find(list []*member, m *member, compare func(a, b *member) int) int {
	i, _ := slices.BinarySearchFunc(list, m, compare)
	return i
}

// merge returns a sorted list with edits made to it.
func merge(list []grpcresolver.Endpoint, edits []edit) []grpcresolver.Endpoint {
	if len(edits) == 0 {
		return list
	}
	slices.SortFunc(edits, compareEdits)
	size := len(list)
	for _, e := range edits {
		if e.leaves {
			size--
		} else {
			size++
		}
	}
	merged := make([]grpcresolver.Endpoint, 0, size)
	for _, e := range edits {
		i, _ := slices.BinarySearchFunc(list, e.member.endpoint.ID, func(e grpcresolver.Endpoint, id string) int {
			return strings.Compare(memberOf(e).endpoint.ID, id)
		})
		merged = append(merged, list[:i]...)
		list = list[i:]
		if e.leaves {
			list = list[1:]
		} else {
			merged = append(merged, e.member.grpc())
		}
	}
	return append(merged, list...)
}
