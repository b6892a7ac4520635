package consul

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming/backend/consul/internal/wire"
)

// snapshotQuery returns the options of a query that is answered at once.
func (s *Store) snapshotQuery() *api.QueryOptions {
	return &api.QueryOptions{AllowStale: s.opts.AllowStale, RequireConsistent: !s.opts.AllowStale, NodeMeta: s.opts.NodeMeta}
}

// blockingQuery returns the options of a query that waits for a change. The wait is
// random, so that watches that begin together do not ask together ever after.
func (s *Store) blockingQuery(index uint64) *api.QueryOptions {
	wait := s.opts.Wait
	return &api.QueryOptions{
		WaitIndex:  index,
		WaitTime:   wait - rand.N(wait/8),
		AllowStale: s.opts.AllowStale,
		NodeMeta:   s.opts.NodeMeta,
	}
}

// nextQuery returns the options of the query that follows an answer with this index. 0
// means that there was no answer, or that the index went backwards.
func (s *Store) nextQuery(index uint64) *api.QueryOptions {
	if index == 0 {
		return s.snapshotQuery()
	}
	return s.blockingQuery(index)
}

// bounded calls f with a context that ends after the bound of silence.
func (s *Store) bounded(ctx context.Context, f func(context.Context) error) error {
	bound := s.SilenceBound()
	limited, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	err := f(limited)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		// Not %w: the context that is done is not the caller's.
		err = fmt.Errorf("%w of %v: %v", errSilent, bound, err)
	}
	return err
}

// answer is the entries of a service.
type answer struct {
	all   []*wire.Entry
	index uint64 // at least 1
	since moment // before the query was made; the zero moment after a blocking query
}

// readEntries reads the entries of a service. name is Consul's.
func (s *Store) readEntries(ctx context.Context, name string, q *api.QueryOptions) (a answer, err error) {
	err = s.bounded(ctx, func(ctx context.Context) error {
		if q.WaitIndex == 0 {
			if err := s.gates.enterRead(ctx); err != nil {
				return err
			}
			defer s.gates.leaveRead()
			a.since = s.hubMoment()
		}
		all, meta, err := s.fetchEntries(ctx, name, q)
		if err != nil {
			return err
		}
		if meta.ResultsFilteredByACLs {
			return errFiltered
		}
		// An index of 0 would make the next query return at once.
		a.all, a.index = all, max(meta.LastIndex, 1)
		return nil
	})
	return a, err
}

// readPath makes a query that does not wait, and reports whether the token may not read
// a part of the answer.
func (s *Store) readPath(ctx context.Context, path string, out any, q *api.QueryOptions) (filtered bool, err error) {
	err = s.bounded(ctx, func(ctx context.Context) error {
		if err := s.gates.enterRead(ctx); err != nil {
			return err
		}
		defer s.gates.leaveRead()
		meta, err := s.fetch(ctx, path, out, q)
		if err == nil {
			filtered = meta.ResultsFilteredByACLs
		}
		return err
	})
	return filtered, err
}
