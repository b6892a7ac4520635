package cross

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/naming-go/naming"
)

// patience is how long anything may take that does happen.
const patience = time.Minute

// backend makes the stores of one registry.
type backend struct {
	name string
	// batches says that changes made at once are in one batch.
	batches bool
	// open returns two stores, which nobody else shares endpoints with.
	open func() (store, other naming.Store)
	// ttl is of the leases that expire; the same for all that are compared.
	ttl time.Duration
	// patience is how long to wait for what readers are told.
	patience time.Duration
}

// side is one of the stores that a history is done to, with a Client on it
// that watches all services. But for noted it is used by one goroutine at a time.
type side struct {
	backend
	store    naming.Store
	client   *naming.Client
	wake     chan struct{} // capacity 1
	subjects []*subject

	leases        []naming.Lease
	foreign       naming.Lease
	registrations []*naming.Registration
	slow          bool // in this step a lease may have expired before it was to
}

// subject is a service as a side's readers know it.
type subject struct {
	name     string
	follower *naming.Follower
	set      set // nil: not known yet
	told     []event

	mu      sync.Mutex
	raw     set
	noted   []event
	batches int // that told of anything
}

// set is endpoints by their ID.
type set map[string]naming.Endpoint

// event is what a reader is told of an endpoint.
type event struct {
	kind     string
	endpoint naming.Endpoint // of a deletion: only the ID
}

func (e event) String() string { return e.kind + " " + text(e.endpoint) }

// The kinds of events.
const (
	added    = "added"
	updated  = "updated"
	deleted  = "deleted"
	repeated = "repeated" // a state, or that there is none, that was known
)

// take folds a batch into a set and returns what it tells.
func (s *set) take(b naming.Batch) (events []event) {
	put := make(set)
	for _, e := range b.Put {
		put[e.ID] = e
	}
	gone := b.Deleted
	if b.Snapshot {
		for id := range *s {
			if _, ok := put[id]; !ok {
				gone = append(gone, id)
			}
		}
	}
	if *s == nil {
		*s = make(set)
	}
	for _, id := range gone {
		kind := deleted
		if _, ok := (*s)[id]; !ok {
			kind = repeated
		}
		delete(*s, id)
		events = append(events, event{kind, naming.Endpoint{ID: id}})
	}
	for _, e := range b.Put {
		kind := updated
		if old, ok := (*s)[e.ID]; !ok {
			kind = added
		} else if old.Equal(e) {
			kind = repeated
		}
		(*s)[e.ID] = e
		events = append(events, event{kind, e})
	}
	return events
}

// diff says how two sets differ, nothing if they do not.
func diff(got, want set) string {
	var list []string
	for id, e := range want {
		if g, ok := got[id]; !ok {
			list = append(list, "without "+text(e))
		} else if !g.Equal(e) {
			list = append(list, fmt.Sprintf("with %s in place of %s", text(g), text(e)))
		}
	}
	for id, e := range got {
		if _, ok := want[id]; !ok {
			list = append(list, "with "+text(e)+" too many")
		}
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

func newSide(ctx context.Context, b backend, services []string) (*side, error) {
	store, other := b.open()
	s := &side{backend: b, store: store, wake: make(chan struct{}, 1)}
	s.client = naming.New(tap{store, s}, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	var err error
	if s.foreign, err = other.Grant(ctx, 10*time.Minute); err != nil {
		return s, err
	}
	for _, name := range services {
		s.subjects = append(s.subjects, &subject{name: name})
	}
	for _, sub := range s.subjects {
		if sub.follower, err = s.client.Follow(sub.name, s.poke); err != nil {
			return s, err
		}
	}
	return s, s.until(ctx, "the watches", func() string { return s.differ(make([]set, len(services))) })
}

// close ends what the side does.
func (s *side) close() { s.client.Close() }

func (s *side) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// tap notes what the watches of a Client yield.
type tap struct {
	naming.Store
	side *side
}

func (t tap) Watch(ctx context.Context, service string) iter.Seq2[naming.Batch, error] {
	return func(yield func(naming.Batch, error) bool) {
		for b, err := range t.Store.Watch(ctx, service) {
			if err == nil {
				t.side.note(service, b)
			}
			if !yield(b, err) {
				return
			}
		}
	}
}

func (s *side) note(service string, b naming.Batch) {
	for _, sub := range s.subjects {
		if sub.name == service {
			sub.mu.Lock()
			defer sub.mu.Unlock()
			n := len(sub.noted)
			for _, e := range sub.raw.take(naming.Batch{Snapshot: b.Snapshot, Put: b.Put, Deleted: slices.Clone(b.Deleted)}) {
				// A Store may repeat itself.
				if e.kind != repeated {
					sub.noted = append(sub.noted, e)
				}
			}
			if len(sub.noted) > n {
				sub.batches++
			}
		}
	}
}

// lacks says that the readers of a service do not know an endpoint, if so.
func (s *side) lacks(service int, id string) string {
	if _, ok := s.subjects[service].set[id]; ok {
		return ""
	}
	return fmt.Sprintf("%.40q is not there", id)
}

// until reads what there is to read until ok returns nothing, or fails.
func (s *side) until(ctx context.Context, what string, ok func() string) error {
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	for {
		for _, sub := range s.subjects {
			for e, more := sub.follower.Next(); more; e, more = sub.follower.Next() {
				if !e.Status.Synced || e.Status.Stale() && !e.Snapshot && len(e.Put)+len(e.Deleted) == 0 {
					continue
				}
				sub.told = append(sub.told, sub.set.take(e.Batch)...)
			}
		}
		why := ok()
		if why == "" {
			return nil
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return fmt.Errorf("%s of %s: %s, still after %v", what, s.name, why, s.patience)
		}
	}
}

// differ says how what the readers know differs from some sets.
func (s *side) differ(want []set) string {
	for i, sub := range s.subjects {
		if sub.set == nil {
			return fmt.Sprintf("%q is not known", sub.name)
		}
		if d := diff(sub.set, want[i]); d != "" {
			return fmt.Sprintf("%q is %s", sub.name, d)
		}
	}
	return ""
}

// events returns what the readers were told since it was last called, in the
// order of IDs, by the store's watch and by the Client; and whether it was in
// one batch.
func (sub *subject) events() (noted, told []event, batches int) {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	noted, told, batches = sub.noted, sub.told, sub.batches
	sub.noted, sub.told, sub.batches = nil, nil, 0
	byID := func(a, b event) int { return cmp.Compare(a.endpoint.ID, b.endpoint.ID) }
	slices.SortStableFunc(noted, byID)
	slices.SortStableFunc(told, byID)
	return noted, told, batches
}

func sameEvents(a, b []event) bool {
	return slices.EqualFunc(a, b, func(a, b event) bool { return a.kind == b.kind && a.endpoint.Equal(b.endpoint) })
}

// changes gives changes the leases of the side.
func (s *side) changes(list []change) []naming.Change {
	var changes []naming.Change
	for _, c := range list {
		switch {
		case c.lease == foreign:
			c.Lease = s.foreign
		case c.lease >= 0:
			c.Lease = s.leases[c.lease]
		}
		changes = append(changes, c.Change)
	}
	return changes
}

// list reads a service.
func (s *side) list(ctx context.Context, service int) (set, error) {
	var got set
	for b, err := range s.store.Watch(ctx, s.subjects[service].name) {
		if err != nil {
			return nil, err
		}
		got.take(b)
		if len(got) != len(b.Put) || !b.Snapshot {
			return nil, fmt.Errorf("the first batch is %v", b)
		}
		break
	}
	return got, nil
}

// names reads the list of services.
func (s *side) names(ctx context.Context) ([]string, error) {
	for names, err := range s.store.Services(ctx) {
		return names, err
	}
	return nil, errors.New("no list of services")
}

// The classes of errors. Any other is one that must not happen here.
const (
	classNone     = "no error"
	classLost     = "lease lost"
	classInvalid  = "invalid"
	classCanceled = "canceled"
)

func class(err error) string {
	if err == nil {
		return classNone
	}
	var is []string
	for class, target := range map[string]error{
		classLost:     naming.ErrLeaseLost,
		classInvalid:  naming.ErrInvalid,
		classCanceled: context.Canceled,
		"permission":  naming.ErrPermission,
	} {
		if errors.Is(err, target) {
			is = append(is, class)
		}
	}
	if len(is) == 1 {
		return is[0]
	}
	return "other: " + err.Error()
}

func expected(class string) bool {
	return class == classNone || class == classLost || class == classInvalid || class == classCanceled
}
