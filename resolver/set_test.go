package resolver

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/experimental/balancer/weight"
	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/naming-go/naming"
)

// model returns the list that a set should publish, computed the slow way. stay is called
// with the held endpoints that could be used, and returns those that stay beside usable
// endpoints during a takeover.
func model(endpoints map[string]naming.Endpoint, withheld map[string]naming.Withheld, held []naming.Endpoint, threshold float64, stay func(suspects []naming.Endpoint, staying bool) []naming.Endpoint) []naming.Endpoint {
	byID := func(a, b naming.Endpoint) int { return cmp.Compare(a.ID, b.ID) }
	draining := func(e naming.Endpoint) bool { return e.Info().Draining }
	// first returns the first of each address that pass accepts, those that do
	// not drain before the others, in the order of the IDs.
	first := func(from []naming.Endpoint, pass func(naming.Endpoint) bool) (active, drain []naming.Endpoint) {
		slices.SortFunc(from, byID)
		seen := make(map[string]bool)
		for _, drains := range []bool{false, true} {
			for _, e := range from {
				if e.Addr == "" || seen[e.Addr] || draining(e) != drains || !pass(e) {
					continue
				}
				seen[e.Addr] = true
				if drains {
					drain = append(drain, e)
				} else {
					active = append(active, e)
				}
			}
		}
		return active, drain
	}
	all := slices.Collect(maps.Values(endpoints))
	list, drain := first(all, func(naming.Endpoint) bool { return true })
	staying := len(list) > 0
	if !staying {
		list = drain
	}
	usable := len(list)
	taken := func(addr string) bool {
		return slices.ContainsFunc(all, func(e naming.Endpoint) bool { return e.Addr == addr })
	}

	// The first by ID of each address counts.
	var failed []naming.Endpoint
	seen := make(map[string]bool)
	for _, w := range withheld {
		if w.Reason != naming.FailedCheck {
			seen[w.Endpoint.Addr] = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(withheld)) {
		e := withheld[id].Endpoint
		if e.Addr != "" && !seen[e.Addr] {
			seen[e.Addr] = true
			if !taken(e.Addr) && !(usable > 0 && draining(e)) {
				failed = append(failed, e)
			}
		}
	}
	if threshold == 0 {
		failed = nil
	}

	var suspects, draining2 []naming.Endpoint
	seen = make(map[string]bool)
	for _, w := range withheld {
		seen[w.Endpoint.Addr] = true
	}
	active := false
	counted := make(map[string]bool)
	for _, e := range held {
		if e.Addr == "" || counted[e.Addr] {
			continue
		}
		counted[e.Addr] = true
		active = active || !draining(e)
		if _, not := withheld[e.ID]; not || seen[e.Addr] || taken(e.Addr) {
			continue
		}
		if draining(e) {
			draining2 = append(draining2, e)
		} else {
			suspects = append(suspects, e)
		}
	}
	if !active && usable == 0 {
		suspects = draining2
	}

	total := usable + len(failed) + len(suspects)
	panicking := total > 0 && float64(usable)/float64(total) < threshold
	if panicking {
		list = append(list, failed...)
	}
	stays := stay(suspects, staying)
	if panicking || !staying {
		stays = suspects
	}
	list = append(list, stays...)
	return list
}

// TestSetAgainstModel makes random changes to a set and compares the list with
// the model's after each of them.
func TestSetAgainstModel(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		random := func() naming.Endpoint {
			e := naming.Endpoint{ID: fmt.Sprint("id", rnd.IntN(12))}
			if rnd.IntN(10) > 0 {
				e.Addr = fmt.Sprint("10.0.0.", rnd.IntN(8), ":1")
			}
			switch rnd.IntN(4) {
			case 0:
				if e.Draining = rnd.IntN(2) == 0; !e.Draining {
					e.Metadata = json.RawMessage(`{"draining":true}`)
				}
			case 1:
				e.Metadata = fmt.Appendf(nil, `{"weight":%d}`, rnd.IntN(3))
			}
			return e
		}
		truth := make(map[string]naming.Endpoint)
		withheld := make(map[string]naming.Withheld)
		var held []naming.Endpoint
		threshold := []float64{0, 0.3, 0.5, 1}[rnd.IntN(4)]
		s := &set{threshold: threshold}
		now, takeover, unvouched := time.Unix(0, 0), time.Time{}, false
		for i := range 60 {
			event := naming.Event{Status: naming.Status{Synced: true}}
			if i == 0 {
				for range rnd.IntN(8) {
					e := random()
					truth[e.ID] = e
				}
				event.Snapshot = true
				event.Put = slices.SortedFunc(maps.Values(truth), func(a, b naming.Endpoint) int { return cmp.Compare(a.ID, b.ID) })
			} else {
				touched := make(map[string]bool)
				for range rnd.IntN(4) {
					e := random()
					if touched[e.ID] {
						continue
					}
					touched[e.ID] = true
					_, usable := truth[e.ID]
					_, not := withheld[e.ID]
					delete(truth, e.ID)
					delete(withheld, e.ID)
					switch n := rnd.IntN(6); {
					case n < 2 && (usable || not):
						event.Deleted = append(event.Deleted, e.ID)
					case n == 3:
						w := naming.Withheld{Endpoint: e, Reason: naming.Reason(1 + rnd.IntN(2))}
						withheld[e.ID] = w
						event.Withheld = append(event.Withheld, w)
					default:
						truth[e.ID] = e
						event.Put = append(event.Put, e)
					}
				}
			}
			if rnd.IntN(5) == 0 {
				held = nil
				for range rnd.IntN(4) {
					held = append(held, random())
				}
				slices.SortFunc(held, func(a, b naming.Endpoint) int { return cmp.Compare(a.ID, b.ID) })
				held = slices.CompactFunc(held, func(a, b naming.Endpoint) bool { return a.ID == b.ID })
			}
			event.Status.Held = held
			if rnd.IntN(5) == 0 {
				event.Status.StaleSince = now
			}
			now = now.Add(time.Duration(rnd.IntN(8)) * time.Second)
			before := s.published
			snapshot := slices.Clone(before)
			s.apply(event)
			wasPublished, wasCalled := make(map[string]bool), make(map[string]bool)
			for _, e := range before {
				wasPublished[memberOf(e).endpoint.ID] = true
				wasCalled[e.Addresses[0].Addr] = true
			}
			changed, urgent := s.publish(now)
			if want := changed && slices.ContainsFunc(event.Withheld, func(w naming.Withheld) bool { return wasPublished[w.Endpoint.ID] }); urgent != want {
				t.Fatalf("seed %d, step %d: urgent = %v, want %v", seed, i, urgent, want)
			}
			var got []naming.Endpoint
			for _, e := range s.published {
				got = append(got, *memberOf(e).endpoint)
			}
			want := model(truth, withheld, held, threshold, func(suspects []naming.Endpoint, staying bool) []naming.Endpoint {
				called := slices.DeleteFunc(slices.Clone(suspects), func(e naming.Endpoint) bool { return !wasCalled[e.Addr] })
				if unvouched && staying && takeover.IsZero() && len(called) > 0 {
					takeover = now.Add(10 * time.Second)
				}
				unvouched = event.Status.Stale() || !staying
				if len(held) == 0 || !now.Before(takeover) {
					takeover = time.Time{}
				}
				if !now.Before(takeover) {
					return nil
				}
				return called
			})
			if !slices.EqualFunc(got, want, naming.Endpoint.Equal) {
				t.Fatalf("seed %d, step %d, threshold %v: got %v, want %v\nof %v\nwithheld %v\nheld %v", seed, i, threshold, got, want, truth, withheld, held)
			}
			for _, e := range s.published {
				_, not := ReasonOf(e)
				if _, want := withheld[memberOf(e).endpoint.ID]; want != not {
					t.Fatalf("seed %d, step %d: %v is marked %v", seed, i, memberOf(e).endpoint, not)
				}
			}
			if equal := equalEndpoints(snapshot, s.published); changed == equal {
				t.Fatalf("seed %d, step %d: changed = %v, although the list went from %v to %v", seed, i, changed, snapshot, s.published)
			}
			for i := range before {
				if before[i].Attributes != snapshot[i].Attributes {
					t.Fatalf("seed %d, step %d: a published list was modified", seed, i)
				}
			}
		}
	}
}

// TestMembersAreMadeOnce: an update keeps the members, and costs one copy of a slice.
func TestMembersAreMadeOnce(t *testing.T) {
	var put []naming.Endpoint
	for _, a := range []string{"a:1", "b:1", "c:1"} {
		put = append(put, naming.Endpoint{ID: a, Addr: a})
	}
	s := new(set)
	s.apply(naming.Event{Batch: naming.Batch{Snapshot: true, Put: put}})
	s.publish(time.Time{})
	before := s.published
	s.apply(naming.Event{Batch: naming.Batch{Deleted: []string{"b:1"}}})
	s.publish(time.Time{})
	after := s.published
	if len(after) != 2 || after[0].Attributes != before[0].Attributes || &after[1].Addresses[0] != &before[2].Addresses[0] {
		t.Errorf("got %v, want the first and the last of %v, as they were", after, before)
	}
}

// made returns the resolver.Endpoint of e.
func made(e naming.Endpoint) grpcresolver.Endpoint { return newMaker(1).newMember(&e).grpc() }

// TestOnlyTheAddress: nothing but the address goes into an Address. TLS and gRPC's
// connections depend on that.
func TestOnlyTheAddress(t *testing.T) {
	e := made(naming.Endpoint{ID: "i", Addr: "a:1", Metadata: []byte(`{"weight":3,"ServerName":"evil"}`)})
	if got, want := e.Addresses[0], (grpcresolver.Address{Addr: "a:1"}); got != want {
		t.Errorf("got %#v, want %#v", got, want)
	}
}

func TestWeight(t *testing.T) {
	for _, c := range []struct {
		metadata string
		want     uint32 // 0: no attribute, which gRPC takes for 1
	}{
		{``, 0},
		{`{"zone":"a"}`, 0},
		{`{"weight":0}`, 0},
		{`{"weight":-3}`, 0},
		{`{"weight":"heavy"}`, 0},
		{`{"weight":0.2}`, 1},
		{`{"weight":1}`, 1},
		{`{"weight":2.5}`, 3},
		{`{"weight":65535}`, 65535},
		{`{"weight":1e300}`, 65535},
		{`{"w\u0065ight":7}`, 7},
	} {
		want := naming.Endpoint{ID: "i", Addr: "a:1", Metadata: []byte(c.metadata)}
		e := made(want)
		if got := weight.FromEndpoint(e).Weight; got != c.want {
			t.Errorf("%s: got weight %d, want %d", c.metadata, got, c.want)
		}
		if got, ok := EndpointOf(e); !ok || !got.Equal(want) {
			t.Errorf("%s: EndpointOf returned %v, %v", c.metadata, got, ok)
		}
	}
}

// TestWeightsInARow: endpoints in a row with the same metadata share its attributes.
func TestWeightsInARow(t *testing.T) {
	weights := []uint32{3, 3, 0, 2, 0, 0}
	k := newMaker(len(weights))
	for i, want := range weights {
		e := naming.Endpoint{ID: fmt.Sprint(i), Addr: "a:1"}
		if want > 0 {
			e.Metadata = fmt.Appendf(nil, `{"weight":%d}`, want)
		}
		if got := weight.FromEndpoint(k.newMember(&e).grpc()).Weight; got != want {
			t.Errorf("the endpoint at %d has weight %d, want %d", i, got, want)
		}
	}
}

// TestASetIsMadeAtOnce: the first set of a large service costs few allocations.
func TestASetIsMadeAtOnce(t *testing.T) {
	put := make([]naming.Endpoint, 1000)
	for i := range put {
		id := fmt.Sprintf("%04d", i)
		put[i] = naming.Endpoint{ID: id, Addr: id + ":1", Metadata: json.RawMessage(`{"weight":2,"zone":"a"}`)}
	}
	event := naming.Event{Batch: naming.Batch{Snapshot: true, Put: put}, Status: naming.Status{Synced: true}}
	allocs := testing.AllocsPerRun(10, func() {
		s := new(set)
		s.apply(event)
		s.publish(time.Time{})
	})
	if allocs > 100 {
		t.Errorf("%v allocations for %d endpoints", allocs, len(put))
	}
}

func TestEndpointOfNobody(t *testing.T) {
	for _, e := range []grpcresolver.Endpoint{
		{},
		weight.Set(grpcresolver.Endpoint{}, weight.EndpointInfo{Weight: 1}),
	} {
		if got, ok := EndpointOf(e); ok {
			t.Errorf("EndpointOf(%v) = %v, true", e, got)
		}
	}
}

func TestAttributesEqual(t *testing.T) {
	at := func(id, addr, metadata string) grpcresolver.Endpoint {
		return made(naming.Endpoint{ID: id, Addr: addr, Metadata: []byte(metadata)})
	}
	e := at("i", "a:1", `{"zone":"a","weight":2}`)
	for _, c := range []struct {
		name string
		o    grpcresolver.Endpoint
		want bool
	}{
		{"itself", e, true},
		{"made again", at("i", "a:1", `{"zone":"a","weight":2}`), true},
		{"spelt otherwise", at("i", "a:1", `{ "weight":2, "zone":"a" }`), true},
		{"another zone", at("i", "a:1", `{"zone":"b","weight":2}`), false},
		{"another weight", at("i", "a:1", `{"zone":"a","weight":3}`), false},
		{"another ID", at("j", "a:1", `{"zone":"a","weight":2}`), false},
	} {
		if got := e.Attributes.Equal(c.o.Attributes); got != c.want {
			t.Errorf("%s: Equal = %v, want %v", c.name, got, c.want)
		}
	}
	if (&member{}).Equal("something else") {
		t.Error("a member equals a string")
	}
}
