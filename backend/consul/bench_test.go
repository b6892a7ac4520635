package consul_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/internal/consultest"
)

// fill puts the instances of a service from from to to into the catalogue, as another
// program does.
func fill(b *testing.B, client *api.Client, service string, from, to int) {
	b.Helper()
	if _, err := client.Catalog().Register(&api.CatalogRegistration{Node: "foreign", Address: "10.0.0.1"}, nil); err != nil {
		b.Fatal(err)
	}
	for from < to {
		var ops api.TxnOps
		for ; from < to && len(ops) < 64; from++ {
			ops = append(ops, &api.TxnOp{Service: &api.ServiceTxnOp{Verb: api.ServiceSet, Node: "foreign", Service: api.AgentService{
				ID: fmt.Sprint(service, "-", from), Service: service, Address: fmt.Sprintf("10.%d.%d.%d", from>>16, from>>8&255, from&255), Port: 9000,
				Meta: map[string]string{"zone": "eu-1"}, Weights: api.AgentWeights{Passing: 10, Warning: 1},
			}}})
		}
		if ok, resp, _, err := client.Txn().Txn(ops, nil); err != nil || !ok {
			b.Fatal(err, resp)
		}
	}
}

// BenchmarkBigService measures a service of many instances: the time to its snapshot, and
// the time to show a change. The floor is one raw query each.
func BenchmarkBigService(b *testing.B) {
	for _, n := range []int{1000, 50_000} {
		agent := consultest.Start(b, nil)
		client := agent.Client(b)
		fill(b, client, "svc", 0, n)
		b.Run(fmt.Sprintf("n=%d/first/client", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				all, _, err := client.Health().Service("svc", "", true, &api.QueryOptions{RequireConsistent: true})
				if err != nil || len(all) != n {
					b.Fatal(err, len(all))
				}
			}
		})
		s := consul.New(client, nil)
		b.Run(fmt.Sprintf("n=%d/first/store", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for batch, err := range s.Watch(b.Context(), "svc") {
					if err != nil || len(batch.Put) != n {
						b.Fatal(err, len(batch.Put))
					}
					break
				}
			}
		})
		port := 9000
		change := func(b *testing.B) {
			b.Helper()
			port++
			_, err := client.Catalog().Register(&api.CatalogRegistration{Node: "foreign", Address: "10.0.0.1", SkipNodeUpdate: true, Service: &api.AgentService{
				ID: "svc-0", Service: "svc", Address: "10.0.0.0", Port: port,
			}}, nil)
			if err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprintf("n=%d/change/client", n), func(b *testing.B) {
			b.ReportAllocs()
			_, meta, err := client.Health().Service("svc", "", true, nil)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				change(b)
				if _, meta, err = client.Health().Service("svc", "", true, &api.QueryOptions{WaitIndex: meta.LastIndex}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("n=%d/change/store", n), func(b *testing.B) {
			b.ReportAllocs()
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			news := make(chan naming.Batch, 1)
			go func() {
				for batch, err := range s.Watch(ctx, "svc") {
					if err != nil {
						return
					}
					news <- batch
				}
			}()
			<-news
			for b.Loop() {
				change(b)
				<-news
			}
		})
	}
}

// BenchmarkManyServices watches 2,000 services of 3 endpoints in one Client.
func BenchmarkManyServices(b *testing.B) {
	agent := consultest.Start(b, nil)
	client := agent.Client(b)
	const n = 2000
	for i := range n {
		fill(b, client, fmt.Sprint("svc", i), 0, 3)
	}
	for b.Loop() {
		b.StopTimer()
		goroutines, before := runtime.NumGoroutine(), inUse()
		c := naming.New(consul.New(client, nil), nil)
		var ws []naming.Watcher
		var wg sync.WaitGroup
		b.StartTimer()
		for i := range n {
			w, err := c.Resolve(fmt.Sprint("svc", i))
			if err != nil {
				b.Fatal(err)
			}
			ws = append(ws, w)
			wg.Go(func() { _, _ = w.Next() })
		}
		wg.Wait()
		b.StopTimer()
		b.ReportMetric(float64(inUse()-before)/n, "B/service")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/n, "goroutines/service")
		for _, w := range ws {
			w.Close()
		}
		c.Close()
		b.StartTimer()
	}
}

// BenchmarkFanOut measures one change to a service of 10 endpoints that 5,000 consumers
// watch, until the last consumer has the change. The floor is one raw query.
func BenchmarkFanOut(b *testing.B) {
	const consumers = 5000
	agent := consultest.Start(b, nil)
	client := agent.Client(b)
	fill(b, client, "svc", 0, 10)
	port := 8999
	change := func() {
		port++
		_, err := client.Catalog().Register(&api.CatalogRegistration{Node: "foreign", Address: "10.0.0.1", SkipNodeUpdate: true, Service: &api.AgentService{
			ID: "svc-0", Service: "svc", Address: "10.0.0.0", Port: port,
		}}, nil)
		if err != nil {
			b.Fatal(err)
		}
	}
	change()
	b.Run("client", func(b *testing.B) {
		_, meta, err := client.Health().Service("svc", "", true, nil)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			change()
			if _, meta, err = client.Health().Service("svc", "", true, &api.QueryOptions{WaitIndex: meta.LastIndex}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("followers", func(b *testing.B) {
		c := naming.New(consul.New(client, nil), nil)
		defer c.Close()
		goroutines, before := runtime.NumGoroutine(), inUse()
		var followers []*naming.Follower
		wakes := make(chan int, 10*consumers)
		for i := range consumers {
			f, err := c.Follow("svc", func() { wakes <- i })
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			followers = append(followers, f)
		}
		// delivered waits until all followers show an endpoint with a port.
		delivered := func(port int) {
			addr := fmt.Sprintf("10.0.0.0:%d", port)
			for left := consumers; left > 0; {
				e, _ := followers[<-wakes].Next()
				for _, e := range e.Put {
					if e.Addr == addr {
						left--
					}
				}
			}
		}
		for i := range consumers {
			wakes <- i
		}
		delivered(port)
		for b.Loop() {
			change()
			delivered(port)
		}
		b.ReportMetric(float64(inUse()-before)/consumers, "B/consumer")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/consumers, "goroutines/consumer")
	})
}

func inUse() int64 {
	for range 4 {
		runtime.GC() // each halves a stack at most
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
