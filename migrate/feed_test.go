package migrate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	memstore "github.com/naming-go/naming/backend/memory"
)

var errReaderDown = errors.New("registry is down")

// site is two registries, and a joined Client that reads service "svc".
type site struct {
	t      *testing.T
	stores [2]*memstore.Store
	phases *phaseSource
	joined *Joined

	mu    sync.Mutex
	hooks []string // calls of hooks; guarded by mu
	logs  []string // log records of the joined Client and of the sides, without debug; guarded by mu
}

// onSite runs a test in a bubble. The hold is off unless the options say otherwise.
func onSite(t *testing.T, p Phase, opts Options, test func(s *site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &site{t: t, stores: [2]*memstore.Store{new(memstore.Store), new(memstore.Store)}, phases: phaseIs(p)}
		opts.Client.Logger = slog.New(logRecorder{s: s})
		opts.Client.Hooks = &naming.Hooks{Stale: func(i naming.StaleInfo) { s.note("stale %v", !i.Since.IsZero()) }}
		opts.Hooks = &Hooks{
			Fallback: func(i FallbackInfo) { s.note("fallback %v %q", !i.Since.IsZero(), i.Uncovered) },
			Narrowed: func(i NarrowedInfo) { s.note("narrow %v %s", i.Narrow, i.Registry) },
		}
		var err error
		s.joined, err = Join(s.stores[oldSide], s.stores[newSide], s.phases, &opts)
		if err != nil {
			t.Fatal(err)
		}
		defer s.joined.Close()
		test(s)
	})
}

func noHold() Options { return Options{Client: naming.Options{Hold: naming.Hold{Disabled: true}}} }

func (s *site) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hooks = append(s.hooks, fmt.Sprintf(format, args...))
}

// noted returns the calls of hooks since the last call of noted.
func (s *site) noted() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := strings.Join(s.hooks, ", ")
	s.hooks = nil
	return text
}

// logged returns the records of level info and above.
func (s *site) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.logs, ", ")
}

// put puts endpoints into a registry, or into both if which is 2. The ID of an endpoint is
// its address. A * after the address means draining.
func (s *site) put(which int, addrs ...string) {
	s.t.Helper()
	for _, addr := range addrs {
		addr, draining := strings.CutSuffix(addr, "*")
		s.apply(which, naming.Change{Endpoint: naming.Endpoint{Addr: addr, Draining: draining}})
	}
	synctest.Wait()
}

func (s *site) remove(which int, ids ...string) {
	s.t.Helper()
	for _, id := range ids {
		s.apply(which, naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: id}})
	}
	synctest.Wait()
}

func (s *site) apply(which int, c naming.Change) {
	s.t.Helper()
	for i, store := range s.stores {
		if which == 2 || which == i {
			if err := store.Apply(s.t.Context(), "svc", c); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

func (s *site) follow() *naming.Follower {
	s.t.Helper()
	f, err := s.joined.Follow("svc", func() {})
	if err != nil {
		s.t.Fatal(err)
	}
	synctest.Wait()
	return f
}

// expect checks the present set of a Follower, such as "a:1 b:1*".
func (s *site) expect(f *naming.Follower, want string) {
	s.t.Helper()
	synctest.Wait()
	v, _, _ := f.Current()
	if got := setOf(v); got != want {
		s.t.Errorf("the set is %q, want %q", got, want)
	}
}

// setOf returns the addresses of a View, "unknown" before the first set.
func setOf(v naming.View) string {
	if !v.Synced {
		return "unknown"
	}
	var parts []string
	for _, e := range v.Endpoints {
		if e.Draining {
			e.Addr += "*"
		}
		parts = append(parts, e.Addr)
	}
	for _, e := range v.Held {
		parts = append(parts, "held "+e.Addr)
	}
	return strings.Join(parts, " ")
}

// watches returns how many watches of the service were opened since the last call, by
// registry. It counts on registries to which nobody writes meanwhile.
func (s *site) watches(do func()) [2]int {
	before := [2]int{s.stores[0].Calls(), s.stores[1].Calls()}
	do()
	synctest.Wait()
	return [2]int{s.stores[0].Calls() - before[0], s.stores[1].Calls() - before[1]}
}

// logRecorder keeps the texts of records of level info and above.
type logRecorder struct{ s *site }

// TestReaderPhases goes from each phase to each phase, with a server that only one of the
// registries has. No server is lost, and the reader ends where its phase says.
func TestReaderPhases(t *testing.T) {
	for from := Old; from <= Done; from++ {
		for to := Old; to <= Done; to++ {
			onSite(t, from, noHold(), func(s *site) {
				s.put(2, "a:1", "b:1")
				f := s.follow()
				s.expect(f, "a:1 b:1")
				first := s.joined.Status("svc").Reader.Lead
				s.put(int(oldSide), "old:1")
				s.put(int(newSide), "new:1")
				s.phases.set(to)
				s.expectMost(f, from, to)
				s.put(2, "old:1", "new:1")
				time.Sleep(time.Minute)
				s.expect(f, "a:1 b:1 new:1 old:1")
				if r := s.joined.Status("svc").Reader; r.Narrow != narrows(to) || !r.FallbackSince.IsZero() {
					t.Errorf("%v to %v: lead %s then %+v, want narrow=%v", from, to, first, r, narrows(to))
				}
			})
		}
	}
}

// narrows reports whether a reader outside the share uses one registry alone.
func narrows(p Phase) bool { return p != Union && p != PreferNew }

// expectMost checks the set of a reader right after a change of the phase: what it had, and
// what the phase reads.
func (s *site) expectMost(f *naming.Follower, from, to Phase) {
	s.t.Helper()
	reads := map[string]bool{"a:1": true, "b:1": true}
	for _, p := range []Phase{from, to} {
		reads["old:1"] = reads["old:1"] || p <= NewRead && !(p == NewRead && from == NewRead)
		reads["new:1"] = reads["new:1"] || p >= Union
	}
	if from == NewRead && to == NewRead || from >= NewRead && to >= NewRead {
		reads["old:1"] = false // the reader left old before, and nothing brings it back
	}
	if from <= Shadow && to <= Shadow {
		reads["new:1"] = false
	}
	synctest.Wait()
	v, _, _ := f.Current()
	for _, e := range v.Endpoints {
		delete(reads, e.Addr)
	}
	for addr, want := range reads {
		if want {
			s.t.Errorf("%v to %v: %q is missing in %q", from, to, addr, setOf(v))
		}
	}
}

// TestReaderFirstSet checks how long the first set waits for the second registry.
func TestReaderFirstSet(t *testing.T) {
	for _, c := range []struct {
		name   string
		fault  func(new *memstore.Store)
		after  time.Duration // nothing is known until then
		then   string
		finish string // after a minute
	}{
		{"a slow registry", func(n *memstore.Store) { n.Delay(time.Second) }, 900 * time.Millisecond, "new:1 old:1", "new:1 old:1"},
		{"a very slow registry", func(n *memstore.Store) { n.Delay(9 * time.Second) }, 1900 * time.Millisecond, "old:1", "new:1 old:1"},
		{"a silent registry", func(n *memstore.Store) { n.Silence() }, 1900 * time.Millisecond, "old:1", "old:1"},
		{"a registry that refuses", func(n *memstore.Store) { n.Down(errReaderDown) }, 0, "old:1", "old:1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			onSite(t, Union, noHold(), func(s *site) {
				s.put(int(oldSide), "old:1")
				s.put(int(newSide), "new:1")
				c.fault(s.stores[newSide])
				f := s.follow()
				if c.after > 0 {
					time.Sleep(c.after)
					s.expect(f, "unknown")
				}
				time.Sleep(200 * time.Millisecond)
				s.expect(f, c.then)
				time.Sleep(time.Minute)
				s.expect(f, c.finish)
			})
		})
	}
}

// TestReaderFirstWaitAfterAnswer checks that the second registry has its time also if the
// first answers late, and that an empty set waits for both.
func TestReaderFirstWaitAfterAnswer(t *testing.T) {
	onSite(t, Union, noHold(), func(s *site) {
		s.put(int(newSide), "new:1")
		s.stores[oldSide].Delay(4 * time.Second)
		s.stores[newSide].Delay(5 * time.Second)
		f := s.follow()
		time.Sleep(4500 * time.Millisecond)
		s.expect(f, "unknown")
		time.Sleep(time.Second)
		s.expect(f, "new:1")
	})
	onSite(t, Union, noHold(), func(s *site) {
		s.stores[newSide].Down(errReaderDown)
		f := s.follow()
		time.Sleep(time.Minute)
		s.expect(f, "unknown")
		v, _, _ := f.Current()
		if !errors.Is(v.Err, errReaderDown) || !strings.Contains(fmt.Sprint(v.Err), `registry "new"`) {
			t.Errorf("the error is %v", v.Err)
		}
		s.stores[newSide].Up()
		time.Sleep(time.Minute)
		s.expect(f, "")
	})
}

// TestReaderUnknownPhase checks that a reader uses both registries while the phase is not
// known, and for a state that is not valid.
func TestReaderUnknownPhase(t *testing.T) {
	onSite(t, Old, noHold(), func(s *site) {
		s.phases.known = false
		s.put(int(oldSide), "old:1")
		s.put(int(newSide), "new:1")
		f := s.follow()
		s.expect(f, "new:1 old:1")
		s.phases.set(200)
		s.expect(f, "new:1 old:1")
		if st := s.joined.Status("svc"); st.Known {
			t.Errorf("the state %v is known", st.State)
		}
		s.phases.set(Old)
		s.expect(f, "new:1 old:1") // old does not cover new
		s.remove(int(newSide), "new:1")
		s.expect(f, "old:1")
	})
}

// TestReaderOutages has one registry fail in every phase, in every way. No server is lost.
func TestReaderOutages(t *testing.T) {
	faults := map[string]func(*memstore.Store){
		"down":   func(m *memstore.Store) { m.Down(errReaderDown) },
		"silent": func(m *memstore.Store) { m.Silence() },
		"broken": func(m *memstore.Store) { m.Break(errReaderDown) },
	}
	for name, fault := range faults {
		for p := Old; p <= Done; p++ {
			for side := range 2 {
				onSite(t, p, noHold(), func(s *site) {
					s.put(2, "a:1", "b:1")
					f := s.follow()
					s.expect(f, "a:1 b:1")
					fault(s.stores[side])
					for range 60 {
						time.Sleep(10 * time.Second)
						s.expect(f, "a:1 b:1")
					}
					s.stores[side].Up()
					s.stores[side].Speak()
					time.Sleep(time.Minute)
					s.put(2, "c:1")
					s.expect(f, "a:1 b:1 c:1")
					if v, _, _ := f.Current(); v.Stale() {
						t.Errorf("%s, %v: stale after the outage of registry %d", name, p, side)
					}
				})
			}
		}
	}
}

// TestReaderWipe wipes one registry of two, and has its leases expire. The other one has
// the servers.
func TestReaderWipe(t *testing.T) {
	for p := Old; p <= Done; p++ {
		for side := range sideIndex(2) {
			onSite(t, p, noHold(), func(s *site) {
				s.put(2, "a:1", "b:1")
				f := s.follow()
				s.stores[side].Wipe()
				want := "a:1 b:1"
				if narrows(p) && side == choose(State{Phase: p}, true, false).lead {
					want = "" // the only registry that the phase reads is empty
				}
				s.expect(f, want)
			})
		}
	}
}

// TestReaderBothDown has both registries go down, and one come back: the endpoints that only
// the other one has are kept.
func TestReaderBothDown(t *testing.T) {
	onSite(t, Union, noHold(), func(s *site) {
		s.put(int(oldSide), "old:1")
		s.put(int(newSide), "new:1")
		f := s.follow()
		for i := range s.stores {
			s.stores[i].Down(errReaderDown)
		}
		time.Sleep(time.Minute)
		s.expect(f, "new:1 old:1")
		if v, _, _ := f.Current(); !v.Stale() || len(v.Sides) != 2 || v.Sides[0].Err == nil || v.Sides[1].Err == nil {
			t.Errorf("status %+v, want stale with the errors of both", v.Status)
		}
		s.stores[newSide].Up()
		time.Sleep(10 * time.Minute)
		s.expect(f, "new:1 old:1")
		if v, _, _ := f.Current(); v.Stale() || v.Sides[0].Err == nil || v.Sides[1].Err != nil {
			t.Errorf("status %+v, want fresh, with the error of one", v.Status)
		}
		if got := s.noted(); got != "stale true, stale false" {
			t.Errorf("hooks %q", got)
		}
	})
}

func (l logRecorder) Enabled(context.Context, slog.Level) bool { return true }

func (l logRecorder) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo {
		l.s.mu.Lock()
		defer l.s.mu.Unlock()
		l.s.logs = append(l.s.logs, r.Level.String()+" "+r.Message)
	}
	return nil
}

func (l logRecorder) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l logRecorder) WithGroup(string) slog.Handler      { return l }
