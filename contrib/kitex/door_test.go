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

	"github.com/naming-go/naming/internal/servertest"
)

func init() { klog.SetOutput(io.Discard) }

// idl is the service of the tests.
const idl = `
namespace go greeter

struct Request {}
struct Reply { 1: string addr }

service Greeter { Reply Where(1: Request req) }
`

func newGeneric(tb testing.TB) generic.Generic {
	tb.Helper()
	p, err := generic.NewThriftContentProvider(idl, nil)
	if err != nil {
		tb.Fatal(err)
	}
	g, err := generic.JSONThriftGeneric(p)
	if err != nil {
		tb.Fatal(err)
	}
	return g
}

// where is the handler of a server: it replies with the server's address.
type where struct{ addr string }

func (w *where) GenericCall(context.Context, string, any) (any, error) {
	return fmt.Sprintf(`{"addr":%q}`, w.addr), nil
}

// serve starts a kitex server at addr, and returns when it accepts. stop stops it as its
// exit signal does, and returns when server.Run has returned.
func serve(tb testing.TB, r registry.Registry, service, addr string) (stop func()) {
	tb.Helper()
	listen, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	exit := make(chan error, 1)
	s := genericserver.NewServer(&where{addr}, newGeneric(tb),
		server.WithServiceAddr(listen),
		server.WithServerBasicInfo(&rpcinfo.EndpointBasicInfo{ServiceName: service}),
		server.WithRegistry(r),
		server.WithExitSignal(func() <-chan error { return exit }))
	done := make(chan error, 1)
	go func() { done <- s.Run() }()
	servertest.Poll(tb, "the kitex server accepts", func() error {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
	return func() {
		exit <- nil
		if err := <-done; err != nil {
			tb.Logf("the kitex server at %s: %v", addr, err)
		}
	}
}

// dial makes a kitex client. call makes one call, and returns the address of the server.
func dial(tb testing.TB, service string, opts ...client.Option) (call func(context.Context) (string, error), closeClient func()) {
	tb.Helper()
	c, err := genericclient.NewClient(service, newGeneric(tb), opts...)
	if err != nil {
		tb.Fatal(err)
	}
	call = func(ctx context.Context) (string, error) {
		reply, err := c.GenericCall(ctx, "Where", `{}`)
		if err != nil {
			return "", err
		}
		var reached struct {
			Addr string `json:"addr"`
		}
		text, _ := reply.(string)
		err = json.Unmarshal([]byte(text), &reached)
		return reached.Addr, err
	}
	return call, func() { _ = c.Close() }
}
