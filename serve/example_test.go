package serve_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/serve"
)

// A server that is in the registry while it is healthy.
func Example() {
	c := naming.New(new(memory.Store), nil)
	defer c.Close()

	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	s := grpc.NewServer()
	h := health.NewServer()
	healthpb.RegisterHealthServer(s, h)
	h.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING) // there is something to load first

	// In a program, signal.NotifyContext makes the context.
	ctx, terminate := context.WithCancel(context.Background())
	defer terminate()
	stopped := make(chan error)
	go func() {
		stopped <- serve.Run(ctx, c, "greeter", s, lis, &serve.Options{
			Health:   h,
			Register: &naming.RegisterOptions{DrainDelay: 100 * time.Millisecond},
		})
	}()

	h.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	for view, err := range c.Watch(context.Background(), "greeter") {
		if err != nil {
			log.Fatal(err)
		}
		if len(view.Endpoints) > 0 {
			fmt.Println("announced:", view.Endpoints[0].Addr == lis.Addr().String())
			break
		}
	}

	terminate()
	fmt.Println("stopped:", <-stopped)
	left, err := c.List(context.Background(), "greeter")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("left in the registry:", len(left.Endpoints))
	// Output:
	// announced: true
	// stopped: <nil>
	// left in the registry: 0
}
