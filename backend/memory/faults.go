package memory

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/naming-go/naming"
)

// SilenceBound is how long a watch bears a store that fell silent (see
// [Store.Silence]) before it ends with an error, as the contract asks of every
// backend.
const SilenceBound = 10 * time.Second

// faults is what makes a store fail. Its fields are guarded by Store.mu.
type faults struct {
	calls       int
	refuse      func(method, service string) error
	delay       time.Duration
	silent      chan struct{}                // not nil: the store is silent; closed when it speaks again
	lagging     map[string]map[string]*entry // not nil: what new watches see
	listsBroken *breakage                    // the last one that ended the sequences of Services
}

type breakage struct{ err error }

// Calls returns how many requests were made of the store: the calls of Apply,
// Grant, Renew and Revoke, and the ranges over a watch or a list of services.
func (s *Store) Calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// Break ends every watch and every sequence of Services that is being ranged
// over now, with an error that wraps err. New ones start as usual.
func (s *Store) Break(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.breakAll(err)
}

func (s *Store) breakAll(err error) {
	for _, svc := range s.services {
		for w := range svc.watches {
			w.broken = err
			w.poke()
		}
	}
	s.listsBroken = &breakage{err}
	s.wakeLists()
}

// Refuse makes every later call fail with an error that wraps err, until it is
// called with nil. Watches that run go on, and leases expire.
func (s *Store) Refuse(err error) {
	if err == nil {
		s.RefuseFunc(nil)
		return
	}
	s.RefuseFunc(func(string, string) error { return err })
}

// RefuseFunc makes every later call ask f, and fail with what it returns if
// that is not nil. The method is "Apply", "Watch", "Services", "Grant", "Renew"
// or "Revoke"; the service is empty where a method has none. f may be called
// concurrently and may call the store. A nil f refuses nothing.
func (s *Store) RefuseFunc(f func(method, service string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = f
}

// Down takes the registry away: every watch breaks and every call is refused,
// with an error that wraps err, until [Store.Up] is called. Leases expire
// meanwhile.
func (s *Store) Down(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = func(string, string) error { return err }
	s.breakAll(err)
}

// Up ends [Store.Down] and [Store.Refuse].
func (s *Store) Up() { s.Refuse(nil) }

// Silence makes the store accept and say nothing, as a server that is stopped
// or a link that lost its packets: calls block until their context is done,
// and watches yield nothing and end with an error after [SilenceBound]. Leases
// expire meanwhile. [Store.Speak] ends it, and blocked calls then go on.
func (s *Store) Silence() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.silent == nil {
		s.silent = make(chan struct{})
		for _, svc := range s.services {
			for w := range svc.watches {
				w.poke() // so that the bound starts now
			}
		}
		s.wakeLists()
	}
}

// Speak ends [Store.Silence].
func (s *Store) Speak() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.silent != nil {
		close(s.silent)
		s.silent = nil
	}
}

// Delay makes every later call take d longer; 0 ends it. A call whose context
// ends first has done nothing.
func (s *Store) Delay(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay = d
}

// Wipe replaces the registry by an empty one: all endpoints are gone, and all
// leases are lost. Watches go on and see the deletions of a service together.
func (s *Store) Wipe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range maps.Clone(s.leases) {
		l.end()
	}
	for name, svc := range maps.Clone(s.services) {
		for id := range maps.Clone(svc.entries) {
			s.set(name, id, nil)
		}
	}
}

// Expire ends a lease now, as if it had not been renewed for its time to live.
// It panics if the lease is not of this store.
func (s *Store) Expire(l naming.Lease) {
	own, ok := l.(*lease)
	if !ok || own.store != s {
		panic(fmt.Sprintf("memory: Expire of a lease of another store: %v", l))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	own.end()
}

// ExpireAll ends all leases now, together.
func (s *Store) ExpireAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range maps.Clone(s.leases) {
		l.end()
	}
}

// Withhold makes the store say that an endpoint is not to be used, as an
// operator or a check of the registry does: watches yield the endpoint in
// [naming.Batch.Withheld], with reason and detail. The endpoint may be put,
// deleted and leased as before, and its service stays in the list of services.
// An endpoint that does not exist is withheld as soon as it is put.
//
// Only [Store.Unwithhold] ends it. New puts, other leases, deletion, expiry and
// [Store.Wipe] do not. A second call replaces reason and detail.
func (s *Store) Withhold(service, id string, reason naming.Reason, detail string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.withheld == nil {
		s.withheld = make(map[key]mark)
	}
	s.withheld[key{service, id}] = mark{set: true, reason: reason, detail: naming.SafeText(detail)}
	s.remark(service, id)
}

// Unwithhold ends [Store.Withhold]: watches yield the endpoint in
// [naming.Batch.Put], if it exists.
func (s *Store) Unwithhold(service, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.withheld, key{service, id})
	s.remark(service, id)
}

// remark puts an entry again, with the mark that it has now. s.mu is held.
func (s *Store) remark(service, id string) {
	e := s.get(service, id)
	if e == nil || e.withheld == s.withheld[key{service, id}] {
		return
	}
	again := *e
	s.set(service, id, &again)
}

// Lag makes every watch that starts from now on answer from the state as it is
// now, as a replica does that has lost its leader: a snapshot of it, and no
// changes. Watches that run go on. It is the one verb that breaks the contract,
// which forbids that an older state follows a newer one. [Store.CatchUp] ends it.
func (s *Store) Lag() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lagging = make(map[string]map[string]*entry)
	for name, svc := range s.services {
		s.lagging[name] = maps.Clone(svc.entries)
	}
}

// CatchUp ends [Store.Lag]: watches that answered from the older state yield a
// snapshot of the present one.
func (s *Store) CatchUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lagging = nil
	for _, svc := range s.services {
		for w := range svc.watches {
			if w.old != nil {
				w.old = nil
				w.whole = true
				w.poke()
			}
		}
	}
}

// PutMalformed puts an entry that cannot be understood where the endpoint id of
// a service would be, as another program might; it replaces the endpoint. Every
// watch that meets it leaves it out and reports it to OnMalformed, with id for
// the key. Adding or deleting the endpoint removes it.
func (s *Store) PutMalformed(service, id string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(service, id, &entry{endpoint: naming.Endpoint{ID: id}, bad: err})
}

// enter counts a call and lets it pass, or fails as the store was told to.
func (s *Store) enter(ctx context.Context, method, service string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	s.calls++
	delay := s.delay
	s.mu.Unlock()
	if delay > 0 {
		t := time.NewTimer(delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for {
		s.mu.Lock()
		silent, refuse := s.silent, s.refuse
		s.mu.Unlock()
		if silent == nil {
			if refuse == nil {
				return nil
			}
			return refuse(method, service)
		}
		select {
		case <-silent:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// enterBounded is enter for a sequence, which bears no silence beyond
// SilenceBound.
func (s *Store) enterBounded(ctx context.Context, method, service string) error {
	s.mu.Lock()
	bound := s.delay + SilenceBound
	s.mu.Unlock()
	bounded, cancel := context.WithTimeoutCause(ctx, bound, errSilent)
	defer cancel()
	err := s.enter(bounded, method, service)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return context.Cause(bounded)
	}
	return err
}

// await waits for a token in wake. A silent store gives none, and after
// SilenceBound an error.
func (s *Store) await(ctx context.Context, wake chan struct{}) error {
	select {
	case <-wake:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.Lock()
	silent := s.silent
	s.mu.Unlock()
	if silent == nil {
		return nil
	}
	t := time.NewTimer(SilenceBound)
	defer t.Stop()
	select {
	case <-silent:
		return nil
	case <-t.C:
		return errSilent
	case <-ctx.Done():
		return ctx.Err()
	}
}
