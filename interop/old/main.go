// Command old is a client of etcd's former package clientv3/naming and of gRPC's former
// grpc.RoundRobin, as programs were before gRPC 1.30. The module pins gRPC 1.29.1.
// grpc126.mod pins 1.26.0, with which etcd 3.4 was released.
package main

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/clientv3"
	etcdnaming "go.etcd.io/etcd/clientv3/naming"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/naming"
	grpcpeer "google.golang.org/grpc/peer"

	"github.com/naming-go/naming/interop/peer"
)

func main() {
	peer.Main(map[string]func(peer.Servers) (peer.Client, error){"old": open})
}

func open(s peer.Servers) (peer.Client, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: s.Etcd, DialTimeout: 10 * time.Second})
	if err != nil {
		return nil, err
	}
	return &old{client, &etcdnaming.GRPCResolver{Client: client}}, nil
}

type old struct {
	client   *clientv3.Client
	resolver *etcdnaming.GRPCResolver
}

func (o *old) Register(ctx context.Context, service string, i peer.Instance) (func(context.Context) error, error) {
	lease, err := o.client.Grant(ctx, 3)
	if err != nil {
		return nil, err
	}
	renewed, err := o.client.KeepAlive(context.Background(), lease.ID)
	if err != nil {
		return nil, err
	}
	go func() {
		for range renewed {
		}
	}()
	u := naming.Update{Op: naming.Add, Addr: i.Addr}
	if i.Metadata != nil {
		u.Metadata = i.Metadata
	}
	if err := o.resolver.Update(ctx, service, u, clientv3.WithLease(lease.ID)); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		return o.resolver.Update(ctx, service, naming.Update{Op: naming.Delete, Addr: i.Addr})
	}, nil
}

func (o *old) Watch(service string, update func([]peer.Instance)) error {
	w, err := o.resolver.Resolve(service)
	if err != nil {
		return err
	}
	go func() {
		set := make(map[string]peer.Instance)
		for {
			news, err := w.Next()
			if err != nil {
				return
			}
			for _, u := range news {
				if u.Op == naming.Delete {
					delete(set, u.Addr)
				} else {
					set[u.Addr] = peer.Instance{Addr: u.Addr, Metadata: peer.Texts(u.Metadata)}
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

func (o *old) Dial(service string) (func(context.Context) (string, error), error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := grpc.DialContext(ctx, service, grpc.WithInsecure(), grpc.WithBlock(),
		grpc.WithBalancer(grpc.RoundRobin(o.resolver)))
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
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
