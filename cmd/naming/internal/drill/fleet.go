package drill

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
	"github.com/naming-go/naming/resolver"
)

// fleet is the servers and clients of a drill. Its methods are called by one goroutine. The
// callers of the clients are others.
type fleet struct {
	opts   Options
	dials  dials                        // of all clients
	listen func() (net.Listener, error) // of a server that starts

	watches []*naming.Client
	views   [2]*naming.Follower // of the old registry and of the new one
	servers []*server
	clients []*client

	calling   sync.WaitGroup
	stopCalls context.CancelFunc // nil before calls are made
}

func newFleet(opts Options) *fleet {
	return &fleet{opts: opts, listen: func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }}
}

// start starts the servers, and then the clients.
func (f *fleet) start(ctx context.Context) error {
	for i, store := range []naming.Store{f.opts.Old, f.opts.New} {
		c := naming.New(store, &naming.Options{Logger: f.opts.Logger, Hold: naming.Hold{Disabled: true}})
		f.watches = append(f.watches, c)
		var err error
		if f.views[i], err = c.Follow(Service, func() {}); err != nil {
			return err
		}
	}
	for range f.opts.Servers {
		if err := f.startServer(ctx); err != nil {
			return err
		}
	}
	calls, stop := context.WithCancel(context.WithoutCancel(ctx))
	f.stopCalls = stop
	for i := range f.opts.Clients {
		c, err := f.newClient(fmt.Sprint("drill-client-", i+1))
		if err != nil {
			return err
		}
		f.clients = append(f.clients, c)
		c.conn.Connect()
	}
	// The first calls come after the connections: a client that knows no server fails fast.
	if err := f.until(ctx, func() string {
		if n := f.dials.count(); n < f.opts.Clients*f.opts.Servers {
			return fmt.Sprintf("the clients have made %d connections", n)
		}
		return ""
	}); err != nil {
		return err
	}
	for _, c := range f.clients {
		f.calling.Go(func() { c.run(calls) })
	}
	return nil
}

// stop stops all programs and waits until they have stopped. The servers leave in order.
func (f *fleet) stop() {
	if f.stopCalls != nil {
		f.stopCalls()
	}
	f.calling.Wait()
	for _, c := range f.clients {
		c.close()
	}
	var stopping sync.WaitGroup
	for _, s := range f.servers {
		stopping.Go(func() { _ = s.stop() }) // clean looks what is left
	}
	stopping.Wait()
	for i, c := range f.watches {
		if f.views[i] != nil {
			f.views[i].Close()
		}
		c.Close()
	}
}

// listed returns how many servers each registry has.
func (f *fleet) listed() (old, next int) {
	var n [2]int
	for i, follower := range f.views {
		v, _, _ := follower.Current()
		n[i] = len(v.Endpoints)
	}
	return n[0], n[1]
}

// known reports whether all programs have the state.
func (f *fleet) known(s migrate.State) bool {
	for _, p := range f.programs() {
		if is, ok := p.phases.State(Service); !ok || is.Phase != s.Phase || is.Share != s.Share {
			return false
		}
	}
	return true
}

func (f *fleet) programs() (list []*program) {
	for _, s := range f.servers {
		list = append(list, s.program)
	}
	for _, c := range f.clients {
		list = append(list, c.program)
	}
	return list
}

// reads returns how many clients read which registries, such as "2 both, 2 new".
func (f *fleet) reads() string {
	count := make(map[string]int)
	for _, c := range f.clients {
		count[c.reads()]++
	}
	var parts []string
	for _, which := range []string{"none", "old", "both", "new"} {
		if n := count[which]; n > 0 {
			parts = append(parts, fmt.Sprint(n, " ", which))
		}
	}
	return strings.Join(parts, ", ")
}

// allCalled reports whether each client has called each server.
func (f *fleet) allCalled() bool {
	for _, c := range f.clients {
		for _, s := range f.servers {
			if !c.hasCalled(s.addr) {
				return false
			}
		}
	}
	return true
}

// total returns how many calls succeeded and failed, and the first error.
func (f *fleet) total() (calls, failed int, first error) {
	for _, c := range f.clients {
		c.count.mu.Lock()
		calls, failed = calls+c.count.calls, failed+c.count.failed
		if first == nil {
			first = c.count.err
		}
		c.count.mu.Unlock()
	}
	return calls, failed, first
}

// restart stops the oldest server in order, and starts another one.
func (f *fleet) restart(ctx context.Context) error {
	old := f.servers[0]
	f.servers = f.servers[1:]
	if err := old.stop(); err != nil {
		return err
	}
	return f.startServer(ctx)
}

// program is what a server and a client have in common.
type program struct {
	joined *migrate.Joined
	phases migrate.Source
}

func (f *fleet) join(id string) (*program, error) {
	phases, err := migrate.Records(f.opts.OldRecords, f.opts.NewRecords, &migrate.RecordsOptions{Logger: f.opts.Logger})
	if err != nil {
		return nil, err
	}
	joined, err := migrate.Join(f.opts.Old, f.opts.New, phases, &migrate.Options{
		Client: naming.Options{Logger: f.opts.Logger}, ClientID: id, LeaveDelay: f.opts.LeaveDelay,
	})
	if err != nil {
		phases.Close()
		return nil, err
	}
	return &program{joined, phases}, nil
}

func (p *program) close() {
	p.joined.Close()
	p.phases.Close()
}

// server is a gRPC server on loopback.
type server struct {
	addr         string
	program      *program
	grpc         *grpc.Server
	registration *naming.Registration
}

func (f *fleet) startServer(ctx context.Context) error {
	l, err := f.listen()
	if err != nil {
		return err
	}
	s := &server{addr: l.Addr().String(), grpc: grpc.NewServer()}
	healthpb.RegisterHealthServer(s.grpc, health.NewServer())
	go func() { _ = s.grpc.Serve(l) }() // ends with Stop
	if s.program, err = f.join(""); err != nil {
		s.grpc.Stop()
		return err
	}
	// A server that does not know the phase registers in both registries, which is safe. This
	// one waits, so that the registries have the servers of the phase only.
	err = f.until(ctx, func() string {
		if _, known := s.program.phases.State(Service); !known {
			return "a server does not know the phase"
		}
		return ""
	})
	if err == nil {
		waiting, cancel := context.WithTimeout(ctx, f.opts.Patience)
		s.registration, err = s.program.joined.Register(waiting, Service, naming.Endpoint{Addr: s.addr}, &naming.RegisterOptions{Wait: true, DrainDelay: f.opts.DrainDelay})
		cancel()
	}
	if err != nil {
		s.program.close()
		s.grpc.Stop()
		return err
	}
	f.servers = append(f.servers, s)
	for _, c := range f.clients {
		c.forget(s.addr)
	}
	return nil
}

// stop stops a server without dropping a call.
func (s *server) stop() error {
	err := s.registration.Close()
	s.grpc.GracefulStop()
	s.program.close()
	return err
}

// dials counts the connections that the clients of a drill made. A server cannot count them:
// a program on this machine that tries a server which has died may reach a server of the
// drill, which has the port now.
type dials struct{ made atomic.Int64 }

func (d *dials) count() int { return int(d.made.Load()) }

// dial connects to a server.
func (d *dials) dial(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err == nil {
		d.made.Add(1)
	}
	return conn, err
}

// client is a gRPC client. Its calls fail fast, and gRPC does not retry them.
type client struct {
	program *program
	conn    *grpc.ClientConn
	count   count
}

// count is the calls of a client.
type count struct {
	mu            sync.Mutex
	called        map[string]bool // by the address of a server
	calls, failed int
	err           error // of the first call that failed
}

func (f *fleet) newClient(id string) (*client, error) {
	p, err := f.join(id)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(resolver.DefaultScheme+":///"+Service,
		grpc.WithResolvers(resolver.NewBuilder(p.joined.Client, nil)),
		grpc.WithContextDialer(f.dials.dial),
		grpc.WithDisableRetry(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		p.close()
		return nil, err
	}
	return &client{program: p, conn: conn, count: count{called: make(map[string]bool)}}, nil
}

func (c *client) close() {
	_ = c.conn.Close() // an error says that it was closed before
	c.program.close()
}

// reads returns which registry the client uses: "old", "new" or "both".
func (c *client) reads() string {
	r := c.program.joined.Status(Service).Reader
	switch {
	case r == nil || r.Endpoints == 0:
		return "none"
	case r.Narrow:
		return r.Lead
	}
	return "both"
}

// forget removes the calls of an earlier server that had the address. The machine reuses
// ports: a drill would take the calls of the earlier server for calls of the new one, and
// would count the connections to the new one as those of the next phase.
func (c *client) forget(addr string) {
	c.count.mu.Lock()
	defer c.count.mu.Unlock()
	delete(c.count.called, addr)
}

func (c *client) hasCalled(addr string) bool {
	c.count.mu.Lock()
	defer c.count.mu.Unlock()
	return c.count.called[addr]
}

// run makes calls until ctx is done.
func (c *client) run(ctx context.Context) {
	health := healthpb.NewHealthClient(c.conn)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		c.call(health)
		<-tick.C
	}
}

// callTimeout bounds a call. The context of a call is not that of the drill: an interrupt
// would count as a failed call.
const callTimeout = 10 * time.Second

func (c *client) call(health healthpb.HealthClient) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	var p peer.Peer
	_, err := health.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Peer(&p))
	c.count.mu.Lock()
	defer c.count.mu.Unlock()
	if err != nil {
		c.count.failed++
		if c.count.err == nil {
			c.count.err = err
		}
		return
	}
	c.count.calls++
	c.count.called[p.Addr.String()] = true
}
