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
	held     map[string]*holding // by service ID
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
	rest, ok := strings.CutPrefix(id, reserved)
	if !ok {
		return
	}
	lease, _, _ := strings.Cut(rest, "-")
	s.mu.Lock()
	l := s.leases[lease]
	s.mu.Unlock()
	if l != nil {
		l.drop(id, nil)
	}
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
		return naming.ErrLeaseLost
	}
	token, err := l.store.token(ctx)
	if err != nil {
		return err
	}
	var asked, sure, lost int
	for _, h := range l.holdings() {
		asked++
		err := l.store.pass(ctx, h.registration.ID)
		if unknown(err) {
			err = l.passAgain(ctx, h)
		}
		l.mu.Lock()
		held, wasSure, rotated := l.held[h.registration.ID] == h, h.sure, h.token != token
		l.mu.Unlock()
		switch {
		case !held: // removed or put again meanwhile
		case unknown(err):
			l.drop(h.registration.ID, h)
			if wasSure {
				lost++
			}
		case err != nil:
			return err
		default:
			sure++
			if rotated {
				if err := l.reregister(ctx, h); err != nil {
					return err
				}
			}
		}
	}
	if lost > 0 && sure == 0 {
		l.end()
		return fmt.Errorf("%w: the agent has forgotten all of its %d endpoints", naming.ErrLeaseLost, lost)
	}
	if asked == 0 {
		if err := l.store.ping(ctx); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return naming.ErrLeaseLost
	}
	// The checks have their full time from before now on: when the lease has
	// expired, its endpoints have gone.
	l.deadline = time.Now().Add(l.ttl)
	return nil
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
