package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	kratosconsul "github.com/go-kratos/kratos/contrib/registry/consul/v2"
	kratosetcd "github.com/go-kratos/kratos/contrib/registry/etcd/v2"
	"github.com/go-kratos/kratos/v2/registry"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"

	"github.com/naming-go/naming/interop/peer"
)

// kratosRegistry is the interface of kratos's registries.
type kratosRegistry interface {
	registry.Registrar
	registry.Discovery
}

type kratos struct{ registry kratosRegistry }

func openKratosEtcd(s peer.Servers) (peer.Client, error) {
	client, err := etcdClient(s)
	if err != nil {
		return nil, err
	}
	return kratos{kratosetcd.New(client, kratosetcd.RegisterTTL(3*time.Second))}, nil
}

func openKratosConsul(s peer.Servers) (peer.Client, error) {
	client, err := consulClient(s)
	if err != nil {
		return nil, err
	}
	return kratos{kratosconsul.New(client, kratosconsul.WithHealthCheckInterval(1))}, nil
}

func (k kratos) Register(ctx context.Context, service string, i peer.Instance) (func(context.Context) error, error) {
	s := &registry.ServiceInstance{ID: i.ID, Name: service, Endpoints: []string{"grpc://" + i.Addr}, Metadata: make(map[string]string)}
	for name, v := range i.Metadata {
		s.Metadata[name] = v
	}
	if i.Weight > 0 {
		s.Metadata["weight"] = strconv.Itoa(i.Weight)
	}
	if err := k.registry.Register(ctx, s); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return k.registry.Deregister(ctx, s) }, nil
}

func (k kratos) Watch(service string, update func([]peer.Instance)) error {
	w, err := k.registry.Watch(context.Background(), service)
	if err != nil {
		return err
	}
	go func() {
		for {
			all, err := w.Next()
			if err != nil {
				return
			}
			var list []peer.Instance
			for _, s := range all {
				i := peer.Instance{ID: s.ID, Metadata: s.Metadata}
				i.Weight, _ = strconv.Atoi(s.Metadata["weight"])
				for _, e := range s.Endpoints {
					if addr, ok := strings.CutPrefix(e, "grpc://"); ok {
						i.Addr, _, _ = strings.Cut(addr, "?")
						list = append(list, i)
						break
					}
				}
			}
			update(list)
		}
	}()
	return nil
}

func (k kratos) Dial(service string) (func(context.Context) (string, error), error) {
	conn, err := kgrpc.DialInsecure(context.Background(), kgrpc.WithEndpoint("discovery:///"+service),
		kgrpc.WithDiscovery(k.registry), kgrpc.WithTimeout(5*time.Second))
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (string, error) { return check(ctx, conn) }, nil
}
