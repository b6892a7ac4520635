package consul

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
)

// lease is a naming.Lease.
type lease struct {
	store *Store
	id    string
	ttl   time.Duration

	mu       sync.Mutex
	ended    bool
	revoking int // calls of Revoke in progress
	deadline time.Time
	held     map[string]*holding // by service ID, which no other lease has
}

// holding is a registration.
type holding struct {
	name         string // of the service, Consul's
	endpoint     naming.Endpoint
	gen          uint64
	registration *api.AgentServiceRegistration
	lease        *lease // nil: none

	// Guarded by lease.mu.
	sure  bool   // it was in the catalogue
	token string // that it was registered with
}

// Grant implements [naming.Store]. It takes ttl as it is. Consul knows nothing of
// leases, but is asked whether it has a leader: a registry that is down grants
// none.
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (naming.Lease, error) {
	if ttl <= 0 {
		return nil, fmt.Errorf("%w: time to live %v of a lease", naming.ErrInvalid, ttl)
	}
	if err := s.ping(ctx); err != nil {
		return nil, fmt.Errorf("consul: grant: %w", describe(ctx, err))
	}
	l := &lease{store: s, id: newID(), ttl: ttl, deadline: time.Now().Add(ttl), held: make(map[string]*holding)}
	s.mu.Lock()
	defer s.mu.Unlock()
	// Those that nobody renews or revokes any more are not kept for ever.
	maps.DeleteFunc(s.leases, func(_ string, l *lease) bool { return !l.live() })
	s.leases[l.id] = l
	return l, nil
}

// TTL implements [naming.Lease].
func (l *lease) TTL() time.Duration { return l.ttl }

func (l *lease) serviceID(name, id string) string { return serviceID(l.id, name, id) }

func (l *lease) live() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.isLive()
}

// isLive is live with l.mu held.
func (l *lease) isLive() bool { return !l.ended && time.Now().Before(l.deadline) }

// hold notes a registration that is about to be made, and reports false if the
// lease has ended.
func (l *lease) hold(h *holding) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isLive() || l.revoking > 0 {
		return false
	}
	if old := l.held[h.registration.ID]; old != nil {
		h.sure = old.sure
	}
	l.held[h.registration.ID] = h
	return true
}

// confirm notes that a registration is in the catalogue.
func (l *lease) confirm(h *holding) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h.sure = true
}

// isSure reports whether a registration, or one before it with the same ID, is
// known to have been in the catalogue.
func (l *lease) isSure(h *holding) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return h.sure
}

// drop notes that a registration is under the lease no more. If h is not nil, it
// is that one or none.
func (l *lease) drop(id string, h *holding) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h == nil || l.held[id] == h {
		delete(l.held, id)
	}
}

// dropHeld notes that a registration was removed, if it was one of this Store's.
func (s *Store) dropHeld(id string) {
	for _, l := range s.liveLeases() {
		l.drop(id, nil)
	}
}

// holds reports whether a lease of this Store has put a registration of that ID.
func (s *Store) holds(id string) bool {
	return slices.ContainsFunc(s.liveLeases(), func(l *lease) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.held[id] != nil
	})
}

func (s *Store) liveLeases() []*lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.leases))
}

func (l *lease) holdings() []*holding {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Values(l.held))
}

// Renew implements [naming.Lease].
func (l *lease) Renew(ctx context.Context) error {
	if err := l.renew(ctx); err != nil {
		return fmt.Errorf("consul: renew: %w", describe(ctx, err))
	}
	return nil
}

func (l *lease) renew(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !l.live() {
		return l.lost(ctx)
	}
	token, err := l.store.token(ctx)
	if err != nil {
		return err
	}
	all := l.holdings()
	var mu sync.Mutex
	var sure, lost int
	err = several(ctx, all, func(ctx context.Context, h *holding) error {
		kept, gone, err := l.renewOne(ctx, h, token)
		mu.Lock()
		defer mu.Unlock()
		if kept {
			sure++
		}
		if gone {
			lost++
		}
		return err
	})
	if err != nil {
		return err
	}
	if lost > 0 && sure == 0 {
		l.end()
		return fmt.Errorf("%w: the agent has forgotten all of its %d endpoints", naming.ErrLeaseLost, lost)
	}
	if len(all) == 0 {
		if err := l.store.ping(ctx); err != nil {
			return err
		}
	}
	if !l.prolong() {
		// It expired meanwhile, and Grant may have forgotten it.
		return l.lost(ctx)
	}
	return nil
}

// lost ends a renewal of a lease that has ended.
func (l *lease) lost(ctx context.Context) error {
	if err := l.bury(ctx); err != nil {
		return err
	}
	return naming.ErrLeaseLost
}

// prolong begins the time to live anew, and reports false if the lease has ended.
// The checks had their full time from before now on: when the lease has expired, its
// endpoints have gone.
func (l *lease) prolong() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isLive() {
		return false
	}
	l.deadline = time.Now().Add(l.ttl)
	return true
}

// renewOne makes the check of a registration pass, and reports whether it is there
// still, or was there and is not.
func (l *lease) renewOne(ctx context.Context, h *holding, token string) (kept, gone bool, err error) {
	err = l.store.pass(ctx, h.registration.ID)
	if unknown(err) {
		err = l.passAgain(ctx, h)
	}
	l.mu.Lock()
	held, wasSure, rotated := l.held[h.registration.ID] == h, h.sure, h.token != token
	l.mu.Unlock()
	switch {
	case !held: // removed or put again meanwhile
		return false, false, nil
	case unknown(err):
		l.drop(h.registration.ID, h)
		return false, wasSure, nil
	case err != nil:
		return false, false, err
	case rotated:
		err = l.reregister(ctx, h)
	}
	return true, false, err
}

// bury removes what is left of a lease that has ended, before it is called lost:
// an agent that was restarted meanwhile has begun the time of its checks anew, and
// what was asked in a silence arrives when it is over, and makes a check pass. A
// registration that an operator took out of use stays, and counts as gone: what the
// operator said holds for the next one.
func (l *lease) bury(ctx context.Context) error {
	all := l.holdings()
	if len(all) == 0 {
		return l.store.ping(ctx)
	}
	return several(ctx, all, func(ctx context.Context, h *holding) error {
		id := h.registration.ID
		out, err := l.store.inMaintenance(ctx, id)
		switch {
		case err != nil:
		case out:
			err = l.store.fail(ctx, id)
		default:
			err = l.store.deregister(ctx, id)
		}
		if err != nil && !unknown(err) {
			return err
		}
		l.drop(id, h)
		return nil
	})
}

// several calls f for all holdings, eight at a time, until one has failed. It returns
// the first error when all calls have returned.
func several(ctx context.Context, all []*holding, f func(context.Context, *holding) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan *holding, len(all))
	for _, h := range all {
		work <- h
	}
	close(work)
	var wg sync.WaitGroup
	for range min(len(all), 8) {
		wg.Go(func() {
			for h := range work {
				if ctx.Err() != nil {
					return
				}
				if err := f(ctx, h); err != nil {
					cancel(err) // only the first one counts
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// passAgain makes a check pass when nobody is about to put or remove it. If only
// the check was removed, it is made again: without one, the endpoint would be
// listed for ever.
func (l *lease) passAgain(ctx context.Context, h *holding) error {
	unlock, err := l.store.lock(ctx, h.name)
	if err != nil {
		return err
	}
	defer unlock()
	err = l.store.pass(ctx, h.registration.ID)
	if !unknown(err) {
		return err
	}
	if known, e := l.store.hasRegistered(ctx, h.registration.ID); e != nil {
		return e
	} else if !known {
		return err
	}
	return l.registerHeld(ctx, h)
}

// reregister registers with another token what is still held.
func (l *lease) reregister(ctx context.Context, h *holding) error {
	unlock, err := l.store.lock(ctx, h.name)
	if err != nil {
		return err
	}
	defer unlock()
	return l.registerHeld(ctx, h)
}

// registerHeld registers what is still held. The service is locked.
func (l *lease) registerHeld(ctx context.Context, h *holding) error {
	l.mu.Lock()
	held := l.held[h.registration.ID] == h && !l.ended
	l.mu.Unlock()
	if !held {
		return nil
	}
	return l.store.register(ctx, h)
}

// end notes that the lease has ended.
func (l *lease) end() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	delete(l.store.leases, l.id)
}

// Revoke implements [naming.Lease].
func (l *lease) Revoke(ctx context.Context) error {
	if err := l.revoke(ctx); err != nil {
		return fmt.Errorf("consul: revoke: %w", describe(ctx, err))
	}
	return nil
}

func (l *lease) revoke(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	l.revoking++ // nothing more is put under it
	l.mu.Unlock()
	err := l.removeAll(ctx)
	if err == nil {
		l.end()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.revoking--
	if !l.isLive() {
		return nil // what may be left is critical
	}
	return err
}

// removeAll deregisters what the lease holds.
func (l *lease) removeAll(ctx context.Context) error {
	all := l.holdings()
	if len(all) == 0 {
		return l.store.ping(ctx)
	}
	slices.SortFunc(all, func(a, b *holding) int { return strings.Compare(a.name, b.name) })
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].name == all[0].name {
			n++
		}
		if err := l.removeSome(ctx, all[:n]); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

// removeSome deregisters what the lease holds of one service.
func (l *lease) removeSome(ctx context.Context, some []*holding) error {
	unlock, err := l.store.lock(ctx, some[0].name)
	if err != nil {
		return err
	}
	defer unlock()
	for _, h := range some {
		id := h.registration.ID
		if err := l.store.deregister(ctx, id); err != nil && !unknown(err) {
			return err
		}
		l.drop(id, nil)
	}
	return nil
}
