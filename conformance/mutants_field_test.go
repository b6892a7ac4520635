package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/naming-go/naming"
)

// withheldIn returns the withheld endpoints that a new watch of a service shows.
func (w *wrong) withheldIn(ctx context.Context, service string) []naming.Withheld {
	for b := range w.Store.Watch(ctx, service) {
		return b.Withheld
	}
	return nil
}

// isWithheld reports whether a new watch of a service shows an endpoint as withheld.
func (w *wrong) isWithheld(ctx context.Context, service, id string) bool {
	return slices.ContainsFunc(w.withheldIn(ctx, service), func(h naming.Withheld) bool { return h.Endpoint.ID == id })
}

// fieldMutants are wrong stores that earlier versions of the suite passed, and stores
// that are wrong about limits, the draining mark and withheld endpoints.
var fieldMutants = []claim{
	{"cuts metadata that is too large", "LimitsAreRefused", "got no error", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			changes = slices.Clone(changes)
			for i, c := range changes {
				if len(c.Endpoint.Metadata) > naming.MaxMetadata {
					changes[i].Endpoint.Metadata = nil
				}
			}
			return w.good(ctx, service, changes...)
		}
	}},
	{"removes characters that do not print", "LimitsAreRefused", "got no error", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			changes = slices.Clone(changes)
			for i, c := range changes {
				changes[i].Endpoint.Addr = strings.Map(func(r rune) rune {
					if r < ' ' || r == 0x202e {
						return -1
					}
					return r
				}, c.Endpoint.Addr)
			}
			return w.good(ctx, service, changes...)
		}
	}},
	{"stores the changes before one that is too large", "LimitsAreRefused", "after everything was refused", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			for _, c := range changes {
				if err := w.good(ctx, service, c); err != nil {
					return err
				}
			}
			return nil
		}
	}},
	{"cuts long IDs", "AtTheLimits", "an ID of MaxID", func(w *wrong) {
		w.changes(func(c naming.Change) naming.Change {
			c.Endpoint.ID = c.Endpoint.ID[:min(len(c.Endpoint.ID), 255)]
			return c
		})
	}},
	{"drops deeply nested metadata", "AtTheLimits", "nested MaxDepth deep", func(w *wrong) {
		w.changes(func(c naming.Change) naming.Change {
			if strings.HasPrefix(string(c.Endpoint.Metadata), strings.Repeat("[", 150)) {
				c.Endpoint.Metadata = nil
			}
			return c
		})
	}},
	{"stores a change that exceeds its own limit and refuses it", "AtTheLimits", "metadata of MaxMetadata", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			err := w.good(ctx, service, changes...)
			for _, c := range changes {
				if err == nil && len(c.Endpoint.Metadata) > 512<<10 {
					err = fmt.Errorf("%w: too large for this registry", naming.ErrInvalid)
				}
			}
			return err
		}
	}},
	{"drops the draining mark", "DrainingRoundTrip", "does not show the wanted state", func(w *wrong) {
		w.changes(func(c naming.Change) naming.Change {
			c.Endpoint.Draining = false
			return c
		})
	}},
	{"writes the draining mark into the metadata", "DrainingRoundTrip", "a state that the service does not have", func(w *wrong) {
		w.changes(func(c naming.Change) naming.Change {
			if c.Endpoint.Draining {
				c.Endpoint.Draining, c.Endpoint.Metadata = false, []byte(`{"draining":true}`)
			}
			return c
		})
	}},
	{"stores the changes before a mark that it refuses", "DrainingRoundTrip", "a state that the service does not have", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			for _, c := range changes {
				if c.Op == naming.Add && c.Endpoint.Draining {
					return fmt.Errorf("%w: no room for the mark", naming.ErrInvalid)
				}
				if err := w.good(ctx, service, c); err != nil {
					return err
				}
			}
			return nil
		}
	}},
	{"makes a request before it refuses a mark", "DrainingRoundTrip", "refused after 1 requests", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			for _, c := range changes {
				if c.Endpoint.Draining {
					w.list(ctx, service)
					return fmt.Errorf("%w: no room for the mark", naming.ErrInvalid)
				}
			}
			return w.good(ctx, service, changes...)
		}
	}},

	{"rounds a time to live down", "LeaseReturnsTTL", "which is less", func(w *wrong) {
		w.grant = func(ctx context.Context, ttl time.Duration) (naming.Lease, error) {
			return w.Store.Grant(ctx, max(ttl/time.Minute*time.Minute, 30*time.Second))
		}
	}},
	{"lets a long time to live overflow", "LeaseReturnsTTL", "has a TTL of", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			ttl := l.Lease.TTL()
			l.ttl = func() time.Duration { return (ttl + time.Second - 1) / time.Second * time.Second }
		})
	}},
	{"removes each put of a lease with a request", "RevokeCost", "Revoke made", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			l.revoke = func(ctx context.Context) error {
				for _, h := range l.all() {
					w.list(ctx, h.service)
				}
				return l.Lease.Revoke(ctx)
			}
		})
	}},
	{"renews each put of a lease with a request", "RevokeCost", "Renew made", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			l.renew = func(ctx context.Context) error {
				for _, h := range l.all() {
					w.list(ctx, h.service)
				}
				return l.Lease.Renew(ctx)
			}
		})
	}},

	{"gives a lease up when one renewal fails", "ShortOutage", "after an outage of", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			l.renew = func(ctx context.Context) error {
				err := l.Lease.Renew(ctx)
				if err != nil {
					w.Expire(l.Lease)
				}
				return err
			}
		})
	}},
	{"hangs in Renew while the registry is down", "ShortOutage", "did not return within", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			l.renew = func(ctx context.Context) error {
				err := l.Lease.Renew(ctx)
				if err != nil && !errors.Is(err, naming.ErrLeaseLost) {
					<-w.released
				}
				return err
			}
		})
	}},
	{"panics in Renew while the registry is down", "VerdictAfterOutage", "panicked", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			l.renew = func(ctx context.Context) error {
				err := l.Lease.Renew(ctx)
				if err != nil && !errors.Is(err, naming.ErrLeaseLost) {
					panic("no registry")
				}
				return err
			}
		})
	}},
	{"tries only once to remove expired endpoints", "ExpiresWhileDown", "expired while the registry was down", func(w *wrong) {
		w.grant = func(ctx context.Context, ttl time.Duration) (naming.Lease, error) {
			inner, err := w.Store.Grant(ctx, 24*time.Hour)
			if err != nil {
				return nil, err
			}
			time.AfterFunc(ttl, func() { inner.Revoke(context.Background()) })
			return &wrongLease{Lease: inner, ttl: func() time.Duration { return ttl }}, nil
		}
	}},
	{"tries only once to remove expired endpoints in a silence", "ExpiresInSilence", "expired while the registry was silent", func(w *wrong) {
		w.grant = func(ctx context.Context, ttl time.Duration) (naming.Lease, error) {
			inner, err := w.Store.Grant(ctx, 24*time.Hour)
			if err != nil {
				return nil, err
			}
			time.AfterFunc(ttl, func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				inner.Revoke(ctx)
			})
			return &wrongLease{Lease: inner, ttl: func() time.Duration { return ttl }}, nil
		}
	}},
	{"returns ErrLeaseLost in a silence", "VerdictAfterSilence", "Renew while the registry cannot be asked", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			l.renew = func(ctx context.Context) error {
				err := l.Lease.Renew(ctx)
				if errors.Is(err, context.DeadlineExceeded) {
					err = fmt.Errorf("%w: no answer", naming.ErrLeaseLost)
				}
				return err
			}
		})
	}},
	{"never returns ErrLeaseLost", "VerdictAfterOutage", "neither restores the lease nor returns", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			l.renew = func(ctx context.Context) error {
				err := l.Lease.Renew(ctx)
				if errors.Is(err, naming.ErrLeaseLost) {
					err = errors.New("connection closed")
				}
				return err
			}
		})
	}},
	{"returns ErrLeaseLost while the registry is down", "VerdictAfterOutage", "Renew while the registry cannot be asked", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			renewed := time.Now()
			l.renew = func(ctx context.Context) error {
				err := l.Lease.Renew(ctx)
				if err == nil {
					renewed = time.Now()
				} else if time.Since(renewed) > l.Lease.TTL() {
					err = naming.ErrLeaseLost
				}
				return err
			}
		})
	}},
	{"returns ErrLeaseLost for a lease that the registry still has", "VerdictAfterOutage", "after Renew has returned", func(w *wrong) {
		w.grant = func(ctx context.Context, ttl time.Duration) (naming.Lease, error) {
			inner, err := w.Store.Grant(ctx, 4*ttl)
			if err != nil {
				return nil, err
			}
			l, granted := &wrongLease{Lease: inner, ttl: func() time.Duration { return ttl }}, time.Now()
			l.renew = func(ctx context.Context) error {
				if err := w.Store.Apply(ctx, "anything"); err != nil {
					return err
				}
				if time.Since(granted) > ttl {
					return naming.ErrLeaseLost
				}
				return inner.Renew(ctx)
			}
			return l, nil
		}
	}},
	{"does not log in again after an outage", "VerdictAfterOutage", "permission denied", func(w *wrong) {
		failed := false
		fail := func(err error) error {
			if err != nil && !errors.Is(err, naming.ErrLeaseLost) {
				w.mu.Lock()
				failed = true
				w.mu.Unlock()
			}
			return err
		}
		w.grant = func(ctx context.Context, ttl time.Duration) (naming.Lease, error) {
			w.mu.Lock()
			denied := failed
			w.mu.Unlock()
			if denied {
				return nil, naming.ErrPermission
			}
			inner, err := w.Store.Grant(ctx, ttl)
			if err != nil {
				return nil, err
			}
			l := &wrongLease{Lease: inner}
			l.renew = func(ctx context.Context) error { return fail(inner.Renew(ctx)) }
			return l, nil
		}
	}},
	{"renews a lease from its own memory", "LostLease", "Renew has returned nil", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			end := time.Now().Add(l.Lease.TTL())
			l.renew = func(ctx context.Context) error {
				if time.Now().After(end) {
					return naming.ErrLeaseLost
				}
				end = time.Now().Add(l.Lease.TTL())
				l.Lease.Renew(ctx)
				return nil
			}
		})
	}},
	{"does not show that the registry lost a lease", "LostLease", "after the registry has lost a lease", func(w *wrong) {
		w.each(func(_ string, b naming.Batch) []naming.Batch {
			if len(b.Deleted) > 1 {
				return nil
			}
			return []naming.Batch{b}
		})
	}},
	{"leaves out the endpoints that it failed to read", "PartialRead", "during an interruption", func(w *wrong) {
		w.each(func(_ string, b naming.Batch) []naming.Batch {
			cuts := func() int {
				w.mu.Lock()
				defer w.mu.Unlock()
				return w.cuts
			}
			before := cuts()
			b.Put = slices.DeleteFunc(b.Put, func(e naming.Endpoint) bool {
				if len(e.Metadata) < 2048 {
					return false
				}
				time.Sleep(time.Millisecond) // a request of its own
				return cuts() != before
			})
			return []naming.Batch{b}
		})
	}},

	{"does not report an entry that exceeds a limit", "BeyondLimitsIsMalformed", "was not reported", func(w *wrong) {
		w.report = func(*naming.MalformedError) {}
	}},
	{"keeps the value that an entry beyond a limit replaced", "BeyondLimitsIsMalformed", "does not show the wanted state", func(w *wrong) {
		w.each(func(_ string, b naming.Batch) []naming.Batch {
			w.mu.Lock()
			defer w.mu.Unlock()
			b.Deleted = slices.DeleteFunc(b.Deleted, func(id string) bool { return w.bad[id] })
			return only(b)
		})
	}},

	{"shows a withheld endpoint as deleted", "WithheldIsShown", "of the withheld endpoints", func(w *wrong) {
		w.each(func(_ string, b naming.Batch) []naming.Batch {
			for _, h := range b.Withheld {
				if !b.Snapshot {
					b.Deleted = append(b.Deleted, h.Endpoint.ID)
				}
			}
			b.Withheld = nil
			return []naming.Batch{b}
		})
	}},
	{"shows a withheld endpoint as deleted first", "WithheldIsShown", "it shows [\"b\"] as deleted", func(w *wrong) {
		w.each(func(_ string, b naming.Batch) []naming.Batch {
			if b.Snapshot || len(b.Withheld) == 0 {
				return []naming.Batch{b}
			}
			return []naming.Batch{{Deleted: []string{b.Withheld[0].Endpoint.ID}}, b}
		})
	}},
	{"shows a withheld endpoint as usable too", "WithheldIsShown", "twice", func(w *wrong) {
		w.each(func(_ string, b naming.Batch) []naming.Batch {
			for _, h := range b.Withheld {
				b.Put = append(b.Put, h.Endpoint)
			}
			return []naming.Batch{b}
		})
	}},
	{"knows only one reason", "WithheldIsShown", "for the reason maintenance, want failed check", func(w *wrong) {
		w.each(func(_ string, b naming.Batch) []naming.Batch {
			for i := range b.Withheld {
				b.Withheld[i].Reason = naming.Maintenance
			}
			return []naming.Batch{b}
		})
	}},
	{"leaves withheld endpoints out of snapshots", "WithheldIsShown", "a new watch of", func(w *wrong) {
		w.each(func(_ string, b naming.Batch) []naming.Batch {
			if b.Snapshot {
				b.Withheld = nil
			}
			return []naming.Batch{b}
		})
	}},
	{"does not list a service whose endpoints are withheld", "WithheldIsShown", "whose only endpoint is withheld", func(w *wrong) {
		w.lists(func(names []string) []string {
			return slices.DeleteFunc(names, func(name string) bool {
				return len(w.withheldIn(context.Background(), name)) > 0 && len(w.list(context.Background(), name)) == 0
			})
		})
	}},
	{"ends maintenance when the endpoint is put", "WithheldIsKept", "as usable, which is withheld", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			for _, c := range changes {
				if c.Op == naming.Add {
					w.Unwithhold(service, c.Endpoint.ID)
				}
			}
			return w.good(ctx, service, changes...)
		}
	}},
	{"gives a lease up whose endpoint is withheld", "WithheldIsKept", "whose endpoint is withheld", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			l.renew = func(ctx context.Context) error {
				for _, h := range l.all() {
					if w.isWithheld(ctx, h.service, h.endpoint.ID) {
						return naming.ErrLeaseLost
					}
				}
				return l.Lease.Renew(ctx)
			}
		})
	}},
	{"treats a withheld ID as free", "WithheldIsKept", "withheld endpoint", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			changes = slices.Clone(changes)
			for i, c := range changes {
				changes[i].IfFree = c.IfFree && !w.isWithheld(ctx, service, c.Endpoint.ID)
			}
			return w.good(ctx, service, changes...)
		}
	}},
	{"shows a withheld endpoint as usable before it is deleted", "WithheldIsKept", "a withheld endpoint is deleted", func(w *wrong) {
		w.batches(func(string) func(naming.Batch) []naming.Batch {
			withheld := make(set)
			return func(b naming.Batch) []naming.Batch {
				var before naming.Batch
				for _, id := range b.Deleted {
					if e, ok := withheld[id]; ok {
						before.Put = append(before.Put, e)
					}
				}
				if b.Snapshot {
					clear(withheld)
				}
				withheld = withheld.without(b.Deleted...)
				for _, h := range b.Withheld {
					withheld.put(h.Endpoint)
				}
				return append(only(before), b)
			}
		})
	}},
	{"forgets maintenance with another lease", "WithheldOutlivesLease", "before the old one ends", func(w *wrong) {
		last := make(map[string]naming.Lease)
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			for _, c := range changes {
				w.mu.Lock()
				was, ok := last[c.Endpoint.ID]
				last[c.Endpoint.ID] = c.Lease
				w.mu.Unlock()
				if ok && was != c.Lease {
					w.Unwithhold(service, c.Endpoint.ID)
				}
			}
			return w.good(ctx, service, changes...)
		}
	}},
	{"forgets maintenance when a lease expires", "WithheldOutlivesLease", "after its lease has expired", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			time.AfterFunc(l.Lease.TTL()+time.Millisecond, func() {
				for _, h := range l.all() {
					w.Unwithhold(h.service, h.endpoint.ID)
				}
			})
		})
	}},

	{"checks whether an ID is free before a separate put", "IfFreeRace", "put", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			changes = slices.Clone(changes)
			list := w.list(ctx, service)
			for i, c := range changes {
				free := !slices.ContainsFunc(list, func(e naming.Endpoint) bool { return e.ID == c.Endpoint.ID })
				changes[i].IfFree = c.IfFree && !free
			}
			time.Sleep(time.Millisecond)
			return w.good(ctx, service, changes...)
		}
	}},
	{"makes a skipped Add later", "LoserStaysAway", "is back", func(w *wrong) {
		type waiting struct {
			service string
			change  naming.Change
		}
		var queue []waiting
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			err := w.good(ctx, service, changes...)
			for _, c := range changes {
				if c.IfFree && err == nil && !slices.ContainsFunc(w.list(ctx, service), c.Endpoint.Equal) {
					w.mu.Lock()
					queue = append(queue, waiting{service, c})
					w.mu.Unlock()
				}
			}
			return err
		}
		w.leases(func(l *wrongLease) {
			l.revoke = func(ctx context.Context) error {
				err := l.Lease.Revoke(ctx)
				w.mu.Lock()
				again := queue
				queue = nil
				w.mu.Unlock()
				time.AfterFunc(time.Second, func() {
					for _, q := range again {
						w.good(context.Background(), q.service, q.change)
					}
				})
				return err
			}
		})
	}},
	{"checks the lease before a separate put", "RevokeRace", "were revoked while endpoints were put", func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			changes = slices.Clone(changes)
			var holders []*wrongLease
			for i, c := range changes {
				if l, ok := c.Lease.(*wrongLease); ok {
					if err := l.Lease.Renew(ctx); err != nil {
						return err
					}
					holders = append(holders, l)
					changes[i].Lease = nil
				}
			}
			time.Sleep(time.Millisecond)
			err := w.Store.Apply(ctx, service, changes...)
			for i, l := range holders {
				l.mu.Lock()
				l.puts = append(l.puts, leasedPut{service, changes[i].Endpoint})
				l.mu.Unlock()
			}
			return err
		}
		w.leases(func(l *wrongLease) {
			l.revoke = func(ctx context.Context) error {
				err := l.Lease.Revoke(ctx)
				for _, h := range l.all() {
					w.Store.Apply(ctx, h.service, del(h.endpoint)...)
				}
				return err
			}
		})
	}},
	{"cannot revoke more than one request can carry", "ManyUnderOneLease", "buffer too small", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			l.revoke = func(ctx context.Context) error {
				if len(l.all()) > 5000 {
					return errors.New("buffer too small")
				}
				return l.Lease.Revoke(ctx)
			}
		})
	}},
	{"removes only a part of the expired endpoints", "ManyUnderOneLease", "was expired", func(w *wrong) {
		w.leases(func(l *wrongLease) {
			time.AfterFunc(l.Lease.TTL()-time.Millisecond, func() {
				for _, h := range l.all()[:min(len(l.all()), 50)] {
					w.Store.Apply(context.Background(), h.service, add(nil, h.endpoint)...)
				}
			})
		})
	}},
}

// The contract allows a store to leave out a put that changes nothing.
func TestQuietStore(t *testing.T) {
	fresh := func(w *wrong) {
		w.batches(func(string) func(naming.Batch) []naming.Batch {
			state, applyBatch := known()
			return func(b naming.Batch) []naming.Batch {
				before := clone(state)
				applyBatch(b)
				if !b.Snapshot {
					b.Put = slices.DeleteFunc(b.Put, func(e naming.Endpoint) bool {
						old, ok := before[e.ID]
						return ok && old.Equal(e)
					})
					for _, h := range b.Withheld {
						delete(state, h.Endpoint.ID)
					}
				}
				return only(b)
			}
		})
	}
	passes(t, fresh, nil)
}

// The contract allows a store whose format has no place for the draining mark.
func TestNoDrainingMark(t *testing.T) {
	noRoom := fmt.Errorf("%w: no room for the mark", naming.ErrInvalid)
	passes(t, func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			for _, c := range changes {
				if c.Op == naming.Add && c.Endpoint.Draining {
					return noRoom
				}
			}
			return w.good(ctx, service, changes...)
		}
		w.mapping = func(service string, e naming.Endpoint) (naming.Endpoint, error) {
			if e.Draining {
				return e, noRoom
			}
			return w.Store.Map(service, e)
		}
	}, nil)
}

// The contract allows a Store that is not a Mapper. The check says what is missing.
func TestNoMapper(t *testing.T) {
	h := harness(func(*wrong) {})
	inner := h.New
	h.New = func(t *testing.T) naming.Store { return struct{ naming.Store }{inner(t)} }
	h.Calls = nil
	err := h.run(t, find(t, "MapAgrees"))
	if !isSkip(err) || !strings.Contains(err.Error(), "naming.Mapper") {
		t.Errorf("got %v, want a skip that names naming.Mapper", err)
	}
}

// The contract allows a registry that rounds a time to live down to the longest that it
// supports.
func TestMaxTTL(t *testing.T) {
	const longest = time.Minute
	passes(t, func(w *wrong) {
		w.grant = func(ctx context.Context, ttl time.Duration) (naming.Lease, error) {
			return w.Store.Grant(ctx, min(ttl, longest))
		}
	}, func(h *Harness) { h.MaxTTL = longest })
}

// The contract allows a registry that needs a request for each endpoint to read a set.
func TestListCalls(t *testing.T) {
	h := harness(func(w *wrong) {
		w.watch = func(ctx context.Context, service string) watchSeq {
			return func(yield func(naming.Batch, error) bool) {
				for range w.list(ctx, service) {
					w.list(ctx, service)
				}
				w.Store.Watch(ctx, service)(yield)
			}
		}
	})
	h.ListCalls = func(n int) int { return 2 + n }
	if err := h.run(t, find(t, "ListIsOneRead")); err != nil {
		t.Error(err)
	}
	h.ListCalls = func(n int) int { return 1 + n }
	if err := h.run(t, find(t, "ListIsOneRead")); err == nil {
		t.Error("a store that makes a request more than it documents passed")
	}
}

// passes runs every check except ManyEndpoints against a store that is unusual and keeps
// the contract.
func passes(t *testing.T, how func(*wrong), change func(*Harness)) {
	for _, c := range checks {
		if c.name == "ManyEndpoints" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			h := harness(how)
			h.Many = 300
			if change != nil {
				change(h)
			}
			if err := h.run(t, c); err != nil {
				t.Error(c.failure(err))
			}
		})
	}
}
