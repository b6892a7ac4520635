package measure

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/etcd"
)

// rawTTL outlasts the registrations of one turn, because nothing renews the leases of the raw
// clients. What a process that is killed leaves behind ends then.
const rawTTL = registerTimeout + time.Minute

// Etcd returns etcd's own client, clientv3.
func Etcd(c *clientv3.Client, o etcd.Options) Raw {
	root := o.Prefix
	if o.Codec != nil {
		root += o.Codec.Root
	}
	return &rawEtcd{client: c, root: root}
}

type rawEtcd struct {
	client *clientv3.Client
	root   string
	lease  clientv3.LeaseID
}

func (r *rawEtcd) Register(ctx context.Context, service string, n, concurrency int) error {
	lease, err := r.client.Grant(ctx, int64(rawTTL/time.Second))
	if err != nil {
		return err
	}
	r.lease = lease.ID
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(concurrency)
	for i := range n {
		g.Go(func() error {
			a := addr(i)
			_, err := r.client.Put(ctx, r.root+service+"/"+a, fmt.Sprintf(`{"Op":0,"Addr":%q,"Metadata":null}`, a), clientv3.WithLease(lease.ID))
			return err
		})
	}
	return g.Wait()
}

func (r *rawEtcd) Remove(ctx context.Context) error {
	if r.lease == clientv3.NoLease {
		return nil
	}
	_, err := r.client.Revoke(ctx, r.lease)
	r.lease = clientv3.NoLease
	return err
}

func (r *rawEtcd) Watch(ctx context.Context, service string, seen func(string)) error {
	for resp := range r.client.Watch(ctx, r.root+service+"/", clientv3.WithPrefix(), clientv3.WithRev(1)) {
		if err := resp.Err(); err != nil {
			return err
		}
		for _, ev := range resp.Events {
			var entry struct{ Addr string }
			if ev.Type == clientv3.EventTypePut && json.Unmarshal(ev.Kv.Value, &entry) == nil {
				seen(entry.Addr)
			}
		}
	}
	return ctx.Err()
}

// Consul returns Consul's own client.
func Consul(c *api.Client, o consul.Options) Raw { return &rawConsul{client: c, opts: o} }

type rawConsul struct {
	client *api.Client
	opts   consul.Options

	mu  sync.Mutex
	ids []string // guarded by mu
}

func (r *rawConsul) query(ctx context.Context) (*api.QueryOptions, error) {
	q := &api.QueryOptions{Namespace: r.opts.Namespace, Partition: r.opts.Partition, RequireConsistent: true}
	if r.opts.Token != nil {
		var err error
		if q.Token, err = r.opts.Token(ctx); err != nil {
			return nil, err
		}
	}
	return q.WithContext(ctx), nil
}

func (r *rawConsul) Register(ctx context.Context, service string, n, concurrency int) error {
	q, err := r.query(ctx)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(concurrency)
	for i := range n {
		g.Go(func() error {
			host, port, _ := net.SplitHostPort(addr(i))
			number, err := strconv.Atoi(port)
			if err != nil {
				return err
			}
			id := service + "-" + strconv.Itoa(i)
			r.note(id)
			s := &api.AgentServiceRegistration{
				ID: id, Name: r.opts.Prefix + service, Address: host, Port: number,
				Check: &api.AgentServiceCheck{
					TTL: rawTTL.String(), Status: api.HealthPassing, DeregisterCriticalServiceAfter: time.Minute.String(),
				},
			}
			return r.client.Agent().ServiceRegisterOpts(s, api.ServiceRegisterOpts{Token: q.Token}.WithContext(ctx))
		})
	}
	return g.Wait()
}

func (r *rawConsul) note(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ids = append(r.ids, id)
}

// take returns the IDs that were registered, and forgets them.
func (r *rawConsul) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := r.ids
	r.ids = nil
	return ids
}

func (r *rawConsul) Remove(ctx context.Context) error {
	q, err := r.query(ctx)
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(16)
	for _, id := range r.take() {
		g.Go(func() error {
			err := r.client.Agent().ServiceDeregisterOpts(id, q)
			if err != nil && strings.Contains(err.Error(), "Unknown service ID") {
				return nil // the registration had failed
			}
			return err
		})
	}
	return g.Wait()
}

func (r *rawConsul) Watch(ctx context.Context, service string, seen func(string)) error {
	for index := uint64(0); ; {
		q, err := r.query(ctx)
		if err != nil {
			return err
		}
		q.WaitIndex, q.WaitTime = index, time.Minute
		entries, meta, err := r.client.Health().Service(r.opts.Prefix+service, "", true, q)
		if err != nil {
			return err
		}
		for _, e := range entries {
			seen(net.JoinHostPort(e.Service.Address, strconv.Itoa(e.Service.Port)))
		}
		index = meta.LastIndex
	}
}
