package zerodrop

import (
	"errors"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/internal/mutant"
	"github.com/naming-go/naming/resolver"
)

// TestDialAndClose: ClientConns that come and go leave nothing behind, whatever they
// were doing when they were closed.
func TestDialAndClose(t *testing.T) {
	cycles := 500
	if mutant.Full() {
		cycles = 10_000
	}
	addr := serveHealth(t)
	store := new(memory.Store)
	c := naming.New(store, &naming.Options{Logger: quiet, IdleGrace: -1})
	defer c.Close()
	if err := c.Update(t.Context(), "greeter", naming.Update{Addr: addr}); err != nil {
		t.Fatal(err)
	}
	b := resolver.NewBuilder(c, nil)
	for i := range 200 {
		dialAndClose(t, store, b, i)
	}
	goroutines, heap := settledAt(0)
	for i := range cycles {
		dialAndClose(t, store, b, i)
	}
	goroutines2, heap2 := settledAt(goroutines)
	t.Logf("%d cycles: %d goroutines and %d KiB before, %d and %d KiB after", cycles, goroutines, heap>>10, goroutines2, heap2>>10)
	if goroutines2 > goroutines {
		buf := make([]byte, 1<<20)
		t.Errorf("%d goroutines, want %d:\n%s", goroutines2, goroutines, buf[:runtime.Stack(buf, true)])
	}
	// A ClientConn has about 50 KiB. A leak of one in a hundred would show.
	if grown := int64(heap2) - int64(heap); grown > 512<<10 {
		t.Errorf("the heap grew by %d bytes in %d cycles", grown, cycles)
	}
}

// serveHealth serves the health service until the test ends. It returns the address.
func serveHealth(t *testing.T) string {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(lis)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-served
	})
	return lis.Addr().String()
}

// dialAndClose makes a ClientConn, uses it in a way that depends on i, and closes it. The
// store is down in three of ten cycles.
func dialAndClose(t *testing.T, store *memory.Store, b *resolver.Builder, i int) {
	switch i % 10 {
	case 3:
		store.Down(errors.New("down"))
	case 6:
		store.Up()
	}
	conn, err := grpc.NewClient(b.Target("greeter"), grpc.WithResolvers(b), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	switch i % 4 {
	case 0: // never used
	case 1:
		conn.Connect()
	default: // a call, which fails while the store is down
		_, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
		if down := i%10 >= 3 && i%10 < 6; (err != nil) != down {
			t.Fatalf("cycle %d: %v", i, err)
		}
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
}

// settledAt waits until there are at most n goroutines, or their number stays the same: for
// half a second if n is 0, and otherwise for a time in which a busy machine ends them. It
// returns this number and the size of the heap. gRPC ends some goroutines after Close has
// returned.
func settledAt(n int) (goroutines int, heap uint64) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	most := 50
	if n > 0 {
		most = 3_000
	}
	goroutines = runtime.NumGoroutine()
	for same := 0; same < most && goroutines > n; same++ {
		<-tick.C
		if now := runtime.NumGoroutine(); now < goroutines {
			goroutines, same = now, 0
		}
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // frees what the finalizers of the first collection released
	runtime.ReadMemStats(&m)
	return runtime.NumGoroutine(), m.HeapAlloc
}

// BenchmarkDialWhileDown measures how long the first use of a ClientConn blocks in the
// resolver's Build while the registry does not answer.
func BenchmarkDialWhileDown(b *testing.B) {
	for _, c := range []struct {
		name  string
		fault func(*memory.Store)
	}{
		{"down", func(s *memory.Store) { s.Down(errors.New("down")) }},
		{"silent", (*memory.Store).Silence},
	} {
		b.Run(c.name, func(b *testing.B) {
			store := new(memory.Store)
			c.fault(store)
			r := naming.New(store, &naming.Options{Logger: quiet, IdleGrace: -1})
			defer r.Close()
			builder := resolver.NewBuilder(r, nil)
			var took []time.Duration
			for b.Loop() {
				conn, err := grpc.NewClient(builder.Target("greeter"), grpc.WithResolvers(builder), grpc.WithTransportCredentials(insecure.NewCredentials()))
				if err != nil {
					b.Fatal(err)
				}
				start := time.Now()
				conn.Connect() // builds the resolver
				took = append(took, time.Since(start))
				_ = conn.Close()
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs-median")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "µs-p99")
			b.ReportMetric(float64(took[len(took)-1].Microseconds()), "µs-max")
		})
	}
}
