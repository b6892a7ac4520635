package serve

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/cmd/naming/internal/hub"
)

// large returns a registry of services with 20 endpoints each.
func large(b *testing.B, services int) *memory.Store {
	store := new(memory.Store)
	for i := range services {
		changes := make([]naming.Change, 20)
		for j := range changes {
			changes[j] = naming.Change{Endpoint: naming.Endpoint{
				ID: fmt.Sprintf("instance-%d", j), Addr: fmt.Sprintf("10.%d.%d.%d:8080", i/250, i%250, j),
				Metadata: fmt.Appendf(nil, `{"weight":%d,"zone":"zone-%d","version":"v1.%d"}`, 1+j%3, j%4, i%7),
			}}
		}
		if err := store.Apply(b.Context(), fmt.Sprintf("service-%04d", i), changes...); err != nil {
			b.Fatal(err)
		}
	}
	return store
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkFill measures the time (fill-ms), the CPU and the memory until 5,000 services of 20 endpoints
// are known.
func BenchmarkFill(b *testing.B) {
	store := large(b, 5000)
	for b.Loop() {
		before, used := heap(), cpu()
		begin := time.Now()
		w := start(b, store, hub.Options{})
		w.wait(b)
		b.ReportMetric(float64(time.Since(begin))/1e6, "fill-ms")
		b.ReportMetric(float64(cpu()-used)/1e6, "cpu-ms/op")
		b.ReportMetric(float64(heap()-before)/1e6, "heap-MB")
		runtime.KeepAlive(w)
	}
}

// BenchmarkAnswers measures the large answers for 5,000 services of 20 endpoints.
func BenchmarkAnswers(b *testing.B) {
	w := start(b, large(b, 5000), hub.Options{})
	w.wait(b)
	for _, path := range []string{"/prometheus/targets", "/v1/services", "/v1/services?endpoints=true", "/metrics"} {
		b.Run(path, func(b *testing.B) {
			for b.Loop() {
				r, _ := http.NewRequestWithContext(b.Context(), http.MethodGet, w.URL+path, nil)
				r.Header.Set("Accept-Encoding", "identity")
				resp, err := http.DefaultClient.Do(r)
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK {
					b.Fatal(resp.Status, err)
				}
				b.ReportMetric(float64(n)/1e6, "MB")
			}
		})
	}
}

// BenchmarkWatchDelay measures how long after a put a change reaches a plain watch of the
// store, and a reader of server-sent events, with 5,000 services of 20 endpoints.
func BenchmarkWatchDelay(b *testing.B) {
	store := large(b, 5000)
	w := start(b, store, hub.Options{})
	w.wait(b)
	events := w.watch(b, "", "")
	for events.id == "" {
		events.next(new(snapshotPart))
	}
	var puts [2]atomic.Int64 // the time of the change that was seen last: watch, events
	seen := make(chan int, 2)
	go func() {
		for batch, err := range store.Watch(b.Context(), "service-0042") {
			if err != nil {
				return
			}
			if !batch.Snapshot {
				puts[0].Store(time.Now().UnixNano())
				seen <- 0
			}
		}
	}()
	go func() {
		for b.Context().Err() == nil && events.body.Scan() {
			if bytesHave(events.body, "event: change") {
				puts[1].Store(time.Now().UnixNano())
				seen <- 1
			}
		}
	}()
	var delays [2][]time.Duration
	for i := 0; b.Loop(); i++ {
		begin := time.Now().UnixNano()
		w.Put(b, "service-0042", naming.Change{Endpoint: naming.Endpoint{ID: "instance-0", Addr: fmt.Sprintf("10.0.0.1:%d", 1000+i%1000)}})
		<-seen
		<-seen
		for j := range delays {
			delays[j] = append(delays[j], time.Duration(puts[j].Load()-begin))
		}
	}
	for j, name := range []string{"watch", "sse"} {
		slices.Sort(delays[j])
		n := len(delays[j])
		b.ReportMetric(float64(delays[j][n/2])/1e3, name+"-p50-us")
		b.ReportMetric(float64(delays[j][n*99/100])/1e3, name+"-p99-us")
	}
}

func bytesHave(s *bufio.Scanner, text string) bool { return string(s.Bytes()) == text }
