package migrate

import (
	"context"
	"errors"
	"fmt"
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

// TestWriterHooks expects the hooks of the whole to follow the registry that counts.
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
		want("the registry that is down counts", "[lost]")
		w.stores[newSide].Up()
		if err := g.Wait(context.Background()); err != nil {
			t.Error(err)
		}
		if got := l.take(); !strings.HasSuffix(got, "registered true]") {
			t.Errorf("when Wait has returned, the hooks %v were called", got)
		}
	})
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
