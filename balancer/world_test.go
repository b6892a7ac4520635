package balancer_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/balancer"
	"github.com/naming-go/naming/resolver"
)

// Tests in this package use real ClientConns and, on loopback, real servers. They wait for
// events, and never for a time.

// patience is how long a test waits for an event that must happen.
const patience = time.Minute

const service = "service"

// server is a gRPC server that counts its connections and calls.
type server struct {
	healthpb.UnimplementedHealthServer
	net.Listener
	addr    string
	grpc    *grpc.Server
	accepts atomic.Int64
	calls   atomic.Int64
	handle  func(context.Context) error // nil: answer
}

func (s *server) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	if err == nil {
		s.accepts.Add(1)
	}
	return c, err
}

func (s *server) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	s.calls.Add(1)
	if s.handle != nil {
		if err := s.handle(ctx); err != nil {
			return nil, err
		}
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

// newServer starts a server on a loopback address. The address is a new one if addr is
// empty.
func newServer(t testing.TB, addr string, handle func(context.Context) error) *server {
	t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{Listener: l, addr: l.Addr().String(), grpc: grpc.NewServer(), handle: handle}
	healthpb.RegisterHealthServer(s.grpc, s)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.grpc.Serve(s)
	}()
	t.Cleanup(func() {
		s.grpc.Stop()
		<-served
	})
	return s
}

// world is a registry in memory with some servers.
type world struct {
	testing.TB
	client  *naming.Client
	servers []*server
}

func newWorld(t testing.TB, servers int) *world {
	c := naming.New(new(memory.Store), &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(c.Close)
	w := &world{TB: t, client: c}
	for range servers {
		w.servers = append(w.servers, newServer(t, "", nil))
	}
	return w
}

// put puts a server into the registry, or changes its metadata.
func (w *world) put(s *server, metadata string) {
	w.Helper()
	u := naming.Update{Op: naming.Add, Addr: s.addr}
	if metadata != "" {
		u.Metadata = json.RawMessage(metadata)
	}
	if err := w.client.Update(w.Context(), service, u); err != nil {
		w.Fatal(err)
	}
}

func (w *world) dial(c balancer.Config) *grpc.ClientConn {
	w.Helper()
	b := resolver.NewBuilder(w.client, &resolver.Options{ServiceConfig: c.ServiceConfig()})
	conn, err := grpc.NewClient(b.Target(service), grpc.WithResolvers(b), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = conn.Close() })
	return conn
}

func call(conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	return err
}

// count makes n calls, several at a time, and returns how many of them each server got.
func (w *world) count(conn *grpc.ClientConn, n, parallel int) []int {
	w.Helper()
	before := make([]int64, len(w.servers))
	for i, s := range w.servers {
		before[i] = s.calls.Load()
	}
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	for range parallel {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := call(conn); err != nil {
					w.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	counts := make([]int, len(w.servers))
	for i, s := range w.servers {
		counts[i] = int(s.calls.Load() - before[i])
	}
	return counts
}

// until calls until check returns nil for the counts of n calls.
func (w *world) until(conn *grpc.ClientConn, n int, check func(counts []int) error) {
	w.Helper()
	deadline := time.Now().Add(patience)
	for {
		counts := w.count(conn, n, 1)
		err := check(counts)
		if err == nil {
			return
		}
		if w.Failed() || time.Now().After(deadline) {
			w.Fatalf("after %v: %v (%v)", patience, err, counts)
		}
	}
}

// like returns a check that each server got its share of the calls, within 6 calls: those of
// a low-discrepancy sequence, and some for the beginning and the end of a picker.
func like(shares ...float64) func([]int) error {
	var sum float64
	for _, s := range shares {
		sum += s
	}
	return func(counts []int) error {
		n := 0
		for _, c := range counts {
			n += c
		}
		for i, c := range counts {
			if want := shares[i] / sum * float64(n); float64(c) < want-6 || float64(c) > want+6 {
				return fmt.Errorf("server %d got %d of %d calls, want %.0f", i, c, n, want)
			}
		}
		return nil
	}
}
