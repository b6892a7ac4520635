package migrate

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
)

// TestNewestOwns registers one endpoint twice, and closes the older Registration and
// then the newer one, or the other way round.
func TestNewestOwns(t *testing.T) {
	for p := Old; p <= Done; p++ {
		testWriter(t, phaseIs(p), nil, func(w *writer) {
			ctx := context.Background()
			older := w.register(nil)
			w.want("one", p.writes(oldSide), p.writes(newSide))
			states := [2]func() []string{w.record(oldSide), w.record(newSide)}
			newer := w.register(nil)
			if err := older.Close(); err != nil {
				t.Error(err)
			}
			if err := errors.Join(newer.Wait(ctx), newer.Update(ctx, []byte("1"))); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Minute)
			w.want("the older one closed", p.writes(oldSide), p.writes(newSide))
			for i, f := range states {
				want := "[-]"
				if p.writes(sideIndex(i)) {
					want = "[there]"
				}
				if got := fmt.Sprint(f()); got != want {
					t.Errorf("phase %v: registry %d had the states %v", p, i, got)
				}
			}
			if err := newer.Close(); err != nil {
				t.Error(err)
			}
			w.want("both closed", false, false)
		})
	}
}

// TestOlderGetsEntryBack closes the newer of two Registrations.
func TestOlderGetsEntryBack(t *testing.T) {
	testWriter(t, phaseIs(Union), nil, func(w *writer) {
		ctx := context.Background()
		older := w.register(&naming.RegisterOptions{Wait: true})
		newer, err := w.joined.Register(ctx, writerService, naming.Endpoint{ID: writerAddr, Addr: "10.0.0.2:80"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if st := older.Status(); st.Registered || !errors.Is(st.Err, naming.ErrReplaced) {
			t.Errorf("status of the older one %+v", st)
		}
		for what, err := range map[string]error{"Update": older.Update(ctx, []byte("1")), "Drain": older.Drain(ctx), "Resume": older.Resume(ctx)} {
			if !errors.Is(err, naming.ErrReplaced) {
				t.Errorf("%s of the older one returned %v", what, err)
			}
		}
		if err := older.Wait(ctx); err != nil {
			t.Errorf("Wait of the older one returned %v, and the newer one is registered", err)
		}
		time.Sleep(time.Hour)
		for i := range w.stores {
			if got := w.entries(sideIndex(i)); len(got) != 1 || got[0].Addr != "10.0.0.2:80" {
				t.Errorf("registry %d has %v", i, got)
			}
		}
		if err := newer.Close(); err != nil {
			t.Error(err)
		}
		if err := older.Wait(ctx); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		for i := range w.stores {
			if got := w.entries(sideIndex(i)); len(got) != 1 || got[0].Addr != writerAddr {
				t.Errorf("registry %d has %v after the newer one was closed", i, got)
			}
		}
		if err := older.Update(ctx, []byte("1")); err != nil {
			t.Error(err)
		}
	})
}

// TestOlderStaysAway changes the phase while a newer Registration is open. The older one
// must not register in the registry that the phase adds, or it would own the entry there.
func TestOlderStaysAway(t *testing.T) {
	testWriter(t, phaseIs(Old), nil, func(w *writer) {
		older := w.register(nil)
		newer, err := w.joined.Register(context.Background(), writerService, naming.Endpoint{ID: writerAddr, Addr: "10.0.0.2:80"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []Phase{Union, Done, Union, Old, Done, DualWrite, Done} {
			w.phases.set(p)
			time.Sleep(10 * time.Second)
			w.want(p.String(), p.writes(oldSide), p.writes(newSide))
			for i := range w.stores {
				for _, e := range w.entries(sideIndex(i)) {
					if e.Addr != "10.0.0.2:80" {
						t.Errorf("phase %v: registry %d has the older endpoint %v", p, i, e)
					}
				}
			}
		}
		if err := newer.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * time.Second)
		w.want("the newer one closed", false, true)
		if st := older.Status(); !st.Registered {
			t.Errorf("status of the older one %+v", st)
		}
		w.phases.set(Union)
		w.want("phase 3 again", true, true)
	})
}

// TestReplacedWhileLeaving replaces a Registration that waits to leave a registry, and
// closes the older one at once.
func TestReplacedWhileLeaving(t *testing.T) {
	testWriter(t, phaseIs(Union), nil, func(w *writer) {
		older := w.register(nil)
		w.want("at start", true, true)
		states := w.record(oldSide)
		w.phases.set(Done)
		time.Sleep(time.Second)
		newer := w.register(nil)
		if err := older.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(writerDelay - time.Millisecond)
		w.want("before the delay of the newer one", true, true)
		time.Sleep(time.Second)
		w.want("after the delay of the newer one", false, true)
		if got := fmt.Sprint(states()); got != "[there -]" {
			t.Errorf("the old registry had the states %v", got)
		}
		if st := newer.Status(); !st.Registered {
			t.Errorf("status %+v", st)
		}
	})
}

// TestManyOwners opens and closes Registrations of one endpoint concurrently.
func TestManyOwners(t *testing.T) {
	testWriter(t, phaseIs(Union), nil, func(w *writer) {
		done := make(chan struct{})
		for i := range 20 {
			go func() {
				time.Sleep(time.Duration(i) * 100 * time.Millisecond)
				g := w.register(&naming.RegisterOptions{DrainDelay: -1})
				time.Sleep(time.Duration(i%7) * 100 * time.Millisecond)
				w.phases.set(Phase(i % 8))
				if err := g.Close(); err != nil {
					t.Error(err)
				}
				done <- struct{}{}
			}()
		}
		for range 20 {
			<-done
		}
		w.want("all closed", false, false)
		if n := len(w.joined.owners.of(writerService)); n != 0 {
			t.Errorf("%d owners are left", n)
		}
	})
}
