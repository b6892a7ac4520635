package transfer

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/steer"
)

// perApply is how many entries are written at once.
const perApply = 100

// Progress is how far a copy is.
type Progress struct {
	// Service is the service that was written last.
	Service string
	// Done of Total entries were written.
	Done, Total int
}

// Copy is a copy that Run has made.
type Copy struct {
	// Written is how many entries were written.
	Written int

	to     naming.Store
	leases []naming.Lease
	kept   []kept
	ttl    time.Duration
}

// kept is a change under a lease, which is made again if the lease is lost.
type kept struct {
	service string
	change  naming.Change
	lease   int // the index of its lease
}

// Run writes what the plan says. Entries whose copies are kept are under leases of the time to
// live ttl: call Keep, or Release. progress, if not nil, is called after each write.
//
// An entry under a lease is put only if its ID is free. For an entry without a lease the
// registries have no such condition: an entry that another program writes between Make and
// Run is replaced.
//
// The timeout of the plan's Options bounds each write. After an error, the Copy has what was
// written, and to make and run the plan again goes on.
func (p *Plan) Run(ctx context.Context, to naming.Store, ttl time.Duration, progress func(Progress)) (*Copy, error) {
	c := &Copy{to: to, ttl: ttl}
	total := p.Count(Write, Overwrite)
	for i := 0; i < len(p.Items); {
		batch, next := p.batch(i)
		i = next
		if len(batch) == 0 {
			continue
		}
		if err := c.write(ctx, p.opts, batch); err != nil {
			return c, err
		}
		c.Written += len(batch)
		if progress != nil {
			progress(Progress{Service: batch[0].Service, Done: c.Written, Total: total})
		}
	}
	return c, nil
}

// batch returns the entries of one service to write from item i on, and the item after them.
func (p *Plan) batch(i int) (batch []*Item, next int) {
	service := p.Items[i].Service
	for next = i; next < len(p.Items) && p.Items[next].Service == service && len(batch) < perApply; next++ {
		if item := &p.Items[next]; item.Action == Write || item.Action == Overwrite {
			batch = append(batch, item)
		}
	}
	return batch, next
}

// write writes entries of one service.
func (c *Copy) write(ctx context.Context, o Options, batch []*Item) error {
	ctx, cancel := o.bound(ctx)
	defer cancel()
	var changes []naming.Change
	lease := -1
	for _, item := range batch {
		change := naming.Change{Op: naming.Add, Endpoint: item.Endpoint}
		if o.Leased == Keep && !item.Endpoint.Unleased {
			if lease < 0 {
				l, err := c.to.Grant(ctx, c.ttl) // within the bound of the write
				if err != nil {
					return err
				}
				c.leases, lease = append(c.leases, l), len(c.leases)
			}
			change.Lease, change.IfFree = c.leases[lease], item.Action == Write
			c.kept = append(c.kept, kept{batch[0].Service, change, lease})
		}
		changes = append(changes, change)
	}
	return c.to.Apply(ctx, batch[0].Service, changes...)
}

// Kept returns how many entries are under leases of the Copy.
func (c *Copy) Kept() int { return len(c.kept) }

// Keep renews the leases until ctx is done, and returns ctx.Err(). failed, if not nil, is
// called when a renewal failed. A lease that was lost is replaced, and its entries are put
// again where their IDs are free.
func (c *Copy) Keep(ctx context.Context, failed func(error)) error {
	tick := time.NewTicker(c.ttl / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		for i := range c.leases {
			if err := c.renew(ctx, i); err != nil && ctx.Err() == nil && failed != nil {
				failed(err)
			}
		}
	}
}

// renew renews a lease, or replaces a lease that was lost.
func (c *Copy) renew(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, c.ttl/3)
	defer cancel()
	err := c.leases[i].Renew(ctx)
	if !errors.Is(err, naming.ErrLeaseLost) {
		return err
	}
	l, err := c.to.Grant(ctx, c.ttl)
	if err != nil {
		return err
	}
	c.leases[i] = l
	var errs []error
	for j := range c.kept {
		k := &c.kept[j]
		if k.lease != i {
			continue
		}
		k.change.Lease, k.change.IfFree = l, true
		errs = append(errs, c.to.Apply(ctx, k.service, k.change))
	}
	return errors.Join(errs...)
}

// Release removes the entries that are under leases of the Copy.
func (c *Copy) Release(ctx context.Context) error {
	var errs []error
	for _, l := range c.leases {
		errs = append(errs, l.Revoke(ctx))
	}
	return errors.Join(errs...)
}

// Missing reads the target again, and returns the entries that were to be written and are not
// there as the target should have them.
func (p *Plan) Missing(ctx context.Context, to naming.Store) ([]Item, error) {
	c := naming.New(to, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	defer c.Close()
	services := p.written()
	missing := make([][]Item, len(services))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, items := range services {
		group.Go(func() error {
			v, err := p.opts.list(ctx, c, "target", items[0].Service)
			missing[i] = lacking(v, items)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return slices.Concat(missing...), nil
}

// written returns the items to write, by service.
func (p *Plan) written() (services [][]Item) {
	for _, item := range p.Items {
		n := len(services)
		switch {
		case item.Action != Write && item.Action != Overwrite:
		case n > 0 && services[n-1][0].Service == item.Service:
			services[n-1] = append(services[n-1], item)
		default:
			services = append(services, []Item{item})
		}
	}
	return services
}

// lacking returns the items that a view does not have as they should be.
func lacking(v naming.View, items []Item) (missing []Item) {
	there := make(map[string]naming.Endpoint)
	for _, e := range steer.Present(v) {
		there[e.ID] = e
	}
	for _, item := range items {
		if e, ok := there[item.want.ID]; !ok || !e.Equal(item.want) {
			missing = append(missing, item)
		}
	}
	return missing
}
