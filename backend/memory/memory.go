// Package memory is a registry in memory: the reference implementation of
// [naming.Store], and the fake registry for tests.
//
// An author of a backend reads it first: it keeps every rule of the contract, with
// atomic changes and leases that expire. Its time is that of package time: in a
// testing/synctest bubble a lease of an hour expires at once. A Store has no goroutine
// and needs no Close.
//
// A test makes a Store fail in the ways in which registries fail, and checks what the
// program does then: [Store.Break], [Store.Refuse], [Store.Silence], [Store.Down],
// [Store.Wipe] and others. A Store fails only after such a call. [Store.Withhold]
// withholds an endpoint, as an operator does.
package memory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/naming-go/naming"
)

// Store is a registry in memory. The zero value is empty and ready to use. All methods
// may be called concurrently. A Store must not be copied.
type Store struct {
	// OnMalformed, if not nil, is called for every entry that is left out of a
	// batch because of [Store.PutMalformed]. The loops that range over watches call
	// it, several of them concurrently. Set it before the store is used.
	OnMalformed func(*naming.MalformedError)

	mu       sync.Mutex
	services map[string]*service
	lists    map[chan struct{}]struct{} // the wake channels of the sequences of Services
	leases   map[*lease]struct{}        // those that have not ended
	withheld map[key]decision           // also for endpoints that do not exist
	faults
}

// service is the endpoints and the watches of one service. It exists while it has any
// of them.
type service struct {
	entries map[string]*entry // by ID
	good    int               // the number of entries that are not malformed
	watches map[*subscription]struct{}
}

// entry is never modified once it is in a service.
type entry struct {
	endpoint naming.Endpoint
	lease    *lease   // nil: the entry stays until it is deleted
	bad      error    // not nil: the entry is malformed, and endpoint has only an ID
	withheld decision // the one of Store.withheld when the entry was put
}

// decision is an operator's decision to withhold an endpoint. The zero value means that
// the endpoint may be used.
type decision struct {
	made   bool
	reason naming.Reason
	detail string
}

var (
	_ naming.Store  = (*Store)(nil)
	_ naming.Marker = (*Store)(nil)
)

// Apply implements [naming.Store]. It is atomic.
func (s *Store) Apply(ctx context.Context, name string, changes ...naming.Change) error {
	changes, err := naming.Normalize(name, changes)
	if err != nil {
		return err
	}
	if err := s.enter(ctx, "Apply", name); err != nil {
		return fmt.Errorf("memory: apply to %q: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	leases, err := s.leasesOf(name, changes)
	if err != nil {
		return err
	}
	for i, c := range changes {
		id, l := c.Endpoint.ID, leases[i]
		old := s.get(name, id)
		switch {
		case c.Op == naming.Add:
			if !c.IfFree || old == nil || old.lease == l || c.Reclaim && old.lease == nil {
				c.Endpoint.Unleased = l == nil
				s.set(name, id, &entry{endpoint: c.Endpoint, lease: l})
			}
		case old != nil && (l == nil || l == old.lease || c.Reclaim && old.lease == nil):
			s.set(name, id, nil)
		}
	}
	return nil
}

// Mark implements [naming.Marker] with the mark of the entry.
func (s *Store) Mark(ctx context.Context, name, id string, draining bool) error {
	if err := naming.CheckID(name, id); err != nil {
		return err
	}
	if err := s.enter(ctx, "Mark", name); err != nil {
		return fmt.Errorf("memory: mark %q of %q: %w", id, name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.get(name, id)
	switch {
	case old == nil:
		return fmt.Errorf("memory: mark %q of %q: %w", id, name, naming.ErrNotFound)
	case old.bad != nil:
		return fmt.Errorf("memory: mark %q of %q: %w: the entry cannot be understood: %w", id, name, naming.ErrInvalid, old.bad)
	case old.endpoint.Draining == draining:
		return nil
	}
	marked := *old
	marked.endpoint.Draining = draining
	s.set(name, id, &marked)
	return nil
}

// Map implements [naming.Mapper]. A Store in memory keeps every endpoint unchanged.
func (s *Store) Map(name string, e naming.Endpoint) (naming.Endpoint, error) {
	changes, err := naming.Normalize(name, []naming.Change{{Op: naming.Add, Endpoint: e}})
	if err != nil {
		return naming.Endpoint{}, err
	}
	return changes[0].Endpoint, nil
}

// leasesOf returns the lease of each change, or an error if a change must not be made.
// s.mu is held.
func (s *Store) leasesOf(name string, changes []naming.Change) ([]*lease, error) {
	leases := make([]*lease, len(changes))
	for i, c := range changes {
		if c.Lease == nil {
			continue
		}
		l, ok := c.Lease.(*lease)
		if !ok || l.store != s {
			return nil, fmt.Errorf("%w: lease of %q in service %q is of another store", naming.ErrInvalid, c.Endpoint.ID, name)
		}
		if c.Op == naming.Add && !l.live() {
			return nil, fmt.Errorf("memory: apply to %q: put %q: %w", name, c.Endpoint.ID, naming.ErrLeaseLost)
		}
		leases[i] = l
	}
	return leases, nil
}

// get returns an entry, or nil if it does not exist. s.mu is held.
func (s *Store) get(name, id string) *entry {
	svc := s.services[name]
	if svc == nil {
		return nil
	}
	return svc.entries[id]
}

// set replaces an entry and wakes the watches. A nil entry removes the old one. Watches
// show together everything that is set while s.mu is held. s.mu is held.
func (s *Store) set(name, id string, e *entry) {
	svc := s.ensure(name)
	defer s.removeIfUnused(name, svc)
	old, before := svc.entries[id], svc.good
	if old != nil {
		if old.bad == nil {
			svc.good--
		}
		if old.lease != nil {
			delete(old.lease.entries, key{name, id})
		}
	}
	if e == nil {
		delete(svc.entries, id)
	} else {
		e.withheld = s.withheld[key{name, id}]
		svc.entries[id] = e
		if e.bad == nil {
			svc.good++
		}
		if e.lease != nil {
			e.lease.entries[key{name, id}] = struct{}{}
		}
	}
	for w := range svc.watches {
		w.touch(id, len(svc.entries))
	}
	if (before == 0) != (svc.good == 0) {
		s.wakeLists()
	}
}

// ensure returns a service, and makes it if it does not exist. s.mu is held.
func (s *Store) ensure(name string) *service {
	svc := s.services[name]
	if svc == nil {
		svc = &service{entries: make(map[string]*entry), watches: make(map[*subscription]struct{})}
		if s.services == nil {
			s.services = make(map[string]*service)
		}
		s.services[name] = svc
	}
	return svc
}

// removeIfUnused removes a service that has neither entries nor watches. s.mu is held.
func (s *Store) removeIfUnused(name string, svc *service) {
	if len(svc.entries) == 0 && len(svc.watches) == 0 {
		delete(s.services, name)
	}
}

// subscription is one sequence of Watch that is being ranged over. Its fields are
// guarded by Store.mu.
type subscription struct {
	wake   chan struct{}       // capacity 1: has a token when a field has changed
	dirty  map[string]struct{} // IDs that changed since the last batch
	whole  bool                // the next batch is a snapshot; dirty is empty
	broken error               // not nil: ends the sequence
	old    map[string]*entry   // not nil: the state of a replica that lags, which is all this watch shows
}

// touch notes that the entry of id changed. The notes of a slow loop never take more
// memory than the set itself: beyond that, the next batch is a snapshot. s.mu is held.
func (w *subscription) touch(id string, size int) {
	if w.old != nil {
		return
	}
	if !w.whole {
		w.dirty[id] = struct{}{}
		if len(w.dirty) > 2*size+64 {
			clear(w.dirty)
			w.whole = true
		}
	}
	w.signal()
}

// signal wakes the loop of the subscription.
func (w *subscription) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Watch implements [naming.Store]. The bound within which it notices a silence is
// [SilenceBound].
func (s *Store) Watch(ctx context.Context, name string) iter.Seq2[naming.Batch, error] {
	return func(yield func(naming.Batch, error) bool) {
		if err := naming.CheckService(name); err != nil {
			yield(naming.Batch{}, err)
			return
		}
		if err := s.yieldBatches(ctx, name, yield); err != nil {
			yield(naming.Batch{}, fmt.Errorf("memory: watch %q: %w", name, err))
		}
	}
}

// yieldBatches returns nil when yield has returned false.
func (s *Store) yieldBatches(ctx context.Context, name string, yield func(naming.Batch, error) bool) error {
	if err := s.enterBounded(ctx, "Watch", name); err != nil {
		return err
	}
	w, unsubscribe := s.subscribe(name)
	defer unsubscribe()
	for {
		if err := s.await(ctx, w.wake); err != nil {
			return err
		}
		b, bad, err := s.nextBatch(name, w)
		if err != nil {
			return err
		}
		if s.OnMalformed != nil {
			for _, m := range bad {
				s.OnMalformed(m)
			}
		}
		if b.Snapshot || len(b.Put) > 0 || len(b.Deleted) > 0 || len(b.Withheld) > 0 {
			if !yield(b, nil) {
				return nil
			}
		}
	}
}

// subscribe adds a subscription to a service. Its first batch is a snapshot.
func (s *Store) subscribe(name string) (w *subscription, unsubscribe func()) {
	w = &subscription{wake: make(chan struct{}, 1), dirty: make(map[string]struct{}), whole: true}
	w.signal()
	s.mu.Lock()
	defer s.mu.Unlock()
	svc := s.ensure(name)
	if s.lagging != nil {
		w.old = s.lagging[name]
		if w.old == nil {
			w.old = map[string]*entry{}
		}
	}
	svc.watches[w] = struct{}{}
	return w, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(svc.watches, w)
		s.removeIfUnused(name, svc)
	}
}

// nextBatch returns what changed since the last batch of a subscription, and the
// malformed entries that it left out.
func (s *Store) nextBatch(name string, w *subscription) (b naming.Batch, bad []*naming.MalformedError, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries := s.services[name].entries
	if w.broken != nil {
		return b, nil, w.broken
	}
	if n := len(entries); n > naming.MaxEndpoints {
		return b, nil, fmt.Errorf("%d endpoints; at most %d are allowed", n, naming.MaxEndpoints)
	}
	if w.old != nil {
		entries = w.old
	}
	put := func(e *entry) {
		switch {
		case e.bad != nil:
			bad = append(bad, &naming.MalformedError{Service: name, Key: e.endpoint.ID, Err: e.bad})
		case e.withheld.made:
			b.Withheld = append(b.Withheld, naming.Withheld{Endpoint: e.endpoint, Reason: e.withheld.reason, Detail: e.withheld.detail})
		default:
			b.Put = append(b.Put, e.endpoint)
		}
	}
	if w.whole {
		w.whole = false
		b.Snapshot = true
		b.Put = make([]naming.Endpoint, 0, len(entries))
		for _, e := range entries {
			put(e)
		}
	} else {
		for id := range w.dirty {
			e := entries[id]
			if e != nil {
				put(e)
			}
			if e == nil || e.bad != nil {
				b.Deleted = append(b.Deleted, id)
			}
		}
		clear(w.dirty)
	}
	sortBatch(b)
	return b, bad, nil
}

// sortBatch sorts the lists of a batch by ID, so that a test that fails does so again.
func sortBatch(b naming.Batch) {
	slices.SortFunc(b.Put, func(a, b naming.Endpoint) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(b.Withheld, func(a, b naming.Withheld) int { return cmp.Compare(a.Endpoint.ID, b.Endpoint.ID) })
	slices.Sort(b.Deleted)
}

// Services implements [naming.Store].
func (s *Store) Services(ctx context.Context) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		if err := s.yieldNames(ctx, yield); err != nil {
			yield(nil, fmt.Errorf("memory: services: %w", err))
		}
	}
}

// yieldNames returns nil when yield has returned false.
func (s *Store) yieldNames(ctx context.Context, yield func([]string, error) bool) error {
	if err := s.enterBounded(ctx, "Services", ""); err != nil {
		return err
	}
	wake, broken, unsubscribe := s.subscribeNames()
	defer unsubscribe()
	var last []string
	for first := true; ; first = false {
		if err := s.await(ctx, wake); err != nil {
			return err
		}
		names, err := s.names(broken)
		if err != nil {
			return err
		}
		if first || !slices.Equal(names, last) {
			last = slices.Clone(names)
			if !yield(names, nil) {
				return nil
			}
		}
	}
}

// subscribeNames adds a sequence of Services. broken is the last breakage before it.
func (s *Store) subscribeNames() (wake chan struct{}, broken *breakage, unsubscribe func()) {
	wake = make(chan struct{}, 1)
	wake <- struct{}{}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lists == nil {
		s.lists = make(map[chan struct{}]struct{})
	}
	s.lists[wake] = struct{}{}
	return wake, s.listsBroken, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.lists, wake)
	}
}

// names returns the names of the services that have endpoints, sorted. It returns an
// error if the sequences of Services broke after the breakage broken.
func (s *Store) names(broken *breakage) ([]string, error) {
	names := []string{}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listsBroken != broken {
		return nil, s.listsBroken.err
	}
	for name, svc := range s.services {
		if svc.good > 0 {
			names = append(names, name)
		}
	}
	if n := len(names); n > naming.MaxServices {
		return nil, fmt.Errorf("%d services; at most %d are allowed", n, naming.MaxServices)
	}
	slices.Sort(names)
	return names, nil
}

// wakeLists wakes the sequences of Services. s.mu is held.
func (s *Store) wakeLists() {
	for wake := range s.lists {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// key is the place of an entry.
type key struct{ service, id string }

// lease is a naming.Lease. Its fields are guarded by Store.mu, except store and ttl,
// which never change.
type lease struct {
	store   *Store
	ttl     time.Duration
	expires time.Time
	timer   *time.Timer
	ended   bool
	entries map[key]struct{} // those that are under the lease
}

// Grant implements [naming.Store]. It does not round ttl.
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (naming.Lease, error) {
	if ttl <= 0 {
		return nil, fmt.Errorf("%w: time to live %v of a lease", naming.ErrInvalid, ttl)
	}
	if err := s.enter(ctx, "Grant", ""); err != nil {
		return nil, fmt.Errorf("memory: grant: %w", err)
	}
	l := &lease{store: s, ttl: ttl, entries: make(map[key]struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	l.expires = time.Now().Add(ttl)
	l.timer = time.AfterFunc(ttl, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !l.ended && !l.live() { // a live lease was renewed while the timer fired
			l.end()
		}
	})
	if s.leases == nil {
		s.leases = make(map[*lease]struct{})
	}
	s.leases[l] = struct{}{}
	return l, nil
}

// live reports whether the lease has not ended. It does not depend on the timer, which
// may be late. s.mu is held.
func (l *lease) live() bool { return !l.ended && time.Now().Before(l.expires) }

// end ends the lease and removes its entries. s.mu is held.
func (l *lease) end() {
	if l.ended {
		return
	}
	l.ended = true
	l.timer.Stop()
	delete(l.store.leases, l)
	for k := range maps.Clone(l.entries) {
		l.store.set(k.service, k.id, nil)
	}
}

// TTL implements [naming.Lease].
func (l *lease) TTL() time.Duration { return l.ttl }

// Renew implements [naming.Lease].
func (l *lease) Renew(ctx context.Context) error {
	s := l.store
	if err := s.enter(ctx, "Renew", ""); err != nil {
		return fmt.Errorf("memory: renew: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !l.live() {
		l.end()
		return fmt.Errorf("memory: renew: %w", naming.ErrLeaseLost)
	}
	l.expires = time.Now().Add(l.ttl)
	l.timer.Reset(l.ttl)
	return nil
}

// Revoke implements [naming.Lease].
func (l *lease) Revoke(ctx context.Context) error {
	s := l.store
	if err := s.enter(ctx, "Revoke", ""); err != nil {
		return fmt.Errorf("memory: revoke: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l.end()
	return nil
}

var errSilent = errors.New("no answer from a registry that fell silent")
