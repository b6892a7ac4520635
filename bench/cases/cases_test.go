package cases

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/naming-go/naming/bench/actor"
	"github.com/naming-go/naming/bench/peer"
	"github.com/naming-go/naming/bench/peers"
	"github.com/naming-go/naming/internal/mutant"
)

func TestMain(m *testing.M) {
	actor.Main(map[string]actor.Role{RoleName: Role(append(peers.All(), naive, brittle))})
	os.Exit(m.Run())
}

// naive does the obvious, and recovers from no fault.
var naive = peer.Peer{
	Name: "naive", Backend: "etcd",
	Open: func(_ context.Context, s peer.Servers) (peer.Client, error) {
		c, err := clientv3.New(clientv3.Config{Endpoints: s.Etcd})
		return naiveClient{c}, err
	},
	Entry: func(service string, e peer.Endpoint) peer.Entry {
		value, err := json.Marshal(e.Addr)
		if err != nil {
			panic(err)
		}
		return peer.Entry{Key: service + "/" + e.ID, Value: string(value)}
	},
}

type naiveClient struct{ client *clientv3.Client }

func (c naiveClient) Resolve(service string, update func(int, func(int) string)) (func(), error) {
	ctx := context.Background()
	resp, err := c.client.Get(ctx, service, clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	set := make(map[string]string)
	put := func(key, value []byte) {
		var addr string
		if err := json.Unmarshal(value, &addr); err != nil {
			panic(err)
		}
		if addr != "" {
			set[string(key)] = addr
		}
	}
	tell := func() {
		var addrs []string
		for k, a := range set {
			if k[:len(service)+1] == service+"/" {
				addrs = append(addrs, a)
			}
		}
		update(len(addrs), func(i int) string { return addrs[i] })
	}
	for _, kv := range resp.Kvs {
		put(kv.Key, kv.Value)
	}
	tell()
	go func() {
		for resp := range c.client.Watch(ctx, service, clientv3.WithPrefix(), clientv3.WithRev(resp.Header.Revision+1)) {
			for _, e := range resp.Events {
				if e.Type == clientv3.EventTypeDelete {
					delete(set, string(e.Kv.Key))
				} else {
					put(e.Kv.Key, e.Kv.Value)
				}
			}
			tell()
		}
	}()
	return func() {}, nil
}

func (c naiveClient) Register(ctx context.Context, service string, e peer.Endpoint) (func(context.Context) error, error) {
	l, err := c.client.Grant(ctx, 60)
	if err != nil {
		return nil, err
	}
	entry := naive.Entry(service, e)
	_, err = c.client.Put(ctx, entry.Key, entry.Value, clientv3.WithLease(l.ID))
	return nil, err
}

func (naiveClient) Dial(string) (string, []grpc.DialOption, error) {
	return "", nil, errors.ErrUnsupported
}
func (naiveClient) Close() {}

// brittle works for as long as the registry works.
var brittle = peer.Peer{
	Name: "brittle", Backend: "etcd", Entry: naive.Entry,
	Open: func(_ context.Context, s peer.Servers) (peer.Client, error) {
		c, err := clientv3.New(clientv3.Config{Endpoints: s.Etcd})
		return brittleClient{naiveClient{c}}, err
	},
}

type brittleClient struct{ naiveClient }

// Resolve asks for the set again and again, until one request fails.
func (c brittleClient) Resolve(service string, update func(int, func(int) string)) (func(), error) {
	go func() {
		var last []string
		for {
			ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
			resp, err := c.client.Get(ctx, service+"/", clientv3.WithPrefix())
			cancel()
			if err != nil {
				return
			}
			var addrs []string
			for _, kv := range resp.Kvs {
				var addr string
				if json.Unmarshal(kv.Value, &addr) == nil {
					addrs = append(addrs, addr)
				}
			}
			if !slices.Equal(addrs, last) {
				update(len(addrs), func(i int) string { return addrs[i] })
				last = addrs
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	return func() {}, nil
}

// Register keeps its lease alive, and never grants another.
func (c brittleClient) Register(ctx context.Context, service string, e peer.Endpoint) (func(context.Context) error, error) {
	l, err := c.client.Grant(ctx, 15)
	if err != nil {
		return nil, err
	}
	alive, err := c.client.KeepAlive(context.Background(), l.ID)
	if err != nil {
		return nil, err
	}
	go func() {
		for range alive {
		}
	}()
	entry := brittle.Entry(service, e)
	_, err = c.client.Put(ctx, entry.Key, entry.Value, clientv3.WithLease(l.ID))
	return nil, err
}

// Dial returns a resolver that waits for the registry before it begins.
func (c brittleClient) Dial(service string) (string, []grpc.DialOption, error) {
	m := manual.NewBuilderWithScheme("brittle")
	m.BuildCallback = func(_ resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) {
		resp, err := c.client.Get(context.Background(), service+"/", clientv3.WithPrefix())
		if err != nil {
			return
		}
		var s resolver.State
		for _, kv := range resp.Kvs {
			var addr string
			if json.Unmarshal(kv.Value, &addr) == nil {
				s.Addresses = append(s.Addresses, resolver.Address{Addr: addr})
			}
		}
		_ = cc.UpdateState(s)
	}
	return "brittle:///" + service, []grpc.DialOption{grpc.WithResolvers(m)}, nil
}

var panics = regexp.MustCompile("panic: .*invalid character")

func run(t *testing.T, opts Options, names ...string) []Result {
	opts.Parallel, opts.Logf = 2, t.Logf
	all := append(peers.All(), naive, brittle)
	return Run(t.Context(), slices.DeleteFunc(all, func(p peer.Peer) bool { return !slices.Contains(names, p.Name) }), opts)
}

// TestOurs: this library passes every case.
func TestOurs(t *testing.T) {
	opts := Options{Only: []string{"a", "d", "e", "p"}, Stable: time.Second}
	names := []string{"ours-etcd"}
	if mutant.Full() {
		opts, names = Options{}, append(names, "ours-consul")
	}
	results := run(t, opts, names...)
	if len(results) < 4 {
		t.Errorf("%d results", len(results))
	}
	for _, r := range results {
		if r.Verdict != Passes {
			t.Errorf("%s (%s) %v: %s", r.Peer, r.Case, r, r.Details())
		}
	}
}

// TestNaive: the faults of a naive peer are found.
func TestNaive(t *testing.T) {
	want := map[string]string{
		"a": "fails (discovery)",
		"d": "fails (registration)",
		"e": "fails (discovery)",
		"p": "fails (discovery)",
	}
	if mutant.Full() {
		want["c"] = "fails (discovery, registration)"
		want["c2"] = want["c"]
	}
	for _, r := range fails(t, "naive", want) {
		if r.Case == "e" && !panics.MatchString(r.Discovery) {
			t.Errorf("(e) %s, want that it panicked", r.Discovery)
		}
	}
}

// TestBrittle does the same for the cases that naive passes thanks to etcd's client.
func TestBrittle(t *testing.T) {
	fails(t, "brittle", map[string]string{
		"b": "fails (discovery)",
		"f": "fails (discovery, registration)",
		"g": "fails (discovery)",
	})
}

// fails runs a peer, and compares its verdict in each case.
func fails(t *testing.T, name string, want map[string]string) []Result {
	opts := Options{Only: slices.Collect(maps.Keys(want)), Stable: time.Second, Bound: 10 * time.Second}
	results := run(t, opts, name)
	for _, r := range results {
		if got := r.String(); got != want[r.Case] {
			t.Errorf("(%s) %s, want %s: %s", r.Case, got, want[r.Case], r.Details())
		}
	}
	if len(results) != len(want) {
		t.Errorf("%d results, want %d", len(results), len(want))
	}
	return results
}
