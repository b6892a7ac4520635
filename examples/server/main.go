// Command server is a gRPC server that registers itself. On SIGTERM it leaves without
// dropping a call. Package serve does the same as run does here, and follows the server's
// health as well.
//
//	go run ./examples/server -store 'etcd://localhost:2379?prefix=/naming/'
//
// With a URL of the scheme migrate the server registers in one of two registries or in
// both, as the phase of a migration says:
//
//	go run ./examples/server -store 'migrate:?from=consul://localhost&to=etcd://localhost&phases=records'
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/open"
)

func main() {
	url := flag.String("store", "etcd://localhost:2379?prefix=/naming/", "the registry, or both of a migration, as a `URL` of package backend/open")
	addr := flag.String("addr", "127.0.0.1:0", "where to listen: an `address` at which clients reach it")
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
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		fail(err)
	}
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, health.NewServer()) // or your service
	slog.Info("serving at " + listener.Addr().String())
	slog.Info("announcing greeter; without a registry, that is tried again until there is one")
	if err := run(ctx, c, server, listener); err != nil {
		fail(err)
	}
}

func fail(err error) {
	slog.Error("server: " + err.Error())
	os.Exit(1)
}

func run(ctx context.Context, c *naming.Client, server *grpc.Server, listener net.Listener) error {
	go server.Serve(listener)
	reg, err := c.Register(ctx, "greeter", naming.Endpoint{Addr: listener.Addr().String()}, nil)
	if err != nil {
		return err // nobody could dial that address; an outage of the registry is not an error
	}
	<-ctx.Done()          // SIGTERM
	err = reg.Close()     // clients turn to other servers,
	server.GracefulStop() // and calls in progress end
	return err
}
