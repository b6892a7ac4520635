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

// TestWriterRepairs has the cases of servers in which a Store made of two registries
// loses endpoints for ever.
func TestWriterRepairs(t *testing.T) {
	for name, f := range map[string]func(w *writer){
		"new wiped": func(w *writer) {
			w.register(nil)
			w.want("at start", true, true)
			w.stores[newSide].Wipe()
			time.Sleep(time.Hour)
			w.want("an hour after the wipe", true, true)
		},
		"leases of new expired": func(w *writer) {
			w.register(nil)
			w.want("at start", true, true)
			w.stores[newSide].ExpireAll()
			time.Sleep(time.Minute)
			w.want("a minute after the leases expired", true, true)
		},
		"old down at start": func(w *writer) {
			w.stores[oldSide].Down(errWriterDown)
			w.register(nil)
			time.Sleep(10 * time.Minute)
			if n := len(w.entries(newSide)); n != 1 {
				w.t.Errorf("%d endpoints in new while old is down", n)
			}
			w.stores[oldSide].Up()
			time.Sleep(time.Minute)
			w.want("a minute after old is back", true, true)
		},
		"old down for an hour": func(w *writer) {
			w.register(nil)
			w.want("at start", true, true)
			states := w.record(newSide)
			w.stores[oldSide].Down(errWriterDown)
			time.Sleep(time.Hour)
			w.stores[oldSide].Up()
			time.Sleep(time.Minute)
			w.want("a minute after old is back", true, true)
			if got := fmt.Sprint(states()); got != "[there]" {
				w.t.Errorf("new had the states %v", got)
			}
		},
	} {
		t.Run(name, func(t *testing.T) { testWriter(t, phaseIs(Union), nil, f) })
	}
}

func TestLeaveWaitsForSlowRegistry(t *testing.T) {
	testWriter(t, phaseIs(Old), nil, func(w *writer) {
		w.register(nil)
		w.want("at start", true, false)
		w.stores[newSide].slow(3 * time.Second)
		w.phases.set(Done)
		time.Sleep(writerDelay + time.Second/2)
		w.want("while new is not registered", true, false)
		w.stores[newSide].slow(0)
		time.Sleep(time.Second) // a grant and a put of three seconds each
		w.want("just after the put", true, true)
		time.Sleep(writerDelay - time.Second)
		w.want("before the delay since the put", true, true)
		time.Sleep(time.Second)
		w.want("after the delay since the put", false, true)
	})
}

func TestLeaveWaitsForDownRegistry(t *testing.T) {
	testWriter(t, phaseIs(Old), nil, func(w *writer) {
		g := w.register(nil)
		w.want("at start", true, false)
		states := w.record(oldSide)
		w.stores[newSide].Down(errWriterDown)
		w.phases.set(NewWrite)
		time.Sleep(time.Hour)
		if n := len(w.entries(oldSide)); n != 1 {
			t.Fatal("the endpoint left the old registry, and the new one is down")
		}
		if st := g.Status(); st.Registered || !errors.Is(st.Err, errWriterDown) {
			t.Errorf("status %+v, want that of the new registry", st)
		}
		side := w.joined.registrations(writerService)[0].Sides[oldSide]
		if !side.Present || side.LeavingSince.IsZero() || side.Waits == "" {
			t.Errorf("the old registry's side is %+v", side)
		}
		w.stores[newSide].Up()
		if err := g.Wait(context.Background()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(writerDelay - time.Millisecond)
		w.want("before the delay", true, true)
		time.Sleep(2 * time.Millisecond)
		w.want("after the delay", false, true)
		if got := fmt.Sprint(states()); got != "[there -]" {
			t.Errorf("the old registry had the states %v; to leave is not to drain", got)
		}
	})
}

// TestLeaveStartsAgain loses the endpoint in the registry that counts during the delay.
func TestLeaveStartsAgain(t *testing.T) {
	testWriter(t, phaseIs(Union), nil, func(w *writer) {
		w.register(nil)
		w.want("at start", true, true)
		w.phases.set(NewWrite)
		time.Sleep(writerDelay - time.Second)
		w.stores[newSide].RefuseFunc(func(method, _ string) error {
			if method == "Apply" || method == "Grant" {
				return errWriterDown
			}
			return nil
		})
		w.stores[newSide].Wipe()
		time.Sleep(time.Minute)
		w.want("while new has lost the endpoint", true, false)
		w.stores[newSide].Up()
		time.Sleep(time.Minute)
		w.want("when new has the endpoint again", false, true)
	})
}

// TestLeaveIsCalledOff changes the phase back before the delay has passed.
func TestLeaveIsCalledOff(t *testing.T) {
	testWriter(t, phaseIs(Union), nil, func(w *writer) {
		g := w.register(nil)
		w.want("at start", true, true)
		old, next := w.record(oldSide), w.record(newSide)
		for range 20 {
			w.phases.set(Done)
			time.Sleep(writerDelay - time.Millisecond)
			w.phases.set(Old)
			time.Sleep(writerDelay - time.Millisecond)
			w.phases.set(DualWrite)
		}
		for range 20 {
			w.phases.set(Done)
			w.phases.set(Old)
		}
		w.phases.set(Union)
		time.Sleep(time.Minute)
		w.want("at the end", true, true)
		if got := fmt.Sprint(old(), next()); got != "[there] [there]" {
			t.Errorf("the registries had the states %v", got)
		}
		if st := g.Status(); !st.Registered || st.Since.After(time.Now().Add(-time.Minute)) {
			t.Errorf("status %+v", st)
		}
	})
}

// TestLeaveAfterMissedState changes the phase there and back before the server looks.
// Readers of other programs may have acted on the phase between, and need the delay.
func TestLeaveAfterMissedState(t *testing.T) {
	testWriter(t, phaseIs(Union), nil, func(w *writer) {
		w.register(nil)
		w.phases.set(Done)
		w.want("at the change to 7", true, true)
		time.Sleep(writerDelay - time.Second)
		w.phases.setQuietly(Old)
		w.phases.set(Done)
		time.Sleep(writerDelay - time.Millisecond)
		w.want("before the delay since the second change", true, true)
		time.Sleep(2 * time.Millisecond)
		w.want("after the delay since the second change", false, true)
	})
}

func TestZeroToSevenToZero(t *testing.T) {
	testWriter(t, phaseIs(Old), nil, func(w *writer) {
		w.register(nil)
		w.want("at start", true, false)
		old := w.record(oldSide)
		w.phases.set(Done)
		synctest.Wait()
		w.phases.set(Old)
		w.want("at once", true, true)
		time.Sleep(writerDelay + time.Millisecond)
		w.want("at the end", true, false)
		if got := fmt.Sprint(old()); got != "[there]" {
			t.Errorf("the old registry had the states %v", got)
		}
	})
}

// TestLeaveUnderWay changes the phase back while the endpoint is being removed.
func TestLeaveUnderWay(t *testing.T) {
	for name, fault := range map[string]func(w *writer){
		"slow":   func(w *writer) { w.stores[oldSide].slow(300 * time.Millisecond) },
		"down":   func(w *writer) { w.stores[oldSide].Down(errWriterDown) },
		"silent": func(w *writer) { w.stores[oldSide].Silence() },
	} {
		t.Run(name, func(t *testing.T) {
			testWriter(t, phaseIs(Union), nil, func(w *writer) {
				g := w.register(nil)
				w.want("at start", true, true)
				w.phases.set(Done)
				time.Sleep(writerDelay - 10*time.Millisecond)
				fault(w)
				time.Sleep(110 * time.Millisecond) // the removal has begun
				if w.joined.registrations(writerService)[0].Sides[oldSide].Present {
					t.Error("the removal has not begun")
				}
				w.phases.set(Union)
				time.Sleep(100 * time.Millisecond)
				w.stores[oldSide].slow(0)
				w.stores[oldSide].Speak()
				w.stores[oldSide].Up()
				time.Sleep(time.Minute)
				w.want("at the end", true, true)
				if st := g.Status(); !st.Registered {
					t.Errorf("status %+v", st)
				}
			})
		})
	}
}

// TestLeaveDownRegistry leaves a registry that is down, for less and for longer than the
// removal is tried.
func TestLeaveDownRegistry(t *testing.T) {
	for _, d := range []time.Duration{3 * time.Second, time.Hour} {
		testWriter(t, phaseIs(Union), nil, func(w *writer) {
			g := w.register(nil)
			w.want("at start", true, true)
			w.stores[oldSide].Down(errWriterDown)
			w.phases.set(Done)
			time.Sleep(writerDelay + d)
			if err := g.Update(context.Background(), []byte("1")); err != nil {
				t.Error(err)
			}
			w.stores[oldSide].Up()
			time.Sleep(time.Minute)
			w.want("when old is back", false, true)
			w.wantContent("when old is back", newSide, "1", false)
		})
	}
}

func TestUnknownAtStart(t *testing.T) {
	for p, left := range map[Phase]sideIndex{Old: newSide, Done: oldSide} {
		testWriter(t, new(phaseSource), nil, func(w *writer) {
			g := w.register(&naming.RegisterOptions{Wait: true})
			w.want("while the phase is unknown", true, true)
			w.phases.set(p)
			w.want("when the phase is known", true, true)
			time.Sleep(writerDelay + time.Millisecond)
			w.want("after the delay", left != oldSide, left != newSide)
			if st := g.Status(); !st.Registered {
				t.Errorf("status %+v", st)
			}
		})
	}
}

// TestUnknownCounts shows that the old registry counts while the phase is unknown.
func TestUnknownCounts(t *testing.T) {
	testWriter(t, new(phaseSource), nil, func(w *writer) {
		w.stores[oldSide].Down(errWriterDown)
		g := w.register(nil)
		time.Sleep(time.Second)
		if st := g.Status(); st.Registered {
			t.Errorf("status %+v", st)
		}
		w.phases.set(NewRead)
		synctest.Wait()
		if st := g.Status(); !st.Registered || st.Err != nil || st.FailedAttempts != 0 {
			t.Errorf("status %+v", st)
		}
	})
}

// TestReadOnly has a read-only registry on each side, in every phase.
func TestReadOnly(t *testing.T) {
	for p := Old; p <= Done; p++ {
		for ro := range sideIndex(2) {
			opts := &Options{OldReadOnly: ro == oldSide, NewReadOnly: ro == newSide}
			testWriter(t, phaseIs(p), opts, func(w *writer) {
				g := w.register(&naming.RegisterOptions{Wait: true})
				there := p.writes(ro.other())
				w.want(fmt.Sprint(p, ro), there && ro == newSide, there && ro == oldSide)
				if err := g.Ready(); err != nil {
					t.Errorf("phase %v: %v", p, err)
				}
				if err := g.Update(context.Background(), []byte("1")); err != nil {
					t.Errorf("phase %v: %v", p, err)
				}
				w.phases.set(Done - p)
				time.Sleep(writerDelay + time.Millisecond)
				there = (Done - p).writes(ro.other())
				w.want(fmt.Sprint(Done-p, ro), there && ro == newSide, there && ro == oldSide)
				if n := w.stores[ro].Calls(); n > 2 { // those of want
					t.Errorf("%d calls to a registry that is read-only", n)
				}
				if err := g.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}
