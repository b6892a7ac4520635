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

// The store without a defect passes every check, every time.
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

// The checks that need a field of the harness pass in real time too, as on a real
// server. TestCheck runs the other checks in real time.
func TestHooksInRealTime(t *testing.T) {
	h := harness(nil)
	h.Bubble = false
	h.Quiet = 20 * time.Millisecond
	h.TTL = 500 * time.Millisecond
	for _, c := range checks {
		if len(c.needs) == 0 || slices.Contains(c.needs, "Silence") { // SilenceBound is long
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			if err := h.run(t, c); err != nil {
				t.Error(c.failure(err))
			}
		})
	}
}

// notAtomic makes Apply make its changes one by one, in the order that order gives them.
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
			continue // they take long, and test nothing else here
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

// A goroutine that never ends fails one check, and not the process.
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

// A check counts the goroutines that its store starts. It does not count those that other
// tests of the process start at the same time.
func TestOthersGoroutines(t *testing.T) {
	for _, own := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			end := make(chan struct{})
			var wg sync.WaitGroup
			defer wg.Wait()
			defer close(end)
			start := func() { wg.Go(func() { <-end }) }
			started := make(chan struct{})
			wg.Go(func() { // another test
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
						go start() // a goroutine of the check starts another
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

// A short outage takes as long as the check says, so that a client that connects again
// after 1, 2.6 and 5.2 s, as gRPC's does, is back in time. A slower client gets a longer
// time to live.
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

// shared is a store that other programs use too.
type shared struct {
	memory.Store
	services []string // those of the other programs
	endpoint naming.Endpoint
}

func newShared(t *testing.T) *shared {
	t.Helper()
	s := &shared{services: []string{"aaa", "conformance-", "zzz"}, endpoint: ep("a", "10.0.0.1:80", `{"weight":1}`)}
	for _, service := range s.services {
		if err := s.Apply(t.Context(), service, add(nil, s.endpoint)...); err != nil {
			t.Fatal(err)
		}
	}
	s.PutMalformed("zzz", "bad", errors.New("gibberish"))
	return s
}

// untouched fails t unless the store has exactly what the other programs put.
func (s *shared) untouched(t *testing.T) {
	t.Helper()
	var e env
	e.store = s
	e.init(t.Context())
	defer e.cancel()
	got, err := e.names()
	if err != nil || !slices.Equal(got, s.services) {
		t.Fatalf("afterwards: got services %q, error %v, want %q", got, err, s.services)
	}
	for _, service := range got {
		if err := e.listed(service, sets(s.endpoint)); err != nil {
			t.Fatal(err)
		}
	}
}

func checkOptions() *Options {
	return &Options{TTL: 500 * time.Millisecond, Quiet: 20 * time.Millisecond, Many: 300}
}

func TestCheck(t *testing.T) {
	s := newShared(t)
	var ran, skipped []string
	for r := range Check(t.Context(), s, checkOptions()) {
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
	s.untouched(t)
}

// The checks remove their endpoints also if the caller leaves the loop, or if its
// context is cancelled.
func TestCheckStops(t *testing.T) {
	s := newShared(t)
	for range Check(t.Context(), s, checkOptions()) {
		break
	}
	s.untouched(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	for r := range Check(ctx, s, checkOptions()) {
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
	s.untouched(t)
}

// Check reports a wrong store, and removes the endpoints of the checks that failed.
func TestCheckWrongStore(t *testing.T) {
	s := newShared(t)
	w := &wrong{Store: &s.Store}
	w.each(func(_ string, b naming.Batch) []naming.Batch {
		b.Put = b.Put[:min(len(b.Put), 50)]
		return []naming.Batch{b}
	})
	for r := range Check(t.Context(), w, checkOptions()) {
		if r.Name == "SnapshotIsWhole" {
			if r.Err == nil {
				t.Error("a store with partial snapshots passed")
			}
			break
		}
	}
}

// A registry that does not have a reason to withhold skips the checks that need the
// reason, and the skip says so.
func TestNoReason(t *testing.T) {
	for _, tt := range []struct {
		has  []naming.Reason
		skip []string
		says string
	}{
		{[]naming.Reason{naming.Maintenance}, nil, ""},
		{[]naming.Reason{naming.FailedCheck}, []string{"WithheldOutlivesLease"}, "no maintenance"},
		{nil, []string{"WithheldIsShown", "WithheldIsKept", "WithheldOutlivesLease"}, "the registry"},
	} {
		h := harness(nil)
		withhold := h.Withhold
		h.Withhold = func(t *testing.T, s naming.Store, service, id string, reason naming.Reason) func() {
			if !slices.Contains(tt.has, reason) {
				return nil
			}
			return withhold(t, s, service, id, reason)
		}
		for _, name := range []string{"WithheldIsShown", "WithheldIsKept", "WithheldOutlivesLease"} {
			err := h.run(t, find(t, name))
			if want := slices.Contains(tt.skip, name); isSkip(err) != want || !want && err != nil || want && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("a registry with the reasons %v: %s: skipped %v, want %v: %v", tt.has, name, isSkip(err), want, err)
			}
		}
	}
}

// A fault that a loop found is not hidden by a skip.
func TestSkipHidesNoFault(t *testing.T) {
	h := harness(func(w *wrong) {
		w.each(func(_ string, b naming.Batch) []naming.Batch {
			b.Snapshot = false
			return []naming.Batch{b}
		})
	})
	err := h.run(t, check{name: "Skips", run: func(e *env) error {
		if err := e.watch("greeter", nil, nil).begun(); err == nil {
			return errors.New("the watch began")
		}
		return skip("the registry has no greeters")
	}})
	if err == nil || isSkip(err) || !strings.Contains(err.Error(), "not a snapshot") {
		t.Errorf("got error %v, want the fault of the watch", err)
	}
}

// The values of the round trips differ, or the checks prove nothing.
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
				t.Errorf("%q is not a valid name: %v", name, err)
			}
		}
	}
}
