package consul_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/mutant"
	"github.com/naming-go/naming/internal/servertest"
	"github.com/naming-go/naming/resolver"
)

// answering is a gRPC server that counts the calls to it.
type answering struct {
	*naming.Registration
	addr  string
	calls atomic.Int64
}

func serve(t *testing.T, c *naming.Client) *answering {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	a := &answering{addr: lis.Addr().String()}
	server := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		a.calls.Add(1)
		return next(ctx, req)
	}))
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	go func() { _ = server.Serve(lis) }()
	t.Cleanup(server.Stop)
	ctx, cancel := context.WithTimeout(t.Context(), servertest.Patience)
	defer cancel()
	a.Registration, err = c.Register(ctx, "greeter", naming.Endpoint{Addr: a.addr}, &naming.RegisterOptions{TTL: 3 * time.Second, Wait: true, DrainDelay: -1})
	must(t, err)
	return a
}

// TestFieldW1W2UnderCalls: a client calls four servers on two nodes. When a node or a
// service goes into maintenance, no call goes there from a second later on. Nobody writes
// to Consul, and the registrations stay as they are. After the maintenance the calls
// return.
func TestFieldW1W2UnderCalls(t *testing.T) {
	t.Parallel()
	lasts := 4 * time.Second // longer than the lease
	if mutant.Full() {
		lasts = 45 * time.Second
	}
	first := consultest.Start(t, nil)
	second := first.StartClient(t, nil)
	here := newRig(t, first, nil)
	there := newRig(t, second, func(_ *api.Config, o *consul.Options) { o.Prefix = here.prefix })
	reader := newRig(t, first, func(_ *api.Config, o *consul.Options) { o.Prefix = here.prefix })
	quiet := &naming.Options{Logger: slog.New(slog.DiscardHandler)}
	var servers []*answering
	for _, r := range []*rig{here, there} {
		client := naming.New(r, quiet)
		t.Cleanup(client.Close)
		for range 2 {
			servers = append(servers, serve(t, client))
		}
	}
	registry := naming.New(reader, quiet)
	t.Cleanup(registry.Close)
	conn, err := grpc.NewClient("naming:///greeter", grpc.WithResolvers(resolver.NewBuilder(registry, nil)),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry(), grpc.WithNoProxy())
	must(t, err)
	defer func() { _ = conn.Close() }()

	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	var failed atomic.Int64
	client := grpc_health_v1.NewHealthClient(conn)
	wg.Go(func() {
		for tick := time.NewTicker(5 * time.Millisecond); ; {
			select {
			case <-tick.C:
			case <-ctx.Done():
				tick.Stop()
				return
			}
			if _, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true)); err != nil && ctx.Err() == nil {
				failed.Add(1)
				t.Errorf("a call: %v", err)
			}
		}
	})
	called := func(what string, some []*answering) {
		t.Helper()
		before := make([]int64, len(some))
		for n, s := range some {
			before[n] = s.calls.Load()
		}
		servertest.Poll(t, what, func() error {
			for n, s := range some {
				if s.calls.Load() == before[n] {
					return fmt.Errorf("no call reaches server %d", n)
				}
			}
			return nil
		})
	}
	called("all servers", servers)

	id := here.registration(t, "greeter", servers[0].addr)
	for _, mode := range []struct {
		name    string
		on, off func() error
		out     []*answering
		in      []*answering
	}{
		{"node", func() error { return second.Client(t).Agent().EnableNodeMaintenance("a new disk") },
			second.Client(t).Agent().DisableNodeMaintenance, servers[2:], servers[:2]},
		{"service", func() error { return here.admin.Agent().EnableServiceMaintenance(id, "a new disk") },
			func() error { return here.admin.Agent().DisableServiceMaintenance(id) }, servers[:1], servers[1:]},
	} {
		written := here.written.Load() + there.written.Load()
		must(t, mode.on())
		servertest.Poll(t, mode.name, func() error {
			for b, err := range reader.Watch(t.Context(), "greeter") {
				if err != nil || len(b.Withheld) != len(mode.out) {
					return fmt.Errorf("%+v are withheld, want %d; %v", b.Withheld, len(mode.out), err)
				}
				break
			}
			return nil
		})
		for _, s := range mode.out {
			servertest.Poll(t, mode.name, func() error {
				if w := s.Status().Withheld; w == nil || w.Reason != naming.Maintenance || w.Detail != "a new disk" {
					return fmt.Errorf("the state of %s is %+v, want withheld", s.addr, s.Status())
				}
				return nil
			})
		}
		registered := func() error {
			for _, s := range servers {
				if state := s.Status(); !state.Registered {
					return fmt.Errorf("the state of %s is %+v, want registered", s.addr, state)
				}
			}
			return nil
		}
		servertest.Throughout(t, mode.name, time.Second, registered) // since the news was here
		var before []int64
		for _, s := range mode.out {
			before = append(before, s.calls.Load())
		}
		servertest.Throughout(t, mode.name, lasts, registered)
		called(mode.name+": the others", mode.in)
		for n, s := range mode.out {
			if calls := s.calls.Load() - before[n]; calls != 0 {
				t.Errorf("%s: %d calls to %s in maintenance, want 0", mode.name, calls, s.addr)
			}
		}
		if n := here.written.Load() + there.written.Load() - written; n != 0 {
			t.Errorf("%s: %d writes, want 0", mode.name, n)
		}
		must(t, mode.off())
		called(mode.name+": all, afterwards", servers)
		for _, s := range servers {
			servertest.Poll(t, mode.name, func() error {
				if w := s.Status().Withheld; w != nil {
					return fmt.Errorf("the state of %s still says %+v", s.addr, w)
				}
				return nil
			})
		}
	}
	if n := failed.Load(); n > 0 {
		t.Errorf("%d calls failed", n)
	}
}
