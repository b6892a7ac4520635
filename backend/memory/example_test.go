package memory_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
)

var (
	quiet  = &naming.Options{Logger: slog.New(slog.DiscardHandler)}
	errCut = errors.New("connection reset")
)

func put(store *memory.Store, service string, addrs ...string) {
	for _, addr := range addrs {
		if err := store.Apply(context.Background(), service, naming.Change{Endpoint: naming.Endpoint{Addr: addr}}); err != nil {
			log.Fatal(err)
		}
	}
}

// declared are the tests that the examples show. TestExamples runs them.
var declared []func(*testing.T)

func declare(test func(*testing.T)) { declared = append(declared, test) }

func TestExamples(t *testing.T) {
	declared = nil
	ExampleStore_failover()
	ExampleStore_ExpireAll()
	for _, test := range declared {
		test(t)
	}
}

// A test of how a program survives an outage. In a bubble of testing/synctest an outage
// of an hour takes no time.
func ExampleStore_failover() {
	TestFailover := func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store := new(memory.Store)
			c := naming.New(store, nil)
			defer c.Close()
			_, err := c.Register(t.Context(), "greeter", naming.Endpoint{Addr: "10.0.0.7:9000"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			w, err := c.Resolve("greeter") // or the code of the program under test
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			if ups, err := w.Next(); err != nil || len(ups) > 1 {
				t.Fatalf("at first: %v, %v", ups, err)
			}
			synctest.Wait()

			store.Down(errors.New("connection refused"))
			time.Sleep(time.Hour) // all leases expire
			store.Up()
			time.Sleep(time.Minute) // a retry comes within 30 seconds

			view, err := c.List(t.Context(), "greeter")
			if err != nil || len(view.Endpoints) != 1 {
				t.Errorf("after the outage: %v, %v, want the endpoint", view.Endpoints, err)
			}
		})
	}
	declare(TestFailover)
	// Output:
}

// A test of how a program survives the end of all leases at once, as after a registry was
// unreachable for longer than their time to live. The servers are alive and register
// again.
func ExampleStore_ExpireAll() {
	TestMassExpiry := func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store := new(memory.Store)
			c := naming.New(store, nil)
			defer c.Close()
			for _, addr := range []string{"10.0.0.7:9000", "10.0.0.8:9000", "10.0.0.9:9000"} {
				if _, err := c.Register(t.Context(), "greeter", naming.Endpoint{Addr: addr}, &naming.RegisterOptions{Wait: true}); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait() // until the watch has shown all three
			store.ExpireAll()
			synctest.Wait()
			for view := range c.Watch(t.Context(), "greeter") {
				if len(view.Endpoints) != 0 || len(view.Held) != 3 {
					t.Errorf("%d endpoints, %d held, want 0 and 3", len(view.Endpoints), len(view.Held))
				}
				break
			}
			time.Sleep(time.Minute)
			for view := range c.Watch(t.Context(), "greeter") {
				if len(view.Endpoints) != 3 || len(view.Held) != 0 {
					t.Errorf("%d endpoints, %d held, want 3 and 0", len(view.Endpoints), len(view.Held))
				}
				break
			}
		})
	}
	declare(TestMassExpiry)
	// Output:
}

// The zero value is ready to use, and needs no Close.
func Example() {
	c := naming.New(new(memory.Store), nil)
	defer c.Close()
	view, err := c.List(context.Background(), "greeter")
	fmt.Println(len(view.Endpoints), err)
	// Output: 0 <nil>
}

// A watch yields a snapshot first, and then changes.
func ExampleStore_Watch() {
	store := new(memory.Store)
	put(store, "greeter", "10.0.0.7:9000")
	for b, err := range store.Watch(context.Background(), "greeter") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("snapshot:", b.Snapshot, "put:", len(b.Put))
		if !b.Snapshot {
			break
		}
		put(store, "greeter", "10.0.0.8:9000")
	}
	// Output:
	// snapshot: true put: 1
	// snapshot: false put: 1
}

// A watch shows the changes of one Apply together.
func ExampleStore_Apply() {
	ctx := context.Background()
	store := new(memory.Store)
	put(store, "greeter", "10.0.0.7:9000")
	err := store.Apply(ctx, "greeter",
		naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: "10.0.0.7:9000"}},
		naming.Change{Endpoint: naming.Endpoint{Addr: "10.0.0.8:9000"}},
	)
	if err != nil {
		log.Fatal(err)
	}
	for b := range store.Watch(ctx, "greeter") {
		fmt.Println(b.Put[0].Addr, len(b.Put))
		break
	}
	// Output: 10.0.0.8:9000 1
}

func ExampleStore_Services() {
	store := new(memory.Store)
	put(store, "greeter", "10.0.0.7:9000")
	put(store, "billing", "10.0.0.8:9000")
	for names := range store.Services(context.Background()) {
		fmt.Println(names)
		break
	}
	// Output: [billing greeter]
}

// The end of a lease removes its endpoints.
func ExampleStore_Expire() {
	ctx := context.Background()
	store := new(memory.Store)
	lease, err := store.Grant(ctx, time.Minute)
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Apply(ctx, "greeter", naming.Change{Endpoint: naming.Endpoint{Addr: "10.0.0.7:9000"}, Lease: lease}); err != nil {
		log.Fatal(err)
	}
	store.Expire(lease)
	for b := range store.Watch(ctx, "greeter") {
		fmt.Println(len(b.Put), "endpoints")
		break
	}
	fmt.Println(errors.Is(lease.Renew(ctx), naming.ErrLeaseLost))
	// Output:
	// 0 endpoints
	// true
}

func ExampleStore_Grant() {
	lease, err := new(memory.Store).Grant(context.Background(), 15*time.Second)
	fmt.Println(lease.TTL(), err)
	// Output: 15s <nil>
}

// Running watches end with the error. New watches start as usual.
func ExampleStore_Break() {
	ctx := context.Background()
	store := new(memory.Store)
	for _, err := range store.Watch(ctx, "greeter") {
		if err != nil {
			fmt.Println(err)
			break
		}
		store.Break(errCut)
	}
	for b, err := range store.Watch(ctx, "greeter") {
		fmt.Println("snapshot:", b.Snapshot, err)
		break
	}
	// Output:
	// memory: watch "greeter": connection reset
	// snapshot: true <nil>
}

// Running watches continue. Every other call is refused.
func ExampleStore_Refuse() {
	store := new(memory.Store)
	store.Refuse(naming.ErrPermission)
	_, err := store.Grant(context.Background(), time.Minute)
	fmt.Println(errors.Is(err, naming.ErrPermission))
	store.Refuse(nil)
	_, err = store.Grant(context.Background(), time.Minute)
	fmt.Println(err)
	// Output:
	// true
	// <nil>
}

// A registry that allows reads and refuses writes.
func ExampleStore_RefuseFunc() {
	ctx := context.Background()
	store := new(memory.Store)
	c := naming.New(store, quiet)
	defer c.Close()
	store.RefuseFunc(func(method, service string) error {
		if method == "Apply" {
			return naming.ErrPermission
		}
		return nil
	})
	err := c.Update(ctx, "greeter", naming.Update{Op: naming.Add, Addr: "10.0.0.7:9000"})
	fmt.Println(errors.Is(err, naming.ErrPermission))
	_, err = c.List(ctx, "greeter")
	fmt.Println(err)
	// Output:
	// true
	// <nil>
}

// In an outage a Client keeps the known endpoints, and marks them as stale.
func ExampleStore_Down() {
	store := new(memory.Store)
	put(store, "greeter", "10.0.0.7:9000")
	c := naming.New(store, quiet)
	defer c.Close()
	down := false
	for view, err := range c.Watch(context.Background(), "greeter") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(len(view.Endpoints), "endpoint, stale:", view.Stale())
		switch {
		case !down:
			store.Down(errCut)
			down = true
			continue
		case view.Stale():
			store.Up()
			continue
		}
		break
	}
	// Output:
	// 1 endpoint, stale: false
	// 1 endpoint, stale: true
	// 1 endpoint, stale: false
}

// Up ends Down and Refuse.
func ExampleStore_Up() {
	store := new(memory.Store)
	store.Down(errCut)
	_, err := store.Grant(context.Background(), time.Minute)
	fmt.Println(err)
	store.Up()
	_, err = store.Grant(context.Background(), time.Minute)
	fmt.Println(err)
	// Output:
	// memory: grant: connection reset
	// <nil>
}

// In a silence a call blocks until its context is done.
func ExampleStore_Silence() {
	store := new(memory.Store)
	store.Silence()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err := store.Grant(ctx, time.Minute)
	fmt.Println(errors.Is(err, context.DeadlineExceeded))
	// Output: true
}

// Speak ends Silence, and blocked calls continue.
func ExampleStore_Speak() {
	store := new(memory.Store)
	store.Silence()
	time.AfterFunc(10*time.Millisecond, store.Speak)
	_, err := store.Grant(context.Background(), time.Minute)
	fmt.Println(err)
	// Output: <nil>
}

// A call whose context is shorter than the delay fails.
func ExampleStore_Delay() {
	store := new(memory.Store)
	store.Delay(time.Second)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	err := store.Apply(ctx, "greeter", naming.Change{Endpoint: naming.Endpoint{Addr: "10.0.0.7:9000"}})
	fmt.Println(errors.Is(err, context.DeadlineExceeded))
	// Output: true
}

// The registry lost its content. A watch of a Client shows no endpoints. It holds the old
// endpoints for a while, and package resolver still uses them.
func ExampleStore_Wipe() {
	store := new(memory.Store)
	put(store, "greeter", "10.0.0.7:9000", "10.0.0.8:9000")
	c := naming.New(store, quiet)
	defer c.Close()
	for view, err := range c.Watch(context.Background(), "greeter") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(len(view.Endpoints), "endpoints,", len(view.Held), "held")
		if len(view.Endpoints) == 0 {
			break
		}
		store.Wipe()
	}
	// Output:
	// 2 endpoints, 0 held
	// 0 endpoints, 2 held
}

// An operator takes an endpoint out of use. Its server registers it again. It stays
// withheld until the operator ends the maintenance.
func ExampleStore_Withhold() {
	store := new(memory.Store)
	put(store, "greeter", "10.0.0.7:9000", "10.0.0.8:9000")
	step := 0
	for b, err := range store.Watch(context.Background(), "greeter") {
		if err != nil {
			log.Fatal(err)
		}
		for _, e := range b.Put {
			fmt.Println("use", e.Addr)
		}
		for _, w := range b.Withheld {
			fmt.Printf("do not use %s: %v, %s\n", w.Endpoint.Addr, w.Reason, w.Detail)
		}
		switch step++; step {
		case 1:
			store.Withhold("greeter", "10.0.0.7:9000", naming.Maintenance, "new disk")
		case 2:
			put(store, "greeter", "10.0.0.7:9000")
		case 3:
			store.Unwithhold("greeter", "10.0.0.7:9000")
		case 4:
			return
		}
	}
	// Output:
	// use 10.0.0.7:9000
	// use 10.0.0.8:9000
	// do not use 10.0.0.7:9000: maintenance, new disk
	// do not use 10.0.0.7:9000: maintenance, new disk
	// use 10.0.0.7:9000
}

// A replica that has lost its leader shows an older state.
func ExampleStore_Lag() {
	store := new(memory.Store)
	c := naming.New(store, nil)
	defer c.Close()
	list := func() int {
		view, err := c.List(context.Background(), "greeter")
		if err != nil {
			log.Fatal(err)
		}
		return len(view.Endpoints)
	}
	store.Lag()
	put(store, "greeter", "10.0.0.7:9000")
	fmt.Println(list())
	store.CatchUp()
	fmt.Println(list())
	// Output:
	// 0
	// 1
}

// CatchUp ends Lag, also for running watches.
func ExampleStore_CatchUp() {
	store := new(memory.Store)
	store.Lag()
	put(store, "greeter", "10.0.0.7:9000")
	for b := range store.Watch(context.Background(), "greeter") {
		fmt.Println("snapshot:", b.Snapshot, "put:", len(b.Put))
		if len(b.Put) > 0 {
			break
		}
		store.CatchUp()
	}
	// Output:
	// snapshot: true put: 0
	// snapshot: true put: 1
}

// Another program wrote an entry that is not an endpoint. The entry hides no endpoint.
func ExampleStore_PutMalformed() {
	store := &memory.Store{OnMalformed: func(m *naming.MalformedError) { fmt.Println(m.Service, m.Key, m.Err) }}
	put(store, "greeter", "10.0.0.7:9000")
	store.PutMalformed("greeter", "10.0.0.8:9000", errors.New("not a JSON object"))
	for b := range store.Watch(context.Background(), "greeter") {
		fmt.Println(len(b.Put), "endpoint")
		break
	}
	// Output:
	// greeter 10.0.0.8:9000 not a JSON object
	// 1 endpoint
}

// Calls shows that an idle watch makes no request, and that readers share one watch.
func ExampleStore_Calls() {
	store := new(memory.Store)
	c := naming.New(store, nil)
	defer c.Close()
	for range 1000 {
		for range c.Watch(context.Background(), "greeter") {
			break
		}
	}
	fmt.Println(store.Calls())
	// Output: 1
}
