package etcd_test

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/servertest"
)

// fill puts n endpoints.
func fill(b *testing.B, client *clientv3.Client, service string, n int) {
	for i := 0; i < n; i += 100 {
		var ops []clientv3.Op
		for j := i; j < min(i+100, n); j++ {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("%s/10.0.%d.%d:9000", service, j/250, j%250), fmt.Sprintf(`{"Op":0,"Addr":"10.0.%d.%d:9000","Metadata":{"weight":1,"zone":"a"}}`, j/250, j%250)))
		}
		if _, err := client.Txn(context.Background()).Then(ops...).Commit(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFirstSet measures the snapshot of a large service, and the same read with
// the bare client.
func BenchmarkFirstSet(b *testing.B) {
	client := etcdtest.Start(b, nil).Client(b)
	const n = 50_000
	fill(b, client, "svc", n)
	b.Run("client", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			resp, err := client.Get(b.Context(), "svc/", clientv3.WithPrefix())
			if err != nil {
				b.Fatal(err)
			}
			set := make(map[string]naming.Update, n)
			for _, kv := range resp.Kvs {
				var u naming.Update
				if json.Unmarshal(kv.Value, &u) == nil {
					set[string(kv.Key)] = u
				}
			}
		}
	})
	b.Run("client without decoding", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := client.Get(b.Context(), "svc/", clientv3.WithPrefix()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("store", func(b *testing.B) {
		b.ReportAllocs()
		s := etcd.New(client, nil)
		for b.Loop() {
			for batch, err := range s.Watch(b.Context(), "svc") {
				if err != nil || len(batch.Put) != n {
					b.Fatal(err, len(batch.Put))
				}
				break
			}
		}
	})
}

// BenchmarkPropagation measures the time from a put to its event, on a Store and on
// a bare watch in turn.
func BenchmarkPropagation(b *testing.B) {
	client := etcdtest.Start(b, nil).Client(b)
	s := etcd.New(client, nil)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	bare := make(chan time.Time, 10)
	wch := client.Watch(ctx, "svc/", clientv3.WithPrefix())
	go func() {
		for range wch {
			bare <- time.Now()
		}
	}()
	ours, ready := make(chan time.Time, 10), make(chan struct{})
	go func() {
		for batch, err := range s.Watch(ctx, "svc") {
			if err != nil {
				return
			}
			if batch.Snapshot {
				close(ready)
				continue
			}
			ours <- time.Now()
		}
	}()
	<-ready
	var floor, store []time.Duration
	i := 0
	for b.Loop() {
		i++
		start := time.Now()
		if _, err := client.Put(ctx, "svc/a:1", fmt.Sprintf(`{"Op":0,"Addr":"a:1","Metadata":%d}`, i)); err != nil {
			b.Fatal(err)
		}
		floor = append(floor, (<-bare).Sub(start))
		store = append(store, (<-ours).Sub(start))
	}
	for unit, took := range map[string][]time.Duration{"floor": floor, "store": store} {
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), unit+"-p50-ns")
		b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), unit+"-p99-ns")
	}
}

// BenchmarkManyServices watches 2,000 services of 3 endpoints in one Client.
func BenchmarkManyServices(b *testing.B) {
	cluster := etcdtest.Start(b, nil)
	client := cluster.Client(b)
	const n = 2000
	for i := range n {
		fill(b, client, fmt.Sprint("svc", i), 3)
	}
	if _, err := client.Get(b.Context(), "x"); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		b.StopTimer()
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		g := runtime.NumGoroutine()
		c := naming.New(etcd.New(client, nil), nil)
		var ws []naming.Watcher
		var wg sync.WaitGroup
		b.StartTimer()
		for i := range n {
			w, err := c.Resolve(fmt.Sprint("svc", i))
			if err != nil {
				b.Fatal(err)
			}
			ws = append(ws, w)
			wg.Go(func() { w.Next() })
		}
		wg.Wait()
		b.StopTimer()
		servertest.Poll(b, "not every service is watched", func() error {
			if got := cluster.Metric(b, "etcd_debugging_mvcc_watcher_total"); got != n {
				return fmt.Errorf("etcd has %v watchers", got)
			}
			return nil
		})
		for range 4 {
			runtime.GC() // Each collection halves a stack at most.
		}
		runtime.ReadMemStats(&after)
		b.ReportMetric((float64(after.HeapAlloc)-float64(before.HeapAlloc))/n, "heap-B/service")
		b.ReportMetric((float64(after.StackInuse)-float64(before.StackInuse))/n, "stack-B/service")
		b.ReportMetric(float64(runtime.NumGoroutine()-g)/n, "goroutines/service")
		for _, w := range ws {
			w.Close()
		}
		c.Close()
		b.StartTimer()
	}
}
