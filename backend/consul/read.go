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
		switch st := s.standing(i); {
		case st.usable():
			return 2
		case !st.gone:
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
			if err := s.enterRead(ctx); err != nil {
				return err
			}
			defer s.leaveRead()
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

// view is what a watch has shown. A program may have thousands, so it has no
// maps and nothing of an entry that is not needed to notice a change.
type view struct {
	store   *Store
	service string
	seen    []record // nil if nothing was shown yet
}

// record is what is kept of an entry: what it says, and whether it was shown or
// reported.
type record struct {
	digest          digest
	endpoint        naming.Endpoint
	err             error
	reason          naming.Reason // why it was shown as withheld; 0: it was not
	detail          string
	shown, reported bool
}

// update returns what changed, all of it if nothing was shown yet.
func (v *view) update(all []*instance) naming.Batch {
	b := naming.Batch{Snapshot: v.seen == nil}
	known := make(map[digest]*record, len(v.seen))
	gone := make(map[string]*record, len(v.seen)) // by ID, what was shown and has not been found
	for n := range v.seen {
		r := &v.seen[n]
		known[r.digest] = r
		if r.shown {
			gone[r.endpoint.ID] = r
		}
	}
	if b.Snapshot {
		b.Put = make([]naming.Endpoint, 0, len(all))
	}
	seen := make([]record, len(all))
	best := make(map[string]int, len(all))
	for n, i := range all {
		r := &seen[n]
		r.digest = i.digest()
		if old := known[r.digest]; old != nil {
			r.endpoint, r.err, r.reported = old.endpoint, old.err, old.reported
		} else {
			r.endpoint, r.err = i.endpoint(&v.store.opts)
		}
		if o, ok := best[r.endpoint.ID]; !ok || v.store.compare(all[o], i) < 0 {
			best[r.endpoint.ID] = n
		}
	}
	withheld := v.withheld(all, seen)
	for id, n := range best {
		i, r := all[n], &seen[n]
		st := v.store.standing(i)
		if w, ok := withheld[id]; ok && st.reason != naming.Maintenance {
			st.reason, st.detail = naming.Maintenance, w
		}
		switch {
		case st.gone || !v.store.tagged(i):
		case r.err != nil:
			if !r.reported {
				r.reported = true
				v.store.opts.OnMalformed(&naming.MalformedError{Service: v.service, Key: i.key(), Err: r.err})
			}
		default:
			r.shown, r.reason, r.detail = true, st.reason, st.detail
			old := gone[id]
			delete(gone, id)
			if old != nil && old.endpoint.Equal(r.endpoint) && old.reason == r.reason && old.detail == r.detail {
				continue
			}
			if r.reason == 0 {
				b.Put = append(b.Put, r.endpoint)
			} else {
				b.Withheld = append(b.Withheld, naming.Withheld{Endpoint: r.endpoint, Reason: r.reason, Detail: r.detail})
			}
		}
	}
	for id := range gone {
		b.Deleted = append(b.Deleted, id)
	}
	v.seen = seen
	slices.SortFunc(b.Put, func(a, b naming.Endpoint) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(b.Withheld, func(a, b naming.Withheld) int { return cmp.Compare(a.Endpoint.ID, b.Endpoint.ID) })
	slices.Sort(b.Deleted)
	return b
}

// withheld returns the notes of operators, by the IDs of the endpoints that they
// took out of use. What one of an endpoint's registrations says of it holds for
// the endpoint: a new lease has a registration of its own, and Apply gives it the
// note only after it has found the old one. Nil if there are none.
func (v *view) withheld(all []*instance, seen []record) (notes map[string]string) {
	for n := range all {
		if note, ok := kept(all[n : n+1]); ok {
			if notes == nil {
				notes = make(map[string]string)
			}
			id := seen[n].endpoint.ID
			note = naming.SafeText(note)
			if old, ok := notes[id]; !ok || note < old {
				notes[id] = note
			}
		}
	}
	return notes
}
