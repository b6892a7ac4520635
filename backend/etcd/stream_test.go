package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/servertest"
)

// watchers waits until etcd has n watches.
func watchers(t *testing.T, c *etcdtest.Cluster, n float64) {
	t.Helper()
	servertest.Poll(t, "etcd's watches", func() error {
		if got := c.Metric(t, "etcd_debugging_mvcc_watcher_total"); got != n {
			return fmt.Errorf("etcd has %v watches, want %v", got, n)
		}
		return nil
	})
}

// TestManyWatches checks that 2,000 watches share one stream, and that one probe serves all
// of them.
func TestManyWatches(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, nil)
	r := newRig(t, cluster, nil)
	var cs []<-chan naming.Batch
	const n = 2000
	for len(cs) < n {
		const some = 100 // All at once would time out on a busy machine.
		for range some {
			cs = append(cs, follow(t, r, fmt.Sprint("svc", len(cs))))
		}
		for _, c := range cs[len(cs)-some:] {
			same(t, "a watch", batch(t, c), "snapshot ")
		}
	}
	watchers(t, cluster, n)
	if calls := r.calls.Load(); calls != n+1 {
		t.Errorf("%d requests and streams for %d watches", calls, n)
	}
	up := r.proxies[0].Stats().Up
	quiet := time.NewTimer(3 * bound)
	defer quiet.Stop()
	<-quiet.C
	if up = r.proxies[0].Stats().Up - up; up > 20_000 {
		t.Errorf("%d idle watches have sent %d bytes", n, up)
	}
	watchers(t, cluster, n)
	for i, c := range cs {
		must(t, r.Apply(t.Context(), fmt.Sprint("svc", i), add("", fmt.Sprint("a:", i))))
		same(t, "a watch", batch(t, c), fmt.Sprintf("+a:%d=a:%d", i, i))
	}
}

// TestGoroutines checks that a watch has no goroutine besides the goroutine of its loop, and
// leaves no goroutine behind.
func TestGoroutines(t *testing.T) {
	cluster := etcdtest.Start(t, nil)
	r := newRig(t, cluster, nil)
	same(t, "a list", list(t, r, "svc"), "") // From here on the client has its goroutines.
	const n, few = 500, 20
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			for range r.Watch(ctx, fmt.Sprint("svc", i)) {
			}
		})
	}
	watchers(t, cluster, n)
	if got := runtime.NumGoroutine() - before; got > n+few {
		t.Errorf("%d goroutines for %d watches", got, n)
	}
	cancel()
	wg.Wait()
	watchers(t, cluster, 0)
	servertest.Poll(t, "goroutines", func() error {
		if got := runtime.NumGoroutine(); got > before+2 { // Reading the metric over HTTP leaves up to 2.
			return fmt.Errorf("there were %d, and are %d", before, got)
		}
		return nil
	})
}

// TestLeftEarly checks that a watch whose loop ends before etcd has created the watch does
// not stay in etcd.
func TestLeftEarly(t *testing.T) {
	each(t, func(t *testing.T, release etcdtest.Release) {
		cluster := etcdtest.Start(t, &etcdtest.Options{Release: release})
		r := newRig(t, cluster, nil)
		stays, leave := context.WithCancel(t.Context())
		defer leave()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for range r.Watch(stays, "stays") {
			}
		}()
		watchers(t, cluster, 1)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for i := range 20 {
					ctx, cancel := context.WithCancel(t.Context())
					for b, err := range r.Watch(ctx, fmt.Sprint("svc", i)) {
						// The loop ends at any time: before the request, before the
						// answer, or later.
						time.AfterFunc(rand.N(2*time.Millisecond), cancel)
						if !b.Snapshot && !errors.Is(err, context.Canceled) {
							t.Errorf("%v, %v", b, err)
						}
					}
					cancel()
				}
			})
		}
		wg.Wait()
		watchers(t, cluster, 1)
		leave()
		<-ended
		watchers(t, cluster, 0)
	})
}

// TestSlowWatch checks that a slow loop does not delay other loops, that it gets the events
// of the meantime, and that it ends with an error if they are too many.
func TestSlowWatch(t *testing.T) {
	each(t, func(t *testing.T, release etcdtest.Release) {
		cluster := etcdtest.Start(t, &etcdtest.Options{Release: release, Args: []string{"--max-txn-ops=10000"}})
		for _, c := range []struct {
			name  string
			txns  int
			check func(t *testing.T, got map[string]string, txns int, err error)
		}{
			{"much", 5, func(t *testing.T, got map[string]string, txns int, err error) {
				if err != nil || len(got) != txns*5000+1 {
					t.Errorf("%d endpoints, %v", len(got), err)
				}
			}},
			{"too much", 15, func(t *testing.T, got map[string]string, txns int, err error) {
				if err == nil || !strings.Contains(err.Error(), "too slow") {
					t.Errorf("%d endpoints, %v", len(got), err)
				}
			}},
		} {
			t.Run(c.name, func(t *testing.T) {
				r := newRig(t, cluster, nil)
				fast := follow(t, r, "fast")
				same(t, "a watch", batch(t, fast), "snapshot ")
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				begun, slow, goOn := make(chan struct{}), make(chan struct{}), make(chan struct{})
				got := make(map[string]string)
				result := make(chan error, 1)
				go func() {
					for b, err := range r.Watch(ctx, "slow") {
						if err != nil {
							result <- err
							return
						}
						for _, e := range b.Put {
							got[e.ID] = e.Addr
						}
						switch {
						case b.Snapshot:
							close(begun)
						case got["last"] != "":
							result <- nil
							return
						case len(got) == 1:
							close(slow)
							<-goOn
						}
					}
				}()
				<-begun
				r.put(t, "slow/4999", `{"Addr":"a:first"}`)
				<-slow
				for i := range c.txns {
					var ops []clientv3.Op
					for j := range 5000 {
						ops = append(ops, clientv3.OpPut(fmt.Sprintf("%sslow/%d", r.prefix, i*5000+j), fmt.Sprintf(`{"Addr":"a:%d"}`, i)))
					}
					_, err := r.admin.Txn(t.Context()).Then(ops...).Commit()
					must(t, err)
					// Both watches share a stream. So the events of the slow watch have
					// arrived before this one.
					must(t, r.Apply(t.Context(), "fast", add("x", fmt.Sprint("a:", i))))
					same(t, "the fast watch", batch(t, fast), fmt.Sprint("+x=a:", i))
				}
				r.put(t, "slow/last", `{"Addr":"a:last"}`)
				close(goOn)
				c.check(t, got, c.txns, <-result)
			})
		}
	})
}

// TestLargeAnswer checks that an answer of 6 MB is delivered, and every revision as a whole.
// etcd sends the answer in one message, or in fragments that may end within a revision.
func TestLargeAnswer(t *testing.T) {
	each(t, func(t *testing.T, release etcdtest.Release) {
		for name, args := range map[string][]string{
			"fragments": nil, "one message": {"--max-request-bytes=16777216"},
		} {
			t.Run(name, func(t *testing.T) {
				cluster := etcdtest.Start(t, &etcdtest.Options{Release: release, Args: args})
				r := newRig(t, cluster, nil)
				const txns, size = 12, 50
				metadata := `"` + strings.Repeat("x", 10_000) + `"`
				last := ""
				for b, err := range r.Watch(t.Context(), "svc") {
					must(t, err)
					if b.Snapshot {
						// The watch begins after all these changes.
						for i := range txns {
							var ops []clientv3.Op
							for j := range size {
								ops = append(ops, clientv3.OpPut(fmt.Sprintf("%ssvc/%d", r.prefix, j), fmt.Sprintf(`{"Addr":"a:%d","Metadata":%s}`, i, metadata)))
							}
							_, err := r.admin.Txn(t.Context()).Then(ops...).Commit()
							must(t, err)
						}
						continue
					}
					same(t, "the endpoints", len(b.Put), size)
					for _, e := range b.Put {
						same(t, "the address", e.Addr, b.Put[0].Addr)
					}
					if last = b.Put[0].Addr; last == fmt.Sprint("a:", txns-1) {
						break
					}
				}
			})
		}
	})
}

// TestCompactedMeanwhile compacts the history after a snapshot before the watch begins.
func TestCompactedMeanwhile(t *testing.T) {
	each(t, func(t *testing.T, release etcdtest.Release) {
		cluster := etcdtest.Start(t, &etcdtest.Options{Release: release})
		r := newRig(t, cluster, nil)
		running := follow(t, r, "other")
		same(t, "a watch", batch(t, running), "snapshot ")
		watchers(t, cluster, 1) // The running watch has begun in etcd.
		var ended error
		for b, err := range r.Watch(t.Context(), "svc") {
			if ended = err; b.Snapshot {
				r.put(t, "svc/a", `{"Addr":"a:1"}`)
				r.put(t, "svc/a", `{"Addr":"a:2"}`)
				cluster.Compact(t)
			}
		}
		if !errors.Is(ended, rpctypes.ErrCompacted) {
			t.Errorf("the watch ended with %v", ended)
		}
		must(t, r.Apply(t.Context(), "other", add("", "a:1")))
		same(t, "another watch", batch(t, running), "+a:1=a:1")
		watchers(t, cluster, 1)
	})
}

// TestProxy checks watches behind etcd's own proxy. The proxy ignores the requested watch
// IDs, and answers in another order.
func TestProxy(t *testing.T) {
	cluster := etcdtest.Start(t, nil)
	client := grpcProxy(t, cluster)
	before := cluster.Metric(t, "etcd_debugging_mvcc_watcher_total") // The proxy's own watches.
	s := etcd.New(client, &etcd.Options{SilenceBound: bound})
	t.Run("watches", func(t *testing.T) {
		var cs []<-chan naming.Batch
		for i := range 100 {
			cs = append(cs, follow(t, s, fmt.Sprint("svc", i)))
		}
		for i, c := range cs {
			same(t, "a watch", batch(t, c), "snapshot ")
			must(t, s.Apply(t.Context(), fmt.Sprint("svc", i), add("", fmt.Sprint("a:", i))))
		}
		for i, c := range cs {
			same(t, "a watch", batch(t, c), fmt.Sprintf("+a:%d=a:%d", i, i))
		}
		// The proxy answers probes. So the watches outlive the bound.
		quiet := time.NewTimer(2 * bound)
		defer quiet.Stop()
		<-quiet.C
		for i, c := range cs {
			must(t, s.Apply(t.Context(), fmt.Sprint("svc", i), del(fmt.Sprint("a:", i))))
			same(t, "a watch", batch(t, c), fmt.Sprint("-a:", i))
		}
	})
	watchers(t, cluster, before)
}

// TestWatchOfAll checks that a watch of services without a prefix covers all keys.
func TestWatchOfAll(t *testing.T) {
	cluster := etcdtest.Start(t, nil)
	client := cluster.Client(t)
	s := etcd.New(client, nil)
	c := make(chan string, 10)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for names, err := range s.Services(ctx) {
			if err != nil {
				return
			}
			c <- fmt.Sprintf("%q", names)
		}
	}()
	next := func(want string) {
		t.Helper()
		select {
		case got := <-c:
			same(t, "the services", got, want)
		case <-time.After(servertest.Patience):
			t.Fatalf("the list does not become %s", want)
		}
	}
	next("[]")
	must(t, s.Apply(ctx, "svc", add("", "a:1")))
	next(`["svc"]`)
}
