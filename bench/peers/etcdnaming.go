package peers

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	etcdresolver "go.etcd.io/etcd/client/v3/naming/resolver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/resolver"

	"github.com/naming-go/naming/bench/peer"
)

// etcdNaming is the package naming of etcd's own client.
var etcdNaming = peer.Peer{
	Name: "etcd-naming", Backend: "etcd", Module: "go.etcd.io/etcd/client/v3",
	Entry: updateKV,
	Open: func(ctx context.Context, s peer.Servers) (peer.Client, error) {
		client, err := etcdClient(s)
		if err != nil {
			return nil, err
		}
		b, err := etcdresolver.NewBuilder(client)
		return &etcdNamingClient{client, b}, err
	},
}

type etcdNamingClient struct {
	client  *clientv3.Client
	builder resolver.Builder
}

func (c *etcdNamingClient) Resolve(service string, update func(int, func(int) string)) (func(), error) {
	return build(c.builder, "etcd:///"+service, update)
}

func (c *etcdNamingClient) Dial(service string) (string, []grpc.DialOption, error) {
	return dialWith(c.builder, "etcd:///"+service)
}

func (c *etcdNamingClient) Register(ctx context.Context, service string, e peer.Endpoint) (func(context.Context) error, error) {
	m, err := endpoints.NewManager(c.client, service)
	if err != nil {
		return nil, err
	}
	return leased(ctx, c.client, func(id clientv3.LeaseID) error {
		end := endpoints.Endpoint{Addr: e.Addr}
		if e.Metadata != nil {
			end.Metadata = e.Metadata
		}
		return m.AddEndpoint(ctx, service+"/"+e.ID, end, clientv3.WithLease(id))
	})
}

func (c *etcdNamingClient) Close() { c.client.Close() }
