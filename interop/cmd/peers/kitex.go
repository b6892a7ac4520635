package main

import (
	"context"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	kitexetcd "github.com/kitex-contrib/registry-etcd"

	"github.com/naming-go/naming/interop/peer"
)

type kitex struct {
	endpoints []string
	resolver  discovery.Resolver
}

func openKitex(s peer.Servers) (peer.Client, error) {
	klog.SetOutput(io.Discard)
	if err := os.Setenv("KITEX_ETCD_REGISTRY_LEASE_TTL", "3"); err != nil {
		return nil, err
	}
	r, err := kitexetcd.NewEtcdResolver(s.Etcd)
	return &kitex{s.Etcd, r}, err
}

// Register makes a registry for each instance, because a registry keeps one instance.
func (k *kitex) Register(_ context.Context, service string, i peer.Instance) (func(context.Context) error, error) {
	r, err := kitexetcd.NewEtcdRegistry(k.endpoints)
	if err != nil {
		return nil, err
	}
	addr, err := net.ResolveTCPAddr("tcp", i.Addr)
	if err != nil {
		return nil, err
	}
	info := &registry.Info{ServiceName: service, Addr: addr, Weight: i.Weight, Tags: i.Metadata}
	if info.Weight == 0 {
		info.Weight = 10
	}
	if err := r.Register(info); err != nil {
		return nil, err
	}
	return func(context.Context) error { return r.Deregister(info) }, nil
}

// Watch asks again and again, as kitex's clients do, which have no watch. It asks more
// often than every five seconds.
func (k *kitex) Watch(service string, update func([]peer.Instance)) error {
	look := func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		target := k.resolver.Target(ctx, rpcinfo.NewEndpointInfo(service, "", nil, nil))
		result, err := k.resolver.Resolve(ctx, target)
		if err != nil && !strings.HasPrefix(err.Error(), "no instance remains") {
			return
		}
		var list []peer.Instance
		for _, in := range result.Instances {
			list = append(list, peer.Instance{Addr: in.Address().String(), Weight: in.Weight(), Metadata: tags(in)})
		}
		update(list)
	}
	look()
	go func() {
		for range time.Tick(100 * time.Millisecond) {
			look()
		}
	}()
	return nil
}

// tags returns the tags that the test uses. An instance does not list its tags.
func tags(in discovery.Instance) map[string]string {
	all := make(map[string]string)
	for _, name := range []string{"color", "draining"} {
		if v, ok := in.Tag(name); ok {
			all[name] = v
		}
	}
	return all
}

func (k *kitex) Dial(service string) (func(context.Context) (string, error), error) {
	return dial(service, k.Watch)
}
