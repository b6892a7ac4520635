package migrate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
)

// hookLog has the hooks that were called.
type hookLog struct {
	mu   sync.Mutex
	list []string // guarded by mu
}

func (l *hookLog) add(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, s)
}

// take returns the calls since the last take. Several failed attempts in a row are one: how
// often an attempt fails in a time is random.
func (l *hookLog) take() string {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	list := slices.CompactFunc(l.list, func(a, b string) bool { return a == b && strings.HasSuffix(a, "failed") })
	l.list = nil
	return fmt.Sprint(list)
}

func (l *hookLog) hooks(prefix string) *naming.Hooks {
	return &naming.Hooks{
		Registered: func(i naming.RegisteredInfo) { l.add(fmt.Sprint(prefix, "registered ", i.Again)) },
		Lost:       func(i naming.LostInfo) { l.add(prefix + "lost") },
		RegisterFailed: func(i naming.RegisterFailedInfo) {
			if i.Err == nil {
				l.add("no error")
			}
			l.add(prefix + "failed")
		},
		Withdrawn: func(i naming.WithdrawnInfo) { l.add(fmt.Sprint(prefix, "withdrawn ", i.Err)) },
	}
}

// TestWriterHooks expects the hooks of the whole to be called for the registry that counts.
func TestWriterHooks(t *testing.T) {
	l := new(hookLog)
	opts := &Options{Client: naming.Options{Hooks: l.hooks("")}}
	testWriter(t, phaseIs(Union), opts, func(w *writer) {
		want := func(when, want string) {
			t.Helper()
			if got := l.take(); got != want {
				t.Errorf("%s: the hooks %v were called, want %v", when, got, want)
			}
		}
		g := w.register(nil)
		want("at start", "[registered false]")
		w.stores[newSide].Wipe()
		time.Sleep(time.Minute)
		want("after a wipe of new", "[]")
		w.phases.set(Done)
		time.Sleep(time.Minute)
		want("after a change of the phase", "[]")
		w.stores[newSide].Wipe()
		time.Sleep(time.Minute)
		want("after a wipe of the registry that counts", "[lost failed registered true]") // the lease is lost as well
		if err := g.Drain(context.Background()); err != nil {
			t.Error(err)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		want("closed", "[withdrawn <nil>]")

		w.stores[newSide].Down(errWriterDown)
		g = w.register(nil)
		time.Sleep(10 * time.Millisecond)
		want("down", "[failed]")
		w.phases.set(Union)
		want("the other registry counts", "[registered false]")
		w.phases.set(Done)
		want("the registry that is down counts", "[failed]")
		w.stores[newSide].Up()
		if err := g.Wait(context.Background()); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if got := l.take(); strings.Contains(got, "registered") || strings.Contains(got, "lost") {
			t.Errorf("when the registry that counts has the endpoint, the hooks %v were called", got)
		}
	})
}

// TestCountingIsNotALoss changes the registry that counts while the registry that is to count
// does not have the endpoint. Lost is called only if the other one loses the endpoint
// before.
func TestCountingIsNotALoss(t *testing.T) {
	for _, way := range [][2]Phase{{Union, PreferNew}, {PreferNew, Union}, {Old, Done}, {Done, Old}, {NewRead, Old}} {
		for _, loses := range []bool{false, true} {
			l := new(hookLog)
			testWriter(t, phaseIs(way[0]), &Options{Client: naming.Options{Hooks: l.hooks("")}}, func(w *writer) {
				from, to := way[0].counts(), way[1].counts()
				w.stores[to].Down(errWriterDown)
				g := w.register(nil)
				synctest.Wait()
				want := "registered false"
				w.phases.set(way[1])
				time.Sleep(10 * time.Second)
				if g.Status().Registered {
					t.Errorf("%v to %v: registered before the registry that counts has the endpoint", way[0], way[1])
				}
				if loses {
					w.stores[from].Wipe()
					want += " lost registered true"
				}
				time.Sleep(time.Minute)
				w.stores[to].Up()
				time.Sleep(2 * time.Minute)
				if got := strings.Join(strings.Fields(strings.ReplaceAll(strings.Trim(l.take(), "[]"), "failed", "")), " "); got != want || !g.Status().Registered {
					t.Errorf("%v to %v: the hooks %q were called, want %q", way[0], way[1], got, want)
				}
			})
		}
	}
}

// TestUnknownIsNotALoss has a server learn its phase while the registry that is to count is
// down. A read-only registry that is to count is the same as one that has the endpoint.
func TestUnknownIsNotALoss(t *testing.T) {
	for _, readOnly := range []bool{false, true} {
		l := new(hookLog)
		opts := &Options{NewReadOnly: readOnly, Client: naming.Options{Hooks: l.hooks("")}}
		testWriter(t, phaseIs(Old), opts, func(w *writer) {
			w.phases.known = false
			w.stores[newSide].Down(errWriterDown)
			w.register(nil)
			synctest.Wait()
			for _, p := range []Phase{Done, Old, NewRead, Old, Done, Union} {
				w.phases.set(p)
				w.stores[newSide].Up()
				time.Sleep(time.Minute)
			}
			if got := strings.ReplaceAll(l.take(), " failed", ""); got != "[registered false]" {
				t.Errorf("read-only %v: the hooks %v were called", readOnly, got)
			}
		})
	}
}

// TestHooksBalance goes through random phases and faults. Registered and Lost take turns, and
// no fault means no loss.
func TestHooksBalance(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for run := range 40 {
		l := new(hookLog)
		testWriter(t, phaseIs(Old), &Options{Client: naming.Options{Hooks: l.hooks("")}}, func(w *writer) {
			w.register(nil)
			for range 40 {
				store := w.stores[rnd.IntN(2)]
				switch roll := rnd.IntN(6); {
				case roll == 0 && run%2 == 0:
					store.Wipe()
				case roll == 1 && run%2 == 0:
					store.Down(errWriterDown)
				case roll == 2:
					store.Up()
				default:
					w.phases.set(Phase(rnd.IntN(phases)))
				}
				time.Sleep(time.Duration(rnd.IntN(int(2 * writerDelay))))
			}
			for _, s := range w.stores {
				s.Up()
			}
			time.Sleep(5 * time.Minute)
			calls := strings.Join(strings.Fields(strings.NewReplacer("failed", "", "registered false", "+", "registered true", "+", "lost", "-").Replace(strings.Trim(l.take(), "[]"))), "")
			if strings.Contains(calls, "++") || strings.Contains(calls, "--") || !strings.HasSuffix(calls, "+") {
				t.Errorf("run %d: Registered and Lost were called as %s", run, calls)
			}
			if run%2 == 1 && calls != "+" {
				t.Errorf("run %d: Registered and Lost were called as %s without a fault", run, calls)
			}
		})
	}
}

// TestSideHooks expects the hooks of the registries to be called for each by itself.
func TestSideHooks(t *testing.T) {
	l := new(hookLog)
	testWriter(t, phaseIs(Old), &Options{OldHooks: l.hooks("old "), NewHooks: l.hooks("new ")}, func(w *writer) {
		w.register(nil)
		if got := l.take(); got != "[old registered false]" {
			t.Error(got)
		}
		w.phases.set(Done)
		if got := l.take(); got != "[new registered false]" {
			t.Error(got)
		}
		time.Sleep(writerDelay + time.Millisecond)
		if got := l.take(); got != "[old withdrawn <nil>]" {
			t.Error(got)
		}
	})
}

// TestOnChange checks each call of OnChange against the documented rules.
func TestOnChange(t *testing.T) {
	testWriter(t, phaseIs(Old), nil, func(w *writer) {
		var mu sync.Mutex
		var list []string
		var registered atomic.Pointer[naming.Registration]
		onChange := func(st naming.RegistrationStatus) {
			if !mu.TryLock() {
				t.Error("two calls at a time")
				return
			}
			defer mu.Unlock()
			if g := registered.Load(); g != nil {
				_, _ = g.Status(), g.Ready() // must not deadlock
			}
			list = append(list, fmt.Sprint(st.Registered, st.Draining, st.Err != nil))
		}
		expect := func(when string, want ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if fmt.Sprint(list) != fmt.Sprint(want) {
				t.Errorf("%s: OnChange was called with %v, want %v", when, list, want)
			}
			list = nil
		}
		g := w.register(&naming.RegisterOptions{OnChange: onChange})
		registered.Store(g)
		expect("at start", "true false false")
		w.phases.set(Union)
		time.Sleep(time.Minute)
		expect("phase 3")
		if err := g.Drain(context.Background()); err != nil {
			t.Error(err)
		}
		expect("Drain", "true true false")
		if err := g.Resume(context.Background()); err != nil {
			t.Error(err)
		}
		expect("Resume", "true false false")
		w.stores[oldSide].Withhold(writerService, writerAddr, naming.Maintenance, "")
		expect("withheld", "true false false")
		w.stores[newSide].Withhold(writerService, writerAddr, naming.Maintenance, "")
		expect("withheld by the other registry")
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		expect("Close", "true true false")
		time.Sleep(time.Minute)
		expect("after Close")
	})
}

// TestStatusSince expects Since to change with Registered only.
func TestStatusSince(t *testing.T) {
	testWriter(t, phaseIs(Union), nil, func(w *writer) {
		begun := time.Now()
		w.stores[oldSide].Down(errWriterDown)
		g := w.register(nil)
		time.Sleep(time.Hour)
		if st := g.Status(); !st.Since.Equal(begun) || st.FailedAttempts == 0 || !errors.Is(st.Err, errWriterDown) {
			t.Errorf("status %+v", st)
		}
		changed := time.Now()
		w.phases.set(NewRead)
		time.Sleep(time.Hour)
		if st := g.Status(); !st.Since.Equal(changed) || st.FailedAttempts != 0 || st.Err != nil {
			t.Errorf("status %+v", st)
		}
	})
}
