// Command client calls the servers of a service, which it finds in the registry.
//
//	go run ./examples/client -store 'etcd://localhost:2379?prefix=/naming/'
//
// With a URL of the scheme migrate the client uses one of two registries or both, as the
// phase of a migration says:
//
//	go run ./examples/client -store 'migrate:?from=consul://localhost&to=etcd://localhost&phases=records'
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/open"
	"github.com/naming-go/naming/resolver"
)

func main() {
	url := flag.String("store", "etcd://localhost:2379?prefix=/naming/", "the registry, or both of a migration, as a `URL` of package backend/open")
	calls := flag.Int("n", 10, "how many calls to make, one every 500 ms")
	flag.Parse()
	if flag.NArg() > 0 {
		fail(fmt.Errorf("unexpected argument %q: name the registry with -store", flag.Arg(0)))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	c, done, err := open.Client(ctx, *url, nil)
	if err != nil {
		fail(err)
	}
	defer done()
	slog.Info("calling greeter; without a server or a registry, a call waits until there is one")
	if err := run(ctx, c, *calls); err != nil && ctx.Err() == nil {
		fail(err)
	}
}

func fail(err error) {
	slog.Error("client: " + err.Error())
	os.Exit(1)
}

func run(ctx context.Context, c *naming.Client, calls int) error {
	conn, err := grpc.NewClient("naming:///greeter",
		grpc.WithResolvers(resolver.NewBuilder(c, nil)),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	client := healthpb.NewHealthClient(conn) // or what protoc made of your service

	for range calls {
		var server peer.Peer
		// The call waits until there is a server. Without the option it would fail.
		answer, err := client.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true), grpc.Peer(&server))
		if err != nil {
			return err
		}
		slog.Info(server.Addr.String() + " says " + answer.Status.String())
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}
