package peers

import (
	"context"
	"sync"

	"github.com/zeromicro/go-zero/core/discov"
	"github.com/zeromicro/go-zero/core/logx"
	"google.golang.org/grpc"

	"github.com/naming-go/naming/bench/peer"
)

// goZero is made of the parts of go-zero's resolver, without the step that cuts a service
// down to 32 endpoints. The other peers resolve all endpoints.
var goZero = peer.Peer{
	Name: "go-zero", Backend: "etcd", Module: "github.com/zeromicro/go-zero",
	Entry: plainKV,
	Open: func(ctx context.Context, s peer.Servers) (peer.Client, error) {
		logx.Disable()
		return goZeroClient{s.Etcd}, nil
	},
}

type goZeroClient struct{ endpoints []string }

func (c goZeroClient) Resolve(service string, update func(int, func(int) string)) (func(), error) {
	sub, err := discov.NewSubscriber(c.endpoints, service)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex // the first update and that of a change may run at the same time
	tell := func() {
		mu.Lock()
		defer mu.Unlock()
		values := sub.Values()
		update(len(values), func(i int) string { return values[i] })
	}
	sub.AddListener(tell)
	tell()
	return sub.Close, nil
}

func (c goZeroClient) Dial(service string) (string, []grpc.DialOption, error) {
	return dialWith(bridge{c.Resolve}, "bench:///"+service)
}

func (c goZeroClient) Register(ctx context.Context, service string, e peer.Endpoint) (func(context.Context) error, error) {
	p := discov.NewPublisher(c.endpoints, service, e.Addr)
	if err := p.KeepAlive(); err != nil {
		return nil, err
	}
	return func(context.Context) error { p.Stop(); return nil }, nil
}

func (c goZeroClient) Close() {}
