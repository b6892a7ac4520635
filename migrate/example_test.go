package migrate_test

import (
	"context"
	"fmt"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/migrate"
)

// A program on two registries. The phase of the migration, and so where the program
// registers, changes while the program runs.
func Example() {
	old, next := new(memory.Store), new(memory.Store) // Consul and etcd, for example
	if err := run(context.Background(), old, next); err != nil {
		fmt.Println(err)
	}
	// Output:
	// the new registry has 127.0.0.1:9000
}

func run(ctx context.Context, old, next naming.Store) error {
	phases, err := migrate.Records(old, next, nil)
	if err != nil {
		return err
	}
	defer phases.Close()
	c, err := migrate.Join(old, next, phases, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	reg, err := c.Register(ctx, "greeter", naming.Endpoint{Addr: "127.0.0.1:9000"}, nil)
	if err != nil {
		return err
	}
	defer reg.Close()

	// An operator's tool changes the phase.
	_, err = migrate.WriteRecord(ctx, old, next, "greeter", migrate.State{Phase: migrate.DualWrite, By: "ada"})
	if err != nil {
		return err
	}
	return waitFor(ctx, next)
}

// waitFor waits until a registry has an endpoint of the service.
func waitFor(ctx context.Context, store naming.Store) error {
	c := naming.New(store, nil)
	defer c.Close()
	for view, err := range c.Watch(ctx, "greeter") {
		if err != nil {
			return err
		}
		if len(view.Endpoints) > 0 {
			fmt.Println("the new registry has", view.Endpoints[0].Addr)
			break
		}
	}
	return nil
}
