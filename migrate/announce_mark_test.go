package migrate

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
)

// mark marks the endpoint through the joined Client.
func (w *writer) mark(draining bool) {
	w.t.Helper()
	if err := w.joined.Mark(context.Background(), writerService, writerAddr, draining); err != nil {
		w.t.Fatalf("Mark(%v): %v", draining, err)
	}
	synctest.Wait()
}

func (w *writer) wantMarked(when string, g *naming.Registration, want bool) {
	w.t.Helper()
	synctest.Wait()
	if st := g.Status(); st.MarkedByOther != want || st.Draining != want || !st.Registered {
		w.t.Fatalf("%s: status %+v, want marked by somebody else: %v", when, st, want)
	}
}

// TestMarkInBoth marks the endpoint in both registries, and ends that in each way.
func TestMarkInBoth(t *testing.T) {
	testWriter(t, phaseIs(Union), nil, func(w *writer) {
		var last naming.RegistrationStatus
		g := w.register(&naming.RegisterOptions{Wait: true, OnChange: func(st naming.RegistrationStatus) { last = st }})
		time.Sleep(time.Minute)
		w.mark(true)
		w.wantMarked("marked", g, true)
		if !last.MarkedByOther {
			t.Errorf("OnChange was called with %+v last", last)
		}
		if err := g.Update(context.Background(), []byte("1")); err != nil {
			t.Fatal(err)
		}
		w.wantContent("updated", oldSide, "1", true)
		w.wantContent("updated", newSide, "1", true)
		w.mark(false)
		w.wantMarked("no mark", g, false)
		w.wantContent("no mark", oldSide, "1", false)
		w.wantContent("no mark", newSide, "1", false)

		w.mark(true)
		w.wantMarked("marked again", g, true)
		if err := g.Resume(context.Background()); err != nil {
			t.Fatal(err)
		}
		w.wantMarked("resumed at once", g, false)
		w.mark(true)
		if err := g.Drain(context.Background()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !last.Draining || last.MarkedByOther {
			t.Errorf("after Drain, OnChange was called with %+v last", last)
		}
		if err := g.Resume(context.Background()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		w.wantMarked("resumed by the program", g, false)
		w.wantContent("resumed by the program", oldSide, "1", false)
		w.wantContent("resumed by the program", newSide, "1", false)
	})
}

// TestMarkIsCarried marks the endpoint while one registry has it. A later phase registers the
// endpoint in the other registry as well, and then in that registry alone.
func TestMarkIsCarried(t *testing.T) {
	testWriter(t, phaseIs(Old), nil, func(w *writer) {
		g := w.register(&naming.RegisterOptions{Wait: true})
		time.Sleep(time.Minute)
		w.mark(true)
		for _, phase := range []Phase{Union, NewWrite} {
			w.phases.set(phase)
			time.Sleep(10 * time.Minute)
			w.wantContent(phase.String(), newSide, "", true)
			w.wantMarked(phase.String(), g, true)
		}
		w.want("new", false, true)
		w.mark(false)
		w.wantContent("no mark", newSide, "", false)
		time.Sleep(time.Minute)
		w.wantContent("no mark", newSide, "", false)
		w.wantMarked("no mark", g, false)
	})
}

// TestMarkIsCarriedOnce removes the mark from the registry that the endpoint came to.
func TestMarkIsCarriedOnce(t *testing.T) {
	testWriter(t, phaseIs(Old), nil, func(w *writer) {
		g := w.register(&naming.RegisterOptions{Wait: true})
		time.Sleep(time.Minute)
		w.mark(true)
		w.phases.set(Union)
		time.Sleep(time.Minute)
		w.wantContent("union", newSide, "", true)
		if err := w.stores[newSide].Mark(context.Background(), writerService, writerAddr, false); err != nil {
			t.Fatal(err)
		}
		if err := g.Update(context.Background(), []byte("1")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		w.wantContent("removed", oldSide, "1", true)
		w.wantContent("removed", newSide, "1", false)
	})
}

// refuseMarks makes the new registry refuse to mark, until refuse is false.
func (w *writer) refuseMarks(refuse bool) {
	w.stores[newSide].RefuseFunc(func(method, _ string) error {
		if refuse && method == "Mark" {
			return errWriterDown
		}
		return nil
	})
}

// TestMarkIsCarriedLater lets the registry that the endpoint comes to refuse the mark, until the
// endpoint has left the other registry. The program is not held up.
func TestMarkIsCarriedLater(t *testing.T) {
	testWriter(t, phaseIs(Old), nil, func(w *writer) {
		g := w.register(&naming.RegisterOptions{Wait: true})
		time.Sleep(time.Minute)
		w.mark(true)
		w.refuseMarks(true)
		for _, phase := range []Phase{Union, NewWrite} {
			w.phases.set(phase)
			time.Sleep(time.Minute)
			if err := g.Update(context.Background(), fmt.Append(nil, int(phase))); err != nil {
				t.Fatal(err)
			}
		}
		w.want("new", false, true)
		w.refuseMarks(false)
		time.Sleep(2 * maxCarryRest)
		w.wantContent("carried", newSide, strconv.Itoa(int(NewWrite)), true)
		w.wantMarked("carried", g, true)
	})
}

// TestMarkIsNotCarriedAfterResume lets the program resume before the mark could be carried.
func TestMarkIsNotCarriedAfterResume(t *testing.T) {
	testWriter(t, phaseIs(Old), nil, func(w *writer) {
		g := w.register(&naming.RegisterOptions{Wait: true})
		time.Sleep(time.Minute)
		w.mark(true)
		w.refuseMarks(true)
		w.phases.set(NewWrite)
		time.Sleep(time.Minute)
		w.want("new", false, true)
		for _, err := range []error{g.Drain(context.Background()), g.Resume(context.Background())} {
			if err != nil {
				t.Fatal(err)
			}
		}
		w.refuseMarks(false)
		time.Sleep(2 * maxCarryRest)
		w.wantContent("resumed", newSide, "", false)
		w.wantMarked("resumed", g, false)
	})
}

// TestMarkOfOneRegistry marks entries that one registry has, or none.
func TestMarkOfOneRegistry(t *testing.T) {
	testWriter(t, phaseIs(Union), nil, func(w *writer) {
		ctx := context.Background()
		for i, id := range []string{"old:1", "new:1"} {
			if err := w.stores[i].Apply(ctx, writerService, naming.Change{Endpoint: naming.Endpoint{Addr: id}}); err != nil {
				t.Fatal(err)
			}
			if err := w.joined.Mark(ctx, writerService, id, true); err != nil {
				t.Errorf("Mark of %s, which one registry has: %v", id, err)
			}
			if list := w.entries(sideIndex(i)); len(list) != 1 || !list[0].Draining {
				t.Errorf("registry %d has %v", i, list)
			}
		}
		if err := w.joined.Mark(ctx, writerService, "none:1", true); !errors.Is(err, naming.ErrNotFound) {
			t.Errorf("Mark of an entry that no registry has: got error %v, want ErrNotFound", err)
		}
		w.stores[newSide].Down(errors.New("down"))
		if err := w.joined.Mark(ctx, writerService, "old:1", false); err == nil || errors.Is(err, naming.ErrNotFound) {
			t.Errorf("Mark while one registry is down: got error %v, want one of the registry", err)
		}
		if list := w.entries(oldSide); list[0].Draining {
			t.Errorf("the registry that is up has %v", list)
		}
	})
}

// TestMarkOfReadOnly leaves a read-only registry alone.
func TestMarkOfReadOnly(t *testing.T) {
	testWriter(t, phaseIs(Union), &Options{OldReadOnly: true}, func(w *writer) {
		ctx := context.Background()
		if err := w.stores[oldSide].Apply(ctx, writerService, naming.Change{Endpoint: naming.Endpoint{Addr: "old:1"}}); err != nil {
			t.Fatal(err)
		}
		if err := w.joined.Mark(ctx, writerService, "old:1", true); !errors.Is(err, naming.ErrNotFound) {
			t.Errorf("got error %v, want ErrNotFound", err)
		}
		if list := w.entries(oldSide); list[0].Draining {
			t.Errorf("the read-only registry has %v", list)
		}
	})
}
