package naming_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
)

// A server announces itself, a client finds it, and the server leaves.
func Example() {
	ctx := context.Background()
	c := naming.New(new(memory.Store), nil) // or a Store on etcd
	defer c.Close()

	server, err := c.Register(ctx, "greeter", naming.Endpoint{Addr: "10.0.0.7:9000"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	for view, err := range c.Watch(ctx, "greeter") {
		if err != nil {
			log.Fatal(err)
		}
		if len(view.Endpoints) > 0 {
			fmt.Println("found", view.Endpoints[0].Addr)
			break
		}
	}
	if err := server.Close(); err != nil {
		log.Fatal(err)
	}
	view, err := c.List(ctx, "greeter")
	fmt.Println(len(view.Endpoints), err)
	// Output:
	// found 10.0.0.7:9000
	// 0 <nil>
}

// The options have defaults that fit most programs.
func ExampleNew() {
	c := naming.New(new(memory.Store), &naming.Options{
		Logger:      slog.New(slog.DiscardHandler),
		IdleGrace:   10 * time.Minute,
		ResyncEvery: time.Hour,
		Hold:        naming.Hold{Share: 0.8, MaxDuration: time.Minute},
	})
	defer c.Close()

	// New calls no method of the store. The first call finds that the store is
	// missing.
	_, err := naming.New(nil, nil).List(context.Background(), "greeter")
	fmt.Println(err)
	// Output: naming: invalid argument: New was given a nil Store
}

// Close ends everything that the Client began. All other methods fail from then on.
func ExampleClient_Close() {
	c := naming.New(new(memory.Store), nil)
	w, err := c.Resolve("greeter")
	if err != nil {
		log.Fatal(err)
	}
	c.Close()

	_, err = w.Next()
	fmt.Println(err == naming.ErrWatcherClosed)
	_, err = c.List(context.Background(), "greeter")
	fmt.Println(err == naming.ErrClientClosed)
	// Output:
	// true
	// true
}

// The loop gets the present state, and the new state after each change. A registry that
// fails makes the state stale, and does not end the loop.
func ExampleClient_Watch() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	store := new(memory.Store)
	c := naming.New(store, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	defer c.Close()
	if err := c.Update(ctx, "greeter", naming.Update{Op: naming.Add, Addr: "10.0.0.7:9000"}); err != nil {
		log.Fatal(err)
	}

	for view, err := range c.Watch(ctx, "greeter") {
		if err != nil {
			fmt.Println(errors.Is(err, context.Canceled))
			break
		}
		fmt.Println(len(view.Endpoints), "endpoint, stale:", view.Stale())
		if view.Stale() {
			fmt.Println(view.Err)
			cancel()
		} else {
			store.Down(errors.New("connection refused"))
		}
	}
	// Output:
	// 1 endpoint, stale: false
	// 1 endpoint, stale: true
	// memory: watch "greeter": connection refused
	// true
}

// A Watcher returns the full set first, and then the changes.
func ExampleClient_Resolve() {
	ctx := context.Background()
	c := naming.New(new(memory.Store), nil)
	defer c.Close()
	update := func(u ...naming.Update) {
		if err := c.Update(ctx, "greeter", u...); err != nil {
			log.Fatal(err)
		}
	}
	update(naming.Update{Op: naming.Add, Addr: "10.0.0.7:9000"}, naming.Update{Op: naming.Add, Addr: "10.0.0.8:9000"})

	w, err := c.Resolve("greeter")
	if err != nil {
		log.Fatal(err)
	}
	defer w.Close()
	next := func() {
		updates, err := w.Next()
		if err != nil {
			log.Fatal(err)
		}
		for _, u := range updates {
			fmt.Println(u.Op, u.Addr, u.Metadata)
		}
		fmt.Println()
	}
	next()
	update(
		naming.Update{Op: naming.Delete, Addr: "10.0.0.7:9000"},
		naming.Update{Op: naming.Add, Addr: "10.0.0.8:9000", Metadata: map[string]any{"zone": "eu-1"}},
	)
	next()
	// Output:
	// Add 10.0.0.7:9000 <nil>
	// Add 10.0.0.8:9000 <nil>
	//
	// Delete 10.0.0.7:9000 <nil>
	// Add 10.0.0.8:9000 map[zone:eu-1]
}

// List makes one request. With an error nothing is known.
func ExampleClient_List() {
	ctx := context.Background()
	store := new(memory.Store)
	c := naming.New(store, nil)
	defer c.Close()
	view, err := c.List(ctx, "greeter")
	fmt.Println(len(view.Endpoints), err)

	store.Down(errors.New("connection refused"))
	view, err = c.List(ctx, "greeter")
	fmt.Println(view.Synced, err)
	// Output:
	// 0 <nil>
	// false naming: list "greeter": memory: watch "greeter": connection refused
}

// The names of all services that have endpoints.
func ExampleClient_Services() {
	ctx := context.Background()
	c := naming.New(new(memory.Store), nil)
	defer c.Close()
	for _, service := range []string{"greeter", "billing", "billing/eu-1"} {
		if err := c.Update(ctx, service, naming.Update{Op: naming.Add, Addr: "10.0.0.7:9000"}); err != nil {
			log.Fatal(err)
		}
	}
	for names, err := range c.Services(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(names)
		break // otherwise the loop goes on when the list changed
	}
	// Output: [billing billing/eu-1 greeter]
}

// Update puts and deletes endpoints, all together and without a lease.
func ExampleClient_Update() {
	ctx := context.Background()
	c := naming.New(new(memory.Store), nil)
	defer c.Close()
	err := c.Update(ctx, "greeter",
		naming.Update{Op: naming.Add, Addr: "10.0.0.7:9000", Metadata: map[string]any{"weight": 10}},
		naming.Update{Op: naming.Delete, Addr: "10.0.0.8:9000"}, // does not exist, which is not an error
	)
	fmt.Println(err)
	err = c.Update(ctx, "greeter", naming.Update{Op: naming.Add})
	fmt.Println(err)
	// Output:
	// <nil>
	// naming: update "greeter": naming: invalid argument: Add in service "greeter": endpoint with ID "" and address "" has no metadata either
}

// Arguments that can never work are an error at once. A registry that is down is not an
// error.
func ExampleClient_Register() {
	ctx := context.Background()
	store := new(memory.Store)
	c := naming.New(store, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	defer c.Close()

	_, err := c.Register(ctx, "greeter", naming.Endpoint{Addr: ":9000"}, nil)
	fmt.Println(err)

	store.Down(errors.New("connection refused"))
	reg, err := c.Register(ctx, "greeter", naming.Endpoint{Addr: "10.0.0.7:9000"}, nil)
	fmt.Println(err, reg.Status().Registered)
	store.Up()
	fmt.Println(reg.Wait(ctx), reg.Status().Registered)
	// Output:
	// naming: register in "greeter": naming: invalid argument: address ":9000": no host: clients cannot dial the wildcard address a server listens on
	// <nil> false
	// <nil> true
}

// Status suits a readiness probe, and OnChange a gauge.
func ExampleRegistration_Status() {
	ctx := context.Background()
	c := naming.New(new(memory.Store), nil)
	defer c.Close()
	reg, err := c.Register(ctx, "greeter", naming.Endpoint{Addr: "10.0.0.7:9000"}, &naming.RegisterOptions{
		TTL:  10 * time.Second,
		Wait: true,
		OnChange: func(s naming.RegistrationStatus) {
			// Count it, or log it. It is called from another goroutine.
		},
		DrainDelay: -1, // not to wait for clients that an example does not have
	})
	if err != nil {
		log.Fatal(err)
	}
	s := reg.Status()
	fmt.Println("registered:", s.Registered, "failed attempts since:", s.FailedAttempts, "error:", s.Err)
	// Output: registered: true failed attempts since: 0 error: <nil>
}

// Wait waits until the endpoint is in the registry.
func ExampleRegistration_Wait() {
	store := new(memory.Store)
	c := naming.New(store, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	defer c.Close()
	store.Down(errors.New("connection refused"))
	defer store.Up()
	reg, err := c.Register(context.Background(), "greeter", naming.Endpoint{Addr: "10.0.0.7:9000"}, &naming.RegisterOptions{
		DrainDelay: -1, // not to wait for clients that an example does not have
	})
	if err != nil {
		log.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	fmt.Println(reg.Wait(ctx))
	// Output: context deadline exceeded; the last attempt failed: memory: grant: connection refused
}

// Update changes the metadata in place, and connections of clients stay.
func ExampleRegistration_Update() {
	ctx := context.Background()
	c := naming.New(new(memory.Store), nil)
	defer c.Close()
	reg, err := c.Register(ctx, "greeter", naming.Endpoint{Addr: "10.0.0.7:9000"}, &naming.RegisterOptions{
		DrainDelay: -1, // not to wait for clients that an example does not have
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := reg.Update(ctx, json.RawMessage(`{"weight":20,"zone":"eu-1"}`)); err != nil {
		log.Fatal(err)
	}
	view, err := c.List(ctx, "greeter")
	fmt.Printf("%s %v\n", view.Endpoints[0].Metadata, err)
	// Output: {"weight":20,"zone":"eu-1"} <nil>
}

// Drain stops new calls to a server for a while, for example to take a profile.
func ExampleRegistration_Drain() {
	ctx := context.Background()
	c := naming.New(new(memory.Store), nil)
	defer c.Close()
	reg, err := c.Register(ctx, "greeter", naming.Endpoint{Addr: "10.0.0.7:9000"}, &naming.RegisterOptions{
		DrainDelay: -1, // not to wait for clients that an example does not have
	})
	if err != nil {
		log.Fatal(err)
	}
	draining := func() bool {
		view, err := c.List(ctx, "greeter")
		if err != nil {
			log.Fatal(err)
		}
		return view.Endpoints[0].Info().Draining
	}
	fmt.Println(reg.Drain(ctx), draining())
	fmt.Println(reg.Resume(ctx), draining())
	// Output:
	// <nil> true
	// <nil> false
}

// Resume ends what Drain began.
func ExampleRegistration_Resume() {
	ctx := context.Background()
	c := naming.New(new(memory.Store), nil)
	defer c.Close()
	reg, err := c.Register(ctx, "greeter", naming.Endpoint{Addr: "10.0.0.7:9000"}, &naming.RegisterOptions{
		DrainDelay: -1, // not to wait for clients that an example does not have
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := reg.Drain(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(reg.Status().Draining)
	if err := reg.Resume(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(reg.Status().Draining)
	// Output:
	// true
	// false
}

// The order in which a server stops without dropping a call. Close needs no context,
// because the context of a program that is being terminated is done already.
func ExampleRegistration_Close() {
	c := naming.New(new(memory.Store), nil)
	defer c.Close()
	reg, err := c.Register(context.Background(), "greeter", naming.Endpoint{Addr: "10.0.0.7:9000"}, &naming.RegisterOptions{
		DrainDelay: 100 * time.Millisecond, // clients see the mark within this time
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(reg.Close())
	// Now server.GracefulStop().
	// Output: <nil>
}

// A Follower suits a program that keeps the set in a form of its own and needs a
// callback.
func ExampleClient_Follow() {
	ctx := context.Background()
	c := naming.New(new(memory.Store), nil)
	defer c.Close()
	if err := c.Update(ctx, "greeter", naming.Update{Op: naming.Add, Addr: "10.0.0.7:9000"}); err != nil {
		log.Fatal(err)
	}

	wake := make(chan struct{}, 1)
	f, err := c.Follow("greeter", func() {
		select {
		case wake <- struct{}{}:
		default: // a token is pending, and Next returns everything that is new
		}
	})
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	set := make(map[string]naming.Endpoint)
	for len(set) == 0 {
		// Next returns what is known already, before the first wake-up.
		for e, ok := f.Next(); ok; e, ok = f.Next() {
			if e.Snapshot {
				clear(set)
			}
			for _, id := range e.Deleted {
				delete(set, id)
			}
			for _, p := range e.Put {
				set[p.ID] = p
			}
			fmt.Println(len(set), "endpoint, stale:", e.Status.Stale())
		}
		if len(set) == 0 {
			<-wake
		}
	}
	// Output: 1 endpoint, stale: false
}

// Next does not wait. Failures are in the status of its Event, and do not end the
// Follower.
func ExampleFollower_Next() {
	store := new(memory.Store)
	store.Down(errors.New("connection refused"))
	c := naming.New(store, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	defer c.Close()
	wake := make(chan struct{}, 1)
	f, err := c.Follow("greeter", func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	e, ok := f.Next() // before any wake-up, as something may be known already
	for !ok {
		<-wake
		e, ok = f.Next()
	}
	fmt.Println(ok, "known:", e.Status.Synced, "error:", e.Status.Err)
	_, ok = f.Next()
	fmt.Println(ok)
	// Output:
	// true known: false error: memory: watch "greeter": connection refused
	// false
}

// After Close, Next returns false.
func ExampleFollower_Close() {
	c := naming.New(new(memory.Store), nil)
	defer c.Close()
	f, err := c.Follow("greeter", func() {})
	if err != nil {
		log.Fatal(err)
	}
	f.Close()
	_, ok := f.Next()
	fmt.Println(ok)
	// Output: false
}

// An address that a server listens on need not be one that clients can dial.
func ExampleCheckAddress() {
	for _, addr := range []string{"10.0.0.7:9000", "[2001:db8::7]:9000", "unix:/run/greeter.sock", "0.0.0.0:9000", "[::]:9000", "10.0.0.7:0", "greeter"} {
		fmt.Println(addr, naming.CheckAddress(addr))
	}
	// Output:
	// 10.0.0.7:9000 <nil>
	// [2001:db8::7]:9000 <nil>
	// unix:/run/greeter.sock <nil>
	// 0.0.0.0:9000 naming: invalid argument: address "0.0.0.0:9000": clients cannot dial the wildcard address a server listens on
	// [::]:9000 naming: invalid argument: address "[::]:9000": clients cannot dial the wildcard address a server listens on
	// 10.0.0.7:0 naming: invalid argument: address "10.0.0.7:0": the port is not a number from 1 to 65535
	// greeter naming: invalid argument: address "greeter": not host:port
}

// Any non-empty UTF-8 text is a valid name of a service.
func ExampleCheckService() {
	fmt.Println(naming.CheckService("billing/eu-1, new"))
	fmt.Println(naming.CheckService(""))
	fmt.Println(naming.CheckService("\xff"))
	// Output:
	// <nil>
	// naming: invalid argument: empty service name
	// naming: invalid argument: service name "\xff" is not UTF-8
}

// Every Store's Apply begins with Normalize.
func ExampleNormalize() {
	changes, err := naming.Normalize("greeter", []naming.Change{
		{Endpoint: naming.Endpoint{Addr: "10.0.0.7:9000", Metadata: json.RawMessage("null")}},
	})
	fmt.Println(changes[0].Endpoint.ID, changes[0].Endpoint.Metadata == nil, err)

	_, err = naming.Normalize("greeter", []naming.Change{
		{Endpoint: naming.Endpoint{Addr: "10.0.0.7:9000", Metadata: json.RawMessage("{")}},
	})
	fmt.Println(errors.Is(err, naming.ErrInvalid), err)
	// Output:
	// 10.0.0.7:9000 true <nil>
	// true naming: invalid argument: Add in service "greeter": metadata "{" of endpoint "10.0.0.7:9000" is not JSON
}

// Equal compares the JSON values of metadata, and numbers as they are spelt.
func ExampleEndpoint_Equal() {
	with := func(metadata string) naming.Endpoint {
		return naming.Endpoint{ID: "a", Addr: "10.0.0.7:9000", Metadata: json.RawMessage(metadata)}
	}
	fmt.Println(with(`{"zone":"a","weight":1}`).Equal(with(`{ "weight": 1, "zone": "\u0061" }`)))
	fmt.Println(with(`{"weight":1}`).Equal(with(`{"weight":1.0}`)))
	// Output:
	// true
	// false
}

// Info decodes the members of the metadata that have a meaning. A member of the wrong
// type does not hide the others.
func ExampleEndpoint_Info() {
	e := naming.Endpoint{Addr: "10.0.0.7:9000", Metadata: json.RawMessage(
		`{"weight": 10, "zone": "eu-1", "version": 3, "tags": ["canary"], "draining": true, "owner": "team a"}`)}
	info := e.Info()
	fmt.Println(info.Weight, info.Zone, info.Tags, info.Draining)
	fmt.Printf("%q, as 3 is not a string\n", info.Version)
	// Output:
	// 10 eu-1 [canary] true
	// "", as 3 is not a string
}

// A stale View has the last known endpoints.
func ExampleStatus_Stale() {
	v := naming.View{
		Endpoints: []naming.Endpoint{{ID: "a", Addr: "10.0.0.7:9000"}},
		Status:    naming.Status{Synced: true, StaleSince: time.Now(), Err: errors.New("connection refused")},
	}
	fmt.Println(v.Stale(), len(v.Endpoints))
	// Output: true 1
}

func ExampleOperation_String() {
	fmt.Println(naming.Add, naming.Delete, naming.Operation(7))
	// Output: Add Delete Operation(7)
}

// The JSON of an Update is that of gRPC's former package naming.
func ExampleUpdate() {
	b, err := json.Marshal(naming.Update{Op: naming.Add, Addr: "10.0.0.7:9000"})
	fmt.Println(string(b), err)
	// Output: {"Op":0,"Addr":"10.0.0.7:9000","Metadata":null} <nil>
}

// A MalformedError describes an entry of the registry that cannot be understood.
func ExampleMalformedError() {
	store := &memory.Store{OnMalformed: func(m *naming.MalformedError) { fmt.Println(m) }}
	c := naming.New(store, nil)
	defer c.Close()
	store.PutMalformed("greeter", "10.0.0.7:9000", errors.New("not a JSON object"))
	view, err := c.List(context.Background(), "greeter")
	fmt.Println(len(view.Endpoints), err)
	// Output:
	// naming: malformed entry "10.0.0.7:9000" of service "greeter": not a JSON object
	// 0 <nil>
}

// A MalformedError wraps its cause.
func ExampleMalformedError_Unwrap() {
	cause := errors.New("not a JSON object")
	var err error = &naming.MalformedError{Service: "greeter", Key: "10.0.0.7:9000", Err: cause}
	fmt.Println(errors.Is(err, cause))
	// Output: true
}

func ExampleMalformedError_Error() {
	fmt.Println((&naming.MalformedError{Service: "greeter", Key: "10.0.0.7:9000", Err: errors.New("not a JSON object")}).Error())
	// Output: naming: malformed entry "10.0.0.7:9000" of service "greeter": not a JSON object
}

// Hooks count events that an operator watches.
func ExampleHooks() {
	ctx := context.Background()
	store := new(memory.Store)
	held := make(chan int, 1)
	c := naming.New(store, &naming.Options{
		Logger: slog.New(slog.DiscardHandler),
		Hooks: &naming.Hooks{
			Held: func(info naming.HeldInfo) { held <- len(info.Endpoints) },
		},
	})
	defer c.Close()
	for _, addr := range []string{"10.0.0.7:9000", "10.0.0.8:9000", "10.0.0.9:9000"} {
		if err := c.Update(ctx, "greeter", naming.Update{Op: naming.Add, Addr: addr}); err != nil {
			log.Fatal(err)
		}
	}
	for range c.Watch(ctx, "greeter") {
		break // the service stays watched
	}
	store.Wipe()
	fmt.Println("held:", <-held)
	// Output: held: 3
}

// Packages that extend a Client call its hooks.
func ExampleClient_Hooks() {
	c := naming.New(new(memory.Store), &naming.Options{Hooks: &naming.Hooks{
		Published: func(info naming.PublishedInfo) { fmt.Println(info.Service, info.Addresses) },
	}})
	defer c.Close()
	if f := c.Hooks().Published; f != nil {
		f(naming.PublishedInfo{Service: "greeter", Addresses: 3})
	}
	// Output: greeter 3
}

// Endpoints that vanish together without a draining mark are held for a while, because
// a fault of the registry looks like that.
func ExampleHold() {
	ctx := context.Background()
	store := new(memory.Store)
	c := naming.New(store, &naming.Options{
		Logger: slog.New(slog.DiscardHandler),
		Hold:   naming.Hold{MaxDuration: 10 * time.Minute},
	})
	defer c.Close()
	err := c.Update(ctx, "greeter", naming.Update{Op: naming.Add, Addr: "10.0.0.7:9000"}, naming.Update{Op: naming.Add, Addr: "10.0.0.8:9000"})
	if err != nil {
		log.Fatal(err)
	}
	for view, err := range c.Watch(ctx, "greeter") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(len(view.Endpoints), "endpoints,", len(view.Held), "held")
		if len(view.Held) > 0 {
			break
		}
		store.Wipe()
	}
	// Output:
	// 2 endpoints, 0 held
	// 0 endpoints, 2 held
}

// A Store can be wrapped, here by a Store that refuses all writes.
func ExampleStore() {
	var store naming.Store = readOnly{new(memory.Store)}
	c := naming.New(store, nil)
	defer c.Close()
	err := c.Update(context.Background(), "greeter", naming.Update{Op: naming.Add, Addr: "10.0.0.7:9000"})
	fmt.Println(errors.Is(err, naming.ErrPermission))
	// Output: true
}

type readOnly struct{ naming.Store }

func (s readOnly) Apply(context.Context, string, ...naming.Change) error {
	return naming.ErrPermission
}

// A program can use a lease directly, as a Registration does.
func ExampleLease() {
	ctx := context.Background()
	store := new(memory.Store)
	lease, err := store.Grant(ctx, 15*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	e := naming.Endpoint{Addr: "10.0.0.7:9000"}
	fmt.Println(store.Apply(ctx, "greeter", naming.Change{Endpoint: e, Lease: lease}))
	fmt.Println(lease.Renew(ctx))

	// A successor with the same address takes the endpoint over.
	successor, err := store.Grant(ctx, 15*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(store.Apply(ctx, "greeter", naming.Change{Endpoint: e, Lease: successor}))
	// The end of the first lease does not remove the endpoint.
	fmt.Println(lease.Revoke(ctx))
	fmt.Println(errors.Is(lease.Renew(ctx), naming.ErrLeaseLost))

	for b := range store.Watch(ctx, "greeter") {
		fmt.Println(len(b.Put), "endpoint")
		break
	}
	// Output:
	// <nil>
	// <nil>
	// <nil>
	// <nil>
	// true
	// 1 endpoint
}

// A Delete under a lease does not delete a successor, and an Add with IfFree does not
// replace one.
func ExampleChange() {
	ctx := context.Background()
	store := new(memory.Store)
	mine, _ := store.Grant(ctx, 15*time.Second)
	successor, _ := store.Grant(ctx, 15*time.Second)
	e := func(version string) naming.Endpoint {
		return naming.Endpoint{Addr: "10.0.0.7:9000", Metadata: json.RawMessage(`{"version":"` + version + `"}`)}
	}
	err := store.Apply(ctx, "greeter",
		naming.Change{Endpoint: e("1"), Lease: mine},
		naming.Change{Endpoint: e("2"), Lease: successor},
		naming.Change{Endpoint: e("1"), Lease: mine, IfFree: true},
		naming.Change{Op: naming.Delete, Endpoint: e("1"), Lease: mine},
	)
	if err != nil {
		log.Fatal(err)
	}
	for b := range store.Watch(ctx, "greeter") {
		fmt.Printf("%s\n", b.Put[0].Metadata)
		break
	}
	// Output: {"version":"2"}
}

// An operator takes a server out of the traffic without the help of its program, and puts the
// server back.
func ExampleClient_Mark() {
	ctx := context.Background()
	store := new(memory.Store)
	program := naming.New(store, nil)
	defer program.Close()
	reg, err := program.Register(ctx, "greeter", naming.Endpoint{Addr: "10.0.0.7:9000"}, &naming.RegisterOptions{Wait: true, DrainDelay: -1})
	if err != nil {
		log.Fatal(err)
	}

	operator := naming.New(store, nil)
	defer operator.Close()
	for _, draining := range []bool{true, false} {
		if err := operator.Mark(ctx, "greeter", "10.0.0.7:9000", draining); err != nil {
			log.Fatal(err)
		}
		view, err := operator.List(ctx, "greeter")
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(view.Endpoints[0].Addr, "draining:", view.Endpoints[0].Draining, "registered:", reg.Status().Registered)
	}
	fmt.Println(errors.Is(operator.Mark(ctx, "greeter", "10.0.0.8:9000", true), naming.ErrNotFound))
	// Output:
	// 10.0.0.7:9000 draining: true registered: true
	// 10.0.0.7:9000 draining: false registered: true
	// true
}
