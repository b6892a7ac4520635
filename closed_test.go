package naming_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/migrate"
)

// method is a call of one method, and what it has to return.
type method struct {
	name   string
	call   func() error
	want   error
	waits  bool // while the registry is silent
	atOnce bool // ends when Close begins, instead of when Close ends
}

// closing is a Client, with readers and Registrations. Its registry is silent.
type closing struct {
	client       *naming.Client
	registration *naming.Registration
	drained      *naming.Registration // of an endpoint that is draining
	follower     *naming.Follower
	watcher      naming.Watcher
	woken        bool // by the follower
}

// testClosing runs f on a plain Client, and on a joined Client on two registries.
func testClosing(t *testing.T, f func(t *testing.T, c *closing)) {
	for name, newClient := range map[string]func(t *testing.T) (*naming.Client, []*memory.Store){
		"plain": func(*testing.T) (*naming.Client, []*memory.Store) {
			s := new(memory.Store)
			return naming.New(s, quiet), []*memory.Store{s}
		},
		"joined": func(t *testing.T) (*naming.Client, []*memory.Store) {
			old, next := new(memory.Store), new(memory.Store)
			j, err := migrate.Join(old, next, migrate.Fixed(migrate.State{Phase: migrate.Union}),
				&migrate.Options{Client: naming.Options{Logger: slog.New(slog.DiscardHandler)}})
			if err != nil {
				t.Fatal(err)
			}
			return j.Client, []*memory.Store{old, next}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, stores := newClient(t)
				defer client.Close()
				f(t, newClosing(t, client, stores))
			})
		})
	}
}

func newClosing(t *testing.T, client *naming.Client, stores []*memory.Store) *closing {
	t.Helper()
	c := &closing{client: client}
	var err error
	if c.follower, err = client.Follow("svc", func() { c.woken = true }); err != nil {
		t.Fatal(err)
	}
	if c.watcher, err = client.Resolve("svc"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.watcher.Next(); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	c.follower.Next()
	c.registration = register(t, client, "svc", "a:1", nil)
	c.drained = register(t, client, "svc", "d:1", nil)
	for _, err := range []error{c.registration.Wait(t.Context()), c.drained.Drain(t.Context())} {
		if err != nil {
			t.Fatal(err)
		}
	}
	synctest.Wait()
	if _, err := c.watcher.Next(); err != nil {
		t.Fatal(err)
	}
	c.woken = false
	for _, s := range stores {
		s.Silence()
	}
	go func() { _ = c.registration.Update(context.Background(), []byte("0")) }() // so that Wait waits
	synctest.Wait()
	return c
}

// methods returns a call of every method that can return an error.
func (c *closing) methods() []method {
	ctx, g := context.Background(), c.registration
	return []method{
		{"Client.Watch", func() error { return last(c.client.Watch(ctx, "unknown")) }, naming.ErrClientClosed, true, false},
		{"Client.Watch of a known service", func() error { return last(c.client.Watch(ctx, "svc")) }, naming.ErrClientClosed, true, false},
		{"Client.Services", func() error { return last(c.client.Services(ctx)) }, naming.ErrClientClosed, true, false},
		{"Client.List", func() error { _, err := c.client.List(ctx, "svc"); return err }, naming.ErrClientClosed, true, false},
		{"Client.Update", func() error { return c.client.Update(ctx, "svc", naming.Update{Addr: "b:1"}) }, naming.ErrClientClosed, true, false},
		{"Client.Register", func() error {
			_, err := c.client.Register(ctx, "svc", endpoint("b:1"), &naming.RegisterOptions{Wait: true})
			return err
		}, naming.ErrClientClosed, true, false},
		{"Client.Resolve", func() error { _, err := c.client.Resolve("svc"); return err }, naming.ErrClientClosed, false, false},
		{"Client.Follow", func() error { _, err := c.client.Follow("svc", func() {}); return err }, naming.ErrClientClosed, false, false},
		{"Client.FollowServices", func() error { _, err := c.client.FollowServices(func() {}); return err }, naming.ErrClientClosed, false, false},
		{"Registration.Wait", func() error { return g.Wait(ctx) }, naming.ErrClientClosed, true, true},
		{"Registration.Update", func() error { return g.Update(ctx, []byte("1")) }, naming.ErrClientClosed, true, true},
		{"Registration.Drain", func() error { return g.Drain(ctx) }, naming.ErrClientClosed, true, true},
		{"Registration.Resume", func() error { return c.drained.Resume(ctx) }, naming.ErrClientClosed, true, true},
		{"Registration.Ready", g.Ready, naming.ErrClientClosed, false, false},
	}
}

// expect checks the error of a call.
func (m method) expect(t *testing.T, when string, err error) {
	t.Helper()
	if !errors.Is(err, m.want) {
		t.Errorf("%s, %s: %v, want %v", m.name, when, err, m.want)
	}
	for _, other := range []error{naming.ErrClientClosed, naming.ErrRegistrationClosed, context.Canceled} {
		if m.want != other && errors.Is(err, other) {
			t.Errorf("%s, %s: the error %v is also %v", m.name, when, err, other)
		}
	}
}

// wait starts all calls that wait. atOnce checks the calls that have to end when Close
// begins, and all checks every call.
func (c *closing) wait(methods []method) (atOnce, all func(t *testing.T)) {
	type running struct {
		method
		ended chan error
	}
	var calls []running
	for _, m := range methods {
		if m.waits {
			r := running{m, make(chan error, 1)}
			calls = append(calls, r)
			go func() { r.ended <- r.call() }()
		}
	}
	synctest.Wait()
	check := func(t *testing.T, onlyAtOnce bool) {
		t.Helper()
		for _, r := range calls {
			if onlyAtOnce && !r.atOnce {
				continue
			}
			select {
			case err := <-r.ended:
				r.expect(t, "waiting when Close began", err)
				r.ended <- err
			default:
				t.Errorf("%s has not ended", r.name)
			}
		}
	}
	return func(t *testing.T) { t.Helper(); check(t, true) }, func(t *testing.T) { t.Helper(); check(t, false) }
}

// TestClientClosed calls every method before, during and after Client.Close, while the
// registry is silent and Close takes long.
func TestClientClosed(t *testing.T) {
	testClosing(t, func(t *testing.T, c *closing) {
		methods := c.methods()
		atOnce, all := c.wait(methods)
		next := make(chan error, 1)
		go func() { _, err := c.watcher.Next(); next <- err }()
		begun, closed := time.Now(), make(chan struct{})
		go func() { c.client.Close(); close(closed) }()
		synctest.Wait()
		atOnce(t)
		for _, m := range methods {
			m.expect(t, "during Close", m.call())
		}
		if time.Since(begun) != 0 {
			t.Errorf("calls during Close took %v", time.Since(begun))
		}
		select {
		case <-closed:
			t.Fatal("Close did not wait for the registry")
		default:
		}
		<-closed
		synctest.Wait()
		all(t)
		if err := <-next; err != naming.ErrWatcherClosed {
			t.Errorf("Watcher.Next: %v", err)
		}
		for _, m := range methods {
			m.expect(t, "after Close", m.call())
		}
		if e, ok := c.follower.Next(); !c.woken || !ok || !errors.Is(e.Status.Err, naming.ErrClientClosed) {
			t.Errorf("Follower.Next: %v %+v", ok, e)
		}
		if v, _, _ := c.follower.Current(); !errors.Is(v.Err, naming.ErrClientClosed) {
			t.Errorf("Follower.Current: %+v", v)
		}
	})
}

// TestRegistrationClosed closes and withdraws a Registration of a Client that stays open.
func TestRegistrationClosed(t *testing.T) {
	for name, end := range map[string]func(*naming.Registration){
		"Close":    func(g *naming.Registration) { _ = g.Close() },
		"Withdraw": func(g *naming.Registration) { _ = g.Withdraw(canceled()) },
	} {
		t.Run(name, func(t *testing.T) {
			testClosing(t, func(t *testing.T, c *closing) {
				var methods []method
				for _, m := range c.methods() {
					if m.atOnce || m.name == "Registration.Ready" {
						m.want = naming.ErrRegistrationClosed
						methods = append(methods, m)
					}
				}
				atOnce, _ := c.wait(methods)
				var wg sync.WaitGroup
				wg.Go(func() { end(c.registration) })
				wg.Go(func() { end(c.drained) })
				synctest.Wait()
				atOnce(t)
				wg.Wait()
				for _, m := range methods {
					m.expect(t, "after "+name, m.call())
				}
			})
		})
	}
}

// canceled returns a context that is done.
func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
