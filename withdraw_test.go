package naming_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
)

// states records the states of one endpoint of a service in a store: "-" if it was not
// there, "draining" or "there". The returned function ends the record and returns the
// states.
func states(store *memory.Store, service, id string) func() []string {
	var mu sync.Mutex
	var list []string
	add := func(s string) {
		mu.Lock()
		defer mu.Unlock()
		if len(list) == 0 || list[len(list)-1] != s {
			list = append(list, s)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for b, err := range store.Watch(ctx, service) {
			if err != nil {
				return
			}
			found := !b.Snapshot
			for _, e := range b.Put {
				if e.ID != id {
					continue
				}
				found = true
				if e.Draining {
					add("draining")
				} else {
					add("there")
				}
			}
			for _, deleted := range b.Deleted {
				if deleted == id {
					add("-")
				}
			}
			if !found {
				add("-")
			}
		}
	}()
	synctest.Wait()
	return func() []string {
		synctest.Wait()
		cancel()
		synctest.Wait()
		return list
	}
}

func registerAt(t *testing.T, c *naming.Client, addr string, opts *naming.RegisterOptions) *naming.Registration {
	t.Helper()
	g, err := c.Register(context.Background(), "svc", naming.Endpoint{Addr: addr}, opts)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return g
}

// TestWithdraw removes an endpoint without the draining mark.
func TestWithdraw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var withdrawn []error
		store := new(memory.Store)
		c := naming.New(store, &naming.Options{Hooks: &naming.Hooks{
			Withdrawn: func(i naming.WithdrawnInfo) { withdrawn = append(withdrawn, i.Err) },
		}})
		defer c.Close()
		g := registerAt(t, c, "a:1", nil)
		seen := states(store, "svc", "a:1")
		begun := time.Now()
		if err := g.Withdraw(context.Background()); err != nil {
			t.Error(err)
		}
		if d := time.Since(begun); d != 0 {
			t.Errorf("Withdraw took %v", d)
		}
		if got := fmt.Sprint(seen()); got != "[there -]" {
			t.Errorf("the registry had the states %v", got)
		}
		if st := g.Status(); st.Registered || !st.Closed || st.Draining {
			t.Errorf("status %+v", st)
		}
		if err := errors.Join(g.Close(), g.Withdraw(context.Background())); err != nil {
			t.Errorf("after Withdraw: %v", err)
		}
		if len(withdrawn) != 1 || withdrawn[0] != nil {
			t.Errorf("Withdrawn was called with %v", withdrawn)
		}
		if err := g.Update(context.Background(), []byte("1")); err == nil {
			t.Error("Update after Withdraw returned nil")
		}
	})
}

// TestWithdrawNeverPut withdraws an endpoint from a registry that is down.
func TestWithdrawNeverPut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(memory.Store)
		store.Down(errors.New("down"))
		c := naming.New(store, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
		defer c.Close()
		g := registerAt(t, c, "a:1", nil)
		begun := time.Now()
		if err := g.Withdraw(context.Background()); err != nil {
			t.Error(err)
		}
		if d := time.Since(begun); d != 0 {
			t.Errorf("Withdraw took %v, and nothing was put", d)
		}
	})
}

// TestWithdrawDown withdraws while the registry is down, until the context is done.
func TestWithdrawDown(t *testing.T) {
	for name, fail := range map[string]func(*memory.Store){
		"down":   func(s *memory.Store) { s.Down(errors.New("down")) },
		"silent": (*memory.Store).Silence,
	} {
		synctest.Test(t, func(t *testing.T) {
			store := new(memory.Store)
			c := naming.New(store, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
			defer c.Close()
			g := registerAt(t, c, "a:1", nil)
			fail(store)
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			defer cancel()
			begun := time.Now()
			err := g.Withdraw(ctx)
			// The lease is revoked in the end, for which there is a call's time.
			if d := time.Since(begun); err == nil || d > 3*time.Second {
				t.Errorf("%s: Withdraw returned %v after %v", name, err, d)
			}
			if err := g.Close(); err == nil {
				t.Errorf("%s: Close after Withdraw returned nil", name)
			}
			store.Up()
			store.Speak()
		})
	}
}

// TestWithdrawWithClose calls Withdraw and Close at the same time. The first decides.
func TestWithdrawWithClose(t *testing.T) {
	for _, closeFirst := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			store := new(memory.Store)
			c := naming.New(store, nil)
			defer c.Close()
			g := registerAt(t, c, "a:1", nil)
			store.Delay(100 * time.Millisecond)
			first, second := func() error { return g.Withdraw(context.Background()) }, g.Close
			if closeFirst {
				first, second = second, first
			}
			done := make(chan error, 2)
			begun := time.Now()
			go func() { done <- first() }()
			synctest.Wait()
			go func() { done <- second() }()
			if err := errors.Join(<-done, <-done); err != nil {
				t.Error(err)
			}
			if d := time.Since(begun); (d >= time.Second) != closeFirst {
				t.Errorf("Close first: %v. Both took %v", closeFirst, d)
			}
			store.Delay(0)
			if n := count(t, store); n != 0 {
				t.Errorf("%d endpoints are left", n)
			}
		})
	}
}

func count(t *testing.T, store *memory.Store) int {
	t.Helper()
	for b, err := range store.Watch(context.Background(), "svc") {
		if err != nil {
			t.Fatal(err)
		}
		return len(b.Put)
	}
	return 0
}

// TestWithdrawLeavesSuccessor withdraws an endpoint whose entry belongs to a successor: one
// of another process, and a newer Registration of the same Client.
func TestWithdrawLeavesSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(memory.Store)
		c, other := naming.New(store, nil), naming.New(store, nil)
		defer c.Close()
		defer other.Close()
		older := registerAt(t, c, "a:1", nil)
		successor := registerAt(t, other, "a:1", nil)
		newer := registerAt(t, c, "b:1", nil)
		newest := registerAt(t, c, "b:1", nil)
		a, b := states(store, "svc", "a:1"), states(store, "svc", "b:1")
		if err := errors.Join(older.Withdraw(context.Background()), newer.Withdraw(context.Background())); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if got := fmt.Sprint(a(), b()); got != "[there] [there]" {
			t.Errorf("the entries had the states %v", got)
		}
		if !successor.Status().Registered || !newest.Status().Registered {
			t.Error("a successor is not registered")
		}
	})
}

// TestSuccessorOfFailedWithdraw registers an endpoint while an older Registration of it
// rests between two attempts to remove the endpoint. When the older one gives up, it must
// not have the lease, which both share, remove the entry.
func TestSuccessorOfFailedWithdraw(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			store := new(memory.Store)
			c := naming.New(store, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
			defer c.Close()
			older := registerAt(t, c, "a:1", nil)
			registerAt(t, c, "b:1", nil) // keeps the lease
			store.RefuseFunc(func(method, _ string) error {
				if method == "Apply" {
					return errors.New("refused")
				}
				return nil
			})
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- older.Withdraw(ctx) }()
			time.Sleep(9500 * time.Millisecond)
			store.Up()
			newer := registerAt(t, c, "a:1", nil)
			seen := states(store, "svc", "a:1")
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("Withdraw returned %v, and a newer Registration has the entry", err)
				}
			default:
				t.Error("Withdraw has not returned, and a newer Registration has the entry")
				<-done
			}
			time.Sleep(time.Minute)
			if got := fmt.Sprint(seen()); got != "[there]" {
				t.Errorf("the entry of the newer Registration had the states %v", got)
			}
			if !newer.Status().Registered {
				t.Error("the newer Registration is not registered")
			}
		})
	}
}
