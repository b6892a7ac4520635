package scenarios

import (
	"context"
	"testing"
	"time"

	"github.com/naming-go/naming/bench/child"
	"github.com/naming-go/naming/bench/report"
)

// bigService is S3. Peers that read the same entries share a service, because their
// children run one after the other.
func bigService(r *Run, tb testing.TB, reg *registry) error {
	ctx := context.Background()
	sizes := r.Endpoints
	if reg.backend == "consul" {
		sizes = r.ConsulLarge
	}
	filled := make(map[string]bool)
	fill := func(s Subject, service string, size int) error {
		if filled[service] {
			return nil
		}
		filled[service] = true
		return reg.fill(ctx, s.Peer, service, endpoints(size))
	}
	for i, size := range sizes {
		name := "N = " + report.Number(size)
		for repeat := range r.Repeats {
			for _, s := range r.rotated(reg) {
				small, big := "small-"+format(s.Peer), "big-"+format(s.Peer)+"-"+report.Number(size)
				if err := fill(s, small, 1); err != nil {
					return err
				}
				if err := fill(s, big, size); err != nil {
					return err
				}
				n := r.note(reg, name, repeat, s)
				var least note // of the smallest service, for comparison
				if i > 0 {
					least = r.note(reg, "N = "+report.Number(sizes[0]), repeat, s)
				}
				if err := bigServiceOne(ctx, r, reg, n, least, small, big, size); err != nil {
					n.fail("first", "ms", err)
				}
			}
			r.Logf("S3 %s %s: repeat %d of %d", reg.backend, name, repeat+1, r.Repeats)
		}
	}
	return nil
}

func bigServiceOne(ctx context.Context, r *Run, reg *registry, n, least note, small, big string, size int) error {
	s := n.subject
	c, err := reg.open(s)
	if err != nil {
		return err
	}
	defer c.Kill()
	// The first set must not include the connection, nor other work that a peer does
	// only once.
	if _, _, err := reg.ready(c, []string{small}, 1, 1, 1); err != nil {
		return err
	}
	began, reply, err := reg.ready(c, []string{big}, 1, 1, size)
	if err != nil {
		return err
	}
	n.add("first", "ms", ms(time.Duration(reply.At-began)))
	n.add("first, allocated", "MB", float64(reply.Usage.Allocated)/1e6)
	var times, allocs, bytes []float64
	for i := range r.Changes {
		if _, err := c.Do(child.Request{Do: child.Quiet, Timeout: reg.patience}); err != nil {
			return err
		}
		want, apply := size+1, reg.add
		if i%2 == 1 {
			want, apply = size, reg.remove
		}
		d, reply, err := reg.change(ctx, c, 1, want, func(ctx context.Context) error { return apply(ctx, s.Peer, big, endpoint(1<<20)) })
		if err != nil {
			_ = reg.remove(ctx, s.Peer, big, endpoint(1<<20))
			return err
		}
		times = append(times, ms(d))
		allocs = append(allocs, float64(reply.Usage.Mallocs))
		bytes = append(bytes, float64(reply.Usage.Allocated)/1e3)
	}
	n.add("change", "ms", report.Percentile(times, 50))
	n.add("change, allocations", "", report.Percentile(allocs, 50))
	b := n.add("change, allocated", "KB", report.Percentile(bytes, 50))
	if least.name == "" {
		return reg.remove(ctx, s.Peer, big, endpoint(1<<20))
	}
	if of := least.row("change, allocated", "KB").byRepeat[n.repeat]; of > 0 {
		n.add("of that at "+least.name, "×", b.byRepeat[n.repeat]/of)
	}
	return reg.remove(ctx, s.Peer, big, endpoint(1<<20))
}
