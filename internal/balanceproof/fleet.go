package balanceproof

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/serve"
)

const (
	service = "greeter"
	// drainDelay is the time that ClientConns have to learn that a server leaves.
	drainDelay = 300 * time.Millisecond
	// bufferSize is that of connections, of which there are many, for small messages.
	bufferSize = 4096
)

// fleet is the registry, and one Client of all servers and one of all ClientConns.
type fleet struct {
	servers, clients *naming.Client
}

func newFleet() *fleet {
	s := new(memory.Store)
	return &fleet{
		servers: naming.New(s, &naming.Options{Logger: quiet}),
		clients: naming.New(s, &naming.Options{Logger: quiet}),
	}
}

func (f *fleet) close() {
	f.clients.Close()
	f.servers.Close()
}

// server is a gRPC server that package serve runs.
type server struct {
	id       string
	addr     string
	grpc     *grpc.Server
	work     atomic.Int64         // how long a call takes, as a time.Duration
	calls    [labels]atomic.Int64 // that arrived, by label
	working  atomic.Int64         // calls in the handler
	accepted atomic.Int64         // connections
	open     atomic.Int64         // connections

	registered chan *naming.Registration // capacity 1
	reg        *naming.Registration      // set once, by start
	cancel     context.CancelFunc
	ended      chan struct{}
	err        error // of serve.Run; written before ended is closed
}

// place says how a server is registered.
type place struct {
	id       string
	weight   float64 // 0: none
	zone     string
	duration time.Duration // of a call
}

// metadata returns the metadata of an endpoint.
func metadata(weight float64, zone string) json.RawMessage {
	text, err := json.Marshal(struct {
		Weight float64 `json:"weight,omitempty"`
		Zone   string  `json:"zone,omitempty"`
	}{weight, zone})
	if err != nil {
		panic(err) // not possible: a finite number and text
	}
	return text
}

// start starts a server, and returns when it is registered.
func (f *fleet) start(ctx context.Context, p place) (*server, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{
		id: p.id, addr: lis.Addr().String(),
		grpc:       grpc.NewServer(grpc.ReadBufferSize(bufferSize), grpc.WriteBufferSize(bufferSize)),
		registered: make(chan *naming.Registration, 1),
		ended:      make(chan struct{}),
	}
	s.work.Store(int64(p.duration))
	s.grpc.RegisterService(s.serviceDesc(), nil)
	running, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go func() {
		defer close(s.ended)
		s.err = serve.Run(running, f.servers, service, s.grpc, &listener{lis, s}, &serve.Options{
			ID: p.id, Metadata: metadata(p.weight, p.zone),
			Register:       &naming.RegisterOptions{DrainDelay: drainDelay},
			OnRegistration: func(reg *naming.Registration) { s.registered <- reg },
		})
	}()
	select {
	case s.reg = <-s.registered:
	case <-s.ended:
		return nil, fmt.Errorf("%s: %w", p.id, s.err)
	}
	if err := s.reg.Wait(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", p.id, err), s.stop())
	}
	return s, nil
}

// startAll starts servers at once. The caller stops those that were started, also after an
// error.
func (f *fleet) startAll(ctx context.Context, places []place) ([]*server, error) {
	all := make([]*server, len(places))
	var g errgroup.Group
	for i, p := range places {
		g.Go(func() (err error) {
			all[i], err = f.start(ctx, p)
			return err
		})
	}
	return all, g.Wait()
}

// stop stops a server in order, and waits for its end. The receiver may be nil.
func (s *server) stop() error {
	if s == nil {
		return nil
	}
	s.cancel()
	<-s.ended
	if s.err != nil {
		return fmt.Errorf("%s: %w", s.id, s.err)
	}
	return nil
}

// stopAll stops servers at once.
func stopAll(all []*server) error {
	var g errgroup.Group
	for _, s := range all {
		g.Go(s.stop)
	}
	return g.Wait()
}

// addrs returns the addresses of servers.
func addrs(all ...*server) []string {
	list := make([]string, len(all))
	for i, s := range all {
		list[i] = s.addr
	}
	return list
}

// received returns how many calls with a label each server got.
func received(all []*server, label int32) []int64 {
	n := make([]int64, len(all))
	for i, s := range all {
		n[i] = s.calls[label].Load()
	}
	return n
}

// accepts returns how many connections servers accepted.
func accepts(all []*server) (n int64) {
	for _, s := range all {
		n += s.accepted.Load()
	}
	return n
}

// listener counts the connections of a server.
type listener struct {
	net.Listener
	server *server
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.server.accepted.Add(1)
	l.server.open.Add(1)
	return &connection{Conn: c, server: l.server}, nil
}

type connection struct {
	net.Conn
	server *server
	closed atomic.Bool
}

func (c *connection) Close() error {
	if !c.closed.Swap(true) {
		c.server.open.Add(-1)
	}
	return c.Conn.Close()
}

// The service that is called. Its messages are those of the health service. The request has
// a string for the label of the call.
const method = "/balanceproof.Balanceproof/Call"

type (
	request  = healthpb.HealthCheckRequest
	response = healthpb.HealthCheckResponse
)

func (s *server) serviceDesc() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: "balanceproof.Balanceproof",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Call",
			Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				var req request
				if err := decode(&req); err != nil {
					return nil, err
				}
				label, ok := labelOf(req.Service)
				if !ok {
					return nil, status.Errorf(codes.InvalidArgument, "label %q", req.Service)
				}
				s.calls[label].Add(1)
				return new(response), s.handle(ctx)
			},
		}},
	}
}

// handle takes the time of a call.
func (s *server) handle(ctx context.Context) error {
	s.working.Add(1)
	defer s.working.Add(-1)
	d := time.Duration(s.work.Load())
	if d == 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}
