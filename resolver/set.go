package resolver

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/experimental/balancer/weight"
	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/naming-go/naming"
)

// member is an endpoint as all ClientConns share it, made once and never
// modified. It is the value of an attribute.
type member struct {
	endpoint   *naming.Endpoint
	addresses  [1]grpcresolver.Address
	attributes attributes.Attributes
}

// attributeKey is the key of a member among the attributes of its endpoint.
type attributeKey struct{}

// String is what gRPC logs.
func (attributeKey) String() string { return "naming.Endpoint" }

// maker makes members with as few allocations as it can: all in one, and what
// follows from metadata once for endpoints in a row with the same.
type maker struct {
	unused   []member
	metadata []byte
	parent   *attributes.Attributes // what follows from metadata
}

func newMaker(n int) *maker { return &maker{unused: make([]member, n)} }

// make makes a member of e, which must not be modified afterwards.
func (k *maker) make(e *naming.Endpoint) *member {
	if !bytes.Equal(e.Metadata, k.metadata) {
		k.metadata, k.parent = e.Metadata, nil
		if matters(e.Metadata, "weight") {
			if w := e.Info().Weight; w > 0 {
				k.parent = weight.Set(grpcresolver.Endpoint{}, weight.EndpointInfo{Weight: grpcWeight(w)}).Attributes
			}
		}
	}
	m := &k.unused[0]
	k.unused = k.unused[1:]
	m.endpoint = e
	// Only ever the address: whatever else is in it, in its attributes above
	// all, makes gRPC connect anew when it changes.
	m.addresses[0].Addr = e.Addr
	m.attributes = *k.parent.WithValue(attributeKey{}, m)
	return m
}

// grpc returns what gRPC is given of m.
func (m *member) grpc() grpcresolver.Endpoint {
	return grpcresolver.Endpoint{Addresses: m.addresses[:], Attributes: &m.attributes}
}

// draining reports whether m is. It is not kept: few are ever asked, and it would
// be some bytes of each.
func (m *member) draining() bool {
	return m.endpoint.Draining || matters(m.endpoint.Metadata, "draining") && m.endpoint.Info().Draining
}

// matters reports whether metadata may have a member of this name. To decode what
// has not would be most of the cost of a big service.
func matters(metadata []byte, name string) bool {
	return bytes.Contains(metadata, []byte(name)) || bytes.IndexByte(metadata, '\\') >= 0 // or it is escaped
}

// grpcWeight returns a positive weight as gRPC's policies take it. They add the
// weights of all endpoints up in 32 bits, and take 1 for an endpoint without.
func grpcWeight(w float64) uint32 {
	return uint32(min(max(math.Round(w), 1), math.MaxUint16))
}

// Equal is what gRPC compares attributes with.
func (m *member) Equal(o any) bool {
	n, ok := o.(*member)
	return ok && (m == n || m.endpoint.Equal(*n.endpoint))
}

// String is what gRPC logs.
func (m *member) String() string {
	return strconv.Quote(naming.SafeText(m.endpoint.ID)) + " " + naming.SafeText(string(m.endpoint.Metadata))
}

// failedKey is the key of an attribute of endpoints with a failed check.
type failedKey struct{}

// String is what gRPC logs.
func (failedKey) String() string { return "naming.Reason" }

// failed returns what gRPC is given of m if a check of the registry's failed.
func (m *member) failed() grpcresolver.Endpoint {
	e := m.grpc()
	e.Attributes = e.Attributes.WithValue(failedKey{}, naming.FailedCheck)
	return e
}

// ReasonOf returns why the registry says that an endpoint is not to be used, for
// load balancing policies. It reports false for an endpoint that may be used.
// Only endpoints with a [naming.FailedCheck] are ever given to gRPC, and only
// because of PanicThreshold in the [Options].
func ReasonOf(e grpcresolver.Endpoint) (naming.Reason, bool) {
	r, ok := e.Attributes.Value(failedKey{}).(naming.Reason)
	return r, ok
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
		return *m.endpoint, true
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
		if a[i].Attributes == b[i].Attributes {
			continue
		}
		ra, _ := ReasonOf(a[i])
		rb, _ := ReasonOf(b[i])
		if ra != rb || !memberOf(a[i]).Equal(memberOf(b[i])) {
			return false
		}
	}
	return true
}

// set is the endpoints of a service, and the list that is published of them. It
// has sorted slices in the place of maps: most sets are small, and of big ones a
// map takes several times the memory.
type set struct {
	// The members, sorted by ID and by address.
	byID, byAddr []*member

	// The members that represent their address, sorted by ID. The slices are
	// never modified.
	active   []grpcresolver.Endpoint
	draining []grpcresolver.Endpoint

	held        []naming.Endpoint // as the registry last told
	heldMembers []*member         // one per address, sorted by ID

	// What the registry says not to use, sorted by ID. The slice is never
	// modified. Of those with a failed check, one per address, sorted by ID.
	withheld []naming.Withheld
	failed   []grpcresolver.Endpoint

	threshold float64 // Options.PanicThreshold
	panicking bool    // there are fewer usable endpoints than that

	stale bool // the set was stale at the last event

	// unvouched says that the registry did not vouch for the endpoints published last:
	// the set was stale, or all of them were held or draining. The next usable
	// endpoints take over from them.
	unvouched bool
	takeover  time.Time // the end of the takeover; zero: there is none

	withdrawn bool // an endpoint that was published became withheld since publish
	edited    bool // the contents changed since takeEdited

	published []grpcresolver.Endpoint // never modified
}

// take applies an event to the set. It costs O(changes) plus one copy of the list.
func (s *set) take(e naming.Event) {
	s.withhold(e.Batch)
	if e.Snapshot {
		s.fill(e.Put)
		s.edited = true
	} else {
		s.apply(e.Batch)
		s.edited = s.edited || len(e.Put)+len(e.Deleted)+len(e.Withheld) > 0
	}
	s.hold(e.Status.Held)
	s.stale = e.Status.Stale()
}

// takeEdited reports whether the contents changed since it was last called.
func (s *set) takeEdited() bool {
	edited := s.edited
	s.edited = false
	return edited
}

// contents returns the lists that the set consists of.
func (s *set) contents() *contents { return &contents{s.active, s.draining, s.withheld} }

// takeoverTime is how long held endpoints stay in the list beside the usable endpoints
// that take over from them. A shorter time leaves all calls to the first server that
// registers again. A longer time sends calls to servers that are gone. Servers register
// again within five seconds of a common loss, and gRPC reconnects within as much to a
// server that was away for that long:
// https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md
const takeoverTime = 10 * time.Second

// publish makes the list of what was taken. It reports whether the list is another
// than before, and whether that is urgent because the registry says not to use an
// endpoint that was in it.
//
// Endpoints that are held or have a failed check are used while nothing else can
// be, or too few others can: see Options.PanicThreshold. One that drains is about to
// leave, and does not keep those that are held out of the list: calls would go to it
// alone until the moment it stops.
//
// After a common loss or an outage, the first usable endpoint may be the first of many,
// and gRPC may not be connected to it yet. So held endpoints whose addresses are
// published stay in the list for takeoverTime. Other held endpoints stay out: no call
// went to their addresses before. A takeover that runs is not prolonged.
func (s *set) publish(now time.Time) (changed, urgent bool) {
	urgent, s.withdrawn = s.withdrawn, false
	list := s.active
	staying := len(list) > 0
	if !staying {
		list = s.draining
	}
	s.panicking = false
	takesOver := staying && s.unvouched && s.takeover.IsZero()
	s.unvouched = s.stale || !staying
	if len(s.heldMembers)+len(s.failed) > 0 {
		failed, suspects := s.failedChecks(len(list) > 0), s.suspects(len(list) > 0)
		all := len(list) + len(failed) + len(suspects)
		s.panicking = all > 0 && float64(len(list))/float64(all) < s.threshold
		stay := s.whosePublished(suspects)
		if takesOver && len(stay) > 0 {
			s.takeover = now.Add(takeoverTime)
		}
		if !s.panicking {
			failed = nil
			switch {
			case staying && now.Before(s.takeover):
				suspects = stay
			case staying:
				suspects = nil
			}
		}
		if len(failed)+len(suspects) > 0 {
			list = slices.Concat(list, failed, suspects)
		}
	}
	if len(s.held) == 0 || !now.Before(s.takeover) {
		s.takeover = time.Time{}
	}
	if equalEndpoints(s.published, list) {
		return false, false
	}
	s.published = list
	return true, urgent
}

// whosePublished returns the endpoints of a list whose addresses are published.
func (s *set) whosePublished(list []grpcresolver.Endpoint) []grpcresolver.Endpoint {
	if len(list) == 0 {
		return nil
	}
	published := make(map[string]bool, len(s.published))
	for _, e := range s.published {
		published[memberOf(e).addr()] = true
	}
	return slices.DeleteFunc(slices.Clone(list), func(e grpcresolver.Endpoint) bool { return !published[memberOf(e).addr()] })
}

// takenOver reports whether a takeover has ended whose held endpoints are still published.
func (s *set) takenOver(now time.Time) bool { return !s.takeover.IsZero() && !now.Before(s.takeover) }

// withhold applies what a batch says of endpoints that are not to be used.
func (s *set) withhold(b naming.Batch) {
	switch {
	case b.Snapshot:
		s.withheld = slices.Clone(b.Withheld)
	case len(b.Withheld) == 0 && len(s.withheld) == 0:
		return
	default:
		gone := make(map[string]bool)
		for _, e := range b.Put {
			gone[e.ID] = true
		}
		for _, id := range b.Deleted {
			gone[id] = true
		}
		for _, w := range b.Withheld {
			gone[w.Endpoint.ID] = true
		}
		kept := make([]naming.Withheld, 0, len(s.withheld)+len(b.Withheld))
		for _, w := range s.withheld {
			if !gone[w.Endpoint.ID] {
				kept = append(kept, w)
			}
		}
		if len(b.Withheld) == 0 && len(kept) == len(s.withheld) {
			return
		}
		s.withheld = append(kept, b.Withheld...)
	}
	slices.SortFunc(s.withheld, func(a, b naming.Withheld) int { return strings.Compare(a.Endpoint.ID, b.Endpoint.ID) })
	if !s.withdrawn && len(b.Withheld) > 0 && len(s.published) > 0 {
		began := make(map[string]bool, len(b.Withheld))
		for _, w := range b.Withheld {
			began[w.Endpoint.ID] = true
		}
		s.withdrawn = slices.ContainsFunc(s.published, func(e grpcresolver.Endpoint) bool { return began[memberOf(e).endpoint.ID] })
	}
	s.failed = nil
	if s.threshold <= 0 {
		return // they are never used
	}
	seen := make(map[string]bool)
	for i := range s.withheld {
		if w := &s.withheld[i]; w.Reason != naming.FailedCheck {
			seen[w.Endpoint.Addr] = true
		}
	}
	for i := range s.withheld {
		if w := &s.withheld[i]; w.Endpoint.Addr != "" && !seen[w.Endpoint.Addr] {
			seen[w.Endpoint.Addr] = true
			s.failed = append(s.failed, newMaker(1).make(&w.Endpoint).failed())
		}
	}
}

// failedChecks returns the endpoints with a failed check whose address has no
// usable endpoint. others says that there are usable ones.
func (s *set) failedChecks(others bool) []grpcresolver.Endpoint {
	var list []grpcresolver.Endpoint
	for _, e := range s.failed {
		if m := memberOf(e); s.at(m.addr()) == nil && !(others && m.draining()) {
			list = append(list, e)
		}
	}
	return list
}

// fill makes the endpoints of a snapshot, which is sorted, the set. It keeps put.
func (s *set) fill(put []naming.Endpoint) {
	k := newMaker(len(put))
	s.byID = make([]*member, 0, len(put))
	for i := range put {
		if put[i].Addr != "" {
			s.byID = append(s.byID, k.make(&put[i]))
		}
	}
	s.byAddr = slices.Clone(s.byID)
	slices.SortFunc(s.byAddr, compareByAddr)
	others := make(map[*member]bool) // that do not represent their address
	for rest := s.byAddr; len(rest) > 0; {
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

func (m *member) addr() string { return m.endpoint.Addr }

func compareByID(a, b *member) int { return strings.Compare(a.endpoint.ID, b.endpoint.ID) }

func compareByAddr(a, b *member) int {
	if c := strings.Compare(a.addr(), b.addr()); c != 0 {
		return c
	}
	return compareByID(a, b)
}

// at returns the member that represents an address, or nil.
func (s *set) at(addr string) *member {
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

// representative returns the first of members that is not draining, or else the
// first.
func representative(members []*member) *member {
	for _, m := range members {
		if !m.draining() {
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

// apply makes the changes of a batch to the usable endpoints. An ID occurs once in
// the batch. It keeps b.Put.
func (s *set) apply(b naming.Batch) {
	var gone, come []*member
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
			come = append(come, k.make(&b.Put[i]))
		}
	}
	// The addresses that this is about, and what represented them.
	addrs := make([]string, 0, len(gone)+len(come))
	for _, m := range gone {
		addrs = append(addrs, m.addr())
	}
	for _, m := range come {
		addrs = append(addrs, m.addr())
	}
	slices.Sort(addrs)
	addrs = slices.Compact(addrs)
	before := make([]*member, len(addrs))
	for i, addr := range addrs {
		before[i] = s.at(addr)
	}
	s.byID = replace(s.byID, gone, come, compareByID)
	s.byAddr = replace(s.byAddr, gone, come, compareByAddr)
	var active, draining []edit
	put := func(e edit) {
		if e.member.draining() {
			draining = append(draining, e)
		} else {
			active = append(active, e)
		}
	}
	for i, addr := range addrs {
		if old, m := before[i], s.at(addr); m != old {
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

// replace takes members out of a sorted list, and puts others in. It modifies the
// list, and sorts the others.
func replace(list, gone, come []*member, compare func(a, b *member) int) []*member {
	slices.SortFunc(gone, compare)
	slices.SortFunc(come, compare)
	find := func(list []*member, m *member) int {
		i, _ := slices.BinarySearchFunc(list, m, compare)
		return i
	}
	if len(gone) > 0 {
		i := find(list, gone[0])
		kept, rest := list[:i], list[i:]
		for len(gone) > 0 {
			rest, gone = rest[1:], gone[1:]
			n := len(rest)
			if len(gone) > 0 {
				n = find(rest, gone[0])
			}
			kept, rest = append(kept, rest[:n]...), rest[n:]
		}
		clear(list[len(kept):])
		list = kept
	}
	// From the end, so that every member moves once.
	n := len(list)
	list = slices.Grow(list, len(come))[:n+len(come)]
	for j := len(come) - 1; j >= 0; j-- {
		i := find(list[:n], come[j])
		copy(list[i+j+1:], list[i:n])
		list[i+j] = come[j]
		n = i
	}
	return list
}

// merge returns a sorted list with edits made to it.
func merge(list []grpcresolver.Endpoint, edits []edit) []grpcresolver.Endpoint {
	if len(edits) == 0 {
		return list
	}
	// Of two members with one ID, the old one leaves first.
	slices.SortFunc(edits, func(a, b edit) int {
		if c := compareByID(a.member, b.member); c != 0 || a.leaves == b.leaves {
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
		if m := newMaker(1).make(&e); m.draining() {
			draining = append(draining, m)
		} else {
			s.heldMembers = append(s.heldMembers, m)
		}
	}
	if s.heldMembers == nil {
		s.heldMembers = draining
	}
}

// suspects returns the held endpoints that may be used: those of which neither
// the ID nor the address has another endpoint, usable or withheld. others says
// that there are usable ones.
func (s *set) suspects(others bool) []grpcresolver.Endpoint {
	if len(s.heldMembers) == 0 {
		return nil
	}
	withheld := make(map[string]bool, len(s.withheld))
	for _, w := range s.withheld {
		withheld[w.Endpoint.Addr] = true
	}
	var list []grpcresolver.Endpoint
	for _, m := range s.heldMembers {
		if s.at(m.addr()) == nil && !withheld[m.addr()] && !s.isWithheld(m.endpoint.ID) && !(others && m.draining()) {
			list = append(list, m.grpc())
		}
	}
	return list
}

// isWithheld reports whether the registry says not to use the endpoint of this ID.
func (s *set) isWithheld(id string) bool {
	_, ok := slices.BinarySearchFunc(s.withheld, id, func(w naming.Withheld, id string) int { return strings.Compare(w.Endpoint.ID, id) })
	return ok
}

// maxDetail is how much is told of what the registry says of a withheld endpoint,
// in bytes.
const maxDetail = 200

// whyEmpty says why there are no endpoints to use.
func (s *set) whyEmpty() string {
	if len(s.withheld) == 0 {
		return "has no endpoints"
	}
	var counts []string
	for _, reason := range []naming.Reason{naming.Maintenance, naming.FailedCheck} {
		n, detail := 0, ""
		for _, w := range s.withheld {
			if w.Reason == reason || reason == naming.Maintenance && w.Reason != naming.FailedCheck {
				n++
				if detail == "" {
					detail = w.Detail
				}
			}
		}
		if n == 0 {
			continue
		}
		text := fmt.Sprintf("%d %v", n, reason)
		if detail != "" {
			text += fmt.Sprintf(" (%s)", strings.ToValidUTF8(detail[:min(len(detail), maxDetail)], ""))
		}
		counts = append(counts, text)
	}
	return fmt.Sprintf("has no endpoints to use: the registry withholds %d: %s", len(s.withheld), strings.Join(counts, ", "))
}
