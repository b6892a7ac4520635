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

// patience bounds the wait for an event that must happen.
const patience = time.Minute

// backend makes the stores of one registry.
type backend struct {
	name string
	// batches says that changes made at once are shown in one batch.
	batches bool
	// open returns two stores. No other store has their endpoints.
	open func() (store, other naming.Store)
	// ttl is the time to live of leases that expire. It is the same for all backends.
	ttl time.Duration
	// patience bounds the wait for the readers.
	patience time.Duration
}

// side is a store that a history is applied to, and a Client on the store that watches all
// services. One goroutine at a time uses it. Only the fields of subject that mu guards are
// shared.
type side struct {
	backend
	store    naming.Store
	client   *naming.Client
	wake     chan struct{} // capacity 1
	subjects []*subject

	leases        []naming.Lease
	foreign       naming.Lease
	registrations []*naming.Registration
	slow          bool // a lease may have expired too early in this operation
}

// subject is a service, and what the readers of a side have seen of it.
type subject struct {
	name         string
	follower     *naming.Follower
	set          set // of the Client; nil: not synced yet
	clientEvents []event

	mu          sync.Mutex
	storeSet    set
	storeEvents []event
	batches     int // those with an event
}

// set is the endpoints of a service by ID.
type set map[string]naming.Endpoint

// event is one change of an endpoint that a reader sees.
type event struct {
	kind     string
	endpoint naming.Endpoint // a deletion has only the ID
}

func (e event) String() string { return e.kind + " " + text(e.endpoint) }

// The kinds of events.
const (
	added    = "added"
	updated  = "updated"
	deleted  = "deleted"
	repeated = "repeated" // the reader has seen this state before
)

// applyBatch applies a batch to a set and returns its events.
func (s *set) applyBatch(b naming.Batch) (events []event) {
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

// diff returns how two sets differ, or "".
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
		if sub.follower, err = s.client.Follow(sub.name, s.signal); err != nil {
			return s, err
		}
	}
	return s, s.until(ctx, "the watches", func() string { return s.differ(make([]set, len(services))) })
}

// close closes the Client.
func (s *side) close() { s.client.Close() }

// signal wakes until.
func (s *side) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// tap is a store that records the batches that the watches of a Client get.
type tap struct {
	naming.Store
	side *side
}

func (t tap) Watch(ctx context.Context, service string) iter.Seq2[naming.Batch, error] {
	return func(yield func(naming.Batch, error) bool) {
		for b, err := range t.Store.Watch(ctx, service) {
			if err == nil {
				t.side.record(service, b)
			}
			if !yield(b, err) {
				return
			}
		}
	}
}

// record appends the events of a batch of the store.
func (s *side) record(service string, b naming.Batch) {
	for _, sub := range s.subjects {
		if sub.name == service {
			sub.mu.Lock()
			defer sub.mu.Unlock()
			n := len(sub.storeEvents)
			for _, e := range sub.storeSet.applyBatch(naming.Batch{Snapshot: b.Snapshot, Put: b.Put, Deleted: slices.Clone(b.Deleted)}) {
				// A Store may repeat a state.
				if e.kind != repeated {
					sub.storeEvents = append(sub.storeEvents, e)
				}
			}
			if len(sub.storeEvents) > n {
				sub.batches++
			}
		}
	}
}

// lacks returns a text if the Client does not have an endpoint, or "".
func (s *side) lacks(service int, id string) string {
	if _, ok := s.subjects[service].set[id]; ok {
		return ""
	}
	return fmt.Sprintf("%.40q is missing", id)
}

// until reads the events of the Client until amiss returns "". It returns an error with
// the text of amiss after the patience of the side.
func (s *side) until(ctx context.Context, what string, amiss func() string) error {
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	for {
		for _, sub := range s.subjects {
			for e, more := sub.follower.Next(); more; e, more = sub.follower.Next() {
				if !e.Status.Synced || e.Status.Stale() && !e.Snapshot && len(e.Put)+len(e.Deleted) == 0 {
					continue
				}
				sub.clientEvents = append(sub.clientEvents, sub.set.applyBatch(e.Batch)...)
			}
		}
		why := amiss()
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

// differ returns how the sets of the Client differ from those that are wanted, or "".
func (s *side) differ(want []set) string {
	for i, sub := range s.subjects {
		if sub.set == nil {
			return fmt.Sprintf("%q is not synced", sub.name)
		}
		if d := diff(sub.set, want[i]); d != "" {
			return fmt.Sprintf("%q is %s", sub.name, d)
		}
	}
	return ""
}

// events returns the events since its last call, sorted by ID: those of the store's watch
// and those of the Client. batches is the number of the store's batches.
func (sub *subject) events() (ofStore, ofClient []event, batches int) {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	ofStore, ofClient, batches = sub.storeEvents, sub.clientEvents, sub.batches
	sub.storeEvents, sub.clientEvents, sub.batches = nil, nil, 0
	byID := func(a, b event) int { return cmp.Compare(a.endpoint.ID, b.endpoint.ID) }
	slices.SortStableFunc(ofStore, byID)
	slices.SortStableFunc(ofClient, byID)
	return ofStore, ofClient, batches
}

func sameEvents(a, b []event) bool {
	return slices.EqualFunc(a, b, func(a, b event) bool { return a.kind == b.kind && a.endpoint.Equal(b.endpoint) })
}

// changes returns changes with the leases of the side.
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

// list returns the endpoints of a service.
func (s *side) list(ctx context.Context, service int) (set, error) {
	var got set
	for b, err := range s.store.Watch(ctx, s.subjects[service].name) {
		if err != nil {
			return nil, err
		}
		got.applyBatch(b)
		if len(got) != len(b.Put) || !b.Snapshot {
			return nil, fmt.Errorf("the first batch is %v", b)
		}
		break
	}
	return got, nil
}

// names returns the list of services.
func (s *side) names(ctx context.Context) ([]string, error) {
	for names, err := range s.store.Services(ctx) {
		return names, err
	}
	return nil, errors.New("no list of services")
}

// The classes of errors that a history may cause.
const (
	classNone     = "no error"
	classLost     = "lease lost"
	classInvalid  = "invalid"
	classCanceled = "canceled"
)

// class returns the class of an error.
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

// expected reports whether a history may cause an error of the class.
func expected(class string) bool {
	return class == classNone || class == classLost || class == classInvalid || class == classCanceled
}
