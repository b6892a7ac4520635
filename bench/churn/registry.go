package churn

import (
	"context"

	"github.com/hashicorp/consul/api"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming/bench/peer"
)

// Etcd returns a Registry that writes the entries of the peer's own registrar.
func Etcd(client *clientv3.Client, p peer.Peer) Registry { return etcdRegistry{client, p} }

type etcdRegistry struct {
	client *clientv3.Client
	peer   peer.Peer
}

func (r etcdRegistry) Put(ctx context.Context, service string, e peer.Endpoint) error {
	entry := r.peer.Entry(service, e)
	_, err := r.client.Put(ctx, entry.Key, entry.Value)
	return err
}

func (r etcdRegistry) Delete(ctx context.Context, service string, e peer.Endpoint) error {
	_, err := r.client.Delete(ctx, r.peer.Entry(service, e).Key)
	return err
}

// Consul returns a Registry that registers the services of the peer's own registrar.
func Consul(client *api.Client, p peer.Peer) Registry { return consulRegistry{client.Agent(), p} }

type consulRegistry struct {
	agent *api.Agent
	peer  peer.Peer
}

func (r consulRegistry) Put(ctx context.Context, service string, e peer.Endpoint) error {
	return r.agent.ServiceRegisterOpts(r.peer.Entry(service, e).Service, api.ServiceRegisterOpts{}.WithContext(ctx))
}

func (r consulRegistry) Delete(ctx context.Context, service string, e peer.Endpoint) error {
	return r.agent.ServiceDeregisterOpts(r.peer.Entry(service, e).Service.ID, (&api.QueryOptions{}).WithContext(ctx))
}
