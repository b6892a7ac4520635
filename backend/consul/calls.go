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

// enterRead is enter for what a sequence reads, which leaves room for registrations
// and renewals. The caller calls leaveRead.
func (s *Store) enterRead(ctx context.Context) error {
	select {
	case s.reads <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	err := s.enter(ctx)
	if err != nil {
		<-s.reads
	}
	return err
}

func (s *Store) leaveRead() {
	s.leave()
	<-s.reads
}

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
	if q.WaitIndex > 0 {
		q, done := staysQuery(q)
		meta, err := s.client.Raw().Query(path, out, q)
		return meta, done(err)
	}
	var meta *api.QueryMeta
	err = s.insist(ctx, func() (err error) {
		q, done := staysQuery(q)
		meta, err = s.client.Raw().Query(path, out, q)
		return done(err)
	})
	return meta, err
}

// staysQuery is stays for the options of a query.
func staysQuery(q *api.QueryOptions) (*api.QueryOptions, func(error) error) {
	ctx, done := stays(q.Context())
	return q.WithContext(ctx), done
}

// instances reads the entries of a service, as fetch does.
func (s *Store) instances(ctx context.Context, name string, q *api.QueryOptions) ([]*instance, *api.QueryMeta, error) {
	var all []*instance
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
			// If it were skipped, an endpoint would look lost.
			return nil, nil, fmt.Errorf("entry %d of the answer lacks a service", n+1)
		}
	}
	// Consul's index of names ignores case.
	mine := all[:0]
	for _, i := range all {
		if i.Service.Service == name && (s.opts.IncludeProxies || i.typical()) {
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
	err = s.insist(ctx, func() (err error) {
		q, done := staysQuery(q)
		leader, err = s.client.Status().LeaderWithQueryOptions(q)
		return done(err)
	})
	if err == nil && leader == "" {
		err = errors.New("no leader")
	}
	return err
}

// register registers with the agent. The checks in first are registered as well, if
// they are not there already.
func (s *Store) register(ctx context.Context, h *holding, first ...*api.AgentServiceCheck) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	token, err := s.token(ctx)
	if err != nil {
		return err
	}
	r := *h.registration
	r.Checks = append(slices.Clone(first), r.Checks...)
	err = s.insist(ctx, func() error {
		ctx, done := stays(ctx)
		return done(s.client.Agent().ServiceRegisterOpts(&r, api.ServiceRegisterOpts{Token: token}.WithContext(ctx)))
	})
	if err != nil {
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
	return s.insist(ctx, func() error {
		q, done := staysQuery(q)
		return done(call(q))
	})
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

// maintain makes the agent say that a registration is not to be used.
func (s *Store) maintain(ctx context.Context, id, note string) error {
	return s.agentCall(ctx, func(q *api.QueryOptions) error {
		return s.client.Agent().EnableServiceMaintenanceOpts(id, note, q)
	})
}

// inMaintenance asks the agent whether an operator took a registration out of use.
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

// hasSame reports whether what the agent has under the ID of an entry is that
// entry.
func (s *Store) hasSame(ctx context.Context, i *instance) (same bool, err error) {
	switch {
	case !plain(i.Service.ID):
		return false, nil // or the request would be about another
	case s.holds(i.Service.ID):
		return true, nil
	}
	err = s.agentCall(ctx, func(q *api.QueryOptions) error {
		a, _, err := s.client.Agent().Service(i.Service.ID, q)
		if err == nil && a != nil {
			same = a.Service == i.Service.Service && a.Address == i.Service.Address &&
				a.DefaultPort() == i.port("") &&
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

// deregisterAt deregisters at the catalogue.
func (s *Store) deregisterAt(ctx context.Context, i *instance) error {
	return s.agentCall(ctx, func(q *api.QueryOptions) error {
		w := &api.WriteOptions{Token: q.Token, Partition: q.Partition, Namespace: q.Namespace}
		_, err := s.client.Catalog().Deregister(&api.CatalogDeregistration{
			Node: i.Node.Node, ServiceID: i.Service.ID, Partition: q.Partition, Namespace: q.Namespace,
		}, w.WithContext(q.Context()))
		return err
	})
}

// quote returns a string of Consul's filter expressions. They end a string at the
// next quotation mark, also after a backslash.
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
