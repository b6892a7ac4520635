// Command etcdnaming is a client of the package naming of etcd's client. The module pins
// 3.5.21 with gRPC 1.71, whose balancers compare the metadata of addresses. current.mod
// pins the present versions.
package main

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	etcdresolver "go.etcd.io/etcd/client/v3/naming/resolver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	grpcpeer "google.golang.org/grpc/peer"

	"github.com/naming-go/naming/interop/peer"
)

func main() {
	peer.Main(map[string]func(peer.Servers) (peer.Client, error){"etcd-naming": open})
}

func open(s peer.Servers) (peer.Client, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: s.Etcd, DialTimeout: 10 * time.Second})
	return &naming{client}, err
}

type naming struct{ client *clientv3.Client }

func (n *naming) Register(ctx context.Context, service string, i peer.Instance) (func(context.Context) error, error) {
	lease, err := n.client.Grant(ctx, 3)
	if err != nil {
		return nil, err
	}
	renewed, err := n.client.KeepAlive(context.Background(), lease.ID)
	if err != nil {
		return nil, err
	}
	go func() {
		for range renewed {
		}
	}()
	m, err := endpoints.NewManager(n.client, service)
	if err != nil {
		return nil, err
	}
	e := endpoints.Endpoint{Addr: i.Addr}
	if i.Metadata != nil {
		e.Metadata = i.Metadata
	}
	key := service + "/" + i.Addr
	if err := m.AddEndpoint(ctx, key, e, clientv3.WithLease(lease.ID)); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return m.DeleteEndpoint(ctx, key) }, nil
}

func (n *naming) Watch(service string, update func([]peer.Instance)) error {
	m, err := endpoints.NewManager(n.client, service)
	if err != nil {
		return err
	}
	news, err := m.NewWatchChannel(context.Background())
	if err != nil {
		return err
	}
	go func() {
		set := make(map[string]peer.Instance)
		for changes := range news {
			for _, u := range changes {
				if u.Op == endpoints.Delete {
					delete(set, u.Key)
				} else {
					set[u.Key] = peer.Instance{Addr: u.Endpoint.Addr, Metadata: peer.Texts(u.Endpoint.Metadata)}
				}
			}
			list := make([]peer.Instance, 0, len(set))
			for _, i := range set {
				list = append(list, i)
			}
			update(list)
		}
	}()
	return nil
}

func (n *naming) Dial(service string) (func(context.Context) (string, error), error) {
	b, err := etcdresolver.NewBuilder(n.client)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("etcd:///"+service, grpc.WithResolvers(b),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`))
	if err != nil {
		return nil, err
	}
	client := healthpb.NewHealthClient(conn)
	return func(ctx context.Context) (string, error) {
		var from grpcpeer.Peer
		if _, err := client.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Peer(&from)); err != nil {
			return "", err
		}
		return from.Addr.String(), nil
	}, nil
}
