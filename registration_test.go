package naming_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
)

// backWithin is how long after the end of a fault an endpoint may take to be back: the
// longest backoff, after a call that got no answer.
const backWithin = 40 * time.Second

func register(t *testing.T, c *naming.Client, service, e string, opts *naming.RegisterOptions) *naming.Registration {
	t.Helper()
	g, err := c.Register(t.Context(), service, endpoint(e), opts)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// listed fails t unless the store has exactly these endpoints.
func listed(t *testing.T, s naming.Store, service string, want ...string) {
	t.Helper()
	view, err := naming.New(s, quiet).List(t.Context(), service)
	if err != nil {
		t.Fatal(err)
	}
	list := view.Endpoints
	var wanted []naming.Endpoint
	for _, w := range want {
		w, draining := strings.CutSuffix(w, " draining")
		e := endpoint(w)
		e.Draining = draining
		wanted = append(wanted, e)
	}
	if !slices.EqualFunc(list, wanted, naming.Endpoint.Equal) {
		t.Fatalf("registry has %v, want %v", show(list), want)
	}
}

func show(list []naming.Endpoint) (s []string) {
	for _, e := range list {
		text := fmt.Sprintf("%s %s %s", e.ID, e.Addr, e.Metadata)
		if e.Draining {
			text += " draining"
		}
		s = append(s, text)
	}
	return s
}

func TestRegister(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		g := register(t, c, "svc", `a a:1 {"k":1}`, nil)
		synctest.Wait()
		listed(t, s, "svc", `a a:1 {"k":1}`)
		if st := g.Status(); !st.Registered || st.Err != nil || st.Draining || st.Closed {
			t.Errorf("status %+v", st)
		}
		time.Sleep(24 * time.Hour) // the lease is renewed
		listed(t, s, "svc", `a a:1 {"k":1}`)

		if err := g.Update(t.Context(), json.RawMessage(`{"k":2}`)); err != nil {
			t.Error(err)
		}
		listed(t, s, "svc", `a a:1 {"k":2}`)
		if err := g.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		listed(t, s, "svc", `a a:1 {"k":2} draining`)
		if err := g.Update(t.Context(), json.RawMessage(`{"k":3}`)); err != nil {
			t.Error(err)
		}
		listed(t, s, "svc", `a a:1 {"k":3} draining`)
		if err := g.Resume(t.Context()); err != nil {
			t.Error(err)
		}
		listed(t, s, "svc", `a a:1 {"k":3}`)
		if err := g.Update(t.Context(), json.RawMessage(`{`)); !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("update with metadata that is not JSON: %v", err)
		}

		begin := time.Now()
		closed := make(chan error, 2)
		for range 2 {
			go func() { closed <- g.Close() }()
		}
		time.Sleep(999 * time.Millisecond)
		listed(t, s, "svc", `a a:1 {"k":3} draining`)
		for range 2 {
			if err := <-closed; err != nil {
				t.Error(err)
			}
		}
		if d := time.Since(begin); d != time.Second {
			t.Errorf("Close took %v, want the drain delay of 1s", d)
		}
		listed(t, s, "svc")
		if st := g.Status(); st.Registered || !st.Closed {
			t.Errorf("status after Close: %+v", st)
		}
		for _, err := range []error{g.Wait(t.Context()), g.Update(t.Context(), nil), g.Drain(t.Context())} {
			if err == nil || !strings.Contains(err.Error(), "registration closed") {
				t.Errorf("after Close: %v", err)
			}
		}
		calls := s.Calls()
		time.Sleep(time.Hour)
		if s.Calls() != calls {
			t.Error("calls after Close")
		}
	})
}

// 500 cycles over all faults that lose a registration. After each, the endpoint is back
// in its newest state, within the bound.
func TestRegistrationHeals(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		seed := rand.Uint64()
		defer func() {
			if t.Failed() {
				t.Logf("seed %d", seed)
			}
		}()
		rnd := rand.New(rand.NewPCG(seed, 0))
		down := errors.New("registry down")
		refused := fmt.Errorf("token expired: %w", naming.ErrPermission)
		nap := func(most time.Duration) { time.Sleep(time.Duration(rnd.Int64N(int64(most)))) }
		faults := []struct {
			name string
			do   func()
		}{
			{"leases expire", s.ExpireAll},
			{"deleted", func() { remove(t, s, "svc", "a:1") }},
			{"deleted twice", func() { remove(t, s, "svc", "a:1"); nap(time.Second); remove(t, s, "svc", "a:1") }},
			{"wiped", s.Wipe},
			{"down", func() { s.Down(down); nap(time.Minute); s.Up() }},
			{"down and wiped", func() { s.Down(down); nap(10 * time.Second); s.Wipe(); s.Up() }},
			{"credentials expired", func() { s.Refuse(refused); nap(time.Minute); s.Up() }},
			{"silent", func() { s.Silence(); nap(time.Minute); s.Speak() }},
			{"watches break", func() { s.Break(down); remove(t, s, "svc", "a:1") }},
			{"flapping", func() {
				for range 20 {
					s.Down(down)
					nap(2 * time.Second)
					s.Up()
					nap(2 * time.Second)
					s.ExpireAll()
				}
			}},
			{"slow", func() { s.Delay(3 * time.Second); s.ExpireAll(); nap(time.Minute); s.Delay(0) }},
		}
		g := register(t, c, "svc", "a a:1 0", nil)
		defer g.Close()
		defer register(t, c, "other", "b:1", nil).Close() // shares the lease
		for i := range 500 {
			f := faults[rnd.IntN(len(faults))]
			meta := json.RawMessage(fmt.Sprint(i))
			done := make(chan error, 1)
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				nap := time.Duration(rnd.Int64N(int64(time.Minute)))
				time.Sleep(nap)
				done <- g.Update(ctx, meta)
			}()
			synctest.Wait() // rnd must not be used concurrently
			f.do()
			time.Sleep(time.Minute + backWithin)
			cancel()
			if err := <-done; err != nil {
				t.Fatalf("cycle %d, %s: update: %v", i, f.name, err)
			}
			view, err := c.List(t.Context(), "svc")
			list := view.Endpoints
			if err != nil || len(list) != 1 || list[0].Addr != "a:1" || string(list[0].Metadata) != string(meta) {
				t.Fatalf("cycle %d: %v after %q the registry has %v, %v; want a:1 %s; status %+v", i, backWithin, f.name, show(list), err, meta, g.Status())
			}
			if st := g.Status(); !st.Registered || st.Err != nil {
				t.Fatalf("cycle %d, %s: status %+v", i, f.name, st)
			}
			listed(t, s, "other", "b:1")
		}
	})
}

// An outage of a day is in the status all the time.
func TestRegistrationOutage(t *testing.T) {
	var mu sync.Mutex
	var changes []naming.RegistrationStatus
	var hooked []string
	hook := func(s string) {
		mu.Lock()
		defer mu.Unlock()
		hooked = append(hooked, s)
	}
	opts := &naming.Options{Logger: quiet.Logger, Hooks: &naming.Hooks{
		Registered: func(info naming.RegisteredInfo) { hook(fmt.Sprint("registered ", info.Endpoint.ID, info.Again)) },
		Lost:       func(info naming.LostInfo) { hook("lost " + info.Endpoint.ID) },
		Withdrawn:  func(info naming.WithdrawnInfo) { hook(fmt.Sprint("withdrawn ", info.Endpoint.ID, info.Err)) },
	}}
	in(t, opts, func(t *testing.T, s *memory.Store, c *naming.Client) {
		down := errors.New("registry down")
		begin := time.Now()
		g := register(t, c, "svc", "a:1", &naming.RegisterOptions{OnChange: func(st naming.RegistrationStatus) {
			mu.Lock()
			defer mu.Unlock()
			changes = append(changes, st)
		}})
		synctest.Wait()
		s.Down(down)
		time.Sleep(10 * time.Second)
		if st := g.Status(); !st.Registered {
			t.Errorf("10 s into an outage, with a time to live of 15 s: %+v", st)
		}
		time.Sleep(24 * time.Hour)
		st := g.Status()
		if st.Registered || !errors.Is(st.Err, down) || st.Since.Sub(begin) < 15*time.Second || st.Since.Sub(begin) > 20*time.Second {
			t.Errorf("a day into the outage: %+v", st)
		}
		if n := s.Calls(); n > 3*24*60*60/15+1000 {
			t.Errorf("%d calls in a day of outage", n)
		}
		s.Up()
		if err := g.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		listed(t, s, "svc", "a:1")
		if d := time.Since(begin) - 24*time.Hour - 10*time.Second; d > backWithin {
			t.Errorf("back after %v", d)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	want := []string{"registered a:1false", "lost a:1", "registered a:1true", "withdrawn a:1<nil>"}
	if !slices.Equal(hooked, want) {
		t.Errorf("hooks %q, want %q", hooked, want)
	}
	if n := len(changes); n < 3 || !changes[0].Registered || changes[1].Registered || !changes[n-1].Registered && !changes[n-1].Draining {
		t.Errorf("OnChange: %+v", changes)
	}
}

// A change that cannot be stored does not hide that the lease is not renewed, nor that
// the lease was lost.
func TestUpdateInOutage(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		g := register(t, c, "svc", "a:1", nil)
		defer g.Close()
		synctest.Wait()
		update := func(meta string) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := g.Update(ctx, json.RawMessage(meta)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("update in an outage: %v", err)
			}
		}
		down := errors.New("registry down")
		s.Down(down)
		update("1")
		if !g.Status().Registered {
			t.Error("given up at once")
		}
		time.Sleep(time.Minute)
		if st := g.Status(); st.Registered || !errors.Is(st.Err, down) {
			t.Errorf("a minute into the outage: %+v", st)
		}
		s.Up()
		time.Sleep(backWithin)
		listed(t, s, "svc", "a:1 a:1 1")

		// Only changes and watches fail: the renewal finds that the lease is lost.
		s.RefuseFunc(func(method, _ string) error {
			if method == "Apply" || method == "Watch" {
				return down
			}
			return nil
		})
		s.Break(down)
		s.ExpireAll()
		update("2")
		time.Sleep(time.Minute)
		if st := g.Status(); st.Registered {
			t.Errorf("a minute after the lease was lost: %+v", st)
		}
		s.Up()
		time.Sleep(backWithin)
		listed(t, s, "svc", "a:1 a:1 2")
	})
}

// A registry that is down when the program starts is not an error, unless the caller
// waits. A wait that failed leaves nothing behind.
func TestRegisterWhileDown(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		down := errors.New("registry down")
		s.Down(down)
		g := register(t, c, "svc", "a:1", nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		waiting, err := c.Register(ctx, "svc", endpoint("b:1"), &naming.RegisterOptions{Wait: true})
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, down) || waiting != nil {
			t.Errorf("Register with Wait: %v, %v", waiting, err)
		}
		if st := g.Status(); st.Registered || !errors.Is(st.Err, down) || st.FailedAttempts < 4 {
			t.Errorf("status %+v", st)
		}
		s.Up()
		time.Sleep(backWithin)
		listed(t, s, "svc", "a:1")
		if g, err := c.Register(t.Context(), "svc", endpoint("c:1"), &naming.RegisterOptions{Wait: true}); err != nil {
			t.Error(err)
		} else {
			listed(t, s, "svc", "a:1", "c:1")
			g.Close()
		}
		listed(t, s, "svc", "a:1")
	})
}

// An endpoint that Close could not remove is removed when the registry is back, also if
// others keep the lease.
func TestCloseWhileDown(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		g := register(t, c, "svc", "a:1", nil)
		other := register(t, c, "svc", "b:1", nil)
		defer other.Close()
		synctest.Wait()
		listed(t, s, "svc", "a:1", "b:1")
		for _, fault := range []func(){func() { s.Down(io.ErrUnexpectedEOF) }, s.Silence} {
			fault()
			begin := time.Now()
			if err := g.Close(); err == nil || !strings.Contains(err.Error(), "15s") {
				t.Errorf("Close while the registry is away: %v", err)
			}
			if d := time.Since(begin); d > 6*time.Second {
				t.Errorf("Close took %v, want no more than 6s", d)
			}
			s.Up()
			s.Speak()
			time.Sleep(backWithin)
			listed(t, s, "svc", "b:1")
			g = register(t, c, "svc", "a:1", nil)
			synctest.Wait()
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
}

// An endpoint that could not be withdrawn while the registry was down, and was registered
// again since, is not removed as an orphan.
func TestOrphanRegisteredAgain(t *testing.T) {
	for _, inProgress := range []bool{false, true} {
		in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
			begin := time.Now()
			opts := &naming.RegisterOptions{TTL: time.Minute}
			register(t, c, "svc", "b:1", opts) // keeps the shared lease in use
			g := register(t, c, "svc", "a:1", opts)
			synctest.Wait()
			s.Down(io.ErrUnexpectedEOF)
			if g.Close() == nil {
				t.Fatal("Close succeeded while the registry was down")
			}
			s.Up()
			f, err := c.Follow("svc", func() {})
			if err != nil {
				t.Fatal(err)
			}
			f.Retry() // for a watch that sees all later changes
			f.Close()
			time.Sleep(2 * time.Second)
			if inProgress {
				// The lease is renewed after 18 to 22 s, and then the orphan is
				// removed. Each takes 8 s.
				s.Delay(8 * time.Second)
				time.Sleep(32*time.Second - time.Since(begin))
			}
			// The delay lets the watcher see a deletion before the endpoint is back.
			s.Delay(time.Millisecond)
			w := resolve(t, c, "svc")
			w.Next()
			go func() {
				for {
					ups, err := w.Next()
					if err != nil {
						return
					}
					if got := render(ups); slices.Contains(got, "Delete a:1 2") {
						t.Errorf("%v after it began: %q", time.Since(begin), got)
					}
				}
			}()
			register(t, c, "svc", "a:1 a:1 2", opts)
			time.Sleep(5 * time.Minute)
			w.Close()
			listed(t, s, "svc", "a:1 a:1 2", "b:1")
		})
	}
}

// A registry that is back well before a lease ends finds it renewed.
func TestRenewBeforeTheEnd(t *testing.T) {
	for range 100 {
		in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
			g := register(t, c, "svc", "a:1", nil)
			synctest.Wait()
			s.Down(io.ErrUnexpectedEOF)
			time.Sleep(12 * time.Second) // of the 15 that the lease has
			s.Up()
			for range 60 {
				time.Sleep(time.Second)
				if st := g.Status(); !st.Registered {
					t.Fatalf("status %+v", st)
				}
			}
		})
	}
}

// A process that was stopped for longer than its lease does not take the endpoint from
// its successor, neither when it continues nor when it closes.
func TestSuccessor(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		for i := range 100 {
			old := register(t, c, "svc", `a a:1 {"gen":1}`, nil)
			synctest.Wait()
			s.ExpireAll() // while the old one is stopped
			r2 := naming.New(s, quiet)
			g := register(t, r2, "svc", `a a:1 {"gen":2}`, nil)
			for range 100 { // the old one goes on
				time.Sleep(time.Duration(i) * 10 * time.Millisecond)
				synctest.Wait()
				listed(t, s, "svc", `a a:1 {"gen":2}`)
			}
			if err := old.Update(t.Context(), json.RawMessage(`{"gen":1,"late":true}`)); err != nil {
				t.Error(err)
			}
			listed(t, s, "svc", `a a:1 {"gen":2}`)
			done := make(chan error)
			go func() { done <- old.Close() }()
			for closing := true; closing; {
				select {
				case err := <-done:
					if err != nil {
						t.Error(err)
					}
					closing = false
				case <-time.After(10 * time.Millisecond):
				}
				listed(t, s, "svc", `a a:1 {"gen":2}`)
			}
			if err := g.Close(); err != nil {
				t.Error(err)
			}
			r2.Close()
		}
	})
}

// A registration whose endpoint was replaced puts it again when the newer one is closed.
func TestPredecessorReturns(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		old := register(t, c, "svc", "a a:1 1", nil)
		defer old.Close()
		synctest.Wait()
		g := register(t, c, "svc", "a a:1 2", nil)
		synctest.Wait()
		listed(t, s, "svc", "a a:1 2")
		g.Close()
		time.Sleep(backWithin)
		listed(t, s, "svc", "a a:1 1")
	})
}

// A deletion is noticed by the watch, before the lease is renewed.
func TestDeleted(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		g := register(t, c, "svc", "a:1", nil)
		defer g.Close()
		for range 10 {
			time.Sleep(time.Minute)
			remove(t, s, "svc", "a:1")
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			listed(t, s, "svc", "a:1")
		}
	})
}

// A deletion from before the watch is noticed, too.
func TestDeletedBeforeWatch(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		s.RefuseFunc(func(method, _ string) error {
			if method == "Watch" {
				return io.ErrUnexpectedEOF
			}
			return nil
		})
		g := register(t, c, "svc", "a:1", nil)
		defer g.Close()
		synctest.Wait()
		remove(t, s, "svc", "a:1")
		s.Up()
		time.Sleep(4 * time.Second) // less than until the read that confirms the put
		listed(t, s, "svc", "a:1")
	})
}

// Registrations share leases, a bounded number each.
func TestSharedLeases(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		grants, renewals := 0, 0
		var mu sync.Mutex
		s.RefuseFunc(func(method, _ string) error {
			mu.Lock()
			defer mu.Unlock()
			switch method {
			case "Grant":
				grants++
			case "Renew":
				renewals++
			}
			return nil
		})
		var all []*naming.Registration
		for i := range 250 {
			all = append(all, register(t, c, fmt.Sprint("svc", i%5), fmt.Sprintf("a:%d", i+1), nil))
		}
		other := register(t, c, "svc0", "other:1", &naming.RegisterOptions{TTL: time.Minute})
		synctest.Wait()
		mu.Lock()
		if grants != 4 {
			t.Errorf("%d leases for 250 registrations of one time to live and one of another, want 3 and 1", grants)
		}
		mu.Unlock()
		time.Sleep(time.Minute)
		mu.Lock()
		if renewals < 30 || renewals > 45 {
			t.Errorf("%d renewals in a minute, want 12 for each of 3 leases and 3 of the fourth", renewals)
		}
		mu.Unlock()
		var wg sync.WaitGroup
		for _, g := range append(all, other) {
			wg.Go(func() {
				if err := g.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for i := range 5 {
			listed(t, s, fmt.Sprint("svc", i))
		}
		mu.Lock()
		defer mu.Unlock()
		before := renewals
		mu.Unlock()
		time.Sleep(time.Hour)
		mu.Lock()
		if renewals != before {
			t.Error("a lease without endpoints is renewed")
		}
	})
}

func TestRegistryCloseWithdraws(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		register(t, c, "svc", "a:1", nil)
		g := register(t, c, "svc", "b:1", nil)
		synctest.Wait()
		go func() {
			time.Sleep(500 * time.Millisecond)
			listed(t, s, "svc", "a:1 draining", "b:1 draining")
			if _, err := c.Register(t.Context(), "svc", endpoint("c:1"), nil); !errors.Is(err, naming.ErrClientClosed) {
				t.Errorf("Register while the Client closes: %v", err)
			}
		}()
		c.Close()
		listed(t, s, "svc")
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		if err := g.Wait(t.Context()); !errors.Is(err, naming.ErrClientClosed) {
			t.Errorf("Wait after the Client was closed: %v", err)
		}
	})
}

func TestRegisterBadInput(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, r *naming.Client) {
		for _, c := range []struct {
			service, addr, metadata string
			opts                    *naming.RegisterOptions
			names                   string
		}{
			{"", "a:1", "", nil, "empty service"},
			{"svc", "", "", nil, `address ""`},
			{"svc", "a", "", nil, `address "a"`},
			{"svc", ":1", "", nil, `address ":1"`},
			{"svc", "0.0.0.0:1", "", nil, "wildcard"},
			{"svc", "[::]:1", "", nil, "wildcard"},
			{"svc", "::1:1", "", nil, `address "::1:1"`},
			{"svc", "a:0", "", nil, "port"},
			{"svc", "a:http", "", nil, "port"},
			{"svc", "a:65536", "", nil, "port"},
			{"svc", "a b:1", "", nil, "host name"},
			{"svc", "unix:", "", nil, "no path"},
			{"svc", "unix:///", "", nil, "no path"},
			{"svc", "a:1", "{", nil, `"{"`},
			{"svc", "a:1", "", &naming.RegisterOptions{TTL: time.Millisecond}, "1ms"},
			{"svc", "a:1", "", &naming.RegisterOptions{TTL: -time.Second}, "-1s"},
			{"svc", "a:1", "", &naming.RegisterOptions{TTL: 25 * time.Hour}, "25h"},
		} {
			g, err := r.Register(t.Context(), c.service, naming.Endpoint{Addr: c.addr, Metadata: json.RawMessage(c.metadata)}, c.opts)
			if g != nil || !errors.Is(err, naming.ErrInvalid) || !strings.Contains(err.Error(), c.names) {
				t.Errorf("Register(%q, %q, %s, %+v): %v, want ErrInvalid naming %s", c.service, c.addr, c.metadata, c.opts, err, c.names)
			}
		}
		for _, addr := range []string{"a:1", "127.0.0.1:65535", "[::1]:80", "[fe80::1%eth0]:80", "unix:/run/a.sock", "unix:a.sock", "unix-abstract:a"} {
			if err := naming.CheckAddress(addr); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		if s.Calls() != 0 {
			t.Errorf("%d calls to the store", s.Calls())
		}
	})
}

// Closed registrations leave no goroutines and no memory behind.
func TestRegistrationLeaks(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		cycle := func(n int) {
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					for range n / 20 {
						g, err := c.Register(t.Context(), "svc", endpoint("a:1"), &naming.RegisterOptions{Wait: true, DrainDelay: -1})
						if err != nil {
							t.Error(err)
							return
						}
						g.Close()
					}
				})
			}
			wg.Wait()
		}
		cycle(200)
		time.Sleep(time.Minute)
		goroutines, bytes := runtime.NumGoroutine(), heap()
		cycle(10_000)
		time.Sleep(time.Minute)
		more := func() int { return runtime.NumGoroutine() - goroutines }
		for n := 0; n < 1_000_000 && more() > 0; n++ {
			runtime.Gosched() // the runtime counts goroutines of its own that run finalizers
		}
		if n := more(); n > 0 {
			t.Errorf("%d goroutines more after 10,000 registrations", n)
		}
		if n := int64(heap()) - int64(bytes); n > 300_000 {
			t.Errorf("%d bytes more after 10,000 registrations", n)
		}
		listed(t, s, "svc")
	})
}

func TestHold(t *testing.T) {
	type event struct {
		kind string
		ids  string
	}
	for _, c := range []struct {
		name string
		hold naming.Hold
		do   func(t *testing.T, s *memory.Store)
		held string // then
		left string // what is in the set
		then func(t *testing.T, s *memory.Store)
		want []event
	}{
		{
			name: "wiped, and not refilled",
			do:   func(t *testing.T, s *memory.Store) { s.Wipe() },
			held: "[a b c d]", left: "[]",
			then: func(t *testing.T, s *memory.Store) { time.Sleep(5 * time.Minute) },
			want: []event{{"held", "[a b c d]"}, {"expired", "[a b c d]"}},
		}, {
			name: "wiped and refilled, one of them under a new ID",
			do:   func(t *testing.T, s *memory.Store) { s.Wipe() },
			held: "[a b c d]", left: "[]",
			then: func(t *testing.T, s *memory.Store) {
				put(t, s, "svc", "a a:1", "new b:1")
				time.Sleep(time.Minute)
				put(t, s, "svc", "c c:1", "d d:1")
				time.Sleep(time.Hour)
			},
			want: []event{{"held", "[a b c d]"}, {"back", "[a b]"}, {"back", "[c d]"}},
		}, {
			name: "one after the other",
			do: func(t *testing.T, s *memory.Store) {
				for _, id := range []string{"a", "b", "c"} {
					remove(t, s, "svc", id)
					time.Sleep(9 * time.Second)
				}
			},
			held: "[a b c]", left: "[d]",
			want: []event{{"held", "[a b]"}, {"held", "[c]"}},
		}, {
			name: "one after the other, slowly",
			do: func(t *testing.T, s *memory.Store) {
				for _, id := range []string{"a", "b", "c"} {
					remove(t, s, "svc", id)
					time.Sleep(time.Minute)
				}
			},
			held: "[]", left: "[d]",
		}, {
			name: "a single one",
			do:   func(t *testing.T, s *memory.Store) { remove(t, s, "svc", "a") },
			held: "[]", left: "[b c d]",
		}, {
			name: "the last one",
			do: func(t *testing.T, s *memory.Store) {
				for _, id := range []string{"a", "b", "c", "d"} {
					remove(t, s, "svc", id)
					time.Sleep(time.Minute)
				}
			},
			held: "[d]", left: "[]",
			want: []event{{"held", "[d]"}},
		}, {
			name: "draining",
			do: func(t *testing.T, s *memory.Store) {
				for _, id := range []string{"a", "b", "c"} {
					put(t, s, "svc", id+" "+id+`:1 {"draining":true}`)
				}
				synctest.Wait()
				remove(t, s, "svc", "a", "b", "c")
				synctest.Wait()
				remove(t, s, "svc", "d") // the only one left, because the others were draining
			},
			held: "[d]", left: "[]",
			want: []event{{"held", "[d]"}},
		}, {
			name: "replaced by others",
			do: func(t *testing.T, s *memory.Store) {
				put(t, s, "svc", "e e:1", "f f:1", "g g:1", "h h:1")
				synctest.Wait()
				remove(t, s, "svc", "a")
				put(t, s, "svc", "i i:1")
			},
			held: "[]", left: "[b c d e f g h i]",
		}, {
			name: "a larger share",
			hold: naming.Hold{Share: 0.9},
			do:   func(t *testing.T, s *memory.Store) { remove(t, s, "svc", "a", "b", "c") },
			held: "[]", left: "[d]",
		}, {
			name: "off",
			hold: naming.Hold{Disabled: true},
			do:   func(t *testing.T, s *memory.Store) { s.Wipe() },
			held: "[]", left: "[]",
		}, {
			name: "found after an outage",
			do: func(t *testing.T, s *memory.Store) {
				s.Down(io.ErrUnexpectedEOF)
				time.Sleep(time.Hour)
				s.Wipe()
				s.Up()
				time.Sleep(time.Minute)
			},
			held: "[a b c d]", left: "[]",
			want: []event{{"held", "[a b c d]"}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var mu sync.Mutex
			var got []event
			note := func(kind string, list []naming.Endpoint) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, event{kind, fmt.Sprint(ids(list))})
			}
			opts := &naming.Options{Logger: slog.New(slog.DiscardHandler), Hold: c.hold, Hooks: &naming.Hooks{
				Held: func(info naming.HeldInfo) { note("held", info.Endpoints) },
				Released: func(info naming.ReleasedInfo) {
					note(map[bool]string{true: "back", false: "expired"}[info.Back], info.Endpoints)
				},
			}}
			in(t, opts, func(t *testing.T, s *memory.Store, r *naming.Client) {
				put(t, s, "svc", "a a:1", "b b:1", "c c:1", "d d:1")
				w := resolve(t, r, "svc")
				w.Next()
				f, err := r.Follow("svc", func() {})
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				view := func() (v naming.View) {
					synctest.Wait()
					for v = range r.Watch(t.Context(), "svc") {
						break
					}
					return v
				}
				f.Next()
				c.do(t, s)
				v := view()
				if fmt.Sprint(ids(v.Held)) != c.held || fmt.Sprint(ids(v.Endpoints)) != c.left {
					t.Errorf("held %v of a set of %v, want %s of %s", ids(v.Held), ids(v.Endpoints), c.held, c.left)
				}
				if e, ok := f.Next(); !ok || !reflect.DeepEqual(e.Status.Held, v.Held) {
					t.Errorf("the follower's event has %v, %v", e.Status.Held, ok)
				}
				if c.then != nil {
					c.then(t, s)
					if v := view(); len(v.Held) > 0 {
						t.Errorf("held at the end: %v", v.Held)
					}
				}
				mu.Lock()
				defer mu.Unlock()
				if !slices.Equal(got, c.want) {
					t.Errorf("hooks %v, want %v", got, c.want)
				}
			})
		})
	}
}

// Endpoints that come and go while others are held do not add up.
func TestHoldBounded(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		w := resolve(t, c, "svc")
		next(t, w)
		for i := range 2000 {
			put(t, s, "svc", fmt.Sprint("a", i), fmt.Sprint("b", i), fmt.Sprint("c", i))
			synctest.Wait()
			s.Wipe()
			synctest.Wait()
		}
		for v := range c.Watch(t.Context(), "svc") {
			if n := len(v.Held); n == 0 || n > 100 {
				t.Errorf("%d endpoints held of a service that never had more than 3", n)
			}
			break
		}
	})
}
