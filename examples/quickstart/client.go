package main

import (
	"context"
	"maps"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/resolver"
)

// dial connects to whatever servers the registry has. Calls fail fast: they do
// not wait for a server, and are not tried again.
func dial(c *naming.Client) (*grpc.ClientConn, error) {
	return grpc.NewClient("naming:///"+service,
		grpc.WithResolvers(resolver.NewBuilder(c, nil)),
		grpc.WithDisableRetry(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// traffic makes calls and counts them.
type traffic struct {
	mu     sync.Mutex
	calls  map[string]int // that succeeded, by the address of the server
	errors int
	err    error // the first
}

func newTraffic() *traffic { return &traffic{calls: make(map[string]int)} }

// run makes calls, some hundred in a second, until ctx is done.
func (t *traffic) run(ctx context.Context, conn *grpc.ClientConn) {
	client := healthpb.NewHealthClient(conn)
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				t.call(client)
				<-tick.C
			}
		})
	}
	callers.Wait()
}

func (t *traffic) call(client healthpb.HealthClient) {
	// Not the caller's context: an interrupt is no failure of a call.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var p peer.Peer
	_, err := client.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Peer(&p))
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.errors++
		if t.err == nil {
			t.err = err
		}
		return
	}
	t.calls[p.Addr.String()]++
}

// count returns the number of calls by the address of the server.
func (t *traffic) count() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.calls)
}

// failed returns the number of calls that failed, and the error of the first.
func (t *traffic) failed() (n int, first error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.errors, t.err
}
