package bridge_test

import (
	"context"
	"errors"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
	"github.com/naming-go/naming/migrate/bridge"
)

// tap is a Store between a Bridge and a registry. It checks every write of the Bridge
// against the rules that protect the endpoints of others.
type tap struct {
	naming.Store
	t *testing.T
	// enter, if not nil, is called before each request. An error ends the request, which
	// has no effect then. leave is called after it, and an error hides the effect.
	enter, leave func(method, service string) error

	mu     sync.Mutex
	counts map[string]int // requests by method
	puts   int            // Adds of copies
	writes []string       // "+ID" and "-ID", in their order
}

func newTap(t *testing.T, s naming.Store) *tap {
	return &tap{Store: s, t: t, counts: make(map[string]int)}
}

var errKilled = errors.New("killed")

func (p *tap) request(method, service string, effect func() error) error {
	p.mu.Lock()
	p.counts[method]++
	enter, leave := p.enter, p.leave
	p.mu.Unlock()
	if enter != nil {
		if err := enter(method, service); err != nil {
			return err
		}
	}
	err := effect()
	if leave != nil {
		err = errors.Join(err, leave(method, service))
	}
	return err
}

func (p *tap) count(method string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts[method]
}

func (p *tap) history() (puts int, writes []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.puts, append([]string(nil), p.writes...)
}

// check fails the test for a change that could touch an endpoint of another program.
func (p *tap) check(service string, c naming.Change) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _, isCopy := migrate.ParseCopyID(c.Endpoint.ID)
	switch {
	case service == bridge.Service:
		if c.Op == naming.Delete || c.Lease == nil {
			p.t.Errorf("the Bridge makes change %+v of %s", c, service)
		}
		return
	case !isCopy:
		p.t.Errorf("the Bridge makes a change of endpoint %q, which is not a copy", c.Endpoint.ID)
	case c.Lease == nil:
		p.t.Errorf("%v of copy %q without a lease", c.Op, c.Endpoint.ID)
	case c.Reclaim:
		p.t.Errorf("%v of copy %q reclaims", c.Op, c.Endpoint.ID)
	}
	if c.Op == naming.Add {
		p.puts++
		p.writes = append(p.writes, "+"+c.Endpoint.ID)
	} else {
		p.writes = append(p.writes, "-"+c.Endpoint.ID)
	}
}

func (p *tap) Apply(ctx context.Context, service string, changes ...naming.Change) error {
	inner := make([]naming.Change, len(changes))
	for i, c := range changes {
		p.check(service, c)
		if l, ok := c.Lease.(*tapLease); ok {
			c.Lease = l.Lease
		}
		inner[i] = c
	}
	return p.request("Apply", service, func() error { return p.Store.Apply(ctx, service, inner...) })
}

func (p *tap) Grant(ctx context.Context, ttl time.Duration) (l naming.Lease, err error) {
	err = p.request("Grant", "", func() error {
		l, err = p.Store.Grant(ctx, ttl)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &tapLease{l, p}, nil
}

func (p *tap) Watch(ctx context.Context, service string) iter.Seq2[naming.Batch, error] {
	return func(yield func(naming.Batch, error) bool) {
		if err := p.request("Watch", service, func() error { return nil }); err != nil {
			yield(naming.Batch{}, err)
			return
		}
		for b, err := range p.Store.Watch(ctx, service) {
			if err == nil && p.enter != nil {
				err = p.enter("batch", service)
			}
			if err != nil {
				yield(naming.Batch{}, err)
				return
			}
			if !yield(b, nil) {
				return
			}
		}
	}
}

func (p *tap) Services(ctx context.Context) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		if err := p.request("Services", "", func() error { return nil }); err != nil {
			yield(nil, err)
			return
		}
		for names, err := range p.Store.Services(ctx) {
			if !yield(names, err) || err != nil {
				return
			}
		}
	}
}

// tapLease is a lease of a tap.
type tapLease struct {
	naming.Lease
	tap *tap
}

func (l *tapLease) Renew(ctx context.Context) error {
	return l.tap.request("Renew", "", func() error { return l.Lease.Renew(ctx) })
}

func (l *tapLease) Revoke(ctx context.Context) error {
	return l.tap.request("Revoke", "", func() error { return l.Lease.Revoke(ctx) })
}

// deaf is a Store whose writes ignore the end of their context, as those of a process that
// was stopped after it had sent them.
type deaf struct{ *tap }

func (d deaf) Apply(_ context.Context, service string, changes ...naming.Change) error {
	return d.tap.Apply(context.Background(), service, changes...)
}
