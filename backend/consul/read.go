package consul

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
)

// compare orders entries of one endpoint: the last one counts. Among those of
// others, which have no number, one that is listed counts more.
func (s *Store) compare(a, b *instance) int {
	health := func(i *instance) int {
		if s.listed(i) {
			return 1
		}
		return 0
	}
	return cmp.Or(
		cmp.Compare(a.gen(), b.gen()),
		cmp.Compare(health(a), health(b)),
		cmp.Compare(a.Service.ModifyIndex, b.Service.ModifyIndex),
		cmp.Compare(a.Service.CreateIndex, b.Service.CreateIndex),
		cmp.Compare(a.key(), b.key()),
	)
}

// tagged reports whether an entry has the tag that is asked for.
func (s *Store) tagged(i *instance) bool {
	return s.opts.Tag == "" || slices.Contains(i.Service.Tags, s.opts.Tag)
}

// fresh returns the options of a question that is answered at once.
func (s *Store) fresh() *api.QueryOptions {
	return &api.QueryOptions{AllowStale: s.opts.AllowStale, RequireConsistent: !s.opts.AllowStale, NodeMeta: s.opts.NodeMeta}
}

// waiting returns the options of a question that waits for a change.
func (s *Store) waiting(index uint64) *api.QueryOptions {
	wait := s.opts.Wait
	return &api.QueryOptions{
		WaitIndex:  index,
		WaitTime:   wait - rand.N(wait/8),
		AllowStale: s.opts.AllowStale,
		NodeMeta:   s.opts.NodeMeta,
	}
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

// answer is what a service's entries are.
type answer struct {
	all   []*instance
	index uint64 // at least 1
	since mark   // before it was asked for; none if it was waited for
}

// entries asks for the entries of a service.
func (s *Store) entries(ctx context.Context, name string, q *api.QueryOptions) (a answer, err error) {
	err = s.bounded(ctx, func(ctx context.Context) error {
		if q.WaitIndex == 0 {
			if err := s.enter(ctx); err != nil {
				return err
			}
			defer s.leave()
			a.since = s.mark()
		}
		all, meta, err := s.instances(ctx, name, q)
		if err != nil {
			return err
		}
		if meta.ResultsFilteredByACLs {
			return errFiltered
		}
		a.all, a.index = all, max(meta.LastIndex, 1)
		return nil
	})
	return a, err
}

// view is what a watch has shown.
type view struct {
	store   *Store
	service string
	seen    map[string]*decoded // by key
	shown   map[string]naming.Endpoint
}

// decoded is an entry and what it says.
type decoded struct {
	*instance
	endpoint naming.Endpoint
	err      error
	reported bool
}

// update returns what changed, all of it if nothing was shown yet.
func (v *view) update(all []*instance) naming.Batch {
	seen := make(map[string]*decoded, len(all))
	best := make(map[string]*decoded, len(all))
	for _, i := range all {
		d := &decoded{instance: i}
		if old := v.seen[i.key()]; old != nil && old.same(i) {
			d.endpoint, d.err, d.reported = old.endpoint, old.err, old.reported
		} else {
			d.endpoint, d.err = i.endpoint(v.store.opts.Codec)
		}
		seen[i.key()] = d
		if b := best[d.endpoint.ID]; b == nil || v.store.compare(b.instance, i) < 0 {
			best[d.endpoint.ID] = d
		}
	}
	v.seen = seen
	first := v.shown == nil
	b := naming.Batch{Snapshot: first}
	shown := make(map[string]naming.Endpoint, len(best))
	for id, d := range best {
		switch {
		case !v.store.listed(d.instance) || !v.store.tagged(d.instance):
		case d.err != nil:
			if !d.reported {
				d.reported = true
				v.store.opts.OnMalformed(&naming.Malformed{Service: v.service, Key: d.key(), Err: d.err})
			}
		default:
			shown[id] = d.endpoint
			if old, ok := v.shown[id]; !ok || !old.Equal(d.endpoint) {
				b.Put = append(b.Put, d.endpoint)
			}
		}
	}
	for id := range v.shown {
		if _, ok := shown[id]; !ok {
			b.Deleted = append(b.Deleted, id)
		}
	}
	v.shown = shown
	slices.SortFunc(b.Put, func(a, b naming.Endpoint) int { return cmp.Compare(a.ID, b.ID) })
	slices.Sort(b.Deleted)
	return b
}
