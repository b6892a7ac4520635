package kitexnaming

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudwego/kitex/pkg/rpcinfo"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/resolver"
)

// newTestResolver returns a Resolver on c that pushes nothing, for bubbles: the goroutines
// of kitex's package lbcache never end. The Resolver is idle when t ends.
func newTestResolver(t *testing.T, c *naming.Client) *clientResolver {
	t.Cleanup(func() { time.Sleep(2 * idleTime) })
	return newResolver(resolver.NewBuilder(c, &resolver.Options{Logger: slog.New(slog.DiscardHandler)}).Watch)
}

// addrs returns the addresses of the service's instances, separated by spaces, or the error.
func addrs(r *clientResolver, service string) string {
	result, err := r.Resolve(context.Background(), service)
	if err != nil {
		return "error: " + err.Error()
	}
	var list []string
	for _, in := range result.Instances {
		list = append(list, in.Address().String())
	}
	return strings.Join(list, " ")
}

// put puts endpoints with these addresses into the registry.
func put(t *testing.T, store *memory.Store, addrs ...string) {
	t.Helper()
	for _, addr := range addrs {
		change := naming.Change{Op: naming.Add, Endpoint: naming.Endpoint{ID: addr, Addr: addr}}
		if err := store.Apply(t.Context(), greeter, change); err != nil {
			t.Fatal(err)
		}
	}
}

// watched returns the services that are watched.
func watched(r *clientResolver) []string {
	r.open.Lock()
	defer r.open.Unlock()
	return slices.Sorted(maps.Keys(r.open.byService))
}

// TestFirstAnswer checks how long the first Resolve waits.
func TestFirstAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory.Store{}
		put(t, store, "a:1")
		store.Silence()
		r := newTestResolver(t, newClient(t, store))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if _, err := r.Resolve(ctx, greeter); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("a silent registry: %v after %v", err, time.Since(began))
		}
		if got := addrs(r, greeter); !strings.HasPrefix(got, "error: ") || time.Since(began) > resolver.DefaultFirstAnswerTimeout {
			t.Errorf("a silent registry: %q after %v", got, time.Since(began))
		}
		store.Speak()
		time.Sleep(time.Minute)
		if got := addrs(r, greeter); got != "a:1" {
			t.Errorf("after the silence: %q", got)
		}
	})
}

// TestFromMemory checks that Resolve makes no request, and has every change at once.
func TestFromMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory.Store{}
		put(t, store, "a:1")
		r := newTestResolver(t, newClient(t, store))
		if got := addrs(r, greeter); got != "a:1" {
			t.Fatalf("first: %q", got)
		}
		put(t, store, "b:1")
		time.Sleep(time.Second)
		calls := store.Calls()
		for range 1000 {
			if got := addrs(r, greeter); got != "a:1 b:1" {
				t.Fatalf("after a change: %q", got)
			}
		}
		if got := store.Calls(); got != calls {
			t.Errorf("1000 calls of Resolve made %d requests", got-calls)
		}
		if err := store.Mark(t.Context(), greeter, "a:1", true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := addrs(r, greeter); got != "b:1" {
			t.Errorf("with a draining endpoint: %q", got)
		}
	})
}

// TestNeverEmpty checks that an outage and a wipe of the registry change nothing.
func TestNeverEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory.Store{}
		servers := NewRegistry(newClient(t, store), nil)
		for _, addr := range []string{"a:1", "b:1"} {
			if err := servers.Register(info(addr)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		r := newTestResolver(t, newClient(t, store))
		check := func(when string, d time.Duration) {
			for began := time.Now(); time.Since(began) < d; time.Sleep(time.Second) {
				if got := addrs(r, greeter); got != "a:1 b:1" {
					t.Fatalf("%s, after %v: %q", when, time.Since(began), got)
				}
			}
		}
		check("before", time.Second)
		store.Down(errors.New("no leader"))
		check("in the outage", time.Hour)
		store.Up()
		check("after the outage", time.Minute)
		store.Wipe()
		check("after the wipe", time.Hour)
		if got := listed(t, store); len(got) != 2 {
			t.Errorf("in the registry: %+v", got)
		}
	})
}

// TestReasons checks that a service without usable endpoints is an error that says why.
func TestReasons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory.Store{}
		c := newClient(t, store)
		r := newTestResolver(t, c)
		if got := addrs(r, greeter); !strings.Contains(got, "error: ") || !strings.Contains(got, "no endpoints") {
			t.Errorf("an empty service: %q", got)
		}
		put(t, store, "a:1")
		time.Sleep(time.Second)
		if got := addrs(r, greeter); got != "a:1" {
			t.Errorf("after the first endpoint: %q", got)
		}
		store.Withhold(greeter, "a:1", naming.Maintenance, "disk")
		time.Sleep(time.Second)
		if got := addrs(r, greeter); !strings.Contains(got, "error: ") || !strings.Contains(got, "withh") {
			t.Errorf("a service in maintenance: %q", got)
		}
		store.Unwithhold(greeter, "a:1")
		time.Sleep(time.Second)
		if got := addrs(r, greeter); got != "a:1" {
			t.Errorf("after the maintenance: %q", got)
		}
		if _, err := r.Resolve(t.Context(), ""); !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("no name: %v", err)
		}
		c.Close()
		time.Sleep(time.Second)
		if got := addrs(r, greeter); got != "a:1" {
			t.Errorf("after Close: %q", got)
		}
		if _, err := r.Resolve(t.Context(), "another"); !errors.Is(err, naming.ErrClientClosed) {
			t.Errorf("another service after Close: %v", err)
		}
		if got := watched(r); !slices.Equal(got, []string{greeter}) {
			t.Errorf("watches: %q", got)
		}
	})
}

// TestIdle checks that a service in use has one watch, and an unused service none.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory.Store{}
		put(t, store, "a:1")
		r := newTestResolver(t, newClient(t, store))
		var watches, ended atomic.Int32
		follow := r.follow
		r.follow = func(ctx context.Context, service string) iter.Seq2[resolver.Set, error] {
			watches.Add(1)
			context.AfterFunc(ctx, func() { ended.Add(1) })
			return follow(ctx, service)
		}
		for range 12 * 60 {
			addrs(r, greeter)
			time.Sleep(5 * time.Second) // kitex's interval
		}
		synctest.Wait()
		if watches.Load() != 1 || ended.Load() != 0 {
			t.Errorf("in an hour of use: %d watches, of which %d ended", watches.Load(), ended.Load())
		}
		time.Sleep(idleTime)
		synctest.Wait()
		if left := watched(r); ended.Load() != 1 || len(left) != 0 {
			t.Errorf("unused for %v: %d watches ended, %q are left", idleTime, ended.Load(), left)
		}
		if got := addrs(r, greeter); got != "a:1" {
			t.Errorf("used again: %q", got)
		}
	})
}

// TestBounded checks that names of services from outside cannot fill the memory.
func TestBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newResolver(func(ctx context.Context, service string) iter.Seq2[resolver.Set, error] {
			return func(yield func(resolver.Set, error) bool) {
				if service == "silent" || yield(resolver.Set{Endpoints: []naming.Endpoint{{Addr: "a:1"}}}, nil) {
					<-ctx.Done()
					yield(resolver.Set{}, ctx.Err())
				}
			}
		})
		r.open.most = 16
		silent := make(chan string)
		go func() { silent <- addrs(r, "silent") }()
		synctest.Wait()
		for i := range 2 * r.open.most {
			time.Sleep(time.Millisecond)
			addrs(r, fmt.Sprint("service", i))
			if got := addrs(r, greeter); got != "a:1" {
				t.Fatalf("a service in use: %q", got)
			}
		}
		if got := <-silent; !strings.Contains(got, errTooMany.Error()) {
			t.Errorf("the service without an answer: %q", got)
		}
		if open := watched(r); len(open) != r.open.most || !slices.Contains(open, greeter) {
			t.Errorf("watches: %q", open)
		}
		time.Sleep(2 * idleTime)
		if left := watched(r); len(left) != 0 {
			t.Errorf("watches of unused services: %q", left)
		}
	})
}

// TestNames checks that kitex cannot mix up two Resolvers.
func TestNames(t *testing.T) {
	a, b := NewResolver(nil, nil), NewResolver(nil, nil)
	if a.Name() == b.Name() {
		t.Errorf("two Resolvers have the name %q", a.Name())
	}
	if got := a.Target(t.Context(), rpcinfo.NewEndpointInfo(greeter, "method", nil, nil)); got != greeter {
		t.Errorf("target %q", got)
	}
	if _, err := a.Resolve(t.Context(), greeter); !errors.Is(err, naming.ErrInvalid) {
		t.Errorf("Resolve without a Client: %v", err)
	}
}
