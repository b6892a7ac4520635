package consul

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
)

// Watch implements [naming.Store].
func (s *Store) Watch(ctx context.Context, service string) iter.Seq2[naming.Batch, error] {
	return func(yield func(naming.Batch, error) bool) {
		w := &watch{ctx: ctx, yield: yield}
		w.store, w.service = s, service
		if err := w.run(); err != nil {
			w.fail(err)
		}
	}
}

// watch is one Watch. What lasts is here and not in the methods: see follower.
type watch struct {
	view
	ctx   context.Context
	name  string // Consul's
	yield func(naming.Batch, error) bool
	last  answer // without its entries as soon as they were shown

	shared follower // is used if it has no blocking query of its own
}

func (w *watch) fail(err error) {
	w.yield(naming.Batch{}, fmt.Errorf("consul: watch %q: %w", w.service, describe(w.ctx, err)))
}

// run returns nil when yield returned false.
func (w *watch) run() error {
	more, err := w.begin()
	switch {
	case !more:
		return err
	case w.admitted():
		return w.ask()
	}
	return w.shared.follow()
}

// admitted reports whether there is a slot for a blocking query, which it takes.
func (w *watch) admitted() bool {
	select {
	case w.store.direct <- struct{}{}:
		return true
	default:
		return false
	}
}

// begin shows the snapshot, and reports whether to go on.
func (w *watch) begin() (more bool, err error) {
	if err := naming.CheckService(w.service); err != nil {
		return false, err
	}
	w.name = toConsul(w.store.opts.Prefix + w.service)
	if w.last, err = w.store.entries(w.ctx, w.name, w.store.fresh()); err != nil {
		return false, err
	}
	w.shared = follower{store: w.store, ctx: w.ctx, since: w.last.since, read: w.read, show: w.showLast}
	return w.showLast(), nil
}

// show yields what differs, if anything.
func (w *watch) show(all []*instance) (news, more bool) {
	b := w.update(all)
	news = b.Snapshot || len(b.Put) > 0 || len(b.Deleted) > 0
	return news, !news || w.yield(b, nil)
}

func (w *watch) showLast() (more bool) {
	all := w.last.all
	w.last.all = nil
	_, more = w.show(all)
	return more
}

// read reads what showLast shows.
func (w *watch) read() (err error) {
	s, last := w.store, w.last.index
	q := s.fresh()
	q.RequireConsistent = false
	if w.last, err = s.entries(w.ctx, w.name, q); err == nil && w.last.index < last {
		w.last, err = s.entries(w.ctx, w.name, s.fresh())
	}
	return err
}

// ask asks blocking queries, with a slot for them.
func (w *watch) ask() error {
	s, ctx := w.store, w.ctx
	var asked time.Time // when the question that has no answer yet is over
	defer func() { release(s.direct, asked) }()
	index := w.last.index
	pace, vain := newPace(), false
	for {
		if err := pace.wait(ctx, vain); err != nil {
			return err
		}
		q := s.waiting(index)
		if index == 0 {
			q = s.fresh()
		}
		asked = over(q)
		a, err := s.entries(ctx, w.name, q)
		if ctx.Err() == nil {
			asked = time.Time{}
		}
		if err != nil {
			return err
		}
		if a.index < index {
			index, vain = 0, true
			continue
		}
		index = a.index
		news, more := w.show(a.all)
		if !more {
			return nil
		}
		vain = !news
		if news {
			pace.read(len(a.all))
		}
	}
}

// Services implements [naming.Store].
func (s *Store) Services(ctx context.Context) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		if err := s.list(ctx, yield); err != nil {
			yield(nil, fmt.Errorf("consul: services: %w", describe(ctx, err)))
		}
	}
}

// list returns nil when yield returned false.
func (s *Store) list(ctx context.Context, yield func([]string, error) bool) error {
	since := s.mark()
	last, err := s.names(ctx)
	if err != nil {
		return err
	}
	if !yield(slices.Clone(last), nil) {
		return nil
	}
	names := last
	f := &follower{store: s, ctx: ctx, since: since}
	f.read = func() (err error) {
		names, err = s.names(ctx)
		return err
	}
	f.show = func() bool {
		if slices.Equal(names, last) {
			return true
		}
		last = names
		return yield(slices.Clone(names), nil)
	}
	return f.follow()
}

// names reads the names of the services that have endpoints.
func (s *Store) names(ctx context.Context) ([]string, error) {
	// The checks first: a service that has gone since is not in the catalogue,
	// but one that has gone before would be in a catalogue read earlier.
	var failing []struct{ Node, ServiceName string }
	q := s.fresh()
	q.Filter = `Status != "passing"`
	if s.opts.IncludeWarning {
		q.Filter += ` and Status != "warning"`
	}
	if _, err := s.read(ctx, "/v1/health/state/any", &failing, q); err != nil {
		return nil, err
	}
	var tags map[string][]string
	filtered, err := s.read(ctx, "/v1/catalog/services", &tags, s.fresh())
	if err != nil {
		return nil, err
	}
	if filtered && len(tags) == 0 {
		return nil, errFiltered
	}
	doubtful, nodes := make(map[string]bool), make(map[string]bool)
	for _, c := range failing {
		if c.ServiceName != "" {
			doubtful[c.ServiceName] = true
		} else {
			nodes[c.Node] = true
		}
	}
	for node := range nodes {
		var on struct{ Services []struct{ Service string } }
		if _, err := s.read(ctx, "/v1/catalog/node-services/"+node, &on, s.fresh()); err != nil {
			return nil, err
		}
		for _, service := range on.Services {
			doubtful[service.Service] = true
		}
	}
	names := []string{}
	for _, c := range slices.Sorted(maps.Keys(tags)) {
		name, ok := strings.CutPrefix(fromConsul(c), s.opts.Prefix)
		if !ok || name == "" || s.opts.Tag != "" && !slices.Contains(tags[c], s.opts.Tag) {
			continue
		}
		if doubtful[c] {
			a, err := s.entries(ctx, c, s.fresh())
			if err != nil {
				return nil, err
			}
			v := &view{store: s.quiet(), service: name}
			if len(v.update(a.all).Put) == 0 {
				continue
			}
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// quiet returns a store to decode with that reports nothing.
func (s *Store) quiet() *Store {
	q := &Store{opts: s.opts}
	q.opts.OnMalformed = func(*naming.Malformed) {}
	return q
}

// read asks for something, and reports whether the token left anything out.
func (s *Store) read(ctx context.Context, path string, out any, q *api.QueryOptions) (filtered bool, err error) {
	err = s.bounded(ctx, func(ctx context.Context) error {
		if err := s.enter(ctx); err != nil {
			return err
		}
		defer s.leave()
		meta, err := s.fetch(ctx, path, out, q)
		if err == nil {
			filtered = meta.ResultsFilteredByACLs
		}
		return err
	})
	return filtered, err
}
