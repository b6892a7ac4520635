package kitexnaming

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/registry"
	kitexetcd "github.com/kitex-contrib/registry-etcd"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/internal/doortest"
	"github.com/naming-go/naming/internal/mutant"
	"github.com/naming-go/naming/resolver"
)

const (
	theirName = "kitex 0.16.0, registry-etcd 0.2.6"
	ourName   = "kitex 0.16.0, contrib/kitex"
)

// registries make the registry and the resolver of a program: theirs as the README of
// kitex-contrib/registry-etcd shows, ours as the documentation of this package does.
var registries = map[string]struct {
	server func(etcd []string) (registry.Registry, error)
	client func(etcd []string) (discovery.Resolver, error)
}{
	theirName: {
		func(etcd []string) (registry.Registry, error) { return kitexetcd.NewEtcdRegistry(etcd) },
		func(etcd []string) (discovery.Resolver, error) { return kitexetcd.NewEtcdResolver(etcd) },
	},
	ourName: {
		func(etcd []string) (registry.Registry, error) {
			c, err := openEtcd(etcd, nil)
			return NewRegistry(c, nil), err
		},
		func(etcd []string) (discovery.Resolver, error) {
			c, err := openEtcd(etcd, nil)
			return NewResolver(c, &resolver.Options{Logger: quiet}), err
		},
	},
}

var quiet = slog.New(slog.DiscardHandler)

// openEtcd returns a Client on etcd, for a program that ends without Close.
func openEtcd(endpoints []string, opts *etcd.Options) (*naming.Client, error) {
	e, err := clientv3.New(clientv3.Config{Endpoints: endpoints})
	if err != nil {
		return nil, err
	}
	return naming.New(etcd.New(e, opts), &naming.Options{Logger: quiet}), nil
}

// door returns a Door whose servers and clients are processes of their own. In one process,
// a server that stops harms the others: netpoll 0.7 may close a file descriptor twice, and
// the second time the descriptor may be that of another connection.
func door(name string) doortest.Door {
	return doortest.Door{
		Name: name,
		Serve: func(tb testing.TB, etcd []string, service, addr string) func() {
			return program{Registry: name, Etcd: etcd, Service: service, Addr: addr}.serve(tb)
		},
		Dial: func(tb testing.TB, etcd []string, service string) (func(context.Context) (string, error), func()) {
			return program{Registry: name, Etcd: etcd, Service: service}.dial(tb)
		},
	}
}

// TestCompare plays restarts, an outage and a wipe. At full length the outage is longer than
// kitex-contrib/registry-etcd tries to register again.
func TestCompare(t *testing.T) {
	t.Setenv("KITEX_ETCD_REGISTRY_LEASE_TTL", "3") // the shortest that etcd grants
	var opts doortest.Options
	if mutant.Full() {
		opts.Outage = 2 * time.Minute
	}
	doortest.CompareOnEtcd(t, "kitex", door(theirName), door(ourName), opts)
}
