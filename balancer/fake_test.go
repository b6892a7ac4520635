package balancer

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	grpcbalancer "google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/resolver"
)

// fakeConn is the ClientConn of a policy. Its connections become ready when run is called,
// except those to addresses that are down.
type fakeConn struct {
	grpcbalancer.ClientConn

	mu    sync.Mutex // guards the rest; tests read it while the policy is idle
	state grpcbalancer.State
	made  []string // the addresses of all connections
	open  map[string]int
	down  map[string]error
	queue []func()
	conns []*fakeSubConn
}

func newFakeConn() *fakeConn {
	return &fakeConn{open: make(map[string]int), down: make(map[string]error)}
}

func (c *fakeConn) UpdateState(s grpcbalancer.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = s
}

func (c *fakeConn) ResolveNow(grpcresolver.ResolveNowOptions) {}
func (c *fakeConn) Target() string                            { return "" }

func (c *fakeConn) NewSubConn(a []grpcresolver.Address, o grpcbalancer.NewSubConnOptions) (grpcbalancer.SubConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made = append(c.made, a[0].Addr)
	c.open[a[0].Addr]++
	s := &fakeSubConn{conn: c, addr: a[0].Addr, listener: o.StateListener}
	c.conns = append(c.conns, s)
	return s, nil
}

// run delivers the states of connections until all are delivered.
func (c *fakeConn) run() {
	for f := c.next(); f != nil; f = c.next() {
		f()
	}
}

// next removes the first delivery from the queue.
func (c *fakeConn) next() (f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) > 0 {
		f, c.queue = c.queue[0], c.queue[1:]
	}
	return f
}

type fakeSubConn struct {
	grpcbalancer.SubConn
	conn     *fakeConn
	addr     string
	listener func(grpcbalancer.SubConnState)
	ready    bool
	closed   bool
}

// report appends a delivery to the queue. The caller holds the mutex.
func (s *fakeSubConn) report(f func(grpcbalancer.SubConnState), state connectivity.State) {
	err := s.conn.down[s.addr]
	s.conn.queue = append(s.conn.queue, func() {
		f(grpcbalancer.SubConnState{ConnectivityState: state, ConnectionError: err})
	})
}

func (s *fakeSubConn) Connect() {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.report(s.listener, connectivity.Connecting)
	if s.conn.down[s.addr] != nil {
		s.report(s.listener, connectivity.TransientFailure)
		return
	}
	s.ready = true
	s.report(s.listener, connectivity.Ready)
}

func (s *fakeSubConn) Shutdown() {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	if s.closed {
		return
	}
	s.closed, s.ready = true, false
	s.conn.open[s.addr]--
	if s.conn.open[s.addr] == 0 {
		delete(s.conn.open, s.addr)
	}
}

func (s *fakeSubConn) RegisterHealthListener(f func(grpcbalancer.SubConnState)) {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.report(f, connectivity.Ready)
}

// states is the ClientConn of a resolver. It keeps the last state.
type states struct {
	grpcresolver.ClientConn
	last chan grpcresolver.State // capacity 1
}

func (s *states) UpdateState(state grpcresolver.State) error {
	select {
	case <-s.last:
	default:
	}
	s.last <- state
	return nil
}
func (s *states) ReportError(error) {}
func (s *states) ParseServiceConfig(string) *serviceconfig.ParseResult {
	return new(serviceconfig.ParseResult)
}

// fleet returns the state of package resolver for n endpoints with the metadata that the
// function returns.
func fleet(t testing.TB, n int, metadata func(i int) string) grpcresolver.State {
	t.Helper()
	c := naming.New(new(memory.Store), &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	defer c.Close()
	updates := make([]naming.Update, n)
	for i := range updates {
		updates[i] = naming.Update{Op: naming.Add, Addr: fmt.Sprintf("10.0.%d.%d:80", i/250, i%250)}
		if m := metadata(i); m != "" {
			updates[i].Metadata = json.RawMessage(m)
		}
	}
	if err := c.Update(t.Context(), "service", updates...); err != nil {
		t.Fatal(err)
	}
	b := resolver.NewBuilder(c, nil)
	s := &states{last: make(chan grpcresolver.State, 1)}
	r, err := b.Build(grpcresolver.Target{URL: *mustParse(b.Target("service"))}, s, grpcresolver.BuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	state := <-s.last
	if len(state.Endpoints) != n {
		t.Fatalf("got %d endpoints, want %d", len(state.Endpoints), n)
	}
	return state
}

// start builds a policy, gives it a state, and connects.
func start(t testing.TB, policy, config string, state grpcresolver.State) (*fakeConn, grpcbalancer.Balancer) {
	t.Helper()
	conn, lb, _ := startWith(t, policy, config, state)
	return conn, lb
}

func startWith(t testing.TB, policy, config string, state grpcresolver.State) (*fakeConn, grpcbalancer.Balancer, serviceconfig.LoadBalancingConfig) {
	t.Helper()
	b := grpcbalancer.Get(policy)
	var parsed serviceconfig.LoadBalancingConfig
	if p, ok := b.(grpcbalancer.ConfigParser); ok { // round_robin has none
		var err error
		if parsed, err = p.ParseConfig([]byte(config)); err != nil {
			t.Fatal(err)
		}
	}
	conn := newFakeConn()
	lb := b.Build(conn, grpcbalancer.BuildOptions{})
	t.Cleanup(lb.Close)
	if err := lb.UpdateClientConnState(grpcbalancer.ClientConnState{ResolverState: state, BalancerConfig: parsed}); err != nil {
		t.Fatal(err)
	}
	conn.run()
	return conn, lb, parsed
}
