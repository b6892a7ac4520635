package bridge_test

import (
	"context"
	"fmt"
	"log"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/migrate/bridge"
)

// A program lists what a Bridge would do, and runs the Bridge. A program on etcd and Consul
// makes its stores with package open.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	old, next := new(memory.Store), new(memory.Store)
	err := old.Apply(ctx, "greeter", naming.Change{Op: naming.Add, Endpoint: naming.Endpoint{ID: "1", Addr: "10.0.0.7:9000"}})
	if err != nil {
		log.Fatal(err)
	}
	b, err := bridge.New(old, next, &bridge.Options{
		Hooks: &bridge.Hooks{
			Copied: func(bridge.CopiedInfo) { stop() }, // other programs go on
			FuseBlown: func(i bridge.FuseBlownInfo) {
				log.Printf("%d deletions wait for the approval of %s", len(i.Plan.Deletes), i.Plan.Digest)
			},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	plan, err := b.Plan(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range plan.Puts {
		fmt.Println("to put:", p.Service, p.Endpoint.ID, p.Endpoint.Addr)
	}
	fmt.Println(b.Run(ctx))
	// Output:
	// to put: greeter ~old~1 10.0.0.7:9000
	// context canceled
}
