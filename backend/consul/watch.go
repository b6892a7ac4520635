package consul

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul/internal/wire"
)

// Watch implements [naming.Store].
func (s *Store) Watch(ctx context.Context, service string) iter.Seq2[naming.Batch, error] {
	return func(yield func(naming.Batch, error) bool) {
		w := &subscription{ctx: ctx, store: s, yield: yield}
		w.opts, w.service = &s.opts, service
		if err := w.run(); err != nil {
			w.fail(err)
		}
	}
}

// subscription is one range over a Watch. It has what lasts, so that the stack of its
// goroutine stays small: see member.
type subscription struct {
	differ
	store *Store
	ctx   context.Context
	name  string // Consul's
	yield func(naming.Batch, error) bool
	last  answer // without its entries once they were shown

	shared member // used if the subscription has no blocking query of its own
}

func (w *subscription) fail(err error) {
	w.yield(naming.Batch{}, fmt.Errorf("consul: watch %q: %w", w.service, describe(w.ctx, err)))
}

// run returns nil if yield returned false.
func (w *subscription) run() error {
	more, err := w.begin()
	if !more {
		return err
	}
	if t, ctx := w.sitDown(); t != nil {
		err := w.runSeated(ctx, t)
		if !errors.Is(err, errShed) {
			return err
		}
		w.shared.since = moment{} // anything may have changed meanwhile
	}
	return w.shared.run()
}

// begin shows the snapshot, and reports whether to go on.
func (w *subscription) begin() (more bool, err error) {
	if err := naming.CheckService(w.service); err != nil {
		return false, err
	}
	w.name = toConsul(w.store.opts.Prefix + w.service)
	if w.last, err = w.store.readEntries(w.ctx, w.name, w.store.snapshotQuery()); err != nil {
		return false, err
	}
	w.shared = member{store: w.store, ctx: w.ctx, since: w.last.since, read: w.readAgain, show: w.showLast}
	return w.showLast(), nil
}

// sitDown returns the seat of a watch with a blocking query of its own, and the context
// of the query. It returns nil if no seat is free.
func (w *subscription) sitDown() (*seat, context.Context) {
	if !w.store.gates.own.TryAcquire(1) {
		return nil, nil
	}
	t, ctx := w.store.seats.sitDown(w.ctx)
	if t == nil {
		w.store.gates.own.Release(1)
	}
	return t, ctx
}

// show yields what differs, if anything does.
func (w *subscription) show(all []*wire.Entry) (news, more bool) {
	b := w.batch(all)
	news = b.Snapshot || len(b.Put) > 0 || len(b.Withheld) > 0 || len(b.Deleted) > 0
	return news, !news || w.yield(b, nil)
}

func (w *subscription) showLast() (more bool) {
	all := w.last.all
	w.last.all = nil
	_, more = w.show(all)
	return more
}

// readAgain reads what showLast shows, in the default mode, or in the stale mode with
// AllowStale. If the answer is behind what was shown, the service is read as for a
// snapshot.
func (w *subscription) readAgain() (err error) {
	s, shown := w.store, w.last.index
	q := s.snapshotQuery()
	q.RequireConsistent = false
	if w.last, err = s.readEntries(w.ctx, w.name, q); err == nil && w.last.index < shown {
		w.last, err = s.readEntries(w.ctx, w.name, s.snapshotQuery())
	}
	return err
}

// runSeated asks blocking queries from a seat, which it gives back. It returns errShed
// if it has to abandon its query.
func (w *subscription) runSeated(ctx context.Context, t *seat) error {
	defer w.store.seats.getUp(t)
	err := w.ask(ctx)
	if err != nil && w.ctx.Err() == nil && (w.store.refused(err) || errors.Is(context.Cause(ctx), errShed)) {
		return errShed
	}
	return err
}

// ask asks blocking queries until yield returns false or a query fails. It gives back
// the place of the watch in gates.own.
func (w *subscription) ask(ctx context.Context) error {
	s := w.store
	var over time.Time // when the query without an answer is over at Consul; zero: no such query
	defer func() { releaseAt(s.gates.own, over) }()
	index := w.last.index
	pace := newPace()
	ctx = pace.trace(ctx)
	for {
		if err := pace.wait(ctx); err != nil {
			return err
		}
		q := s.nextQuery(index)
		over = overAt(q)
		a, err := s.readEntries(ctx, w.name, q)
		if ctx.Err() == nil {
			over = time.Time{}
		}
		if err != nil {
			return err
		}
		if a.index < index {
			index = 0
			pace.noteAnswer(len(a.all), false)
			continue
		}
		index = a.index
		w.last.index = index // readAgain compares with it
		news, more := w.show(a.all)
		if !more {
			return nil
		}
		pace.noteAnswer(len(a.all), news)
	}
}
