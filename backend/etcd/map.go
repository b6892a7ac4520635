package etcd

import (
	"errors"
	"fmt"

	"github.com/naming-go/naming"
)

var _ naming.Mapper = (*Store)(nil)

// Map implements [naming.Mapper]. It encodes the endpoint as Apply does, and decodes the
// entry as a watch does.
func (s *Store) Map(service string, e naming.Endpoint) (naming.Endpoint, error) {
	changes, err := naming.Normalize(service, []naming.Change{{Op: naming.Add, Endpoint: e}})
	if err != nil {
		return naming.Endpoint{}, err
	}
	e = changes[0].Endpoint
	value, err := s.layout.encode(service, e)
	if err != nil {
		return naming.Endpoint{}, err
	}
	tail := s.layout.key(service, e.ID)[len(s.layout.dir(service)):]
	read, _, mine, err := s.layout.entry(service, tail, value)
	if err == nil && !mine {
		err = errors.New("its key belongs to another service")
	}
	if err != nil {
		return naming.Endpoint{}, fmt.Errorf("%w: no reader gets %q of service %q: %w", naming.ErrInvalid, e.ID, service, err)
	}
	return read, nil
}
