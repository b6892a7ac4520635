package zerodrop

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/resolver"
)

// client is a ClientConn, and the addresses that it got.
type client struct {
	// Set once, by startClients.
	run      *Play
	name     string
	balances bool // connects to every address
	conn     *grpc.ClientConn
	client   *naming.Client

	mu       sync.Mutex
	set      map[string]bool          // the addresses of the last set; nil before the first; guarded by mu
	progress time.Duration            // guarded by mu: for how long calls succeeded
	last     time.Time                // guarded by mu: of the last call that succeeded
	reached  map[string]time.Duration // guarded by mu: the progress at the last call of an address
}

var quiet = slog.New(slog.DiscardHandler)

// startClients makes ClientConns of both policies on two Clients, and waits until they
// are connected.
func (r *Play) startClients() error {
	for i := range r.site.Readers {
		nc, err := r.site.Reader(i, &naming.Options{Logger: quiet, Hooks: &naming.Hooks{
			Stale: func(info naming.StaleInfo) {
				if !info.Since.IsZero() {
					r.phase.stale.Add(1)
				}
			},
			Resynced: func(naming.ResyncedInfo) { r.phase.resynced.Add(1) },
			Held:     func(info naming.HeldInfo) { r.phase.held.Add(int64(len(info.Endpoints))) },
		}})
		if err != nil {
			return err
		}
		for _, policy := range []string{"round_robin", "pick_first"} {
			c := &client{run: r, name: fmt.Sprint(policy, " ", i), balances: policy == "round_robin", client: nc}
			r.clients = append(r.clients, c)
			inner := resolver.NewBuilder(nc, &resolver.Options{
				ServiceConfig: `{"loadBalancingConfig":[{"` + policy + `":{}}]}`,
			})
			c.conn, err = grpc.NewClient(inner.Target(r.service),
				grpc.WithResolvers(recorder{inner, c}),
				grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithDisableRetry(),
				grpc.WithNoProxy())
			if err != nil {
				return err
			}
			c.conn.Connect()
		}
	}
	ctx, cancel := context.WithTimeout(r.ctx, r.site.Settle)
	defer cancel()
	for _, c := range r.clients {
		for s := c.conn.GetState(); s != connectivity.Ready; s = c.conn.GetState() {
			if !c.conn.WaitForStateChange(ctx, s) {
				return fmt.Errorf("%s does not connect: %w", c.name, ctx.Err())
			}
		}
	}
	// A ClientConn is ready with its first connection. The others must not count as new
	// ones of the first scenario's quiet time.
	want := r.wantConnections()
	return r.Await(fmt.Sprint(want, " connections"), func() bool { return r.fleet.connections() >= want })
}

func (r *Play) closeClients() {
	r.ending.Store(true)
	for _, c := range r.clients {
		if c.conn != nil {
			_ = c.conn.Close()
		}
		c.client.Close()
	}
}

// balancing returns how many clients connect to every address.
func (r *Play) balancing() (n int) {
	for _, c := range r.clients {
		if c.balances {
			n++
		}
	}
	return n
}

// wantConnections returns how many connections all clients have together when nothing
// happens.
func (r *Play) wantConnections() int {
	return r.balancing()*len(r.fleet.all()) + len(r.clients) - r.balancing()
}

// applySet records a set that gRPC gets, and compares the set with the live servers.
func (c *client) applySet(addrs []string) {
	r := c.run
	c.mu.Lock()
	first := c.set == nil
	c.set = make(map[string]bool)
	for _, a := range addrs {
		c.set[a] = true
	}
	c.mu.Unlock()
	r.phase.published.Add(1)
	if !first && !r.ending.Load() {
		r.checkSet(c, addrs)
	}
	r.changed()
}

// checkSet compares a set that a client got with the servers.
func (r *Play) checkSet(c *client, addrs []string) {
	if !r.fleet.anyLive(addrs) {
		r.Broken("%s got %v without a live server", c.name, addrs)
	}
	if r.site.Bound == 0 {
		return
	}
	for _, s := range r.fleet.expected(r.site.Bound) {
		if !slices.Contains(addrs, s.addr) {
			r.Broken("%s got %v without %s, which is registered", c.name, addrs, s.addr)
		}
	}
}

func (c *client) lists(addr string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.set[addr]
}

func (c *client) addrs() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.set))
}

// settled returns an error unless the client is fresh and has the addresses in want. The
// client may have held addresses as well, which the panic threshold lets in. They belong
// to servers that left while the watch was broken, and could not announce it.
func (c *client) settled(ctx context.Context, want []string) error {
	for v, err := range c.client.Watch(ctx, c.run.service) {
		switch {
		case err != nil:
			return err
		case v.Stale():
			return fmt.Errorf("stale: %w", v.Err)
		}
		got := slices.DeleteFunc(c.addrs(), func(a string) bool {
			return !slices.Contains(want, a) && slices.ContainsFunc(v.Held, func(e naming.Endpoint) bool { return e.Addr == a })
		})
		if !slices.Equal(got, want) {
			return fmt.Errorf("it has %v, want %v", got, want)
		}
		break
	}
	return nil
}

// recorder is a resolver's Builder that records the sets that gRPC gets.
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

func (cc recordedConn) UpdateState(s grpcresolver.State) error {
	var addrs []string
	for _, e := range s.Endpoints {
		for _, a := range e.Addresses {
			addrs = append(addrs, a.Addr)
		}
	}
	cc.client.applySet(addrs)
	return cc.ClientConn.UpdateState(s)
}
