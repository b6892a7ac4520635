package peers

import (
	"context"
	"errors"
	"net/url"

	_ "github.com/mbobakov/grpc-consul-resolver" // registers its scheme
	"google.golang.org/grpc"
	"google.golang.org/grpc/resolver"

	"github.com/naming-go/naming/bench/peer"
)

var mbobakov = peer.Peer{
	Name: "mbobakov", Backend: "consul", Module: "github.com/mbobakov/grpc-consul-resolver",
	Entry: plainService,
	Open: func(ctx context.Context, s peer.Servers) (peer.Client, error) {
		return mbobakovClient{s.Consul}, nil
	},
}

type mbobakovClient struct{ addr string }

func (c mbobakovClient) target(service string) string {
	return "consul://" + c.addr + "/" + service + "?healthy=true"
}

func (c mbobakovClient) Resolve(service string, update func(int, func(int) string)) (func(), error) {
	return build(resolver.Get("consul"), c.target(service), update)
}

func (c mbobakovClient) Dial(service string) (string, []grpc.DialOption, error) {
	return dialWith(resolver.Get("consul"), c.target(service))
}

func (c mbobakovClient) Register(context.Context, string, peer.Endpoint) (func(context.Context) error, error) {
	return nil, errors.ErrUnsupported
}

func (c mbobakovClient) Close() {}

func parse(target string) (resolver.Target, error) {
	u, err := url.Parse(target)
	if err != nil {
		return resolver.Target{}, err
	}
	return resolver.Target{URL: *u}, nil
}
