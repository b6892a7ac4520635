package zerodrop

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/serve"
)

// fleet is the servers. Its state comes from the servers themselves, not from the
// registry.
type fleet struct {
	run     *Play        // never changes
	started atomic.Int64 // servers
	accepts atomic.Int64 // connections

	mu      sync.Mutex
	servers []*Server          // servers that were started and not stopped; guarded by mu
	live    map[string]*Server // servers that accept, by address; guarded by mu
}

// Server is a server that package serve runs.
type Server struct {
	fleet  *fleet
	number int
	addr   string
	client *naming.Client
	cancel context.CancelFunc
	ended  chan struct{}
	err    error // of serve.Run; set before ended is closed
	open   atomic.Int64

	registered chan *naming.Registration // capacity 1
	reg        *naming.Registration

	since   atomic.Int64 // when Start saw that the server is registered, in Unix nanoseconds; 0: not yet
	listed  atomic.Bool  // all clients had it
	leaving atomic.Bool
}

// Number returns how many servers of the scenario were started before.
func (s *Server) Number() int { return s.number }

// Addr returns the address.
func (s *Server) Addr() string { return s.addr }

// Client returns the Client that the server is registered with.
func (s *Server) Client() *naming.Client { return s.client }

// Start starts a server at an address, or at any address if addr is empty. It returns
// when the server is registered, or without a registry when the server serves.
func (r *Play) Start(addr string, registryIsThere bool) (*Server, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	lis, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s, err := r.fleet.serve(lis)
	if err != nil {
		_ = lis.Close()
		return nil, err
	}
	select {
	case s.reg = <-s.registered:
	case <-s.ended:
		return nil, fmt.Errorf("%s: %w", s.addr, s.err)
	}
	if !registryIsThere {
		return s, nil
	}
	wait, done := context.WithTimeout(r.ctx, r.site.Settle)
	defer done()
	if err := s.reg.Wait(wait); err != nil {
		return nil, fmt.Errorf("%s: %w", s.addr, err)
	}
	s.since.Store(time.Now().UnixNano())
	return s, nil
}

// serve starts a server on a listener.
func (f *fleet) serve(lis net.Listener) (*Server, error) {
	site := &f.run.site
	s := &Server{
		fleet: f, number: int(f.started.Add(1)) - 1, addr: lis.Addr().String(),
		ended:      make(chan struct{}),
		registered: make(chan *naming.Registration, 1),
	}
	var err error
	if s.client, err = site.Server(s.number, &naming.Options{Logger: quiet, Hooks: &naming.Hooks{
		Lost: func(naming.LostInfo) { f.run.phase.lost.Add(1) },
	}}); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	g, h := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(g, h)
	g.RegisterService(f.run.ledger.serviceDesc(), nil)
	f.mu.Lock()
	f.servers = append(f.servers, s)
	f.mu.Unlock()
	go func() {
		defer close(s.ended)
		s.err = serve.Run(ctx, s.client, f.run.service, g, &listener{Listener: lis, server: s}, &serve.Options{
			Health:         h,
			Register:       &naming.RegisterOptions{TTL: site.TTL, DrainDelay: site.DrainDelay, CloseTimeout: site.DrainDelay + site.Close},
			OnRegistration: func(reg *naming.Registration) { s.registered <- reg },
		})
		s.client.Close()
	}()
	return s, nil
}

// startMany starts n servers at once.
func (f *fleet) startMany(n int) ([]*Server, error) {
	started := make([]*Server, n)
	var starts errgroup.Group
	for i := range n {
		starts.Go(func() (err error) {
			started[i], err = f.run.Start("", true)
			return err
		})
	}
	return started, starts.Wait()
}

// Stop stops a server in order. It returns when the server has ended.
func (s *Server) Stop() error {
	f := s.fleet
	s.leaving.Store(true)
	s.cancel()
	<-s.ended
	f.remove(s)
	for _, c := range f.run.clients {
		c.forget(s.addr)
	}
	if s.err != nil {
		return fmt.Errorf("%s: %w", s.addr, s.err)
	}
	return nil
}

func (f *fleet) remove(s *Server) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.servers = slices.DeleteFunc(f.servers, func(o *Server) bool { return o == s })
}

// stopMany stops servers at once.
func stopMany(servers []*Server) error {
	var stops errgroup.Group
	for _, s := range servers {
		stops.Go(s.Stop)
	}
	return stops.Wait()
}

// stopAll stops all servers at the end of a scenario.
func (f *fleet) stopAll() {
	f.run.ending.Store(true)
	_ = stopMany(f.all())
}

// all returns the servers, the oldest first.
func (f *fleet) all() []*Server {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.servers)
}

// Servers returns the servers that were started and not stopped, the oldest first.
func (r *Play) Servers() []*Server { return r.fleet.all() }

// expect notes that all clients have the servers at some addresses.
func (f *fleet) expect(addrs []string) {
	for _, s := range f.all() {
		if slices.Contains(addrs, s.addr) {
			s.listed.Store(true)
		}
	}
}

// expected returns the servers that every set must have: those that were registered for
// bound, or that all clients had, and that do not leave.
func (f *fleet) expected(bound time.Duration) []*Server {
	latest := time.Now().Add(-bound).UnixNano()
	return slices.DeleteFunc(f.all(), func(s *Server) bool {
		since := s.since.Load()
		return s.leaving.Load() || !s.listed.Load() && (since == 0 || since > latest)
	})
}

// addrs returns the addresses of the servers that were started and not stopped, sorted.
func (f *fleet) addrs() (addrs []string) {
	for _, s := range f.all() {
		addrs = append(addrs, s.addr)
	}
	slices.Sort(addrs)
	return addrs
}

func (f *fleet) anyLive(addrs []string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(addrs, func(a string) bool { return f.live[a] != nil })
}

// connections returns how many connections all servers have.
func (f *fleet) connections() (n int) {
	for _, s := range f.all() {
		n += int(s.open.Load())
	}
	return n
}

// connected returns an error unless every server has n connections.
func (f *fleet) connected(n int) error {
	for _, s := range f.all() {
		if open := s.open.Load(); open < int64(n) {
			return fmt.Errorf("%s has %d connections, want %d", s.addr, open, n)
		}
	}
	return nil
}

// listener notifies the fleet when its server accepts, and counts connections.
type listener struct {
	net.Listener
	server      *Server
	begin, end_ sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	l.begin.Do(func() {
		f := l.server.fleet
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.live == nil {
			f.live = make(map[string]*Server)
		}
		f.live[l.server.addr] = l.server
	})
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.server.fleet.accepts.Add(1)
	l.server.open.Add(1)
	l.server.fleet.run.changed()
	return &conn{Conn: c, server: l.server}, nil
}

// Close closes the listener. A server that stops calls Close before anything else.
func (l *listener) Close() error {
	l.end_.Do(func() {
		f, addr := l.server.fleet, l.server.addr
		f.mu.Lock()
		delete(f.live, addr)
		f.mu.Unlock()
		if !f.run.strict || f.run.ending.Load() {
			return
		}
		for _, c := range f.run.clients {
			if c.lists(addr) {
				f.run.Broken("%s stops while %s still lists it", addr, c.name)
			}
		}
	})
	return l.Listener.Close()
}

// conn is a connection that its server counts while it is open.
type conn struct {
	net.Conn
	server *Server
	once   sync.Once
}

func (c *conn) Close() error {
	c.once.Do(func() { c.server.open.Add(-1) })
	return c.Conn.Close()
}
