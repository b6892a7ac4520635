package hub

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
)

// Status is how far the registry vouches for what a Hub has.
type Status struct {
	// Listed says that the registry has answered with the list of services. Filled says
	// that all services of the first list have answered as well.
	Listed, Filled bool
	// Services is the number of services. Waiting is how many of them have not answered,
	// and Stale how many are stale.
	Services, Waiting, Stale int
	// ListStale says that the list of services is stale.
	ListStale bool
	// AsOf is when the registry last vouched for all that is stale. It is the zero time
	// if nothing is stale.
	AsOf time.Time
	// Err is the failure of the list or of the first stale service, or nil.
	Err error
}

// Fresh reports whether the registry vouches for everything now.
func (s *Status) Fresh() bool { return s.Listed && !s.ListStale && s.Stale == 0 }

// Age returns for how long the registry has not vouched for everything. It is 0 while all is
// fresh.
func (s *Status) Age(now time.Time) time.Duration {
	if s.AsOf.IsZero() {
		return 0
	}
	return max(0, now.Sub(s.AsOf))
}

// add counts a View in the status.
func (s *Status) add(v *naming.View) {
	s.Services++
	if !v.Synced {
		s.Waiting++
	}
	if v.Stale() {
		s.Stale++
		s.old(v)
	}
}

// old applies the age and the error of a stale View.
func (s *Status) old(v *naming.View) {
	asOf := v.AsOf
	if asOf.IsZero() {
		asOf = v.StaleSince // The service has never answered.
	}
	if s.AsOf.IsZero() || asOf.Before(s.AsOf) {
		s.AsOf = asOf
	}
	if s.Err == nil {
		s.Err = v.Err
	}
}

// Snapshot is the state of services at one moment.
type Snapshot struct {
	// ID names the moment: see [Hub.Resume].
	ID string
	// Run names the Hub among those of other processes. Version counts its updates.
	Run     string
	Version uint64
	// Seq is the number of the newest change.
	Seq uint64
	// Status is about the services of the Snapshot, and about the list.
	Status Status
	// Services are sorted by name.
	Services []Service
}

// Snapshot returns the present state of services. Without names it has all services. A name
// that is not in the list of services is left out.
func (h *Hub) Snapshot(names ...string) Snapshot {
	s := &h.state
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(names) == 0 {
		names = s.sortedNames()
	}
	snap := Snapshot{ID: h.id(s.timeline.last), Run: h.run, Version: s.version, Seq: s.timeline.last, Services: make([]Service, 0, len(names))}
	snap.Status = s.listStatus()
	for _, name := range names {
		if service := s.services[name]; service != nil {
			snap.Services = append(snap.Services, *service)
			snap.Status.add(&service.View)
		}
	}
	return snap
}

// listStatus returns the Status without the services. mu is held.
func (s *state) listStatus() Status {
	status := Status{Listed: s.list.Synced, Filled: s.waiting != nil && len(s.waiting) == 0}
	if s.list.Stale() {
		status.ListStale = true
		status.old(&s.list)
	}
	return status
}

// Status returns the status of all services. It costs less than a Snapshot.
func (h *Hub) Status() Status {
	s := &h.state
	s.mu.RLock()
	defer s.mu.RUnlock()
	status := s.listStatus()
	for _, service := range s.services {
		status.add(&service.View)
	}
	return status
}

// ErrNotKnown is the error of Known.
var ErrNotKnown = errors.New("the registry has not answered yet")

// Known returns nil if a list of the named services, or of all services without names, can be
// given away: the registry has answered for every service. Otherwise the error is
// [ErrNotKnown] with the reason. A service that is listed after the first list counts only if
// it is named.
func (h *Hub) Known(names ...string) error {
	s := &h.state
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.list.Synced {
		return notKnown("the list of services", s.list.Err)
	}
	if len(names) == 0 {
		for name := range s.waiting {
			return notKnown(fmt.Sprintf("service %q", naming.SafeText(name)), s.services[name].Err)
		}
	}
	for _, name := range names {
		if service := s.services[name]; service != nil && !service.Synced {
			return notKnown(fmt.Sprintf("service %q", naming.SafeText(name)), service.Err)
		}
	}
	return nil
}

func notKnown(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrNotKnown, what, naming.SafeError(err))
	}
	return fmt.Errorf("%w: %s", ErrNotKnown, what)
}

// Migration returns how far the migration of a service is, and false if the Client is on one
// registry.
func (h *Hub) Migration(service string) (migrate.Status, bool) {
	j := h.joined.Load()
	if j == nil {
		return migrate.Status{}, false
	}
	return j.Status(service), true
}

// Migrating reports whether the Client is on two registries.
func (h *Hub) Migrating() bool { return h.joined.Load() != nil }

// Timeline returns the newest changes, at most limit, oldest first.
func (h *Hub) Timeline(limit int) []Change {
	s := &h.state
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := min(limit, s.timeline.count)
	list, _ := s.timeline.after(s.timeline.last-uint64(n), n)
	return list
}

// Counts are numbers about the readers of a Hub.
type Counts struct {
	// Subscribers is how many Subscriptions are open. Resyncs is how often a Subscription
	// was too slow since the Hub was made.
	Subscribers, Resyncs int64
}

// Counts returns the present numbers.
func (h *Hub) Counts() Counts { return Counts{h.subscribers.Load(), h.resyncs.Load()} }

// id returns the name of the moment after the change seq.
func (h *Hub) id(seq uint64) string { return h.run + "-" + strconv.FormatUint(seq, 10) }

// IDOf returns the name of the moment after a change.
func (h *Hub) IDOf(c *Change) string { return h.id(c.Seq) }

// Subscription delivers the changes of a Hub to one reader. It keeps no queue: it reads the
// timeline, which bounds its memory. Its methods must not be called concurrently.
type Subscription struct {
	hub    *Hub
	seq    uint64 // the change that was delivered last
	synced bool   // seq is valid
	closed bool
}

// Subscribe returns a Subscription whose first News is a snapshot. The caller closes it.
func (h *Hub) Subscribe() *Subscription {
	h.subscribers.Add(1)
	return &Subscription{hub: h}
}

// Resume returns a Subscription that goes on after the moment with an ID, which another
// Subscription has delivered. If the ID is of another Hub, or too old, the first News is a
// snapshot.
func (h *Hub) Resume(id string) *Subscription {
	s := h.Subscribe()
	run, number, _ := strings.Cut(id, "-")
	seq, err := strconv.ParseUint(number, 10, 64)
	if run == h.run && err == nil {
		s.seq, s.synced = seq, true
	}
	return s
}

// News is what a Subscription delivers.
type News struct {
	// Snapshot, if not nil, replaces all that the reader has. Changes is then empty.
	Snapshot *Snapshot
	// Changes are the changes since the last News, at most 256.
	Changes []Change
}

const (
	// maxNews is how many changes are in one News.
	maxNews = 256
	// fillWait is how long a first snapshot waits for services that have not answered.
	fillWait = time.Second
)

// Next returns the next News. It waits until something changes or ctx is done. The error is
// ctx.Err(). A reader that falls behind the timeline gets a snapshot.
func (s *Subscription) Next(ctx context.Context) (News, error) {
	if !s.synced {
		return s.first(ctx)
	}
	for {
		changes, ok, more := s.read()
		switch {
		case !ok:
			s.hub.resyncs.Add(1)
			return s.snapshot(), nil
		case len(changes) > 0:
			s.seq = changes[len(changes)-1].Seq
			return News{Changes: changes}, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return News{}, ctx.Err()
		}
	}
}

// read returns the changes after seq, and a channel that is closed at the next update.
func (s *Subscription) read() (changes []Change, ok bool, more <-chan struct{}) {
	state := &s.hub.state
	state.mu.RLock()
	defer state.mu.RUnlock()
	changes, ok = state.timeline.after(s.seq, maxNews)
	return changes, ok, state.changed
}

// first returns a snapshot when the list of services is known. It waits a short time for all
// services.
func (s *Subscription) first(ctx context.Context) (News, error) {
	wait, cancel := context.WithTimeout(ctx, fillWait)
	defer cancel()
	_ = s.hub.Wait(wait)
	for {
		listed, more := s.hub.state.listed()
		if listed {
			return s.snapshot(), nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return News{}, ctx.Err()
		}
	}
}

func (s *state) listed() (bool, <-chan struct{}) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.list.Synced, s.changed
}

func (s *Subscription) snapshot() News {
	snap := s.hub.Snapshot()
	s.seq, s.synced = snap.Seq, true
	return News{Snapshot: &snap}
}

// Close ends the Subscription. It may be called more than once.
func (s *Subscription) Close() {
	if !s.closed {
		s.closed = true
		s.hub.subscribers.Add(-1)
	}
}
