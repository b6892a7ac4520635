// Package tui shows services on a terminal: the live tables of naming watch and naming top.
// The state is in a [Board], which package live feeds. The tables draw what is visible and
// nothing else, so that thousands of services cost no more than a screen.
package tui

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/live"
	"github.com/naming-go/naming/cmd/naming/internal/show"
)

// keepDeleted is how long an endpoint or a service that was deleted stays in the tables.
const keepDeleted = 10 * time.Second

// Line is an endpoint in a table. It is never modified.
type Line struct {
	Endpoint show.Endpoint
	// Kind is how the endpoint changed last, and empty if it has not changed since the
	// Board began to follow its service.
	Kind live.Kind
	// At is the time of the last change.
	At time.Time
}

// Row is a service in a table. It is never modified: a change makes a new Row.
type Row struct {
	Service string
	// Serving, Draining, Withheld and Held are how many endpoints are in the state.
	Serving, Draining, Withheld, Held int
	// Changed is the time of the last change, and zero if nothing has changed since the
	// Board began to follow the service.
	Changed time.Time
	// Gone says that the service has left the list of services.
	Gone bool
	// Status says how far the registry vouches for the endpoints.
	Status naming.Status
	// Lines are the endpoints, sorted by ID. Endpoints that were deleted a moment ago are
	// among them.
	Lines []*Line

	churn churn
}

// Size returns how many endpoints may be used.
func (r *Row) Size() int { return r.Serving + r.Draining }

// Churn returns how many endpoints changed in the minute before now.
func (r *Row) Churn(now time.Time) int { return r.churn.sum(now) }

// Board is the state of many services. All methods may be called concurrently.
type Board struct {
	changed chan struct{} // has room for one

	mu       sync.Mutex
	list     naming.View
	first    map[string]bool // the services of the first list; nil: no list yet
	services map[string]*tracked
}

// tracked is a service of a Board. It is guarded by the Board's mutex, but for the Row, which
// is never modified.
type tracked struct {
	row   *Row
	lines map[string]*Line // by ID
	churn churn
	sweep time.Time // when a deleted line is to be removed; zero: none is there
}

func newTracked(service string) *tracked {
	return &tracked{row: &Row{Service: service}, lines: make(map[string]*Line)}
}

// NewBoard returns a Board without services.
func NewBoard() *Board {
	return &Board{changed: make(chan struct{}, 1), services: make(map[string]*tracked)}
}

// Changed returns a channel that gets a value after a change. One value stands for all changes
// since the last value was received.
func (b *Board) Changed() <-chan struct{} { return b.changed }

func (b *Board) signal() {
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// List puts in the state of the list of services.
func (b *Board) List(v naming.View) {
	b.setList(v)
	b.signal()
}

func (b *Board) setList(v naming.View) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = v
	if !v.Synced {
		return
	}
	for _, e := range v.Endpoints {
		// The names are on the screen before the services are read.
		if t := b.services[e.ID]; t == nil || t.row.Gone {
			b.services[e.ID] = newTracked(e.ID)
		}
	}
	if b.first == nil {
		b.first = make(map[string]bool, len(v.Endpoints))
		for _, e := range v.Endpoints {
			b.first[e.ID] = true
		}
	}
}

// ListStatus returns the status of the list of services. It is zero if the services were given
// by name.
func (b *Board) ListStatus() naming.Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.list.Status
}

// Update puts in a change of a service at the present time.
func (b *Board) Update(u live.Update) {
	b.apply(u, time.Now())
	b.signal()
}

func (b *Board) apply(u live.Update, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	name := u.View.Service
	t := b.services[name]
	if t == nil || t.row.Gone && !u.Gone {
		t = newTracked(name)
		b.services[name] = t
	}
	if u.Gone {
		gone := Row{Service: name, Gone: true, Changed: now, Status: u.View.Status, churn: t.churn}
		t.row, t.sweep, t.lines = &gone, now.Add(keepDeleted), nil
		return
	}
	// What was there when the Board began is not a change. A service that is new in the list
	// is a change.
	counts := !u.First || b.first != nil && !b.first[name]
	t.apply(u, now, counts)
	t.build(u.View, now)
}

// apply changes the lines of a service.
func (t *tracked) apply(u live.Update, now time.Time, counts bool) {
	for _, c := range u.Changes {
		line := &Line{Endpoint: show.EndpointOf(c.Endpoint)}
		if c.Withheld != nil {
			line.Endpoint = show.WithheldOf(*c.Withheld)
		}
		if counts {
			line.Kind, line.At = c.Kind, now
		}
		if c.Kind == live.Deleted {
			t.sweep = now.Add(keepDeleted)
		}
		t.lines[c.Endpoint.ID] = line
	}
	if counts && len(u.Changes) > 0 {
		t.churn.add(now, len(u.Changes))
	}
	t.hold(u.View.Held, now)
}

// hold makes the held endpoints of a service the endpoints of list.
func (t *tracked) hold(list []naming.Endpoint, now time.Time) {
	held := make(map[string]bool, len(list))
	for _, e := range list {
		held[e.ID] = true
		if old := t.lines[e.ID]; old == nil || old.Endpoint.State != show.Held {
			t.lines[e.ID] = &Line{Endpoint: show.HeldOf(e), Kind: live.Deleted, At: now}
		}
	}
	for id, line := range t.lines {
		if line.Endpoint.State == show.Held && !held[id] {
			delete(t.lines, id) // an endpoint that came back has a new line
		}
	}
}

// build makes the Row of a service from its lines, and removes the lines of endpoints that
// were deleted long ago.
func (t *tracked) build(v naming.View, now time.Time) {
	row := &Row{Service: v.Service, Status: v.Status, Changed: t.row.Changed, Lines: make([]*Line, 0, len(t.lines)), churn: t.churn}
	t.sweep = time.Time{}
	for id, line := range t.lines {
		if line.At.After(row.Changed) {
			row.Changed = line.At
		}
		if line.deleted() {
			end := line.At.Add(keepDeleted)
			if !now.Before(end) {
				delete(t.lines, id)
				continue
			}
			if t.sweep.IsZero() || end.Before(t.sweep) {
				t.sweep = end
			}
		}
		row.add(line)
	}
	slices.SortFunc(row.Lines, func(a, b *Line) int { return strings.Compare(a.Endpoint.ID, b.Endpoint.ID) })
	t.row = row
}

// deleted reports whether the endpoint is in the table only because it was there a moment ago.
func (l *Line) deleted() bool { return l.Kind == live.Deleted && l.Endpoint.State != show.Held }

func (r *Row) add(l *Line) {
	r.Lines = append(r.Lines, l)
	if l.deleted() {
		return
	}
	switch l.Endpoint.State {
	case show.Serving:
		r.Serving++
	case show.Draining:
		r.Draining++
	case show.Withheld:
		r.Withheld++
	case show.Held:
		r.Held++
	}
}

// row returns a service, or nil.
func (b *Board) row(service string) *Row {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t := b.services[service]; t != nil {
		return t.row
	}
	return nil
}

// Rows returns the services as of now, in no order. The slice belongs to the caller.
func (b *Board) Rows(now time.Time) []*Row {
	b.mu.Lock()
	defer b.mu.Unlock()
	rows := make([]*Row, 0, len(b.services))
	for name, t := range b.services {
		if !t.sweep.IsZero() && !now.Before(t.sweep) {
			if t.row.Gone {
				delete(b.services, name)
				continue
			}
			t.build(naming.View{Service: name, Status: t.row.Status}, now)
		}
		rows = append(rows, t.row)
	}
	return rows
}

// The time of churn is cut into equal parts.
const (
	churnParts = 12
	churnPart  = 5 * time.Second // the minute of Row.Churn is right to this
)

// churn counts changes in the last minute.
type churn struct {
	counts [churnParts]int
	last   int64 // the number of the part of the last change, since 1970
}

func churnIndex(now time.Time) int64 { return now.UnixNano() / int64(churnPart) }

func (c *churn) add(now time.Time, n int) {
	part := churnIndex(now)
	for ; c.last < part; c.last++ {
		if part-c.last > churnParts {
			*c = churn{last: part}
			break
		}
		c.counts[(c.last+1)%churnParts] = 0
	}
	c.counts[c.last%churnParts] += n
}

func (c churn) sum(now time.Time) int {
	c.add(now, 0)
	n := 0
	for _, count := range c.counts {
		n += count
	}
	return n
}
