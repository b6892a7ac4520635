package scenarios

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/naming-go/naming/bench/child"
	"github.com/naming-go/naming/bench/report"
)

// fanOut is S2.
func fanOut(r *Run, tb testing.TB, reg *registry) error {
	ctx := context.Background()
	sizes := r.Consumers
	if reg.backend == "consul" {
		sizes = r.ConsulMany
	}
	const present = 10
	for _, s := range r.on(reg) {
		if err := reg.fill(ctx, s.Peer, "svc-"+s.Label, endpoints(present)); err != nil {
			return err
		}
	}
	for _, w := range sizes {
		name := "W = " + report.Number(w)
		for repeat := range r.Repeats {
			for _, s := range r.rotated(reg) {
				n := r.note(reg, name, repeat, s)
				if err := fanOutOne(ctx, r, reg, n, w, present); err != nil {
					n.fail("last", "ms", err)
				}
			}
			r.Logf("S2 %s %s: repeat %d of %d", reg.backend, name, repeat+1, r.Repeats)
		}
	}
	if reg.backend != "etcd" {
		return nil
	}
	atOnce := min(1000, sizes[len(sizes)-1])
	for _, s := range r.on(reg) {
		n := r.note(reg, fmt.Sprintf("%s built at once", report.Number(atOnce)), 0, s)
		if err := buildAtOnce(reg, n, atOnce, present); err != nil {
			n.fail("watchers", "", err)
		}
	}
	return nil
}

func fanOutOne(ctx context.Context, r *Run, reg *registry, n note, w, present int) error {
	s := n.subject
	service := "svc-" + s.Label
	c, err := reg.open(s)
	if err != nil {
		return err
	}
	defer c.Kill()
	watchers, streams, err := reg.watches()
	if err != nil {
		return err
	}
	// The first consumer has what all share.
	if _, _, err := reg.ready(c, []string{service}, 1, 1, present); err != nil {
		return err
	}
	before, err := c.Do(child.Request{Do: child.Measure})
	if err != nil {
		return err
	}
	if _, _, err := reg.ready(c, []string{service}, w-1, 16, present); err != nil {
		return err
	}
	if _, err := c.Do(child.Request{Do: child.Quiet, Timeout: reg.patience}); err != nil {
		return err
	}
	var times []float64
	for i := range r.Changes {
		want, apply := present+1, reg.add
		if i%2 == 1 {
			want, apply = present, reg.remove
		}
		d, _, err := reg.change(ctx, c, 0, want, func(ctx context.Context) error { return apply(ctx, s.Peer, service, endpoint(1000)) })
		if err != nil {
			return errors.Join(err, reg.remove(ctx, s.Peer, service, endpoint(1000)))
		}
		times = append(times, ms(d))
		time.Sleep(100 * time.Millisecond)
	}
	if err := reg.remove(ctx, s.Peer, service, endpoint(1000)); err != nil {
		return err
	}
	after, err := c.Do(child.Request{Do: child.Measure})
	if err != nil {
		return err
	}
	per := float64(max(w-1, 1))
	n.add("last", "ms", report.Percentile(times, 50))
	n.add("memory per consumer", "KB", (float64(after.Usage.Memory)-float64(before.Usage.Memory))/per/1024)
	n.add("goroutines per consumer", "", float64(after.Usage.Goroutines-before.Usage.Goroutines)/per)
	if reg.backend == "etcd" {
		watchers2, streams2, err := reg.watches()
		if err != nil {
			return err
		}
		n.add("watchers", "", watchers2-watchers)
		n.add("streams", "", streams2-streams)
	} else {
		n.add("connections", "", float64(after.Usage.Conns))
	}
	return nil
}

// buildAtOnce counts the watches of consumers that are all added at once.
func buildAtOnce(reg *registry, n note, w, present int) error {
	c, err := reg.open(n.subject)
	if err != nil {
		return err
	}
	defer c.Kill()
	before, streams, err := reg.watches()
	if err != nil {
		return err
	}
	began, reply, err := reg.ready(c, []string{"svc-" + n.subject.Label}, w, w, present)
	if err != nil {
		return err
	}
	if _, err := c.Do(child.Request{Do: child.Quiet, Timeout: reg.patience}); err != nil {
		return err
	}
	after, streams2, err := reg.watches()
	if err != nil {
		return err
	}
	n.add("resolved", "ms", ms(time.Duration(reply.At-began)))
	n.add("watchers", "", after-before)
	n.add("streams", "", streams2-streams)
	return nil
}

// watches returns how many watches and streams of watches etcd has, once the
// numbers stand still: those of a child that was killed go a little later.
func (reg *registry) watches() (watchers, streams float64, _ error) {
	if reg.member == nil {
		return 0, 0, nil
	}
	var last []float64
	for range 100 {
		now, err := reg.metrics("etcd_debugging_mvcc_watcher_total", "etcd_debugging_mvcc_watch_stream_total")
		if err != nil {
			return 0, 0, err
		}
		if slices.Equal(now, last) {
			break
		}
		last = now
		time.Sleep(50 * time.Millisecond)
	}
	return last[0], last[1], nil
}
