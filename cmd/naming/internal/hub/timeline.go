package hub

import (
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/live"
	"github.com/naming-go/naming/migrate"
)

// Kind says what changed.
type Kind string

// The kinds of changes. A Change has an Endpoint for the first seven kinds.
const (
	Added    Kind = "added"
	Changed  Kind = "changed"
	Deleted  Kind = "deleted" // also when a held endpoint is given up
	Withheld Kind = "withheld"
	Usable   Kind = "usable" // withheld before
	Held     Kind = "held"   // vanished in a way that looks like a fault of the registry

	Synced Kind = "synced" // the service has answered for the first time
	Gone   Kind = "gone"   // the service has left the list of services
	Stale  Kind = "stale"
	Fresh  Kind = "fresh"

	Phase    Kind = "phase"
	Narrowed Kind = "narrowed"
	Fallback Kind = "fallback"
	Parity   Kind = "parity"
)

// Change is an entry of the timeline. Its fields are shared and must not be modified.
type Change struct {
	// Seq numbers the changes of a Hub without a gap, from 1 on.
	Seq  uint64
	Time time.Time
	// Service is the name of the service. It is empty for the list of services.
	Service string
	Kind    Kind
	// Endpoint is the endpoint that changed, or nil.
	Endpoint *naming.Endpoint
	// Reason is why the endpoint is withheld, or nil.
	Reason *naming.Withheld
	// View is the whole service, for the kind Synced, or nil.
	View *naming.View
	// Usable is how many endpoints of the service may be used after the change.
	Usable int
	// Text says more, for the kinds Stale and those of a migration. It is safe to print.
	Text string
}

// bytes estimates the memory that only the timeline may hold.
func (c *Change) bytes() int {
	n := 256 + len(c.Service) + len(c.Text)
	if c.Endpoint != nil {
		n += endpointBytes(c.Endpoint)
	}
	if c.View != nil {
		for i := range c.View.Endpoints {
			n += endpointBytes(&c.View.Endpoints[i])
		}
		for i := range c.View.Withheld {
			n += endpointBytes(&c.View.Withheld[i].Endpoint) + len(c.View.Withheld[i].Detail)
		}
	}
	return n
}

func endpointBytes(e *naming.Endpoint) int { return 128 + len(e.ID) + len(e.Addr) + len(e.Metadata) }

// timeline is a ring of the newest changes. The zero value with bounds is empty.
type timeline struct {
	max, maxBytes int

	ring  []Change
	first int // the index of the oldest change in ring
	count int
	bytes int
	last  uint64 // the number of the newest change
}

// add adds a change, numbers it, and drops the oldest changes that exceed the bounds.
func (t *timeline) add(c Change) {
	t.last++
	c.Seq = t.last
	if t.count == t.max {
		t.drop()
	}
	if t.count == len(t.ring) {
		t.grow()
	}
	t.ring[(t.first+t.count)%len(t.ring)] = c
	t.count++
	t.bytes += c.bytes()
	for t.bytes > t.maxBytes && t.count > 1 {
		t.drop()
	}
}

// grow doubles the ring, up to its bound.
func (t *timeline) grow() {
	ring := make([]Change, min(max(2*len(t.ring), 64), t.max))
	for i := range t.count {
		ring[i] = *t.at(i)
	}
	t.ring, t.first = ring, 0
}

func (t *timeline) at(i int) *Change { return &t.ring[(t.first+i)%len(t.ring)] }

// drop drops the oldest change.
func (t *timeline) drop() {
	oldest := t.at(0)
	t.bytes -= oldest.bytes()
	*oldest = Change{}
	t.first = (t.first + 1) % len(t.ring)
	t.count--
}

// after returns at most limit changes that follow the change seq. It returns false if the
// ring does not have all of them, or has no change with the number seq yet.
func (t *timeline) after(seq uint64, limit int) ([]Change, bool) {
	if seq > t.last || t.last-seq > uint64(t.count) {
		return nil, false
	}
	skip := t.count - int(t.last-seq)
	list := make([]Change, min(t.count-skip, limit))
	for i := range list {
		list[i] = *t.at(skip + i)
	}
	return list, true
}

// changesOf returns the changes from one View of a service to the next.
func changesOf(was naming.View, u live.Update) []Change {
	v := &u.View
	var changes []Change
	if u.First {
		changes = append(changes, Change{Kind: Synced, View: v})
	} else {
		changes = endpointChanges(was, u)
	}
	changes = append(changes, statusChanges(was, *v)...)
	for i := range changes {
		changes[i].Service, changes[i].Usable = v.Service, len(v.Endpoints)
	}
	return changes
}

// endpointChanges returns the changes of single endpoints.
func endpointChanges(was naming.View, u live.Update) []Change {
	held, seen := make(map[string]bool, len(u.View.Held)), make(map[string]bool, len(u.Changes))
	for _, e := range u.View.Held {
		held[e.ID] = true
	}
	changes := make([]Change, 0, len(u.Changes))
	for i := range u.Changes {
		c := &u.Changes[i]
		kind := Kind(c.Kind)
		if c.Kind == live.Deleted && held[c.Endpoint.ID] {
			kind = Held
		}
		seen[c.Endpoint.ID] = true
		changes = append(changes, Change{Kind: kind, Endpoint: &c.Endpoint, Reason: c.Withheld})
	}
	for i := range was.Held {
		// A held endpoint that is back is among the changes.
		if e := &was.Held[i]; !held[e.ID] && !seen[e.ID] {
			changes = append(changes, Change{Kind: Deleted, Endpoint: e})
		}
	}
	return changes
}

// statusChanges returns the change of a View that became stale or fresh.
func statusChanges(was, is naming.View) []Change {
	switch {
	case is.Stale() == was.Stale():
		return nil
	case !is.Stale():
		return []Change{{Service: is.Service, Kind: Fresh}}
	}
	return []Change{{Service: is.Service, Kind: Stale, Text: safeError(is.Err)}}
}

func safeError(err error) string {
	if err == nil {
		return ""
	}
	return naming.SafeError(err).Error()
}

// MigrateHooks returns hooks that add the events of a migration to the timeline. They are
// for the options of [migrate.Join].
func (h *Hub) MigrateHooks() *migrate.Hooks {
	add := func(service string, kind Kind, text string) {
		h.state.record(Change{Service: service, Kind: kind, Text: naming.SafeText(text)})
	}
	return &migrate.Hooks{
		PhaseChanged: func(i migrate.PhaseChangedInfo) {
			add(i.Service, Phase, phaseText(i.From, i.WasKnown)+" to "+phaseText(i.To, i.Known))
		},
		Narrowed: func(i migrate.NarrowedInfo) {
			if i.Narrow {
				add(i.Service, Narrowed, "only "+i.Registry)
				return
			}
			add(i.Service, Narrowed, "both registries")
		},
		Fallback: func(i migrate.FallbackInfo) {
			if i.Since.IsZero() {
				add(i.Service, Fallback, "over")
				return
			}
			add(i.Service, Fallback, i.Why)
		},
		Parity: func(i migrate.ParityInfo) {
			if i.Since.IsZero() {
				add(i.Service, Parity, "equal or not compared")
				return
			}
			add(i.Service, Parity, i.Report.String())
		},
	}
}

func phaseText(s migrate.State, known bool) string {
	if !known {
		return "unknown"
	}
	return s.Phase.String()
}
