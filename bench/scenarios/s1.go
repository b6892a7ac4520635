package scenarios

import (
	"context"
	"testing"
	"time"

	"github.com/naming-go/naming/bench/child"
	"github.com/naming-go/naming/bench/report"
)

// propagation is S1. All peers are there at the same time, each with a service
// of its own, and take turns at every sample.
func propagation(r *Run, tb testing.TB, reg *registry) error {
	ctx := context.Background()
	const present = 10
	samples, apart := r.Samples, 20*time.Millisecond
	if reg.backend == "consul" {
		samples, apart = r.ConsulSamples, 150*time.Millisecond
	}
	children := make(map[string]*child.Child)
	defer func() {
		for _, c := range children {
			c.Kill()
		}
	}()
	drop := func(s Subject, repeat int, err error) {
		r.note(reg, "", repeat, s).fail("p50", "ms", err)
		children[s.Label].Kill()
		delete(children, s.Label)
	}
	service := func(s Subject) string { return "svc-" + s.Label }
	for _, s := range r.on(reg) {
		if err := reg.fill(ctx, s.Peer, service(s), endpoints(present)); err != nil {
			return err
		}
		c, err := reg.open(s)
		if err == nil {
			children[s.Label] = c
			_, _, err = reg.ready(c, []string{service(s)}, 1, 1, present)
		}
		if err != nil {
			r.note(reg, "", 0, s).fail("p50", "ms", err)
			delete(children, s.Label)
		}
	}
	// What comes shortly after another change may be held back on purpose, so
	// the changes that are measured come alone.
	last := make(map[string]time.Time)
	alone := func(s Subject) {
		time.Sleep(apart - time.Since(last[s.Label]))
		last[s.Label] = time.Now()
	}
	extra := endpoint(1000)
	for repeat := range r.Repeats {
		times := make(map[string][]float64)
		sets := make(map[string][]float64)
		for i := range samples + r.Registrations {
			register := i >= samples
			for _, s := range r.rotated(reg) {
				c := children[s.Label]
				if c == nil {
					continue
				}
				alone(s)
				if register {
					d, err := registration(reg, c, service(s), present+1)
					if err != nil {
						r.note(reg, "", repeat, s).fail("registration p50", "ms", err)
						continue
					}
					sets[s.Label] = append(sets[s.Label], ms(d))
					continue
				}
				d, _, err := reg.change(ctx, c, 0, present+1, func(ctx context.Context) error {
					return reg.announce(ctx, s.Peer, service(s), extra)
				})
				if err != nil {
					drop(s, repeat, err)
					continue
				}
				times[s.Label] = append(times[s.Label], ms(d))
			}
			for _, s := range r.on(reg) {
				c := children[s.Label]
				if c == nil {
					continue
				}
				alone(s)
				if register {
					if len(sets[s.Label]) == 0 {
						continue
					}
					if _, err := c.Do(child.Request{Do: child.Arm, Want: present}); err != nil {
						drop(s, repeat, err)
					} else if _, err := c.Do(child.Request{Do: child.Deregister, Services: []string{service(s)}, Endpoint: extra}); err != nil {
						drop(s, repeat, err)
					} else if _, err := c.Do(child.Request{Do: child.Wait, Timeout: reg.patience}); err != nil {
						drop(s, repeat, err)
					}
					continue
				}
				_, _, err := reg.change(ctx, c, 0, present, func(ctx context.Context) error {
					return reg.withdraw(ctx, s.Peer, service(s), extra)
				})
				if err != nil {
					drop(s, repeat, err)
				}
			}
		}
		for _, s := range r.on(reg) {
			n := r.note(reg, "", repeat, s)
			if t := times[s.Label]; len(t) > 0 {
				n.add("p50", "ms", report.Percentile(t, 50))
				n.add("p99", "ms", report.Percentile(t, 99))
			}
			if t := sets[s.Label]; len(t) > 0 {
				n.add("registration p50", "ms", report.Percentile(t, 50)).base = "p50"
			}
		}
		r.Logf("S1 %s: repeat %d of %d", reg.backend, repeat+1, r.Repeats)
	}
	return nil
}

// registration is how long it takes from a peer's Register until the peer's
// consumer has the endpoint.
func registration(reg *registry, c *child.Child, service string, want int) (time.Duration, error) {
	if _, err := c.Do(child.Request{Do: child.Arm, Want: want}); err != nil {
		return 0, err
	}
	time.Sleep(2 * time.Millisecond)
	began, err := c.Do(child.Request{Do: child.Register, Services: []string{service}, Endpoint: endpoint(1000), Timeout: reg.patience})
	if err != nil {
		return 0, err
	}
	reply, err := c.Do(child.Request{Do: child.Wait, Timeout: reg.patience})
	return time.Duration(reply.At - began.Began), err
}
