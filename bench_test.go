package naming_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
)

// filled returns a store with n endpoints of service svc.
func filled(b *testing.B, n int) *memory.Store {
	s := new(memory.Store)
	changes := make([]naming.Change, n)
	for i := range changes {
		changes[i].Endpoint = naming.Endpoint{
			Addr:     fmt.Sprintf("10.%d.%d.%d:9000", i>>16, i>>8&255, i&255),
			Metadata: []byte(`{"zone":"a","weight":1}`),
		}
	}
	if err := s.Apply(b.Context(), "svc", changes...); err != nil {
		b.Fatal(err)
	}
	return s
}

// flip returns a function that makes one change to the service per call.
func flip(b *testing.B, s naming.Store) func() {
	n := 0
	return func() {
		n++
		m := []byte(`{"zone":"a","weight":1}`)
		if n%2 == 1 {
			m = []byte(`{"zone":"a","weight":2}`)
		}
		if err := s.Apply(b.Context(), "svc", naming.Change{Endpoint: naming.Endpoint{Addr: "10.0.0.1:9000", Metadata: m}}); err != nil {
			b.Fatal(err)
		}
	}
}

func mustNext(b *testing.B, w naming.Watcher) []*naming.Update {
	ups, err := w.Next()
	if err != nil {
		b.Error(err)
	}
	return ups
}

// BenchmarkChange measures one change at a service of many endpoints: from Apply to Next,
// or to the next View. For a Watcher neither time nor bytes depend on the size of the
// set.
func BenchmarkChange(b *testing.B) {
	for _, n := range []int{100, 50_000} {
		b.Run(fmt.Sprintf("watcher/endpoints=%d", n), func(b *testing.B) {
			s := filled(b, n)
			c := naming.New(s, nil)
			defer c.Close()
			w, err := c.Resolve("svc")
			if err != nil {
				b.Fatal(err)
			}
			mustNext(b, w)
			change := flip(b, s)
			b.ReportAllocs()
			for b.Loop() {
				change()
				mustNext(b, w)
			}
		})
		b.Run(fmt.Sprintf("view/endpoints=%d", n), func(b *testing.B) {
			s := filled(b, n)
			c := naming.New(s, nil)
			defer c.Close()
			change := flip(b, s)
			b.ReportAllocs()
			views := 0
			for range c.Watch(b.Context(), "svc") {
				if views == 1 {
					b.ResetTimer()
				}
				if views++; views > b.N {
					break
				}
				change()
			}
		})
	}
}

// BenchmarkFirstSet measures how long the first reader of a large service waits for the
// full set.
func BenchmarkFirstSet(b *testing.B) {
	for _, n := range []int{100, 50_000} {
		b.Run(fmt.Sprintf("endpoints=%d", n), func(b *testing.B) {
			s := filled(b, n)
			b.ReportAllocs()
			for b.Loop() {
				c := naming.New(s, nil)
				w, err := c.Resolve("svc")
				if err != nil {
					b.Fatal(err)
				}
				if ups := mustNext(b, w); len(ups) != n {
					b.Fatalf("%d endpoints, want %d", len(ups), n)
				}
				c.Close()
			}
		})
	}
}

// BenchmarkFanOut measures one change until the last of many watchers of a service with
// ten endpoints has it. The metrics are of one idle watcher. The floor is the same number
// of goroutines that a channel wakes and that find a value. Compare both in one run.
func BenchmarkFanOut(b *testing.B) {
	b.Run("floor/goroutines=5000", func(b *testing.B) {
		type step struct {
			ready chan struct{}
			next  *step
			value *naming.Update
		}
		tail := &step{ready: make(chan struct{})}
		var done sync.WaitGroup
		for range 5_000 {
			go func(s *step) {
				for {
					<-s.ready
					if s.next == nil {
						return
					}
					s = s.next
					done.Done()
				}
			}(tail)
		}
		b.ReportAllocs()
		for b.Loop() {
			done.Add(5_000)
			tail.next = &step{ready: make(chan struct{})}
			tail.value = &naming.Update{}
			next := tail.next
			close(tail.ready)
			tail = next
			done.Wait()
		}
		close(tail.ready)
	})
	for _, n := range []int{1, 5_000} {
		b.Run(fmt.Sprintf("watchers=%d", n), func(b *testing.B) {
			s := filled(b, 10)
			c := naming.New(s, nil)
			defer c.Close()
			first, err := c.Resolve("svc")
			if err != nil {
				b.Fatal(err)
			}
			mustNext(b, first)

			before, goroutines := heap(), runtime.NumGoroutine()
			watchers := make([]naming.Watcher, n)
			for i := range watchers {
				if watchers[i], err = c.Resolve("svc"); err != nil {
					b.Fatal(err)
				}
				mustNext(b, watchers[i])
			}
			perWatcher := float64(heap()-before) / float64(n)
			goroutines = runtime.NumGoroutine() - goroutines

			var pending, readers sync.WaitGroup
			for _, w := range watchers {
				readers.Go(func() {
					for {
						if _, err := w.Next(); err != nil {
							return
						}
						pending.Done()
					}
				})
			}
			change := flip(b, s)
			b.ReportAllocs()
			for b.Loop() {
				pending.Add(n)
				change()
				pending.Wait()
			}
			if n > 1 {
				b.ReportMetric(perWatcher, "B/watcher")
				b.ReportMetric(float64(goroutines)/float64(n), "goroutines/watcher")
			}
			c.Close()
			readers.Wait()
		})
	}
}
