package bridge

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
)

// Plan reads both registries once and returns what a Bridge would do now, without a write:
// the copies that it would put, those that it would delete, and what is lost. Copies that
// only change their lease or their mark are not in the plan. Losses are complete only if
// the target is a [naming.Mapper].
//
// Plan needs no election and no Run.
func (b *Bridge) Plan(ctx context.Context) (*Plan, error) {
	d := b.newDryRun()
	defer d.close()
	names, err := b.names(ctx, b.source, b.target)
	if err != nil {
		return nil, fmt.Errorf("bridge: plan: %w", err)
	}
	p := new(Plan)
	for _, n := range names {
		s, err := d.load(ctx, n, true)
		if err != nil {
			return nil, fmt.Errorf("bridge: plan: %w", err)
		}
		d.add(p, s)
	}
	p.Blown = d.fuse.exceeded()
	p.seal()
	return p, nil
}

// dryRun reads registries once.
type dryRun struct {
	b              *Bridge
	source, target *naming.Client
	fuse           *fuse
}

func (b *Bridge) newDryRun() *dryRun {
	off := naming.Hold{Disabled: true}
	return &dryRun{
		b: b, fuse: newFuse(b.opts.Fuse),
		source: b.client(b.source, b.opts.SourceName, off, nil), target: b.client(b.target, b.opts.TargetName, off, nil),
	}
}

func (d *dryRun) close() {
	d.source.Close()
	d.target.Close()
}

// names returns the services of Stores that are copied, sorted. A Store that fails is an
// error: a Client would wait for it.
func (b *Bridge) names(ctx context.Context, stores ...naming.Store) (all []string, err error) {
	for _, s := range stores {
		for names, err := range s.Services(ctx) {
			if err != nil {
				return nil, err
			}
			all = append(all, names...)
			break
		}
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(n string) bool { return !b.opts.copies(n) }), nil
}

// load reads a service. All copies of the target are in the ledger, as if they had been put
// now. Without the source, the source counts as empty.
func (d *dryRun) load(ctx context.Context, name string, withSource bool) (*service, error) {
	s := newService(name)
	s.source.apply(naming.Event{Batch: naming.Batch{Snapshot: true}, Status: naming.Status{Synced: true, AsOf: time.Now()}})
	if withSource {
		v, err := d.source.List(ctx, name)
		if err != nil {
			return nil, err
		}
		s.source.apply(naming.Event{Batch: naming.Batch{Snapshot: true, Put: v.Endpoints, Withheld: v.Withheld}, Status: v.Status})
	}
	v, err := d.target.List(ctx, name)
	if err != nil {
		return nil, err
	}
	s.applyTarget(d.b.copier, 0, naming.Event{Batch: naming.Batch{Snapshot: true, Put: v.Endpoints, Withheld: v.Withheld}, Status: v.Status})
	for id, e := range s.inherited {
		native, _ := migrate.Native(e)
		s.ledger[id] = &record{native: native, sure: true, putAt: time.Now(), lease: new(sharedLease), leaving: native.Info().Draining}
	}
	clear(s.inherited)
	return s, nil
}

// add adds to a plan what a service needs.
func (d *dryRun) add(p *Plan, s *service) {
	c := d.b.copier
	n := s.needs(c)
	for id, native := range n.want {
		e, _, err := c.copy(s.name, native, 0, 0)
		if err != nil {
			p.Losses = append(p.Losses, migrate.Loss{Service: s.name, Endpoint: native, Err: naming.SafeError(err)})
			continue
		}
		if l, lacks := c.loss(s.name, native, e); lacks {
			p.Losses = append(p.Losses, l)
		}
		if there, ok := s.target.get(id); !ok || !c.same(s.name, e, there) {
			p.Puts = append(p.Puts, Put{Service: s.name, Endpoint: e})
		}
	}
	deletes := n.unwanted()
	d.note(s, deletes)
	p.Deletes = append(p.Deletes, deletes...)
}

// note adds the deletions of a service to the fuse.
func (d *dryRun) note(s *service, deletes []Delete) {
	d.fuse.update(s.name, len(s.ledger), slices.DeleteFunc(slices.Clone(deletes), func(del Delete) bool { return !del.Counts }))
}
