package resolver_test

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/resolver"
)

// freeConn is a ClientConn whose calls cost nothing. It counts them, and the
// ClientConns that share its counter.
type freeConn struct {
	updates *atomic.Int64
	newest  func(grpcresolver.State)
}

func (cc freeConn) UpdateState(s grpcresolver.State) error {
	if cc.newest != nil {
		cc.newest(s)
	}
	cc.updates.Add(1)
	return nil
}
func (freeConn) ReportError(error)                                    {}
func (freeConn) NewAddress([]grpcresolver.Address)                    {}
func (freeConn) ParseServiceConfig(string) *serviceconfig.ParseResult { return nil }

func many(n int) (changes []naming.Change) {
	for i := range n {
		changes = append(changes, add(naming.Endpoint{
			Addr:     fmt.Sprintf("10.%d.%d.%d:9000", i>>16, i>>8&255, i&255),
			Metadata: []byte(`{"weight":10,"zone":"eu-1"}`),
		})...)
	}
	return changes
}

// BenchmarkChange is one more change to a service of n endpoints, from Apply on
// a store in memory until one ClientConn has the change.
func BenchmarkChange(b *testing.B) {
	for _, n := range []int{100, 50_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			store := new(memory.Store)
			c := naming.New(store, nil)
			defer c.Close()
			apply(b, store, "s", many(n)...)
			delivered := make(chan int, 1)
			var updates atomic.Int64
			res := build(b, resolver.NewBuilder(c, nil), freeConn{&updates, func(s grpcresolver.State) { delivered <- len(s.Endpoints) }}, "s")
			defer res.Close()
			<-delivered
			extra := at("192.168.0.1:9000")
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				time.Sleep(6 * time.Millisecond) // a change that comes alone
				b.StartTimer()
				if i%2 == 0 {
					apply(b, store, "s", extra...)
				} else {
					apply(b, store, "s", del("192.168.0.1:9000")...)
				}
				<-delivered
			}
		})
	}
}

// BenchmarkFanOutFloor is what 5,000 calls of UpdateState take, and nothing else.
func BenchmarkFanOutFloor(b *testing.B) {
	const conns = 5000
	var updates atomic.Int64
	var done sync.WaitGroup
	ccs := make([]grpcresolver.ClientConn, conns)
	for i := range ccs {
		ccs[i] = freeConn{&updates, func(grpcresolver.State) { done.Done() }}
	}
	b.ReportAllocs()
	for b.Loop() {
		done.Add(conns)
		for _, cc := range ccs {
			_ = cc.UpdateState(grpcresolver.State{})
		}
		done.Wait()
	}
}

// BenchmarkFanOut is one change to a service of 10 endpoints that 5,000
// ClientConns use, until the last of them has the change.
func BenchmarkFanOut(b *testing.B) {
	const conns = 5000
	store := new(memory.Store)
	c := naming.New(store, nil)
	defer c.Close()
	apply(b, store, "s", many(10)...)
	builder := resolver.NewBuilder(c, nil)
	var updates atomic.Int64
	var done sync.WaitGroup
	cc := freeConn{&updates, func(grpcresolver.State) { done.Done() }}
	resolvers := make([]grpcresolver.Resolver, 0, conns)
	done.Add(1)
	first := build(b, builder, cc, "s")
	defer first.Close()
	done.Wait()
	goroutines, before := runtime.NumGoroutine(), inUse()
	done.Add(conns)
	for range conns {
		resolvers = append(resolvers, build(b, builder, cc, "s"))
	}
	done.Wait()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		time.Sleep(6 * time.Millisecond)
		done.Add(conns + 1)
		b.StartTimer()
		if i%2 == 0 {
			apply(b, store, "s", at("192.168.0.1:9000")...)
		} else {
			apply(b, store, "s", del("192.168.0.1:9000")...)
		}
		done.Wait()
	}
	time.Sleep(10 * time.Millisecond)
	b.ReportMetric(float64(inUse()-before)/conns, "B/resolver")
	b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/conns, "goroutines/resolver")
	for _, r := range resolvers {
		r.Close()
	}
}

// BenchmarkChurn is 2,000 changes to a service of 1,000 endpoints, one after the
// other, without a pause or at the rate of a registry on a disk, until the ClientConn
// has the last.
func BenchmarkChurn(b *testing.B) {
	for _, pace := range []time.Duration{0, time.Millisecond} {
		b.Run(fmt.Sprint("pace=", pace), func(b *testing.B) {
			store := new(memory.Store)
			c := naming.New(store, nil)
			defer c.Close()
			apply(b, store, "s", many(1000)...)
			var updates atomic.Int64
			var done atomic.Bool // the last change has arrived
			delivered := make(chan struct{}, 1)
			cc := freeConn{&updates, func(s grpcresolver.State) {
				done.Store(s.Endpoints[len(s.Endpoints)-1].Addresses[0].Addr == "z:1")
				select {
				case delivered <- struct{}{}:
				default:
				}
			}}
			res := build(b, resolver.NewBuilder(c, nil), cc, "s")
			defer res.Close()
			<-delivered
			var lag time.Duration
			updates.Store(0)
			b.ReportAllocs()
			for b.Loop() {
				for i := range 1000 {
					addr := fmt.Sprintf("192.168.0.%d:9000", i%100)
					apply(b, store, "s", at(addr)...)
					time.Sleep(pace)
					apply(b, store, "s", del(addr)...)
					time.Sleep(pace)
				}
				apply(b, store, "s", at("z:1")...)
				start := time.Now()
				for !done.Load() {
					<-delivered
				}
				lag += time.Since(start)
				apply(b, store, "s", del("z:1")...)
				for done.Load() {
					<-delivered
				}
			}
			b.ReportMetric(float64(updates.Load())/float64(b.N), "updates/op")
			b.ReportMetric(lag.Seconds()*1000/float64(b.N), "last-ms/op")
		})
	}
}

// BenchmarkFirstSet is a Build for a service that the Client knows.
func BenchmarkFirstSet(b *testing.B) {
	for _, n := range []int{10, 50_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			store := new(memory.Store)
			c := naming.New(store, nil)
			defer c.Close()
			apply(b, store, "s", many(n)...)
			builder := resolver.NewBuilder(c, nil)
			var updates atomic.Int64
			delivered := make(chan struct{}, 1)
			cc := freeConn{&updates, func(grpcresolver.State) { delivered <- struct{}{} }}
			first := build(b, builder, cc, "s")
			<-delivered
			first.Close()
			b.ReportAllocs()
			for b.Loop() {
				res := build(b, builder, cc, "s")
				<-delivered
				res.Close()
			}
		})
	}
}

// BenchmarkServices is what 2,000 services of 3 endpoints take.
func BenchmarkServices(b *testing.B) {
	const services = 2000
	store := new(memory.Store)
	for i := range services {
		apply(b, store, fmt.Sprint("s", i), many(3)...)
	}
	b.ReportAllocs()
	for b.Loop() {
		c := naming.New(store, nil)
		builder := resolver.NewBuilder(c, nil)
		var updates atomic.Int64
		var done sync.WaitGroup
		cc := freeConn{&updates, func(grpcresolver.State) { done.Done() }}
		b.StopTimer()
		goroutines, before := runtime.NumGoroutine(), inUse()
		b.StartTimer()
		var resolvers []grpcresolver.Resolver
		done.Add(services)
		for i := range services {
			resolvers = append(resolvers, build(b, builder, cc, fmt.Sprint("s", i)))
		}
		done.Wait()
		b.StopTimer()
		b.ReportMetric(float64(inUse()-before)/services, "B/service")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/services, "goroutines/service")
		for _, r := range resolvers {
			r.Close()
		}
		c.Close()
		b.StartTimer()
	}
}

// inUse returns the bytes that heap and stacks take.
func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
