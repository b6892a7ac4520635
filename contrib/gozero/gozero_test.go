package gozero_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeromicro/go-zero/core/proc"
	"github.com/zeromicro/go-zero/zrpc"
	"google.golang.org/grpc"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/contrib/gozero"
	"github.com/naming-go/naming/internal/servertest"
	"github.com/naming-go/naming/resolver"
	"github.com/naming-go/naming/serve"
)

// withTTL returns options with a time to live.
func withTTL(ttl time.Duration) *serve.Options {
	return &serve.Options{Register: &naming.RegisterOptions{TTL: ttl}}
}

// A zrpc server is registered when its port is open. At the signal its endpoint is drained
// and removed while the server serves on, and the server stops after that.
func TestLife(t *testing.T) {
	c := quiet(t, new(memory.Store))
	addr := servertest.Addr(servertest.Ports(t, 1)[0])
	conf := serverConf(addr)
	var reg *naming.Registration
	registered := make(chan struct{})
	register, err := gozero.Publish(c, "greeter", conf, greeter(addr), &serve.Options{
		Metadata: []byte(`{"zone":"a"}`),
		Register: &naming.RegisterOptions{DrainDelay: 100 * time.Millisecond},
		OnRegistration: func(r *naming.Registration) {
			reg = r
			close(registered)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	server := zrpc.MustNewServer(conf, register)
	started := make(chan struct{})
	go func() {
		defer close(started)
		server.Start()
	}()
	<-registered

	client := dial(t, zrpc.RpcClientConf{Target: "naming:///greeter"}, gozero.WithRegistry(c, nil))
	call := caller(client)
	awaitCall(t, call, addr)
	if v, err := c.List(t.Context(), "greeter"); err != nil || len(v.Endpoints) != 1 || string(v.Endpoints[0].Metadata) != `{"zone":"a"}` {
		t.Errorf("the registry has %+v, %v", v.Endpoints, err)
	}

	states := follow(t, c, "greeter")
	proc.WrapUp() // go-zero's package proc does this at the signal,
	if s := reg.Status(); s.Registered {
		t.Error("the wrap-up ended before the endpoint was removed")
	}
	// Not with the client of the registry, which has no endpoint now.
	if got, err := callAt(t, addr); err != nil || got != addr {
		t.Errorf("after the wrap-up a call is answered by %q, %v: the server must serve until the shutdown", got, err)
	}
	if got := <-states; !slices.Equal(got, []string{"draining", "gone"}) {
		t.Errorf("the endpoint went through %q", got)
	}
	proc.Shutdown() // and this after Shutdown.WrapUpTime
	<-started
}

// follow returns a channel of the states of the only endpoint of a service, until it is gone.
func follow(t *testing.T, c *naming.Client, service string) <-chan []string {
	ctx, cancel := context.WithTimeout(t.Context(), servertest.Patience)
	first, states := make(chan struct{}), make(chan []string, 1)
	go func() {
		defer cancel()
		var seen []string
		defer func() { states <- seen }()
		for v, err := range c.Watch(ctx, service) {
			switch {
			case err != nil:
				return
			case len(v.Endpoints) == 0:
				seen = append(seen, "gone")
				return
			case v.Endpoints[0].Draining:
				seen = append(seen, "draining")
			default:
				close(first)
			}
		}
	}()
	<-first
	return states
}

// Without the wrap-up, as where only shutdown listeners are called, the shutdown withdraws
// the endpoint, and Start does not return before.
func TestShutdownWithdraws(t *testing.T) {
	c := quiet(t, new(memory.Store))
	addr := servertest.Addr(servertest.Ports(t, 1)[0])
	conf := serverConf(addr)
	registered := make(chan *naming.Registration, 1)
	register, err := gozero.Publish(c, "greeter", conf, greeter(addr), &serve.Options{
		OnRegistration: func(r *naming.Registration) { registered <- r },
	})
	if err != nil {
		t.Fatal(err)
	}
	server := zrpc.MustNewServer(conf, register)
	started := make(chan struct{})
	go func() {
		defer close(started)
		server.Start()
	}()
	reg := <-registered
	if err := reg.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	// zrpc adds its own shutdown listener after it has called register, and before it
	// accepts.
	if _, err := callAt(t, addr); err != nil {
		t.Fatal(err)
	}
	proc.Shutdown()
	<-started
	if reg.Status().Registered {
		t.Error("Start returned while the endpoint is registered")
	}
	proc.WrapUp() // forgets the listeners
}

func TestPublishAddress(t *testing.T) {
	c := quiet(t, new(memory.Store))
	for _, test := range []struct {
		listenOn, addr, pod string
		want                string // "": an error
	}{
		{listenOn: "10.0.0.7:8080", want: "10.0.0.7:8080"},
		{listenOn: "10.0.0.7:8080", addr: "lb.example:80", want: "lb.example:80"},
		{listenOn: "10.0.0.7:8080", pod: "10.1.1.1", want: "10.0.0.7:8080"},
		{listenOn: "greeter-0.greeter:8080", want: "greeter-0.greeter:8080"},
		{listenOn: "0.0.0.0:8080", pod: "10.1.1.1", want: "10.1.1.1:8080"},
		{listenOn: ":8080", pod: "10.1.1.1", want: "10.1.1.1:8080"},
		{listenOn: "[::]:8080", pod: "fd00::7", want: "[fd00::7]:8080"},
		{listenOn: ":8080", pod: "10.1.1.1", addr: "10.2.2.2:80", want: "10.2.2.2:80"},
		{listenOn: ":8080"},
		{listenOn: "0.0.0.0:8080"},
		{listenOn: "[::]:8080"},
		{listenOn: "0.0.0.0:8080", pod: "not an address"},
		{listenOn: "8080", pod: "10.1.1.1"},
		{listenOn: "10.0.0.7:0"},
		{listenOn: "10.0.0.7:http"},
		{listenOn: ""},
	} {
		t.Run(fmt.Sprintf("%q addr %q pod %q", test.listenOn, test.addr, test.pod), func(t *testing.T) {
			t.Setenv("POD_IP", test.pod)
			registered := make(chan *naming.Registration, 1)
			register, err := gozero.Publish(c, "greeter", zrpc.RpcServerConf{ListenOn: test.listenOn}, func(*grpc.Server) {}, &serve.Options{
				Addr:           test.addr,
				Register:       &naming.RegisterOptions{DrainDelay: -1},
				OnRegistration: func(r *naming.Registration) { registered <- r },
			})
			if test.want == "" {
				if !errors.Is(err, naming.ErrInvalid) {
					t.Fatalf("Publish returned %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			register(nil)
			reg := <-registered
			if err := reg.Wait(t.Context()); err != nil {
				t.Error(err)
			}
			v, err := c.List(t.Context(), "greeter")
			if err != nil || len(v.Endpoints) != 1 || v.Endpoints[0].Addr != test.want {
				t.Errorf("the registry has %+v, %v; want %s", v.Endpoints, err, test.want)
			}
			proc.WrapUp()
			proc.Shutdown()
		})
	}
}

func TestPublishInvalid(t *testing.T) {
	c := quiet(t, new(memory.Store))
	for name, test := range map[string]struct {
		client  *naming.Client
		service string
		opts    serve.Options
	}{
		"no client":        {nil, "greeter", serve.Options{}},
		"no service":       {c, "", serve.Options{}},
		"metadata":         {c, "greeter", serve.Options{Metadata: []byte("{")}},
		"wildcard address": {c, "greeter", serve.Options{Addr: ":80"}},
		"id":               {c, "greeter", serve.Options{ID: "\xff"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := gozero.Publish(test.client, test.service, serverConf("127.0.0.1:1"), func(*grpc.Server) {}, &test.opts)
			if !errors.Is(err, naming.ErrInvalid) {
				t.Errorf("Publish returned %v", err)
			}
		})
	}
}

// The drain delay has to fit into the times after which go-zero stops the server and kills
// the process.
func TestPublishStopTimes(t *testing.T) {
	c := quiet(t, new(memory.Store))
	for _, test := range []struct {
		drain, wrapUp, wait time.Duration
		want                string // in the error
	}{
		{0, 0, 0, ""},
		{time.Second, time.Second, 5500 * time.Millisecond, ""},
		{2 * time.Second, 0, 0, "WrapUpTime"},
		{2 * time.Second, time.Second, time.Minute, "WrapUpTime"},
		{2 * time.Second, 2 * time.Second, 0, ""},
		{0, 500 * time.Millisecond, 0, "WrapUpTime"},
		{-1, time.Millisecond, 0, ""},
		{0, 6 * time.Second, 0, "WaitTime"},
		{0, 6 * time.Second, 6 * time.Second, "WaitTime"},
		{0, 6 * time.Second, 7 * time.Second, ""},
		{0, -1, -1, ""},
	} {
		conf := serverConf("127.0.0.1:1")
		conf.Shutdown = proc.ShutdownConf{WrapUpTime: test.wrapUp, WaitTime: test.wait}
		opts := &serve.Options{Register: &naming.RegisterOptions{DrainDelay: test.drain}}
		_, err := gozero.Publish(c, "greeter", conf, func(*grpc.Server) {}, opts)
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%+v: %v", test, err)
		case test.want != "" && (!errors.Is(err, naming.ErrInvalid) || !strings.Contains(err.Error(), "Shutdown."+test.want+" to")):
			t.Errorf("%+v: %v", test, err)
		}
	}
}

// go-zero's balancers read addresses only, and the option works with each of them.
func TestBalancers(t *testing.T) {
	c := quiet(t, new(memory.Store))
	opts := &resolver.Options{ServiceConfig: `{"loadBalancingConfig":[{"no_such_policy":{}}]}`} // has no effect
	option := gozero.WithRegistry(c, opts)
	if opts.WithAddresses || opts.NoServiceConfig {
		t.Error("WithRegistry changed the caller's options")
	}
	addr := servertest.Addr(servertest.Ports(t, 1)[0])
	s := grpc.NewServer()
	greeter(addr)(s)
	serveAt(t, s, addr)
	if _, err := c.Register(t.Context(), "greeter", naming.Endpoint{Addr: addr}, &naming.RegisterOptions{DrainDelay: -1}); err != nil {
		t.Fatal(err)
	}
	for _, balancer := range []string{"", "p2c_ewma", "consistent_hash", "round_robin", "pick_first"} {
		client, err := zrpc.NewClient(zrpc.RpcClientConf{Target: "naming:///greeter", BalancerName: balancer}, option)
		if err != nil {
			t.Fatal(err)
		}
		awaitCall(t, func(ctx context.Context) (string, error) {
			return caller(client)(zrpc.SetHashKey(ctx, "key"))
		}, addr)
		client.Conn().Close()
	}
}

// A client that is made before there is a server, by a program whose configuration says
// blocking, makes calls when there is one.
func TestClientBeforeServer(t *testing.T) {
	c := quiet(t, new(memory.Store))
	client, err := zrpc.NewClient(zrpc.RpcClientConf{Target: "naming:///greeter"}, gozero.WithRegistry(c, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Conn().Close()
	addr := servertest.Addr(servertest.Ports(t, 1)[0])
	s := grpc.NewServer()
	greeter(addr)(s)
	serveAt(t, s, addr)
	if _, err := c.Register(t.Context(), "greeter", naming.Endpoint{Addr: addr}, &naming.RegisterOptions{DrainDelay: -1}); err != nil {
		t.Fatal(err)
	}
	awaitCall(t, caller(client), addr)
}

func TestClientNil(t *testing.T) {
	client, err := zrpc.NewClient(zrpc.RpcClientConf{Target: "naming:///greeter"}, gozero.WithRegistry(nil, nil))
	if err == nil {
		_, err = caller(client)(t.Context())
	}
	if err == nil || !strings.Contains(err.Error(), "nil Client") {
		t.Errorf("the error is %v", err)
	}
}
