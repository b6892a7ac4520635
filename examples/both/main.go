// Command both serves gRPC and HTTP from one program, and announces each as a service of its
// own: greeter and greeter-http. Both follow one readiness check. On SIGTERM both drain at
// the same time, and the program ends without a failed call.
//
//	go run ./examples/both
//	go run ./examples/both -store 'etcd://localhost:2379?prefix=/naming/' -grpc :9000 -http :9001
//
// The second command needs to know where clients reach this machine, as in
//
//	NAMING_GRPC_HOST_ENV=POD_IP NAMING_HTTP_HOST_ENV=POD_IP
//
// which are variables of [serve.Options.FillFromEnv].
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/open"
	"github.com/naming-go/naming/serve"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		slog.Error("both: " + err.Error())
		os.Exit(1)
	}
}

// run serves until ctx is done.
func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("both", flag.ContinueOnError)
	store := flags.String("store", "memory:", "the registry, as a `URL` of package backend/open")
	grpcAddr := flags.String("grpc", "127.0.0.1:0", "where to listen for gRPC: an `address`")
	httpAddr := flags.String("http", "127.0.0.1:0", "where to listen for HTTP: an `address`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: name the registry with -store", flags.Arg(0))
	}
	// The first server that fails ends the other.
	g, ctx := errgroup.WithContext(ctx)
	c, done, err := open.Client(ctx, *store, nil)
	if err != nil {
		return err
	}
	defer done()
	grpcListener, err := net.Listen("tcp", *grpcAddr)
	if err != nil {
		return err
	}
	httpListener, err := net.Listen("tcp", *httpAddr)
	if err != nil {
		return errors.Join(err, grpcListener.Close())
	}

	p := new(program)
	g.Go(func() error { return p.serveGRPC(ctx, c, grpcListener) })
	g.Go(func() error { return p.serveHTTP(ctx, c, httpListener) })
	p.warm.Store(true) // A real program first loads what it needs.
	return g.Wait()
}

// program is what both servers share.
type program struct {
	warm      atomic.Bool     // the program can answer
	readiness serve.Readiness // both endpoints are in the registry
}

// ready is the readiness check of the program. Both endpoints follow it.
func (p *program) ready(w http.ResponseWriter, _ *http.Request) {
	if !p.warm.Load() {
		http.Error(w, "still loading", http.StatusServiceUnavailable)
	}
}

// options returns the options of a server, with those of the environment.
func (p *program) options(prefix string) (*serve.Options, error) {
	o := &serve.Options{Ready: http.HandlerFunc(p.ready), Readiness: &p.readiness}
	return o, o.FillFromEnv(prefix)
}

func (p *program) serveGRPC(ctx context.Context, c *naming.Client, lis net.Listener) error {
	o, err := p.options("NAMING_GRPC_")
	if err != nil {
		return errors.Join(err, lis.Close())
	}
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, p.readiness.Health()) // for probes; your services go here
	slog.Info("gRPC at " + lis.Addr().String())
	return serve.Run(ctx, c, "greeter", s, lis, o)
}

func (p *program) serveHTTP(ctx context.Context, c *naming.Client, lis net.Listener) error {
	o, err := p.options("NAMING_HTTP_")
	if err != nil {
		return errors.Join(err, lis.Close())
	}
	mux := http.NewServeMux()
	mux.Handle("GET /readyz", &p.readiness) // for probes
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello\n") })
	slog.Info("HTTP at " + lis.Addr().String())
	return serve.RunHTTP(ctx, c, "greeter-http", &http.Server{Handler: mux}, lis, o)
}
