package peers

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"sync"

	"google.golang.org/grpc"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/bench/peer"
	"github.com/naming-go/naming/resolver"
)

const module = "github.com/naming-go/naming"

var oursEtcd = peer.Peer{
	Name: "ours-etcd", Backend: "etcd", Module: module,
	Entry: updateKV,
	Open: func(ctx context.Context, s peer.Servers) (peer.Client, error) {
		client, err := etcdClient(s)
		if err != nil {
			return nil, err
		}
		return newOurs(etcd.New(client, nil), func() { client.Close() }), nil
	},
}

// oursEtcdFollow is this library with readers that do not use gRPC.
var oursEtcdFollow = peer.Peer{
	Name: "ours-etcd-follow", Backend: "etcd", Module: module,
	Entry: updateKV,
	Open: func(ctx context.Context, s peer.Servers) (peer.Client, error) {
		c, err := oursEtcd.Open(ctx, s)
		if err != nil {
			return nil, err
		}
		f := &following{ours: c.(*ours), wake: make(chan struct{}, 1), done: make(chan struct{})}
		go f.run()
		return f, nil
	},
}

var oursConsul = peer.Peer{
	Name: "ours-consul", Backend: "consul", Module: module,
	Entry: plainService,
	Open: func(ctx context.Context, s peer.Servers) (peer.Client, error) {
		client, err := consulClient(s)
		if err != nil {
			return nil, err
		}
		return newOurs(consul.New(client, nil), func() {}), nil
	},
}

// updateKV is the entry of etcd's client/v3/naming, which this library shares.
func updateKV(service string, e peer.Endpoint) peer.Entry {
	value, err := json.Marshal(struct {
		Op       int
		Addr     string
		Metadata map[string]string
	}{0, e.Addr, e.Metadata})
	if err != nil {
		panic(err) // strings are JSON
	}
	return peer.Entry{Key: service + "/" + e.ID, Value: string(value)}
}

type ours struct {
	client  *naming.Client
	builder *resolver.Builder
	close   func()
}

func newOurs(store naming.Store, close func()) *ours {
	c := naming.New(store, &naming.Options{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	return &ours{c, resolver.NewBuilder(c, nil), close}
}

func (c *ours) Resolve(service string, update func(int, func(int) string)) (func(), error) {
	return build(c.builder, c.builder.Target(service), update)
}

func (c *ours) Dial(service string) (string, []grpc.DialOption, error) {
	return dialWith(c.builder, c.builder.Target(service))
}

func (c *ours) Register(ctx context.Context, service string, e peer.Endpoint) (func(context.Context) error, error) {
	end := naming.Endpoint{ID: e.ID, Addr: e.Addr}
	if e.Metadata != nil {
		m, err := json.Marshal(e.Metadata)
		if err != nil {
			return nil, err
		}
		end.Metadata = m
	}
	g, err := c.client.Register(ctx, service, end, &naming.RegisterOptions{TTL: ttl, Wait: true, DrainDelay: -1})
	if err != nil {
		return nil, err
	}
	return func(context.Context) error { return g.Close() }, nil
}

func (c *ours) Close() {
	c.client.Close()
	c.close()
}

// following has one goroutine for all its consumers. The goroutine reads the consumers
// that have something to read.
type following struct {
	*ours
	wake chan struct{} // capacity 1: holds a token while woken is not empty
	done chan struct{}

	mu    sync.Mutex
	woken []*follower // guarded by mu
}

type follower struct {
	client  *following
	service string
	source  *naming.Follower
	update  func(int, func(int) string)
	n       int
	queued  bool // guarded by client.mu
}

func (c *following) Resolve(service string, update func(int, func(int) string)) (func(), error) {
	f := &follower{client: c, service: service, update: update}
	var err error
	if f.source, err = c.client.Follow(service, f.ring); err != nil {
		return nil, err
	}
	f.ring()
	return f.source.Close, nil
}

func (f *follower) ring() {
	c := f.client
	c.mu.Lock()
	if !f.queued {
		f.queued = true
		c.woken = append(c.woken, f)
	}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *following) run() {
	var list []*follower
	for {
		select {
		case <-c.wake:
		case <-c.done:
			return
		}
		c.mu.Lock()
		list, c.woken = c.woken, list[:0]
		for _, f := range list {
			f.queued = false
		}
		c.mu.Unlock()
		for _, f := range list {
			f.read()
		}
		clear(list)
	}
}

func (f *follower) read() {
	e, ok := f.source.Next()
	if !ok || !e.Status.Synced {
		return
	}
	// The bench deletes every endpoint before it puts the endpoint again. So the
	// consumer can count endpoints without a set.
	if e.Snapshot {
		f.n = 0
	}
	f.n += len(e.Put) - len(e.Deleted)
	var list []naming.Endpoint
	f.update(f.n, func(i int) string {
		if list == nil { // addresses are read only to verify a set, when nothing changes
			for v := range f.client.client.Watch(context.Background(), f.service) {
				list = v.Endpoints
				break
			}
		}
		if i >= len(list) {
			return ""
		}
		return list[i].Addr
	})
}

// Register is not supported: ours-etcd measures it. The end of a registration marks an
// endpoint as draining, which follower.read would count as one more endpoint.
func (c *following) Register(context.Context, string, peer.Endpoint) (func(context.Context) error, error) {
	return nil, errors.ErrUnsupported
}

func (c *following) Close() {
	close(c.done)
	c.ours.Close()
}
