package open_test

import (
	"context"
	"fmt"
	"log"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/open"
)

// The configuration of a program says which registry it uses.
func ExampleClient() {
	ctx := context.Background()
	url := "memory:" // from a flag or the environment
	c, done, err := open.Client(ctx, url, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer done()
	view, err := c.List(ctx, "greeter")
	fmt.Println(len(view.Endpoints), err)
	// Output: 0 <nil>
}

// During a migration the configuration names two registries. The program stays the same.
func ExampleClient_migration() {
	ctx := context.Background()
	url := "migrate:?from=memory:&to=memory:&phase=union"
	c, done, err := open.Client(ctx, url, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer done()
	reg, err := c.Register(ctx, "greeter", naming.Endpoint{Addr: "10.0.0.7:9000"}, &naming.RegisterOptions{Wait: true, DrainDelay: -1})
	if err != nil {
		log.Fatal(err)
	}
	defer reg.Close()
	view, err := c.List(ctx, "greeter")
	fmt.Println(view.Endpoints[0].Addr, err)
	// Output: 10.0.0.7:9000 <nil>
}

// A program that needs the store itself makes the Client of it.
func ExampleStore() {
	ctx := context.Background()
	url := "memory:" // from a flag or the environment
	store, done, err := open.Store(ctx, url, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer done()
	c := naming.New(store, nil)
	defer c.Close()
	view, err := c.List(ctx, "greeter")
	fmt.Println(len(view.Endpoints), err)
	// Output: 0 <nil>
}

// The error of a URL that can never work says what to change. It may be logged, as it does
// not contain a password of the URL.
func ExampleStore_refused() {
	ctx := context.Background()
	for _, url := range []string{
		"zookeeper://10.0.0.1",
		"etcd://10.0.0.1:2379?timeout=3s",
		"etcd://app:hunter2@10.0.0.1:2379",
	} {
		_, _, err := open.Store(ctx, url, nil)
		fmt.Println(err)
	}
	// Output:
	// naming: invalid argument: URL of a store: unknown scheme "zookeeper"; known are consul, consuls, etcd, etcds, memory
	// naming: invalid argument: URL of a store: unknown parameter "timeout"; known for etcd are codec, deep, endpoint, no-draining-mark, password-env, password-file, prefix, username-env, username-file
	// naming: invalid argument: URL of a store: it has a user before the host: credentials are read from files or the environment
}
