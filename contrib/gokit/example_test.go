package gokitnaming_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/go-kit/kit/endpoint"
	"github.com/go-kit/kit/sd"
	"github.com/go-kit/kit/sd/lb"
	"github.com/go-kit/log"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	gokitnaming "github.com/naming-go/naming/contrib/gokit"
)

// A server and a client on go-kit. Servers on several machines have a Store on etcd or
// Consul instead of the memory.
func Example() {
	c := naming.New(new(memory.Store), &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	defer c.Close()

	// Instead of: registrar := etcdv3.NewRegistrar(client, etcdv3.Service{...}, logger)
	registrar := gokitnaming.NewRegistrar(c, "greeter", naming.Endpoint{Addr: "10.0.0.7:8080"}, nil)
	registrar.Register()
	defer registrar.Deregister() // before the server is stopped

	// Instead of: instancer, err := etcdv3.NewInstancer(client, "/services/greeter/", logger)
	instancer := gokitnaming.NewInstancer(c, "greeter", nil)
	defer instancer.Stop()

	factory := func(instance string) (endpoint.Endpoint, io.Closer, error) {
		return func(_ context.Context, request any) (any, error) {
			return fmt.Sprintf("%s from %s", request, instance), nil
		}, nil, nil
	}
	endpointer := sd.NewEndpointer(instancer, gokitnaming.FinishCalls(factory), log.NewNopLogger())
	defer endpointer.Close()
	for list, _ := endpointer.Endpoints(); len(list) == 0; list, _ = endpointer.Endpoints() {
		time.Sleep(time.Millisecond) // until the first server is there
	}
	balancer := lb.NewRoundRobin(endpointer)
	greet := lb.Retry(3, time.Second, balancer)
	fmt.Println(greet(context.Background(), "hello"))
	// Output:
	// hello from 10.0.0.7:8080 <nil>
}
