package peers

import (
	"context"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"google.golang.org/grpc"

	"github.com/naming-go/naming/bench/peer"
)

// floorConsul makes one blocking query of Consul's client at a time for each service. It
// ignores every fault.
var floorConsul = peer.Peer{
	Name: "floor-consul", Backend: "consul", Module: "github.com/hashicorp/consul/api", Floor: true,
	Entry: plainService,
	Open: func(ctx context.Context, s peer.Servers) (peer.Client, error) {
		client, err := consulClient(s)
		c := &rawConsul{client: client, services: make(map[string]*fanOut)}
		c.ctx, c.cancel = context.WithCancel(context.Background())
		return c, err
	},
}

type rawConsul struct {
	client *api.Client
	ctx    context.Context
	cancel context.CancelFunc

	mu       sync.Mutex
	services map[string]*fanOut
}

func (c *rawConsul) Resolve(service string, update func(int, func(int) string)) (func(), error) {
	c.mu.Lock()
	f := c.services[service]
	if f == nil {
		f = new(fanOut)
		c.services[service] = f
		go c.watch(service, f)
	}
	c.mu.Unlock()
	return f.add(update), nil
}

func (c *rawConsul) watch(service string, f *fanOut) {
	for index := uint64(0); ; {
		entries, meta, err := c.client.Health().Service(service, "", true, (&api.QueryOptions{WaitIndex: index}).WithContext(c.ctx))
		if err != nil {
			return
		}
		if meta.LastIndex == index {
			continue
		}
		index = meta.LastIndex
		set := make([]string, len(entries))
		for i, e := range entries {
			set[i] = net.JoinHostPort(e.Service.Address, strconv.Itoa(e.Service.Port))
		}
		f.tell(set)
	}
}

func (c *rawConsul) Dial(service string) (string, []grpc.DialOption, error) {
	return dialWith(bridge{c.Resolve}, "bench:///"+service)
}

// Register also renews the check. A user of the client alone has to do the same.
func (c *rawConsul) Register(ctx context.Context, service string, e peer.Endpoint) (func(context.Context) error, error) {
	deregister, err := registerAgent(c.client, ctx, service, e, c.client.Agent().ServiceRegisterOpts)
	if err != nil {
		return nil, err
	}
	renewing, stop := context.WithCancel(c.ctx)
	go func() {
		t := time.NewTicker(ttl / 3)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				q := new(api.QueryOptions).WithContext(renewing)
				_ = c.client.Agent().UpdateTTLOpts("service:"+agentService(service, e).ID, "", api.HealthPassing, q)
			case <-renewing.Done():
				return
			}
		}
	}()
	return func(ctx context.Context) error {
		stop()
		return deregister(ctx)
	}, nil
}

// registerAgent registers with an agent, with a check that passes. The peers on Consul
// leave the renewal of the check to their users.
func registerAgent(client *api.Client, ctx context.Context, service string, e peer.Endpoint,
	register func(*api.AgentServiceRegistration, api.ServiceRegisterOpts) error,
) (func(context.Context) error, error) {
	s := agentService(service, e)
	s.Check = &api.AgentServiceCheck{TTL: ttl.String(), Status: api.HealthPassing}
	if err := register(s, api.ServiceRegisterOpts{}.WithContext(ctx)); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		return client.Agent().ServiceDeregisterOpts(s.ID, (&api.QueryOptions{}).WithContext(ctx))
	}, nil
}

func (c *rawConsul) Close() { c.cancel() }
