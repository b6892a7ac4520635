package scenarios

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/naming-go/naming/bench/child"
	"github.com/naming-go/naming/bench/report"
)

// manyServices is S5.
func manyServices(r *Run, tb testing.TB, reg *registry) error {
	ctx := context.Background()
	const present = 3
	names := make(map[string][]string) // of services, by format
	for _, s := range r.on(reg.backend) {
		f := format(s.Peer)
		if names[f] != nil {
			continue
		}
		for i := range r.Services {
			service := fmt.Sprintf("%s-%d", f, i)
			names[f] = append(names[f], service)
			if err := reg.fill(ctx, s.Peer, service, endpoints(present)); err != nil {
				return err
			}
		}
	}
	name := report.Number(r.Services) + " services"
	for repeat := range r.Repeats {
		for _, s := range r.rotated(reg.backend) {
			n := r.note(reg, name, repeat, s)
			if err := manyServicesOne(tb, reg, n, names[format(s.Peer)], present); err != nil {
				n.fail("resolved", "s", err)
			}
		}
		r.Logf("%s %s: repeat %d of %d", reg.scenario, reg.backend, repeat+1, r.Repeats)
	}
	return nil
}

func manyServicesOne(tb testing.TB, reg *registry, n note, services []string, present int) error {
	c, err := reg.open(n.subject)
	if err != nil {
		return err
	}
	defer c.Kill()
	watchers, streams := reg.watches(tb)
	before, err := c.Do(child.Request{Do: child.Measure})
	if err != nil {
		return err
	}
	// Of a peer that starves not even this returns in time.
	began, reply, failed := reg.ready(c, services, 1, 16, present)
	if reg.backend == "consul" {
		// Whether another program on this host is served meanwhile.
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
	if reg.backend == "etcd" {
		watchers2, streams2 := reg.watches(tb)
		n.add("watchers", "", watchers2-watchers)
		n.add("streams", "", streams2-streams)
	} else {
		n.add("connections", "", float64(after.Usage.Conns))
	}
	return nil
}
