package gomicro_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	grpcclient "github.com/go-micro/plugins/v4/client/grpc"
	etcdregistry "github.com/go-micro/plugins/v4/registry/etcd"
	grpcserver "github.com/go-micro/plugins/v4/server/grpc"
	"go-micro.dev/v4"
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
	"github.com/naming-go/naming/internal/servertest"
)

// The environment variable of a server process: its kind ("theirs" or "ours"), its service, its
// address, and the addresses of etcd.
const childEnv = "GOMICRO_TEST_SERVER"

// ttl is that of the leases of all servers.
const ttl = 3 * time.Second

// TestMain runs the tests, or a server if the environment says so. Connections to a server
// that stops in its own process must break, and go-micro leaves that to the end of the
// process.
func TestMain(m *testing.M) {
	if kind, args, ok := strings.Cut(os.Getenv(childEnv), " "); ok {
		args := strings.Fields(args)
		runServer(kind, args[0], args[1], args[2:])
		return
	}
	logger.DefaultLogger = logger.NewLogger(logger.WithOutput(io.Discard), logger.WithLevel(logger.FatalLevel))
	os.Exit(m.Run())
}

// A fleet of go-micro on its registry for etcd beside one on this module.
func TestCompare(t *testing.T) {
	doortest.CompareOnEtcd(t, "go-micro",
		door("theirs", "go-micro 4.11.0, its etcd registry"),
		door("ours", "go-micro 4.11.0, contrib/gomicro"), doortest.Options{})
}

// open returns a registry of a kind, with a client of its own.
func open(kind string, hosts []string) (r registry.Registry, closeRegistry func(), err error) {
	if kind == "theirs" {
		// Its client of etcd cannot be closed.
		return etcdregistry.NewRegistry(registry.Addrs(hosts...)), func() {}, nil
	}
	cl, err := clientv3.New(clientv3.Config{Endpoints: hosts})
	if err != nil {
		return nil, nil, err
	}
	c := naming.New(etcd.New(cl, &etcd.Options{Prefix: "/naming/"}), &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	return gomicro.New(c, nil), func() {
		c.Close()
		cl.Close()
	}, nil
}

// door returns go-micro's gRPC servers and clients on a registry of a kind.
func door(kind, name string) doortest.Door {
	return doortest.Door{
		Name: name,
		Serve: func(tb testing.TB, hosts []string, service, addr string) func() {
			return startServer(tb, kind, trimSchemes(hosts), service, addr)
		},
		Dial: func(tb testing.TB, hosts []string, service string) (func(context.Context) (string, error), func()) {
			r, closeRegistry, err := open(kind, trimSchemes(hosts))
			if err != nil {
				tb.Fatal(err)
			}
			call, hangUp := dial(r, service)
			return call, func() {
				hangUp()
				closeRegistry()
			}
		},
	}
}

// runServer is the main function of a server process.
func runServer(kind, service, addr string, hosts []string) {
	r, closeRegistry, err := open(kind, hosts)
	if err != nil {
		panic(err)
	}
	defer closeRegistry()
	s := micro.NewService(
		micro.Server(grpcserver.NewServer(server.Id(addr), server.Wait(nil))),
		micro.Broker(broker.NewMemoryBroker()),
		micro.Name(service), micro.Address(addr), micro.Version("v1"), micro.Registry(r),
		micro.RegisterTTL(ttl), micro.RegisterInterval(time.Second),
	)
	if err := micro.RegisterHandler(s.Server(), &Greeter{addr}); err != nil {
		panic(err)
	}
	if err := s.Run(); err != nil {
		panic(err)
	}
}

// startServer starts a server process and returns when its port is open. stop ends it as a
// supervisor does, with SIGTERM.
func startServer(tb testing.TB, kind string, hosts []string, service, addr string) (stop func()) {
	tb.Helper()
	p := servertest.NewProcess(tb, kind+"-"+addr[strings.LastIndexByte(addr, ':')+1:], servertest.Command{
		Path: os.Args[0],
		Env:  []string{childEnv + "=" + kind + " " + service + " " + addr + " " + strings.Join(hosts, " ")},
		Healthy: func() error {
			conn, err := net.DialTimeout("tcp", addr, time.Second)
			if err != nil {
				return err
			}
			return conn.Close()
		},
	})
	servertest.StartAll(tb, []*servertest.Process{p})
	return func() {
		if pid := p.Pid(); pid == 0 {
			tb.Error("the server has ended before it was stopped")
		} else if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			tb.Error(err)
		}
		servertest.Poll(tb, "the server stops", func() error {
			if p.Up() {
				return errors.New("the process runs")
			}
			return nil
		})
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

// dial returns go-micro's gRPC client with its own selector.
func dial(r registry.Registry, service string) (call func(context.Context) (string, error), hangUp func()) {
	s := selector.NewSelector(selector.Registry(r))
	c := grpcclient.NewClient(client.Registry(r), client.Selector(s), client.Retries(0))
	return func(ctx context.Context) (string, error) {
		var reply Reply
		req := c.NewRequest(service, "Greeter.Where", &Request{}, client.WithContentType("application/grpc+json"))
		err := c.Call(ctx, req, &reply)
		return reply.Addr, err
	}, func() { _ = s.Close() }
}
