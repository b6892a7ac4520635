package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/naming-go/naming"
	"golang.org/x/sync/errgroup"
)

// composite is the [naming.Composite] of a Joined. It is a type of its own so that its
// methods are not methods of Joined.
type composite struct{ *Joined }

var (
	_ naming.Composite = composite{}
	_ naming.Marker    = composite{}
)

func (c composite) Announce(service string, e naming.Endpoint, opts naming.RegisterOptions) (naming.Announcement, error) {
	return c.announce(service, e, opts)
}

func (c composite) Follow(service string, wake func()) (naming.Feed, error) {
	return c.newFeed(service, wake)
}

// List reads the registries that the phase of the service reads. It returns an error if
// one of them cannot be read, because a part of the set would look like a smaller set.
func (c composite) List(ctx context.Context, service string) (naming.View, error) {
	state, known := c.state(service)
	ch := choose(state, known, c.inShare(service, state.Share))
	var read [2]bool
	read[ch.lead] = true
	read[ch.lead.other()] = !ch.alone
	var views [2]view
	g, ctx := errgroup.WithContext(ctx)
	for i, want := range read {
		if !want {
			continue
		}
		g.Go(func() error {
			v, err := c.sides[i].client.List(ctx, service)
			if err != nil {
				return fmt.Errorf("registry %q: %w", c.sides[i].name, err)
			}
			views[i] = view{synced: true, fresh: true}
			views[i].usable, views[i].withheld = asNatives(v.Endpoints, v.Withheld)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return naming.View{}, err
	}
	out := publish(ch, &views, &memory{waited: true, narrow: ch.alone, to: ch.lead})
	v := naming.View{Service: service, Endpoints: out.usable, Withheld: out.withheld, Status: naming.Status{Synced: true, AsOf: time.Now()}}
	if v.Endpoints == nil {
		v.Endpoints = []naming.Endpoint{}
	}
	return v, nil
}

// Apply makes changes in the registries that the phase of the service writes. It returns
// an error if one of them fails: the caller applies the changes again.
func (c composite) Apply(ctx context.Context, service string, changes []naming.Change) error {
	state, known := c.state(service)
	var errs [2]error
	var g errgroup.Group
	written := false
	for i := range c.sides {
		if c.sides[i].readOnly || known && !state.Phase.writes(sideIndex(i)) {
			continue
		}
		written = true
		g.Go(func() error {
			if err := c.sides[i].store.Apply(ctx, service, changes...); err != nil {
				errs[i] = fmt.Errorf("registry %q: %w", c.sides[i].name, err)
			}
			return nil
		})
	}
	_ = g.Wait() // the errors are in errs
	if !written {
		return fmt.Errorf("%w: the registry of phase %v is read-only", naming.ErrInvalid, state.Phase)
	}
	return errors.Join(errs[:]...)
}

// Mark marks the entry in both registries, whatever the phase, and leaves out a registry that
// is read-only. A copy that a bridge made is not marked: the bridge copies the mark of the
// endpoint. Mark returns [naming.ErrNotFound] only if neither registry has the entry.
func (c composite) Mark(ctx context.Context, service, id string, draining bool) error {
	var errs [2]error
	var g errgroup.Group
	for i := range c.sides {
		if c.sides[i].readOnly {
			errs[i] = fmt.Errorf("registry %q, which is read-only, was not asked: %w", c.sides[i].name, naming.ErrNotFound)
			continue
		}
		g.Go(func() error {
			if err := c.sides[i].mark(ctx, service, id, draining); err != nil {
				errs[i] = fmt.Errorf("registry %q: %w", c.sides[i].name, err)
			}
			return nil
		})
	}
	_ = g.Wait() // the errors are in errs
	for i := range errs {
		if errors.Is(errs[i], naming.ErrNotFound) && !errors.Is(errs[1-i], naming.ErrNotFound) {
			return errs[1-i] // the result of the registry that has the entry
		}
	}
	return errors.Join(errs[:]...)
}

// mark marks the entry in one registry.
func (s *side) mark(ctx context.Context, service, id string, draining bool) error {
	m, ok := s.store.(naming.Marker)
	if !ok {
		return fmt.Errorf("%w: the store cannot mark the endpoints of other programs", naming.ErrInvalid)
	}
	return m.Mark(ctx, service, id, draining)
}

// Close closes the Clients of both registries.
func (c composite) Close() {
	for i := range c.sides {
		c.sides[i].client.Close()
	}
}
