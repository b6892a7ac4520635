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

// dial returns a connection to the servers that the registry lists. Calls fail
// fast: a call does not wait for a server, and gRPC does not retry it.
func dial(c *naming.Client) (*grpc.ClientConn, error) {
	return grpc.NewClient("naming:///"+service,
		grpc.WithResolvers(resolver.NewBuilder(c, nil)),
		grpc.WithDisableRetry(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// traffic makes calls and counts them.
type traffic struct {
	mu     sync.Mutex
	calls  map[string]int // calls that succeeded, by the server's address; guarded by mu
	errors int            // calls that failed; guarded by mu
	err    error          // the first error; guarded by mu
}

func newTraffic() *traffic { return &traffic{calls: make(map[string]int)} }

// run makes several hundred calls a second until ctx is done.
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
	// The context is not the caller's. An interrupt would count as a failed call.
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

// count returns the number of successful calls by the server's address.
func (t *traffic) count() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.calls)
}

// failed returns the number of calls that failed, and the first error.
func (t *traffic) failed() (n int, first error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.errors, t.err
}
