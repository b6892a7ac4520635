package consul

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul/internal/wire"
)

// markNote is the note of the maintenance mode that Mark begins.
const markNote = "drained with package naming"

// Mark implements [naming.Marker] with the maintenance mode of the endpoint's registrations,
// and works for the entries of every writer. A watch then yields the endpoint in Withheld,
// with the reason [naming.Maintenance]: see [Store] on maintenance. Mark ends the maintenance
// mode of a service also if an operator began it in another way. It does not end the
// maintenance mode of a node.
//
// Only the agent that has a registration can change it. If the registration is with another
// agent than the client's, Mark returns [naming.ErrInvalid] and names the node. Of an endpoint
// with registrations at several agents, Mark changes those of the client's agent before it
// returns that error.
func (s *Store) Mark(ctx context.Context, service, id string, draining bool) error {
	if err := naming.CheckID(service, id); err != nil {
		return err
	}
	if err := s.writable(service); err != nil {
		return err
	}
	m := &marking{apply: apply{store: s, service: service, name: toConsul(s.opts.Prefix + service)}, id: id, draining: draining}
	if err := m.run(ctx); err != nil {
		return fmt.Errorf("consul: mark %q of %q: %w", id, service, describe(ctx, err))
	}
	return nil
}

// marking is one call of Mark. Only the goroutine of the call uses it.
type marking struct {
	apply
	id       string
	draining bool
}

// run begins or ends the maintenance mode, and looks until the catalogue has it. The endpoint
// may be registered again meanwhile, under another service ID.
func (m *marking) run(ctx context.Context) error {
	release, err := m.store.locks.acquire(ctx, m.name)
	if err != nil {
		return err
	}
	defer release()
	for look := 1; ; look++ {
		entries, err := m.read(ctx)
		if look > 1 && !m.draining && errors.Is(err, naming.ErrNotFound) {
			return nil // the maintenance mode of an endpoint whose lease has ended was ended
		}
		if err != nil {
			return err
		}
		amiss := slices.DeleteFunc(entries, func(i *wire.Entry) bool {
			_, out := i.Maintenance()
			return out == m.draining
		})
		switch {
		case len(amiss) == 0:
			return nil
		case look == settleLooks:
			return fmt.Errorf("the endpoint was registered again %d times while it was marked: %w", settleLooks, errNotSynced)
		}
		if err := m.setAll(ctx, amiss); err != nil {
			return err
		}
	}
}

// read returns the registrations of the endpoint. A registration whose lease has ended counts
// only for the end of the maintenance mode, which the next registration would take over.
func (m *marking) read(ctx context.Context) ([]*wire.Entry, error) {
	found, err := m.readEndpoints(ctx, []string{m.id})
	if err != nil {
		return nil, err
	}
	var live, gone []*wire.Entry
	var bad error
	for _, i := range found[m.id] {
		_, err := i.Endpoint(m.store.opts.rules())
		_, out := i.Maintenance()
		switch {
		case err != nil:
			bad = err
		case !m.store.opts.standing(i).gone:
			live = append(live, i)
		case out && !m.draining:
			gone = append(gone, i)
		}
	}
	switch {
	case len(live)+len(gone) > 0:
		return append(live, gone...), nil
	case bad != nil:
		return nil, fmt.Errorf("%w: the entry cannot be understood: %w", naming.ErrInvalid, bad)
	}
	return nil, naming.ErrNotFound
}

// setAll begins or ends the maintenance mode of some entries. The error names the node of an
// entry that the agent does not have.
func (m *marking) setAll(ctx context.Context, entries []*wire.Entry) error {
	var elsewhere error
	for _, i := range entries {
		here, err := m.store.hasSame(ctx, i)
		if err != nil {
			return err
		}
		if here {
			err = m.set(ctx, i.Service.ID)
		}
		switch {
		case unknown(err): // it was removed meanwhile: the next look decides
		case err != nil:
			return err
		case !here:
			elsewhere = fmt.Errorf("%w: the registration %q is with the agent of node %q at %q, and only that agent can change it", naming.ErrInvalid, i.Service.ID, i.Node.Node, i.Node.Address)
		}
	}
	return elsewhere
}

// set begins or ends the maintenance mode of a registration with the agent.
func (m *marking) set(ctx context.Context, serviceID string) error {
	if m.draining {
		return m.store.maintain(ctx, serviceID, markNote)
	}
	return m.store.agentCall(ctx, func(q *api.QueryOptions) error {
		return m.store.client.Agent().DisableServiceMaintenanceOpts(serviceID, q)
	})
}
