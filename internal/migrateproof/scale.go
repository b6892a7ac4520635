package migrateproof

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/migrate/bridge"
)

// Usage is what a program needs at most.
type Usage struct {
	// Heap is the size of the live and unswept objects. Goroutines is their number.
	Heap       uint64
	Goroutines int
}

// measure samples the usage until stop is called. stop returns the peak beyond the usage
// of the beginning.
func measure() (stop func() Usage) {
	runtime.GC()
	begin := usage()
	peak := begin
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-done:
				return
			}
			now := usage()
			peak.Heap, peak.Goroutines = max(peak.Heap, now.Heap), max(peak.Goroutines, now.Goroutines)
		}
	})
	return func() Usage {
		close(done)
		wg.Wait()
		return Usage{Heap: peak.Heap - begin.Heap, Goroutines: peak.Goroutines - begin.Goroutines}
	}
}

func usage() Usage {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return Usage{Heap: sample[0].Value.Uint64(), Goroutines: runtime.NumGoroutine()}
}

// Scale is the result of a bridge that started with an empty target.
type Scale struct {
	Services, Copies int
	// Rate is the limit of the bridge, in calls per second. Calls is how many calls the
	// bridge made of the target's Apply, and Took how long all copies took.
	Rate, Calls int
	Took        time.Duration
	Peak        Usage
}

// String returns the result in one line.
func (s Scale) String() string {
	return fmt.Sprintf("%d copies in %d services: %v, %.0f copies/s, %.0f calls/s of at most %d, %d MiB and %d goroutines at most",
		s.Copies, s.Services, s.Took.Round(10*time.Millisecond), float64(s.Copies)/s.Took.Seconds(),
		float64(s.Calls)/s.Took.Seconds(), s.Rate, s.Peak.Heap>>20, s.Peak.Goroutines)
}

// target is a registry that a bridge fills, and the count of the calls of Apply.
type target struct {
	store naming.Store
	calls *atomic.Int64
}

// countedEtcd and countedConsul count the calls of Apply. All other methods, and the
// optional ones, are those of the store.
type countedEtcd struct {
	*etcd.Store
	calls atomic.Int64
}

func (s *countedEtcd) Apply(ctx context.Context, service string, changes ...naming.Change) error {
	s.calls.Add(1)
	return s.Store.Apply(ctx, service, changes...)
}

type countedConsul struct {
	*consul.Store
	calls atomic.Int64
}

func (s *countedConsul) Apply(ctx context.Context, service string, changes ...naming.Change) error {
	s.calls.Add(1)
	return s.Store.Apply(ctx, service, changes...)
}

// ScaleEtcd bridges services with five endpoints each from a registry in memory to an etcd
// server that has none of them.
func ScaleEtcd(ctx context.Context, tb testing.TB, services int) (Scale, error) {
	s := &countedEtcd{Store: etcd.New(etcdtest.Start(tb, nil).Client(tb), nil)}
	return scale(ctx, target{s, &s.calls}, services, bridge.Options{})
}

// ScaleConsul is ScaleEtcd with a Consul agent. The limits are those that package bridge
// recommends for Consul.
func ScaleConsul(ctx context.Context, tb testing.TB, services int) (Scale, error) {
	client, err := api.NewClient(consultest.Start(tb, nil).Config())
	if err != nil {
		return Scale{}, err
	}
	s := &countedConsul{Store: consul.New(client, nil)}
	return scale(ctx, target{s, &s.calls}, services, bridge.Options{NoElection: true, TTL: bridge.ConsulTTL, Rate: bridge.ConsulRate})
}

func scale(ctx context.Context, to target, services int, opts bridge.Options) (Scale, error) {
	const each = 5
	source := new(memory.Store)
	for i := range services {
		var changes []naming.Change
		for j := range each {
			changes = append(changes, naming.Change{Endpoint: naming.Endpoint{
				Addr: fmt.Sprintf("10.%d.%d.%d:8080", i/256, i%256, j), Metadata: []byte(`{"zone":"a","weight":10}`),
			}})
		}
		if err := source.Apply(ctx, fmt.Sprintf("svc%d", i), changes...); err != nil {
			return Scale{}, err
		}
	}
	copied, complete := new(atomic.Int64), make(chan struct{})
	opts.Logger = slog.New(slog.DiscardHandler)
	opts.Hooks = &bridge.Hooks{Copied: func(info bridge.CopiedInfo) {
		if n := copied.Add(int64(info.Count)); n >= int64(services*each) && n-int64(info.Count) < int64(services*each) {
			close(complete)
		}
	}}
	b, err := bridge.New(source, to.store, &opts)
	if err != nil {
		return Scale{}, err
	}
	stop := measure()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start, ended := time.Now(), make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	select {
	case <-complete:
	case err := <-ended:
		return Scale{}, err
	}
	s := Scale{
		Services: services, Copies: services * each, Rate: opts.Rate, Calls: int(to.calls.Load()),
		Took: time.Since(start), Peak: stop(),
	}
	if s.Rate == 0 {
		s.Rate = defaultRate
	}
	cancel()
	<-ended
	return s, nil
}

// defaultRate is the default of [bridge.Options.Rate].
const defaultRate = 1000
