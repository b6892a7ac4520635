package consul_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/internal/consultest"
)

// BenchmarkSustainedChange changes a service of some instances every 15 ms. It measures
// how long after the write a reader has the change, and how much processor time this
// process, with the writer, and the agent use. The floor is one raw blocking query after
// another. The readers of a run take turns in a random order, so that the ratios of one
// run can be compared. -benchtime=400x is enough.
func BenchmarkSustainedChange(b *testing.B) {
	agent := consultest.Start(b, nil)
	client := agent.Client(b)
	readers := []string{"client", "store"}
	for _, n := range []int{1, 10, 50, 200} {
		rand.Shuffle(len(readers), func(i, j int) { readers[i], readers[j] = readers[j], readers[i] })
		for _, reader := range readers {
			b.Run(fmt.Sprintf("n=%d/%s", n, reader), func(b *testing.B) {
				service := fmt.Sprintf("%s-%d-%d", reader, n, rigs.Add(1))
				fill(b, client, service, 0, n)
				ctx, cancel := context.WithCancel(b.Context())
				var wg sync.WaitGroup
				defer wg.Wait()
				defer cancel()
				ports := make(chan int, 1<<16) // what is shown of the instance that changes
				wg.Go(func() { read(ctx, client, reader, service, ports) })
				<-ports

				var written sync.Map // when, by port
				var took []time.Duration
				all := make(chan struct{})
				last := 10_000 + b.N
				wg.Go(func() {
					defer close(all)
					for seen := 10_000; seen < last; {
						select {
						case port := <-ports:
							now := time.Now()
							for ; seen < port; seen++ {
								at, _ := written.Load(seen + 1)
								took = append(took, now.Sub(at.(time.Time)))
							}
						case <-ctx.Done():
							return
						}
					}
				})
				b.ResetTimer()
				own, agents := processorTime(), processorTimeOf(agent.Pid())
				tick := time.NewTicker(15 * time.Millisecond)
				defer tick.Stop()
				for port := 10_001; port <= last; port++ {
					<-tick.C
					written.Store(port, time.Now())
					if _, err := client.Catalog().Register(&api.CatalogRegistration{Node: "foreign", Address: "10.0.0.1", SkipNodeUpdate: true, Service: &api.AgentService{
						ID: service + "-0", Service: service, Address: "10.0.0.0", Port: port,
					}}, nil); err != nil {
						b.Fatal(err)
					}
				}
				<-all
				b.StopTimer()
				slices.Sort(took)
				ms := func(d time.Duration) float64 { return d.Seconds() * 1000 }
				b.ReportMetric(ms(took[len(took)/2]), "p50-ms")
				b.ReportMetric(ms(took[len(took)*99/100]), "p99-ms")
				b.ReportMetric(ms(processorTime()-own)/float64(b.N), "cpu-ms/change")
				b.ReportMetric(ms(processorTimeOf(agent.Pid())-agents)/float64(b.N), "agent-cpu-ms/change")
			})
		}
	}
}

// read sends the port of a service's instance 0 whenever the port changes.
func read(ctx context.Context, client *api.Client, reader, service string, ports chan<- int) {
	if reader == "store" {
		for b, err := range consul.New(client, nil).Watch(ctx, service) {
			if err != nil {
				return
			}
			for _, e := range b.Put {
				if host, port, _ := strings.Cut(e.Addr, ":"); host == "10.0.0.0" {
					p, _ := strconv.Atoi(port)
					ports <- p
				}
			}
		}
		return
	}
	q := &api.QueryOptions{WaitTime: consul.DefaultWait}
	for last := 0; ; {
		all, meta, err := client.Health().Service(service, "", true, q.WithContext(ctx))
		if err != nil {
			return
		}
		q.WaitIndex = meta.LastIndex
		for _, e := range all {
			if e.Service.ID == service+"-0" && e.Service.Port != last {
				last = e.Service.Port
				ports <- last
			}
		}
	}
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// processorTimeOf returns the processor time of a process, 0 where it is not known.
func processorTimeOf(pid int) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * time.Second / 100
}
