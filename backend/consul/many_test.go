package consul_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/mutant"
	"github.com/naming-go/naming/internal/servertest"
	"github.com/naming-go/naming/resolver"
)

const (
	// maxRequests is the documented limit of the requests of a Store, including
	// abandoned queries.
	maxRequests = 100
	// maxConns is the number of connections for maxRequests with a transport that keeps
	// few idle connections. The transport may open a connection for each of the 32
	// requests that do not wait for a change, and then find another connection free.
	maxConns = maxRequests + 32 + 3
	// waiting is the number of requests that wait for a change when there are more
	// watches than can have a query of their own.
	waiting     = 50 + 3
	agentsLimit = 200 // of connections from one address
)

// crowd is consumers of services in one Client: followers, loops over watches
// and gRPC resolvers.
type crowd struct {
	*rig
	client   *naming.Client
	services int
	news     chan int // a consumer that shows something else

	mu    sync.Mutex
	shown []string // by consumer
	stops []func()
	wg    sync.WaitGroup
}

func (c *crowd) name(i int) string { return fmt.Sprintf("service-%04d", i) }

func newCrowd(t *testing.T, r *rig, services, consumers int) *crowd {
	t.Helper()
	c := &crowd{
		rig: r, client: naming.New(r.Store, nil), services: services,
		news: make(chan int, 100*consumers), shown: make([]string, consumers),
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.stops = append(c.stops, cancel)
	builder := resolver.NewBuilder(c.client, nil)
	for i := range consumers {
		c.shown[i] = "nothing"
		name := c.name(i % services)
		switch i / services % 3 {
		case 0:
			wake := make(chan struct{}, 1)
			f, err := c.client.Follow(name, func() {
				select {
				case wake <- struct{}{}:
				default:
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			c.stops = append(c.stops, f.Close)
			c.wg.Go(func() {
				set := make(map[string]string)
				for {
					for e, ok := f.Next(); ok; e, ok = f.Next() {
						for _, id := range e.Deleted {
							delete(set, id)
						}
						for _, e := range e.Put {
							set[e.ID] = e.Addr
						}
						if e.Status.Synced {
							c.show(i, fmt.Sprint(set))
						}
					}
					select {
					case <-wake:
					case <-ctx.Done():
						return
					}
				}
			})
		case 1:
			c.wg.Go(func() {
				for v, err := range c.client.Watch(ctx, name) {
					if err != nil {
						return
					}
					set := make(map[string]string)
					for _, e := range v.Endpoints {
						set[e.ID] = e.Addr
					}
					if v.Synced {
						c.show(i, fmt.Sprint(set))
					}
				}
			})
		case 2:
			u, err := url.Parse(builder.Target(name))
			if err != nil {
				t.Fatal(err)
			}
			r, err := builder.Build(grpcresolver.Target{URL: *u}, conn{c, i}, grpcresolver.BuildOptions{})
			if err != nil {
				t.Fatal(err)
			}
			c.stops = append(c.stops, r.Close)
		}
	}
	return c
}

// conn is the ClientConn of a consumer.
type conn struct {
	c *crowd
	i int
}

func (c conn) UpdateState(s grpcresolver.State) error {
	set := make(map[string]string)
	for _, e := range s.Endpoints {
		set["a"] = e.Addresses[0].Addr
	}
	c.c.show(c.i, fmt.Sprint(set))
	return nil
}
func (c conn) ReportError(error)                                  { c.c.show(c.i, "map[]") } // no endpoints
func (conn) NewAddress([]grpcresolver.Address)                    {}
func (conn) ParseServiceConfig(string) *serviceconfig.ParseResult { return nil }

func (c *crowd) show(consumer int, what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shown[consumer] != what {
		c.shown[consumer] = what
		c.news <- consumer
	}
}

// await waits until all consumers of some services show the expected endpoints.
func (c *crowd) await(t *testing.T, want map[int]string) {
	t.Helper()
	left := make(map[int]bool)
	for i := range c.shown {
		if _, ok := want[i%c.services]; ok {
			left[i] = true
		}
	}
	timeout := time.After(2 * servertest.Patience)
	for i := range c.shown {
		c.check(left, want, i)
	}
	for len(left) > 0 {
		select {
		case i := <-c.news:
			c.check(left, want, i)
		case <-timeout:
			for i := range left {
				c.mu.Lock()
				defer c.mu.Unlock()
				t.Fatalf("%d consumers do not show it: consumer %d of service %d shows %s, want %s", len(left), i, i%c.services, c.shown[i], want[i%c.services])
			}
		}
	}
}

func (c *crowd) check(left map[int]bool, want map[int]string, i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shown[i] == want[i%c.services] {
		delete(left, i)
	}
}

func (c *crowd) close() {
	for _, stop := range c.stops {
		stop()
	}
	c.client.Close()
	c.wg.Wait()
}

// put puts an endpoint of a service as another program.
func (c *crowd) put(t *testing.T, i int, addr string) {
	t.Helper()
	err := c.admin.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: c.name(i), Name: c.prefix + c.name(i), Address: addr, Port: 80,
		Meta: map[string]string{"naming-id": "a"},
	})
	if err != nil {
		t.Error(err)
	}
}

// neighbour is another client on the same host, which makes a new connection for each
// request.
func neighbour(t *testing.T, agent *consultest.Agent) (served func() int) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: servertest.Patience}
	stop, stopped := make(chan struct{}), make(chan struct{})
	n := 0
	go func() {
		defer close(stopped)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			resp, err := client.Get(agent.URL() + "/v1/status/leader")
			if err == nil {
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					err = errors.New(resp.Status)
				}
			}
			if err != nil {
				t.Errorf("another client on the host, after %d requests: %v", n, err)
				return
			}
			n++
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
	return func() int { close(stop); <-stopped; return n }
}

// room returns how many more connections the agent accepts from this host.
func room(t *testing.T, agent *consultest.Agent) int {
	t.Helper()
	for n := 0; ; n++ {
		conn, err := net.Dial("tcp", agent.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /v1/status/leader HTTP/1.1\r\nHost: %s\r\n\r\n", agent.Addr)
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) || err == nil && strings.Contains(line, " 429 ") || err != nil {
			return n
		}
		if n > 2*agentsLimit {
			t.Fatalf("the agent takes %d connections and more, want its default limit of %d", n, agentsLimit)
		}
	}
}

// TestConnections: 5,000 consumers watch more services than an agent accepts connections
// from one address. All consumers see every change, and the agent still serves the other
// programs on the host (prometheus#6959, consul#7527).
func TestConnections(t *testing.T) {
	for _, services := range []int{300, 2000} {
		t.Run(fmt.Sprint(services), func(t *testing.T) {
			agent := consultest.Start(t, nil)
			r := newRig(t, agent, func(c *api.Config, o *consul.Options) {
				c.Transport = api.DefaultConfig().Transport // what most programs have
				o.Wait = 20 * time.Second
			})
			served := neighbour(t, agent)
			c := &crowd{rig: r, services: services}
			// Half of the services exist before.
			for i := range services / 2 {
				c.put(t, i, "10.0.0.1")
			}
			began := time.Now()
			c = newCrowd(t, r, services, 5000)
			want := make(map[int]string)
			for i := range services {
				want[i] = "map[]"
				if i < services/2 {
					want[i] = "map[a:10.0.0.1:80]"
				}
			}
			c.await(t, want)
			first := time.Since(began)

			// One change each to some services. The first query after a change shows
			// it. One query may be on its way then, and one more may follow before all
			// consumers have the change.
			var slowest time.Duration
			rounds, step := 5, services/300
			if mutant.Full() {
				rounds, step = 30, 1
			}
			for n := range rounds {
				i := n * services / rounds
				addr := fmt.Sprintf("10.1.0.%d", n)
				began := time.Now()
				c.put(t, i, addr)
				before := r.reads(c.name(i))
				c.await(t, map[int]string{i: "map[a:" + addr + ":80]"})
				if n := r.reads(c.name(i)) - before; n > 2 {
					t.Errorf("%s was read %d times until all have shown a change, want up to 2", c.name(i), n)
				}
				slowest = max(slowest, time.Since(began))
			}
			// One change to all services, or at least to more than fit.
			began = time.Now()
			var writers sync.WaitGroup
			for n := range 8 {
				writers.Go(func() {
					for i := n * step; i < services; i += 8 * step {
						c.put(t, i, "10.2.0.1")
					}
				})
			}
			writers.Wait()
			clear(want)
			for i := 0; i < services; i += step {
				want[i] = "map[a:10.2.0.1:80]"
			}
			put := time.Since(began)
			c.await(t, want)
			t.Logf("%d services: all shown within %v; a change within %v; all changed within %v, and shown %v later; at most %d requests at a time, %d connections; %d requests of another",
				services, first.Round(time.Millisecond), slowest.Round(time.Millisecond), put.Round(time.Millisecond), (time.Since(began) - put).Round(time.Millisecond),
				r.mostFlying.Load(), r.mostOpen.Load(), served())
			if n := r.mostFlying.Load(); n > maxRequests {
				t.Errorf("%d requests at a time, want up to %d", n, maxRequests)
			}
			if n := r.mostOpen.Load(); n > maxConns {
				t.Errorf("%d connections, want up to %d", n, maxConns)
			}

			// While nothing changes, no request is made, except when a wait is over.
			servertest.Poll(t, "it is never quiet", func() error {
				before := r.calls.Load()
				time.Sleep(time.Second)
				if n := r.calls.Load() - before; n > 5 {
					return fmt.Errorf("%d requests within a second", n)
				}
				return nil
			})
			if n := agentsLimit - room(t, agent); n < waiting || n > waiting+10 {
				t.Errorf("the agent has %d connections while nothing changes, want %d and some that are idle", n, waiting)
			}
			c.close()
		})
	}
}

// TestGivenUp starts and ends watches more often than Consul has room for, if Consul
// keeps every abandoned query until its wait is over (consul#8524).
func TestGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		client, err := api.NewClient(&api.Config{HttpClient: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			raise(&most, now.Add(1))
			h := http.Header{"X-Consul-Index": {"5"}}
			if q := r.URL.Query(); q.Has("index") {
				wait, err := time.ParseDuration(q.Get("wait"))
				if err != nil {
					t.Error(err)
				}
				wait += wait / 16
				time.AfterFunc(wait, func() { now.Add(-1) })
				select {
				case <-time.After(wait):
				case <-r.Context().Done():
					return nil, r.Context().Err()
				}
			} else {
				now.Add(-1)
			}
			body := "[]"
			if strings.HasSuffix(r.URL.Path, "catalog/services") {
				body = "{}"
			}
			return &http.Response{StatusCode: http.StatusOK, Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
		})}})
		if err != nil {
			t.Fatal(err)
		}
		s := consul.New(client, nil)
		var peak int64
		for n := range 30 {
			if n%10 == 9 {
				time.Sleep(time.Minute) // then there is room for all of them
				peak = max(peak, most.Swap(0))
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			var wg sync.WaitGroup
			var shown atomic.Int64
			for i := range 120 {
				wg.Go(func() {
					for range s.Watch(ctx, fmt.Sprint(i)) {
						shown.Add(1)
						break
					}
					for _, err := range s.Watch(ctx, fmt.Sprint(i)) {
						if err == nil {
							shown.Add(1)
						}
					}
				})
			}
			wg.Go(func() {
				for range s.Services(ctx) {
				}
			})
			wg.Wait()
			cancel()
			if n := shown.Load(); n != 240 {
				t.Errorf("%d of 240 watches have begun", n)
			}
			if n%10 == 9 && most.Load() < waiting {
				t.Errorf("at most %d requests, want at least %d", most.Load(), waiting)
			}
		}
		if peak > maxRequests {
			t.Errorf("%d requests at a time, want up to %d", peak, maxRequests)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestGivenUpConnections is TestGivenUp with an agent that keeps the connections.
func TestGivenUpConnections(t *testing.T) {
	agent := consultest.Start(t, &consultest.Options{Config: map[string]any{"use_streaming_backend": false}})
	s := consul.New(agent.Client(t), nil)
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		var wg, begun sync.WaitGroup
		for i := range 120 {
			begun.Add(1)
			wg.Go(func() {
				once := sync.OnceFunc(begun.Done)
				for _, err := range s.Watch(ctx, fmt.Sprint(i)) {
					if err != nil && ctx.Err() == nil {
						t.Error(err)
					}
					once()
				}
			})
		}
		begun.Wait()
		room := room(t, agent)
		if n := agentsLimit - room; n > maxConns {
			t.Errorf("the agent has %d connections, want up to %d", n, maxConns)
		}
		cancel()
		wg.Wait()
	}
}

// TestSharedFails: when the link breaks, all watches without a connection of their own
// end, and nothing is left of them.
func TestSharedFails(t *testing.T) {
	agent := consultest.Start(t, nil)
	r := newRig(t, agent, nil)
	const services = 120
	ends, begun := make(chan error, services), make(chan struct{}, services)
	for i := range services {
		go func() {
			for _, err := range r.Watch(t.Context(), fmt.Sprint(i)) {
				if err != nil {
					ends <- err
					return
				}
				begun <- struct{}{}
			}
		}()
	}
	for range services {
		<-begun
	}
	servertest.Poll(t, "not all have asked", func() error {
		if n := r.flying.Load(); n != waiting {
			return fmt.Errorf("%d requests are waiting, want %d", n, waiting)
		}
		return nil
	})
	r.interrupt(t)
	for range services {
		select {
		case err := <-ends:
			if err == nil {
				t.Error("a watch ended without an error")
			}
		case <-time.After(servertest.Patience):
			t.Fatal("not all watches have ended")
		}
	}
}

// BenchmarkPropagation puts an endpoint and waits until a watch shows it. More than a
// hundred iterations meet the limit of ten a second.
func BenchmarkPropagation(b *testing.B) {
	agent := consultest.Start(b, nil)
	r := newRig(b, agent, nil)
	for _, how := range []string{"Apply", "agent"} {
		b.Run(how, func(b *testing.B) {
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			news := make(chan struct{}, 1)
			service := fmt.Sprintf("%s%d", how, b.N)
			go func() {
				for _, err := range r.Watch(ctx, service) {
					if err != nil {
						return
					}
					news <- struct{}{}
				}
			}()
			<-news
			for n := 0; b.Loop(); n++ {
				addr := fmt.Sprintf("10.%d.%d.%d", n>>16, n>>8&0xff, n&0xff)
				var err error
				if how == "Apply" {
					err = r.Apply(ctx, service, add(nil, ep("a", addr+":80", ""))...)
				} else {
					err = r.admin.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: "a", Name: r.prefix + service, Address: addr, Port: 80})
				}
				if err != nil {
					b.Fatal(err)
				}
				<-news
			}
		})
	}
}

// TestSharedReadsOnce begins a watch without a blocking query of its own while another
// such watch exists. The watch reads its service once, and again if something changes
// before it has the answer.
func TestSharedReadsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		changed, never, answer := make(chan struct{}), make(chan struct{}), make(chan struct{})
		var index, first, late atomic.Int64
		index.Store(5)
		client, err := api.NewClient(&api.Config{HttpClient: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			asked := index.Load()
			switch {
			case strings.HasSuffix(r.URL.Path, "/first"):
				first.Add(1)
			case strings.HasSuffix(r.URL.Path, "/late") && late.Add(1) == 1:
				<-answer
			}
			if i := r.URL.Query().Get("index"); i != "" && i == fmt.Sprint(asked) {
				wait := changed
				if asked > 5 || strings.Contains(r.URL.Path, "/service/") {
					wait = never
				}
				select {
				case <-wait:
					asked = index.Load()
				case <-r.Context().Done():
					return nil, r.Context().Err()
				}
			}
			body := "[]"
			if strings.HasSuffix(r.URL.Path, "catalog/services") {
				body = "{}"
			}
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"X-Consul-Index": {fmt.Sprint(asked)}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
		})}})
		if err != nil {
			t.Fatal(err)
		}
		s := consul.New(client, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		watch := func(service string) {
			wg.Go(func() {
				for range s.Watch(ctx, service) {
				}
			})
		}
		for i := range 51 {
			watch(fmt.Sprint(i))
		}
		time.Sleep(time.Second)
		watch("first")
		time.Sleep(time.Second)
		if n := first.Load(); n != 1 {
			t.Errorf("the service was read %d times, want once", n)
		}
		watch("late")
		synctest.Wait()
		index.Add(1)
		close(changed)
		time.Sleep(time.Second) // a round goes by
		close(answer)
		time.Sleep(time.Second)
		if n := late.Load(); n != 2 {
			t.Errorf("the service was read %d times, want once more after the change", n)
		}
		cancel()
		wg.Wait()
	})
}

// TestNamesEscapedWithoutEnd: another writer's name that looks escaped many times over
// does not cost the square of its length, which would take hours.
func TestNamesEscapedWithoutEnd(t *testing.T) {
	client, err := api.NewClient(&api.Config{HttpClient: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		body := "[]"
		if strings.HasSuffix(r.URL.Path, "catalog/services") {
			body = `{"greeter":[],"~` + strings.Repeat("7E", 900_000) + `":[]}`
		}
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"X-Consul-Index": {"5"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	})}})
	if err != nil {
		t.Fatal(err)
	}
	for names, err := range consul.New(client, nil).Services(t.Context()) {
		if err != nil || !slices.Equal(names, []string{"greeter"}) {
			t.Errorf("services %.200q, error %v", names, err)
		}
		break
	}
}
