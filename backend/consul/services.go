package consul

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul/internal/wire"
)

// Services implements [naming.Store].
func (s *Store) Services(ctx context.Context) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		if err := s.runServices(ctx, yield); err != nil {
			yield(nil, fmt.Errorf("consul: services: %w", describe(ctx, err)))
		}
	}
}

// runServices returns nil if yield returned false.
func (s *Store) runServices(ctx context.Context, yield func([]string, error) bool) error {
	since := s.hubMoment()
	shown, err := s.readNames(ctx)
	if err != nil {
		return err
	}
	if !yield(slices.Clone(shown), nil) {
		return nil
	}
	names := shown
	m := &member{store: s, ctx: ctx, since: since}
	m.read = func() (err error) {
		names, err = s.readNames(ctx)
		return err
	}
	m.show = func() bool {
		if slices.Equal(names, shown) {
			return true
		}
		shown = names
		return yield(slices.Clone(names), nil)
	}
	return m.run()
}

// readNames reads the names of the services that have endpoints, usable or withheld.
func (s *Store) readNames(ctx context.Context) ([]string, error) {
	// The checks are read first. A service that disappears between the two reads is
	// then not in the catalogue. In the other order, its name would be in the
	// catalogue, and nothing in the checks would say that its lease has ended.
	failing, err := s.readFailing(ctx)
	if err != nil {
		return nil, err
	}
	tags, err := s.readTags(ctx)
	if err != nil {
		return nil, err
	}
	doubtful, err := s.doubtful(ctx, failing)
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, c := range slices.Sorted(maps.Keys(tags)) {
		name, ok := s.serviceName(c, tags[c])
		if ok && doubtful[c] {
			if ok, err = s.hasEndpoints(ctx, c, name); err != nil {
				return nil, err
			}
		}
		if ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// failingCheck is a check that neither passes nor is warning.
type failingCheck struct{ Node, CheckID, ServiceID, ServiceName string }

func (s *Store) readFailing(ctx context.Context) (failing []failingCheck, err error) {
	q := s.snapshotQuery()
	q.Filter = `Status != "passing" and Status != "warning"`
	_, err = s.readPath(ctx, "/v1/health/state/any", &failing, q)
	return failing, err
}

// notServer is the filter that leaves out Consul's own servers, as fetchEntries does.
const notServer = `(ServiceName != "` + wire.ServerService + `" or ServiceID != "` + wire.ServerService + `")`

// readTags reads the tags of all services, by Consul's names of the services.
func (s *Store) readTags(ctx context.Context) (map[string][]string, error) {
	q := s.snapshotQuery()
	q.Filter = notServer
	if !s.opts.IncludeProxies {
		q.Filter += ` and (ServiceKind == "" or ServiceKind == "` + string(api.ServiceKindTypical) + `")`
	}
	var tags map[string][]string
	filtered, err := s.readPath(ctx, "/v1/catalog/services", &tags, q)
	if err != nil {
		return nil, err
	}
	if filtered && len(tags) == 0 {
		return nil, errFiltered
	}
	if len(tags) > naming.MaxServices {
		return nil, fmt.Errorf("%d services; at most %d are read", len(tags), naming.MaxServices)
	}
	return tags, nil
}

// doubtful returns Consul's names of the services that may have no endpoint left,
// although the catalogue has them. Only checks that say that a lease has ended can take
// the last endpoint of a service away: the check of the lease, which has the ID of the
// registration, and the check of a node whose agent is lost.
func (s *Store) doubtful(ctx context.Context, failing []failingCheck) (map[string]bool, error) {
	doubtful, nodes := make(map[string]bool), make(map[string]bool)
	for _, c := range failing {
		switch {
		case c.ServiceName != "" && c.CheckID == c.ServiceID:
			doubtful[c.ServiceName] = true
		case c.ServiceName == "" && c.CheckID == wire.SerfHealth:
			nodes[c.Node] = true
		}
	}
	for some := range slices.Chunk(slices.Sorted(maps.Keys(nodes)), 20) {
		on, err := s.servicesOn(ctx, some)
		if err != nil {
			return nil, err
		}
		for _, service := range on {
			doubtful[service] = true
		}
	}
	return doubtful, nil
}

// servicesOn reads the names of the services on some nodes. Other programs chose the
// names of the nodes. So the names are in a filter, where any name can be quoted, and
// not in a path.
func (s *Store) servicesOn(ctx context.Context, nodes []string) ([]string, error) {
	var terms []string
	for _, node := range nodes {
		terms = append(terms, "Node == "+quote(node))
	}
	q := s.snapshotQuery()
	q.Filter = strings.Join(terms, " or ")
	var tags map[string][]string
	if _, err := s.readPath(ctx, "/v1/catalog/services", &tags, q); err != nil {
		return nil, err
	}
	return slices.Collect(maps.Keys(tags)), nil
}

// serviceName returns the name of Consul's service c, and reports whether the service
// belongs to the Store.
func (s *Store) serviceName(c string, tags []string) (name string, ok bool) {
	if len(c) > 3*(len(s.opts.Prefix)+naming.MaxServiceName) {
		// escape makes no name that is longer. A long name that looks escaped many
		// times over would cost the square of its length.
		return "", false
	}
	full := fromConsul(c)
	name, ok = strings.CutPrefix(full, s.opts.Prefix)
	switch {
	case !ok || naming.CheckService(name) != nil:
		return "", false
	case toConsul(full) != c:
		// The name of another writer's service that cannot be part of a path: Consul
		// cannot be asked for its instances, so a watch would show none.
		return "", false
	case s.opts.Tag != "" && !slices.Contains(tags, s.opts.Tag):
		return "", false
	}
	return name, true
}

// hasEndpoints reads a service and reports whether it has an endpoint. c is Consul's
// name of it. Malformed entries are left to watches to report.
func (s *Store) hasEndpoints(ctx context.Context, c, name string) (bool, error) {
	a, err := s.readEntries(ctx, c, s.snapshotQuery())
	if err != nil {
		return false, err
	}
	quiet := s.opts
	quiet.OnMalformed = func(*naming.MalformedError) {}
	d := differ{opts: &quiet, service: name}
	b := d.batch(a.all)
	return len(b.Put)+len(b.Withheld) > 0, nil
}
