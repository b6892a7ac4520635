package kitexnaming

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/client/genericclient"
	"github.com/cloudwego/kitex/pkg/generic"
	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/server"
	"github.com/cloudwego/kitex/server/genericserver"
)

func init() { klog.SetOutput(io.Discard) }

// idl is the service of the tests.
const idl = `
namespace go greeter

struct Request {}
struct Reply { 1: string addr }

service Greeter { Reply Where(1: Request req) }
`

func newGeneric() (generic.Generic, error) {
	p, err := generic.NewThriftContentWithAbsIncludePathProvider("greeter.thrift", map[string]string{"greeter.thrift": idl})
	if err != nil {
		return nil, err
	}
	return generic.JSONThriftGeneric(p)
}

// where is the handler of a server: it replies with the server's address.
type where struct{ addr string }

func (w *where) GenericCall(context.Context, string, any) (any, error) {
	return fmt.Sprintf(`{"addr":%q}`, w.addr), nil
}

// newServer returns a kitex server.
func newServer(r registry.Registry, service, addr string, opts ...server.Option) (server.Server, error) {
	listen, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, err
	}
	g, err := newGeneric()
	if err != nil {
		return nil, err
	}
	opts = append(opts,
		server.WithServiceAddr(listen),
		server.WithServerBasicInfo(&rpcinfo.EndpointBasicInfo{ServiceName: service}),
		server.WithRegistry(r))
	return genericserver.NewServer(&where{addr}, g, opts...), nil
}

// newClientOf returns a kitex client. call makes one call, and returns the address of the
// server that answered.
func newClientOf(service string, opts ...client.Option) (call func(context.Context) (string, error), hangUp func(), err error) {
	g, err := newGeneric()
	if err != nil {
		return nil, nil, err
	}
	c, err := genericclient.NewClient(service, g, opts...)
	if err != nil {
		return nil, nil, err
	}
	call = func(ctx context.Context) (string, error) {
		out, err := c.GenericCall(ctx, "Where", `{}`)
		if err != nil {
			return "", err
		}
		var reached struct {
			Addr string `json:"addr"`
		}
		text, _ := out.(string)
		err = json.Unmarshal([]byte(text), &reached)
		return reached.Addr, err
	}
	return call, func() { _ = c.Close() }, nil
}

// serve starts a kitex server in this process, and returns when it accepts. stop stops the
// server as its exit signal does, and returns when server.Run has returned.
func serve(tb testing.TB, r registry.Registry, service, addr string) (stop func()) {
	tb.Helper()
	exit := make(chan error, 1)
	s, err := newServer(r, service, addr, server.WithExitSignal(func() <-chan error { return exit }))
	if err != nil {
		tb.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run() }()
	accepts(tb, addr)
	return func() {
		exit <- nil
		if err := <-done; err != nil {
			tb.Errorf("the kitex server at %s: %v", addr, err)
		}
	}
}

// dial returns a kitex client in this process.
func dial(tb testing.TB, service string, opts ...client.Option) (call func(context.Context) (string, error), hangUp func()) {
	tb.Helper()
	call, hangUp, err := newClientOf(service, opts...)
	if err != nil {
		tb.Fatal(err)
	}
	return call, hangUp
}

// knock returns an error if nobody accepts connections at addr.
func knock(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	return conn.Close()
}
