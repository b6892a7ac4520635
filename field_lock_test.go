package naming_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
)

// A nil context means context.Background().
func TestFieldR4NoContext(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		var none context.Context
		put(t, s, "svc", "a:1")
		for v, err := range c.Watch(none, "svc") {
			if err != nil || len(v.Endpoints) != 1 {
				t.Errorf("Watch: %v, %v", v, err)
			}
			break
		}
		for names, err := range c.Services(none) {
			if err != nil || len(names) != 1 {
				t.Errorf("Services: %v, %v", names, err)
			}
			break
		}
		if v, err := c.List(none, "svc"); err != nil || len(v.Endpoints) != 1 {
			t.Errorf("List: %v, %v", v, err)
		}
		if err := c.Update(none, "svc", naming.Update{Addr: "b:1"}); err != nil {
			t.Errorf("Update: %v", err)
		}
		g, err := c.Register(none, "svc", naming.Endpoint{Addr: "c:1"}, &naming.RegisterOptions{Wait: true})
		if err != nil {
			t.Fatal(err)
		}
		for name, f := range map[string]func(context.Context) error{
			"Wait": g.Wait, "Drain": g.Drain, "Resume": g.Resume,
			"Update": func(ctx context.Context) error { return g.Update(ctx, []byte("1")) },
		} {
			if err := f(none); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// panicky is a context in which one method panics.
type panicky struct {
	context.Context
	method string
}

func (p panicky) Done() <-chan struct{} {
	if p.method == "Done" {
		panic("Done")
	}
	return p.Context.Done()
}

func (p panicky) Err() error {
	if p.method == "Err" {
		panic("Err")
	}
	return p.Context.Err()
}

func (p panicky) Value(key any) any {
	if p.method == "Value" {
		panic("Value")
	}
	return p.Context.Value(key)
}

// A program that recovers from the panic of its own context has not harmed others: other
// readers go on, and Close returns.
func TestFieldR4ContextPanics(t *testing.T) {
	for _, method := range []string{"Done", "Err", "Value"} {
		in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
			put(t, s, "svc", "a:1")
			w := resolve(t, c, "svc")
			next(t, w, "Add a:1 null")
			ctx := panicky{t.Context(), method}
			try := func(f func()) {
				defer func() { _ = recover() }()
				f()
			}
			g, err := c.Register(t.Context(), "svc", naming.Endpoint{Addr: "c:1"}, &naming.RegisterOptions{Wait: true})
			if err != nil {
				t.Fatal(err)
			}
			next(t, w, "Add c:1 null")
			try(func() {
				n := 0
				for range c.Watch(ctx, "svc") {
					if n++; n > 3 {
						break
					}
					break
				}
			})
			for _, f := range []func(){
				func() { last(c.Watch(panicky{ended{t.Context()}, method}, "svc")) },
				func() { last(c.Services(panicky{ended{t.Context()}, method})) },
				func() { _, _ = c.List(ctx, "svc") },
				func() { _ = c.Update(ctx, "svc", naming.Update{Addr: "c:1"}) },
				func() { _ = g.Wait(ctx) },
				func() { _ = g.Drain(ctx) },
				func() { _ = g.Update(ctx, []byte("7")) },
			} {
				try(f)
			}
			time.Sleep(time.Minute)
			put(t, s, "svc", "b:1")
			for {
				ups, err := w.Next()
				if err != nil {
					t.Fatal(err)
				}
				if ups[len(ups)-1].Addr == "b:1" || ups[0].Addr == "b:1" {
					break
				}
			}
			if v := now(t, c); len(v.Endpoints) != 3 {
				t.Errorf("after a panic of %s: %v", method, ids(v.Endpoints))
			}
		})
	}
}

// ended is a context that is done.
type ended struct{ context.Context }

func (ended) Done() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

func (ended) Err() error { return context.Canceled }

// asking is an error, a log handler, hooks and a follower's function. Each reads the
// service and the list of services from the Client. Programs must not do that, but here
// it shows whether a lock is held.
type asking struct {
	c     *naming.Client
	asked atomic.Int64
}

func (a *asking) ask() {
	if a.c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for range a.c.Watch(ctx, "svc") {
		break
	}
	for range a.c.Services(ctx) {
		break
	}
	if f, err := a.c.Follow("svc", nil); err == nil {
		f.Next()
		f.Retry()
		f.Close()
	}
	a.asked.Add(1)
}

func (a *asking) Error() string { a.ask(); return "asking" }

func (a *asking) Is(error) bool { a.ask(); return false }

func (a *asking) Enabled(context.Context, slog.Level) bool { a.ask(); return true }

func (a *asking) Handle(context.Context, slog.Record) error { a.ask(); return nil }

func (a *asking) WithAttrs([]slog.Attr) slog.Handler { return a }

func (a *asking) WithGroup(string) slog.Handler { return a }

// No code of the program runs while the Client holds a lock that the code may need.
func TestFieldR4NoLockIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := new(asking)
		s := new(memory.Store)
		c := naming.New(s, &naming.Options{
			Logger: slog.New(a),
			Hold:   naming.Hold{MaxDuration: time.Minute},
			Hooks: &naming.Hooks{
				Registered:     func(naming.RegisteredInfo) { a.ask() },
				Lost:           func(naming.LostInfo) { a.ask() },
				RegisterFailed: func(naming.RegisterFailedInfo) { a.ask() },
				Withdrawn:      func(naming.WithdrawnInfo) { a.ask() },
				WatchFailed:    func(naming.WatchFailedInfo) { a.ask() },
				Stale:          func(naming.StaleInfo) { a.ask() },
				Resynced:       func(naming.ResyncedInfo) { a.ask() },
				Held:           func(naming.HeldInfo) { a.ask() },
				Released:       func(naming.ReleasedInfo) { a.ask() },
				Withheld:       func(naming.WithheldInfo) { a.ask() },
			},
		})
		put(t, s, "svc", "a:1", "b:1", "c:1")
		a.c = c
		f, err := c.Follow("svc", a.ask)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		g, err := c.Register(t.Context(), "svc", naming.Endpoint{Addr: "d:1"}, &naming.RegisterOptions{Wait: true, OnChange: func(naming.RegistrationStatus) { a.ask() }})
		if err != nil {
			t.Fatal(err)
		}
		now(t, c)
		last := a.asked.Load()
		for _, do := range []func(){
			func() { s.Withhold("svc", "a:1", naming.Maintenance, "") },
			func() { s.Unwithhold("svc", "a:1") },
			func() { s.Down(a) },
			func() { s.Up() },
			func() { s.Wipe() },
			func() { put(t, s, "svc", "a:1") },
			func() { s.Break(errors.Join(a, io.EOF)) },
			func() { _ = g.Close() },
		} {
			do()
			time.Sleep(2 * time.Minute)
			if n := a.asked.Load(); n == last {
				t.Error("nothing was called")
			} else {
				last = n
			}
		}
		c.Close()
	})
}

// Hooks are called in the order of the events, whatever goroutine calls them. All hooks
// have been called when Close returns.
func TestFieldR4HooksInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec, opts := recorded()
		stale := opts.Hooks.Stale
		opts.Hooks.Stale = func(info naming.StaleInfo) {
			time.Sleep(10 * time.Second) // a hook that is slow
			stale(info)
		}
		s := new(memory.Store)
		c := naming.New(s, opts)
		put(t, s, "svc", "a:1")
		now(t, c)
		for range 5 {
			s.Break(io.EOF)
			time.Sleep(1500 * time.Millisecond)
		}
		c.Close()
		stales := 0
		for i, c := range rec.called() {
			if want := []string{"stale true", "stale false"}[i%2]; c != want {
				t.Errorf("call %d: %s, want %s", i, c, want)
			}
			stales++
		}
		if stales == 0 || stales%2 != 0 {
			t.Errorf("%d calls", stales)
		}
	})
}
