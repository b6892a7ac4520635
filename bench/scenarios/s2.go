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
	for _, s := range r.on(reg) {
		if err := reg.fill(ctx, s.Peer, "svc-"+s.Label, endpoints(initial)); err != nil {
			return err
		}
	}
	for _, w := range sizes {
		name := "W = " + report.Number(w)
		for repeat := range r.Repeats {
			for _, s := range r.rotated(reg) {
				n := r.note(reg, name, repeat, s)
				if err := fanOutOne(ctx, r, reg, n, w); err != nil {
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
		if err := buildAtOnce(reg, n, atOnce); err != nil {
			n.fail("watchers", "", err)
		}
	}
	return nil
}

// fanOutOne measures one subject with w consumers.
func fanOutOne(ctx context.Context, r *Run, reg *registry, n note, w int) error {
	service := "svc-" + n.subject.Label
	c, err := reg.open(n.subject)
	if err != nil {
		return err
	}
	defer c.Kill()
	watchers, streams, err := reg.watches()
	if err != nil {
		return err
	}
	// The first consumer pays for everything that the consumers share.
	if _, _, err := reg.ready(c, []string{service}, 1, 1, initial); err != nil {
		return err
	}
	before, err := c.Do(child.Request{Do: child.Measure})
	if err != nil {
		return err
	}
	if _, _, err := reg.ready(c, []string{service}, w-1, 16, initial); err != nil {
		return err
	}
	if _, err := c.Do(child.Request{Do: child.Quiet, Timeout: reg.patience}); err != nil {
		return err
	}
	times, err := changeTimes(ctx, reg, n.subject, c, r.Changes)
	if err != nil {
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
	if reg.backend == "consul" {
		n.add("connections", "", float64(after.Usage.Conns))
		return nil
	}
	return addWatches(reg, n, watchers, streams)
}

// changeTimes adds and removes an endpoint in turns. It returns the times, in ms,
// until the last consumer of c had each change. At the end the endpoint is removed.
func changeTimes(ctx context.Context, reg *registry, s Subject, c *child.Child, changes int) ([]float64, error) {
	service, extra := "svc-"+s.Label, endpoint(1000)
	var times []float64
	for i := range changes {
		want, apply := initial+1, reg.add
		if i%2 == 1 {
			want, apply = initial, reg.remove
		}
		d, _, err := reg.change(ctx, c, 0, want, func(ctx context.Context) error { return apply(ctx, s.Peer, service, extra) })
		if err != nil {
			return nil, errors.Join(err, reg.remove(ctx, s.Peer, service, extra))
		}
		times = append(times, ms(d))
		time.Sleep(100 * time.Millisecond)
	}
	return times, reg.remove(ctx, s.Peer, service, extra)
}

// addWatches adds how many watches and streams etcd has more than before.
func addWatches(reg *registry, n note, watchers, streams float64) error {
	watchersNow, streamsNow, err := reg.watches()
	if err != nil {
		return err
	}
	n.add("watchers", "", watchersNow-watchers)
	n.add("streams", "", streamsNow-streams)
	return nil
}

// buildAtOnce counts the watches of consumers that are all added at once.
func buildAtOnce(reg *registry, n note, w int) error {
	c, err := reg.open(n.subject)
	if err != nil {
		return err
	}
	defer c.Kill()
	watchers, streams, err := reg.watches()
	if err != nil {
		return err
	}
	began, reply, err := reg.ready(c, []string{"svc-" + n.subject.Label}, w, w, initial)
	if err != nil {
		return err
	}
	if _, err := c.Do(child.Request{Do: child.Quiet, Timeout: reg.patience}); err != nil {
		return err
	}
	n.add("resolved", "ms", ms(time.Duration(reply.At-began)))
	return addWatches(reg, n, watchers, streams)
}

// watches returns how many watches and streams of watches etcd has, once the numbers
// stand still. The watches of a child that was killed end a little later.
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
