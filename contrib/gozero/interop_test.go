package gozero_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/zeromicro/go-zero/core/discov"
	"github.com/zeromicro/go-zero/zrpc"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/etcd/etcdcodec"
	"github.com/naming-go/naming/contrib/gozero"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/servertest"
)

// With the codec of go-zero's entries, zrpc clients of both registries call zrpc servers of
// both.
func TestBesideGoZero(t *testing.T) {
	cluster := etcdtest.Start(t, nil)
	hosts := trimSchemes(cluster.Endpoints())
	c := quiet(t, etcd.New(cluster.Client(t), &etcd.Options{Codec: etcdcodec.GoZero()}))

	ports := servertest.Ports(t, 2)
	theirs, ours := servertest.Addr(ports[0]), servertest.Addr(ports[1])
	startServer(t, "theirs", hosts, "greeter.rpc", theirs)
	stop := startServer(t, "beside", hosts, "greeter.rpc", ours)

	for name, client := range map[string]zrpc.Client{
		"ours":   dial(t, zrpc.RpcClientConf{Target: "naming:///greeter.rpc"}, gozero.WithRegistry(c, nil)),
		"theirs": dial(t, zrpc.RpcClientConf{Etcd: discov.EtcdConf{Hosts: hosts, Key: "greeter.rpc"}}),
	} {
		call := caller(client)
		t.Run(name, func(t *testing.T) {
			awaitCall(t, call, theirs)
			awaitCall(t, call, ours)
		})
	}
	stop()
	awaitAddrs(t, c, "greeter.rpc", theirs)
}

// awaitAddrs waits until the registry has endpoints with exactly these addresses.
func awaitAddrs(tb testing.TB, c *naming.Client, service string, want ...string) {
	tb.Helper()
	servertest.Poll(tb, "the registry has "+strings.Join(want, ", "), func() error {
		v, err := c.List(tb.Context(), service)
		if err != nil {
			return err
		}
		var got []string
		for _, e := range v.Endpoints {
			got = append(got, e.Addr)
			if !e.NoDrainingMark {
				return fmt.Errorf("%s has a draining mark", e.Addr)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			return fmt.Errorf("it has %q", got)
		}
		return nil
	})
}

// A server that is started while etcd is down serves, and is registered when etcd is back.
// go-zero's own server process ends instead.
func TestStartWhileDown(t *testing.T) {
	cluster := etcdtest.Start(t, nil)
	hosts := trimSchemes(cluster.Endpoints())
	c := quiet(t, etcd.New(cluster.Client(t), &etcd.Options{Prefix: "/naming/"}))
	ports := servertest.Ports(t, 2)
	theirs, ours := servertest.Addr(ports[0]), servertest.Addr(ports[1])

	cluster.Kill(t)
	startServer(t, "ours", hosts, "greeter", ours)

	ctx, cancel := context.WithTimeout(t.Context(), servertest.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), childVar("theirs", hosts, "greeter.rpc", theirs))
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil || !bytes.Contains(out, []byte("panic:")) {
		t.Errorf("go-zero's server ended with %v, %v: %.2000s", ctx.Err(), err, out)
	}

	cluster.Restart(t)
	awaitCall(t, caller(dial(t, zrpc.RpcClientConf{Target: "naming:///greeter"}, gozero.WithRegistry(c, nil))), ours)
}
