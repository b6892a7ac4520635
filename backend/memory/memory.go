// Package memory is a registry in memory: the reference implementation of
// [naming.Store], and the fake for tests of everything that stands on one.
//
// It holds every rule of the contract, atomic changes and expiring leases
// included. Its time is that of package time, so that in a testing/synctest
// bubble an hour-long lease expires at once; it keeps no goroutine, and needs
// no Close.
//
// A Store can be made to fail the ways registries do, for tests of what a
// program does then: [Store.Break], [Store.Refuse], [Store.Silence],
// [Store.Down], [Store.Wipe] and the others. Only such a call makes it fail. It can
// be made to withhold endpoints, as an operator does, with [Store.Withhold].
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

// Store is a registry in memory. The zero value is an empty one, ready to use.
// All methods may be called concurrently. A Store must not be copied.
type Store struct {
	// OnMalformed, if not nil, is called for every entry that is left out of a
	// batch because of [Store.PutMalformed]. It is called from the loops that
	// range over a watch, concurrently if there are several. Set it before the
	// store is used.
	OnMalformed func(*naming.MalformedError)

	mu       sync.Mutex
	services map[string]*service
	lists    map[chan struct{}]struct{} // wakes the sequences of Services
	leases   map[*lease]struct{}        // those that have not ended
	withheld map[key]mark               // what Withhold says, also of endpoints that do not exist
	faults
}

// service is what the store has of one service, and who watches it. It exists
// while there is either.
type service struct {
	entries map[string]*entry // by ID
	good    int               // how many of the entries are not malformed
	watches map[*watch]struct{}
}

// entry is never modified once it is in a service.
type entry struct {
	endpoint naming.Endpoint
	lease    *lease // nil: stays until it is deleted
	bad      error  // not nil: malformed, and endpoint has only an ID
	withheld mark   // from Store.withheld; its zero value: the endpoint may be used
}

// mark is what [Store.Withhold] says of an endpoint.
type mark struct {
	set    bool
	reason naming.Reason
	detail string
}

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
	leases := make([]*lease, len(changes))
	for i, c := range changes {
		if c.Lease == nil {
			continue
		}
		l, ok := c.Lease.(*lease)
		if !ok || l.store != s {
			return fmt.Errorf("%w: lease of %q in service %q is of another store", naming.ErrInvalid, c.Endpoint.ID, name)
		}
		if c.Op == naming.Add && !l.live() {
			return fmt.Errorf("memory: apply to %q: put %q: %w", name, c.Endpoint.ID, naming.ErrLeaseLost)
		}
		leases[i] = l
	}
	for i, c := range changes {
		id := c.Endpoint.ID
		old := s.get(name, id)
		switch {
		case c.Op == naming.Add:
			if !c.IfFree || old == nil || old.lease == leases[i] || c.Reclaim && old.lease == nil {
				c.Endpoint.Unleased = leases[i] == nil
				s.set(name, id, &entry{endpoint: c.Endpoint, lease: leases[i]})
			}
		case old != nil && (leases[i] == nil || leases[i] == old.lease || c.Reclaim && old.lease == nil):
			s.set(name, id, nil)
		}
	}
	return nil
}

// get returns an entry, nil if there is none. s.mu is held.
func (s *Store) get(name, id string) *entry {
	svc := s.services[name]
	if svc == nil {
		return nil
	}
	return svc.entries[id]
}

// set replaces an entry, by nil to remove it, and tells those who watch. What
// is set while s.mu is held is seen together. s.mu is held.
func (s *Store) set(name, id string, e *entry) {
	svc := s.open(name)
	defer s.tidy(name, svc)
	old, before := svc.entries[id], svc.good
	if old != nil {
		if old.bad == nil {
			svc.good--
		}
		if old.lease != nil {
			delete(old.lease.holds, key{name, id})
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
			e.lease.holds[key{name, id}] = struct{}{}
		}
	}
	for w := range svc.watches {
		w.touch(id, len(svc.entries))
	}
	if (before == 0) != (svc.good == 0) {
		s.wakeLists()
	}
}

// open returns a service, which it makes if need be. s.mu is held.
func (s *Store) open(name string) *service {
	svc := s.services[name]
	if svc == nil {
		svc = &service{entries: make(map[string]*entry), watches: make(map[*watch]struct{})}
		if s.services == nil {
			s.services = make(map[string]*service)
		}
		s.services[name] = svc
	}
	return svc
}

// tidy forgets a service that has nothing left. s.mu is held.
func (s *Store) tidy(name string, svc *service) {
	if len(svc.entries) == 0 && len(svc.watches) == 0 {
		delete(s.services, name)
	}
}

// watch is one sequence of Watch that is being ranged over. Its fields are
// guarded by Store.mu.
type watch struct {
	wake   chan struct{}       // capacity 1: holds a token when there is something to look at
	dirty  map[string]struct{} // IDs that changed since the last batch
	whole  bool                // the next batch is a snapshot; dirty is empty
	broken error               // ends the watch
	old    map[string]*entry   // not nil: the state of a replica that lags, which is all this watch sees
}

// touch notes that the entry of id changed. The notes are kept for a reader
// that is slow, and never take more room than the set itself. s.mu is held.
func (w *watch) touch(id string, size int) {
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
	w.poke()
}

func (w *watch) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Watch implements [naming.Store]. Its bound for a registry that fell silent
// is [SilenceBound].
func (s *Store) Watch(ctx context.Context, name string) iter.Seq2[naming.Batch, error] {
	return func(yield func(naming.Batch, error) bool) {
		err := naming.CheckService(name)
		if err == nil {
			err = s.watch(ctx, name, yield)
		}
		if err != nil {
			yield(naming.Batch{}, err)
		}
	}
}

// watch returns nil when yield returned false.
func (s *Store) watch(ctx context.Context, name string, yield func(naming.Batch, error) bool) error {
	fail := func(err error) error { return fmt.Errorf("memory: watch %q: %w", name, err) }
	if err := s.enterBounded(ctx, "Watch", name); err != nil {
		return fail(err)
	}
	w := &watch{wake: make(chan struct{}, 1), dirty: make(map[string]struct{}), whole: true}
	w.wake <- struct{}{}
	s.mu.Lock()
	svc := s.open(name)
	if s.lagging != nil {
		w.old = s.lagging[name]
		if w.old == nil {
			w.old = map[string]*entry{}
		}
	}
	svc.watches[w] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(svc.watches, w)
		s.tidy(name, svc)
	}()
	for {
		if err := s.await(ctx, w.wake); err != nil {
			return fail(err)
		}
		s.mu.Lock()
		if err := w.broken; err != nil {
			s.mu.Unlock()
			return fail(err)
		}
		if n := len(svc.entries); n > naming.MaxEndpoints {
			s.mu.Unlock()
			return fail(fmt.Errorf("%d endpoints; at most %d are allowed", n, naming.MaxEndpoints))
		}
		b, bad := w.take(name, svc)
		s.mu.Unlock()
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

// take returns what changed since it was last called. s.mu is held.
func (w *watch) take(name string, svc *service) (b naming.Batch, bad []*naming.MalformedError) {
	entries := svc.entries
	if w.old != nil {
		entries = w.old
	}
	put := func(e *entry) {
		switch {
		case e.bad != nil:
			bad = append(bad, &naming.MalformedError{Service: name, Key: e.endpoint.ID, Err: e.bad})
		case e.withheld.set:
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
	// In order, so that a test which fails does so again.
	slices.SortFunc(b.Put, func(a, b naming.Endpoint) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(b.Withheld, func(a, b naming.Withheld) int { return cmp.Compare(a.Endpoint.ID, b.Endpoint.ID) })
	slices.Sort(b.Deleted)
	return b, bad
}

// Services implements [naming.Store].
func (s *Store) Services(ctx context.Context) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		if err := s.list(ctx, yield); err != nil {
			yield(nil, fmt.Errorf("memory: services: %w", err))
		}
	}
}

// list returns nil when yield returned false.
func (s *Store) list(ctx context.Context, yield func([]string, error) bool) error {
	if err := s.enterBounded(ctx, "Services", ""); err != nil {
		return err
	}
	wake := make(chan struct{}, 1)
	wake <- struct{}{}
	s.mu.Lock()
	broken := s.listsBroken
	if s.lists == nil {
		s.lists = make(map[chan struct{}]struct{})
	}
	s.lists[wake] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.lists, wake)
	}()
	var last []string
	for first := true; ; first = false {
		if err := s.await(ctx, wake); err != nil {
			return err
		}
		names := []string{}
		s.mu.Lock()
		if s.listsBroken != broken {
			err := s.listsBroken.err
			s.mu.Unlock()
			return err
		}
		for name, svc := range s.services {
			if svc.good > 0 {
				names = append(names, name)
			}
		}
		s.mu.Unlock()
		if n := len(names); n > naming.MaxServices {
			return fmt.Errorf("%d services; at most %d are allowed", n, naming.MaxServices)
		}
		slices.Sort(names)
		if first || !slices.Equal(names, last) {
			last = slices.Clone(names)
			if !yield(names, nil) {
				return nil
			}
		}
	}
}

// wakeLists makes the sequences of Services look again. s.mu is held.
func (s *Store) wakeLists() {
	for wake := range s.lists {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// key is where an entry is.
type key struct{ service, id string }

// lease is a naming.Lease. Its fields are guarded by Store.mu, but for those
// that never change: store and ttl.
type lease struct {
	store   *Store
	ttl     time.Duration
	expires time.Time
	timer   *time.Timer
	ended   bool
	holds   map[key]struct{}
}

// Grant implements [naming.Store]. It takes ttl as it is.
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (naming.Lease, error) {
	if ttl <= 0 {
		return nil, fmt.Errorf("%w: time to live %v of a lease", naming.ErrInvalid, ttl)
	}
	if err := s.enter(ctx, "Grant", ""); err != nil {
		return nil, fmt.Errorf("memory: grant: %w", err)
	}
	l := &lease{store: s, ttl: ttl, holds: make(map[key]struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	l.expires = time.Now().Add(ttl)
	l.timer = time.AfterFunc(ttl, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !l.ended && !l.live() { // else it was renewed while the timer fired
			l.end()
		}
	})
	if s.leases == nil {
		s.leases = make(map[*lease]struct{})
	}
	s.leases[l] = struct{}{}
	return l, nil
}

// live reports whether the lease has not ended, also when its timer is late.
// s.mu is held.
func (l *lease) live() bool { return !l.ended && time.Now().Before(l.expires) }

// end removes what the lease holds. s.mu is held.
func (l *lease) end() {
	if l.ended {
		return
	}
	l.ended = true
	l.timer.Stop()
	delete(l.store.leases, l)
	for k := range maps.Clone(l.holds) {
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
