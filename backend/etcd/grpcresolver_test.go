package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	theirs "go.etcd.io/etcd/client/v3/naming/resolver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/servertest"
)

// next calls Next, and fails the test if Next returns an error or does not return in
// time.
func next(t *testing.T, w naming.Watcher) []naming.Update {
	t.Helper()
	type result struct {
		updates []*naming.Update
		err     error
	}
	c := make(chan result, 1)
	go func() {
		u, err := w.Next()
		c <- result{u, err}
	}()
	select {
	case r := <-c:
		if r.err != nil {
			t.Fatalf("Next: %v", r.err)
		}
		if r.updates == nil {
			t.Fatal("Next returned a nil slice and no error")
		}
		var list []naming.Update
		for _, u := range r.updates {
			list = append(list, *u)
		}
		return list
	case <-time.After(servertest.Patience):
		w.Close()
		t.Fatal("Next did not return")
	}
	return nil
}

func want(t *testing.T, got []naming.Update, want ...naming.Update) {
	t.Helper()
	if !slices.EqualFunc(got, want, func(a, b naming.Update) bool { return reflect.DeepEqual(a, b) }) {
		t.Fatalf("Next returned\n%+v, want\n%+v", got, want)
	}
}

func resolve(t *testing.T, r naming.Resolver, target string) naming.Watcher {
	t.Helper()
	w, err := r.Resolve(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestOldPackage checks that GRPCResolver does what programs on the old package expect.
func TestOldPackage(t *testing.T) {
	each(t, func(t *testing.T, release etcdtest.Release) {
		cluster := etcdtest.Start(t, &etcdtest.Options{Release: release})
		client := cluster.Client(t)
		ctx := t.Context()
		r := etcd.GRPCResolver{client}
		add := func(addr string, metadata any) naming.Update {
			return naming.Update{Op: naming.Add, Addr: addr, Metadata: metadata}
		}
		del := func(addr string, metadata any) naming.Update {
			return naming.Update{Op: naming.Delete, Addr: addr, Metadata: metadata}
		}

		t.Run("key and value", func(t *testing.T) {
			must(t, r.Update(ctx, "kv", add("127.0.0.1:1", map[string]any{"a": 1})))
			resp, err := client.Get(ctx, "kv/127.0.0.1:1")
			must(t, err)
			if want := `{"Op":0,"Addr":"127.0.0.1:1","Metadata":{"a":1}}`; len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != want {
				t.Fatalf("the registry has %v, want %s", resp.Kvs, want)
			}
			must(t, r.Update(ctx, "kv", del("127.0.0.1:1", nil)))
			resp, err = client.Get(ctx, "kv/", clientv3.WithPrefix())
			must(t, err)
			if len(resp.Kvs) != 0 {
				t.Fatalf("after Delete the registry has %v", resp.Kvs)
			}
		})
		t.Run("full set first", func(t *testing.T) {
			w := resolve(t, &r, "first")
			want(t, next(t, w))
			must(t, r.Update(ctx, "first", add("a:1", "m")))
			want(t, next(t, w), add("a:1", "m"))
			must(t, r.Update(ctx, "first", add("b:1", nil)))
			want(t, next(t, w), add("b:1", nil))
			want(t, next(t, resolve(t, &r, "first")), add("a:1", "m"), add("b:1", nil))
		})
		t.Run("metadata on Delete", func(t *testing.T) {
			w := resolve(t, &r, "deleted")
			want(t, next(t, w))
			must(t, r.Update(ctx, "deleted", add("a:1", map[string]any{"zone": "z"})))
			want(t, next(t, w), add("a:1", map[string]any{"zone": "z"}))
			must(t, r.Update(ctx, "deleted", del("a:1", nil)))
			want(t, next(t, w), del("a:1", map[string]any{"zone": "z"}))
		})
		t.Run("one transaction", func(t *testing.T) {
			must(t, r.Update(ctx, "txn", add("a:1", 1.0)))
			must(t, r.Update(ctx, "txn", add("b:1", 2.0)))
			w := resolve(t, &r, "txn")
			want(t, next(t, w), add("a:1", 1.0), add("b:1", 2.0))
			_, err := client.Txn(ctx).Then(clientv3.OpDelete("txn/a:1"), clientv3.OpDelete("txn/b:1")).Commit()
			must(t, err)
			want(t, next(t, w), del("a:1", 1.0), del("b:1", 2.0))
		})
		t.Run("equal addresses", func(t *testing.T) {
			w := resolve(t, &r, "twice")
			want(t, next(t, w))
			_, err := client.Txn(ctx).Then(clientv3.OpPut("twice/x", `{"Addr":"a:1"}`), clientv3.OpPut("twice/deep/y", `{"Addr":"a:1"}`)).Commit()
			must(t, err)
			want(t, next(t, w), add("a:1", nil), add("a:1", nil))
			_, err = client.Delete(ctx, "twice/deep/y")
			must(t, err)
			want(t, next(t, w), del("a:1", nil))
		})
		t.Run("malformed", func(t *testing.T) {
			for i, v := range []string{"{not json", "null", "{}", "[]", "", `"x"`, strings.Repeat("x", 1<<20)} {
				_, err := client.Put(ctx, fmt.Sprint("bad/", i), v)
				must(t, err)
			}
			must(t, r.Update(ctx, "bad", add("a:1", nil)))
			w := resolve(t, &r, "bad")
			want(t, next(t, w), add("a:1", nil))
			_, err := client.Put(ctx, "bad/a:1", "null")
			must(t, err)
			want(t, next(t, w), del("a:1", nil))
		})
		t.Run("options", func(t *testing.T) {
			lease, err := client.Grant(ctx, 60)
			must(t, err)
			must(t, r.Update(ctx, "leased", add("a:1", nil), clientv3.WithLease(lease.ID)))
			w := resolve(t, &r, "leased")
			want(t, next(t, w), add("a:1", nil))
			_, err = client.Revoke(ctx, lease.ID)
			must(t, err)
			want(t, next(t, w), del("a:1", nil))
		})
		t.Run("errors", func(t *testing.T) {
			for _, nm := range []naming.Update{
				{Op: 7, Addr: "a:1"}, {Op: naming.Add}, {Op: naming.Delete}, {Op: naming.Add, Addr: "a:1", Metadata: func() {}},
			} {
				err := r.Update(ctx, "errors", nm)
				if status.Code(err) != codes.InvalidArgument || !errors.Is(err, naming.ErrInvalid) {
					t.Errorf("Update %v: %v", nm, err)
				}
			}
			if _, err := r.Resolve(""); status.Code(err) != codes.InvalidArgument {
				t.Errorf("Resolve of no target: %v", err)
			}
			if _, err := (&etcd.GRPCResolver{}).Resolve("x"); status.Code(err) != codes.InvalidArgument {
				t.Errorf("Resolve without a client: %v", err)
			}
		})
		t.Run("closed", func(t *testing.T) {
			w := resolve(t, &r, "closed")
			want(t, next(t, w))
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					_, err := w.Next()
					if !errors.Is(err, naming.ErrWatcherClosed) || status.Code(err) != codes.Unavailable {
						t.Errorf("Next of a closed watcher: %v", err)
					}
				})
			}
			w.Close()
			w.Close()
			wg.Wait()
		})
		t.Run("client closed", func(t *testing.T) {
			client, err := clientv3.New(cluster.Config())
			must(t, err)
			w := resolve(t, &etcd.GRPCResolver{Client: client}, "closed")
			want(t, next(t, w))
			client.Close()
			if _, err := w.Next(); !errors.Is(err, naming.ErrWatcherClosed) {
				t.Errorf("Next after the client was closed: %v", err)
			}
		})
		t.Run("one watch", func(t *testing.T) {
			before := cluster.Metric(t, "etcd_debugging_mvcc_watcher_total")
			var ws []naming.Watcher
			for range 50 {
				w := resolve(t, &etcd.GRPCResolver{Client: client}, "shared")
				ws = append(ws, w)
			}
			for _, w := range ws {
				want(t, next(t, w))
			}
			must(t, r.Update(ctx, "shared", add("a:1", nil)))
			for _, w := range ws {
				want(t, next(t, w), add("a:1", nil))
			}
			// The server may see the end of an earlier client's watch late. So the
			// bound is not exact.
			if got := cluster.Metric(t, "etcd_debugging_mvcc_watcher_total") - before; got > 1 {
				t.Errorf("50 watchers of one target have %v watches on the server", got)
			}
		})
	})
}

// serve runs a gRPC server and returns its address.
func serve(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	go s.Serve(lis)
	t.Cleanup(s.Stop)
	return lis.Addr().String()
}

// call makes calls until it has reached all addresses.
func call(t *testing.T, conn *grpc.ClientConn, addrs ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), servertest.Patience)
	defer cancel()
	reached := make(map[string]bool)
	for len(reached) < len(addrs) {
		var p peer.Peer
		_, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true), grpc.Peer(&p))
		if err != nil {
			t.Fatalf("reached %v, want %v: %v", reached, addrs, err)
		}
		if !slices.Contains(addrs, p.Addr.String()) {
			t.Fatalf("reached %v, want only %v", p.Addr, addrs)
		}
		reached[p.Addr.String()] = true
	}
}

// TestInterop checks that programs on etcd's present naming package and on this package
// find each other.
func TestInterop(t *testing.T) {
	each(t, func(t *testing.T, release etcdtest.Release) {
		cluster := etcdtest.Start(t, &etcdtest.Options{Release: release})
		client := cluster.Client(t)
		ctx := t.Context()
		creds := grpc.WithTransportCredentials(insecure.NewCredentials())
		r := &etcd.GRPCResolver{Client: client}
		store := etcd.New(client, nil)

		t.Run("theirs to ours", func(t *testing.T) {
			m, err := endpoints.NewManager(client, "theirs")
			must(t, err)
			w := resolve(t, r, "theirs")
			want(t, next(t, w))
			must(t, m.Update(ctx, []*endpoints.UpdateWithOpts{
				endpoints.NewAddUpdateOpts("theirs/1", endpoints.Endpoint{Addr: "a:1", Metadata: "m"}),
				endpoints.NewAddUpdateOpts("theirs/2", endpoints.Endpoint{Addr: "b:1"}),
			}))
			want(t, next(t, w), naming.Update{Addr: "a:1", Metadata: "m"}, naming.Update{Addr: "b:1"})
			for b, err := range store.Watch(ctx, "theirs") {
				must(t, err)
				slices.SortFunc(b.Put, func(a, b naming.Endpoint) int { return strings.Compare(a.ID, b.ID) })
				if len(b.Put) != 2 || !b.Put[0].Equal(naming.Endpoint{ID: "1", Addr: "a:1", Metadata: []byte(`"m"`)}) {
					t.Fatalf("the Store has %+v", b.Put)
				}
				break
			}
			must(t, m.Update(ctx, []*endpoints.UpdateWithOpts{
				endpoints.NewDeleteUpdateOpts("theirs/1"), endpoints.NewDeleteUpdateOpts("theirs/2"),
			}))
			want(t, next(t, w), naming.Update{Op: naming.Delete, Addr: "a:1", Metadata: "m"}, naming.Update{Op: naming.Delete, Addr: "b:1"})
		})
		t.Run("ours to theirs", func(t *testing.T) {
			m, err := endpoints.NewManager(client, "ours")
			must(t, err)
			ch, err := m.NewWatchChannel(ctx)
			must(t, err)
			must(t, store.Apply(ctx, "ours",
				naming.Change{Endpoint: naming.Endpoint{Addr: "a:1", Metadata: []byte(`{"k":"v"}`)}},
				naming.Change{Endpoint: naming.Endpoint{Addr: "unix:/run/a%b.sock"}}))
			got := <-ch
			if len(got) != 2 || got[0].Endpoint.Addr != "a:1" || !reflect.DeepEqual(got[0].Endpoint.Metadata, map[string]any{"k": "v"}) || got[1].Endpoint.Addr != "unix:/run/a%b.sock" {
				t.Fatalf("their watch has %+v", got)
			}
			must(t, r.Update(ctx, "ours", naming.Update{Op: naming.Add, Addr: "b:1"}))
			if got := <-ch; len(got) != 1 || got[0].Endpoint.Addr != "b:1" || got[0].Key != "ours/b:1" {
				t.Fatalf("their watch has %+v", got)
			}
			list, err := m.List(ctx)
			must(t, err)
			if len(list) != 3 {
				t.Fatalf("their list has %+v", list)
			}
		})
		t.Run("their client, our servers", func(t *testing.T) {
			a, b := serve(t), serve(t)
			must(t, store.Apply(ctx, "team/greeter", naming.Change{Endpoint: naming.Endpoint{Addr: a}}))
			must(t, r.Update(ctx, "team/greeter", naming.Update{Addr: b}))
			builder, err := theirs.NewBuilder(client)
			must(t, err)
			conn, err := grpc.NewClient("etcd:///team/greeter", grpc.WithResolvers(builder), creds,
				grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`))
			must(t, err)
			defer conn.Close()
			call(t, conn, a, b)
		})
		t.Run("our client, their servers", func(t *testing.T) {
			a, b, c := serve(t), serve(t), serve(t)
			m, err := endpoints.NewManager(client, "team/theirs")
			must(t, err)
			must(t, m.AddEndpoint(ctx, "team/theirs/"+a, endpoints.Endpoint{Addr: a}))
			must(t, m.AddEndpoint(ctx, "team/theirs/x/y", endpoints.Endpoint{Addr: b}))
			conn, err := grpc.NewClient("etcd:///team/theirs", grpc.WithResolvers(r), creds)
			must(t, err)
			defer conn.Close()
			call(t, conn, a, b)
			must(t, m.AddEndpoint(ctx, "team/theirs/"+c, endpoints.Endpoint{Addr: c}))
			call(t, conn, a, b, c)
		})
	})
}
