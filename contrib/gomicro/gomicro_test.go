package gomicro_test

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go-micro.dev/v4/registry"
	"go-micro.dev/v4/registry/cache"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/contrib/gomicro"
)

func trimSchemes(endpoints []string) []string {
	var hosts []string
	for _, e := range endpoints {
		hosts = append(hosts, e[strings.LastIndexByte(e, '/')+1:])
	}
	return hosts
}

// world is a Registry on a store in memory, in a bubble.
type world struct {
	*testing.T
	*gomicro.Registry
	store  *memory.Store
	client *naming.Client

	registered atomic.Int64 // counts what the Client registered, also again
}

func bubble(t *testing.T, f func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, store: new(memory.Store)}
		w.client = naming.New(w.store, &naming.Options{
			Logger: slog.New(slog.DiscardHandler),
			Hooks:  &naming.Hooks{Registered: func(naming.RegisteredInfo) { w.registered.Add(1) }},
		})
		defer w.client.Close()
		w.Registry = gomicro.New(w.client, nil)
		f(w)
	})
}

// greeter returns a service as go-micro's server registers it.
func greeter(version string, nodes ...*registry.Node) *registry.Service {
	return &registry.Service{
		Name: "greeter", Version: version, Nodes: nodes,
		Endpoints: []*registry.Endpoint{{
			Name:     "Greeter.Hello",
			Request:  &registry.Value{Name: "Request", Type: "Request", Values: []*registry.Value{{Name: "name", Type: "string"}}},
			Response: &registry.Value{Name: "Reply", Type: "Reply"},
			Metadata: map[string]string{"stream": "false"},
		}},
	}
}

func nodeAt(n int) *registry.Node {
	return &registry.Node{
		Id: fmt.Sprintf("greeter-%d", n), Address: fmt.Sprintf("10.0.0.%d:9000", n),
		Metadata: map[string]string{"protocol": "mucp", "zone": "a", "weight": "30"},
	}
}

// register registers a service, and waits until watches have shown that.
func (w *world) register(s *registry.Service) {
	w.Helper()
	if err := w.Register(s, registry.RegisterTTL(ttl)); err != nil {
		w.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
}

// ids returns the sorted IDs of the nodes that GetService has.
func (w *world) ids() []string {
	w.Helper()
	services, err := w.GetService("greeter")
	if err != nil && !errors.Is(err, registry.ErrNotFound) {
		w.Fatal(err)
	}
	return nodeIDs(services)
}

func nodeIDs(services []*registry.Service) (ids []string) {
	for _, s := range services {
		for _, n := range s.Nodes {
			ids = append(ids, n.Id)
		}
	}
	slices.Sort(ids)
	return ids
}

func (w *world) want(ids ...string) {
	w.Helper()
	if got := w.ids(); !slices.Equal(got, ids) {
		w.Errorf("GetService has %q, want %q", got, ids)
	}
}

// A service goes through the registry unchanged, with its schema.
func TestRoundTrip(t *testing.T) {
	bubble(t, func(w *world) {
		for _, s := range services() {
			if err := w.Register(s); err != nil { // GetService has it at once
				t.Fatal(err)
			}
			got, err := w.GetService(s.Name)
			if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], s) {
				t.Errorf("GetService: %s, %v; want %s", show(got...), err, show(s))
			}
			if err := w.Deregister(s); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
			if got, err := w.GetService(s.Name); !errors.Is(err, registry.ErrNotFound) {
				t.Errorf("after Deregister: %s, %v", show(got...), err)
			}
		}
	})
}

// An equal Register makes no change, another one replaces the node.
func TestRegisterAgain(t *testing.T) {
	bubble(t, func(w *world) {
		w.register(greeter("v1", nodeAt(1)))
		watch := follow(w)
		for range 5 {
			w.register(greeter("v1", nodeAt(1)))
			time.Sleep(time.Second)
		}
		if n := w.registered.Load(); n != 1 {
			t.Errorf("a node that never changed was registered %d times", n)
		}
		n := nodeAt(1)
		n.Metadata["zone"] = "b"
		w.register(greeter("v1", n))
		time.Sleep(time.Second)
		n.Address = "10.0.0.9:9000"
		w.register(greeter("v1", n))
		time.Sleep(time.Second)
		w.register(greeter("v2", n))
		time.Sleep(time.Second)
		want := "create v1 greeter-1 10.0.0.1:9000 a, update v1 greeter-1 10.0.0.1:9000 b, update v1 greeter-1 10.0.0.9:9000 b, " +
			"create v2 greeter-1 10.0.0.9:9000 b, delete v1 greeter-1 10.0.0.9:9000 b"
		if got := watch(); got != want {
			t.Errorf("the watcher had\n%s, want\n%s", got, want)
		}
		w.want("greeter-1")
		if err := w.Deregister(greeter("v2", n)); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second) // a set follows the registry after some milliseconds
		w.want()
	})
}

// follow returns a function that returns the changes since the start.
func follow(w *world) (changes func() string) {
	watcher, err := w.Watch(registry.WatchService("greeter"))
	if err != nil {
		w.Fatal(err)
	}
	var texts []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			res, err := watcher.Next()
			if err != nil {
				if !errors.Is(err, registry.ErrWatcherStopped) {
					w.Error(err)
				}
				return
			}
			n := res.Service.Nodes[0]
			texts = append(texts, strings.Join([]string{res.Action, res.Service.Version, n.Id, n.Address, n.Metadata["zone"]}, " "))
		}
	}()
	return func() string {
		synctest.Wait()
		watcher.Stop()
		<-done
		return strings.Join(texts, ", ")
	}
}

// Deregister marks the node, so that clients turn to others, and returns when it is removed.
func TestDeregisterDrains(t *testing.T) {
	bubble(t, func(w *world) {
		w.register(greeter("v1", nodeAt(1), nodeAt(2)))
		w.want("greeter-1", "greeter-2")
		begin := time.Now()
		done := make(chan error)
		go func() { done <- w.Deregister(greeter("v1", nodeAt(1))) }()
		time.Sleep(500 * time.Millisecond)
		w.want("greeter-2")
		if v, err := w.client.List(w.Context(), "greeter"); err != nil || len(v.Endpoints) != 2 || !v.Endpoints[0].Draining {
			t.Errorf("the registry has %+v, %v", v.Endpoints, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if d := time.Since(begin); d < time.Second {
			t.Errorf("Deregister returned after %v, before the drain delay", d)
		}
		if v, err := w.client.List(w.Context(), "greeter"); err != nil || len(v.Endpoints) != 1 {
			t.Errorf("the registry has %+v, %v", v.Endpoints, err)
		}
		if err := w.Deregister(greeter("v1", nodeAt(1))); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("a second Deregister returned %v", err)
		}
	})
}

// The only node of a service is used while it drains, which go-micro does not see as a change.
func TestLastNodeDrains(t *testing.T) {
	bubble(t, func(w *world) {
		w.register(greeter("v1", nodeAt(1)))
		changes := follow(w)
		if err := w.Deregister(greeter("v1", nodeAt(1))); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		if got, want := changes(), "create v1 greeter-1 10.0.0.1:9000 a, delete v1 greeter-1 10.0.0.1:9000 a"; got != want {
			t.Errorf("the watcher had %q, want %q", got, want)
		}
	})
}

// An outage that is longer than the lease, and a wipe, change nothing for clients.
func TestOutageAndWipe(t *testing.T) {
	bubble(t, func(w *world) {
		w.register(greeter("v1", nodeAt(1), nodeAt(2)))
		selector := cache.New(w.Registry)
		defer selector.Stop()
		check := func(when string) {
			t.Helper()
			w.want("greeter-1", "greeter-2")
			if s, err := selector.GetService("greeter"); err != nil || len(nodeIDs(s)) != 2 {
				t.Errorf("%s: go-micro's cache has %s, %v", when, show(s...), err)
			}
		}
		check("at first")
		w.store.Down(errors.New("down"))
		for range 5 { // each longer than the cache's minute
			time.Sleep(70 * time.Second)
			check("down")
			w.register(greeter("v1", nodeAt(1), nodeAt(2))) // as at each RegisterInterval
		}
		w.store.Up()
		check("up")
		w.store.Wipe()
		check("wiped")
		time.Sleep(time.Minute)
		check("after a minute")
		v, err := w.client.List(w.Context(), "greeter")
		if err != nil || len(v.Endpoints) != 2 {
			t.Errorf("after the wipe the registry has %+v, %v", v.Endpoints, err)
		}
	})
}

// A program that starts while the registry is down: Register returns, and GetService says why
// there is nothing.
func TestStartWhileDown(t *testing.T) {
	bubble(t, func(w *world) {
		w.store.Down(errors.New("no power"))
		if err := w.Init(registry.Timeout(2 * time.Second)); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		err := w.Register(greeter("v1", nodeAt(1), nodeAt(2)))
		if d := time.Since(begin); err != nil || d != 2*time.Second {
			t.Errorf("Register took %v and returned %v", d, err)
		}
		_, err = w.GetService("greeter")
		if err == nil || errors.Is(err, registry.ErrNotFound) || !strings.Contains(err.Error(), "no power") {
			t.Errorf("GetService returned %v", err)
		}
		changes := follow(w)
		time.Sleep(time.Minute)
		w.store.Up()
		time.Sleep(time.Minute)
		w.want("greeter-1", "greeter-2")
		got := strings.Split(changes(), ", ") // the nodes are registered in any order
		slices.Sort(got)
		if want := []string{"create v1 greeter-1 10.0.0.1:9000 a", "create v1 greeter-2 10.0.0.2:9000 a"}; !slices.Equal(got, want) {
			t.Errorf("the watcher had %q, want %q", got, want)
		}
	})
}

// When all nodes are replaced in one step, the new ones are reported first.
func TestChangesNeverEmpty(t *testing.T) {
	bubble(t, func(w *world) {
		put := func(del int, add int) {
			changes := []naming.Change{{Op: naming.Add, Endpoint: naming.Endpoint{ID: fmt.Sprint(add), Addr: fmt.Sprintf("10.0.0.%d:1", add)}}}
			if del != 0 {
				changes = append(changes, naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: fmt.Sprint(del)}})
			}
			if err := w.store.Apply(w.Context(), "greeter", changes...); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		put(0, 1)
		changes := follow(w)
		synctest.Wait()
		put(1, 2)
		if got, want := changes(), "create  1 10.0.0.1:1 , create  2 10.0.0.2:1 , delete  1 10.0.0.1:1 "; got != want {
			t.Errorf("the watcher had %q, want %q", got, want)
		}
	})
}

// What has gone between GetService and Watch is reported by the Watcher.
func TestWatchBeginsAtGetService(t *testing.T) {
	bubble(t, func(w *world) {
		w.register(greeter("v1", nodeAt(1), nodeAt(2)))
		w.want("greeter-1", "greeter-2")
		if err := w.Deregister(greeter("v1", nodeAt(1))); err != nil {
			t.Fatal(err)
		}
		if got, want := follow(w)(), "delete v1 greeter-1 10.0.0.1:9000 a"; got != want {
			t.Errorf("the watcher had %q, want %q", got, want)
		}
	})
}

// late is a Registry whose callers get an answer of GetService late.
type late struct {
	*gomicro.Registry
	by time.Duration
}

func (l late) GetService(name string, opts ...registry.GetOption) ([]*registry.Service, error) {
	services, err := l.Registry.GetService(name, opts...)
	time.Sleep(l.by)
	return services, err
}

// go-micro's cache stores an answer of GetService after it has seen, and dropped, the changes
// that followed. The watcher repeats them.
func TestLateAnswer(t *testing.T) {
	bubble(t, func(w *world) {
		put := func(change naming.Change) {
			if err := w.store.Apply(w.Context(), "greeter", change); err != nil {
				t.Error(err)
			}
		}
		put(naming.Change{Endpoint: naming.Endpoint{ID: "greeter-1", Addr: "10.0.0.1:9000"}})
		put(naming.Change{Endpoint: naming.Endpoint{ID: "greeter-2", Addr: "10.0.0.2:9000"}})
		c := cache.New(late{w.Registry, 900 * time.Millisecond})
		defer c.Stop()
		go func() {
			time.Sleep(500 * time.Millisecond) // the cache watches, and waits for the answer
			put(naming.Change{Endpoint: naming.Endpoint{ID: "greeter-3", Addr: "10.0.0.3:9000"}})
			put(naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: "greeter-1"}})
		}()
		get := func() []string {
			s, err := c.GetService("greeter")
			if err != nil {
				t.Fatal(err)
			}
			return nodeIDs(s)
		}
		if got, want := get(), []string{"greeter-1", "greeter-2"}; !slices.Equal(got, want) {
			t.Fatalf("the first answer is %q, want %q", got, want)
		}
		time.Sleep(time.Second)
		if got, want := get(), []string{"greeter-2", "greeter-3"}; !slices.Equal(got, want) {
			t.Errorf("the cache has %q, want %q", got, want)
		}
	})
}

func TestListAndWatchAll(t *testing.T) {
	bubble(t, func(w *world) {
		watcher, err := w.Watch()
		if err != nil {
			t.Fatal(err)
		}
		names := func() (names []string) {
			services, err := w.ListServices()
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range services {
				names = append(names, s.Name)
			}
			return names
		}
		if got := names(); len(got) != 0 {
			t.Errorf("an empty registry lists %q", got)
		}
		for _, name := range []string{"b", "a"} {
			s := greeter("v1", nodeAt(1))
			s.Name = name
			w.register(s)
			res, err := watcher.Next()
			if err != nil || res.Action != "create" || !reflect.DeepEqual(res.Service, s) {
				t.Errorf("the watcher had %+v, %v", res, err)
			}
		}
		if got := names(); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("the registry lists %q", got)
		}
		w.client.Close() // removes both
		for {
			res, err := watcher.Next()
			if err != nil {
				if !errors.Is(err, registry.ErrWatcherStopped) {
					t.Error(err)
				}
				break
			}
			if res.Action != "delete" {
				t.Errorf("the watcher had %+v", res)
			}
		}
		if err := w.Register(greeter("v1", nodeAt(1))); !errors.Is(err, naming.ErrClientClosed) {
			t.Errorf("Register on a closed Client: %v", err)
		}
	})
}

func TestInvalid(t *testing.T) {
	bubble(t, func(w *world) {
		for name, s := range map[string]*registry.Service{
			"nil":            nil,
			"no nodes":       greeter("v1"),
			"nil node":       greeter("v1", nil),
			"no name":        {Nodes: []*registry.Node{nodeAt(1)}},
			"no address":     greeter("v1", &registry.Node{Id: "x"}),
			"wildcard":       greeter("v1", &registry.Node{Id: "x", Address: "[::]:9000"}),
			"a name of ours": greeter("v1", &registry.Node{Id: "x", Address: "10.0.0.1:1", Metadata: map[string]string{"@entry": "x"}}),
		} {
			if err := w.Register(s); !errors.Is(err, naming.ErrInvalid) {
				t.Errorf("%s: Register returned %v", name, err)
			}
		}
		if err := w.Register(greeter("v1", nodeAt(1)), registry.RegisterTTL(time.Millisecond)); !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("a TTL of 1 ms: %v", err)
		}
		if _, err := w.GetService(""); !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("GetService without a name: %v", err)
		}
		if _, err := w.Watch(registry.WatchService("\xff")); !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("Watch of no name: %v", err)
		}
		none := gomicro.New(nil, nil)
		_, watchErr := none.Watch()
		_, listErr := none.ListServices()
		_, getErr := none.GetService("a")
		for _, err := range []error{watchErr, listErr, getErr, none.Register(greeter("v1", nodeAt(1)))} {
			if !errors.Is(err, naming.ErrInvalid) {
				t.Errorf("without a Client: %v", err)
			}
		}
	})
}

// Entries of other programs, and hostile ones, are nodes with what can be understood.
func TestForeignMetadata(t *testing.T) {
	for metadata, want := range map[string]string{
		``:                                   `||map[]`,
		`null`:                               `||map[]`,
		`[1,2]`:                              `||map[]`,
		`"text"`:                             `||map[]`,
		`{"weight":1.5,"tags":[ "a", "b" ]}`: `||map[tags:["a","b"] weight:1.5]`,
		`{"version":3}`:                      `||map[version:3]`,
		`{"version":"v1","a":null,"b":true}`: `v1||map[a:null b:true]`,
		`{"@entry":{"version":"v2"},"version":"own"}`:      `v2||map[version:own]`,
		`{"@entry":7,"a":"b"}`:                             `||map[a:b]`,
		`{"@entry":{"endpoints":[null,{"name":"Say"}]}}`:   `|Say|map[]`,
		`{"@entry":{"endpoints":{"name":"Say"},"x":1}}`:    `||map[]`,
		`{"@entry":{"metadata":["x"]},"@metadata":"x"}`:    `||map[]`,
		`{"@entry":{"endpoints":[{"name":7}]},"zone":"a"}`: `||map[zone:a]`,
	} {
		bubble(t, func(w *world) {
			e := naming.Endpoint{ID: "x", Addr: "10.0.0.1:1", Metadata: []byte(metadata)}
			if metadata == "" {
				e.Metadata = nil
			}
			if err := w.store.Apply(w.Context(), "greeter", naming.Change{Endpoint: e}); err != nil {
				t.Fatal(err)
			}
			services, err := cache.New(w.Registry, cache.WithTTL(0)).GetService("greeter")
			if err != nil || len(services) != 1 {
				t.Fatalf("%s: %v, %v", metadata, services, err)
			}
			s := services[0]
			var methods []string
			for _, e := range s.Endpoints {
				if e.Name != "" {
					methods = append(methods, e.Name)
				}
			}
			if got := fmt.Sprintf("%s|%s|%v", s.Version, strings.Join(methods, ","), s.Nodes[0].Metadata); got != want {
				t.Errorf("%s is %s, want %s", metadata, got, want)
			}
		})
	}
}
