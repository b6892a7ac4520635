package conformance

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/naming-go/naming"
)

// set is the endpoints of a service by ID. Two sets are compared whole, with
// metadata. A set that a check wants is computed from the changes that the check
// made. It is never an earlier answer of the store.
type set map[string]naming.Endpoint

// sets returns the set of the endpoints.
func sets(eps ...naming.Endpoint) set {
	s := make(set, len(eps))
	s.put(eps...)
	return s
}

func (s set) put(eps ...naming.Endpoint) {
	for _, ep := range eps {
		if ep.ID == "" {
			ep.ID = ep.Addr
		}
		s[ep.ID] = ep
	}
}

// apply makes unconditional changes, as a registry makes them.
func (s set) apply(changes ...naming.Change) {
	for _, c := range changes {
		switch id := c.Endpoint.ID; {
		case c.Op == naming.Add:
			s.put(c.Endpoint)
		case id != "":
			delete(s, id)
		default:
			delete(s, c.Endpoint.Addr)
		}
	}
}

// with returns a copy of the set that also has the endpoints.
func (s set) with(eps ...naming.Endpoint) set {
	s = clone(s)
	s.put(eps...)
	return s
}

// without returns a copy of the set that lacks the IDs.
func (s set) without(ids ...string) set {
	s = clone(s)
	for _, id := range ids {
		delete(s, id)
	}
	return s
}

// applyBatch applies a batch to the set. It returns an error if the batch is
// malformed, or if the first batch of a watch is not a snapshot.
func (s set) applyBatch(b naming.Batch, first bool) error {
	if first && !b.Snapshot {
		return errors.New("the first batch is not a snapshot")
	}
	if b.Snapshot {
		if len(b.Deleted) > 0 {
			return fmt.Errorf("a snapshot has Deleted %s", brief(strings.Join(b.Deleted, ", ")))
		}
		clear(s)
	}
	seen := make(map[string]struct{}, len(b.Put)+len(b.Deleted)+len(b.Withheld))
	once := func(id string) error {
		if id == "" {
			return errors.New("a batch has an empty ID")
		}
		if _, ok := seen[id]; ok {
			return fmt.Errorf("a batch has ID %s twice", brief(id))
		}
		seen[id] = struct{}{}
		return nil
	}
	for _, ep := range b.Put {
		if err := once(ep.ID); err != nil {
			return err
		}
		s[ep.ID] = ep
	}
	for _, id := range b.Deleted {
		if err := once(id); err != nil {
			return err
		}
		delete(s, id)
	}
	// A withheld endpoint must not be used, so that it is not in the set.
	for _, w := range b.Withheld {
		if err := once(w.Endpoint.ID); err != nil {
			return err
		}
		delete(s, w.Endpoint.ID)
	}
	return nil
}

func (s set) equal(o set) bool { return maps.EqualFunc(s, o, naming.Endpoint.Equal) }

// String returns the first endpoints of the set and the number of the others.
func (s set) String() string {
	var b strings.Builder
	b.WriteByte('{')
	for i, id := range slices.Sorted(maps.Keys(s)) {
		if i > 0 {
			b.WriteString("; ")
		}
		if i == 8 {
			fmt.Fprintf(&b, "and %d more", len(s)-i)
			break
		}
		b.WriteString(show(s[id]))
	}
	b.WriteByte('}')
	return b.String()
}

// show returns an endpoint as a failure shows it.
func show(ep naming.Endpoint) string {
	s := brief(ep.ID)
	if ep.Addr != ep.ID {
		s += " at " + brief(ep.Addr)
	}
	if len(ep.Metadata) > 0 {
		s += " with " + brief(string(ep.Metadata))
	}
	if ep.Draining {
		s += ", draining"
	}
	return s
}

// brief returns the beginning of a string in quotes.
func brief(s string) string {
	const most = 80
	if len(s) > most {
		return fmt.Sprintf("%q... (%d bytes)", s[:most], len(s))
	}
	return fmt.Sprintf("%q", s)
}

// diff returns the endpoints in which two sets differ, as text.
func diff(got, want set) string {
	var lines []string
	for _, id := range slices.Sorted(maps.Keys(want)) {
		if ep, ok := got[id]; !ok {
			lines = append(lines, "missing "+show(want[id]))
		} else if !ep.Equal(want[id]) {
			lines = append(lines, "got "+show(ep)+", want "+show(want[id]))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[id]; !ok {
			lines = append(lines, "unwanted "+show(got[id]))
		}
	}
	if n := len(lines); n > 6 {
		lines = append(lines[:6], fmt.Sprintf("and %d more", n-6))
	}
	return fmt.Sprintf("got %d endpoints, want %d: %s", len(got), len(want), strings.Join(lines, "; "))
}
