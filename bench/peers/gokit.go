package peers

import (
	"context"

	"github.com/go-kit/kit/sd"
	kitconsul "github.com/go-kit/kit/sd/consul"
	"github.com/go-kit/kit/sd/etcdv3"
	"github.com/go-kit/log"
	"github.com/hashicorp/consul/api"
	"google.golang.org/grpc"

	"github.com/naming-go/naming/bench/peer"
)

var goKitEtcd = peer.Peer{
	Name: "go-kit-etcd", Backend: "etcd", Module: "github.com/go-kit/kit",
	Entry: plainKV,
	Open: func(ctx context.Context, s peer.Servers) (peer.Client, error) {
		c, err := etcdv3.NewClient(context.Background(), s.Etcd, etcdv3.ClientOptions{})
		if err != nil {
			return nil, err
		}
		// A client of go-kit's registers one service.
		r, err := etcdv3.NewClient(context.Background(), s.Etcd, etcdv3.ClientOptions{})
		return goKitEtcdClient{c, r}, err
	},
}

type goKitEtcdClient struct{ watch, register etcdv3.Client }

func (c goKitEtcdClient) Resolve(service string, update func(int, func(int) string)) (func(), error) {
	i, err := etcdv3.NewInstancer(c.watch, service+"/", log.NewNopLogger())
	if err != nil {
		return nil, err
	}
	return readInstancer(i, update), nil
}

// readInstancer reads events as a user of go-kit does.
func readInstancer(i sd.Instancer, update func(int, func(int) string)) (stop func()) {
	events, done := make(chan sd.Event), make(chan struct{})
	go func() {
		for {
			select {
			case e := <-events:
				if e.Err == nil {
					update(len(e.Instances), func(i int) string { return e.Instances[i] })
				}
			case <-done:
				return
			}
		}
	}()
	i.Register(events)
	return func() {
		i.Stop()
		i.Deregister(events)
		close(done)
	}
}

func (c goKitEtcdClient) Dial(string) (string, []grpc.DialOption, error) { return "", nil, errNone }

func (c goKitEtcdClient) Register(ctx context.Context, service string, e peer.Endpoint) (func(context.Context) error, error) {
	s := etcdv3.Service{Key: service + "/" + e.ID, Value: e.Addr}
	if err := c.register.Register(s); err != nil {
		return nil, err
	}
	return func(context.Context) error { return c.register.Deregister(s) }, nil
}

func (c goKitEtcdClient) Close() {}

var goKitConsul = peer.Peer{
	Name: "go-kit-consul", Backend: "consul", Module: "github.com/go-kit/kit",
	Entry: plainService,
	Open: func(ctx context.Context, s peer.Servers) (peer.Client, error) {
		client, err := consulClient(s)
		return goKitConsulClient{client, kitconsul.NewClient(client)}, err
	},
}

type goKitConsulClient struct {
	api *api.Client
	kit kitconsul.Client
}

func (c goKitConsulClient) Resolve(service string, update func(int, func(int) string)) (func(), error) {
	return readInstancer(kitconsul.NewInstancer(c.kit, log.NewNopLogger(), service, nil, true), update), nil
}

func (c goKitConsulClient) Dial(string) (string, []grpc.DialOption, error) { return "", nil, errNone }

func (c goKitConsulClient) Register(ctx context.Context, service string, e peer.Endpoint) (func(context.Context) error, error) {
	return registerAgent(c.api, ctx, service, e, func(s *api.AgentServiceRegistration, _ api.ServiceRegisterOpts) error {
		return c.kit.Register(s)
	})
}

func (c goKitConsulClient) Close() {}
