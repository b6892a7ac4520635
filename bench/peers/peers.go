// Package peers has an adapter for each way to find and announce services that the bench
// compares. To add an adapter, write a file like etcdnaming.go, and add its peer to All.
//
// The registries of kratos are missing, because the module proxy does not serve them.
package peers

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	"github.com/naming-go/naming/bench/peer"
)

// ttl is the time to live of all registrations.
const ttl = 15 * time.Second

// All returns the peers, the floor of each backend first.
func All() []peer.Peer {
	return []peer.Peer{
		floorEtcd, oursEtcd, oursEtcdFollow, etcdNaming, goZero, goKitEtcd,
		floorConsul, oursConsul, goKitConsul, mbobakov,
	}
}

// Find returns the peer with a name.
func Find(name string) (peer.Peer, error) {
	for _, p := range All() {
		if p.Name == name {
			return p, nil
		}
	}
	return peer.Peer{}, fmt.Errorf("there is no peer %q", name)
}

func etcdClient(s peer.Servers) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: s.Etcd, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
}

func consulClient(s peer.Servers) (*api.Client, error) {
	return api.NewClient(&api.Config{Address: s.Consul})
}

// plainKV is the entry of peers that store an address under service/ID.
func plainKV(service string, e peer.Endpoint) peer.Entry {
	return peer.Entry{Key: service + "/" + e.ID, Value: e.Addr}
}

// plainService is the entry of peers that store only what Consul has fields for.
func plainService(service string, e peer.Endpoint) peer.Entry {
	return peer.Entry{Service: agentService(service, e)}
}

func agentService(service string, e peer.Endpoint) *api.AgentServiceRegistration {
	host, port, err := net.SplitHostPort(e.Addr)
	if err != nil {
		panic(err) // the bench makes the addresses
	}
	n, _ := strconv.Atoi(port)
	return &api.AgentServiceRegistration{ID: service + "-" + e.ID, Name: service, Address: host, Port: n}
}

// conn is the ClientConn of a consumer. An update costs only what the consumer does with
// it.
type conn func(n int, addr func(int) string)

func (c conn) UpdateState(s resolver.State) error {
	if len(s.Endpoints) > 0 {
		c(len(s.Endpoints), func(i int) string { return s.Endpoints[i].Addresses[0].Addr })
	} else {
		c(len(s.Addresses), func(i int) string { return s.Addresses[i].Addr })
	}
	return nil
}

func (conn) ReportError(error)                                    {}
func (conn) NewAddress([]resolver.Address)                        {}
func (conn) ParseServiceConfig(string) *serviceconfig.ParseResult { return nil }

// build adds a consumer with a gRPC resolver.
func build(b resolver.Builder, target string, update func(int, func(int) string)) (func(), error) {
	t, err := parse(target)
	if err != nil {
		return nil, err
	}
	r, err := b.Build(t, conn(update), resolver.BuildOptions{})
	if err != nil {
		return nil, err
	}
	return r.Close, nil
}

const roundRobin = `{"loadBalancingConfig":[{"round_robin":{}}]}`

// dialWith returns the results of Dial for a peer that has a gRPC resolver.
func dialWith(b resolver.Builder, target string) (string, []grpc.DialOption, error) {
	return target, []grpc.DialOption{grpc.WithResolvers(b), grpc.WithDefaultServiceConfig(roundRobin)}, nil
}

// bridge makes a gRPC resolver for a client that has none, as the client's documentation
// recommends.
type bridge struct {
	resolve func(service string, update func(int, func(int) string)) (func(), error)
}

func (bridge) Scheme() string { return "bench" }

func (b bridge) Build(t resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	stop, err := b.resolve(t.Endpoint(), func(n int, addr func(int) string) {
		addrs := make([]resolver.Address, n)
		for i := range addrs {
			addrs[i].Addr = addr(i)
		}
		_ = cc.UpdateState(resolver.State{Addresses: addrs})
	})
	if err != nil {
		return nil, err
	}
	return &bridged{stop}, nil
}

type bridged struct{ stop func() }

func (*bridged) ResolveNow(resolver.ResolveNowOptions) {}
func (b *bridged) Close()                              { b.stop() }

// fanOut delivers the newest set of a service to all consumers, one after the other. The
// zero value is ready to use.
type fanOut struct {
	mu        sync.Mutex
	consumers map[int]func(int, func(int) string)
	next      int
	set       []string
	known     bool
}

// add adds a consumer, and delivers the newest set to it.
func (f *fanOut) add(update func(int, func(int) string)) (remove func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.consumers == nil {
		f.consumers = make(map[int]func(int, func(int) string))
	}
	id := f.next
	f.next++
	f.consumers[id] = update
	if f.known {
		update(len(f.set), func(i int) string { return f.set[i] })
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.consumers, id)
	}
}

func (f *fanOut) tell(set []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.set, f.known = set, true
	addr := func(i int) string { return set[i] }
	for _, update := range f.consumers {
		update(len(set), addr)
	}
}

var errNone = fmt.Errorf("%w: it does not serve gRPC", errors.ErrUnsupported)
