package demo

import (
	"context"
	"maps"
	"sync"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
)

// Traffic makes calls and counts them. All methods may be called concurrently.
type Traffic struct {
	mu     sync.Mutex
	calls  map[string]int // calls that succeeded, by the server's address; guarded by mu
	errors int            // calls that failed; guarded by mu
	err    error          // the first error; guarded by mu
}

// NewTraffic returns a Traffic that has made no call.
func NewTraffic() *Traffic { return &Traffic{calls: make(map[string]int)} }

// Run makes up to 200 calls a second with each of some callers, until ctx is done.
func (t *Traffic) Run(ctx context.Context, conn *grpc.ClientConn, callers int) {
	client := healthpb.NewHealthClient(conn)
	var calling sync.WaitGroup
	for range callers {
		calling.Go(func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				t.Call(client)
				<-tick.C
			}
		})
	}
	calling.Wait()
}

// Call makes one call.
func (t *Traffic) Call(client healthpb.HealthClient) {
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

// Count returns the number of successful calls by the server's address.
func (t *Traffic) Count() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.calls)
}

// Total returns the number of calls that succeeded.
func (t *Traffic) Total() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	total := 0
	for _, n := range t.calls {
		total += n
	}
	return total
}

// Failed returns the number of calls that failed, and the first error.
func (t *Traffic) Failed() (n int, first error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.errors, t.err
}
