package migrate

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"

	"github.com/naming-go/naming"
	memstore "github.com/naming-go/naming/backend/memory"
)

// benchReader is a sort of reader: a plain Client, or a reader of two registries in a phase.
type benchReader struct {
	name   string
	joined bool
	phase  Phase
}

var benchReaders = []benchReader{{name: "plain"}, {"Union", true, Union}, {"Shadow", true, Shadow}, {"NewRead", true, NewRead}}

// BenchmarkReader compares a reader on two registries with a plain Client: the time from a
// change of one endpoint, in each registry, until the reader has the change, and the memory
// and the goroutines of a service.
func BenchmarkReader(b *testing.B) {
	for _, r := range benchReaders {
		for _, n := range []int{100, 5000} {
			b.Run(fmt.Sprintf("change/%s/endpoints=%d", r.name, n), func(b *testing.B) { benchChange(b, r, n) })
		}
	}
	for _, r := range benchReaders {
		b.Run("memory/"+r.name, func(b *testing.B) { benchMemory(b, r) })
	}
}

// newClient returns a Client and the registries that it reads.
func (r benchReader) newClient(b *testing.B) (*naming.Client, []*memstore.Store) {
	opts := naming.Options{Logger: slog.New(slog.DiscardHandler)}
	stores := []*memstore.Store{new(memstore.Store), new(memstore.Store)}
	if !r.joined {
		return naming.New(stores[0], &opts), stores[:1]
	}
	j, err := Join(stores[0], stores[1], phaseIs(r.phase), &Options{Client: opts})
	if err != nil {
		b.Fatal(err)
	}
	return j.Client, stores
}

func fillService(b *testing.B, stores []*memstore.Store, service string, n int) {
	for _, s := range stores {
		changes := make([]naming.Change, n)
		for i := range changes {
			changes[i].Endpoint = naming.Endpoint{Addr: fmt.Sprintf("10.0.%d.%d:80", i>>8, i&255), Metadata: []byte(`{"zone":"a","weight":1}`)}
		}
		if err := s.Apply(b.Context(), service, changes...); err != nil {
			b.Fatal(err)
		}
	}
}

func benchChange(b *testing.B, r benchReader, n int) {
	c, stores := r.newClient(b)
	defer c.Close()
	fillService(b, stores, "svc", n)
	wake := make(chan struct{}, 1)
	f, err := c.Follow("svc", func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	if err != nil {
		b.Fatal(err)
	}
	for e, ok := f.Next(); !ok || !e.Snapshot; e, ok = f.Next() {
		<-wake
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		want := []byte(fmt.Sprintf(`{"zone":"a","weight":%d}`, i+2))
		for _, s := range stores {
			if err := s.Apply(b.Context(), "svc", naming.Change{Endpoint: naming.Endpoint{Addr: "10.0.0.1:80", Metadata: want}}); err != nil {
				b.Fatal(err)
			}
		}
		for e, _ := f.Next(); len(e.Put) != 1 || string(e.Put[0].Metadata) != string(want); e, _ = f.Next() {
			<-wake
		}
	}
}

func benchMemory(b *testing.B, r benchReader) {
	const services = 1000
	c, stores := r.newClient(b)
	defer c.Close()
	for i := range services {
		fillService(b, stores, fmt.Sprint("svc", i), 20)
	}
	before, goroutines := heapAndStacks(), runtime.NumGoroutine()
	for range b.N {
		for i := range services {
			wake := make(chan struct{}, 1)
			f, err := c.Follow(fmt.Sprint("svc", i), func() {
				select {
				case wake <- struct{}{}:
				default:
				}
			})
			if err != nil {
				b.Fatal(err)
			}
			for e, ok := f.Next(); !ok || !e.Snapshot; e, ok = f.Next() {
				<-wake
			}
		}
	}
	b.ReportMetric(float64(heapAndStacks()-before)/services, "B/service")
	b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/services, "goroutines/service")
}

func heapAndStacks() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
