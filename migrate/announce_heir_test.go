package migrate

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
)

// newer registers the endpoint of register with another address.
func (w *writer) newer(opts *naming.RegisterOptions) *naming.Registration {
	w.t.Helper()
	g, err := w.joined.Register(context.Background(), writerService, naming.Endpoint{ID: writerAddr, Addr: "10.0.0.2:80"}, opts)
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

// TestHeirStaysListed closes the newer of two Registrations in a phase whose registry is
// down. The older server stays in the other registry until that of the phase has it.
func TestHeirStaysListed(t *testing.T) {
	testWriter(t, phaseIs(Old), nil, func(w *writer) {
		older := w.register(&naming.RegisterOptions{Wait: true})
		newer := w.newer(&naming.RegisterOptions{Wait: true})
		w.stores[newSide].Down(errWriterDown)
		w.phases.set(NewWrite)
		time.Sleep(time.Minute)
		if err := newer.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if got := w.entries(oldSide); len(got) != 1 || got[0].Addr != writerAddr {
			t.Errorf("the old registry has %v, want the endpoint of the older Registration", got)
		}
		w.stores[newSide].Up()
		if err := older.Wait(context.Background()); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		w.want("the new registry is back", false, true)
		if err := older.Close(); err != nil {
			t.Error(err)
		}
		w.want("both closed", false, false)
	})
}

// TestHeirThatCloses closes both Registrations at the same time. No entry is left.
func TestHeirThatCloses(t *testing.T) {
	for d := range 5 {
		testWriter(t, phaseIs(Old), nil, func(w *writer) {
			older, newer := w.register(&naming.RegisterOptions{Wait: true}), w.newer(&naming.RegisterOptions{Wait: true})
			w.phases.set(NewWrite)
			synctest.Wait()
			go func() { _ = newer.Close() }()
			time.Sleep(time.Second + time.Duration(d-2)*time.Millisecond) // about the drain delay
			if err := older.Close(); err != nil {
				t.Error(err)
			}
			_ = newer.Close()
			time.Sleep(time.Minute)
			w.want("both closed", false, false)
		})
	}
}

// TestTwoLeaveWithoutDelay has two Registrations of an endpoint leave a registry at the same
// moment. Neither puts the entry of the other one again.
func TestTwoLeaveWithoutDelay(t *testing.T) {
	for _, slow := range []time.Duration{0, time.Millisecond, 300 * time.Millisecond} {
		testWriter(t, phaseIs(Union), &Options{LeaveDelay: -1}, func(w *writer) {
			older, newer := w.register(&naming.RegisterOptions{Wait: true}), w.newer(&naming.RegisterOptions{Wait: true})
			w.stores[oldSide].slow(slow)
			for range 3 {
				w.phases.set(Done)
				time.Sleep(10 * time.Second)
				w.want("done", false, true)
				w.phases.set(Union)
				time.Sleep(10 * time.Second)
				w.want("back in union", true, true)
			}
			w.phases.set(Done)
			if err := newer.Close(); err != nil {
				t.Error(err)
			}
			time.Sleep(10 * time.Second)
			w.want("the newer one closed", false, true)
			if err := older.Close(); err != nil {
				t.Error(err)
			}
			w.want("both closed", false, false)
		})
	}
}

// TestReplacedDuringClose registers the endpoint again while Close waits for clients. The
// hook about the end is not called: a newer Registration has the entry.
func TestReplacedDuringClose(t *testing.T) {
	l := new(hookLog)
	testWriter(t, phaseIs(Union), &Options{Client: naming.Options{Hooks: l.hooks("")}}, func(w *writer) {
		older := w.register(&naming.RegisterOptions{Wait: true})
		closed := make(chan error, 1)
		go func() { closed <- older.Close() }()
		time.Sleep(500 * time.Millisecond)
		newer := w.newer(&naming.RegisterOptions{Wait: true})
		if err := errors.Join(<-closed, newer.Wait(context.Background())); err != nil {
			t.Error(err)
		}
		w.want("the older one closed", true, true)
		if got := l.take(); got != "[registered false registered false]" {
			t.Errorf("the hooks %v were called", got)
		}
	})
}
