package migrate

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	memstore "github.com/naming-go/naming/backend/memory"
)

// TestReaderFallback checks when a reader that wants the new registry alone reports that it
// needs both, and that the report ends.
func TestReaderFallback(t *testing.T) {
	onSite(t, Old, noHold(), func(s *site) {
		s.phases.state.Share = 1
		s.put(2, "a:1", "b:1")
		f := s.follow()
		s.phases.set(PreferNew)
		s.expect(f, "a:1 b:1")
		if got := s.noted(); got != "narrow true old, narrow true new" && got != "narrow true old, narrow false new, narrow true new" {
			t.Errorf("hooks %q", got)
		}
		s.remove(int(newSide), "b:1") // as in a rolling restart
		time.Sleep(4 * time.Second)
		s.put(int(newSide), "b:1")
		time.Sleep(time.Minute)
		if got := s.noted(); got != "narrow false new, narrow true new" {
			t.Errorf("hooks after a moment without coverage: %q", got)
		}
		s.remove(int(newSide), "b:1")
		s.expect(f, "a:1 b:1")
		time.Sleep(4900 * time.Millisecond)
		if got := s.noted(); got != "narrow false new" {
			t.Errorf("hooks before FallbackAfter: %q", got)
		}
		time.Sleep(200 * time.Millisecond)
		if got := s.noted(); got != `fallback true ["b:1"]` {
			t.Errorf("hooks after FallbackAfter: %q", got)
		}
		r := s.joined.Status("svc").Reader
		if r.FallbackSince.IsZero() || !strings.Contains(r.Why, "b:1") || !slices.Equal(r.Uncovered, []string{"b:1"}) || r.Lead != "new" || r.Endpoints != 2 {
			t.Errorf("status %+v", r)
		}
		time.Sleep(time.Hour)
		s.put(int(newSide), "b:1")
		time.Sleep(time.Second)
		if got := s.noted(); got != "narrow true new, fallback false []" {
			t.Errorf("hooks at the end of the fallback: %q", got)
		}
		s.expect(f, "a:1 b:1")
	})
}

// TestReaderShare checks that the share of the clients is about right, that a higher share
// removes no client, and that a client decides the same again, for each service on its own.
func TestReaderShare(t *testing.T) {
	const clients = 10_000
	shares := []float64{0, 0.01, 0.1, 0.5, 0.9, 1}
	var count [6]int
	differ := 0
	for i := range clients {
		j := &Joined{opts: Options{ClientID: fmt.Sprintf("host-%d", i)}}
		before := false
		for k, share := range shares {
			in := j.inShare("svc", share)
			if before && !in {
				t.Fatalf("client %d left the share at %v", i, share)
			}
			if in {
				count[k]++
			}
			before = in
		}
		if j.inShare("svc", 0.5) != j.inShare("other", 0.5) {
			differ++
		}
	}
	for k, share := range shares {
		sigma := math.Sqrt(clients * share * (1 - share))
		if math.Abs(float64(count[k])-clients*share) > 5*sigma {
			t.Errorf("share %v has %d of %d clients", share, count[k], clients)
		}
	}
	if differ < clients*4/10 || differ > clients*6/10 {
		t.Errorf("%d of %d clients decide differently for another service", differ, clients)
	}
}

// TestReaderStale checks the hooks, the records and the status of a registry that fails:
// once for each change, and the joined set is not stale.
func TestReaderStale(t *testing.T) {
	var mu sync.Mutex
	var sides []string // guarded by mu
	hooks := func(name string) *naming.Hooks {
		return &naming.Hooks{Stale: func(i naming.StaleInfo) {
			mu.Lock()
			defer mu.Unlock()
			sides = append(sides, fmt.Sprint(name, " ", !i.Since.IsZero()))
		}}
	}
	opts := noHold()
	opts.OldHooks, opts.NewHooks = hooks("old"), hooks("new")
	onSite(t, Union, opts, func(s *site) {
		s.put(2, "a:1")
		f := s.follow()
		s.stores[newSide].Down(errReaderDown)
		time.Sleep(time.Minute)
		v, _, _ := f.Current()
		if v.Stale() || v.Err != nil || v.Sides[newSide].StaleSince.IsZero() || !v.Sides[oldSide].StaleSince.IsZero() || !v.Sides[oldSide].Used {
			t.Errorf("status %+v", v.Status)
		}
		s.stores[newSide].Up()
		time.Sleep(time.Minute)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if got := strings.Join(sides, ", "); got != "new true, new false" {
			t.Errorf("hooks of the registries: %q", got)
		}
		if got := s.noted(); got != "" {
			t.Errorf("hooks of the joined Client: %q", got)
		}
		if got := s.logged(); got != "WARN naming: watch failed, will be tried again, INFO naming: fresh again" {
			t.Errorf("records %q", got)
		}
	})
}

// TestReaderShadowFails checks that a failure of the registry that is only compared is not
// an error of the set.
func TestReaderShadowFails(t *testing.T) {
	onSite(t, Shadow, noHold(), func(s *site) {
		s.stores[newSide].Down(errReaderDown)
		s.stores[oldSide].Silence()
		f := s.follow()
		time.Sleep(time.Second)
		if v, _, _ := f.Current(); v.Err != nil || v.Sides[newSide].Err == nil || v.Sides[newSide].Used {
			t.Errorf("status %+v, want no error before the registry that counts answers", v.Status)
		}
	})
}

// TestReaderRetry has a reader call Retry after an outage of both registries. The set has
// what a server registered meanwhile within a second and the jitter, since Retry has an effect
// once a second. The set is fresh when a watch has proved itself for half a minute. The same
// bounds hold for a plain Client.
func TestReaderRetry(t *testing.T) {
	check := func(who string, got [2]time.Duration) {
		for i, most := range [2]time.Duration{1200 * time.Millisecond, 31200 * time.Millisecond} {
			if got[i] > most {
				t.Errorf("%s has the set and is fresh after %v, want at most %v", who, got, most)
			}
		}
	}
	for range 20 {
		onSite(t, Union, noHold(), func(s *site) {
			check("a joined Client", timeToAnswer(s.t, s.follow(), s.stores[0], s.stores[1]))
		})
		synctest.Test(t, func(t *testing.T) {
			m := new(memstore.Store)
			c := naming.New(m, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
			defer c.Close()
			f, err := c.Follow("svc", func() {})
			if err != nil {
				t.Fatal(err)
			}
			check("a plain Client", timeToAnswer(t, f, m))
		})
	}
}

// timeToAnswer has the registries fail for ten minutes, and returns how long a reader that
// calls Retry waits for what is new and for a fresh set afterwards.
func timeToAnswer(t *testing.T, f *naming.Follower, stores ...*memstore.Store) (times [2]time.Duration) {
	synctest.Wait()
	for _, m := range stores {
		m.Down(errReaderDown)
	}
	time.Sleep(10 * time.Minute)
	for _, m := range stores {
		m.Up()
		if err := m.Apply(t.Context(), "svc", naming.Change{Endpoint: naming.Endpoint{Addr: "new:1"}}); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	for times[1] == 0 {
		f.Retry()
		time.Sleep(10 * time.Millisecond)
		v, _, _ := f.Current()
		if times[0] == 0 && len(v.Endpoints) == 1 {
			times[0] = time.Since(begun)
		}
		if !v.Stale() {
			times[1] = time.Since(begun)
		}
	}
	return times
}

// TestReaderWatches counts the watches in each phase: only those that the phase needs, and
// they end with the last reader and the grace.
func TestReaderWatches(t *testing.T) {
	for p := Old; p <= Done; p++ {
		opts := noHold()
		opts.Client.IdleGrace = time.Minute
		onSite(t, p, opts, func(s *site) {
			s.put(2, "a:1")
			var f *naming.Follower
			got := s.watches(func() { f = s.follow() })
			want := [2]int{1, 1}
			switch {
			case p < Shadow:
				want[newSide] = 0
			case p > NewRead:
				want[oldSide] = 0
			}
			if got != want {
				t.Errorf("%v: watches opened %v, want %v", p, got, want)
			}
			again := s.watches(func() {
				f.Close()
				f = s.follow()
				for range 3 {
					s.phases.set(p)
				}
			})
			if again != [2]int{} {
				t.Errorf("%v: a reader within the grace and the same phase opened %v watches", p, again)
			}
			f.Close()
			time.Sleep(2 * time.Minute)
			if s.joined.Status("svc").Reader != nil {
				t.Errorf("%v: the service is still read", p)
			}
			if reopened := s.watches(func() { s.follow() }); reopened != want {
				t.Errorf("%v: after the grace, watches opened %v, want %v", p, reopened, want)
			}
		})
	}
}

// TestReaderClosesWatch checks that a reader that has left a registry watches it no longer,
// and watches it again when the phase goes back.
func TestReaderClosesWatch(t *testing.T) {
	onSite(t, Union, noHold(), func(s *site) {
		s.put(2, "a:1")
		s.follow()
		s.phases.set(NewRead)
		synctest.Wait()
		if n := len(s.joined.Status("svc").Reader.Sides); n != 1 {
			t.Errorf("%d registries are watched, want 1", n)
		}
		got := s.watches(func() {
			s.stores[oldSide].Break(errReaderDown)
			time.Sleep(time.Minute)
		})
		if got != [2]int{} {
			t.Errorf("watches opened: %v, want none", got)
		}
		if got := s.watches(func() { s.phases.set(Union) }); got != [2]int{1, 0} {
			t.Errorf("watches opened when the phase went back: %v, want one of old", got)
		}
	})
}

// TestReaderHold checks the hold of the joined set: it holds what a wiped pair of registries
// had, and does not mistake a change of the phase for a loss.
func TestReaderHold(t *testing.T) {
	onSite(t, Union, Options{}, func(s *site) {
		s.put(2, "a:1", "b:1")
		f := s.follow()
		for i := range s.stores {
			s.stores[i].Wipe()
			synctest.Wait()
		}
		s.expect(f, "held a:1 held b:1")
		s.put(int(newSide), "a:1", "b:1")
		s.expect(f, "a:1 b:1")
	})
	onSite(t, Union, Options{}, func(s *site) {
		s.put(int(oldSide), "a:1", "b:1", "c:1")
		for _, addr := range []string{"a:1", "b:1", "c:1"} {
			m, _ := AddMark(nil, Mark{Origin: "old"})
			s.apply(int(newSide), naming.Change{Endpoint: naming.Endpoint{ID: CopyID("old", addr), Addr: addr, Metadata: m}})
		}
		f := s.follow()
		s.expect(f, "a:1 b:1 c:1")
		f.Next()
		for _, p := range []Phase{NewRead, Done, Old, Union, NewWrite} {
			s.phases.set(p)
			s.expect(f, "a:1 b:1 c:1")
			if e, ok := f.Next(); ok && len(e.Put)+len(e.Deleted) > 0 {
				t.Errorf("phase %v changed the set: %d put, %d deleted", p, len(e.Put), len(e.Deleted))
			}
		}
	})
}

// TestReaderServices checks the list of services in each phase. The records of the migration
// are not a service.
func TestReaderServices(t *testing.T) {
	for p := Old; p <= Done; p++ {
		onSite(t, p, noHold(), func(s *site) {
			for i, names := range [][]string{{"both", "old", RecordService}, {"both", "new", RecordService}} {
				for _, name := range names {
					if err := s.stores[i].Apply(s.t.Context(), name, naming.Change{Endpoint: naming.Endpoint{Addr: "a:1"}}); err != nil {
						t.Fatal(err)
					}
				}
			}
			want := "both new old"
			switch {
			case p <= Shadow:
				want = "both old"
			case p >= NewWrite:
				want = "both new"
			}
			for names, err := range s.joined.Services(s.t.Context()) {
				if got := strings.Join(names, " "); err != nil || got != want {
					t.Errorf("%v: services %q, %v; want %q", p, got, err, want)
				}
				break
			}
		})
	}
}

// TestReaderServicesChange changes the phases while the list of services is read.
func TestReaderServicesChange(t *testing.T) {
	onSite(t, Done, noHold(), func(s *site) {
		f, err := s.joined.FollowServices(func() {})
		if err != nil {
			t.Fatal(err)
		}
		s.put(int(oldSide), "a:1")
		services := func(want int) {
			t.Helper()
			synctest.Wait()
			if v, _, _ := f.Current(); len(v.Endpoints) != want {
				t.Errorf("%d services, want %d", len(v.Endpoints), want)
			}
		}
		services(0)
		s.phases.set(Union)
		services(1)
		s.phases.set(Done)
		services(1) // the new registry does not have the service
		s.put(int(newSide), "a:1")
		services(1)
		s.remove(int(oldSide), "a:1")
		services(1)
	})
}

// TestReaderList reads a service once in each phase. A registry that the phase reads and that
// fails is an error, because a part of the set would look like a smaller set.
func TestReaderList(t *testing.T) {
	for p := Old; p <= Done; p++ {
		onSite(t, p, noHold(), func(s *site) {
			s.put(2, "a:1")
			s.put(int(oldSide), "old:1")
			s.put(int(newSide), "new:1")
			want := "a:1 new:1 old:1"
			switch {
			case p <= Shadow:
				want = "a:1 old:1"
			case p > NewRead:
				want = "a:1 new:1"
			}
			v, err := s.joined.List(s.t.Context(), "svc")
			if got := setOf(v); err != nil || got != want {
				t.Errorf("%v: List returned %q, %v; want %q", p, got, err, want)
			}
			for side, addr := range []string{"old:1", "new:1"} {
				s.stores[side].Down(errReaderDown)
				_, err := s.joined.List(s.t.Context(), "svc")
				if reads := strings.Contains(want, addr); reads != (err != nil) {
					t.Errorf("%v: with registry %d down, List returned the error %v", p, side, err)
				}
				s.stores[side].Up()
			}
		})
	}
}

// TestReaderApply makes a change in each phase: in the registries that the phase writes.
func TestReaderApply(t *testing.T) {
	for p := Old; p <= Done; p++ {
		onSite(t, p, noHold(), func(s *site) {
			update := func() error { return s.joined.Update(s.t.Context(), "svc", naming.Update{Addr: "a:1"}) }
			if err := update(); err != nil {
				t.Error(err)
			}
			for i := range s.stores {
				v, err := s.joined.sides[i].client.List(s.t.Context(), "svc")
				if want := p.writes(sideIndex(i)); err != nil || want != (len(v.Endpoints) == 1) {
					t.Errorf("%v: registry %d has %d endpoints, %v; written=%v", p, i, len(v.Endpoints), err, want)
				}
				s.stores[i].Down(errReaderDown)
				if err := update(); p.writes(sideIndex(i)) != (err != nil) {
					t.Errorf("%v: with registry %d down, Update returned %v", p, i, err)
				}
				s.stores[i].Up()
			}
		})
	}
	opts := noHold()
	opts.OldReadOnly = true
	onSite(t, Old, opts, func(s *site) {
		s.put(int(oldSide), "a:1")
		s.expect(s.follow(), "a:1") // a registry that cannot be written is read as any other
		if err := s.joined.Update(s.t.Context(), "svc", naming.Update{Addr: "b:1"}); err == nil {
			t.Error("Update of a registry that cannot be written returned nil")
		}
	})
}

// TestReaderCloses closes a joined Client while readers come and go, phases change and
// registries fail. The bubble finds goroutines that stay.
func TestReaderCloses(t *testing.T) {
	for n := range 20 {
		onSite(t, Union, noHold(), func(s *site) {
			ctx, cancel := context.WithCancel(s.t.Context())
			defer cancel()
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() {
					for k := 0; ctx.Err() == nil && k < 200; k++ {
						f, err := s.joined.Follow("svc", func() {})
						if err != nil {
							return
						}
						f.Next()
						time.Sleep(time.Duration(i+1) * time.Millisecond)
						f.Retry()
						f.Close()
						s.joined.Status("svc")
					}
				})
			}
			wg.Go(func() {
				for k := range 100 {
					s.phases.set(Phase(k * 5 % phases))
					s.stores[k%2].Break(io.EOF)
					time.Sleep(2 * time.Millisecond)
				}
			})
			time.Sleep(time.Duration(n) * 7 * time.Millisecond)
			s.joined.Close()
			cancel()
			wg.Wait()
			if r := s.joined.Status("svc").Reader; r != nil {
				t.Errorf("after Close, the service is read: %+v", r)
			}
		})
	}
}
