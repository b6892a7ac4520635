package balancer_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/balancer"
	"github.com/naming-go/naming/serve"
)

func TestWeights(t *testing.T) {
	w := newWorld(t, 3)
	w.put(w.servers[0], `{"weight":1}`)
	w.put(w.servers[1], `{"weight":2}`)
	w.put(w.servers[2], `{"weight":7}`)
	conn := w.dial(balancer.Config{})
	w.until(conn, 1000, like(1, 2, 7))

	// The weights change, and the connections stay.
	w.put(w.servers[0], `{"weight":0.5}`)
	w.put(w.servers[1], "")
	w.put(w.servers[2], `{"weight":0.5,"zone":"a"}`)
	w.until(conn, 1000, like(1, 2, 1))
	for i, s := range w.servers {
		if n := s.accepts.Load(); n != 1 {
			t.Errorf("server %d accepted %d connections, want 1", i, n)
		}
	}
}

func TestZones(t *testing.T) {
	w := newWorld(t, 5)
	for i, s := range w.servers {
		w.put(s, fmt.Sprintf(`{"zone":%q}`, []string{"a", "a", "b", "b", "b"}[i]))
	}
	conn := w.dial(balancer.Config{Zone: "a"})
	w.until(conn, 500, like(1, 1, 0, 0, 0)) // 1.4 * 2 * 2/5 > 1

	// A server of the own zone stops, and stays in the registry. The other one gets
	// 1.4 * 2 * 1/4 of the calls, and the rest goes to the other zone.
	w.servers[0].grpc.GracefulStop()
	w.until(conn, 500, like(0, 0.7, 0.1, 0.1, 0.1))
	w.servers[1].grpc.GracefulStop()
	w.until(conn, 500, like(0, 0, 1, 1, 1))

	// A server moves to the own zone, and keeps its connection.
	w.put(w.servers[4], `{"zone":"a"}`)
	w.until(conn, 500, like(0, 0, 1.0/30, 1.0/30, 14.0/15)) // 1.4 * 2 * 1/3 = 14/15
	if n := w.servers[4].accepts.Load(); n != 1 {
		t.Errorf("the server that moved accepted %d connections, want 1", n)
	}
}

// TestLeastLoaded checks that callers do not pile up at a server that answers nobody.
func TestLeastLoaded(t *testing.T) {
	w := newWorld(t, 3)
	var hangs atomic.Bool
	release := make(chan struct{})
	w.servers = append(w.servers, newServer(t, "", func(context.Context) error {
		if hangs.Load() {
			<-release
		}
		return nil
	}))
	for _, s := range w.servers {
		w.put(s, "")
	}
	conn := w.dial(balancer.Config{Pick: balancer.LeastLoaded})
	w.until(conn, 100, func(counts []int) error {
		if slices.Min(counts) == 0 {
			return errors.New("not all servers are connected")
		}
		return nil
	})
	hangs.Store(true)
	const callers, calls = 16, 2000
	var made atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for made.Add(1) <= calls {
				if err := call(conn); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	// Were all callers at the one server, nobody would make the last call.
	for deadline := time.Now().Add(patience); made.Load() < calls; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			close(release)
			wg.Wait()
			t.Fatalf("%d callers wait for the server that does not answer", w.servers[3].calls.Load())
		}
	}
	close(release)
	wg.Wait()
}

// TestNothingReady checks that calls wait while connections are made, and fail with the
// error of a connection when none can be made.
func TestNothingReady(t *testing.T) {
	for _, config := range configs {
		w := newWorld(t, 0)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		dead := &server{addr: l.Addr().String()}
		_ = l.Close()
		w.put(dead, "")
		conn := w.dial(config)
		if err := call(conn); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), dead.addr) {
			t.Errorf("%+v: a call to a server that is down: %v", config, err)
		}
		// A call that waits for ready succeeds when there is a server.
		result := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			_, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
			result <- err
		}()
		w.put(newServer(t, "", nil), "")
		if err := <-result; err != nil {
			t.Errorf("%+v: a call that waits: %v", config, err)
		}
	}
}

// configs are the policies that must not fail a call.
var configs = []balancer.Config{
	{},
	{Zone: "a"},
	{Pick: balancer.LeastLoaded},
	{Pick: balancer.LeastLoaded, Zone: "a", Subset: 2, Client: "client"},
}

// TestRollingRestart replaces all servers of a service, one after the other, under load.
func TestRollingRestart(t *testing.T) {
	for _, config := range configs {
		t.Run(strings.ReplaceAll(config.ServiceConfig(), "/", ""), func(t *testing.T) {
			before := runtime.NumGoroutine()
			rollingRestart(t, config)
			for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%d goroutines before, %d after", before, runtime.NumGoroutine())
				}
			}
		})
	}
}

func rollingRestart(t *testing.T, config balancer.Config) {
	c := naming.New(new(memory.Store), &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	defer c.Close()
	var stops []func()
	for i := range 4 {
		stops = append(stops, serveOne(t, c, i))
	}
	w := &world{TB: t, client: c}
	conn, stopped := w.dial(config), make(chan struct{})
	defer conn.Close()
	if err := call(conn); err != nil {
		t.Fatal(err)
	}
	var calls, failed atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stopped:
					return
				default:
				}
				calls.Add(1)
				if err := call(conn); err != nil && failed.Add(1) < 5 {
					t.Error(err)
				}
			}
		})
	}
	for i := range stops {
		next := serveOne(t, c, i)
		stops[i]()
		stops[i] = next
	}
	close(stopped)
	wg.Wait()
	for _, stop := range stops {
		stop()
	}
	t.Logf("%d calls, %d failed", calls.Load(), failed.Load())
}

// serveOne runs a server of the service, until the function that it returns is called.
func serveOne(t *testing.T, c *naming.Client, i int) (stop func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	h := health.NewServer()
	healthpb.RegisterHealthServer(s, h)
	ctx, cancel := context.WithCancel(context.Background())
	registered := make(chan *naming.Registration, 1)
	done := make(chan error, 1)
	go func() {
		done <- serve.Run(ctx, c, service, s, l, &serve.Options{
			Metadata:       fmt.Appendf(nil, `{"weight":%d,"zone":%q}`, 1+i%3, string(rune('a'+i%2))),
			Health:         h,
			Register:       &naming.RegisterOptions{DrainDelay: 100 * time.Millisecond},
			OnRegistration: func(r *naming.Registration) { registered <- r },
		})
	}()
	reg := <-registered
	for deadline := time.Now().Add(patience); !reg.Status().Registered; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not registered")
		}
	}
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
