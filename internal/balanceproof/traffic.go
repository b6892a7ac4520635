package balanceproof

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/naming-go/naming/resolver"
)

// callLimit is the timeout of a call.
const callLimit = 20 * time.Second

// A label says to which measurement a call belongs. The servers count by label. Label 0 is
// for calls that do not count.
const labels = 64

const firstLabel = '0' // the text of label 0

var labelTexts = func() (texts [labels]string) {
	for i := range texts {
		texts[i] = string(rune(firstLabel + i))
	}
	return texts
}()

func labelOf(text string) (int, bool) {
	if len(text) != 1 || text[0] < firstLabel || text[0] >= firstLabel+labels {
		return 0, false
	}
	return int(text[0] - firstLabel), true
}

// client is a ClientConn, and counts its calls.
type client struct {
	conn   *grpc.ClientConn // set once, by dial
	calls  atomic.Int64
	failed atomic.Int64
	first  atomic.Pointer[error] // of the calls that failed

	mu    sync.Mutex
	known map[string]string // the metadata of the endpoints by ID, as gRPC has them; guarded by mu
}

// dial makes a ClientConn with a service config. No call is retried.
func (f *fleet) dial(config string) (*client, error) {
	c := new(client)
	b := resolver.NewBuilder(f.clients, &resolver.Options{ServiceConfig: config, Logger: quiet})
	var err error
	c.conn, err = grpc.NewClient(b.Target(service),
		grpc.WithResolvers(recorder{b, c}),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithReadBufferSize(bufferSize), grpc.WithWriteBufferSize(bufferSize),
		grpc.WithDisableRetry(),
		grpc.WithNoProxy())
	return c, err
}

// dialAll makes a ClientConn for each service config. The caller closes them, also after an
// error.
func (f *fleet) dialAll(configs ...string) (all []*client, err error) {
	for _, config := range configs {
		c, err := f.dial(config)
		if err != nil {
			return all, err
		}
		all = append(all, c)
	}
	return all, nil
}

func closeAll(all []*client) {
	for _, c := range all {
		_ = c.conn.Close() // an error means that it is closed
	}
}

// recorder is a resolver's Builder that records what gRPC has applied.
type recorder struct {
	grpcresolver.Builder
	client *client
}

func (b recorder) Build(target grpcresolver.Target, cc grpcresolver.ClientConn, opts grpcresolver.BuildOptions) (grpcresolver.Resolver, error) {
	return b.Builder.Build(target, recordedConn{cc, b.client}, opts)
}

type recordedConn struct {
	grpcresolver.ClientConn
	client *client
}

// UpdateState returns when the load balancing policy has applied the state.
func (cc recordedConn) UpdateState(s grpcresolver.State) error {
	err := cc.ClientConn.UpdateState(s)
	known := make(map[string]string)
	for _, e := range s.Endpoints {
		if n, ok := resolver.EndpointOf(e); ok {
			known[n.ID] = string(n.Metadata)
		}
	}
	cc.client.mu.Lock()
	defer cc.client.mu.Unlock()
	cc.client.known = known
	return err
}

// knows reports whether gRPC has applied the metadata of an endpoint. Empty metadata mean
// that it has applied that the endpoint is gone.
func (c *client) knows(id, metadata string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known != nil && c.known[id] == metadata
}

// awaitKnown waits until all clients know the metadata of endpoints by their IDs.
func awaitKnown(ctx context.Context, all []*client, want map[string]string) error {
	return await(ctx, "all clients have the change", func() bool {
		for id, metadata := range want {
			if slices.ContainsFunc(all, func(c *client) bool { return !c.knows(id, metadata) }) {
				return false
			}
		}
		return true
	})
}

// call makes a call with a label, and returns the time that it took.
func (c *client) call(label int32, opts ...grpc.CallOption) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	c.calls.Add(1)
	start := time.Now()
	err := c.conn.Invoke(ctx, method, &request{Service: labelTexts[label]}, new(response), opts...)
	took := time.Since(start)
	if err != nil {
		c.failed.Add(1)
		c.first.CompareAndSwap(nil, &err)
	}
	return took, err
}

// err returns an error if a call of any client failed.
func callErr(all []*client) error {
	for _, c := range all {
		if n := c.failed.Load(); n > 0 {
			return fmt.Errorf("%d of %d calls of a client failed, the first with: %w", n, c.calls.Load(), *c.first.Load())
		}
	}
	return nil
}

// reach makes calls until every client has called every server, and so is connected to it.
func reach(ctx context.Context, all []*client, servers ...*server) error {
	for _, c := range all {
		left := addrs(servers...)
		if err := await(ctx, fmt.Sprint("a client has called ", left), func() bool {
			for range 50 {
				var p peer.Peer
				if _, err := c.call(0, grpc.Peer(&p)); err == nil {
					left = slices.DeleteFunc(left, func(a string) bool { return a == p.Addr.String() })
				}
			}
			return len(left) == 0
		}); err != nil {
			return err
		}
	}
	return nil
}

// traffic is calls that go on.
type traffic struct {
	label    atomic.Int32         // of the next calls
	inFlight [labels]atomic.Int64 // calls by label
	done     chan struct{}
	workers  sync.WaitGroup
}

// begin starts workers for each client. Each makes one call after the other, with a pause
// between calls. The caller calls end.
func begin(clients []*client, workers int, pause time.Duration) *traffic {
	t := &traffic{done: make(chan struct{})}
	for _, c := range clients {
		for range workers {
			t.workers.Go(func() { t.work(c, pause) })
		}
	}
	return t
}

func (t *traffic) work(c *client, pause time.Duration) {
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		if pause > 0 {
			tick.Reset(pause)
			select {
			case <-tick.C:
			case <-t.done:
			}
		}
		select {
		case <-t.done:
			return
		default:
		}
		label := t.label.Load()
		t.inFlight[label].Add(1)
		_, _ = c.call(label) // the client counts errors
		t.inFlight[label].Add(-1)
	}
}

// end ends the calls, and waits.
func (t *traffic) end() {
	close(t.done)
	t.workers.Wait()
}

// measure gives the next calls a label until servers have received n of them, and returns
// how many each has received.
func (t *traffic) measure(ctx context.Context, label int32, servers []*server, n int) ([]int64, error) {
	t.label.Store(label)
	err := await(ctx, fmt.Sprint(n, " calls are made"), func() bool { return sum(received(servers, label)) >= int64(n) })
	t.label.Store(0)
	if err != nil {
		return nil, err
	}
	err = await(ctx, "the last call has ended", func() bool { return t.inFlight[label].Load() == 0 })
	return received(servers, label), err
}

func sum[T int | int64 | float64](all []T) (total T) {
	for _, n := range all {
		total += n
	}
	return total
}
