package gozero_test

import (
	"context"
	"testing"

	"github.com/zeromicro/go-zero/core/discov"
	"github.com/zeromicro/go-zero/zrpc"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/contrib/gozero"
	"github.com/naming-go/naming/internal/doortest"
)

// A zrpc fleet on go-zero's own registry beside one on this module.
func TestCompare(t *testing.T) {
	doortest.CompareOnEtcd(t, "go-zero", doortest.Door{
		Name:  "go-zero 1.10.3, its etcd registry",
		Serve: serveDoor("theirs"),
		Dial: func(tb testing.TB, hosts []string, service string) (func(context.Context) (string, error), func()) {
			client := dial(tb, zrpc.RpcClientConf{Etcd: discov.EtcdConf{Hosts: trimSchemes(hosts), Key: service}})
			return caller(client), func() { client.Conn().Close() }
		},
	}, doortest.Door{
		Name:  "go-zero 1.10.3, contrib/gozero",
		Serve: serveDoor("ours"),
		Dial: func(tb testing.TB, hosts []string, service string) (func(context.Context) (string, error), func()) {
			cl, err := clientv3.New(clientv3.Config{Endpoints: hosts})
			if err != nil {
				tb.Fatal(err)
			}
			c := quiet(tb, etcd.New(cl, &etcd.Options{Prefix: "/naming/"}))
			client := dial(tb, zrpc.RpcClientConf{Target: "naming:///" + service}, gozero.WithRegistry(c, nil))
			return caller(client), func() {
				client.Conn().Close()
				c.Close()
				cl.Close()
			}
		},
	}, doortest.Options{})
}

// serveDoor starts servers of a kind.
func serveDoor(kind string) func(testing.TB, []string, string, string) func() {
	return func(tb testing.TB, hosts []string, service, addr string) func() {
		return startServer(tb, kind, trimSchemes(hosts), service, addr)
	}
}
