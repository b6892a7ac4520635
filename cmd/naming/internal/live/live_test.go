package live_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/cmd/naming/internal/live"
)

// recorder follows the services of a store and remembers what was reported.
type recorder struct {
	store  *memory.Store
	client *naming.Client
	stop   func() error

	mu    sync.Mutex
	lines []string // guarded by mu
}

// record begins to follow services. It must be called in a bubble.
func record(t *testing.T, services ...string) *recorder {
	t.Helper()
	r := &recorder{store: &memory.Store{}}
	r.client = naming.New(r.store, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- live.Run(ctx, r.client, live.Options{Services: services, OnUpdate: r.update})
	}()
	r.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := r.stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
		r.client.Close()
	})
	return r
}

func (r *recorder) update(u live.Update) {
	var parts []string
	if u.First {
		parts = append(parts, "first")
	}
	if u.Gone {
		parts = append(parts, "gone")
	}
	for _, c := range u.Changes {
		parts = append(parts, string(c.Kind)+" "+c.Endpoint.ID)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, strings.Join(append([]string{u.View.Service + ":"}, parts...), " "))
}

// expect waits until nothing moves, and compares what was reported since the last call with
// what may be reported.
func (r *recorder) expect(t *testing.T, when string, want ...string) {
	t.Helper()
	time.Sleep(time.Second)
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if got := strings.Join(r.lines, ", "); !slices.Contains(want, got) {
		t.Errorf("%s: reported %q, want one of %q", when, got, want)
	}
	r.lines = nil
}

func (r *recorder) apply(t *testing.T, service string, op naming.Operation, ids ...string) {
	t.Helper()
	var changes []naming.Change
	for _, id := range ids {
		changes = append(changes, naming.Change{Op: op, Endpoint: naming.Endpoint{ID: id, Addr: "10.0.0.1:80"}})
	}
	if err := r.store.Apply(t.Context(), service, changes...); err != nil {
		t.Fatal(err)
	}
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := record(t)
		r.apply(t, "greeter", naming.Add, "a", "b")
		r.expect(t, "two endpoints", "greeter: first added a added b")
		r.store.Withhold("greeter", "a", naming.FailedCheck, "smoke")
		r.expect(t, "one is withheld", "greeter: withheld a")
		r.store.Unwithhold("greeter", "a")
		r.expect(t, "it is usable again", "greeter: usable a")
		r.apply(t, "greeter", naming.Delete, "b")
		r.expect(t, "one is deleted", "greeter: deleted b")
		r.apply(t, "other", naming.Add, "c")
		r.expect(t, "another service", "other: first added c")
		r.store.Withhold("other", "c", naming.Maintenance, "") // what was withheld is never held
		r.expect(t, "maintenance", "other: withheld c")
		r.apply(t, "other", naming.Delete, "c")
		r.expect(t, "the service leaves the list", "other: deleted c, other: gone")
		r.store.Unwithhold("other", "c")
		r.apply(t, "other", naming.Add, "c")
		r.expect(t, "the service comes back", "other: first added c", "other: first, other: added c")
	})
}

// A service that leaves the list while its endpoints are held is followed until they are
// released.
func TestHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := record(t)
		r.apply(t, "greeter", naming.Add, "a", "b")
		r.expect(t, "two endpoints", "greeter: first added a added b")
		r.store.Wipe()
		r.expect(t, "a wiped registry", "greeter: deleted a deleted b")
		r.apply(t, "greeter", naming.Add, "a")
		r.expect(t, "one has registered again", "greeter: added a")
		r.store.Wipe()
		r.expect(t, "wiped again", "greeter: deleted a")
		time.Sleep(10 * time.Minute)
		r.expect(t, "nobody came back", "greeter:, greeter: gone")
	})
}

// Services that are named are followed whether or not the registry lists them.
func TestNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := record(t, "a", "a")
		r.expect(t, "no endpoint", "a: first")
		r.apply(t, "a", naming.Add, "x")
		r.apply(t, "c", naming.Add, "x")
		r.expect(t, "an endpoint", "a: added x")
	})
}

func TestInvalid(t *testing.T) {
	c := naming.New(&memory.Store{}, nil)
	defer c.Close()
	err := live.Run(t.Context(), c, live.Options{Services: []string{""}, OnUpdate: func(live.Update) {}})
	if !errors.Is(err, naming.ErrInvalid) {
		t.Errorf("the error is %v", err)
	}
}

// An error of the registry is the error of Services. An empty registry has an empty list.
func TestServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := record(t)
		names, err := live.Services(t.Context(), r.client)
		if names == nil || len(names) > 0 || err != nil {
			t.Errorf("an empty registry has %v, error %v", names, err)
		}
		r.apply(t, "b", naming.Add, "x")
		r.expect(t, "a service", "b: first added x")
		r.apply(t, "a", naming.Add, "x")
		r.expect(t, "another service", "a: first added x")
		if names, err = live.Services(t.Context(), r.client); fmt.Sprint(names) != "[a b]" || err != nil {
			t.Errorf("the registry has %v, error %v", names, err)
		}
	})
	store := &memory.Store{}
	broken := errors.New("broken")
	store.Down(broken)
	c := naming.New(store, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	defer c.Close()
	if names, err := live.Services(t.Context(), c); !errors.Is(err, broken) {
		t.Errorf("a registry that is down has %v, error %v", names, err)
	}
}
