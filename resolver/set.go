package resolver

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"strconv"

	"google.golang.org/grpc/experimental/balancer/weight"
	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/naming-go/naming"
)

// member is an endpoint as all ClientConns share it, made once and never
// modified. It is the value of an attribute.
type member struct {
	endpoint  naming.Endpoint
	draining  bool
	addresses [1]grpcresolver.Address
	grpc      grpcresolver.Endpoint
}

// attributeKey is the key of a member among the attributes of its endpoint.
type attributeKey struct{}

// String is what gRPC logs.
func (attributeKey) String() string { return "naming.Endpoint" }

func newMember(e naming.Endpoint) *member {
	var info naming.Info
	if matters(e.Metadata) {
		info = e.Info()
	}
	m := &member{endpoint: e, draining: info.Draining}
	// Only ever the address: whatever else is in it, in its attributes above
	// all, makes gRPC connect anew when it changes.
	m.addresses[0].Addr = e.Addr
	m.grpc.Addresses = m.addresses[:]
	if info.Weight > 0 {
		m.grpc = weight.Set(m.grpc, weight.EndpointInfo{Weight: grpcWeight(info.Weight)})
	}
	m.grpc.Attributes = m.grpc.Attributes.WithValue(attributeKey{}, m)
	return m
}

// matters reports whether metadata may hold what matters here. To decode what
// does not would be most of the cost of a big service.
func matters(metadata []byte) bool {
	return bytes.Contains(metadata, []byte("weight")) || bytes.Contains(metadata, []byte("draining")) ||
		bytes.IndexByte(metadata, '\\') >= 0 // either of them, escaped
}

// grpcWeight returns a positive weight as gRPC's policies take it. They add the
// weights of all endpoints up in 32 bits, and take 1 for an endpoint without.
func grpcWeight(w float64) uint32 {
	return uint32(min(max(math.Round(w), 1), math.MaxUint16))
}

// Equal is what gRPC compares attributes with.
func (m *member) Equal(o any) bool {
	n, ok := o.(*member)
	return ok && (m == n || m.endpoint.Equal(n.endpoint))
}

// String is what gRPC logs.
func (m *member) String() string {
	return strconv.Quote(m.endpoint.ID) + " " + string(m.endpoint.Metadata)
}

// memberOf returns the member in a resolver.Endpoint of this package, or nil.
func memberOf(e grpcresolver.Endpoint) *member {
	m, _ := e.Attributes.Value(attributeKey{}).(*member)
	return m
}

// EndpointOf returns the endpoint that a resolver.Endpoint was made of, for load
// balancing policies; its Info method says what is in the metadata. It reports
// false for a resolver.Endpoint that is not of this package, or has lost its
// attributes on the way.
func EndpointOf(e grpcresolver.Endpoint) (naming.Endpoint, bool) {
	if m := memberOf(e); m != nil {
		return m.endpoint, true
	}
	return naming.Endpoint{}, false
}

// equalEndpoints reports whether two lists of members are equal.
func equalEndpoints(a, b []grpcresolver.Endpoint) bool {
	if len(a) != len(b) {
		return false
	}
	if len(a) == 0 || &a[0] == &b[0] {
		return true
	}
	for i := range a {
		if a[i].Attributes != b[i].Attributes && !memberOf(a[i]).Equal(memberOf(b[i])) {
			return false
		}
	}
	return true
}

// set is the endpoints of a service, and the list that is published of them.
type set struct {
	byID map[string]*member
	// byAddr holds the member that represents its address; shared holds all
	// members of an address that more than one has, sorted by ID.
	byAddr map[string]*member
	shared map[string][]*member

	// The members that represent their address, sorted by ID. The slices are
	// never modified.
	active   []grpcresolver.Endpoint
	draining []grpcresolver.Endpoint

	held        []naming.Endpoint // as the registry last told
	heldMembers []*member         // one per address, sorted by ID

	published []grpcresolver.Endpoint // never modified
}

func newSet() *set {
	return &set{byID: make(map[string]*member), byAddr: make(map[string]*member)}
}

// take takes an event in. Besides one copy of the list it costs what the event
// is worth.
func (s *set) take(e naming.Event) {
	if e.Snapshot {
		s.fill(e.Put)
	} else {
		s.apply(e.Batch)
	}
	s.hold(e.Status.Held)
}

// publish makes the list of what was taken, and reports whether it is another
// than before.
func (s *set) publish() (changed bool) {
	list := s.active
	if len(list) == 0 {
		list = s.draining
	}
	if suspects := s.suspects(len(list) > 0); len(suspects) > 0 {
		list = slices.Concat(list, suspects)
	}
	if equalEndpoints(s.published, list) {
		return false
	}
	s.published = list
	return true
}

// fill makes the endpoints of a snapshot, which is sorted, the set.
func (s *set) fill(put []naming.Endpoint) {
	s.byID = make(map[string]*member, len(put))
	s.byAddr = make(map[string]*member, len(put))
	s.shared = nil
	members := make([]*member, 0, len(put))
	for _, e := range put {
		if e.Addr != "" {
			m := newMember(e)
			members = append(members, m)
			s.add(m)
		}
	}
	s.active = make([]grpcresolver.Endpoint, 0, len(members))
	s.draining = nil
	for _, m := range members {
		switch {
		case s.byAddr[m.endpoint.Addr] != m:
		case m.draining:
			s.draining = append(s.draining, m.grpc)
		default:
			s.active = append(s.active, m.grpc)
		}
	}
}

// add puts m into the maps. Nothing is there under its ID.
func (s *set) add(m *member) {
	addr := m.endpoint.Addr
	s.byID[m.endpoint.ID] = m
	first := s.byAddr[addr]
	if first == nil {
		s.byAddr[addr] = m
		return
	}
	all := s.shared[addr]
	if all == nil {
		all = []*member{first}
		if s.shared == nil {
			s.shared = make(map[string][]*member)
		}
	}
	i, _ := slices.BinarySearchFunc(all, m.endpoint.ID, compareID)
	s.shared[addr] = slices.Insert(all, i, m)
	s.byAddr[addr] = representative(s.shared[addr])
}

// remove takes m out of the maps.
func (s *set) remove(m *member) {
	addr := m.endpoint.Addr
	delete(s.byID, m.endpoint.ID)
	all := s.shared[addr]
	if all == nil {
		delete(s.byAddr, addr)
		return
	}
	i, _ := slices.BinarySearchFunc(all, m.endpoint.ID, compareID)
	all = slices.Delete(all, i, i+1)
	s.shared[addr] = all
	s.byAddr[addr] = representative(all)
	if len(all) == 1 {
		delete(s.shared, addr)
	}
}

func compareID(m *member, id string) int { return cmp.Compare(m.endpoint.ID, id) }

// representative returns the first of members that is not draining, or else the
// first.
func representative(members []*member) *member {
	for _, m := range members {
		if !m.draining {
			return m
		}
	}
	return members[0]
}

// edit is a change to a sorted list: member takes its place in it, or leaves it.
type edit struct {
	member *member
	leaves bool
}

// apply makes the changes of a batch.
func (s *set) apply(b naming.Batch) {
	// What represented the addresses that the batch is about.
	before := make(map[string]*member)
	note := func(addr string) {
		if _, ok := before[addr]; !ok {
			before[addr] = s.byAddr[addr]
		}
	}
	drop := func(id string) {
		if m := s.byID[id]; m != nil {
			note(m.endpoint.Addr)
			s.remove(m)
		}
	}
	for _, id := range b.Deleted {
		drop(id)
	}
	for _, e := range b.Put {
		drop(e.ID)
		if e.Addr != "" {
			note(e.Addr)
			s.add(newMember(e))
		}
	}
	var active, draining []edit
	put := func(e edit) {
		if e.member.draining {
			draining = append(draining, e)
		} else {
			active = append(active, e)
		}
	}
	for addr, old := range before {
		if m := s.byAddr[addr]; m != old {
			if old != nil {
				put(edit{old, true})
			}
			if m != nil {
				put(edit{m, false})
			}
		}
	}
	s.active = merge(s.active, active)
	s.draining = merge(s.draining, draining)
}

// merge returns a sorted list with edits made to it.
func merge(list []grpcresolver.Endpoint, edits []edit) []grpcresolver.Endpoint {
	if len(edits) == 0 {
		return list
	}
	// Of two members with one ID, the old one leaves first.
	slices.SortFunc(edits, func(a, b edit) int {
		if c := cmp.Compare(a.member.endpoint.ID, b.member.endpoint.ID); c != 0 || a.leaves == b.leaves {
			return c
		}
		if a.leaves {
			return -1
		}
		return 1
	})
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
			return compareID(memberOf(e), id)
		})
		merged = append(merged, list[:i]...)
		list = list[i:]
		if e.leaves {
			list = list[1:]
		} else {
			merged = append(merged, e.member.grpc)
		}
	}
	return append(merged, list...)
}

// hold takes the endpoints that the registry holds back. Of several with one
// address the first represents all, and draining ones are left out if there are
// others.
func (s *set) hold(held []naming.Endpoint) {
	if len(s.held) == len(held) && (len(held) == 0 || &s.held[0] == &held[0]) || slices.EqualFunc(s.held, held, naming.Endpoint.Equal) {
		return
	}
	s.held = held
	s.heldMembers = nil
	var draining []*member
	seen := make(map[string]bool)
	for _, e := range held {
		if e.Addr == "" || seen[e.Addr] {
			continue
		}
		seen[e.Addr] = true
		if m := newMember(e); m.draining {
			draining = append(draining, m)
		} else {
			s.heldMembers = append(s.heldMembers, m)
		}
	}
	if s.heldMembers == nil {
		s.heldMembers = draining
	}
}

// suspects returns the held endpoints that are published. There are others
// before them, or none.
func (s *set) suspects(others bool) []grpcresolver.Endpoint {
	var list []grpcresolver.Endpoint
	for _, m := range s.heldMembers {
		if s.byAddr[m.endpoint.Addr] == nil && !(others && m.draining) {
			list = append(list, m.grpc)
		}
	}
	return list
}
