package peers

import (
	"context"
	"maps"
	"slices"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/naming-go/naming/bench/peer"
)

// floorEtcd makes one Get and one Watch of etcd's client for each service. It ignores
// every fault.
var floorEtcd = peer.Peer{
	Name: "floor-etcd", Backend: "etcd", Module: "go.etcd.io/etcd/client/v3", Floor: true,
	Entry: plainKV,
	Open: func(ctx context.Context, s peer.Servers) (peer.Client, error) {
		client, err := etcdClient(s)
		return &rawEtcd{client: client, services: make(map[string]*fanOut)}, err
	},
}

type rawEtcd struct {
	client *clientv3.Client

	mu       sync.Mutex
	services map[string]*fanOut
}

func (c *rawEtcd) Resolve(service string, update func(int, func(int) string)) (func(), error) {
	c.mu.Lock()
	f := c.services[service]
	if f == nil {
		f = new(fanOut)
		c.services[service] = f
		go c.watch(service+"/", f)
	}
	c.mu.Unlock()
	return f.add(update), nil
}

func (c *rawEtcd) watch(prefix string, f *fanOut) {
	resp, err := c.client.Get(c.client.Ctx(), prefix, clientv3.WithPrefix())
	if err != nil {
		return
	}
	set := make(map[string]string, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		set[string(kv.Key)] = string(kv.Value)
	}
	f.tell(slices.AppendSeq(make([]string, 0, len(set)), maps.Values(set)))
	for r := range c.client.Watch(c.client.Ctx(), prefix, clientv3.WithPrefix(), clientv3.WithRev(resp.Header.Revision+1)) {
		for _, e := range r.Events {
			if e.Type == clientv3.EventTypePut {
				set[string(e.Kv.Key)] = string(e.Kv.Value)
			} else {
				delete(set, string(e.Kv.Key))
			}
		}
		f.tell(slices.AppendSeq(make([]string, 0, len(set)), maps.Values(set)))
	}
}

func (c *rawEtcd) Dial(service string) (string, []grpc.DialOption, error) {
	return dialWith(bridge{c.Resolve}, "bench:///"+service)
}

func (c *rawEtcd) Register(ctx context.Context, service string, e peer.Endpoint) (func(context.Context) error, error) {
	entry := plainKV(service, e)
	return leased(ctx, c.client, func(id clientv3.LeaseID) error {
		_, err := c.client.Put(ctx, entry.Key, entry.Value, clientv3.WithLease(id))
		return err
	})
}

// leased puts something under a lease that is kept alive.
func leased(ctx context.Context, client *clientv3.Client, put func(clientv3.LeaseID) error) (func(context.Context) error, error) {
	lease, err := client.Grant(ctx, int64(ttl.Seconds()))
	if err != nil {
		return nil, err
	}
	if err := put(lease.ID); err != nil {
		return nil, err
	}
	alive, cancel := context.WithCancel(client.Ctx())
	answers, err := client.KeepAlive(alive, lease.ID)
	if err != nil {
		cancel()
		return nil, err
	}
	go func() {
		for range answers {
		}
	}()
	return func(ctx context.Context) error {
		cancel()
		_, err := client.Revoke(ctx, lease.ID)
		return err
	}, nil
}

func (c *rawEtcd) Close() { c.client.Close() }
