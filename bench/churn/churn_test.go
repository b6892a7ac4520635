package churn

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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
	client  *naming.Client
	builder *resolver.Builder
}

func newClient(t *testing.T, store naming.Store) *client {
	c := naming.New(store, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(c.Close)
	return &client{c, resolver.NewBuilder(c, nil)}
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
	g, err := c.client.Register(ctx, service, endpoint, &naming.RegisterOptions{Wait: true, DrainDelay: -1})
	if err != nil {
		return nil, err
	}
	return func(context.Context) error { return g.Close() }, nil
}

func (c *client) Dial(string) (string, []grpc.DialOption, error) {
	return "", nil, errors.ErrUnsupported
}
func (c *client) Close() {}

// conn is a ClientConn that passes on the sets it gets.
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

// short returns options for a short run. The run is long enough to distinguish a leak
// from noise.
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
		t.Errorf("the consumers got %d sets", n)
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

// mutant wraps ours, and does something wrong with every consumer or with every set. It
// passes a set on if the function set returns true.
type mutant struct {
	*client
	consumer func()
	set      func() bool
}

func (m mutant) Resolve(service string, update func(int, func(int) string)) (func(), error) {
	m.consumer()
	return m.client.Resolve(service, func(n int, addr func(int) string) {
		if m.set() {
			update(n, addr)
		}
	})
}

// deleting records calls of Delete.
type deleting struct {
	storeRegistry
	begun atomic.Bool
}

func (d *deleting) Delete(ctx context.Context, service string, e peer.Endpoint) error {
	d.begun.Store(true)
	return d.storeRegistry.Delete(ctx, service, e)
}

func TestMutants(t *testing.T) {
	t.Run("a goroutine stays with each consumer", func(t *testing.T) {
		store := new(memory.Store)
		end := make(chan struct{})
		defer close(end)
		m := mutant{newClient(t, store), func() { go func() { <-end }() }, func() bool { return true }}
		res, err := Run(t.Context(), m, storeRegistry{store}, short(t))
		if err != nil || res.Flat {
			t.Errorf("error %v, flat %v: %s", err, res.Flat, res.Why)
		}
	})
	t.Run("memory stays with each set", func(t *testing.T) {
		store := new(memory.Store)
		var mu sync.Mutex
		var kept [][]byte
		m := mutant{newClient(t, store), func() {}, func() bool {
			mu.Lock()
			defer mu.Unlock()
			kept = append(kept, make([]byte, 64<<10))
			return true
		}}
		res, err := Run(t.Context(), m, storeRegistry{store}, short(t))
		if err != nil || res.Flat {
			t.Errorf("error %v, flat %v, %d kept: %s", err, res.Flat, len(kept), res.Why)
		}
	})
	t.Run("consumers are stuck", func(t *testing.T) {
		store := new(memory.Store)
		reg := &deleting{storeRegistry: storeRegistry{store}}
		m := mutant{newClient(t, store), func() {}, func() bool { return !reg.begun.Load() }}
		opts := short(t)
		opts.Settle = time.Second // the right set never comes
		res, err := Run(t.Context(), m, reg, opts)
		if !errors.Is(err, context.DeadlineExceeded) || res.Changes == 0 {
			t.Errorf("error %v after %d changes, want that a consumer does not have the right set", err, res.Changes)
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
