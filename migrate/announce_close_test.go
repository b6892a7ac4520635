package migrate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
)

// TestCloseMarksEverywhere closes a Registration and expects the mark in both registries
// at the same time.
func TestCloseMarksEverywhere(t *testing.T) {
	testWriter(t, phaseIs(Union), nil, func(w *writer) {
		g := w.register(nil)
		w.want("at start", true, true)
		old, next := w.record(oldSide), w.record(newSide)
		d := took(func() {
			if err := g.Close(); err != nil {
				t.Error(err)
			}
		})
		if d < time.Second || d > time.Second+100*time.Millisecond {
			t.Errorf("Close took %v, want the drain delay", d)
		}
		if got := fmt.Sprint(old(), next()); got != "[there draining -] [there draining -]" {
			t.Errorf("the registries had the states %v", got)
		}
		if st := g.Status(); st.Registered || !st.Closed || !st.Draining {
			t.Errorf("status %+v", st)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestCloseWithRegistryDown closes while one registry is down.
func TestCloseWithRegistryDown(t *testing.T) {
	const drain = time.Second // the default DrainDelay
	for _, c := range []struct {
		name     string
		downFor  time.Duration // before Close; 0: since before Register
		most     time.Duration // of Close
		wantErr  bool
		silently bool
	}{
		{name: "never had it", most: drain + 10*time.Millisecond},
		{name: "never had it, silent", most: drain + 10*time.Millisecond, silently: true},
		{name: "lost it an hour ago", downFor: time.Hour, most: drain + 10*time.Millisecond},
		{name: "lost it an hour ago, silent", downFor: time.Hour, most: drain + 10*time.Millisecond, silently: true},
		{name: "has it", downFor: time.Second, most: 6 * time.Second, wantErr: true},
		{name: "has it, silent", downFor: time.Second, most: 6 * time.Second, wantErr: true, silently: true},
	} {
		for down := range sideIndex(2) {
			t.Run(fmt.Sprint(c.name, " ", down), func(t *testing.T) {
				testWriter(t, phaseIs(Union), nil, func(w *writer) {
					fail := func() { w.stores[down].Down(errWriterDown) }
					if c.silently {
						fail = w.stores[down].Silence
					}
					if c.downFor == 0 {
						fail()
					}
					g := w.register(nil)
					time.Sleep(time.Minute)
					if c.downFor > 0 {
						fail()
						time.Sleep(c.downFor)
					}
					var err error
					if d := took(func() { err = g.Close() }); d > c.most {
						t.Errorf("Close took %v, want at most %v", d, c.most)
					}
					name := w.joined.sides[down].name
					if (err != nil) != c.wantErr || err != nil && !strings.Contains(err.Error(), fmt.Sprintf("registry %q", name)) {
						t.Errorf("Close returned %v, want an error that names %q: %v", err, name, c.wantErr)
					}
					if n := len(w.entries(down.other())); n != 0 {
						t.Errorf("%d endpoints in the other registry", n)
					}
					w.stores[down].Speak()
					w.stores[down].Up()
					time.Sleep(time.Minute)
					w.want("when the registry is back", false, false)
				})
			})
		}
	}
}

// TestCloseWhileLeaving closes while the endpoint waits to leave a registry, and while it
// is being removed from that registry.
func TestCloseWhileLeaving(t *testing.T) {
	testWriter(t, phaseIs(Union), nil, func(w *writer) {
		g := w.register(nil)
		w.want("at start", true, true)
		states := w.record(oldSide)
		w.phases.set(Done)
		synctest.Wait()
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		w.want("closed", false, false)
		// The server stops, so readers of the old registry have to learn that.
		if got := fmt.Sprint(states()); got != "[there draining -]" {
			t.Errorf("the old registry had the states %v", got)
		}
	})
	testWriter(t, phaseIs(Union), nil, func(w *writer) {
		g := w.register(nil)
		w.want("at start", true, true)
		w.stores[oldSide].Down(errWriterDown)
		w.phases.set(Done)
		time.Sleep(writerDelay + time.Second)
		var err error
		if d := took(func() { err = g.Close() }); d > 6*time.Second {
			t.Errorf("Close took %v", d)
		}
		if !errors.Is(err, errWriterDown) {
			t.Errorf("Close returned %v, want that the endpoint stays in the old registry", err)
		}
	})
}

// TestCloseAfterFailedLeave closes after the removal from a registry was given up.
func TestCloseAfterFailedLeave(t *testing.T) {
	for after, listed := range map[time.Duration]bool{10 * time.Second: true, time.Minute: false} {
		testWriter(t, phaseIs(Union), nil, func(w *writer) {
			g := w.register(nil)
			w.want("at start", true, true)
			w.stores[oldSide].Down(errWriterDown)
			w.phases.set(Done)
			time.Sleep(writerDelay + leaveTimeout + after)
			if err := g.Close(); errors.Is(err, errWriterDown) != listed {
				t.Errorf("%v later, Close returned %v", after, err)
			}
		})
	}
}

func TestWithdrawJoined(t *testing.T) {
	testWriter(t, phaseIs(Union), nil, func(w *writer) {
		g := w.register(nil)
		w.want("at start", true, true)
		old, next := w.record(oldSide), w.record(newSide)
		if err := g.Withdraw(context.Background()); err != nil {
			t.Error(err)
		}
		w.want("withdrawn", false, false)
		if got := fmt.Sprint(old(), next()); got != "[there -] [there -]" {
			t.Errorf("the registries had the states %v", got)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	testWriter(t, phaseIs(Union), nil, func(w *writer) {
		g := w.register(nil)
		w.want("at start", true, true)
		w.stores[newSide].Silence()
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		var err error
		if d := took(func() { err = g.Withdraw(ctx) }); d > 3*time.Second {
			t.Errorf("Withdraw took %v", d)
		}
		if err == nil || !strings.Contains(err.Error(), `registry "new"`) {
			t.Errorf("Withdraw returned %v", err)
		}
		w.stores[newSide].Speak()
	})
}

// TestCloseClient closes the Client, and not the Registrations.
func TestCloseClient(t *testing.T) {
	testWriter(t, phaseIs(Union), nil, func(w *writer) {
		var list []*naming.Registration
		for i := range 10 {
			g, err := w.joined.Register(context.Background(), writerService, naming.Endpoint{Addr: fmt.Sprintf("10.0.0.%d:80", i)}, nil)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, g)
		}
		synctest.Wait()
		waiting := make(chan error, 1)
		w.stores[oldSide].Down(errWriterDown)
		time.Sleep(time.Minute)
		go func() { waiting <- list[0].Wait(context.Background()) }()
		synctest.Wait()
		if d := took(w.joined.Close); d > 2*time.Second {
			t.Errorf("Close took %v", d)
		}
		if err := <-waiting; err == nil {
			t.Error("Wait returned nil")
		}
		for _, g := range list {
			if err := g.Wait(context.Background()); !errors.Is(err, naming.ErrClientClosed) {
				t.Errorf("Wait returned %v", err)
			}
			if err := g.Drain(context.Background()); !errors.Is(err, naming.ErrClientClosed) {
				t.Errorf("Drain returned %v", err)
			}
		}
		w.stores[oldSide].Up()
		w.want("closed", false, false)
		_, err := w.joined.Register(context.Background(), writerService, naming.Endpoint{Addr: writerAddr}, nil)
		if !errors.Is(err, naming.ErrClientClosed) {
			t.Errorf("Register returned %v", err)
		}
	})
}

// TestCloseConcurrently calls all methods at the same time.
func TestCloseConcurrently(t *testing.T) {
	testWriter(t, phaseIs(Union), nil, func(w *writer) {
		g := w.register(nil)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		calls := []func(){
			func() { _ = g.Close() }, func() { _ = g.Close() },
			func() { _ = g.Withdraw(ctx) },
			func() { _ = g.Drain(ctx) },
			func() { _ = g.Resume(ctx) },
			func() { _ = g.Update(ctx, []byte("1")) },
			func() { _ = g.Wait(ctx) },
			func() { _ = g.Ready() },
			func() { w.phases.set(Done) }, func() { w.phases.set(Old) },
		}
		done := make(chan struct{})
		for _, f := range calls {
			go func() { f(); done <- struct{}{} }()
		}
		for range calls {
			<-done
		}
		w.want("closed", false, false)
	})
}
