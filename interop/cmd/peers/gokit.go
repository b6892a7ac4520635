package main

import (
	"context"

	"github.com/go-kit/kit/sd"
	kitconsul "github.com/go-kit/kit/sd/consul"
	"github.com/go-kit/kit/sd/etcdv3"
	"github.com/go-kit/log"
	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming/interop/peer"
)

// follow reads events as a user of go-kit does.
func follow(i sd.Instancer, update func([]peer.Instance)) {
	events := make(chan sd.Event)
	go func() {
		for e := range events {
			if e.Err == nil {
				update(addresses(e.Instances))
			}
		}
	}()
	i.Register(events)
}

type goKitEtcd struct{ endpoints []string }

func openGoKitEtcd(s peer.Servers) (peer.Client, error) { return goKitEtcd{s.Etcd}, nil }

// Register makes a client for each instance, because a client registers one instance.
func (g goKitEtcd) Register(_ context.Context, service string, i peer.Instance) (func(context.Context) error, error) {
	c, err := etcdv3.NewClient(context.Background(), g.endpoints, etcdv3.ClientOptions{})
	if err != nil {
		return nil, err
	}
	s := etcdv3.Service{Key: "/services/" + service + "/" + i.ID, Value: i.Addr, TTL: etcdv3.NewTTLOption(500e6, 3e9)}
	if err := c.Register(s); err != nil {
		return nil, err
	}
	return func(context.Context) error { return c.Deregister(s) }, nil
}

func (g goKitEtcd) Watch(service string, update func([]peer.Instance)) error {
	c, err := etcdv3.NewClient(context.Background(), g.endpoints, etcdv3.ClientOptions{})
	if err != nil {
		return err
	}
	i, err := etcdv3.NewInstancer(c, "/services/"+service+"/", log.NewNopLogger())
	if err != nil {
		return err
	}
	follow(i, update)
	return nil
}

func (g goKitEtcd) Dial(service string) (func(context.Context) (string, error), error) {
	return dial(service, g.Watch)
}

type goKitConsul struct{ client kitconsul.Client }

func openGoKitConsul(s peer.Servers) (peer.Client, error) {
	client, err := consulClient(s)
	return goKitConsul{kitconsul.NewClient(client)}, err
}

func (g goKitConsul) Register(_ context.Context, service string, i peer.Instance) (func(context.Context) error, error) {
	host, port := hostPort(i.Addr)
	r := &api.AgentServiceRegistration{ID: i.ID, Name: service, Address: host, Port: port, Meta: i.Metadata}
	if i.Weight > 0 {
		r.Weights = &api.AgentWeights{Passing: i.Weight, Warning: 1}
	}
	if err := g.client.Register(r); err != nil {
		return nil, err
	}
	return func(context.Context) error { return g.client.Deregister(r) }, nil
}

func (g goKitConsul) Watch(service string, update func([]peer.Instance)) error {
	follow(kitconsul.NewInstancer(g.client, log.NewNopLogger(), service, nil, true), update)
	return nil
}

func (g goKitConsul) Dial(service string) (func(context.Context) (string, error), error) {
	return dial(service, g.Watch)
}
