package serve_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/serve"
)

const (
	serving    = healthpb.HealthCheckResponse_SERVING
	notServing = healthpb.HealthCheckResponse_NOT_SERVING
	service    = "greeter"
	addr       = "10.0.0.7:9000"
)

var quiet = &naming.Options{Logger: slog.New(slog.DiscardHandler)}

// world is a registry in memory and a health service, in a bubble.
type world struct {
	*testing.T
	store  *memory.Store
	client *naming.Client
	health *health.Server
	opts   *serve.Options
	cancel context.CancelFunc
	ended  chan error // what Announce returned
}

// inBubble runs Announce, beginning in the state given of the health service,
// and test beside it.
func inBubble(t *testing.T, s healthpb.HealthCheckResponse_ServingStatus, test func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		store := new(memory.Store)
		w := &world{T: t, store: store, client: naming.New(store, quiet), health: health.NewServer(), ended: make(chan error, 1)}
		defer w.client.Close()
		w.health.SetServingStatus(service, s)
		w.opts = &serve.Options{Addr: addr, Health: w.health, HealthService: service}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w.cancel = cancel
		go func() { w.ended <- serve.Announce(ctx, w.client, service, w.opts) }()
		test(w)
	})
}

// is fails the test if the registry does not hold want when all goroutines are blocked:
// "" for nothing, "here" or "draining".
func (w *world) is(want string) {
	w.Helper()
	synctest.Wait()
	got := ""
	for b, err := range w.store.Watch(w.Context(), service) {
		if err != nil {
			w.Fatal(err)
		}
		for _, e := range b.Put {
			if e.Addr != addr || len(b.Put) > 1 {
				w.Fatalf("the registry holds %v", b.Put)
			}
			if got = "here"; e.Info().Draining {
				got = "draining"
			}
		}
		break
	}
	if got != want {
		w.Fatalf("the endpoint is %q, want %q", got, want)
	}
}

func (w *world) set(s healthpb.HealthCheckResponse_ServingStatus) {
	w.health.SetServingStatus(service, s)
}

func TestFollowsHealth(t *testing.T) {
	inBubble(t, notServing, func(w *world) {
		w.is("")
		for range 3 {
			w.set(serving)
			w.is("here")
			time.Sleep(time.Hour)
			w.health.SetServingStatus("", notServing) // another service
			w.is("here")
			w.set(notServing)
			w.is("draining")
			time.Sleep(time.Second) // the default drain delay
			w.is("")
			time.Sleep(time.Hour)
			w.is("")
		}
	})
}

// TestOnlyServing: the endpoint is registered for no other status than SERVING.
func TestOnlyServing(t *testing.T) {
	inBubble(t, healthpb.HealthCheckResponse_UNKNOWN, func(w *world) {
		w.is("")
		w.set(healthpb.HealthCheckResponse_SERVICE_UNKNOWN)
		w.is("")
		w.set(serving)
		w.is("here")
		w.set(healthpb.HealthCheckResponse_UNKNOWN)
		time.Sleep(2 * time.Second)
		w.is("")
		w.health.Resume() // all services
		w.is("here")
		w.health.Shutdown()
		w.is("draining")
	})
}

// TestServiceNobodyKnowsYet: a health service has no status of a name before the status
// was set.
func TestServiceNobodyKnowsYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(memory.Store)
		c := naming.New(store, quiet)
		defer c.Close()
		w := &world{T: t, store: store, client: c, health: health.NewServer()}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go serve.Announce(ctx, c, service, &serve.Options{Addr: addr, Health: w.health, HealthService: "greeter.v2"})
		w.is("")
		w.health.SetServingStatus("greeter.v2", serving)
		w.is("here")
	})
}

// TestServingAgainWhileItIsWithdrawn: the newest status counts in the end.
func TestServingAgainWhileItIsWithdrawn(t *testing.T) {
	inBubble(t, serving, func(w *world) {
		w.is("here")
		w.set(notServing)
		w.is("draining")
		time.Sleep(500 * time.Millisecond)
		w.set(serving)
		time.Sleep(time.Second)
		w.is("here")
		w.set(notServing)
		w.is("draining")
		w.set(serving)
		w.set(notServing)
		time.Sleep(time.Hour)
		w.is("")
	})
}

func TestWithdrawsInOrder(t *testing.T) {
	inBubble(t, serving, func(w *world) {
		w.is("here")
		start := time.Now()
		w.cancel()
		time.Sleep(time.Second - 1)
		w.is("draining")
		if len(w.ended) > 0 {
			t.Error("Announce returned before the drain delay was over")
		}
		if err := <-w.ended; err != nil || time.Since(start) != time.Second {
			t.Errorf("Announce returned %v after %v, want nil after 1s", err, time.Since(start))
		}
		w.is("")
	})
}

func TestEndsAtOnceWithoutAnEndpoint(t *testing.T) {
	inBubble(t, notServing, func(w *world) {
		w.is("")
		start := time.Now()
		w.cancel()
		if err := <-w.ended; err != nil || time.Since(start) != 0 {
			t.Errorf("Announce returned %v after %v, want nil at once", err, time.Since(start))
		}
		w.set(serving)
		w.is("")
	})
}

// TestEndsWhileItWithdraws: ctx is done while the endpoint is being withdrawn.
func TestEndsWhileItWithdraws(t *testing.T) {
	inBubble(t, serving, func(w *world) {
		w.is("here")
		w.set(notServing)
		w.is("draining")
		w.set(serving)
		w.cancel()
		if err := <-w.ended; err != nil {
			t.Error(err)
		}
		w.is("")
	})
}

func TestRegistryIsDown(t *testing.T) {
	down := errors.New("no route to registry")
	synctest.Test(t, func(t *testing.T) {
		store := new(memory.Store)
		store.Down(down)
		c := naming.New(store, quiet)
		defer c.Close()
		var registrations []*naming.Registration
		opts := &serve.Options{
			Addr:           addr,
			Register:       &naming.RegisterOptions{Wait: true, CloseTimeout: 3 * time.Second},
			OnRegistration: func(g *naming.Registration) { registrations = append(registrations, g) },
		}
		w := &world{T: t, store: store, client: c}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- serve.Announce(ctx, c, service, opts) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(registrations) != 1 || registrations[0].Status().Registered {
			t.Fatalf("%d registrations, want one that is not through", len(registrations))
		}
		store.Up()
		time.Sleep(time.Minute)
		w.is("here")
		store.Down(down)
		start := time.Now()
		cancel()
		if err := <-ended; !errors.Is(err, down) || time.Since(start) > 3*time.Second {
			t.Errorf("Announce returned %v after %v", err, time.Since(start))
		}
		store.Up()
		time.Sleep(15 * time.Second)
		w.is("") // it left with its lease
		if !opts.Register.Wait {
			t.Error("the caller's options were changed")
		}
	})
}

// brokenHealth is a health service whose watch ends soon.
type brokenHealth struct {
	healthpb.UnimplementedHealthServer
	end chan error
}

func (h *brokenHealth) Watch(_ *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	if err := stream.SendMsg(&healthpb.HealthCheckResponse{Status: serving}); err != nil {
		return err
	}
	return <-h.end
}

func TestHealthServiceThatTellsNoMore(t *testing.T) {
	for name, end := range map[string]error{"error": status.Error(codes.Internal, "lost my mind"), "nil": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := new(memory.Store)
				c := naming.New(store, quiet)
				defer c.Close()
				w := &world{T: t, store: store, client: c}
				h := &brokenHealth{end: make(chan error)}
				ended := make(chan error, 1)
				go func() {
					ended <- serve.Announce(t.Context(), c, service, &serve.Options{Addr: addr, Health: h})
				}()
				w.is("here")
				h.end <- end
				if err := <-ended; err == nil || !errors.Is(err, end) && end != nil {
					t.Errorf("Announce returned %v, want %v", err, end)
				}
				w.is("")
			})
		})
	}
}

func TestHealthServiceThatCannotTell(t *testing.T) {
	c := naming.New(new(memory.Store), quiet)
	defer c.Close()
	err := serve.Announce(t.Context(), c, service, &serve.Options{Addr: addr, Health: healthpb.UnimplementedHealthServer{}})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("Announce returned %v", err)
	}
}

func TestClosedClient(t *testing.T) {
	c := naming.New(new(memory.Store), quiet)
	c.Close()
	err := serve.Announce(t.Context(), c, service, &serve.Options{Addr: addr})
	if !errors.Is(err, naming.ErrClientClosed) {
		t.Errorf("Announce returned %v", err)
	}
}

func listen(t *testing.T, at string) net.Listener {
	t.Helper()
	lis, err := net.Listen("tcp", at)
	if err != nil && strings.HasPrefix(at, "[") {
		// Without IPv6 there is no such listener, but one that says it is one.
		if lis, err = net.Listen("tcp", "127.0.0.1:0"); err == nil {
			addr := *lis.Addr().(*net.TCPAddr)
			addr.IP = net.IPv6unspecified
			lis = elsewhere{lis, &addr}
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lis.Close() })
	return lis
}

// elsewhere is a listener with the address of another.
type elsewhere struct {
	net.Listener
	addr net.Addr
}

func (l elsewhere) Addr() net.Addr { return l.addr }

// TestNeverGuesses: options that could never work are an error that names the fault.
// Nothing is served, and the listener is closed.
func TestNeverGuesses(t *testing.T) {
	withHealth := grpc.NewServer()
	healthpb.RegisterHealthServer(withHealth, health.NewServer())
	for _, c := range []struct {
		name    string
		at      string
		server  *grpc.Server
		service string
		opts    *serve.Options
		want    []string
	}{
		{name: "every address", at: ":0", want: []string{`[::]:`, "Options.Addr"}},
		{name: "every IPv4 address", at: "0.0.0.0:0", want: []string{"wildcard address", "Options.Addr"}},
		{name: "every IPv6 address", at: "[::]:0", want: []string{`[::]:`, "Options.Addr"}},
		{name: "port 0", opts: &serve.Options{Addr: "10.0.0.7:0"}, want: []string{"10.0.0.7:0", "port"}},
		{name: "wildcard address", opts: &serve.Options{Addr: "0.0.0.0:9000"}, want: []string{"0.0.0.0:9000"}},
		{name: "no port", opts: &serve.Options{Addr: "10.0.0.7"}, want: []string{`"10.0.0.7"`}},
		{name: "metadata", opts: &serve.Options{Metadata: []byte("{")}, want: []string{"not JSON"}},
		{name: "service", service: "\xff", want: []string{"UTF-8"}},
		{name: "health service", server: withHealth, want: []string{"Options.Health"}},
		{name: "time to live", opts: &serve.Options{Register: &naming.RegisterOptions{TTL: 1}}, want: []string{"1ns"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := new(memory.Store)
			r := naming.New(store, quiet)
			defer r.Close()
			if c.at == "" {
				c.at = "127.0.0.1:0"
			}
			if c.server == nil {
				c.server = grpc.NewServer()
			}
			if c.service == "" {
				c.service = service
			}
			lis := listen(t, c.at)
			ctx, cancel := context.WithTimeout(t.Context(), patience) // should it serve after all
			defer cancel()
			err := serve.Run(ctx, r, c.service, c.server, lis, c.opts)
			if !errors.Is(err, naming.ErrInvalid) {
				t.Fatalf("Run returned %v", err)
			}
			for _, s := range c.want {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("the error does not say %q: %v", s, err)
				}
			}
			if _, err := lis.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("the listener is not closed: %v", err)
			}
		})
	}
	t.Run("nil Client", func(t *testing.T) {
		if err := serve.Run(t.Context(), nil, service, grpc.NewServer(), listen(t, "127.0.0.1:0"), nil); !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("Run returned %v", err)
		}
	})
}

// fakeListener has an address.
type fakeListener struct {
	net.Listener
	addr net.Addr
}

func (l fakeListener) Addr() net.Addr { return l.addr }

func TestAddr(t *testing.T) {
	t.Chdir("/")
	for _, c := range []struct {
		addr net.Addr
		want string // empty: an error
	}{
		{&net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 9000}, "10.0.0.7:9000"},
		{&net.TCPAddr{IP: net.ParseIP("2001:db8::7"), Port: 9000}, "[2001:db8::7]:9000"},
		{&net.TCPAddr{IP: net.IPv4zero, Port: 9000}, ""},
		{&net.TCPAddr{IP: net.IPv6unspecified, Port: 9000}, ""},
		{&net.TCPAddr{Port: 9000}, ""},
		{&net.UnixAddr{Net: "unix", Name: "/run/greeter.sock"}, "unix:/run/greeter.sock"},
		{&net.UnixAddr{Net: "unix", Name: "run/greeter.sock"}, "unix:/run/greeter.sock"},
		{&net.UnixAddr{Net: "unix", Name: "@greeter"}, "unix-abstract:greeter"},
		{&net.UnixAddr{Net: "unix"}, ""},
		{&net.UnixAddr{Net: "bufconn", Name: "bufconn"}, ""},
	} {
		got, err := serve.Addr(fakeListener{addr: c.addr})
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("Addr(%v) = %q, %v, want %q", c.addr, got, err, c.want)
		}
		if err != nil && (!errors.Is(err, naming.ErrInvalid) || !strings.Contains(err.Error(), c.addr.String())) {
			t.Errorf("Addr(%v): %v", c.addr, err)
		}
	}
}

// dial returns a client of one server.
func dial(t *testing.T, addr string) healthpb.HealthClient {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return healthpb.NewHealthClient(conn)
}
