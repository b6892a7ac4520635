package etcd_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/faultproxy"
	"github.com/naming-go/naming/internal/mutant"
	"github.com/naming-go/naming/internal/servertest"
)

// releases are the etcd releases that each tests against.
var releases = []etcdtest.Release{etcdtest.Pinned, etcdtest.V34}

// TestMain runs six tests in parallel in make full, because most tests wait most of the time
// there.
func TestMain(m *testing.M) {
	flag.Parse()
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "test.parallel" })
	if mutant.Full() && !asked {
		if err := flag.Set("test.parallel", "6"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// each runs a test against every release.
func each(t *testing.T, f func(t *testing.T, r etcdtest.Release)) {
	for _, r := range releases {
		t.Run(string(r), func(t *testing.T) { f(t, r) })
	}
}

// rounds is how often a fault is repeated.
func rounds(short int) int {
	if mutant.Full() {
		return 50
	}
	return short
}

// bound is the SilenceBound of tests. A healthy etcd on a busy machine with a slow disk is
// never silent for so long.
const bound = 4 * time.Second

// rig is a Store on its own client. Proxies between the client and the servers inject
// faults.
type rig struct {
	*etcd.Store
	cluster *etcdtest.Cluster
	client  *clientv3.Client
	admin   *clientv3.Client // bypasses the proxies
	proxies []*faultproxy.Proxy
	prefix  string
	calls   atomic.Int64 // requests and streams

	mu       sync.Mutex
	reported []naming.MalformedError
}

var rigs atomic.Int64

// newRig returns a rig with its own key prefix. change, if not nil, changes the client's
// configuration.
func newRig(t *testing.T, c *etcdtest.Cluster, change func(*clientv3.Config)) *rig {
	t.Helper()
	r := &rig{cluster: c, admin: c.Client(t), prefix: fmt.Sprintf("/rig/%d/", rigs.Add(1))}
	var endpoints []string
	for _, m := range c.Members {
		p := faultproxy.New(t, m.Addr)
		r.proxies = append(r.proxies, p)
		endpoints = append(endpoints, p.Addr())
	}
	cfg := c.Config(endpoints...)
	// With a short backoff the client notices within a test's patience that a link has
	// healed.
	quick := backoff.DefaultConfig
	quick.BaseDelay, quick.MaxDelay = 20*time.Millisecond, 200*time.Millisecond
	cfg.DialOptions = append(cfg.DialOptions,
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: quick, MinConnectTimeout: time.Second}),
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			r.calls.Add(1)
			return invoke(ctx, method, req, reply, cc, opts...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			r.calls.Add(1)
			return open(ctx, desc, cc, method, opts...)
		}))
	if change != nil {
		change(&cfg)
	}
	client, err := clientv3.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	r.client = client
	r.Store = r.store(nil)
	return r
}

// store returns another Store on the rig's client and keys.
func (r *rig) store(codec *etcd.Codec) *etcd.Store { return r.newStore(codec, bound) }

// quiet returns another Store with the given SilenceBound.
func (r *rig) quiet(bound time.Duration) *etcd.Store { return r.newStore(nil, bound) }

func (r *rig) newStore(codec *etcd.Codec, bound time.Duration) *etcd.Store {
	return etcd.New(r.client, &etcd.Options{
		Prefix: r.prefix, Codec: codec, SilenceBound: bound,
		OnMalformed: func(m *naming.MalformedError) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.reported = append(r.reported, *m)
		},
	})
}

func (r *rig) each(f func(*faultproxy.Proxy)) {
	for _, p := range r.proxies {
		f(p)
	}
}

func (r *rig) heal() { r.each((*faultproxy.Proxy).Heal) }

// truth returns the endpoints that etcd has, by a linearizable read of the admin client.
func (r *rig) truth(t *testing.T) string {
	t.Helper()
	dir := r.prefix + "svc/"
	var set naming.Batch
	servertest.Poll(t, "etcd does not answer", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		resp, err := r.admin.Get(ctx, dir, clientv3.WithPrefix())
		if err != nil {
			return err
		}
		set = naming.Batch{}
		for _, kv := range resp.Kvs {
			var u naming.Update
			if json.Unmarshal(kv.Value, &u) == nil && u.Addr != "" {
				set.Put = append(set.Put, naming.Endpoint{ID: string(kv.Key[len(dir):]), Addr: u.Addr})
			}
		}
		return nil
	})
	return text(set)
}

// put writes a key below the Store's prefix, without the Store.
func (r *rig) put(t *testing.T, key, value string) {
	t.Helper()
	if _, err := r.admin.Put(t.Context(), r.prefix+key, value); err != nil {
		t.Fatal(err)
	}
}

// value reads a key below the Store's prefix, without the Store.
func (r *rig) value(t *testing.T, key string) string {
	t.Helper()
	resp, err := r.admin.Get(t.Context(), r.prefix+key)
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		return ""
	}
	return string(resp.Kvs[0].Value)
}

// etcdError reports whether err wraps an error of etcd's client.
func etcdError(err error) bool {
	var e rpctypes.EtcdError
	return errors.As(err, &e)
}
