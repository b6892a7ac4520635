package consul

import (
	"errors"
	"fmt"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul/internal/wire"
)

var _ naming.Mapper = (*Store)(nil)

// Map implements [naming.Mapper]. It encodes the endpoint as Apply does, and decodes the
// entry as a watch does.
func (s *Store) Map(service string, e naming.Endpoint) (naming.Endpoint, error) {
	changes, err := naming.Normalize(service, []naming.Change{{Op: naming.Add, Endpoint: e}})
	if err != nil {
		return naming.Endpoint{}, err
	}
	if err := s.writable(service); err != nil {
		return naming.Endpoint{}, err
	}
	e = changes[0].Endpoint
	r, err := s.encode(service, e)
	if err != nil {
		return naming.Endpoint{}, err
	}
	entry := wire.EntryOf(r)
	read, err := entry.Endpoint(s.opts.rules())
	if err == nil && !s.opts.tagged(entry) {
		err = fmt.Errorf("its entry does not have the tag %.100q of the Store's options", s.opts.Tag)
	}
	if err != nil {
		return naming.Endpoint{}, fmt.Errorf("%w: no reader gets %.100q of service %.100q: %w", naming.ErrInvalid, e.ID, service, err)
	}
	return read, nil
}

// writable returns an error if the Store only reads.
func (s *Store) writable(service string) error {
	if s.opts.Datacenter != "" {
		return fmt.Errorf("%w: apply to %q: a Store with a Datacenter only reads", naming.ErrInvalid, service)
	}
	return nil
}

// encode returns the registration of an endpoint, without IDs, check and number. Every
// error is [naming.ErrInvalid].
func (s *Store) encode(service string, e naming.Endpoint) (*api.AgentServiceRegistration, error) {
	var r *api.AgentServiceRegistration
	err := errMarksNothing
	if !e.Draining || !s.opts.NoDrainingMark {
		r, err = wire.Encode(e, s.opts.format())
	}
	if err != nil {
		return nil, fmt.Errorf("%w: put %.100q in service %.100q: %w", naming.ErrInvalid, e.ID, service, err)
	}
	return r, nil
}

var errMarksNothing = errors.New("a Store with NoDrainingMark marks nothing as draining")
