package kitexnaming

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/utils"
	kitexetcd "github.com/kitex-contrib/registry-etcd"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/etcd/etcdcodec"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/servertest"
)

// instanceInfo is a server that has everything that kitex-contrib/registry-etcd keeps.
func instanceInfo(service string) *registry.Info {
	return &registry.Info{
		ServiceName: service,
		Addr:        utils.NewNetAddr("tcp", "10.0.0.7:8888"),
		Weight:      7,
		Tags:        map[string]string{"zone": "a", "text": `{"quoted": "日本"}`, "number": "1", "empty": ""},
	}
}

// arrives waits until a resolver returns the instance of instanceInfo, and nothing else.
func arrives(t *testing.T, r discovery.Resolver, service string) {
	t.Helper()
	servertest.Poll(t, "the instance arrives", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		result, err := r.Resolve(ctx, service)
		if err != nil {
			return err
		}
		if len(result.Instances) != 1 {
			return fmt.Errorf("%d instances", len(result.Instances))
		}
		want, in := instanceInfo(service), result.Instances[0]
		if in.Address().Network() != "tcp" || in.Address().String() != want.Addr.String() || in.Weight() != want.Weight {
			return fmt.Errorf("%s %s with weight %d", in.Address().Network(), in.Address(), in.Weight())
		}
		for name, value := range want.Tags {
			if got, ok := in.Tag(name); !ok || got != value {
				return fmt.Errorf("tag %s is %q, %v, want %q", name, got, ok, value)
			}
		}
		return nil
	})
}

// leaves waits until a resolver has no instance.
func leaves(t *testing.T, r discovery.Resolver, service string) {
	t.Helper()
	servertest.Poll(t, "the instance leaves", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		result, err := r.Resolve(ctx, service)
		if err == nil {
			return fmt.Errorf("%d instances", len(result.Instances))
		}
		return nil
	})
}

// TestRoundTrip takes a server through etcd, from each registry to each resolver that reads
// its format.
func TestRoundTrip(t *testing.T) {
	t.Setenv("KITEX_ETCD_REGISTRY_LEASE_TTL", "3")
	cluster := etcdtest.Start(t, nil)
	withOptions := func(opts *etcd.Options) *naming.Client {
		c, err := openEtcd(cluster.Endpoints(), opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	withKitex := withOptions(&etcd.Options{Codec: etcdcodec.Kitex(), NoDrainingMark: true})
	withDefault := withOptions(nil)
	fast := &RegistryOptions{Register: &naming.RegisterOptions{DrainDelay: 10 * time.Millisecond}}
	theirResolver, err := kitexetcd.NewEtcdResolver(cluster.Endpoints())
	if err != nil {
		t.Fatal(err)
	}
	theirRegistry, err := kitexetcd.NewEtcdRegistry(cluster.Endpoints())
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		registry  registry.Registry
		resolvers []discovery.Resolver
	}{
		"theirs":  {theirRegistry, []discovery.Resolver{theirResolver, NewResolver(withKitex, nil)}},
		"kitex":   {NewRegistry(withKitex, fast), []discovery.Resolver{theirResolver, NewResolver(withKitex, nil)}},
		"default": {NewRegistry(withDefault, fast), []discovery.Resolver{NewResolver(withDefault, nil)}},
	} {
		t.Run(name, func(t *testing.T) {
			service := "greeter-" + name
			if err := test.registry.Register(instanceInfo(service)); err != nil {
				t.Fatal(err)
			}
			for _, r := range test.resolvers {
				arrives(t, r, service)
			}
			if err := test.registry.Deregister(instanceInfo(service)); err != nil {
				t.Fatal(err)
			}
			for _, r := range test.resolvers {
				leaves(t, r, service)
			}
		})
	}
}
