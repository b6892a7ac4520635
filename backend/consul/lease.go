package consul

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul/internal/wire"
)

// lease is a naming.Lease. Consul knows nothing of it.
type lease struct {
	store *Store
	id    string
	ttl   time.Duration

	// mu guards the fields below, and those of the registrations that say so.
	mu            sync.Mutex
	ended         bool
	revoking      int // calls of Revoke in progress
	deadline      time.Time
	registrations map[string]*registration // by service ID, which no other lease has
}

// leaseSet are the leases of a Store that may not have ended. The zero value is ready
// to use.
type leaseSet struct {
	mu   sync.Mutex
	byID map[string]*lease
}

// add adds a lease, and removes those that have ended: nobody may renew or revoke them
// again.
func (s *leaseSet) add(l *lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.byID, func(_ string, l *lease) bool { return !l.live() })
	if s.byID == nil {
		s.byID = make(map[string]*lease)
	}
	s.byID[l.id] = l
}

func (s *leaseSet) remove(l *lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, l.id)
}

func (s *leaseSet) all() []*lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.byID))
}

// has reports whether a registration with this service ID is under one of the leases.
func (s *leaseSet) has(serviceID string) bool {
	return slices.ContainsFunc(s.all(), func(l *lease) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.registrations[serviceID] != nil
	})
}

// forget notes that the registration with this service ID was removed, if it was under
// one of the leases.
func (s *leaseSet) forget(serviceID string) {
	for _, l := range s.all() {
		l.forget(serviceID)
	}
}

// Grant implements [naming.Store]. It takes ttl as it is. It asks Consul whether there
// is a leader, so that a registry that is down grants no leases.
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (naming.Lease, error) {
	if ttl <= 0 {
		return nil, fmt.Errorf("%w: time to live %v of a lease", naming.ErrInvalid, ttl)
	}
	if err := s.ping(ctx); err != nil {
		return nil, fmt.Errorf("consul: grant: %w", describe(ctx, err))
	}
	l := &lease{store: s, id: newLeaseID(), ttl: ttl, deadline: time.Now().Add(ttl), registrations: make(map[string]*registration)}
	s.leases.add(l)
	return l, nil
}

// newLeaseID returns an ID that no other lease has.
func newLeaseID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}

// TTL implements [naming.Lease].
func (l *lease) TTL() time.Duration { return l.ttl }

func (l *lease) serviceID(name, id string) string { return wire.ServiceID(l.id, name, id) }

func (l *lease) live() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.liveLocked()
}

// liveLocked is live for a caller that holds l.mu.
func (l *lease) liveLocked() bool { return !l.ended && time.Now().Before(l.deadline) }

// addRegistration adds a registration that is about to be made. It reports false if
// the lease has ended.
func (l *lease) addRegistration(r *registration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.liveLocked() || l.revoking > 0 {
		return false
	}
	if old := l.registrations[r.service.ID]; old != nil {
		r.listed = old.listed
	}
	l.registrations[r.service.ID] = r
	return true
}

// markListed notes that a registration is in the catalogue.
func (l *lease) markListed(r *registration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.listed = true
}

// wasListed reports whether a registration, or an earlier one with its service ID, is
// known to have been in the catalogue.
func (l *lease) wasListed(r *registration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return r.listed
}

// noteToken notes the token that a registration was made with.
func (l *lease) noteToken(r *registration, token string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.token = token
}

// forget removes the registration with this service ID from the lease.
func (l *lease) forget(serviceID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.registrations, serviceID)
}

// forgetExactly is forget, unless the registration with r's service ID is not r.
func (l *lease) forgetExactly(r *registration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.registrations[r.service.ID] == r {
		delete(l.registrations, r.service.ID)
	}
}

// all returns the registrations under the lease.
func (l *lease) all() []*registration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Values(l.registrations))
}

// end notes that the lease has ended.
func (l *lease) end() {
	l.setEnded()
	l.store.leases.remove(l)
}

func (l *lease) setEnded() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
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
	l.addRevoking(1) // from here on nothing is put under the lease
	defer l.addRevoking(-1)
	err := l.removeAll(ctx)
	if err == nil {
		l.end()
	}
	if !l.live() {
		return nil // the checks of registrations that are left are critical
	}
	return err
}

func (l *lease) addRevoking(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.revoking += n
}

// removeAll deregisters what is under the lease, service by service.
func (l *lease) removeAll(ctx context.Context) error {
	all := l.all()
	if len(all) == 0 {
		return l.store.ping(ctx)
	}
	slices.SortFunc(all, func(a, b *registration) int { return strings.Compare(a.name, b.name) })
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].name == all[0].name {
			n++
		}
		if err := l.removeOfService(ctx, all[:n]); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

// removeOfService deregisters registrations of one service.
func (l *lease) removeOfService(ctx context.Context, rs []*registration) error {
	release, err := l.store.locks.acquire(ctx, rs[0].name)
	if err != nil {
		return err
	}
	defer release()
	for _, r := range rs {
		id := r.service.ID
		if err := l.store.deregister(ctx, id); err != nil && !unknown(err) {
			return err
		}
		l.forget(id)
	}
	return nil
}
