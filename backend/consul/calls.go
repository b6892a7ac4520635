package consul

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul/internal/wire"
)

// This file has all requests that a Store makes.

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

// complete adds the token and what is common to all requests to the options of a
// request.
func (s *Store) complete(ctx context.Context, q *api.QueryOptions) (*api.QueryOptions, error) {
	token, err := s.token(ctx)
	if err != nil {
		return nil, err
	}
	q.Token, q.Datacenter, q.Partition, q.Namespace = token, s.opts.Datacenter, s.opts.Partition, s.opts.Namespace
	return q.WithContext(ctx), nil
}

// fetch makes a request for which the client has no method. The caller has entered a
// gate.
func (s *Store) fetch(ctx context.Context, path string, out any, q *api.QueryOptions) (*api.QueryMeta, error) {
	q, err := s.complete(ctx, q)
	if err != nil {
		return nil, err
	}
	if q.WaitIndex > 0 {
		q, done := queryOnOneHost(q)
		meta, err := s.client.Raw().Query(path, out, q)
		return meta, done(err)
	}
	var meta *api.QueryMeta
	err = s.insist(ctx, func() (err error) {
		q, done := queryOnOneHost(q)
		meta, err = s.client.Raw().Query(path, out, q)
		return done(err)
	})
	return meta, err
}

// queryOnOneHost is onOneHost for the options of a query.
func queryOnOneHost(q *api.QueryOptions) (*api.QueryOptions, func(error) error) {
	ctx, done := onOneHost(q.Context())
	return q.WithContext(ctx), done
}

// fetchEntries reads the entries of a service, as fetch does. name is Consul's.
func (s *Store) fetchEntries(ctx context.Context, name string, q *api.QueryOptions) ([]*wire.Entry, *api.QueryMeta, error) {
	var all []*wire.Entry
	meta, err := s.fetch(ctx, "/v1/health/service/"+name, &all, q)
	if err != nil {
		return nil, nil, err
	}
	if len(all) > naming.MaxEndpoints {
		return nil, nil, fmt.Errorf("%d entries; at most %d are read", len(all), naming.MaxEndpoints)
	}
	if all == nil {
		return nil, nil, errors.New("the answer is not a list of services")
	}
	for n, i := range all {
		if i == nil || i.Service.Service == "" {
			// If it were skipped, its endpoint would look deleted.
			return nil, nil, fmt.Errorf("entry %d of the answer lacks a service", n+1)
		}
	}
	// Consul's index of names ignores case, so the answer may have other services.
	// Consul's own servers announce no endpoint.
	mine := all[:0]
	for _, i := range all {
		if i.Service.Service == name && !i.IsServer() && (s.opts.IncludeProxies || i.Typical()) {
			mine = append(mine, i)
		}
	}
	return mine, meta, nil
}

// ping returns an error while the servers have no leader.
func (s *Store) ping(ctx context.Context) error {
	var leader string
	// Not fetch: the answer has none of the headers that answers to queries have.
	if err := s.gates.enter(ctx); err != nil {
		return err
	}
	defer s.gates.leave()
	q, err := s.complete(ctx, new(api.QueryOptions))
	if err != nil {
		return err
	}
	err = s.insist(ctx, func() (err error) {
		q, done := queryOnOneHost(q)
		leader, err = s.client.Status().LeaderWithQueryOptions(q)
		return done(err)
	})
	if err == nil && leader == "" {
		err = errors.New("no leader")
	}
	return err
}

// register makes a registration with the agent. The checks in first come before the
// check of the registration.
func (s *Store) register(ctx context.Context, r *registration, first ...*api.AgentServiceCheck) error {
	if err := s.gates.enter(ctx); err != nil {
		return err
	}
	defer s.gates.leave()
	token, err := s.token(ctx)
	if err != nil {
		return err
	}
	service := *r.service
	service.Checks = append(slices.Clone(first), service.Checks...)
	err = s.insist(ctx, func() error {
		ctx, done := onOneHost(ctx)
		return done(s.client.Agent().ServiceRegisterOpts(&service, api.ServiceRegisterOpts{Token: token}.WithContext(ctx)))
	})
	if err != nil {
		return err
	}
	if r.lease != nil {
		r.lease.noteToken(r, token)
	}
	return nil
}

// agentCall makes a request to the agent.
func (s *Store) agentCall(ctx context.Context, call func(*api.QueryOptions) error) error {
	if err := s.gates.enter(ctx); err != nil {
		return err
	}
	defer s.gates.leave()
	q, err := s.complete(ctx, new(api.QueryOptions))
	if err != nil {
		return err
	}
	return s.insist(ctx, func() error {
		q, done := queryOnOneHost(q)
		return done(call(q))
	})
}

// deregister removes a registration from the agent.
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

// maintain puts a registration into maintenance mode.
func (s *Store) maintain(ctx context.Context, id, note string) error {
	return s.agentCall(ctx, func(q *api.QueryOptions) error {
		return s.client.Agent().EnableServiceMaintenanceOpts(id, note, q)
	})
}

// inMaintenance asks the agent whether a registration is in maintenance mode.
func (s *Store) inMaintenance(ctx context.Context, id string) (out bool, err error) {
	err = s.agentCall(ctx, func(q *api.QueryOptions) error {
		_, info, err := s.client.Agent().AgentHealthServiceByIDOpts(id, q)
		out = info != nil && slices.ContainsFunc(info.Checks, func(c *api.HealthCheck) bool {
			return c != nil && c.CheckID == api.ServiceMaintPrefix+id
		})
		return err
	})
	return out, err
}

// fail makes the check of a registration critical.
func (s *Store) fail(ctx context.Context, id string) error {
	return s.agentCall(ctx, func(q *api.QueryOptions) error {
		return s.client.Agent().UpdateTTLOpts(id, "", api.HealthCritical, q)
	})
}

// hasSame reports whether what the agent has under the ID of an entry is that entry.
func (s *Store) hasSame(ctx context.Context, i *wire.Entry) (same bool, err error) {
	switch {
	case !plain(i.Service.ID):
		return false, nil // the path of the request would name something else
	case s.leases.has(i.Service.ID):
		return true, nil
	}
	err = s.agentCall(ctx, func(q *api.QueryOptions) error {
		a, _, err := s.client.Agent().Service(i.Service.ID, q)
		if err == nil && a != nil {
			same = a.Service == i.Service.Service && a.Address == i.Service.Address &&
				a.DefaultPort() == i.Port("") &&
				maps.Equal(a.Meta, i.Service.Meta) && slices.Equal(a.Tags, i.Service.Tags)
		}
		return err
	})
	if unknown(err) {
		return false, nil
	}
	return same, err
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

// deregisterAtCatalog removes an entry from the catalogue.
func (s *Store) deregisterAtCatalog(ctx context.Context, i *wire.Entry) error {
	return s.agentCall(ctx, func(q *api.QueryOptions) error {
		w := &api.WriteOptions{Token: q.Token, Partition: q.Partition, Namespace: q.Namespace}
		_, err := s.client.Catalog().Deregister(&api.CatalogDeregistration{
			Node: i.Node.Node, ServiceID: i.Service.ID, Partition: q.Partition, Namespace: q.Namespace,
		}, w.WithContext(q.Context()))
		return err
	})
}

// quote returns s as a string of Consul's filter expressions. Such a string ends at the
// next quotation mark, even after a backslash.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for len(s) > 0 {
		_, n := utf8.DecodeRuneInString(s)
		switch s[0] {
		case '"':
			b.WriteString(`\x22`)
		case '\\':
			b.WriteString(`\x5c`)
		default:
			q := strconv.QuoteToASCII(s[:n])
			b.WriteString(q[1 : len(q)-1])
		}
		s = s[n:]
	}
	b.WriteByte('"')
	return b.String()
}
