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

// memories returns three backends in memory. wrong may put a defect into the stores of the
// last one. They do not run in a bubble: the race detector sometimes crashes there when many
// timers are stopped (golang/go#78156).
func memories(wrong func(naming.Store) naming.Store) []backend {
	const ttl = 100 * time.Millisecond
	list := []backend{inMemory(ttl, patience), inMemory(ttl, patience), inMemory(ttl, patience)}
	list[1].name = "another"
	list[2].name = "wrong"
	list[2].open = func() (store, other naming.Store) { return wrong(new(memory.Store)), new(memory.Store) }
	return list
}

// TestMemory applies histories to stores that do not differ. The comparison finds no
// difference.
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

// wrongStore makes a store with a defect from a store without one.
type wrongStore struct {
	name string
	make func(naming.Store) naming.Store
	find string // a regular expression for the failure in the mode paced
	fast bool   // full speed finds the defect too
}

var wrongStores = []wrongStore{
	{"drops an update", wrongApply(func(now set, c naming.Change) (naming.Change, bool) {
		old, there := now[c.Endpoint.ID]
		return c, c.Op == naming.Delete || c.Lease != nil || !there || old.Addr != c.Endpoint.Addr
	}), "list of wrong", true},
	{"ignores IfFree", wrongApply(func(_ set, c naming.Change) (naming.Change, bool) {
		c.IfFree, c.Reclaim = false, false
		return c, true
	}), "list of wrong", true},
	{"skips every Add with IfFree", wrongApply(func(_ set, c naming.Change) (naming.Change, bool) {
		return c, !c.IfFree
	}), "list of wrong", true},
	{"deletes an endpoint that is under another lease", wrongApply(func(_ set, c naming.Change) (naming.Change, bool) {
		if c.Op == naming.Delete {
			c.Lease = nil
		}
		return c, true
	}), "list of wrong", true},
	{"skips an Add that changes only the lease", wrongApply(func(now set, c naming.Change) (naming.Change, bool) {
		old, there := now[c.Endpoint.ID]
		return c, c.Op == naming.Delete || !there || !old.Equal(c.Endpoint)
	}), "(list|expiry) of wrong", true},
	{"loses a metadata member", wrongApply(metadata(func(m any) any {
		if o, ok := m.(map[string]any); ok {
			delete(o, "zone")
		}
		return m
	})), "list of wrong", true},
	{"decodes numbers as float64", wrongApply(func(_ set, c naming.Change) (naming.Change, bool) {
		var v any
		if json.Unmarshal(c.Endpoint.Metadata, &v) == nil {
			c.Endpoint.Metadata, _ = json.Marshal(v)
		}
		return c, true
	}), "list of wrong", true},
	{"treats an empty object as none", wrongApply(metadata(func(m any) any {
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
	{"makes the changes of a batch one by one", func(s naming.Store) naming.Store {
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
	{"returns ErrInvalid for a lost lease", func(s naming.Store) naming.Store {
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
	{"ignores the context", func(s naming.Store) naming.Store {
		w := newWrong(s)
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			return s.Apply(context.WithoutCancel(ctx), service, changes...)
		}
		return w
	}, "context canceled; of wrong: <nil>", true},
	{"returns nil when it renews a lease that has ended", wrongLeases(func(_ *wrong, l *wrongLease) {
		l.renew = func(ctx context.Context) error { _ = l.Lease.Renew(ctx); return nil }
	}), "of wrong: <nil>", true},
	{"does nothing to revoke", wrongLeases(func(_ *wrong, l *wrongLease) {
		l.revoke = func(context.Context) error { return nil }
	}), "list of wrong", true},
	{"removes every endpoint that was ever under a lease", wrongLeases(func(w *wrong, l *wrongLease) {
		l.revoke = func(ctx context.Context) error {
			for _, p := range l.puts {
				if err := w.Store.Apply(ctx, p.service, naming.Change{Op: naming.Delete, Endpoint: p.Endpoint}); err != nil {
					return err
				}
			}
			return l.Lease.Revoke(ctx)
		}
	}), "list of wrong", true},
	{"lets no lease expire", func(s naming.Store) naming.Store {
		w := newWrong(s)
		w.ttl = time.Hour
		return w
	}, "the expiry of wrong", true},
	{"shows an update as a deletion and an addition", wrongWatch(func(known set, b naming.Batch) []naming.Batch {
		first := naming.Batch{}
		for _, e := range b.Put {
			if _, there := known[e.ID]; there {
				first.Deleted = append(first.Deleted, e.ID)
			}
		}
		return []naming.Batch{first, b}
	}), "events of wrong", false},
	{"does not show deletions", wrongWatch(func(_ set, b naming.Batch) []naming.Batch {
		b.Deleted = nil
		return []naming.Batch{b}
	}), "(watch|registration|expiry) of wrong", true},
	{"splits batches", wrongWatch(func(_ set, b naming.Batch) (list []naming.Batch) {
		for _, id := range b.Deleted {
			list = append(list, naming.Batch{Deleted: []string{id}})
		}
		for _, e := range b.Put {
			list = append(list, naming.Batch{Put: []naming.Endpoint{e}})
		}
		return list
	}), "in .* batches", false},
	{"shows a state that the registry never had", wrongWatch(func(_ set, b naming.Batch) []naming.Batch {
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
	{"confuses services whose names fold", func(s naming.Store) naming.Store {
		w := newWrong(s)
		w.name = func(name string) string { return strings.TrimRight(strings.ToLower(name), "/") }
		return w
	}, "(services|list|watch|registration|watches) of wrong", true},
}

// TestWrong applies histories to two right stores and a wrong one, and finds the defect.
func TestWrong(t *testing.T) {
	for i, w := range wrongStores {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			w.findPaced(t)
			if w.fast && (i < 1 || mutant.Full()) {
				w.findFast(t)
			}
		})
	}
}

func (w *wrongStore) findPaced(t *testing.T) { w.findIn(t, "paced", paced, w.find) }

// findFast accepts any failure of the wrong store: at full speed a defect shows in many
// ways.
func (w *wrongStore) findFast(t *testing.T) { w.findIn(t, "full speed", fullSpeed, "of wrong") }

// findIn applies histories until one finds the defect. Not every history has the operations
// that a defect needs.
func (w *wrongStore) findIn(t *testing.T, name string, m mode, find string) {
	t.Helper()
	const most = 60
	for seed := uint64(1); seed <= most; seed++ {
		h := generate(seed)
		backends := memories(w.make)
		backends[2].patience = 5 * time.Second // the readers may wait in vain
		_, err := run(t.Context(), m, h, backends)
		if err == nil {
			continue
		}
		short, err := shorten(t.Context(), m, h, backends, err)
		t.Logf("%s, seed %d, the first %d operations of %d: %.300v", name, seed, len(short.operations), len(h.operations), err)
		if !regexp.MustCompile(find).MatchString(err.Error()) {
			t.Errorf("%s: found by another difference than %q: %v", name, find, err)
		}
		return
	}
	t.Errorf("%s: a store that %s passes %d histories", name, w.name, most)
}

// wrong is a store with a defect.
type wrong struct {
	naming.Store
	name  func(service string) string
	apply func(ctx context.Context, service string, changes []naming.Change) error
	watch func(known set, b naming.Batch) []naming.Batch
	names func([]string) []string
	ttl   time.Duration // the minimum of Grant
	lease func(*wrongLease)
}

// newWrong returns a wrong store that has no defect yet.
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

// wrongApply makes a store whose Apply replaces each change by the result of f, or leaves
// it out. now is the state of the service.
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
				now.applyBatch(b)
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

// metadata returns a function for wrongApply that replaces metadata.
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

// wrongWatch makes a store whose watches replace each batch after the first by those that
// f returns.
func wrongWatch(f func(known set, b naming.Batch) []naming.Batch) func(naming.Store) naming.Store {
	return func(s naming.Store) naming.Store {
		w := newWrong(s)
		w.watch = f
		return w
	}
}

// wrongLeases makes a store whose leases have a defect.
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
				l.record(w.name(service), c.Endpoint)
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
				known.applyBatch(b)
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
	puts []wrongPut // guarded by mu: every Add under the lease
}

type wrongPut struct {
	service string
	naming.Endpoint
}

// record appends an Add under the lease.
func (l *wrongLease) record(service string, e naming.Endpoint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.puts = append(l.puts, wrongPut{service, e})
}

func (l *wrongLease) Renew(ctx context.Context) error  { return l.renew(ctx) }
func (l *wrongLease) Revoke(ctx context.Context) error { return l.revoke(ctx) }
