package churn

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"google.golang.org/grpc"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/bench/peer"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/resolver"
)

// client is ours, on any store.
type client struct {
	registry *naming.Registry
	builder  *resolver.Builder
}

func newClient(t *testing.T, store naming.Store) *client {
	r := naming.New(store, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(r.Close)
	return &client{r, resolver.NewBuilder(r, nil)}
}

func (c *client) Resolve(service string, update func(int, func(int) string)) (func(), error) {
	target, err := target(c.builder.Target(service))
	if err != nil {
		return nil, err
	}
	r, err := c.builder.Build(target, conn(update), grpcresolver.BuildOptions{})
	if err != nil {
		return nil, err
	}
	return r.Close, nil
}

func (c *client) Register(ctx context.Context, service string, e peer.Endpoint) (func(context.Context) error, error) {
	endpoint, err := ours(e)
	if err != nil {
		return nil, err
	}
	g, err := c.registry.Register(ctx, service, endpoint, &naming.RegisterOptions{Wait: true, Propagation: -1})
	if err != nil {
		return nil, err
	}
	return func(context.Context) error { return g.Close() }, nil
}

func (c *client) Dial(string) (string, []grpc.DialOption, error) {
	return "", nil, errors.ErrUnsupported
}
func (c *client) Close() {}

// conn is a ClientConn that tells of sets.
type conn func(int, func(int) string)

func (c conn) UpdateState(s grpcresolver.State) error {
	c(len(s.Endpoints), func(i int) string { return s.Endpoints[i].Addresses[0].Addr })
	return nil
}
func (conn) ReportError(error)                                    {}
func (conn) NewAddress([]grpcresolver.Address)                    {}
func (conn) ParseServiceConfig(string) *serviceconfig.ParseResult { return nil }

// storeRegistry makes changes through a Store.
type storeRegistry struct{ naming.Store }

func (r storeRegistry) Put(ctx context.Context, service string, e peer.Endpoint) error {
	endpoint, err := ours(e)
	if err != nil {
		return err
	}
	return r.Apply(ctx, service, naming.Change{Op: naming.Add, Endpoint: endpoint})
}

func (r storeRegistry) Delete(ctx context.Context, service string, e peer.Endpoint) error {
	return r.Apply(ctx, service, naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: e.ID}})
}

func ours(e peer.Endpoint) (naming.Endpoint, error) {
	metadata, err := json.Marshal(e.Metadata)
	return naming.Endpoint{ID: e.ID, Addr: e.Addr, Metadata: metadata}, err
}

// short is as much as tells a leak from none.
func short(t *testing.T) Options {
	return Options{Changes: 4000, Rate: -1, Consumers: 50, Services: 3, Endpoints: 20, Samples: 16, Logf: t.Logf}
}

func TestMemoryStore(t *testing.T) {
	store := new(memory.Store)
	res, err := Run(t.Context(), newClient(t, store), storeRegistry{store}, short(t))
	if err != nil {
		t.Fatal(err)
	}
	if !res.Flat || res.Changes != 4000 || len(res.Samples) != 16 {
		t.Errorf("%d changes, %d samples, not flat: %s", res.Changes, len(res.Samples), res.Why)
	}
	if n := res.Samples[15].Updates; n < 50 {
		t.Errorf("%d sets were given to the consumers", n)
	}
}

func TestEtcd(t *testing.T) {
	c := etcdtest.Start(t, nil)
	ec := c.Client(t)
	store := etcd.New(ec, nil)
	p := peer.Peer{Entry: func(service string, e peer.Endpoint) peer.Entry {
		value, err := json.Marshal(naming.Update{Addr: e.Addr, Metadata: e.Metadata})
		if err != nil {
			t.Error(err)
		}
		return peer.Entry{Key: service + "/" + e.ID, Value: string(value)}
	}}
	opts := short(t)
	opts.Changes = 1600
	res, err := Run(t.Context(), newClient(t, store), Etcd(ec, p), opts)
	if err != nil {
		t.Fatal(err)
	}
	if !res.Flat {
		t.Errorf("not flat: %s", res.Why)
	}
}

// leaky wraps ours and leaves something behind with every set, or with every
// consumer, or loses one.
type leaky struct {
	*client
	update   func() // called with every set
	consumer func() // called with every consumer
	lose     int    // the consumer, counted from 1, that gets one set only
	n        int
}

func (l *leaky) Resolve(service string, update func(int, func(int) string)) (func(), error) {
	l.n++
	n, sets := l.n, 0
	l.consumer()
	return l.client.Resolve(service, func(n1 int, addr func(int) string) {
		sets++
		l.update()
		if n != l.lose || sets == 1 {
			update(n1, addr)
		}
	})
}

func TestMutants(t *testing.T) {
	nothing := func() {}
	t.Run("a goroutine stays with each consumer", func(t *testing.T) {
		store := new(memory.Store)
		end := make(chan struct{})
		defer close(end)
		res, err := Run(t.Context(), &leaky{client: newClient(t, store), update: nothing, consumer: func() { go func() { <-end }() }}, storeRegistry{store}, short(t))
		if err != nil || res.Flat {
			t.Errorf("error %v, flat %v: %s", err, res.Flat, res.Why)
		}
	})
	t.Run("memory stays with each set", func(t *testing.T) {
		store := new(memory.Store)
		var kept [][]byte
		var c leaky
		var token = make(chan struct{}, 1) // updates of several consumers may come at once
		token <- struct{}{}
		c = leaky{client: newClient(t, store), consumer: nothing, update: func() {
			<-token
			kept = append(kept, make([]byte, 64<<10))
			token <- struct{}{}
		}}
		opts := short(t)
		opts.Consumers = 10
		res, err := Run(t.Context(), &c, storeRegistry{store}, opts)
		if err != nil || res.Flat {
			t.Errorf("error %v, flat %v, %d kept: %s", err, res.Flat, len(kept), res.Why)
		}
	})
	t.Run("a consumer is stuck", func(t *testing.T) {
		store := new(memory.Store)
		opts := short(t)
		opts.Settle = 1 // whatever it is: that set never comes
		opts.Consumers = 1
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_, err := Run(ctx, &leaky{client: newClient(t, store), update: nothing, consumer: nothing, lose: 1}, storeRegistry{store}, opts)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "endpoints and not the") {
			t.Errorf("error %v, want that a consumer has not the right set", err)
		}
	})
}

func target(s string) (grpcresolver.Target, error) {
	u, err := url.Parse(s)
	if err != nil {
		return grpcresolver.Target{}, err
	}
	return grpcresolver.Target{URL: *u}, nil
}
