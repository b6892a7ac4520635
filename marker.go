package naming

import (
	"context"
	"fmt"
)

// Marker is what the author of a backend may implement beside [Store], so that an operator
// can take an endpoint that another program registered out of the traffic for new calls.
// [Client.Mark] calls it. A Store that is not a Marker works as any other. Only the mark of
// other programs' endpoints is not available. A [Composite] may also be a Marker.
type Marker interface {
	// Mark sets the draining mark of the endpoint id of a service, or removes it if
	// draining is false. The entry changes in place: it keeps its lease, its address, its
	// metadata and every other member. Afterwards watches yield the endpoint with
	// [Endpoint.Draining] set, or without. A registry that has a maintenance mode may use
	// it instead of the mark. Watches then yield the endpoint in [Batch.Withheld] with the
	// reason [Maintenance], or in [Batch.Put]. The backend documents which. A mark that the
	// owner itself has set stays when Mark ends a maintenance mode.
	//
	// A Mark of an entry that is already so changes nothing, and returns nil. Of several
	// calls at once, the last counts. A Mark that runs at the same time as an Apply or a
	// Revoke undoes neither: it never puts older content back, and an entry that was
	// deleted does not return. Mark may read the entry and write it only if the entry has
	// not changed since. It does so a bounded number of times.
	//
	// The error is [ErrNotFound] if the registry has no entry with the ID. It is
	// [ErrInvalid] if the entry's format has no place for the mark, if options of the
	// Store turn the mark off, if the entry cannot be understood, and for a service or an
	// ID that Apply refuses. With both errors nothing was stored. All methods may be
	// called concurrently.
	Mark(ctx context.Context, service, id string, draining bool) error
}

// Mark sets the draining mark of an endpoint that any program registered, or removes the
// mark if draining is false. It is for an operator, who takes an endpoint out of the traffic
// for new calls without the help of its program. See [Marker] for what a reader sees.
//
// A [Registration] that keeps the endpoint keeps the mark as well, until Mark removes it or
// the program itself calls Drain or Resume: see [RegistrationStatus.MarkedByOther]. A
// Registration made later, such as that of a restarted program, replaces the entry and with
// it the mark, unless the registry has a maintenance mode. If the owner writes the entry at
// the same moment, its write may be the last. So a caller looks at the endpoint for some
// seconds afterwards.
//
// On a Client of package migrate, Mark marks the entries of both registries. It returns
// [ErrNotFound] only if neither has the entry. When a later phase registers a joined program in
// the other registry, the program carries the mark there. A maintenance mode is not carried.
//
// The error is [ErrNotFound] if the service has no entry with the ID. It is [ErrInvalid] if
// the store is not a Marker, or if the entry has no place for the mark.
func (c *Client) Mark(ctx context.Context, service, id string, draining bool) error {
	if err := c.check(service); err != nil {
		return err
	}
	err := c.request(orBackground(ctx), func(ctx context.Context) error {
		return c.mark(ctx, service, id, draining)
	})
	if err != nil {
		return fmt.Errorf("naming: mark %q in %q: %w", cut(id), service, err)
	}
	return nil
}

// mark is Mark of the store or the composite.
func (c *Client) mark(ctx context.Context, service, id string, draining bool) error {
	var of any = c.store
	if c.composite != nil {
		of = c.composite
	}
	m, ok := of.(Marker)
	if !ok {
		return fmt.Errorf("%w: the store cannot mark the endpoints of other programs", ErrInvalid)
	}
	err := m.Mark(ctx, service, id, draining)
	if err == nil {
		c.wakeRetries()
	}
	return SafeError(err)
}
