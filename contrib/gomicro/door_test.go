package gomicro_test

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	etcdregistry "github.com/go-micro/plugins/v4/registry/etcd"
	"go-micro.dev/v4/broker"
	"go-micro.dev/v4/client"
	"go-micro.dev/v4/logger"
	"go-micro.dev/v4/registry"
	"go-micro.dev/v4/selector"
	"go-micro.dev/v4/server"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/contrib/gomicro"
	"github.com/naming-go/naming/internal/doortest"
)

func init() { logger.DefaultLogger = logger.NewLogger(logger.WithOutput(io.Discard)) }

// A fleet of go-micro on its registry for etcd beside one on this module.
func TestCompare(t *testing.T) {
	doortest.CompareOnEtcd(t, "go-micro",
		door("go-micro 4.11.0, its etcd registry", func(_ testing.TB, hosts []string) (registry.Registry, func()) {
			return etcdregistry.NewRegistry(registry.Addrs(trimSchemes(hosts)...)), func() {}
		}),
		door("go-micro 4.11.0, contrib/gomicro", func(tb testing.TB, hosts []string) (registry.Registry, func()) {
			cl, err := clientv3.New(clientv3.Config{Endpoints: hosts})
			if err != nil {
				tb.Fatal(err)
			}
			c := naming.New(etcd.New(cl, &etcd.Options{Prefix: "/naming/"}), &naming.Options{Logger: slog.New(slog.DiscardHandler)})
			return gomicro.New(c, nil), func() {
				c.Close()
				cl.Close()
			}
		}), doortest.Options{})
}

// door returns go-micro's own servers and clients on a registry.
func door(name string, open func(testing.TB, []string) (r registry.Registry, close func())) doortest.Door {
	return doortest.Door{
		Name: name,
		Serve: func(tb testing.TB, hosts []string, service, addr string) func() {
			r, done := open(tb, hosts)
			stop := startServer(tb, r, service, addr)
			return func() {
				stop()
				done()
			}
		},
		Dial: func(tb testing.TB, hosts []string, service string) (func(context.Context) (string, error), func()) {
			r, done := open(tb, hosts)
			call, hangUp := dial(r, service)
			return call, func() {
				hangUp()
				done()
			}
		},
	}
}

// Greeter is a handler of go-micro's.
type Greeter struct{ addr string }

// Request and Reply are its messages.
type (
	Request struct{}
	Reply   struct{ Addr string }
)

// Where answers with the address of the server.
func (g *Greeter) Where(_ context.Context, _ *Request, reply *Reply) error {
	reply.Addr = g.addr
	return nil
}

// startServer starts go-micro's server. Its leases are as short as etcd's are.
func startServer(tb testing.TB, r registry.Registry, service, addr string) (stop func()) {
	tb.Helper()
	s := server.NewServer(
		server.Name(service), server.Id(addr), server.Address(addr), server.Version("v1"),
		server.Registry(r), server.RegisterTTL(ttl), server.RegisterInterval(time.Second),
		server.Broker(broker.NewMemoryBroker()), server.Wait(nil),
	)
	if err := s.Handle(s.NewHandler(&Greeter{addr})); err != nil {
		tb.Fatal(err)
	}
	if err := s.Start(); err != nil {
		tb.Fatal(err)
	}
	return func() {
		if err := s.Stop(); err != nil {
			tb.Error(err)
		}
	}
}

// dial returns go-micro's client with its own selector.
func dial(r registry.Registry, service string) (call func(context.Context) (string, error), close func()) {
	s := selector.NewSelector(selector.Registry(r))
	c := client.NewClient(client.Registry(r), client.Selector(s), client.Retries(0))
	return func(ctx context.Context) (string, error) {
		var reply Reply
		err := c.Call(ctx, c.NewRequest(service, "Greeter.Where", &Request{}, client.WithContentType("application/json")), &reply)
		return reply.Addr, err
	}, func() { _ = s.Close() }
}

// ttl is that of the leases of all servers.
const ttl = 3 * time.Second
