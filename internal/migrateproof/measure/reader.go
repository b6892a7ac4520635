package main

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/resolver"
)

const (
	services  = 200
	endpoints = 100 // of each service
	changes   = 20_000
)

// measureReaders returns a table of the memory and the processor time of a Client that
// reads all services. With conns, each service has a ClientConn, whose policy makes no
// connections. The cost of the registries is subtracted.
func measureReaders(conns bool) string {
	title := "Watch only"
	if conns {
		title = "with a gRPC ClientConn for each service"
	}
	var rows []row
	for _, s := range sorts {
		heap, cpu := s.readAll(conns)
		rows = append(rows, row{s.name, []float64{float64(heap) / (1 << 20), cpu.Seconds() / changes * 1e6}})
	}
	return table(fmt.Sprintf("%s: %d services with %d endpoints, %d changes", title, services, endpoints, changes),
		[]string{"MiB", "µs a change"}, rows)
}

// readAll returns what readers of all services need.
func (s sort) readAll(conns bool) (heap uint64, cpu time.Duration) {
	stores := s.stores()
	for i := range services {
		for j := range endpoints {
			put(stores, serviceName(i), endpoint(i, j, 0))
		}
	}
	idle := churn(stores)
	before := heapInUse()
	c := s.newClient(stores)
	defer c.Close()
	read := watch
	if conns {
		read = connect
	}
	defer read(c)()
	time.Sleep(2 * time.Second)
	after := heapInUse()
	return after - before, churn(stores) - idle
}

func serviceName(i int) string { return fmt.Sprint("svc", i) }

func endpoint(service, i, version int) naming.Endpoint {
	return naming.Endpoint{
		Addr:     fmt.Sprintf("10.%d.%d.%d:8080", service/256, service%256, i),
		Metadata: fmt.Appendf(nil, `{"zone":"a","weight":10,"build":%d}`, version),
	}
}

// churn changes endpoints, and returns the processor time of all.
func churn(stores []*memory.Store) time.Duration {
	runtime.GC()
	begin := processorTime()
	for i := range changes {
		put(stores, serviceName(i%services), endpoint(i%services, i/services%endpoints, i+1))
		if i%services == 0 {
			time.Sleep(10 * time.Millisecond) // readers see most changes one by one
		}
	}
	time.Sleep(time.Second)
	return processorTime() - begin
}

// watch reads all services with Watch.
func watch(c *naming.Client) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range services {
		wg.Go(func() {
			for v := range c.Watch(ctx, serviceName(i)) {
				runtime.KeepAlive(v)
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// connect makes a ClientConn for each service.
func connect(c *naming.Client) (stop func()) {
	b := resolver.NewBuilder(c, &resolver.Options{ServiceConfig: `{"loadBalancingConfig":[{"measure_none":{}}]}`})
	var list []*grpc.ClientConn
	for i := range services {
		conn, err := grpc.NewClient(b.Target(serviceName(i)), grpc.WithResolvers(b), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			panic(err) // the target is valid
		}
		conn.Connect()
		list = append(list, conn)
	}
	return func() {
		for _, conn := range list {
			_ = conn.Close()
		}
	}
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// processorTime returns the processor time of the process so far.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // the arguments are constant
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func init() { balancer.Register(none{}) }

// none is a load balancing policy that makes no connections.
type none struct{}

func (none) Name() string { return "measure_none" }

func (none) Build(balancer.ClientConn, balancer.BuildOptions) balancer.Balancer { return none{} }

func (none) UpdateClientConnState(balancer.ClientConnState) error       { return nil }
func (none) ResolverError(error)                                        {}
func (none) UpdateSubConnState(balancer.SubConn, balancer.SubConnState) {}
func (none) ExitIdle()                                                  {}
func (none) Close()                                                     {}
