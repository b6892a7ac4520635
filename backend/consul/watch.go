package consul

import (
	"context"
	"errors"
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
	if !more {
		return err
	}
	if t, ctx := w.admitted(); t != nil {
		err := func() error {
			defer w.store.seats.leave(t)
			return w.ask(ctx)
		}()
		if !errors.Is(err, errShed) {
			return err
		}
		w.shared.since = mark{} // whatever has changed meanwhile
	}
	return w.shared.follow()
}

// admitted returns the seat of a watch with a blocking query of its own, and the
// context of the query, if there is room.
func (w *watch) admitted() (*seat, context.Context) {
	select {
	case w.store.direct <- struct{}{}:
	default:
		return nil, nil
	}
	t, ctx := w.store.seats.take(w.ctx)
	if t == nil {
		<-w.store.direct
	}
	return t, ctx
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
	news = b.Snapshot || len(b.Put) > 0 || len(b.Withheld) > 0 || len(b.Deleted) > 0
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

// ask asks blocking queries, with a slot for them. It returns errShed when it has
// to give it up.
func (w *watch) ask(ctx context.Context) (err error) {
	s := w.store
	defer func() {
		if err != nil && w.ctx.Err() == nil && (s.refused(err) || errors.Is(context.Cause(ctx), errShed)) {
			err = errShed
		}
	}()
	var asked time.Time // when the question that has no answer yet is over
	defer func() { release(s.direct, asked) }()
	index := w.last.index
	pace := newPace()
	ctx = pace.trace(ctx)
	for {
		if err := pace.wait(ctx); err != nil {
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
			index = 0
			pace.read(len(a.all), false)
			continue
		}
		index = a.index
		w.last.index = index // for who reads after it
		news, more := w.show(a.all)
		if !more {
			return nil
		}
		pace.read(len(a.all), news)
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

// names reads the names of the services that have endpoints, be they to be used or
// withheld.
func (s *Store) names(ctx context.Context) ([]string, error) {
	// The checks first: a service that has gone since is not in the catalogue,
	// but one that has gone before would be in a catalogue read earlier.
	//
	// Only checks that say that a lease has ended can take a service's last
	// endpoint away: its own, which has the ID of the registration, and that of
	// a node whose agent is lost.
	var failing []struct{ Node, CheckID, ServiceID, ServiceName string }
	q := s.fresh()
	q.Filter = `Status != "passing" and Status != "warning"`
	if _, err := s.read(ctx, "/v1/health/state/any", &failing, q); err != nil {
		return nil, err
	}
	q = s.fresh()
	if !s.opts.IncludeProxies {
		q.Filter = `ServiceKind == "" or ServiceKind == "` + string(api.ServiceKindTypical) + `"`
	}
	var tags map[string][]string
	filtered, err := s.read(ctx, "/v1/catalog/services", &tags, q)
	if err != nil {
		return nil, err
	}
	if filtered && len(tags) == 0 {
		return nil, errFiltered
	}
	if len(tags) > naming.MaxServices {
		return nil, fmt.Errorf("%d services; at most %d are read", len(tags), naming.MaxServices)
	}
	doubtful, nodes := make(map[string]bool), make(map[string]bool)
	for _, c := range failing {
		switch {
		case c.ServiceName != "" && c.CheckID == c.ServiceID:
			doubtful[c.ServiceName] = true
		case c.ServiceName == "" && c.CheckID == serfHealth:
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
	names := []string{}
	for _, c := range slices.Sorted(maps.Keys(tags)) {
		if len(c) > 3*(len(s.opts.Prefix)+naming.MaxServiceName) {
			// Longer than escape makes any name. What looks escaped many times
			// over would cost the square of its length.
			continue
		}
		full := fromConsul(c)
		name, ok := strings.CutPrefix(full, s.opts.Prefix)
		switch {
		case !ok || naming.CheckService(name) != nil:
			continue
		case toConsul(full) != c:
			// Another writer's, which no path of a URL names: Consul cannot
			// be asked for its instances, and so a watch would show none.
			continue
		case s.opts.Tag != "" && !slices.Contains(tags[c], s.opts.Tag):
			continue
		}
		if doubtful[c] {
			a, err := s.entries(ctx, c, s.fresh())
			if err != nil {
				return nil, err
			}
			v := &view{store: s.quiet(), service: name}
			if b := v.update(a.all); len(b.Put)+len(b.Withheld) == 0 {
				continue
			}
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// servicesOn reads the names of the services of some nodes. Others have named the
// nodes: their names are in a filter, as a path would mean something else with some.
func (s *Store) servicesOn(ctx context.Context, nodes []string) ([]string, error) {
	var terms []string
	for _, node := range nodes {
		terms = append(terms, "Node == "+quote(node))
	}
	q := s.fresh()
	q.Filter = strings.Join(terms, " or ")
	var tags map[string][]string
	if _, err := s.read(ctx, "/v1/catalog/services", &tags, q); err != nil {
		return nil, err
	}
	return slices.Collect(maps.Keys(tags)), nil
}

// quiet returns a store to decode with that reports nothing.
func (s *Store) quiet() *Store {
	q := &Store{opts: s.opts}
	q.opts.OnMalformed = func(*naming.MalformedError) {}
	return q
}

// read asks for something, and reports whether the token left anything out.
func (s *Store) read(ctx context.Context, path string, out any, q *api.QueryOptions) (filtered bool, err error) {
	err = s.bounded(ctx, func(ctx context.Context) error {
		if err := s.enterRead(ctx); err != nil {
			return err
		}
		defer s.leaveRead()
		meta, err := s.fetch(ctx, path, out, q)
		if err == nil {
			filtered = meta.ResultsFilteredByACLs
		}
		return err
	})
	return filtered, err
}
