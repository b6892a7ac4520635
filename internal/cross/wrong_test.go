package cross

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/internal/mutant"
)

// memories are three stores in memory, the last of which wrong may spoil. They
// are not in a bubble: the race detector crashes in one now and then when many
// timers are stopped (golang/go#78156).
func memories(wrong func(naming.Store) naming.Store) []backend {
	const ttl = 100 * time.Millisecond
	list := []backend{inMemory(ttl, patience), inMemory(ttl, patience), inMemory(ttl, patience)}
	list[1].name = "another"
	list[2].name = "wrong"
	list[2].open = func() (store, other naming.Store) { return wrong(new(memory.Store)), new(memory.Store) }
	return list
}

// TestMemory does histories to stores that do not differ: the comparison finds
// nothing where there is nothing.
func TestMemory(t *testing.T) {
	backends := memories(func(s naming.Store) naming.Store { return s })
	seeds := 4
	if mutant.Full() {
		seeds = 100
	}
	for name, m := range map[string]mode{"paced": paced, "full speed": fullSpeed} {
		t.Run(name, func(t *testing.T) {
			each(t, seeds, 4, func(seed uint64) {
				h := generate(seed)
				if _, err := run(t.Context(), m, h, backends); err != nil {
					report(t, m, h, backends, err)
				}
			})
		})
	}
}

// TestWrong does histories to two right stores and a wrong one, and finds it out
// by what is wrong with it.
func TestWrong(t *testing.T) {
	for i, w := range []struct {
		name string
		make func(naming.Store) naming.Store
		find string // what the failure says, when paced
		fast bool   // it shows at full speed too
	}{
		{"drops an update", wrongApply(func(now set, c naming.Change) (naming.Change, bool) {
			old, there := now[c.Endpoint.ID]
			return c, c.Op == naming.Delete || c.Lease != nil || !there || old.Addr != c.Endpoint.Addr
		}), "list of wrong", true},
		{"ignores IfFree", wrongApply(func(_ set, c naming.Change) (naming.Change, bool) {
			c.IfFree, c.Reclaim = false, false
			return c, true
		}), "list of wrong", true},
		{"never puts what is to be free", wrongApply(func(_ set, c naming.Change) (naming.Change, bool) {
			return c, !c.IfFree
		}), "list of wrong", true},
		{"deletes what is under another lease", wrongApply(func(_ set, c naming.Change) (naming.Change, bool) {
			if c.Op == naming.Delete {
				c.Lease = nil
			}
			return c, true
		}), "list of wrong", true},
		{"leaves a state that is there under its lease", wrongApply(func(now set, c naming.Change) (naming.Change, bool) {
			old, there := now[c.Endpoint.ID]
			return c, c.Op == naming.Delete || !there || !old.Equal(c.Endpoint)
		}), "(list|expiry) of wrong", true},
		{"loses a metadata member", wrongApply(metadata(func(m any) any {
			if o, ok := m.(map[string]any); ok {
				delete(o, "zone")
			}
			return m
		})), "list of wrong", true},
		{"spells numbers anew", wrongApply(func(_ set, c naming.Change) (naming.Change, bool) {
			var v any
			if json.Unmarshal(c.Endpoint.Metadata, &v) == nil {
				c.Endpoint.Metadata, _ = json.Marshal(v)
			}
			return c, true
		}), "list of wrong", true},
		{"takes an empty object for none", wrongApply(metadata(func(m any) any {
			if o, ok := m.(map[string]any); ok && len(o) == 0 {
				return nil
			}
			return m
		})), "list of wrong", true},
		{"folds the case of IDs", wrongApply(func(_ set, c naming.Change) (naming.Change, bool) {
			c.Endpoint.ID = strings.ToLower(c.Endpoint.ID)
			return c, true
		}), "list of wrong", true},
		{"loses the brackets of an address", wrongApply(func(_ set, c naming.Change) (naming.Change, bool) {
			c.Endpoint.Addr = strings.NewReplacer("[", "", "]", "").Replace(c.Endpoint.Addr)
			return c, true
		}), "list of wrong", true},
		{"does what it can of a batch", func(s naming.Store) naming.Store {
			w := newWrong(s)
			w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
				if _, err := naming.Normalize(service, changes); err != nil {
					return err
				}
				for _, c := range changes {
					if err := s.Apply(ctx, service, c); err != nil {
						return err
					}
				}
				return nil
			}
			return w
		}, "(list|events) of wrong", true},
		{"does not say that a lease was lost", func(s naming.Store) naming.Store {
			w := newWrong(s)
			w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
				err := s.Apply(ctx, service, changes...)
				if errors.Is(err, naming.ErrLeaseLost) {
					err = fmt.Errorf("%w: lease", naming.ErrInvalid)
				}
				return err
			}
			return w
		}, "of wrong: naming: invalid argument: lease", true},
		{"does not look at the context", func(s naming.Store) naming.Store {
			w := newWrong(s)
			w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
				return s.Apply(context.WithoutCancel(ctx), service, changes...)
			}
			return w
		}, "context canceled; of wrong: <nil>", true},
		{"renews a lease that has ended", wrongLeases(func(_ *wrong, l *wrongLease) {
			l.renew = func(ctx context.Context) error { _ = l.Lease.Renew(ctx); return nil }
		}), "of wrong: <nil>", true},
		{"leaves what was under a lease", wrongLeases(func(_ *wrong, l *wrongLease) {
			l.revoke = func(context.Context) error { return nil }
		}), "list of wrong", true},
		{"removes with a lease what was put again since", wrongLeases(func(w *wrong, l *wrongLease) {
			l.revoke = func(ctx context.Context) error {
				for _, p := range l.puts {
					if err := w.Store.Apply(ctx, p.service, naming.Change{Op: naming.Delete, Endpoint: p.Endpoint}); err != nil {
						return err
					}
				}
				return l.Lease.Revoke(ctx)
			}
		}), "list of wrong", true},
		{"forgets that a lease expires", func(s naming.Store) naming.Store {
			w := newWrong(s)
			w.ttl = time.Hour
			return w
		}, "the expiry of wrong", true},
		{"tells of an update as a deletion and an addition", wrongWatch(func(known set, b naming.Batch) []naming.Batch {
			first := naming.Batch{}
			for _, e := range b.Put {
				if _, there := known[e.ID]; there {
					first.Deleted = append(first.Deleted, e.ID)
				}
			}
			return []naming.Batch{first, b}
		}), "events of wrong", false},
		{"does not tell of a deletion", wrongWatch(func(_ set, b naming.Batch) []naming.Batch {
			b.Deleted = nil
			return []naming.Batch{b}
		}), "(watch|registration|expiry) of wrong", true},
		{"tears a batch apart", wrongWatch(func(_ set, b naming.Batch) (list []naming.Batch) {
			for _, id := range b.Deleted {
				list = append(list, naming.Batch{Deleted: []string{id}})
			}
			for _, e := range b.Put {
				list = append(list, naming.Batch{Put: []naming.Endpoint{e}})
			}
			return list
		}), "in .* batches", false},
		{"tells of a state that never was", wrongWatch(func(_ set, b naming.Batch) []naming.Batch {
			first := naming.Batch{}
			for _, e := range b.Put {
				e.Metadata = nil
				first.Put = append(first.Put, e)
			}
			return []naming.Batch{first, b}
		}), "events of wrong", false},
		{"lists a service that has no endpoints", func(s naming.Store) naming.Store {
			w := newWrong(s)
			ever := make(map[string]bool)
			w.names = func(names []string) []string {
				for _, name := range names {
					ever[name] = true
				}
				return slices.Sorted(maps.Keys(ever))
			}
			return w
		}, "services of wrong", false},
		{"mixes services up whose names fold", func(s naming.Store) naming.Store {
			w := newWrong(s)
			w.name = func(name string) string { return strings.TrimRight(strings.ToLower(name), "/") }
			return w
		}, "(services|list|watch|registration|watches) of wrong", true},
	} {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			modes := map[string]mode{"paced": paced}
			if w.fast && (i < 1 || mutant.Full()) {
				modes["full speed"] = fullSpeed
			}
			for name, m := range modes {
				caught := false
				// Not every history has what it takes.
				const most = 60
				for seed := uint64(1); seed <= most && !caught; seed++ {
					h := generate(seed)
					backends := memories(w.make)
					backends[2].patience = 5 * time.Second // it may wait in vain
					_, err := run(t.Context(), m, h, backends)
					if err == nil {
						continue
					}
					caught = true
					short, err := cut(t.Context(), m, h, backends, err)
					t.Logf("%s, seed %d, the first %d steps of %d: %.300v", name, seed, len(short.steps), len(h.steps), err)
					find := w.find
					if name != "paced" {
						find = "of wrong" // it may show in many ways
					}
					if !regexp.MustCompile(find).MatchString(err.Error()) {
						t.Errorf("%s: not found out by %q: %v", name, find, err)
					}
				}
				if !caught {
					t.Errorf("%s: a store that %s passes %d histories", name, w.name, most)
				}
			}
		})
	}
}

// wrong is a store with something wrong.
type wrong struct {
	naming.Store
	name  func(service string) string
	apply func(ctx context.Context, service string, changes []naming.Change) error
	watch func(known set, b naming.Batch) []naming.Batch
	names func([]string) []string
	ttl   time.Duration // at least
	lease func(*wrongLease)
}

func newWrong(s naming.Store) *wrong {
	w := &wrong{Store: s}
	w.name = func(service string) string { return service }
	w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
		return s.Apply(ctx, service, changes...)
	}
	w.watch = func(_ set, b naming.Batch) []naming.Batch { return []naming.Batch{b} }
	w.names = func(names []string) []string { return names }
	w.lease = func(*wrongLease) {}
	return w
}

// wrongApply makes a store that changes changes, of endpoints as they are now, or
// leaves them out.
func wrongApply(f func(now set, c naming.Change) (naming.Change, bool)) func(naming.Store) naming.Store {
	return func(s naming.Store) naming.Store {
		w := newWrong(s)
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			normal, err := naming.Normalize(service, changes)
			if err != nil {
				return err
			}
			var now set
			for b, err := range s.Watch(ctx, service) {
				if err != nil {
					return err
				}
				now.take(b)
				break
			}
			var do []naming.Change
			for _, c := range normal {
				if c, ok := f(now, c); ok {
					do = append(do, c)
				}
			}
			return s.Apply(ctx, service, do...)
		}
		return w
	}
}

// metadata makes a function for wrongApply that changes metadata.
func metadata(f func(any) any) func(set, naming.Change) (naming.Change, bool) {
	return func(_ set, c naming.Change) (naming.Change, bool) {
		d := json.NewDecoder(strings.NewReader(string(c.Endpoint.Metadata)))
		d.UseNumber()
		var v any
		if d.Decode(&v) == nil {
			c.Endpoint.Metadata, _ = json.Marshal(f(v))
		}
		return c, true
	}
}

// wrongWatch makes a store whose watches tell something else than the batches
// that come after the first.
func wrongWatch(f func(known set, b naming.Batch) []naming.Batch) func(naming.Store) naming.Store {
	return func(s naming.Store) naming.Store {
		w := newWrong(s)
		w.watch = f
		return w
	}
}

// wrongLeases makes a store with other leases.
func wrongLeases(f func(*wrong, *wrongLease)) func(naming.Store) naming.Store {
	return func(s naming.Store) naming.Store {
		w := newWrong(s)
		w.lease = func(l *wrongLease) { f(w, l) }
		return w
	}
}

func (w *wrong) Apply(ctx context.Context, service string, changes ...naming.Change) error {
	changes = slices.Clone(changes)
	for i, c := range changes {
		if l, ok := c.Lease.(*wrongLease); ok {
			changes[i].Lease = l.Lease
			if c.Op == naming.Add {
				l.note(w.name(service), c.Endpoint)
			}
		}
	}
	if service != "" {
		service = w.name(service)
	}
	return w.apply(ctx, service, changes)
}

func (w *wrong) Watch(ctx context.Context, service string) iter.Seq2[naming.Batch, error] {
	return func(yield func(naming.Batch, error) bool) {
		var known set
		for b, err := range w.Store.Watch(ctx, w.name(service)) {
			list := []naming.Batch{b}
			if err == nil && !b.Snapshot {
				list = w.watch(known, b)
			}
			for _, b := range list {
				if err == nil && !b.Snapshot && len(b.Put)+len(b.Deleted) == 0 {
					continue
				}
				known.take(b)
				if !yield(b, err) {
					return
				}
			}
		}
	}
}

func (w *wrong) Services(ctx context.Context) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		for names, err := range w.Store.Services(ctx) {
			if !yield(w.names(names), err) {
				return
			}
		}
	}
}

func (w *wrong) Grant(ctx context.Context, ttl time.Duration) (naming.Lease, error) {
	if ttl > 0 {
		ttl = max(ttl, w.ttl)
	}
	l, err := w.Store.Grant(ctx, ttl)
	if err != nil {
		return nil, err
	}
	wl := &wrongLease{Lease: l, renew: l.Renew, revoke: l.Revoke}
	w.lease(wl)
	return wl, nil
}

// wrongLease is a lease of a wrong store.
type wrongLease struct {
	naming.Lease
	renew, revoke func(context.Context) error

	mu   sync.Mutex
	puts []wrongPut // under it, and maybe under another since
}

type wrongPut struct {
	service string
	naming.Endpoint
}

func (l *wrongLease) note(service string, e naming.Endpoint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.puts = append(l.puts, wrongPut{service, e})
}

func (l *wrongLease) Renew(ctx context.Context) error  { return l.renew(ctx) }
func (l *wrongLease) Revoke(ctx context.Context) error { return l.revoke(ctx) }
