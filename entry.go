package naming

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
)

// entry is an endpoint as all readers share it. It is never modified. The Endpoint is
// where the store's batch has it.
type entry struct {
	*Endpoint
	withheld *Withheld // nil: may be used
	decoded  atomic.Pointer[any]
}

// usable returns e, or nil if e is nil or withheld.
func (e *entry) usable() *entry {
	if e == nil || e.withheld != nil {
		return nil
	}
	return e
}

// metadata returns the entry's metadata as encoding/json decodes it. It decodes once,
// for the first reader that asks.
func (e *entry) metadata() any {
	if e.Metadata == nil {
		return nil
	}
	if p := e.decoded.Load(); p != nil {
		return *p
	}
	var v any
	if json.Unmarshal(e.Metadata, &v) != nil {
		v, _ = decodeJSON(e.Metadata) // a number too large for a float64
	}
	e.decoded.Store(&v)
	return v
}

// entries returns the entries of the endpoints of a batch, first those that may be used.
// The endpoints stay where they are: a batch belongs to its receiver.
func (b Batch) entries() []entry {
	list := make([]entry, len(b.Put)+len(b.Withheld))
	for i := range b.Put {
		list[i].Endpoint = &b.Put[i]
	}
	for i := range b.Withheld {
		e, w := &list[len(b.Put)+i], &b.Withheld[i]
		e.Endpoint, e.withheld = &w.Endpoint, w
	}
	return list
}

// change is a change of one endpoint: old is nil if the endpoint is new, and new is nil
// if the endpoint is gone. At least one is set, and they are never equal. Each may be
// withheld.
type change struct{ old, new *entry }

// usable returns the change as a reader sees it that gets usable endpoints only. Both
// ends are nil if such a reader sees no difference.
func (c change) usable() change {
	c.old, c.new = c.old.usable(), c.new.usable()
	return c
}

func (c change) id() string {
	if c.new != nil {
		return c.new.ID
	}
	return c.old.ID
}

// diff is the net changes of several steps, by ID.
type diff map[string]change

// add adds later changes.
func (d diff) add(changes []change) {
	for _, c := range changes {
		id := c.id()
		if before, ok := d[id]; ok {
			c.old = before.old
			if sameEntry(c.old, c.new) {
				delete(d, id)
				continue
			}
		}
		d[id] = c // the ends of a single change are never equal, and to compare metadata costs most
	}
}

func (d diff) sorted() []change {
	return slices.SortedFunc(maps.Values(d), compareChanges)
}

func compareChanges(a, b change) int { return strings.Compare(a.id(), b.id()) }

func compareEntries(a, b *entry) int { return strings.Compare(a.ID, b.ID) }

func sameEntry(a, b *entry) bool {
	return a == b || a != nil && b != nil && a.Equal(*b.Endpoint) && sameWithheld(a.withheld, b.withheld)
}

// sameFlags reports whether the flags that a Store sets are the same in two equal
// entries. A change of a flag alone is not reported to readers.
func sameFlags(a, b *entry) bool {
	return a.NoDrainingMark == b.NoDrainingMark && a.Unleased == b.Unleased
}

func sameWithheld(a, b *Withheld) bool {
	return a == b || a != nil && b != nil && a.Reason == b.Reason && a.Detail == b.Detail
}

// withheldBy returns the endpoints that changes withhold, and those that they cease to
// withhold. An endpoint whose reason changed is in both lists.
func withheldBy(changes []change) (began, ceased []Withheld) {
	for _, c := range changes {
		before, now := c.old.reason(), c.new.reason()
		if before == now {
			continue
		}
		if now != 0 {
			began = append(began, *c.new.withheld)
		}
		if before != 0 {
			ceased = append(ceased, *c.old.withheld)
		}
	}
	return began, ceased
}

// reason returns why e is withheld, or 0. An unknown reason counts as Maintenance.
func (e *entry) reason() Reason {
	switch {
	case e == nil || e.withheld == nil:
		return 0
	case e.withheld.Reason == FailedCheck:
		return FailedCheck
	}
	return Maintenance
}
