package interop

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	grpcpeer "google.golang.org/grpc/peer"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/internal/servertest"
	"github.com/naming-go/naming/interop/peer"
	"github.com/naming-go/naming/resolver"
)

// server is a gRPC server of ours.
type server struct {
	addr string
	grpc *grpc.Server
}

// listen starts a server at addr, or at any address.
func listen(t *testing.T, addr string) *server {
	t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	lis, err := net.Listen("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{lis.Addr().String(), grpc.NewServer()}
	healthpb.RegisterHealthServer(s.grpc, health.NewServer())
	go func() { _ = s.grpc.Serve(lis) }()
	t.Cleanup(s.grpc.Stop)
	return s
}

// ours is a program on this library, with a store of one wire format.
type ours struct {
	client *naming.Client
	alarms atomic.Int64 // logged at the level Warn and above
}

func newOurs(t *testing.T, store naming.Store) *ours {
	o := new(ours)
	o.client = naming.New(store, &naming.Options{Logger: slog.New(alarms{slog.DiscardHandler, t, &o.alarms})})
	t.Cleanup(o.client.Close)
	return o
}

// alarms counts and logs the records of the level Warn and above.
type alarms struct {
	slog.Handler
	t     *testing.T
	count *atomic.Int64
}

func (a alarms) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

func (a alarms) Handle(_ context.Context, r slog.Record) error {
	a.count.Add(1)
	text := r.Message
	r.Attrs(func(at slog.Attr) bool { text += " " + at.String(); return true })
	a.t.Log("logged: ", text)
	return nil
}

func (a alarms) WithAttrs([]slog.Attr) slog.Handler { return a }

// register registers a server, and waits until the registry has it.
func (o *ours) register(t *testing.T, service string, s *server, metadata map[string]any) *naming.Registration {
	t.Helper()
	e := naming.Endpoint{Addr: s.addr}
	if metadata != nil {
		m, err := json.Marshal(metadata)
		if err != nil {
			t.Fatal(err)
		}
		e.Metadata = m
	}
	reg, err := o.client.Register(t.Context(), service, e, &naming.RegisterOptions{TTL: 3 * time.Second, Wait: true})
	if err != nil {
		t.Fatal(err)
	}
	return reg
}

// stop takes a server out in order.
func stop(t *testing.T, s *server, reg *naming.Registration) {
	t.Helper()
	if err := reg.Close(); err != nil {
		t.Error(err)
	}
	s.grpc.GracefulStop()
}

// traffic makes calls through our resolver, and counts them as a peer does.
type traffic struct {
	stop, done chan struct{}

	mu    sync.Mutex
	count peer.Reply // guarded by mu
}

func (o *ours) traffic(t *testing.T, service string) *traffic {
	t.Helper()
	conn, err := grpc.NewClient("naming:///"+service, grpc.WithResolvers(resolver.NewBuilder(o.client, nil)),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	tr := &traffic{stop: make(chan struct{}), done: make(chan struct{})}
	tr.count.To = make(map[string]int)
	go tr.run(conn)
	t.Cleanup(func() { tr.end() })
	return tr
}

func (tr *traffic) run(conn *grpc.ClientConn) {
	defer close(tr.done)
	defer conn.Close()
	client := healthpb.NewHealthClient(conn)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tr.stop:
			return
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		var from grpcpeer.Peer
		_, err := client.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Peer(&from))
		cancel()
		tr.add(&from, err)
	}
}

func (tr *traffic) add(from *grpcpeer.Peer, err error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.count.Calls++
	if err == nil {
		tr.count.To[from.Addr.String()]++
		return
	}
	tr.count.Failed++
	if tr.count.FirstErr == "" {
		tr.count.FirstErr = err.Error()
	}
}

// wait resets the counts, waits until a call has reached each of the addresses, and does
// both once more.
func (tr *traffic) wait(t *testing.T, want []string) {
	t.Helper()
	tr.mu.Lock()
	clear(tr.count.To)
	tr.mu.Unlock()
	servertest.Poll(t, "calls", func() error { return reachedAll(tr.report().To, want) })
	tr.mu.Lock()
	clear(tr.count.To)
	tr.mu.Unlock()
	servertest.Poll(t, "calls", func() error { return reachedAll(tr.report().To, want) })
}

// report returns the counts so far.
func (tr *traffic) report() peer.Reply {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	r := tr.count
	r.To = maps.Clone(r.To)
	return r
}

// end ends the calls, and returns the counts. It may be called again.
func (tr *traffic) end() peer.Reply {
	select {
	case <-tr.stop:
	default:
		close(tr.stop)
	}
	<-tr.done
	return tr.report()
}

// views is a watch of ours.
type views struct {
	mu   sync.Mutex
	last naming.View   // guarded by mu
	news chan struct{} // capacity 1
}

func watch(t *testing.T, o *ours, service string) *views {
	v := &views{news: make(chan struct{}, 1)}
	go func() {
		for view, err := range o.client.Watch(t.Context(), service) {
			if err != nil {
				return
			}
			v.mu.Lock()
			v.last = view
			v.mu.Unlock()
			select {
			case v.news <- struct{}{}:
			default:
			}
		}
	}()
	return v
}

// wait waits for a view of the given addresses, and returns it.
func (v *views) wait(t *testing.T, want []string) naming.View {
	t.Helper()
	give := time.NewTimer(2 * servertest.Patience)
	defer give.Stop()
	for {
		v.mu.Lock()
		view := v.last
		v.mu.Unlock()
		var got []string
		for _, e := range view.Endpoints {
			got = append(got, e.Addr)
		}
		slices.Sort(got)
		if view.Synced && slices.Equal(got, want) {
			return view
		}
		select {
		case <-v.news:
		case <-give.C:
			t.Fatalf("our view has %q (withheld %v), want %q", got, view.Withheld, want)
		}
	}
}
