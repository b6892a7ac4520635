package consul

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"
)

// This file has all requests that a Store makes.

// enter waits until a request may be made that does not wait for a change.
func (s *Store) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case s.gate <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Store) leave() { <-s.gate }

// token returns the token to use, empty for that of the client.
func (s *Store) token(ctx context.Context) (string, error) {
	if s.opts.Token == nil {
		return "", nil
	}
	token, err := s.opts.Token(ctx)
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	return token, nil
}

// query completes the options of a request.
func (s *Store) query(ctx context.Context, q *api.QueryOptions) (*api.QueryOptions, error) {
	token, err := s.token(ctx)
	if err != nil {
		return nil, err
	}
	q.Token, q.Datacenter, q.Partition, q.Namespace = token, s.opts.Datacenter, s.opts.Partition, s.opts.Namespace
	return q.WithContext(ctx), nil
}

// fetch asks for something that does not come in a form of the client's. The
// caller was let in, or waits for a change.
func (s *Store) fetch(ctx context.Context, path string, out any, q *api.QueryOptions) (*api.QueryMeta, error) {
	q, err := s.query(ctx, q)
	if err != nil {
		return nil, err
	}
	return s.client.Raw().Query(path, out, q)
}

// instances reads the entries of a service, as fetch does.
func (s *Store) instances(ctx context.Context, name string, q *api.QueryOptions) ([]*instance, *api.QueryMeta, error) {
	var all []*instance
	meta, err := s.fetch(ctx, "/v1/health/service/"+name, &all, q)
	if err != nil {
		return nil, nil, err
	}
	// Consul's index of names ignores case.
	mine := all[:0]
	for _, i := range all {
		if i != nil && i.Service.Service == name {
			mine = append(mine, i)
		}
	}
	return mine, meta, nil
}

// ping asks whether there is a leader.
func (s *Store) ping(ctx context.Context) error {
	var leader string
	// It has none of the headers that answers to queries have.
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	q, err := s.query(ctx, new(api.QueryOptions))
	if err != nil {
		return err
	}
	leader, err = s.client.Status().LeaderWithQueryOptions(q)
	if err == nil && leader == "" {
		err = errors.New("no leader")
	}
	return err
}

// register registers with the agent.
func (s *Store) register(ctx context.Context, h *holding) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	token, err := s.token(ctx)
	if err != nil {
		return err
	}
	if err := s.client.Agent().ServiceRegisterOpts(h.registration, api.ServiceRegisterOpts{Token: token}.WithContext(ctx)); err != nil {
		return err
	}
	if h.lease != nil {
		h.lease.mu.Lock()
		h.token = token
		h.lease.mu.Unlock()
	}
	return nil
}

// agentCall makes a request of the agent.
func (s *Store) agentCall(ctx context.Context, call func(*api.QueryOptions) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	q, err := s.query(ctx, new(api.QueryOptions))
	if err != nil {
		return err
	}
	return call(q)
}

// deregister deregisters with the agent.
func (s *Store) deregister(ctx context.Context, id string) error {
	return s.agentCall(ctx, func(q *api.QueryOptions) error {
		return s.client.Agent().ServiceDeregisterOpts(id, q)
	})
}

// pass makes the check of a registration pass.
func (s *Store) pass(ctx context.Context, id string) error {
	return s.agentCall(ctx, func(q *api.QueryOptions) error {
		return s.client.Agent().UpdateTTLOpts(id, "", api.HealthPassing, q)
	})
}

// hasRegistered reports whether the agent has a registration.
func (s *Store) hasRegistered(ctx context.Context, id string) (bool, error) {
	err := s.agentCall(ctx, func(q *api.QueryOptions) error {
		_, _, err := s.client.Agent().Service(id, q)
		return err
	})
	if unknown(err) {
		return false, nil
	}
	return err == nil, err
}

// deregisterAt deregisters at the catalogue.
func (s *Store) deregisterAt(ctx context.Context, i *instance) error {
	return s.agentCall(ctx, func(q *api.QueryOptions) error {
		w := &api.WriteOptions{Token: q.Token, Partition: q.Partition, Namespace: q.Namespace}
		_, err := s.client.Catalog().Deregister(&api.CatalogDeregistration{
			Node: i.Node.Node, ServiceID: i.Service.ID, Partition: q.Partition, Namespace: q.Namespace,
		}, w.WithContext(ctx))
		return err
	})
}

// quote returns a string of Consul's filter expressions, which know no \".
func quote(s string) string {
	return strings.ReplaceAll(strconv.QuoteToASCII(s), `\"`, `\x22`)
}
