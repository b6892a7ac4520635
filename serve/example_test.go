package serve_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
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

// An HTTP server that is in the registry while its own check says so.
func ExampleRunHTTP() {
	c := naming.New(new(memory.Store), nil)
	defer c.Close()

	var loaded atomic.Bool
	ready := func(w http.ResponseWriter, _ *http.Request) {
		if !loaded.Load() {
			http.Error(w, "still loading", http.StatusServiceUnavailable)
		}
	}
	var readiness serve.Readiness
	mux := http.NewServeMux()
	mux.Handle("GET /readyz", &readiness) // says whether the endpoint is in the registry

	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	ctx, terminate := context.WithCancel(context.Background())
	defer terminate()
	stopped := make(chan error)
	go func() {
		stopped <- serve.RunHTTP(ctx, c, "greeter-http", &http.Server{Handler: mux}, lis, &serve.Options{
			Ready:      http.HandlerFunc(ready),
			ReadyEvery: 100 * time.Millisecond,
			Readiness:  &readiness,
			Logger:     slog.New(slog.DiscardHandler),
			Register:   &naming.RegisterOptions{DrainDelay: 100 * time.Millisecond},
		})
	}()

	loaded.Store(true)
	for view, err := range c.Watch(context.Background(), "greeter-http") {
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
	// Output:
	// announced: true
	// stopped: <nil>
}

// A server in a container: the operator sets what the program leaves open.
func ExampleOptions_FillFromEnv() {
	for name, value := range map[string]string{
		"NAMING_ZONE":        "b",
		"NAMING_DRAIN_DELAY": "5s",
		"NAMING_HOST_ENV":    "POD_IP", // Kubernetes sets POD_IP
		"POD_IP":             "10.0.0.7",
	} {
		os.Setenv(name, value)
		defer os.Unsetenv(name)
	}

	o := &serve.Options{ID: "greeter-1"}
	if err := o.FillFromEnv(""); err != nil {
		log.Fatal(err)
	}
	host, err := o.Host(context.Background(), nil)
	fmt.Println(o.ID, string(o.Metadata), o.Register.DrainDelay, host, err)
	// Output: greeter-1 {"zone":"b"} 5s 10.0.0.7 <nil>
}

// A server that listens on all interfaces, at an address that the operator chooses.
func ExampleHostOfInterface() {
	o := &serve.Options{Host: serve.HostOfInterface("eth0")}
	_ = o // serve.Run(ctx, c, "greeter", s, lis, o)
}

// Probes of gRPC for a server whose endpoint follows another check.
func ExampleReadiness_Health() {
	var readiness serve.Readiness
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, readiness.Health())

	answer, err := readiness.Health().Check(context.Background(), &healthpb.HealthCheckRequest{})
	fmt.Println(answer.GetStatus(), err)
	// Output: NOT_SERVING <nil>
}
