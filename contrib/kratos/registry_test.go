package kratosnaming_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kratos/kratos/v2/registry"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	kratosnaming "github.com/naming-go/naming/contrib/kratos"
)

var (
	quiet   = slog.New(slog.DiscardHandler)
	errDown = errors.New("down")
)

// bubble is a Registry on a registry in memory, in a bubble of synctest.
type bubble struct {
	*testing.T
	store    *memory.Store
	client   *naming.Client
	registry *kratosnaming.Registry
}

func inBubble(t *testing.T, opts *kratosnaming.Options, test func(*bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := new(memory.Store)
		c := naming.New(store, &naming.Options{Logger: quiet})
		defer c.Close()
		o := kratosnaming.Options{Logger: quiet}
		if opts != nil {
			o = *opts
			o.Logger = quiet
		}
		test(&bubble{t, store, c, kratosnaming.New(c, &o)})
	})
}

// greeter returns an instance of the service "greeter".
func greeter(id, version string, urls ...string) *registry.ServiceInstance {
	return &registry.ServiceInstance{ID: id, Name: "greeter", Version: version, Metadata: map[string]string{}, Endpoints: urls}
}

func (b *bubble) register(s *registry.ServiceInstance) {
	b.Helper()
	if err := b.registry.Register(b.Context(), s); err != nil {
		b.Fatal(err)
	}
	time.Sleep(time.Second) // until the watches show it
	synctest.Wait()
}

// listed compares what the registry has: "id version", with "draining" behind it.
func (b *bubble) listed(want string) {
	b.Helper()
	view, err := b.client.List(b.Context(), "greeter")
	if err != nil {
		b.Fatal(err)
	}
	var list []string
	for _, e := range view.Endpoints {
		s := e.ID + " " + e.Info().Version
		if e.Draining {
			s += " draining"
		}
		list = append(list, s)
	}
	if got := strings.Join(list, ", "); got != want {
		b.Errorf("the registry has %q, want %q", got, want)
	}
}

// watched reads a watcher of "greeter" in a goroutine of its own, until Next fails.
type watched struct {
	registry.Watcher
	states chan string // "id version, ..." or "error"
}

func (b *bubble) watch(ctx context.Context) watched {
	b.Helper()
	w, err := b.registry.Watch(ctx, "greeter")
	if err != nil {
		b.Fatal(err)
	}
	states := make(chan string, 100)
	go func() {
		for {
			list, err := w.Next()
			if err != nil {
				states <- fmt.Sprint("error: ", err)
				return
			}
			var all []string
			for _, s := range list {
				all = append(all, s.ID+" "+s.Version)
			}
			states <- strings.Join(all, ", ")
		}
	}()
	return watched{w, states}
}

// want waits a second, and compares the new states.
func (b *bubble) want(w watched, want ...string) {
	b.Helper()
	time.Sleep(time.Second)
	synctest.Wait()
	var got []string
	for len(w.states) > 0 {
		got = append(got, <-w.states)
	}
	if !reflect.DeepEqual(got, want) {
		b.Errorf("got the states %q, want %q", got, want)
	}
}

func TestRegisterAgainUpdates(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		w := b.watch(b.Context())
		b.register(greeter("1", "v1", "grpc://10.0.0.1:9000"))
		b.want(w, "1 v1")
		// An operator's mark survives an update in place.
		if err := b.client.Mark(b.Context(), "greeter", "1", true); err != nil {
			b.Fatal(err)
		}
		b.want(w) // it is the only one
		b.register(greeter("1", "v2", "grpc://10.0.0.1:9000"))
		b.listed("1 v2 draining")
		b.want(w, "1 v2")
		// Another address.
		b.register(greeter("1", "v3", "grpc://10.0.0.2:9000"))
		b.listed("1 v3")
		b.want(w, "1 v3")
		if err := b.registry.Deregister(b.Context(), greeter("1", "v3", "grpc://10.0.0.2:9000")); err != nil {
			b.Error(err)
		}
		b.listed("")
		b.want(w, "")
		b.register(greeter("1", "v4", "grpc://10.0.0.1:9000"))
		b.want(w, "1 v4")
	})
}

func TestDeregisterDrains(t *testing.T) {
	inBubble(t, &kratosnaming.Options{Register: &naming.RegisterOptions{DrainDelay: 3 * time.Second}}, func(b *bubble) {
		one := greeter("1", "v1", "grpc://10.0.0.1:9000")
		b.register(one)
		b.register(greeter("2", "v1", "grpc://10.0.0.2:9000"))
		w := b.watch(b.Context())
		b.want(w, "1 v1, 2 v1")
		begin := time.Now()
		go func() {
			time.Sleep(2 * time.Second)
			b.listed("1 v1 draining, 2 v1")
		}()
		if err := b.registry.Deregister(b.Context(), one); err != nil {
			b.Error(err)
		}
		if d := time.Since(begin); d < 3*time.Second || d > 4*time.Second {
			b.Errorf("Deregister took %v, and the drain delay is 3 s", d)
		}
		b.listed("2 v1")
		b.want(w, "2 v1")
		if err := b.registry.Deregister(b.Context(), one); err != nil {
			b.Errorf("a second Deregister: %v", err)
		}
	})
}

// An app that starts again as it stops.
func TestRegisterDuringDeregister(t *testing.T) {
	inBubble(t, &kratosnaming.Options{Register: &naming.RegisterOptions{DrainDelay: 10 * time.Second}}, func(b *bubble) {
		one := greeter("1", "v1", "grpc://10.0.0.1:9000")
		b.register(one)
		w := b.watch(b.Context())
		b.want(w, "1 v1")
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := b.registry.Deregister(b.Context(), one); err != nil {
				b.Error(err)
			}
		})
		time.Sleep(time.Second)
		b.listed("1 v1 draining")
		b.register(greeter("1", "v2", "grpc://10.0.0.1:9000"))
		wg.Wait()
		time.Sleep(time.Minute)
		b.listed("1 v2")
		b.want(w, "1 v2")
	})
}

// App.Stop does not stop the servers if Deregister returns an error.
func TestDeregisterReturnsNil(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		for id, timeout := range map[string]time.Duration{"1": time.Minute, "2": 2 * time.Second} {
			b.store.Up()
			s := greeter(id, "v1", "grpc://10.0.0."+id+":9000")
			b.register(s)
			b.store.Down(errDown)
			ctx, cancel := context.WithTimeout(b.Context(), timeout)
			begin := time.Now()
			if err := b.registry.Deregister(ctx, s); err != nil {
				b.Error(err)
			}
			cancel()
			if d := time.Since(begin); d > min(timeout, 6*time.Second) {
				b.Errorf("Deregister took %v with a context of %v", d, timeout)
			}
		}
		if err := b.registry.Deregister(b.Context(), nil); err != nil {
			b.Error(err)
		}
	})
}

func TestRegisterWhileDown(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		b.store.Down(errDown)
		begin := time.Now()
		if err := b.registry.Register(b.Context(), greeter("1", "v1", "grpc://10.0.0.1:9000")); err != nil {
			b.Fatal(err)
		}
		if d := time.Since(begin); d != 2*time.Second {
			b.Errorf("Register took %v", d)
		}
		b.register(greeter("1", "v2", "grpc://10.0.0.1:9000")) // an update, also while it is down
		ctx, cancel := context.WithTimeout(b.Context(), time.Millisecond)
		defer cancel()
		if err := b.registry.Register(ctx, greeter("2", "v1", "grpc://10.0.0.2:9000")); err != nil {
			b.Errorf("a deadline that passes: %v", err)
		}
		time.Sleep(time.Hour)
		b.store.Up()
		time.Sleep(time.Minute)
		b.listed("1 v2, 2 v1")
	})
}

// kratos may be stopped as it starts: Deregister comes first, and then ctx is canceled.
func TestRegisterCanceled(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		ctx, cancel := context.WithCancel(b.Context())
		cancel()
		if err := b.registry.Register(ctx, greeter("1", "v1", "grpc://10.0.0.1:9000")); !errors.Is(err, context.Canceled) {
			b.Errorf("got %v", err)
		}
		time.Sleep(time.Minute)
		b.listed("")
	})
}

func TestRegisterRefused(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		refused := []*registry.ServiceInstance{
			nil,
			greeter("1", "v1"),
			greeter("1", "v1", "10.0.0.1:9000"),
			greeter("1", "v1", "grpc://0.0.0.0:9000"),
			greeter("1", "v1", "grpc://\x00"),
			{ID: "1", Endpoints: []string{"grpc://10.0.0.1:9000"}},
			{ID: "1", Name: "greeter", Endpoints: []string{"grpc://10.0.0.1:9000"}, Metadata: map[string]string{"@entry": "x"}},
		}
		for _, s := range refused {
			if err := b.registry.Register(b.Context(), s); !errors.Is(err, naming.ErrInvalid) {
				b.Errorf("%v: got %v", s, err)
			}
		}
		b.register(greeter("2", "v1", "grpc://10.0.0.2:9000"))
		b.store.RefuseFunc(func(method, _ string) error {
			if method == "Apply" {
				return naming.ErrInvalid
			}
			return nil
		})
		for _, id := range []string{"1", "2"} {
			if err := b.registry.Register(b.Context(), greeter(id, "v2", "grpc://10.0.0."+id+":9000")); !errors.Is(err, naming.ErrInvalid) {
				b.Errorf("%s: the store refuses: got %v", id, err)
			}
		}
		b.store.Up()
		time.Sleep(time.Hour)
		b.listed("2 v1")
		if err := kratosnaming.New(nil, nil).Register(b.Context(), greeter("3", "v1", "grpc://10.0.0.3:9000")); !errors.Is(err, naming.ErrInvalid) {
			b.Errorf("no Client: got %v", err)
		}
		b.client.Close()
		if err := b.registry.Register(b.Context(), greeter("3", "v1", "grpc://10.0.0.3:9000")); !errors.Is(err, naming.ErrClientClosed) {
			b.Errorf("closed: got %v", err)
		}
	})
}

func TestOutageKeepsTheSet(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		for _, id := range []string{"1", "2", "3"} {
			b.register(greeter(id, "v1", "grpc://10.0.0."+id+":9000"))
		}
		w := b.watch(b.Context())
		b.want(w, "1 v1, 2 v1, 3 v1")
		b.store.Down(errDown)
		time.Sleep(time.Hour)
		b.store.ExpireAll()
		if list, err := b.registry.GetService(b.Context(), "greeter"); err != nil || len(list) != 3 {
			b.Errorf("GetService in an outage: %v, %v", list, err)
		}
		b.store.Up()
		time.Sleep(time.Minute)
		b.store.Wipe()
		time.Sleep(time.Minute)
		// A server may be back before others, and then the others are missing for a moment.
		last := ""
		for len(w.states) > 0 {
			if last = <-w.states; last == "" {
				b.Error("the set was empty")
			}
		}
		if want := "1 v1, 2 v1, 3 v1"; last != "" && last != want {
			b.Errorf("the last set is %q, want %q", last, want)
		}
		b.listed("1 v1, 2 v1, 3 v1")
	})
}

func TestStart(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		b.store.Down(errDown)
		w := b.watch(b.Context())
		b.want(w)
		if list, err := b.registry.GetService(b.Context(), "greeter"); err == nil {
			b.Errorf("nothing is known: got %v", list)
		}
		b.store.Up()
		time.Sleep(time.Minute)
		b.want(w) // the service is empty
		if list, err := b.registry.GetService(b.Context(), "greeter"); err == nil {
			b.Errorf("the service is empty: got %v", list)
		}
		b.register(greeter("1", "v1", "grpc://10.0.0.1:9000"))
		b.want(w, "1 v1")
		if _, err := b.registry.GetService(b.Context(), ""); !errors.Is(err, naming.ErrInvalid) {
			b.Errorf("no name: got %v", err)
		}
		if _, err := b.registry.Watch(b.Context(), ""); !errors.Is(err, naming.ErrInvalid) {
			b.Errorf("no name: got %v", err)
		}
	})
}

// The bubble fails if a goroutine is left.
func TestStop(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		idle := b.watch(b.Context()) // Next is in progress
		b.want(idle)
		idle.Stop()
		idle.Stop()
		b.want(idle, `error: naming: watch "greeter": context canceled`)

		b.register(greeter("1", "v1", "grpc://10.0.0.1:9000"))
		w, err := b.registry.Watch(b.Context(), "greeter")
		if err != nil {
			b.Fatal(err)
		}
		if _, err := w.Next(); err != nil { // Next is not in progress
			b.Fatal(err)
		}
		w.Stop()
		if _, err := w.Next(); !errors.Is(err, context.Canceled) {
			b.Errorf("Next after Stop: %v", err)
		}
		never, _ := b.registry.Watch(b.Context(), "greeter") // no Next
		never.Stop()

		ctx, cancel := context.WithCancel(b.Context()) // without Stop
		w, _ = b.registry.Watch(ctx, "greeter")
		w.Next()
		cancel()

		last := b.watch(context.Background())
		b.want(last, "1 v1")
		forgotten := b.watch(context.Background()) // no Next after the error, and no Stop
		b.want(forgotten, "1 v1")
		b.client.Close()
		time.Sleep(time.Minute)
		got := ""
		for len(last.states) > 0 {
			got = <-last.states
		}
		if !strings.Contains(got, naming.ErrClientClosed.Error()) {
			b.Errorf("the Client was closed: got %q", got)
		}
		if _, err := last.Next(); !errors.Is(err, naming.ErrClientClosed) {
			b.Errorf("the Client was closed before: got %v", err)
		}
	})
}

// kratos's ServiceInstance.Equal sorts the URLs of instances that it compares, so two
// watchers must not share instances.
func TestInstancesAreNotShared(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		b.register(greeter("1", "v1", "http://10.0.0.1:8000", "grpc://10.0.0.1:9000"))
		get := func() *registry.ServiceInstance {
			list, err := b.registry.GetService(b.Context(), "greeter")
			if err != nil || len(list) != 1 {
				b.Fatal(list, err)
			}
			return list[0]
		}
		first, second := get(), get()
		if !first.Equal(second) {
			b.Errorf("%v is not %v", first, second)
		}
		first.Endpoints[0], first.Metadata["x"] = "x", "x"
		if third := get(); !second.Equal(third) {
			b.Errorf("%v became %v", second, third)
		}
	})
}
