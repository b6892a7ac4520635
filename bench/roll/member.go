package roll

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/stats"

	"github.com/naming-go/naming/bench/actor"
	"github.com/naming-go/naming/bench/child"
	"github.com/naming-go/naming/bench/peer"
)

const (
	serversRole = "roll-servers"
	clientsRole = "roll-clients"

	service = "roll"
	linger  = time.Second // between a server's withdrawal and its end

	// The phases. Calls before and between the measured phases belong to other.
	other = ""
	quiet = "quiet"
	churn = "churn"
)

// Server is an optional interface of a [peer.Client] that has more than a registrar. Serve
// serves s on lis and registers it until ctx is done. Then it withdraws s and stops it. h
// is the health service of s.
type Server interface {
	Serve(ctx context.Context, service string, s *grpc.Server, lis net.Listener, h *health.Server) error
}

// Roles returns the roles of the processes of a run.
func Roles(peers []peer.Peer) map[string]actor.Role {
	role := func(do func(*process, message) (message, error)) actor.Role {
		return func(commands <-chan json.RawMessage, tell func(any)) error {
			p := &process{peers: peers}
			for raw := range commands {
				var req message
				if err := json.Unmarshal(raw, &req); err != nil {
					return err
				}
				serve := func() {
					reply, err := message{}, error(nil)
					if req.Do == "open" {
						err = p.open(req)
					} else {
						reply, err = do(p, req)
					}
					reply.ID = req.ID
					if err != nil {
						reply.Err, reply.Unsupported = err.Error(), errors.Is(err, errors.ErrUnsupported)
					}
					tell(reply)
				}
				if req.Do == "restart" {
					go serve() // several at a time
				} else {
					serve()
				}
			}
			return nil
		}
	}
	return map[string]actor.Role{serversRole: role((*process).serverDo), clientsRole: role((*process).clientDo)}
}

// process is the state of one process of a run.
type process struct {
	peers  []peer.Peer
	client peer.Client // set once, before servers and clients

	// Servers.
	openConns atomic.Int64 // connections
	mu        sync.Mutex
	servers   []*server

	// Clients.
	conns  []*grpc.ClientConn // set once, before calls begin
	phases sync.Mutex
	phase  string // guarded by phases
	calls  map[string]*calls
}

func (p *process) open(req message) (err error) {
	i := slices.IndexFunc(p.peers, func(o peer.Peer) bool { return o.Name == req.Peer })
	if i < 0 {
		return fmt.Errorf("there is no peer %q", req.Peer)
	}
	p.client, err = p.peers[i].Open(context.Background(), req.Servers)
	return err
}

func (p *process) serverDo(req message) (message, error) {
	switch req.Do {
	case "start":
		p.servers = make([]*server, req.N)
		var starts errgroup.Group
		for i := range p.servers {
			starts.Go(func() (err error) {
				p.servers[i], err = p.start()
				return err
			})
		}
		return message{}, starts.Wait()
	case "count":
		return message{N: int(p.openConns.Load())}, nil
	case "restart":
		p.mu.Lock()
		s := p.servers[req.N]
		p.mu.Unlock()
		var reply message
		if err := s.stop(); err != nil {
			reply.Note = err.Error()
		}
		s, err := p.start()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.servers[req.N] = s
		return reply, err
	}
	return message{}, fmt.Errorf("there is no command %q for servers", req.Do)
}

// server is a gRPC server, with a function that stops it in order.
type server struct{ stop func() error }

// small is the size of a connection's buffers. 20,000 connections with the default of
// 64 KB would need too much memory.
const small = 4 << 10

func (p *process) start() (*server, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g := grpc.NewServer(grpc.StatsHandler(counter{&p.openConns}), grpc.ReadBufferSize(small), grpc.WriteBufferSize(small))
	h := health.NewServer()
	healthpb.RegisterHealthServer(g, h)
	if s, ok := p.client.(Server); ok {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(ctx, service, g, lis, h) }()
		return &server{func() error { cancel(); return <-ended }}, nil
	}
	go g.Serve(lis)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	deregister, err := p.client.Register(ctx, service, peer.Endpoint{ID: lis.Addr().String(), Addr: lis.Addr().String()})
	if err != nil {
		g.Stop()
		return nil, err
	}
	return &server{func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err := deregister(ctx)
		time.Sleep(linger)
		defer time.AfterFunc(10*time.Second, g.Stop).Stop()
		g.GracefulStop()
		return err
	}}, nil
}

// counter counts connections.
type counter struct{ open *atomic.Int64 }

func (counter) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (counter) HandleRPC(context.Context, stats.RPCStats)                         {}
func (counter) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (c counter) HandleConn(_ context.Context, s stats.ConnStats) {
	switch s.(type) {
	case *stats.ConnBegin:
		c.open.Add(1)
	case *stats.ConnEnd:
		c.open.Add(-1)
	}
}

// calls is the results of the calls of a phase.
type calls struct {
	latencies []time.Duration
	failed    int
	err       error
}

func (p *process) clientDo(req message) (message, error) {
	switch req.Do {
	case "dial":
		return message{}, p.dial(req.N)
	case "call":
		p.calls = map[string]*calls{other: {}, quiet: {}, churn: {}}
		go p.call(req.N)
		return message{}, nil
	case "phase":
		p.phases.Lock()
		defer p.phases.Unlock()
		p.phase = req.Phase
		return message{CPU: child.ProcessorTime()}, nil
	case "report":
		p.phases.Lock()
		defer p.phases.Unlock()
		t := p.calls[req.Phase]
		reply := message{Latencies: t.latencies, N: t.failed}
		if t.err != nil {
			reply.Note = t.err.Error()
		}
		return reply, nil
	}
	return message{}, fmt.Errorf("there is no command %q for clients", req.Do)
}

func (p *process) dial(n int) error {
	target, opts, err := p.client.Dial(service)
	if err != nil {
		return err
	}
	opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(), grpc.WithDisableRetry(),
		grpc.WithReadBufferSize(small), grpc.WithWriteBufferSize(small))
	for range n {
		conn, err := grpc.NewClient(target, opts...)
		if err != nil {
			return err
		}
		conn.Connect()
		p.conns = append(p.conns, conn)
	}
	return nil
}

// call makes calls at an even rate. It does not wait for earlier calls.
func (p *process) call(rate int) {
	begin := time.Now()
	for i := 0; ; i++ {
		due := begin.Add(time.Duration(i) * time.Second / time.Duration(rate))
		time.Sleep(time.Until(due))
		p.phases.Lock()
		t := p.calls[p.phase]
		p.phases.Unlock()
		h := healthpb.NewHealthClient(p.conns[i%len(p.conns)])
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_, err := h.Check(ctx, &healthpb.HealthCheckRequest{})
			took := time.Since(due)
			p.phases.Lock()
			defer p.phases.Unlock()
			if err != nil {
				t.failed++
				t.err = err
				return
			}
			t.latencies = append(t.latencies, took)
		}()
	}
}
