package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/faultproxy"
	"github.com/naming-go/naming/internal/mutant"
	"github.com/naming-go/naming/internal/servertest"
)

// TestFieldR10Refused checks that every call fails within about a second when the
// connection is refused, with an error that says so. It runs without a server, and with a
// server that was killed.
func TestFieldR10Refused(t *testing.T) {
	servers := map[string]func(t *testing.T) (*clientv3.Client, naming.Lease, *etcd.Store){
		"none": func(t *testing.T) (*clientv3.Client, naming.Lease, *etcd.Store) {
			client, err := clientv3.New(clientv3.Config{Endpoints: []string{servertest.Addr(servertest.Ports(t, 1)[0])}})
			must(t, err)
			t.Cleanup(func() { client.Close() })
			return client, nil, etcd.New(client, nil)
		},
		"gone": func(t *testing.T) (*clientv3.Client, naming.Lease, *etcd.Store) {
			cluster := etcdtest.Start(t, nil)
			client := cluster.Client(t)
			s := etcd.New(client, nil)
			l, err := s.Grant(t.Context(), time.Minute)
			must(t, err)
			must(t, l.Renew(t.Context()))
			cluster.Kill(t)
			return client, l, s
		},
	}
	for name, start := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, l, s := start(t)
			calls := map[string]func(context.Context) error{
				"Watch": func(ctx context.Context) error {
					for _, err := range s.Watch(ctx, "svc") {
						return err
					}
					return nil
				},
				"Services": func(ctx context.Context) error {
					for _, err := range s.Services(ctx) {
						return err
					}
					return nil
				},
				"Apply":          func(ctx context.Context) error { return s.Apply(ctx, "svc", add("", "a:1")) },
				"Apply of a raw": func(ctx context.Context) error { return s.Apply(ctx, "svc", add("", "unix:/a")) },
				"Grant": func(ctx context.Context) error {
					_, err := s.Grant(ctx, time.Minute)
					return err
				},
			}
			if l != nil {
				calls["Renew"], calls["Revoke"] = l.Renew, l.Revoke
			}
			for name, call := range calls {
				ctx, cancel := context.WithTimeout(t.Context(), servertest.Patience)
				begun := time.Now()
				err := call(ctx)
				if ctx.Err() != nil {
					t.Errorf("%s failed only after its deadline: %v", name, err)
				} else if err == nil || !strings.Contains(err.Error(), "connection refused") && !strings.Contains(err.Error(), "connection reset") {
					// A connection that was open when the server was killed is reset.
					t.Errorf("%s: %v, want an error with %q", name, err, "connection refused")
				}
				cancel()
				t.Logf("%s failed after %v", name, time.Since(begun))
			}
		})
	}
}

// grpcProxy starts etcd's own proxy in front of a cluster, and returns a client of the
// proxy.
func grpcProxy(t *testing.T, cluster *etcdtest.Cluster) *clientv3.Client {
	t.Helper()
	var proxy string
	servertest.Start(t, func() []*servertest.Process {
		proxy = servertest.Addr(servertest.Ports(t, 1)[0])
		return []*servertest.Process{servertest.NewProcess(t, "proxy", servertest.Command{
			Path: servertest.Binary(t, "etcd"),
			Args: []string{"grpc-proxy", "start", "--endpoints", cluster.Members[0].Addr, "--listen-addr", proxy},
			Healthy: func() error {
				cfg := cluster.Config("http://" + proxy)
				cfg.DialTimeout = time.Second
				client, err := clientv3.New(cfg)
				if err != nil {
					return err
				}
				defer client.Close()
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				_, err = client.Get(ctx, "x")
				return err
			},
		})}
	})
	return cluster.Client(t, "http://"+proxy)
}

// TestFieldE1Proxy checks a Store behind etcd's own proxy. The proxy answers serializable
// reads from a cache that it does not update.
func TestFieldE1Proxy(t *testing.T) {
	cluster := etcdtest.Start(t, nil)
	admin := cluster.Client(t)
	put := func(addr string) {
		t.Helper()
		_, err := admin.Put(t.Context(), "svc/a", fmt.Sprintf(`{"Op":0,"Addr":%q,"Metadata":null}`, addr))
		must(t, err)
	}
	client := grpcProxy(t, cluster)
	s := etcd.New(client, &etcd.Options{SilenceBound: bound})
	other := etcd.New(client, &etcd.Options{SilenceBound: bound})
	put("a:1")
	// Reads of other programs fill the proxy's cache.
	_, err := client.Get(t.Context(), "svc/", clientv3.WithPrefix(), clientv3.WithLimit(10_000), clientv3.WithSerializable())
	must(t, err)
	same(t, "a list", list(t, s, "svc"), "+a=a:1")
	for i := 2; i < 5; i++ {
		put(fmt.Sprint("a:", i))
		want := fmt.Sprint("+a=a:", i)
		same(t, "a list through the proxy", list(t, s, "svc"), want)
		same(t, "a list of another Store", list(t, other, "svc"), want)
		same(t, "the services", strings.Join(services(t, s), " "), "svc")
	}
	// A watch begins even after a compaction.
	for i := 5; i < 8; i++ {
		put(fmt.Sprint("a:", i))
		put(fmt.Sprint("a:", i*10))
		cluster.Compact(t)
		ctx, cancel := context.WithTimeout(t.Context(), servertest.Patience)
		snapshot, changed := "", ""
		for b, err := range s.Watch(ctx, "svc") {
			must(t, err)
			if b.Snapshot {
				snapshot = text(b)
				put(fmt.Sprint("a:", i*100))
				continue
			}
			changed = text(b)
			break
		}
		cancel()
		same(t, "the snapshot", snapshot, fmt.Sprintf("snapshot +a=a:%d", i*10))
		same(t, "the change", changed, fmt.Sprintf("+a=a:%d", i*100))
	}
	// A lease is renewed through the proxy.
	l, err := s.Grant(t.Context(), 3*time.Second)
	must(t, err)
	for range 3 {
		must(t, l.Renew(t.Context()))
	}
	must(t, l.Revoke(t.Context()))
	if err := l.Renew(t.Context()); !errors.Is(err, naming.ErrLeaseLost) {
		t.Errorf("Renew after Revoke: %v", err)
	}
}

// TestFieldE4NestedOperations applies changes under several limits of operations in a
// transaction. etcd counts the operations of nested transactions too.
func TestFieldE4NestedOperations(t *testing.T) {
	for _, limit := range []int{128, 10, 2, 1} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			t.Parallel()
			cluster := etcdtest.Start(t, &etcdtest.Options{Args: []string{fmt.Sprint("--max-txn-ops=", limit)}})
			r := newRig(t, cluster, nil)
			l, err := r.Grant(t.Context(), time.Minute)
			must(t, err)
			n := 0
			for _, count := range []int{1, 2, 125, 126, 127, 128, 129, 300} {
				n++
				service := fmt.Sprint("svc", n)
				var adds, dels, raws []naming.Change
				for i := range count {
					a := add("", fmt.Sprintf("a:%d", i))
					a.Lease, a.IfFree = l, true
					adds = append(adds, a)
					d := del(fmt.Sprintf("a:%d", i))
					d.Lease = l
					dels = append(dels, d)
					raws = append(raws, add("", fmt.Sprintf("unix:/%d", i)))
				}
				must(t, r.Apply(t.Context(), service, adds...))
				same(t, "added", len(strings.Fields(list(t, r, service))), count)
				must(t, r.Apply(t.Context(), service, dels...))
				same(t, "left", list(t, r, service), "")
				if limit > 1 { // An address with a slash needs more than one operation.
					must(t, r.Apply(t.Context(), service, raws...))
					same(t, "added", len(strings.Fields(list(t, r, service))), count)
				}
			}
			// Changes with many conditions on one endpoint.
			var many []naming.Change
			for range 150 {
				l, err := r.Grant(t.Context(), time.Minute)
				must(t, err)
				a := add("", "a:1")
				a.Lease, a.IfFree = l, true
				d := del("a:1")
				d.Lease = l
				many = append(many, a, d)
			}
			a := add("", "a:1")
			a.Lease, a.IfFree = l, true
			must(t, r.Apply(t.Context(), "many", append(many, a)...))
			same(t, "at last", list(t, r, "many"), "+a:1=a:1")
		})
	}
}

// TestFieldE5Size checks that a change that is too large for a request has the error
// ErrInvalid, and that changes that are too large for one request are made in several.
func TestFieldE5Size(t *testing.T) {
	cluster := etcdtest.Start(t, nil)
	small := etcdtest.Start(t, &etcdtest.Options{Args: []string{"--max-request-bytes=20000"}})
	metadata := func(n int) []byte { return []byte(`"` + strings.Repeat("x", n-2) + `"`) }
	r := newRig(t, cluster, nil)
	l, err := r.Grant(t.Context(), time.Minute)
	must(t, err)
	for name, c := range map[string]naming.Change{
		"plain": {}, "under a lease": {Lease: l}, "if free": {Lease: l, IfFree: true},
	} {
		for _, size := range []int{400_000, 700_000, naming.MaxMetadata} {
			c.Endpoint = naming.Endpoint{Addr: fmt.Sprint("a:", size), Metadata: metadata(size)}
			if err := r.Apply(t.Context(), name, c); err != nil {
				t.Errorf("%s, metadata of %d bytes: %.300v", name, size, err)
			}
		}
		for _, size := range []int{naming.MaxMetadata + 1, 2 << 20, 3 << 20} {
			c.Endpoint = naming.Endpoint{Addr: "a:big", Metadata: metadata(size)}
			if err := r.Apply(t.Context(), name, c); !errors.Is(err, naming.ErrInvalid) {
				t.Errorf("%s, metadata of %d bytes: %.300v", name, size, err)
			}
		}
		// 20 changes are 6 MB, or 18 MB if the value is sent three times.
		var all []naming.Change
		for i := range 20 {
			c.Endpoint = naming.Endpoint{Addr: fmt.Sprint("b:", i), Metadata: metadata(300_000)}
			all = append(all, c)
		}
		if err := r.Apply(t.Context(), name, all...); err != nil {
			t.Errorf("%s, 20 changes: %.300v", name, err)
		}
		n := 0
		for b, err := range r.Watch(t.Context(), name) {
			must(t, err)
			n = len(b.Put)
			break
		}
		same(t, "endpoints", n, 23)
	}
	s := newRig(t, small, nil)
	var all []naming.Change
	for i := range 20 {
		all = append(all, naming.Change{Endpoint: naming.Endpoint{Addr: fmt.Sprint("b:", i), Metadata: metadata(9000)}})
	}
	must(t, s.Apply(t.Context(), "svc", all...))
	all[0].Endpoint.Metadata = metadata(30_000)
	if err := s.Apply(t.Context(), "svc", all[0]); !errors.Is(err, naming.ErrInvalid) {
		t.Errorf("a change that exceeds the server's limit: %.300v", err)
	}
}

// authenticated counts the authentications of a client.
func authenticated(n *atomic.Int64) grpc.DialOption {
	return grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if strings.HasSuffix(method, "/Authenticate") {
			n.Add(1)
		}
		return invoke(ctx, method, req, reply, cc, opts...)
	})
}

// TestFieldE3OneStream checks that all leases are renewed on one stream, that the stream
// costs one authentication, and that it ends with the last lease.
func TestFieldE3OneStream(t *testing.T) {
	each(t, func(t *testing.T, release etcdtest.Release) {
		cluster := etcdtest.Start(t, &etcdtest.Options{Release: release, TokenTTL: time.Minute})
		cluster.EnableAuth(t, etcdtest.User{Name: "app", Password: "secret", Prefix: "/rig/"})
		var logins atomic.Int64
		r := newRig(t, cluster, func(cfg *clientv3.Config) {
			cfg.Username, cfg.Password = "app", "secret"
			cfg.DialOptions = append(cfg.DialOptions, authenticated(&logins))
		})
		same(t, "a list", list(t, r, "svc"), "")
		before, goroutines := logins.Load(), runtime.NumGoroutine()
		var leases []naming.Lease
		for range 20 {
			l, err := r.Grant(t.Context(), time.Minute)
			must(t, err)
			leases = append(leases, l)
		}
		renew := func() {
			t.Helper()
			var wg sync.WaitGroup
			for _, l := range leases {
				wg.Go(func() {
					for range 20 {
						if err := l.Renew(t.Context()); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
		}
		renew()
		if n := logins.Load() - before; n != 1 {
			t.Errorf("%d authentications for 400 renewals", n)
		}
		// A change of the user's roles invalidates the token of the stream, and the link
		// breaks.
		cluster.Deny(t, "app")
		cluster.Allow(t, "app")
		renew()
		r.each((*faultproxy.Proxy).Reset)
		renew()
		cluster.RevokeLease(t, etcd.LeaseID(leases[0]))
		if err := leases[0].Renew(t.Context()); !errors.Is(err, naming.ErrLeaseLost) {
			t.Errorf("Renew of a revoked lease: %v", err)
		}
		for _, l := range leases {
			must(t, l.Revoke(t.Context()))
		}
		servertest.Poll(t, "goroutines", func() error {
			if n := runtime.NumGoroutine(); n > goroutines {
				return fmt.Errorf("there were %d, and are %d", goroutines, n)
			}
			return nil
		})
		// A lease that is no longer renewed keeps no goroutine either.
		l, err := r.Grant(t.Context(), time.Second)
		must(t, err)
		must(t, l.Renew(t.Context()))
		servertest.Poll(t, "goroutines", func() error {
			if n := runtime.NumGoroutine(); n > goroutines {
				return fmt.Errorf("there were %d, and are %d", goroutines, n)
			}
			return nil
		})
	})
}

// TestFieldE3ServerTime compares the server's time for a renewal with its time for a
// renewal on a raw stream. It runs in make full only, because it measures time.
func TestFieldE3ServerTime(t *testing.T) {
	cluster := etcdtest.Start(t, nil)
	cluster.EnableAuth(t, etcdtest.User{Name: "app", Password: "secret", Prefix: "/rig/"})
	r := newRig(t, cluster, func(cfg *clientv3.Config) { cfg.Username, cfg.Password = "app", "secret" })
	l, err := r.Grant(t.Context(), time.Minute)
	must(t, err)
	n := 200
	if mutant.Full() {
		n = 20_000
	}
	cpu := func(f func()) float64 {
		before := cluster.Metric(t, "process_cpu_seconds_total")
		f()
		return cluster.Metric(t, "process_cpu_seconds_total") - before
	}
	must(t, l.Renew(t.Context()))
	ours := cpu(func() {
		for range n {
			must(t, l.Renew(t.Context()))
		}
	})
	s, err := pb.NewLeaseClient(r.client.ActiveConnection()).LeaseKeepAlive(t.Context())
	must(t, err)
	raw := cpu(func() {
		for range n {
			must(t, s.Send(&pb.LeaseKeepAliveRequest{ID: int64(etcd.LeaseID(l))}))
			_, err := s.Recv()
			must(t, err)
		}
	})
	t.Logf("%d renewals: %.3f s of the server's time, %.3f s on a raw stream", n, ours, raw)
	if mutant.Full() && ours > 1.5*raw+0.2 {
		t.Errorf("renewals cost the server %.3f s, and %.3f s on a raw stream", ours, raw)
	}
	must(t, l.Revoke(t.Context()))
}

// TestFieldE2Learner checks that each of six clients gets a watch and a renewal although
// one of the two members is a learner. A learner serves no streams.
func TestFieldE2Learner(t *testing.T) {
	cluster := etcdtest.Start(t, nil)
	learner := cluster.AddLearner(t)
	for _, auth := range []bool{false, true} {
		if auth {
			cluster.EnableAuth(t)
		}
		for range 6 {
			cfg := cluster.Config(cluster.Members[0].Endpoint(), learner.Endpoint())
			client, err := clientv3.New(cfg)
			must(t, err)
			s := etcd.New(client, &etcd.Options{SilenceBound: bound})
			ctx, cancel := context.WithTimeout(t.Context(), servertest.Patience)
			i := 0
			for b, err := range s.Watch(ctx, "svc") {
				must(t, err)
				if b.Snapshot {
					// The watch shows the put only if it has begun. So the put is
					// repeated.
					must(t, s.Apply(ctx, "svc", add("x", fmt.Sprintf("a:%d", time.Now().UnixNano()))))
					continue
				}
				i++
				break
			}
			same(t, "changes", i, 1)
			l, err := s.Grant(ctx, time.Minute)
			must(t, err)
			must(t, l.Renew(ctx))
			must(t, l.Revoke(ctx))
			cancel()
			must(t, client.Close())
		}
	}
}

// TestFieldE6Rights checks that a user with few rights can do what the rights allow, and
// that every other error names the missing right.
func TestFieldE6Rights(t *testing.T) {
	each(t, func(t *testing.T, release etcdtest.Release) {
		cluster := etcdtest.Start(t, &etcdtest.Options{Release: release})
		cluster.EnableAuth(t)
		root := cluster.Client(t)
		user := func(name, key, end string, rights clientv3.PermissionType) *etcd.Store {
			t.Helper()
			_, err := root.RoleAdd(t.Context(), name)
			must(t, err)
			_, err = root.RoleGrantPermission(t.Context(), name, key, end, rights)
			must(t, err)
			_, err = root.UserAdd(t.Context(), name, "secret")
			must(t, err)
			_, err = root.UserGrantRole(t.Context(), name, name)
			must(t, err)
			cfg := cluster.Config()
			cfg.Username, cfg.Password = name, "secret"
			client, err := clientv3.New(cfg)
			must(t, err)
			t.Cleanup(func() { client.Close() })
			return etcd.New(client, &etcd.Options{SilenceBound: bound})
		}
		refused := func(what string, err error, says ...string) {
			t.Helper()
			if !errors.Is(err, naming.ErrPermission) {
				t.Errorf("%s: %v", what, err)
				return
			}
			for _, text := range says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%s: %v, want an error with %q", what, err, text)
				}
			}
		}
		watch := func(s *etcd.Store) error {
			for _, err := range s.Watch(t.Context(), "svc") {
				return err
			}
			return nil
		}
		writer := user("writer", "svc/", "svc0", clientv3.PermissionType(clientv3.PermWrite))
		owner := user("owner", "svc/a:1", "", clientv3.PermissionType(clientv3.PermReadWrite))
		reader := user("reader", "svc/", "svc0", clientv3.PermissionType(clientv3.PermRead))
		for _, s := range []*etcd.Store{writer, owner} {
			l, err := s.Grant(t.Context(), time.Minute)
			must(t, err)
			put, gentle, remove := add("", "a:1"), add("", "a:1"), del("a:1")
			put.Lease, gentle.Lease, remove.Lease, gentle.IfFree = l, l, l, true
			must(t, s.Apply(t.Context(), "svc", put))
			must(t, l.Renew(t.Context()))
			for _, c := range []naming.Change{gentle, remove} {
				if err := s.Apply(t.Context(), "svc", c); s == owner {
					must(t, err)
				} else {
					refused("a conditional change", err, "read and write", `"svc/a:1"`)
				}
			}
			refused("a watch", watch(s), "right to read", `"svc/"`)
			must(t, l.Revoke(t.Context()))
			must(t, s.Apply(t.Context(), "svc", del("a:1")))
		}
		refused("another's key", owner.Apply(t.Context(), "svc", add("", "b:1")), "right to write", `"svc/b:1"`)
		same(t, "a list", list(t, reader, "svc"), "")
		refused("a put", reader.Apply(t.Context(), "svc", add("", "b:1")), "right to write", `"svc/b:1"`)
		for _, err := range reader.Services(t.Context()) {
			refused("the services", err, "right to read")
			break
		}
	})
}
