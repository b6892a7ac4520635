// Command peers is a client of the libraries that work with the present versions of gRPC
// and etcd's client. Package peer describes its requests.
package main

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	grpcpeer "google.golang.org/grpc/peer"

	"github.com/naming-go/naming/interop/peer"
)

func main() {
	peer.Main(map[string]func(peer.Servers) (peer.Client, error){
		"go-zero":       openGoZero,
		"kratos-etcd":   openKratosEtcd,
		"kratos-consul": openKratosConsul,
		"kitex-etcd":    openKitex,
		"go-kit-etcd":   openGoKitEtcd,
		"go-kit-consul": openGoKitConsul,
		"mbobakov":      openMbobakov,
	})
}

func etcdClient(s peer.Servers) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: s.Etcd, DialTimeout: 10 * time.Second})
}

func consulClient(s peer.Servers) (*api.Client, error) {
	return api.NewClient(&api.Config{Address: s.Consul})
}

// check makes a call on conn and returns the address of the server.
func check(ctx context.Context, conn grpc.ClientConnInterface) (string, error) {
	var from grpcpeer.Peer
	if _, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Peer(&from)); err != nil {
		return "", err
	}
	return from.Addr.String(), nil
}

// pool balances calls over the addresses of a library without a resolver for gRPC, in
// turn. The library's documentation leaves balancing to its users.
type pool struct {
	mu    sync.Mutex
	addrs []string
	next  int
	conns map[string]*grpc.ClientConn
}

func (p *pool) set(instances []peer.Instance) {
	addrs := make([]string, len(instances))
	for i, in := range instances {
		addrs[i] = in.Addr
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addrs = addrs
}

func (p *pool) pick() (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.addrs) == 0 {
		return nil, errors.New("no addresses")
	}
	p.next++
	addr := p.addrs[p.next%len(p.addrs)]
	if c := p.conns[addr]; c != nil {
		return c, nil
	}
	c, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	if p.conns == nil {
		p.conns = make(map[string]*grpc.ClientConn)
	}
	p.conns[addr] = c
	return c, nil
}

// dial returns the call function of a pool that watch keeps up to date.
func dial(service string, watch func(string, func([]peer.Instance)) error) (func(context.Context) (string, error), error) {
	p := new(pool)
	if err := watch(service, p.set); err != nil {
		return nil, err
	}
	return func(ctx context.Context) (string, error) {
		c, err := p.pick()
		if err != nil {
			return "", err
		}
		return check(ctx, c)
	}, nil
}

func addresses(addrs []string) []peer.Instance {
	list := make([]peer.Instance, len(addrs))
	for i, a := range addrs {
		list[i] = peer.Instance{Addr: a}
	}
	return list
}

// hostPort splits an address of the test, which is valid.
func hostPort(addr string) (string, int) {
	host, port, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(port)
	return host, n
}
