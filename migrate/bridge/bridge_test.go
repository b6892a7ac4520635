package bridge_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/migrate"
	"github.com/naming-go/naming/migrate/bridge"
)

// world is two registries in a bubble.
type world struct {
	*testing.T
	old, next *memory.Store
}

// inWorld runs a test with two registries in a bubble.
func inWorld(t *testing.T, test func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		test(&world{T: t, old: new(memory.Store), next: new(memory.Store)})
	})
}

// options returns options for tests: quiet, and without a hold, so that the rules of the
// Bridge itself are tested.
func options(change ...func(*bridge.Options)) *bridge.Options {
	o := &bridge.Options{Logger: slog.New(slog.DiscardHandler), Hold: naming.Hold{Disabled: true}}
	for _, c := range change {
		c(o)
	}
	return o
}

// start runs a Bridge from one store to another. stop ends it.
func (w *world) start(from, to naming.Store, o *bridge.Options) (b *bridge.Bridge, stop func()) {
	w.Helper()
	b, err := bridge.New(from, to, o)
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			w.Errorf("Run = %v", err)
		}
	}
	w.Cleanup(stop)
	return b, stop
}

// endpoint returns an endpoint with ID id and an address of its own.
func endpoint(id string) naming.Endpoint {
	return naming.Endpoint{ID: id, Addr: "10.0.0." + id + ":80", Metadata: json.RawMessage(`{"zone":"a"}`)}
}

// put puts endpoints into a store, without a lease.
func (w *world) put(s naming.Store, service string, endpoints ...naming.Endpoint) {
	w.Helper()
	var changes []naming.Change
	for _, e := range endpoints {
		changes = append(changes, naming.Change{Op: naming.Add, Endpoint: e})
	}
	if err := s.Apply(w.Context(), service, changes...); err != nil {
		w.Fatal(err)
	}
}

// delete deletes endpoints of a store.
func (w *world) delete(s naming.Store, service string, ids ...string) {
	w.Helper()
	var changes []naming.Change
	for _, id := range ids {
		changes = append(changes, naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: id}})
	}
	if err := s.Apply(w.Context(), service, changes...); err != nil {
		w.Fatal(err)
	}
}

// list returns the endpoints of a service by ID, as natives.
func (w *world) list(s naming.Store, service string) map[string]naming.Endpoint {
	w.Helper()
	all := make(map[string]naming.Endpoint)
	for b, err := range s.Watch(w.Context(), service) {
		if err != nil {
			w.Fatal(err)
		}
		for _, e := range b.Put {
			all[e.ID] = e
		}
		for _, x := range b.Withheld {
			all[x.Endpoint.ID] = x.Endpoint
		}
		break
	}
	return all
}

// want fails the test unless a service has exactly these IDs, written with spaces between.
func (w *world) want(s naming.Store, service, ids string) {
	w.Helper()
	if got := strings.Join(slices.Sorted(maps.Keys(w.list(s, service))), " "); got != ids {
		w.Errorf("%s has %q, want %q", service, got, ids)
	}
}

// settle lets everything happen that is to happen within a time.
func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestCopy(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(w.old, "web", endpoint("1"), endpoint("2"))
		w.put(w.old, "db", endpoint("3"))
		b, _ := w.start(w.old, w.next, options())
		settle(time.Second)
		w.want(w.next, "web", "~old~1 ~old~2")
		w.want(w.next, "db", "~old~3")
		c := w.list(w.next, "web")["~old~1"]
		if native, _ := migrate.Native(c); !native.Equal(endpoint("1")) {
			w.Errorf("the copy stands for %v, want %v", native, endpoint("1"))
		}
		if m, ok := migrate.ReadMark(c.Metadata); !ok || m != (migrate.Mark{Origin: "old", Bridge: "default", Epoch: 1}) {
			w.Errorf("the mark is %v, %v", m, ok)
		}
		if s := b.Status(); !s.Working || s.Epoch != 1 || s.Copies != 3 || s.Services != 2 || s.Blown != nil || s.Err != nil {
			w.Errorf("status %+v", s)
		}
		w.put(w.old, "web", endpoint("4"))
		w.delete(w.old, "web", "1")
		settle(5 * time.Second)
		w.want(w.next, "web", "~old~2 ~old~4")
	})
}
