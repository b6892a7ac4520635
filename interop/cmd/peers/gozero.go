package main

import (
	"context"

	"github.com/zeromicro/go-zero/core/discov"
	"github.com/zeromicro/go-zero/core/logx"

	"github.com/naming-go/naming/interop/peer"
)

// goZero is made of the parts of go-zero's resolver, without the step that cuts a service
// down to 32 endpoints.
type goZero struct{ endpoints []string }

func openGoZero(s peer.Servers) (peer.Client, error) {
	logx.Disable()
	return goZero{s.Etcd}, nil
}

func (g goZero) Register(_ context.Context, service string, i peer.Instance) (func(context.Context) error, error) {
	p := discov.NewPublisher(g.endpoints, service, i.Addr)
	if err := p.KeepAlive(); err != nil {
		return nil, err
	}
	return func(context.Context) error { p.Stop(); return nil }, nil
}

func (g goZero) Watch(service string, update func([]peer.Instance)) error {
	sub, err := discov.NewSubscriber(g.endpoints, service)
	if err != nil {
		return err
	}
	tell := func() { update(addresses(sub.Values())) }
	sub.AddListener(tell)
	tell()
	return nil
}

func (g goZero) Dial(service string) (func(context.Context) (string, error), error) {
	return dial(service, g.Watch)
}
