package scenarios

import (
	"context"
	"testing"
	"time"

	"github.com/naming-go/naming/bench/child"
	"github.com/naming-go/naming/bench/report"
)

// initial is how many endpoints a service has before a change is measured.
const initial = 10

// propagation is S1. All peers run at the same time, each with a service of its own.
// They take turns at every sample.
func propagation(r *Run, tb testing.TB, reg *registry) error {
	p := &s1{Run: r, reg: reg, children: make(map[string]*child.Child), last: make(map[string]time.Time), apart: 20 * time.Millisecond}
	samples := r.Samples
	if reg.backend == "consul" {
		samples, p.apart = r.ConsulSamples, 150*time.Millisecond
	}
	defer func() {
		for _, c := range p.children {
			c.Kill()
		}
	}()
	ctx := context.Background()
	if err := p.open(ctx); err != nil {
		return err
	}
	for p.repeat = range r.Repeats {
		p.times, p.registrations = make(map[string][]float64), make(map[string][]float64)
		for range samples {
			p.sample(ctx)
		}
		for range r.Registrations {
			p.register()
		}
		p.report()
		r.Logf("S1 %s: repeat %d of %d", reg.backend, p.repeat+1, r.Repeats)
	}
	return nil
}

// s1 is S1 in progress. The maps are by the label of the subject.
type s1 struct {
	*Run
	reg      *registry
	apart    time.Duration           // between two changes of one subject's service
	children map[string]*child.Child // without the subjects that failed
	last     map[string]time.Time    // the last change of a subject's service
	repeat   int

	times, registrations map[string][]float64 // in ms, of this repeat
}

func (p *s1) service(s Subject) string { return "svc-" + s.Label }

// open fills the services, and starts a child with one consumer for each subject.
func (p *s1) open(ctx context.Context) error {
	for _, s := range p.on(p.reg) {
		if err := p.reg.fill(ctx, s.Peer, p.service(s), endpoints(initial)); err != nil {
			return err
		}
		c, err := p.reg.open(s)
		if err == nil {
			p.children[s.Label] = c
			_, _, err = p.reg.ready(c, []string{p.service(s)}, 1, 1, initial)
		}
		if err != nil {
			p.note(p.reg, "", 0, s).fail("p50", "ms", err)
			delete(p.children, s.Label)
		}
	}
	return nil
}

// alone waits until the last change of the subject's service is long enough ago.
// A peer may delay on purpose what comes shortly after another change.
func (p *s1) alone(s Subject) {
	time.Sleep(p.apart - time.Since(p.last[s.Label]))
	p.last[s.Label] = time.Now()
}

// drop ends a subject that failed.
func (p *s1) drop(s Subject, err error) {
	p.note(p.reg, "", p.repeat, s).fail("p50", "ms", err)
	p.children[s.Label].Kill()
	delete(p.children, s.Label)
}

// sample measures one write for every subject. Then it removes what was written.
func (p *s1) sample(ctx context.Context) {
	extra := endpoint(1000)
	for _, s := range p.rotated(p.reg) {
		c := p.children[s.Label]
		if c == nil {
			continue
		}
		p.alone(s)
		d, _, err := p.reg.change(ctx, c, 0, initial+1, func(ctx context.Context) error {
			return p.reg.announce(ctx, s.Peer, p.service(s), extra)
		})
		if err != nil {
			p.drop(s, err)
			continue
		}
		p.times[s.Label] = append(p.times[s.Label], ms(d))
	}
	for _, s := range p.on(p.reg) {
		c := p.children[s.Label]
		if c == nil {
			continue
		}
		p.alone(s)
		_, _, err := p.reg.change(ctx, c, 0, initial, func(ctx context.Context) error {
			return p.reg.withdraw(ctx, s.Peer, p.service(s), extra)
		})
		if err != nil {
			p.drop(s, err)
		}
	}
}

// register measures one registration for every subject. Then it deregisters.
func (p *s1) register() {
	for _, s := range p.rotated(p.reg) {
		c := p.children[s.Label]
		if c == nil {
			continue
		}
		p.alone(s)
		d, err := registration(p.reg, c, p.service(s), initial+1)
		if err != nil {
			p.note(p.reg, "", p.repeat, s).fail("registration p50", "ms", err)
			continue
		}
		p.registrations[s.Label] = append(p.registrations[s.Label], ms(d))
	}
	for _, s := range p.on(p.reg) {
		c := p.children[s.Label]
		if c == nil {
			continue
		}
		p.alone(s)
		if len(p.registrations[s.Label]) == 0 {
			continue // it has no registrar
		}
		if err := deregistration(p.reg, c, p.service(s), initial); err != nil {
			p.drop(s, err)
		}
	}
}

// report adds this repeat to the rows.
func (p *s1) report() {
	for _, s := range p.on(p.reg) {
		n := p.note(p.reg, "", p.repeat, s)
		if t := p.times[s.Label]; len(t) > 0 {
			n.add("p50", "ms", report.Percentile(t, 50))
			n.add("p99", "ms", report.Percentile(t, 99))
		}
		if t := p.registrations[s.Label]; len(t) > 0 {
			n.add("registration p50", "ms", report.Percentile(t, 50)).base = "p50"
		}
	}
}

// registration returns how long it takes from a peer's Register until the peer's
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

// deregistration calls a peer's Deregister, and waits until the peer's consumer has
// lost the endpoint.
func deregistration(reg *registry, c *child.Child, service string, want int) error {
	if _, err := c.Do(child.Request{Do: child.Arm, Want: want}); err != nil {
		return err
	}
	if _, err := c.Do(child.Request{Do: child.Deregister, Services: []string{service}, Endpoint: endpoint(1000)}); err != nil {
		return err
	}
	_, err := c.Do(child.Request{Do: child.Wait, Timeout: reg.patience})
	return err
}
