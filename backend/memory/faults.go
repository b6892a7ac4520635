package memory

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/naming-go/naming"
)

// SilenceBound is the time after which a watch of a silent store ends with an error. See
// [Store.Silence]. The contract requires such a bound of every backend.
const SilenceBound = 10 * time.Second

// faults are the faults of a store, and the count of its calls. Its fields are guarded by
// Store.mu.
type faults struct {
	calls       int
	refuse      func(method, service string) error
	delay       time.Duration
	silent      chan struct{}                // not nil: the store is silent; Speak closes it
	lagging     map[string]map[string]*entry // not nil: the state that new watches show, by service
	listsBroken *breakage                    // the last breakage of the sequences of Services
}

// breakage is one call of Break or Down.
type breakage struct{ err error }

// Calls returns how many requests the store has got: the calls of Apply, Mark, Grant, Renew
// and Revoke, and the ranges over a sequence of Watch or Services.
func (s *Store) Calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// Break ends every sequence of Watch and Services that is being ranged over, with an
// error that wraps err. New sequences start as usual.
func (s *Store) Break(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.breakAll(err)
}

// breakAll is Break. s.mu is held.
func (s *Store) breakAll(err error) {
	for _, svc := range s.services {
		for w := range svc.watches {
			w.broken = err
			w.signal()
		}
	}
	s.listsBroken = &breakage{err}
	s.wakeLists()
}

// Refuse makes every later call fail with an error that wraps err, until Refuse is called
// with nil. Running watches continue, and leases expire.
func (s *Store) Refuse(err error) {
	if err == nil {
		s.RefuseFunc(nil)
		return
	}
	s.RefuseFunc(func(string, string) error { return err })
}

// RefuseFunc makes every later call fail with the error that f returns for it. A call for
// which f returns nil succeeds. The method is "Apply", "Mark", "Watch", "Services",
// "Grant", "Renew" or "Revoke". The service is empty for a method that has no service. f may be
// called concurrently and may call the store. A nil f refuses nothing.
func (s *Store) RefuseFunc(f func(method, service string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = f
}

// Down makes the registry unavailable: every watch breaks and every call is refused, with
// an error that wraps err, until [Store.Up] is called. Leases expire meanwhile.
func (s *Store) Down(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = func(string, string) error { return err }
	s.breakAll(err)
}

// Up ends [Store.Down] and [Store.Refuse].
func (s *Store) Up() { s.Refuse(nil) }

// Silence makes the store accept everything and answer nothing, like a stopped server or
// a link that loses all packets. Calls block until their context is done. Watches yield
// nothing, and end with an error after [SilenceBound]. Leases expire meanwhile.
// [Store.Speak] ends the silence, and blocked calls continue.
func (s *Store) Silence() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.silent == nil {
		s.silent = make(chan struct{})
		for _, svc := range s.services {
			for w := range svc.watches {
				w.signal() // so that the bound starts now
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

// Delay makes every later call take d longer. 0 ends the delay. A call whose context is
// done before has changed nothing.
func (s *Store) Delay(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay = d
}

// Wipe removes all endpoints and ends all leases, as if an empty registry replaced this
// one. Watches continue, and show the deletions of a service together.
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

// Expire ends a lease now, as if it had not been renewed for its time to live. Expire
// panics if the lease is of another store.
func (s *Store) Expire(l naming.Lease) {
	own, ok := l.(*lease)
	if !ok || own.store != s {
		panic(fmt.Sprintf("memory: Expire of a lease of another store: %v", l))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	own.end()
}

// ExpireAll ends all leases now. Watches show the deletions of a service together.
func (s *Store) ExpireAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range maps.Clone(s.leases) {
		l.end()
	}
}

// Withhold makes the store say that an endpoint is not to be used, as an operator or a
// health check of a registry does. Watches yield the endpoint in [naming.Batch.Withheld],
// with reason and detail. The endpoint may be put, deleted and leased as before, and its
// service stays in the list of services. An endpoint that does not exist is withheld as
// soon as it is put.
//
// Only [Store.Unwithhold] ends it. New puts, other leases, deletions, expiry and
// [Store.Wipe] do not. A second call replaces reason and detail.
func (s *Store) Withhold(service, id string, reason naming.Reason, detail string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.withheld == nil {
		s.withheld = make(map[key]decision)
	}
	s.withheld[key{service, id}] = decision{made: true, reason: reason, detail: naming.SafeText(detail)}
	s.redecide(service, id)
}

// Unwithhold ends [Store.Withhold]: watches yield the endpoint in
// [naming.Batch.Put], if it exists.
func (s *Store) Unwithhold(service, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.withheld, key{service, id})
	s.redecide(service, id)
}

// redecide puts an entry again with the present decision. s.mu is held.
func (s *Store) redecide(service, id string) {
	e := s.get(service, id)
	if e == nil || e.withheld == s.withheld[key{service, id}] {
		return
	}
	again := *e
	s.set(service, id, &again)
}

// Lag makes every later watch show the present state and no changes of it, like a replica
// that has lost its leader. Running watches continue. Lag is the only method that breaks
// the contract: an older state of an endpoint may follow a newer one. [Store.CatchUp]
// ends it.
func (s *Store) Lag() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lagging = make(map[string]map[string]*entry)
	for name, svc := range s.services {
		s.lagging[name] = maps.Clone(svc.entries)
	}
}

// CatchUp ends [Store.Lag]. Watches that show the older state yield a snapshot of the
// present state.
func (s *Store) CatchUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lagging = nil
	for _, svc := range s.services {
		for w := range svc.watches {
			if w.old != nil {
				w.old = nil
				w.whole = true
				w.signal()
			}
		}
	}
}

// PutMalformed puts an entry that cannot be understood in the place of the endpoint id of
// a service, as another program may do. It replaces the endpoint. Every watch leaves the
// entry out and reports it to OnMalformed, with id as the key and err as the error. An Add
// or a Delete of the endpoint removes the entry.
func (s *Store) PutMalformed(service, id string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(service, id, &entry{endpoint: naming.Endpoint{ID: id}, bad: err})
}

// enter counts a call. It returns an error, or blocks, as the faults of the store say.
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

// enterBounded is enter for a sequence: in a silence it returns an error after
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

// await waits for a token in wake. In a silence it waits for Speak, and returns an error
// after SilenceBound.
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
