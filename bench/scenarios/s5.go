package scenarios

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/naming-go/naming/bench/child"
	"github.com/naming-go/naming/bench/peer"
	"github.com/naming-go/naming/bench/report"
)

// manyServices is S5.
func manyServices(r *Run, tb testing.TB, reg *registry) error {
	ctx := context.Background()
	const present = 3
	services := make(map[string][]string) // by format
	entries := make(map[string][]peer.Entry)
	for _, s := range r.on(reg) {
		f := format(s.Peer)
		if services[f] != nil {
			continue
		}
		for i := range r.Services {
			service := fmt.Sprintf("%s-%d", f, i)
			services[f] = append(services[f], service)
			for _, e := range endpoints(present) {
				entries[f] = append(entries[f], s.Entry(service, e))
			}
		}
		if err := reg.put(ctx, entries[f]); err != nil {
			return err
		}
	}
	name := report.Number(r.Services) + " services"
	for repeat := range r.Repeats {
		for _, s := range r.rotated(reg) {
			n := r.note(reg, name, repeat, s)
			if n.row("resolved", "s").Err != "" {
				continue // the peer would fail again, which takes long
			}
			if reg.backend == "consul" {
				// The agent goes on with the blocking queries of a killed peer for
				// minutes. A peer that starves other programs would disturb the next
				// peer. So each peer has a new agent. A restart loses all entries.
				reg.agent.Restart(tb)
				if err := reg.put(ctx, entries[format(s.Peer)]); err != nil {
					return err
				}
			}
			if err := manyServicesOne(reg, n, services[format(s.Peer)], present); err != nil {
				n.fail("resolved", "s", err)
			}
		}
		r.Logf("%s %s: repeat %d of %d", reg.scenario, reg.backend, repeat+1, r.Repeats)
	}
	return nil
}

func manyServicesOne(reg *registry, n note, services []string, present int) error {
	c, err := reg.open(n.subject)
	if err != nil {
		return err
	}
	defer c.Kill()
	watchers, streams, err := reg.watches()
	if err != nil {
		return err
	}
	before, err := c.Do(child.Request{Do: child.Measure})
	if err != nil {
		return err
	}
	// A peer that starves does not even get this reply in time.
	began, reply, failed := reg.ready(c, services, 1, 16, present)
	if reg.backend == "consul" {
		// The agent should serve another program on this host meanwhile.
		refused := 0
		const tries = 10
		for range tries {
			if reg.served() != nil {
				refused++
			}
			time.Sleep(20 * time.Millisecond)
		}
		n.add("other programs refused", "%", 100*float64(refused)/tries)
	}
	if failed != nil {
		return failed
	}
	n.add("resolved", "s", time.Duration(reply.At-began).Seconds())
	if _, err := c.Do(child.Request{Do: child.Quiet, Timeout: reg.patience}); err != nil {
		return err
	}
	after, err := c.Do(child.Request{Do: child.Measure})
	if err != nil {
		return err
	}
	per := float64(len(services))
	n.add("goroutines per service", "", float64(after.Usage.Goroutines-before.Usage.Goroutines)/per)
	n.add("memory per service", "KB", (float64(after.Usage.Memory)-float64(before.Usage.Memory))/per/1024)
	if reg.backend == "consul" {
		n.add("connections", "", float64(after.Usage.Conns))
		return nil
	}
	return addWatches(reg, n, watchers, streams)
}
