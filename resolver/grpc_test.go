package resolver_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/resolver"
)

// Tests in this file use real ClientConns and, on loopback, real servers. They
// wait for events, and never for a time.

const (
	pickFirst  = `{"loadBalancingConfig":[{"pick_first":{}}]}`
	roundRobin = `{"loadBalancingConfig":[{"round_robin":{}}]}`
)

// patience is how long a test waits for an event that must happen.
const patience = time.Minute

// server is a gRPC server that counts its connections.
type server struct {
	net.Listener
	grpc    *grpc.Server
	accepts atomic.Int64
}

func (s *server) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	if err == nil {
		s.accepts.Add(1)
	}
	return c, err
}

func (s *server) addr() string { return s.Listener.Addr().String() }

func newServer(t testing.TB) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{Listener: l, grpc: grpc.NewServer()}
	healthpb.RegisterHealthServer(s.grpc, health.NewServer())
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.grpc.Serve(s)
	}()
	t.Cleanup(func() {
		s.grpc.Stop()
		<-served
	})
	return s
}

// world is a registry in memory, and what a test has of gRPC.
type world struct {
	testing.TB
	store   *memory.Store
	client  *naming.Client
	builder *resolver.Builder
}

func newWorld(t testing.TB, opts *resolver.Options) *world {
	store := new(memory.Store)
	c := naming.New(store, quiet)
	t.Cleanup(c.Close)
	return &world{t, store, c, resolver.NewBuilder(c, opts)}
}

func (w *world) dial(service string, opts ...grpc.DialOption) *grpc.ClientConn {
	w.Helper()
	opts = append(opts, grpc.WithResolvers(w.builder), grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient(w.builder.Target(service), opts...)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (w *world) apply(service string, changes ...naming.Change) {
	w.Helper()
	apply(w, w.store, service, changes...)
}

// call1 makes a call, and returns the address of the server that answered.
func call1(conn *grpc.ClientConn, opts ...grpc.CallOption) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return callIn(ctx, conn, opts...)
}

func callIn(ctx context.Context, conn *grpc.ClientConn, opts ...grpc.CallOption) (string, error) {
	var p peer.Peer
	_, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, append(opts, grpc.Peer(&p))...)
	if err != nil {
		return "", err
	}
	return p.Addr.String(), nil
}

// reach calls until each of the servers has answered, and no other did in the
// last 2*len(servers) calls.
func (w *world) reach(conn *grpc.ClientConn, servers ...*server) {
	w.Helper()
	want := make(map[string]bool)
	for _, s := range servers {
		want[s.addr()] = true
	}
	deadline := time.Now().Add(patience)
	seen, good := make(map[string]bool), 0
	for len(seen) < len(want) || good < 2*len(want) {
		addr, err := call1(conn)
		if err != nil {
			w.Fatal(err)
		}
		if good++; want[addr] {
			seen[addr] = true
		} else {
			clear(seen)
			good = 0
		}
		if time.Now().After(deadline) {
			w.Fatalf("calls reach %v in the end, want %v", seen, want)
		}
	}
}

func TestCallsReachAllEndpoints(t *testing.T) {
	w := newWorld(t, nil)
	a, b, c := newServer(t), newServer(t), newServer(t)
	w.apply("greeter", at(a.addr(), b.addr())...)
	conn := w.dial("greeter")
	w.reach(conn, a, b)
	w.apply("greeter", append(at(c.addr()), del(a.addr())...)...)
	w.reach(conn, b, c)
}

// TestMetadataMakesNoConnections is G21 with gRPC itself.
func TestMetadataMakesNoConnections(t *testing.T) {
	for _, policy := range []string{roundRobin, pickFirst} {
		t.Run(policy, func(t *testing.T) {
			w := newWorld(t, &resolver.Options{ServiceConfig: policy})
			servers := []*server{newServer(t), newServer(t), newServer(t)}
			metadata := func(i int) (changes []naming.Change) {
				for _, s := range servers {
					changes = append(changes, add(naming.Endpoint{
						Addr:     s.addr(),
						Metadata: fmt.Appendf(nil, `{"weight":%d,"zone":"z%d"}`, i+1, i%2),
					})...)
				}
				return changes
			}
			w.apply("greeter", metadata(0)...)
			conn := w.dial("greeter")
			if policy == roundRobin {
				w.reach(conn, servers...)
			} else if _, err := call1(conn); err != nil {
				t.Fatal(err)
			}
			accepts := func() (n int64) {
				for _, s := range servers {
					n += s.accepts.Load()
				}
				return n
			}
			before := accepts()
			// The state that a second ClientConn of the service got, gRPC's got as well.
			witness := newWitness()
			r := build(t, w.builder, witness, "greeter")
			defer r.Close()
			for i := range 50 {
				w.apply("greeter", metadata(i)...)
				if i%10 == 0 {
					// Other IDs for the same addresses, too.
					for _, s := range servers {
						w.apply("greeter", add(naming.Endpoint{ID: fmt.Sprint("id-", i, s.addr()), Addr: s.addr()})...)
						w.apply("greeter", del(s.addr(), fmt.Sprint("id-", i-10, s.addr()))...)
					}
				}
				if _, err := call1(conn); err != nil {
					t.Fatal(err)
				}
			}
			w.apply("greeter", at(servers[0].addr())...) // a mark
			witness.await(t, func(c call) bool {
				for _, e := range c.state.Endpoints {
					if e, _ := resolver.EndpointOf(e); e.ID == servers[0].addr() && e.Metadata == nil {
						return true
					}
				}
				return false
			})
			for range 10 {
				if _, err := call1(conn); err != nil {
					t.Fatal(err)
				}
			}
			if got := accepts() - before; got != 0 {
				t.Errorf("%d new connections, want none", got)
			}
		})
	}
}

// newWitness returns a clientConn that can be waited for.
func newWitness() *clientConn { return &clientConn{news: make(chan struct{}, 1)} }

// await waits until the newest call is what done wants.
func (cc *clientConn) await(t testing.TB, done func(call) bool) {
	t.Helper()
	timeout := time.After(patience)
	for {
		cc.mu.Lock()
		n := len(cc.calls)
		ok := n > 0 && done(cc.calls[n-1])
		cc.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-cc.news:
		case <-timeout:
			t.Fatal("it did not happen")
		}
	}
}

// wantError makes calls until one fails, and checks how it failed.
func wantError(t testing.TB, conn *grpc.ClientConn, code codes.Code, text string) {
	t.Helper()
	for start := time.Now(); ; {
		_, err := call1(conn)
		if status.Code(err) == code && strings.Contains(status.Convert(err).Message(), text) {
			return
		}
		if time.Since(start) > patience {
			t.Fatalf("calls end with %v, want %v and the text %q", err, code, text)
		}
	}
}

// TestNoEndpointsIsSaidClearly: the error of a call has the reason. gRPC's own errors are
// "no children to pick from" and "produced zero addresses".
func TestNoEndpointsIsSaidClearly(t *testing.T) {
	const text = `service "greeter" has no endpoints`
	for _, c := range []struct {
		name string
		opts resolver.Options
		dial []grpc.DialOption
	}{
		{name: "default"},
		{name: "pick_first", opts: resolver.Options{ServiceConfig: pickFirst}},
		{name: "method config", opts: resolver.Options{ServiceConfig: `{"loadBalancingConfig":[{"round_robin":{}}],"methodConfig":[{"name":[{}],"timeout":"20s"}]}`}},
		{name: "gRPC's default", opts: resolver.Options{NoServiceConfig: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, &c.opts)
			s := newServer(t)
			conn := w.dial("greeter", c.dial...)
			wantError(t, conn, codes.Unavailable, text)
			for range 3 {
				w.apply("greeter", at(s.addr())...)
				if _, err := call1(conn, grpc.WaitForReady(true)); err != nil {
					t.Fatal(err)
				}
				w.apply("greeter", del(s.addr())...)
				wantError(t, conn, codes.Unavailable, text)
			}
		})
	}
}

// TestDialledWhileTheRegistryIsDown is S6 (g): deadlines hold, and the
// ClientConn recovers by itself.
func TestDialledWhileTheRegistryIsDown(t *testing.T) {
	w := newWorld(t, nil)
	s := newServer(t)
	w.apply("greeter", at(s.addr())...)
	w.store.Down(errors.New("no route to registry"))
	conn := w.dial("greeter")
	wantError(t, conn, codes.Unavailable, "no route to registry")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := callIn(ctx, conn, grpc.WaitForReady(true)); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a call that waits for ready ended with %v, want its deadline", err)
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := call1(conn, grpc.WaitForReady(true))
		waiting <- err
	}()
	w.store.Up()
	if err := <-waiting; err != nil {
		t.Errorf("a call that waited ended with %v", err)
	}
	w.reach(conn, s)
}

func TestDialledWhileTheRegistryIsSilent(t *testing.T) {
	w := newWorld(t, &resolver.Options{FirstAnswerTimeout: 20 * time.Millisecond})
	s := newServer(t)
	w.apply("greeter", at(s.addr())...)
	w.store.Silence()
	conn := w.dial("greeter")
	wantError(t, conn, codes.Unavailable, "no answer from the registry")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := callIn(ctx, conn, grpc.WaitForReady(true)); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a call that waits for ready ended with %v, want its deadline", err)
	}
	w.store.Speak()
	if _, err := call1(conn, grpc.WaitForReady(true)); err != nil {
		t.Error(err)
	}
}

// TestAStatusInAnErrorIsNotThatOfTheCall: the clients of etcd wrap gRPC's
// statuses, and gRPC would end calls with them that ought to wait.
func TestAStatusInAnErrorIsNotThatOfTheCall(t *testing.T) {
	w := newWorld(t, nil)
	s := newServer(t)
	w.apply("greeter", at(s.addr())...)
	w.store.Refuse(status.Error(codes.PermissionDenied, "not you"))
	conn := w.dial("greeter")
	wantError(t, conn, codes.Unavailable, "not you")
	waiting := make(chan error, 1)
	go func() {
		_, err := call1(conn, grpc.WaitForReady(true))
		waiting <- err
	}()
	for range 50 {
		wantError(t, conn, codes.Unavailable, "not you") // time for the other to go wrong
	}
	w.store.Up()
	if err := <-waiting; err != nil {
		t.Errorf("a call that waited ended with %v", err)
	}
}

// TestIdle: a ClientConn that went idle is answered from memory, also while the
// registry is down.
func TestIdle(t *testing.T) {
	w := newWorld(t, nil)
	s := newServer(t)
	w.apply("greeter", at(s.addr())...)
	conn := w.dial("greeter", grpc.WithIdleTimeout(time.Millisecond))
	w.reach(conn, s)
	w.store.Down(errors.New("down"))
	for range 5 {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		for state := conn.GetState(); state != connectivity.Idle; state = conn.GetState() {
			if !conn.WaitForStateChange(ctx, state) {
				t.Fatal("the ClientConn does not become idle")
			}
		}
		cancel()
		if addr, err := call1(conn); err != nil || addr != s.addr() {
			t.Fatalf("a call after idleness: %v, %v", addr, err)
		}
	}
}

// TestNoCallFails is G10 and G11: calls go on during every failure of the registry.
func TestNoCallFails(t *testing.T) {
	for _, policy := range []string{roundRobin, pickFirst} {
		t.Run(policy, func(t *testing.T) {
			w := newWorld(t, &resolver.Options{ServiceConfig: policy})
			servers := make([]*server, 6)
			for i := range servers {
				servers[i] = newServer(t)
			}
			w.apply("greeter", at(servers[0].addr(), servers[1].addr(), servers[2].addr())...)
			conn := w.dial("greeter")
			if _, err := call1(conn); err != nil {
				t.Fatal(err)
			}
			stop := make(chan struct{})
			var calls, failed atomic.Int64
			var wg sync.WaitGroup
			end := sync.OnceFunc(func() { close(stop); wg.Wait() })
			defer end() // also after Fatal
			for range 4 {
				wg.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						if _, err := call1(conn); err != nil && failed.Add(1) < 5 {
							t.Error(err)
						}
						calls.Add(1)
					}
				})
			}
			witness := newWitness()
			r := build(t, w.builder, witness, "greeter")
			defer r.Close()
			for i := range 20 {
				// The other half takes over, in one step.
				from, to := servers[:3], servers[3:]
				if i%2 == 1 {
					from, to = to, from
				}
				var changes []naming.Change
				for j := range from {
					changes = append(changes, del(from[j].addr())...)
					changes = append(changes, at(to[j].addr())...)
				}
				w.apply("greeter", changes...)
				switch i {
				case 3:
					w.store.Break(errors.New("broken"))
				case 6:
					w.store.Down(errors.New("down"))
					w.callOften(conn)
					w.store.Up()
				}
				list := strings.Join(ordered(to), " ")
				witness.await(t, func(c call) bool { return c.addrs() == list })
				w.callOften(conn)
			}
			end()
			if n := failed.Load(); n > 0 {
				t.Errorf("%d of %d calls failed", n, calls.Load())
			}
		})
	}
}

// TestNoCallFailsWhenAllLeasesExpire is G13 with gRPC itself: the registry lost the
// servers, which are healthy. The servers that are back first get all calls, unless a
// PanicThreshold spreads the calls over the others too. Then no connection is lost.
func TestNoCallFailsWhenAllLeasesExpire(t *testing.T) {
	for _, opts := range []resolver.Options{
		{ServiceConfig: roundRobin},
		{ServiceConfig: pickFirst},
		{ServiceConfig: roundRobin, PanicThreshold: 1, Logger: quiet.Logger},
		{ServiceConfig: pickFirst, PanicThreshold: 1, Logger: quiet.Logger},
	} {
		t.Run(fmt.Sprint(opts.ServiceConfig, opts.PanicThreshold), func(t *testing.T) {
			store := new(memory.Store)
			held := make(chan int, 10)
			client := naming.New(store, &naming.Options{Logger: quiet.Logger, Hooks: &naming.Hooks{
				Held: func(info naming.HeldInfo) { held <- len(info.Endpoints) },
			}})
			defer client.Close()
			w := &world{t, store, client, resolver.NewBuilder(client, &opts)}
			servers := []*server{newServer(t), newServer(t), newServer(t)}
			put := func() {
				lease, err := store.Grant(context.Background(), time.Hour)
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range servers {
					w.apply("greeter", naming.Change{Op: naming.Add, Endpoint: naming.Endpoint{Addr: s.addr()}, Lease: lease})
				}
			}
			put()
			conn := w.dial("greeter")
			if opts.ServiceConfig == roundRobin {
				w.reach(conn, servers...)
			}
			w.callOften(conn)
			before := servers[0].accepts.Load() + servers[1].accepts.Load() + servers[2].accepts.Load()
			for range 5 {
				store.ExpireAll()
				select {
				case n := <-held:
					if n != 3 {
						t.Errorf("%d endpoints are held, want 3", n)
					}
				case <-time.After(patience):
					t.Fatal("nothing is held")
				}
				w.callOften(conn)
				put()
				w.callOften(conn)
			}
			if got := servers[0].accepts.Load() + servers[1].accepts.Load() + servers[2].accepts.Load() - before; opts.PanicThreshold > 0 && got > 0 {
				t.Errorf("%d new connections", got)
			}
		})
	}
}

// TestColdStartWithRealCalls is G15 with gRPC itself.
func TestColdStartWithRealCalls(t *testing.T) {
	dir := t.TempDir()
	s := newServer(t)
	w := newWorld(t, &resolver.Options{CacheDir: dir})
	w.apply("greeter", at(s.addr())...)
	conn := w.dial("greeter")
	w.reach(conn, s)
	for start := time.Now(); ; runtime.Gosched() {
		if files, _ := filepath.Glob(filepath.Join(dir, "*.cache")); len(files) == 1 {
			break
		}
		if time.Since(start) > patience {
			t.Fatal("nothing was saved")
		}
	}
	for range 5 {
		next := newWorld(t, &resolver.Options{CacheDir: dir, Logger: quiet.Logger})
		next.store.Down(errors.New("down"))
		next.reach(next.dial("greeter"), s)
	}
}

// basePolicy is a load balancing policy of the kind that is made with gRPC's
// package balancer/base, which reads State.Addresses only.
type basePolicy struct{ mine chan naming.Endpoint }

func (p basePolicy) Build(info base.PickerBuildInfo) balancer.Picker {
	for sc, i := range info.ReadySCs {
		//lint:ignore SA1019 such policies have nothing else
		if e, ok := resolver.EndpointOf(grpcresolver.Endpoint{Attributes: i.Address.BalancerAttributes}); ok {
			select {
			case p.mine <- e:
			default:
			}
		}
		return onePicker{sc}
	}
	return base.NewErrPicker(balancer.ErrNoSubConnAvailable)
}

type onePicker struct{ balancer.SubConn }

func (p onePicker) Pick(balancer.PickInfo) (balancer.PickResult, error) {
	return balancer.PickResult{SubConn: p.SubConn}, nil
}

// TestPoliciesThatReadAddresses: without the option such policies get no addresses.
func TestPoliciesThatReadAddresses(t *testing.T) {
	policy := basePolicy{make(chan naming.Endpoint, 1)}
	balancer.Register(base.NewBalancerBuilder("naming_test_base", policy, base.Config{}))
	const config = `{"loadBalancingConfig":[{"naming_test_base":{}}]}`
	s := newServer(t)
	w := newWorld(t, &resolver.Options{ServiceConfig: config})
	w.apply("greeter", at(s.addr())...)
	wantError(t, w.dial("greeter"), codes.Unavailable, "produced zero addresses")

	w = newWorld(t, &resolver.Options{ServiceConfig: config, WithAddresses: true})
	e := naming.Endpoint{ID: s.addr(), Addr: s.addr(), Metadata: []byte(`{"zone":"a"}`)}
	w.apply("greeter", add(e)...)
	conn := w.dial("greeter")
	if _, err := call1(conn); err != nil {
		t.Fatal(err)
	}
	if got := <-policy.mine; !got.Equal(e) {
		t.Errorf("the policy was given %v, want %v", got, e)
	}
	for i := range 10 {
		w.apply("greeter", add(naming.Endpoint{Addr: s.addr(), Metadata: fmt.Appendf(nil, "%d", i)})...)
		w.callOften(conn)
	}
	if n := s.accepts.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
	w.apply("greeter", del(s.addr())...)
	wantError(t, conn, codes.Unavailable, `service "greeter" has no endpoints`)
}

// weighing is a policy made with balancer/base that records the weights it gets.
type weighing struct{ weights chan float64 }

func (p weighing) Build(info base.PickerBuildInfo) balancer.Picker {
	for sc, i := range info.ReadySCs {
		//lint:ignore SA1019 such policies have nothing else
		e, _ := resolver.EndpointOf(grpcresolver.Endpoint{Attributes: i.Address.BalancerAttributes})
		p.weights <- e.Info().Weight
		return onePicker{sc}
	}
	return base.NewErrPicker(balancer.ErrNoSubConnAvailable)
}

// TestFieldI7BaseNeverSeesAChangedWeight shows what the doc of Options.WithAddresses
// says: the picker of a policy made with balancer/base goes on seeing the weight that
// an endpoint had when it was first listed, whatever the endpoint becomes.
func TestFieldI7BaseNeverSeesAChangedWeight(t *testing.T) {
	policy := weighing{make(chan float64, 100)}
	balancer.Register(base.NewBalancerBuilder("naming_test_weighing", policy, base.Config{}))
	s, other := newServer(t), newServer(t)
	w := newWorld(t, &resolver.Options{ServiceConfig: `{"loadBalancingConfig":[{"naming_test_weighing":{}}]}`, WithAddresses: true})
	weigh := func(n int) naming.Endpoint {
		return naming.Endpoint{ID: "1", Addr: s.addr(), Metadata: fmt.Appendf(nil, `{"weight":%d}`, n)}
	}
	w.apply("greeter", add(weigh(2))...)
	conn := w.dial("greeter")
	if _, err := call1(conn); err != nil {
		t.Fatal(err)
	}
	if got := <-policy.weights; got != 2 {
		t.Errorf("weight %v at first, want 2", got)
	}
	witness := newWitness()
	r := build(t, w.builder, witness, "greeter")
	defer r.Close()
	w.apply("greeter", add(weigh(7))...)
	witness.await(t, func(c call) bool {
		if len(c.state.Endpoints) != 1 {
			return false
		}
		e, _ := resolver.EndpointOf(c.state.Endpoints[0])
		return e.Info().Weight == 7 // what a policy on package balancer is given
	})
	// Another endpoint comes and goes, so that base makes a new picker of all.
	w.apply("greeter", add(naming.Endpoint{ID: "2", Addr: other.addr(), Metadata: []byte(`{"weight":9}`)})...)
	deadline := time.After(patience)
	for seen := false; !seen; {
		select {
		case got := <-policy.weights:
			if got == 7 {
				t.Fatal("base sees a changed weight: the doc of Options.WithAddresses is to be changed")
			}
			seen = got == 9 || other.accepts.Load() > 0 // made after the change
		case <-deadline:
			t.Fatal("no new picker")
		}
	}
}

// TestFieldW1NoCallGoesThere: half of the servers are withheld under real calls. As
// soon as a ClientConn has the state, none of them is called, and no call fails.
// TestFieldW1NoRests tests how soon that is.
func TestFieldW1NoCallGoesThere(t *testing.T) {
	for _, reason := range []naming.Reason{naming.Maintenance, naming.FailedCheck} {
		for _, policy := range []string{roundRobin, pickFirst} {
			t.Run(fmt.Sprint(reason, policy), func(t *testing.T) {
				store := new(memory.Store)
				client := naming.New(store, &naming.Options{Logger: quiet.Logger}) // with a hold
				defer client.Close()
				w := &world{t, store, client, resolver.NewBuilder(client, &resolver.Options{ServiceConfig: policy})}
				servers := make([]*server, 4)
				for i := range servers {
					servers[i] = newServer(t)
					w.apply("greeter", at(servers[i].addr())...)
				}
				list := ordered(servers)
				conn := w.dial("greeter")
				if policy == roundRobin {
					w.reach(conn, servers...)
				} else {
					w.callOften(conn)
				}
				witness := newWitness()
				r := build(t, w.builder, witness, "greeter")
				defer r.Close()
				for _, addr := range list[:2] {
					store.Withhold("greeter", addr, reason, "")
				}
				witness.await(t, func(c call) bool { return c.addrs() == strings.Join(list[2:], " ") })
				// The other ClientConn has the state when enough calls in a row
				// went elsewhere, and all later calls do.
				for begin, row := time.Now(), 0; row < 200; row++ {
					addr, err := call1(conn)
					if err != nil {
						t.Fatal(err)
					}
					if !slices.Contains(list[:2], addr) {
						continue
					}
					if row >= 20 || time.Since(begin) > patience {
						t.Fatalf("what is withheld is called, after %d calls to others", row)
					}
					row = -1
				}
				for _, addr := range list[2:] {
					store.Withhold("greeter", addr, reason, "an upgrade")
				}
				wantError(t, conn, codes.Unavailable, `service "greeter" has no endpoints to use: the registry withholds 4: 4 `+reason.String())
				for _, addr := range list {
					store.Unwithhold("greeter", addr)
				}
				if _, err := call1(conn, grpc.WaitForReady(true)); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestWeightsReachPickFirst: of two endpoints a heavy one is almost always the
// first in a shuffled list.
func TestWeightsReachPickFirst(t *testing.T) {
	w := newWorld(t, &resolver.Options{ServiceConfig: `{"loadBalancingConfig":[{"pick_first":{"shuffleAddressList":true}}]}`})
	light, heavy := newServer(t), newServer(t)
	w.apply("greeter", add(
		naming.Endpoint{ID: "1", Addr: light.addr()}, // the same as weight 1
		naming.Endpoint{ID: "2", Addr: heavy.addr(), Metadata: []byte(`{"weight":65535}`)},
	)...)
	const n = 20
	for range n {
		if _, err := call1(w.dial("greeter")); err != nil {
			t.Fatal(err)
		}
	}
	if got := heavy.accepts.Load(); got < n-1 {
		t.Errorf("%d of %d ClientConns picked the heavy endpoint", got, n)
	}
}

// callOften makes a number of calls.
func (w *world) callOften(conn *grpc.ClientConn) {
	w.Helper()
	for range 30 {
		if _, err := call1(conn); err != nil {
			w.Fatal(err)
		}
	}
}

// ordered returns the addresses of servers in the order in which they are
// published.
func ordered(servers []*server) []string {
	var list []string
	for _, s := range servers {
		list = append(list, s.addr())
	}
	slices.Sort(list)
	return list
}
