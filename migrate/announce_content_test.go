package migrate

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
)

func hasMark(e naming.Endpoint) bool { return e.Draining }

func hasMetadata(e naming.Endpoint) bool { return strings.Contains(string(e.Metadata), "bad") }

// TestContentIsKept changes the content, and then the phase.
func TestContentIsKept(t *testing.T) {
	testWriter(t, phaseIs(Old), nil, func(w *writer) {
		g, ctx := w.register(nil), context.Background()
		if err := errors.Join(g.Update(ctx, []byte(`{"a":1}`)), g.Drain(ctx)); err != nil {
			t.Fatal(err)
		}
		w.wantContent("phase 0", oldSide, `{"a":1}`, true)
		next := w.record(newSide)
		w.phases.set(Union)
		w.wantContent("phase 3", newSide, `{"a":1}`, true)
		if got := next(); len(got) != 2 || got[1] != "draining" {
			t.Errorf("the new registry had the states %v: the first entry has to be marked", got)
		}
		if err := errors.Join(g.Resume(ctx), g.Update(ctx, []byte("2"))); err != nil {
			t.Fatal(err)
		}
		w.wantContent("changed in phase 3", oldSide, "2", false)
		w.wantContent("changed in phase 3", newSide, "2", false)
	})
}

// TestContentWaitsForCounting changes the content while each registry is down in turn.
func TestContentWaitsForCounting(t *testing.T) {
	testWriter(t, phaseIs(Union), nil, func(w *writer) {
		g := w.register(&naming.RegisterOptions{Wait: true})
		synctest.Wait()
		w.stores[newSide].Silence()
		if d := took(func() { _ = g.Update(context.Background(), []byte("1")) }); d != 0 {
			t.Errorf("Update took %v, and the registry that counts is up", d)
		}
		w.wantContent("new silent", oldSide, "1", false)
		w.stores[newSide].Speak()
		time.Sleep(time.Minute)
		w.wantContent("new back", newSide, "1", false)

		w.stores[oldSide].Silence()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := g.Update(ctx, []byte("2")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Update returned %v, and the registry that counts is silent", err)
		}
		w.wantContent("old silent", newSide, "2", false)
		w.stores[oldSide].Speak()
		time.Sleep(time.Minute)
		w.wantContent("old back", oldSide, "2", false)
	})
}

// TestCountingChangesWhileCallsWait has another registry count while calls wait.
func TestCountingChangesWhileCallsWait(t *testing.T) {
	testWriter(t, phaseIs(Union), nil, func(w *writer) {
		w.stores[oldSide].Down(errWriterDown)
		g := w.register(nil)
		results := make(chan error, 3)
		ctx := context.Background()
		go func() { results <- g.Wait(ctx) }()
		go func() { results <- g.Drain(ctx) }()
		go func() { results <- g.Update(ctx, []byte("1")) }()
		time.Sleep(time.Minute)
		if len(results) > 0 {
			t.Fatalf("a call returned %v while the registry that counts was down", <-results)
		}
		w.phases.set(NewRead)
		synctest.Wait()
		for range cap(results) {
			select {
			case err := <-results:
				if err != nil {
					t.Error(err)
				}
			default:
				t.Fatal("a call still waits")
			}
		}
		w.wantContent("phase 5", newSide, "1", true)
	})
}

// TestRefusedByCounting has the registry that counts refuse a change. The other registry
// has to have the content of before in the end.
func TestRefusedByCounting(t *testing.T) {
	testWriter(t, phaseIs(Union), nil, func(w *writer) {
		g, ctx := w.register(nil), context.Background()
		if err := g.Update(ctx, []byte(`"good"`)); err != nil {
			t.Fatal(err)
		}
		w.stores[oldSide].refuse(hasMetadata)
		err := g.Update(ctx, []byte(`"bad"`))
		if !errors.Is(err, naming.ErrInvalid) || !strings.Contains(err.Error(), `registry "old"`) {
			t.Errorf("Update returned %v", err)
		}
		if st := g.Status(); !st.Registered || !errors.Is(st.Err, naming.ErrInvalid) {
			t.Errorf("status %+v: want that of a plain Client", st)
		}
		w.stores[oldSide].refuse(hasMark)
		if err := g.Drain(ctx); !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("Drain returned %v", err)
		}
		if st := g.Status(); !st.Registered || st.Draining {
			t.Errorf("status %+v after a refused Drain", st)
		}
		synctest.Wait()
		for i := range w.stores {
			w.wantContent("refused", sideIndex(i), `"good"`, false)
		}
		if err := g.Wait(ctx); err != nil {
			t.Errorf("Wait after a refused change returned %v", err)
		}
		w.stores[oldSide].refuse(nil)
		if err := errors.Join(g.Update(ctx, []byte(`"bad"`)), g.Drain(ctx)); err != nil {
			t.Errorf("accepted changes: %v", err)
		}
		if st := g.Status(); st.Err != nil || !st.Draining {
			t.Errorf("status %+v", st)
		}
		for i := range w.stores {
			w.wantContent("accepted", sideIndex(i), `"bad"`, true)
		}
	})
}

// TestRefusedByTheOther has the registry that does not count refuse a change.
func TestRefusedByTheOther(t *testing.T) {
	testWriter(t, phaseIs(Union), nil, func(w *writer) {
		g, ctx := w.register(nil), context.Background()
		w.want("at start", true, true)
		w.stores[newSide].refuse(func(e naming.Endpoint) bool { return hasMark(e) || hasMetadata(e) })
		if err := errors.Join(g.Drain(ctx), g.Update(ctx, []byte(`"bad"`))); err != nil {
			t.Errorf("the registry that counts accepted the changes: %v", err)
		}
		w.wantContent("refused", oldSide, `"bad"`, true)
		w.wantContent("refused", newSide, "", false)
		if st := g.Status(); st.Err != nil || !st.Draining {
			t.Errorf("status %+v", st)
		}
		side := w.joined.registrations(writerService)[0].Sides[newSide]
		if !errors.Is(side.Status.Err, naming.ErrInvalid) || !side.Status.Registered {
			t.Errorf("status of the other registry %+v", side.Status)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		w.want("closed", false, false)
	})
}

// TestRefusedBecomesCounting has the registry that refused a change count later. The
// change is not undone in the registry that accepted it.
func TestRefusedBecomesCounting(t *testing.T) {
	testWriter(t, phaseIs(Union), nil, func(w *writer) {
		g, ctx := w.register(nil), context.Background()
		w.stores[newSide].refuse(hasMark)
		if err := g.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		w.phases.set(NewRead)
		synctest.Wait()
		if st := g.Status(); !st.Draining || !st.Registered || !errors.Is(st.Err, naming.ErrInvalid) {
			t.Errorf("status %+v", st)
		}
		w.wantContent("phase 5", oldSide, "", true)
		if err := g.Resume(ctx); err != nil {
			t.Error(err)
		}
		if st := g.Status(); st.Draining || st.Err != nil {
			t.Errorf("status %+v", st)
		}
		w.wantContent("resumed", oldSide, "", false)
	})
}

// TestRegisterDraining registers an endpoint that is draining.
func TestRegisterDraining(t *testing.T) {
	for refuses := range sideIndex(2) {
		testWriter(t, phaseIs(Union), nil, func(w *writer) {
			w.stores[refuses].refuse(hasMark)
			g, err := w.joined.Register(context.Background(), writerService, naming.Endpoint{Addr: writerAddr, Draining: true}, &naming.RegisterOptions{Wait: true})
			if refuses == oldSide {
				if !errors.Is(err, naming.ErrInvalid) {
					t.Errorf("Register returned %v", err)
				}
				w.want("refused", false, false)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			w.wantContent("old", oldSide, "", true)
			w.wantContent("new", newSide, "", false)
			w.stores[newSide].refuse(nil)
			if err := errors.Join(g.Resume(context.Background()), g.Drain(context.Background())); err != nil {
				t.Error(err)
			}
			w.wantContent("accepted", newSide, "", true)
		})
	}
}

// TestDrainThenRefusingRegistry enters a registry that has no place for the mark of an
// endpoint that is draining.
func TestDrainThenRefusingRegistry(t *testing.T) {
	testWriter(t, phaseIs(Old), nil, func(w *writer) {
		g := w.register(nil)
		if err := g.Drain(context.Background()); err != nil {
			t.Fatal(err)
		}
		w.stores[newSide].refuse(hasMark)
		w.phases.set(Done)
		time.Sleep(time.Minute)
		w.want("phase 7", false, true)
		if st := g.Status(); !st.Registered || !st.Draining || !errors.Is(st.Err, naming.ErrInvalid) {
			t.Errorf("status %+v", st)
		}
		if err := g.Wait(context.Background()); !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("Wait returned %v", err)
		}
	})
}

// TestRegisterRefused registers an endpoint that a registry refuses, and repairs that
// with Update.
func TestRegisterRefused(t *testing.T) {
	for refuses := range sideIndex(2) {
		testWriter(t, phaseIs(Union), nil, func(w *writer) {
			w.stores[refuses].refuse(hasMetadata)
			e := naming.Endpoint{Addr: writerAddr, Metadata: []byte(`"bad"`)}
			g, err := w.joined.Register(context.Background(), writerService, e, nil)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if err := g.Wait(ctx); errors.Is(err, naming.ErrInvalid) != (refuses == oldSide) {
				t.Errorf("registry %d refuses, and Wait returned %v", refuses, err)
			}
			w.want("refused", refuses != oldSide, refuses != newSide)
			if err := g.Update(ctx, []byte(`"good"`)); err != nil {
				t.Error(err)
			}
			w.wantContent("repaired", oldSide, `"good"`, false)
			w.wantContent("repaired", newSide, `"good"`, false)
			w.stores[refuses].refuse(nil)
		})
	}
	// The cause of the refusal passes, and the content does not change.
	testWriter(t, phaseIs(Union), nil, func(w *writer) {
		w.stores[oldSide].refuse(func(naming.Endpoint) bool { return true })
		g := w.register(nil)
		time.Sleep(time.Second)
		w.stores[oldSide].refuse(nil)
		time.Sleep(15 * time.Minute)
		if st := g.Status(); !st.Registered || st.Err != nil {
			t.Errorf("status %+v", st)
		}
		if err := g.Wait(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func TestUpdateInvalid(t *testing.T) {
	testWriter(t, phaseIs(Union), nil, func(w *writer) {
		g := w.register(nil)
		if err := g.Update(context.Background(), []byte("{")); !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("Update returned %v", err)
		}
	})
}
