package resolver_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/roundrobin"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/resolver"
)

// A client of a service that is found in a registry.
func Example() {
	ctx := context.Background()
	c := naming.New(new(memory.Store), nil)
	defer c.Close()

	// A server, and its entry in the registry.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	defer server.Stop()
	healthpb.RegisterHealthServer(server, health.NewServer())
	go server.Serve(l)
	if err := c.Update(ctx, "greeter", naming.Update{Op: naming.Add, Addr: l.Addr().String()}); err != nil {
		log.Fatal(err)
	}

	// The client. One Builder serves all ClientConns of the program.
	b := resolver.NewBuilder(c, nil)
	conn, err := grpc.NewClient("naming:///greeter", grpc.WithResolvers(b),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.Status)
	// Output: SERVING
}

// Another load balancing policy than round_robin.
func ExampleNewBuilder() {
	c := naming.New(new(memory.Store), nil)
	defer c.Close()
	b := resolver.NewBuilder(c, &resolver.Options{
		ServiceConfig: `{"loadBalancingConfig":[{"least_request_experimental":{"choiceCount":2}}]}`,
	})
	fmt.Println(b.Scheme())
	// Output: naming
}

// A program that starts while the registry is down, and was running before.
func ExampleCachedAt() {
	balancer.Register(cachePolicy{})
	dir, err := os.MkdirTemp("", "naming")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	defer server.Stop()
	healthpb.RegisterHealthServer(server, health.NewServer())
	go server.Serve(l)

	run := func(store *memory.Store) {
		silent := slog.New(slog.DiscardHandler)
		c := naming.New(store, &naming.Options{Logger: silent})
		defer c.Close()
		b := resolver.NewBuilder(c, &resolver.Options{
			CacheDir:      dir,
			Logger:        silent,
			ServiceConfig: `{"loadBalancingConfig":[{"tell_cached":{}}]}`,
		})
		conn, err := grpc.NewClient(b.Target("greeter"), grpc.WithResolvers(b),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			log.Fatal(err)
		}
		defer conn.Close()
		answer, err := healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(answer.Status)
		for files := 0; files == 0; { // until it is saved
			entries, _ := filepath.Glob(filepath.Join(dir, "*.cache"))
			files = len(entries)
		}
	}

	store := new(memory.Store)
	e := naming.Endpoint{Addr: l.Addr().String()}
	if err := store.Apply(context.Background(), "greeter", naming.Change{Op: naming.Add, Endpoint: e}); err != nil {
		log.Fatal(err)
	}
	run(store)
	store.Down(errors.New("out of service"))
	run(store)
	// Output:
	// 1 endpoint, saved: false
	// SERVING
	// 1 endpoint, saved: true
	// SERVING
}

// cachePolicy is round_robin, and prints where its endpoints are from.
type cachePolicy struct{}

func (cachePolicy) Name() string { return "tell_cached" }

func (cachePolicy) Build(cc balancer.ClientConn, opts balancer.BuildOptions) balancer.Balancer {
	return &cacheBalancer{balancer.Get(roundrobin.Name).Build(cc, opts)}
}

type cacheBalancer struct{ balancer.Balancer }

func (b *cacheBalancer) UpdateClientConnState(s balancer.ClientConnState) error {
	_, saved := resolver.CachedAt(s.ResolverState)
	fmt.Printf("%d endpoint, saved: %v\n", len(s.ResolverState.Endpoints), saved)
	return b.Balancer.UpdateClientConnState(s)
}

// Any name of a service makes a target.
func ExampleBuilder_Target() {
	b := resolver.NewBuilder(nil, nil)
	fmt.Println(b.Target("greeter"))
	fmt.Println(b.Target("shop/eu-1/what's new?"))
	// Output:
	// naming:///greeter
	// naming:///shop/eu-1/what%27s%20new%3F
}

// A load balancing policy that reads the metadata: round_robin among the
// endpoints of one zone, if there are any.
func ExampleEndpointOf() {
	balancer.Register(zonePolicy{})

	c := naming.New(new(memory.Store), nil)
	defer c.Close()
	ctx := context.Background()
	for zone, n := range map[string]int{"eu-1": 1, "eu-2": 2} {
		for range n {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				log.Fatal(err)
			}
			server := grpc.NewServer()
			defer server.Stop()
			healthpb.RegisterHealthServer(server, health.NewServer())
			go server.Serve(l)
			metadata := map[string]any{"zone": zone}
			if err := c.Update(ctx, "greeter", naming.Update{Op: naming.Add, Addr: l.Addr().String(), Metadata: metadata}); err != nil {
				log.Fatal(err)
			}
		}
	}
	b := resolver.NewBuilder(c, &resolver.Options{ServiceConfig: `{"loadBalancingConfig":[{"zone_eu-2":{}}]}`})
	conn, err := grpc.NewClient(b.Target("greeter"), grpc.WithResolvers(b),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	fmt.Println(err)
	// Output:
	// 3 endpoints, 2 of them in eu-2
	// <nil>
}

// zonePolicy makes a balancer that shows round_robin the endpoints of its zone
// only.
type zonePolicy struct{}

func (zonePolicy) Name() string { return "zone_eu-2" }

func (zonePolicy) Build(cc balancer.ClientConn, opts balancer.BuildOptions) balancer.Balancer {
	return &zoneBalancer{balancer.Get(roundrobin.Name).Build(cc, opts)}
}

type zoneBalancer struct{ balancer.Balancer }

func (b *zoneBalancer) UpdateClientConnState(s balancer.ClientConnState) error {
	var near []grpcresolver.Endpoint
	for _, e := range s.ResolverState.Endpoints {
		if e, ok := resolver.EndpointOf(e); !ok || e.Info().Zone != "eu-2" {
			continue
		}
		near = append(near, e)
	}
	fmt.Printf("%d endpoints, %d of them in eu-2\n", len(s.ResolverState.Endpoints), len(near))
	if len(near) > 0 {
		s.ResolverState.Endpoints = near // a new slice: that of the state is shared
	}
	return b.Balancer.UpdateClientConnState(s)
}
