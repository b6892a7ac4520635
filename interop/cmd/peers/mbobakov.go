package main

import (
	"context"
	"net/url"

	_ "github.com/mbobakov/grpc-consul-resolver" // registers its scheme
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	"github.com/naming-go/naming/interop/peer"
)

type mbobakov struct{ addr string }

func openMbobakov(s peer.Servers) (peer.Client, error) { return mbobakov{s.Consul}, nil }

func (m mbobakov) target(service string) string {
	return "consul://" + m.addr + "/" + service + "?healthy=true"
}

func (m mbobakov) Register(context.Context, string, peer.Instance) (func(context.Context) error, error) {
	return nil, peer.ErrUnsupported
}

func (m mbobakov) Watch(service string, update func([]peer.Instance)) error {
	u, err := url.Parse(m.target(service))
	if err != nil {
		return err
	}
	_, err = resolver.Get("consul").Build(resolver.Target{URL: *u}, recorder{update}, resolver.BuildOptions{})
	return err
}

func (m mbobakov) Dial(service string) (func(context.Context) (string, error), error) {
	conn, err := grpc.NewClient(m.target(service), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`))
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (string, error) { return check(ctx, conn) }, nil
}

// recorder is the ClientConn of a resolver. It records the addresses.
type recorder struct{ update func([]peer.Instance) }

func (t recorder) UpdateState(s resolver.State) error {
	list := make([]peer.Instance, len(s.Addresses))
	for i, a := range s.Addresses {
		list[i].Addr = a.Addr
	}
	t.update(list)
	return nil
}

func (recorder) ReportError(error)                                    {}
func (recorder) NewAddress([]resolver.Address)                        {}
func (recorder) ParseServiceConfig(string) *serviceconfig.ParseResult { return nil }
