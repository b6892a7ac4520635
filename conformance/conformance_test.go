package conformance

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
)

// The store without a defect passes every check, each time.
func TestGoodStore(t *testing.T) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			h, n := harness(nil), runs()
			if c.name == "ManyEndpoints" || c.name == "ManyUnderOneLease" {
				n = min(n, 5)
			}
			for i := range n {
				h.Seed = uint64(i + 1)
				if err := h.run(t, c); err != nil {
					t.Fatalf("run %d: %s", i, c.failure(err))
				}
			}
		})
	}
}

// Outside a bubble the checks have real time, as they have on a real server.
// TestCheck runs those there that need no hooks.
func TestHooksInRealTime(t *testing.T) {
	h := harness(nil)
	h.Bubble = false
	h.Quiet = 20 * time.Millisecond
	h.TTL = 500 * time.Millisecond
	for _, c := range checks {
		if len(c.needs) == 0 || slices.Contains(c.needs, "Silence") { // its bound is long, and real here
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			if err := h.run(t, c); err != nil {
				t.Error(c.failure(err))
			}
		})
	}
}

// notAtomic makes changes one by one, in an order of its own.
func notAtomic(order func([]naming.Change)) func(*wrong) {
	return func(w *wrong) {
		w.apply = func(ctx context.Context, service string, changes []naming.Change) error {
			changes, err := naming.Normalize(service, changes)
			if err != nil {
				return err
			}
			order(changes)
			for _, c := range changes {
				if err := w.good(ctx, service, c); err != nil {
					return err
				}
				time.Sleep(time.Millisecond)
			}
			return nil
		}
	}
}

func TestNotAtomic(t *testing.T) {
	for _, c := range checks {
		if c.name == "ManyEndpoints" || c.name == "ManyUnderOneLease" {
			continue // nothing new for what it costs
		}
		t.Run(c.name, func(t *testing.T) {
			h := harness(notAtomic(func([]naming.Change) {}))
			h.NotAtomic = "changes are made one by one"
			if err := h.run(t, c); err != nil {
				t.Error(c.failure(err))
			}
		})
	}
	t.Run("out of order", func(t *testing.T) {
		h := harness(notAtomic(slices.Reverse[[]naming.Change]))
		h.NotAtomic = "changes are made one by one"
		if err := h.run(t, find(t, "AtomicBatch")); err == nil {
			t.Error("a store that makes changes out of order passed")
		}
	})
}

// A goroutine that never ends is a failure of one check, and not of the process.
func TestLeftGoroutine(t *testing.T) {
	h := harness(func(w *wrong) {
		w.leases(func(l *wrongLease) {
			l.revoke = func(ctx context.Context) error {
				go func() { select {} }()
				return l.Lease.Revoke(ctx)
			}
		})
	})
	err := h.run(t, find(t, "RevokeRemoves"))
	if err == nil || !strings.Contains(err.Error(), "goroutines were left behind") {
		t.Errorf("got error %v, want one about goroutines", err)
	}
}

// A check counts the goroutines that its store starts, and not those that other tests of
// the process start at the same time.
func TestOthersGoroutines(t *testing.T) {
	for _, own := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			end := make(chan struct{})
			var wg sync.WaitGroup
			defer wg.Wait()
			defer close(end)
			start := func() { wg.Go(func() { <-end }) }
			started := make(chan struct{})
			wg.Go(func() { // somebody else
				for range started {
					start()
				}
			})
			defer close(started)
			scoped(t.Context(), func(ctx context.Context, scope string) {
				e := &env{scope: scope}
				e.init(ctx)
				defer e.cancel()
				err := e.leaks(10, "an act", func() error {
					if own {
						go start() // also what a goroutine of its own starts
					}
					started <- struct{}{}
					return nil
				})
				if own != (err != nil) {
					t.Errorf("own goroutines: %v, error: %v", own, err)
				}
			})
		})
	}
}

// A short outage takes as long as the check says, so that a client which connects
// again after 1, 2.6 and 5.2 s, as gRPC's does, comes back in time. What is slower
// gets a longer time to live; what loses the lease in time fails.
func TestShortOutage(t *testing.T) {
	h := harness(nil)
	h.TTL = time.Second
	var down []time.Duration
	h.Down = func(t *testing.T, s naming.Store) func() {
		since, w := time.Now(), s.(*wrong)
		w.Down(errors.New("down"))
		return func() {
			down = append(down, time.Since(since))
			w.Up()
		}
	}
	if err := h.run(t, find(t, "ShortOutage")); err != nil {
		t.Error(err)
	}
	if want := []time.Duration{4 * time.Second / 3}; !slices.Equal(down, want) {
		t.Errorf("outages of %v, want %v", down, want)
	}

	down = nil
	brief := h.Down
	h.Down = func(t *testing.T, s naming.Store) func() {
		up := brief(t, s)
		return func() { time.Sleep(6 * time.Second); up() } // 7.3 s in all
	}
	if err := h.run(t, find(t, "ShortOutage")); err != nil {
		t.Errorf("on a machine that takes 6s to end an outage: %v", err)
	}
	if len(down) != 2 {
		t.Errorf("outages of %v, want two", down)
	}
}

func TestCheck(t *testing.T) {
	ctx := t.Context()
	var s memory.Store
	// Others use the registry too.
	theirs := add(nil, ep("a", "10.0.0.1:80", `{"weight":1}`))
	for _, service := range []string{"aaa", "conformance-", "zzz"} {
		if err := s.Apply(ctx, service, theirs...); err != nil {
			t.Fatal(err)
		}
	}
	s.PutMalformed("zzz", "bad", errors.New("gibberish"))
	o := &Options{TTL: 500 * time.Millisecond, Quiet: 20 * time.Millisecond, Many: 300}

	untouched := func() {
		t.Helper()
		var e env
		e.store = &s
		e.init(ctx)
		defer e.cancel()
		got, err := e.names()
		if want := []string{"aaa", "conformance-", "zzz"}; err != nil || !slices.Equal(got, want) {
			t.Fatalf("afterwards: got services %q, error %v, want %q", got, err, want)
		}
		for _, service := range got {
			if err := e.listed(service, sets(theirs[0].Endpoint)); err != nil {
				t.Fatal(err)
			}
		}
	}

	var ran, skipped []string
	for r := range Check(ctx, &s, o) {
		switch {
		case r.Rule == "":
			t.Errorf("%s has no rule", r.Name)
		case r.Skipped != "":
			skipped = append(skipped, r.Name)
		case r.Err != nil:
			t.Errorf("%s: %v", r.Name, r.Err)
		default:
			ran = append(ran, r.Name)
		}
	}
	for _, c := range checks {
		if len(c.needs) == 0 && !slices.Contains(ran, c.name) {
			t.Errorf("%s did not run", c.name)
		}
		if len(c.needs) > 0 && !slices.Contains(skipped, c.name) {
			t.Errorf("%s was not skipped", c.name)
		}
	}
	untouched()

	// The caller may stop, or its context may end in the middle.
	for range Check(ctx, &s, o) {
		break
	}
	untouched()
	ctx2, cancel := context.WithCancel(ctx)
	defer cancel()
	n := 0
	for r := range Check(ctx2, &s, o) {
		if n++; n == 2 {
			cancel()
		}
		if n > 2 && r.Skipped == "" {
			t.Errorf("%s ran with a context that is done", r.Name)
		}
	}
	if n != len(checks) {
		t.Errorf("got %d results, want %d", n, len(checks))
	}
	untouched()

	// A wrong store is told, and cleaned up after.
	w := &wrong{Store: &s}
	w.each(func(_ string, b naming.Batch) []naming.Batch {
		b.Put = b.Put[:min(len(b.Put), 1000)]
		if len(b.Put) > 50 {
			b.Put = b.Put[:50]
		}
		return []naming.Batch{b}
	})
	failed := false
	for r := range Check(ctx, w, o) {
		if r.Name == "SnapshotIsWhole" {
			failed = r.Err != nil
			break
		}
	}
	if !failed {
		t.Error("a store with partial snapshots passed")
	}
}

// What a check puts must be different, or it proves nothing.
func TestValuesDiffer(t *testing.T) {
	names := nastyNames()
	if got := len(slices.Compact(slices.Sorted(slices.Values(names)))); got != len(names) {
		t.Errorf("%d of %d names differ", got, len(names))
	}
	if got := len(slices.Compact(slices.Sorted(slices.Values(addresses)))); got != len(addresses) {
		t.Errorf("%d of %d addresses differ", got, len(addresses))
	}
	for i, a := range values() {
		for _, b := range values()[:i] {
			if ep("a", "a", a).Equal(ep("a", "a", b)) {
				t.Errorf("metadata %s and %s do not differ", brief(a), brief(b))
			}
		}
	}
	for _, c := range [][]naming.Change{add(nil, ep("a", "a", "")), del(ep("a", "a", ""))} {
		for _, name := range names {
			if _, err := naming.Normalize(name, c); err != nil {
				t.Errorf("%q is no valid name: %v", name, err)
			}
		}
	}
}
