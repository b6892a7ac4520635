package bridge

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/naming-go/naming"
)

// Sweep removes the copies of this migration and direction from the target, at the end of
// a migration. It does not read the source. Stop the Bridges first: Sweep waits until no
// Bridge works.
//
// A copy counts for the fuse if it is not draining and the target has its address only as
// a copy, because programs on the target then lose the endpoint. If these copies exceed the
// fuse, Sweep removes only the others, and Blown of the result is true. Sweep with the
// result's digest removes exactly those that the result has. Without an approval digest is
// empty.
//
// The result has the deletions that were not made.
func (b *Bridge) Sweep(ctx context.Context, digest string) (*Plan, error) {
	if !b.setRunning(true) {
		return nil, fmt.Errorf("bridge: sweep: %w: the Bridge runs", naming.ErrInvalid)
	}
	defer b.setRunning(false)
	lead, err := b.campaign(ctx)
	if err != nil {
		return nil, fmt.Errorf("bridge: sweep: %w", err)
	}
	defer lead.free(ctx)
	p, err := b.newSweep(lead).run(ctx, digest)
	if err != nil {
		return nil, fmt.Errorf("bridge: sweep: %w", err)
	}
	return p, nil
}

// sweep is a term that only removes.
type sweep struct {
	*term
	dry  *dryRun
	plan *Plan // what was not removed
}

func (b *Bridge) newSweep(lead *leadership) *sweep {
	t := b.newTerm(lead)
	return &sweep{term: t, plan: new(Plan), dry: &dryRun{b: b, fuse: newFuse(b.opts.Fuse), source: t.source, target: t.target}}
}

// run removes what may be removed.
func (w *sweep) run(ctx context.Context, digest string) (*Plan, error) {
	w.ctx, w.end = context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { w.pool.run(w.ctx) })
	wg.Go(func() { w.end(w.lead.keep(w.ctx)) })
	defer w.dry.close()
	defer wg.Wait()
	defer w.end(nil)
	names, err := w.b.names(w.ctx, w.b.target)
	if err != nil {
		return nil, err
	}
	all, err := w.survey(names)
	if err != nil {
		return nil, err
	}
	if w.dry.fuse.exceeded() && all.Digest != digest {
		all.Blown = true
	}
	may := make(map[copyKey]bool)
	for _, del := range all.Deletes {
		may[copyKey{del.Service, del.ID}] = !all.Blown
	}
	for _, n := range names {
		if err := w.removeAll(n, may); err != nil {
			return nil, err
		}
	}
	w.plan.Blown = all.Blown
	w.plan.seal()
	return w.plan, nil
}

// survey returns all copies of the target, and begins the term.
func (w *sweep) survey(names []string) (*Plan, error) {
	all := new(Plan)
	highest := w.lead.seen
	for _, n := range names {
		s, err := w.dry.load(w.ctx, n, false)
		if err != nil {
			return nil, err
		}
		deletes := s.needs(w.copier).unwanted()
		w.dry.note(s, deletes)
		all.Deletes = append(all.Deletes, deletes...)
		highest = max(highest, s.highest)
	}
	all.seal()
	w.lead.epoch.Store(highest + 1)
	return all, w.lead.publish(w.ctx, func(s *seat) { s.Epoch = highest + 1 })
}

// removeAll removes the copies of a service that do not count, and those that may be
// removed all the same. A copy is first put under an own lease, which its deletion is
// bound to.
func (w *sweep) removeAll(name string, may map[copyKey]bool) error {
	s, err := w.dry.load(w.ctx, name, false)
	if err != nil {
		return err
	}
	var puts []putWork
	var deletes []Delete
	for _, del := range s.needs(w.copier).unwanted() {
		if del.Counts && !may[copyKey{name, del.ID}] {
			w.plan.Deletes = append(w.plan.Deletes, del)
			continue
		}
		puts = append(puts, putWork{id: del.ID, native: s.ledger[del.ID].native})
		deletes = append(deletes, del)
	}
	clear(s.ledger)
	for len(puts) > 0 {
		n := min(len(puts), perApply)
		if err := w.replace(s, puts[:n], deletes[:n]); err != nil {
			return err
		}
		puts, deletes = puts[n:], deletes[n:]
	}
	return nil
}

// replace puts copies under an own lease and deletes them.
func (w *sweep) replace(s *service, puts []putWork, deletes []Delete) error {
	if err := w.pace.wait(w.ctx); err != nil {
		return context.Cause(w.ctx)
	}
	for range forms { // a target that cannot say what it holds refuses form after form
		puts = slices.DeleteFunc(puts, func(p putWork) bool {
			return s.ledger[p.id] != nil && s.ledger[p.id].sure || s.refused[p.id].native.ID != ""
		})
		if len(puts) == 0 {
			break
		}
		if err := w.put(s, puts); err != nil {
			return err
		}
	}
	var put []Delete
	for _, del := range deletes {
		if r := s.ledger[del.ID]; r != nil && r.sure {
			put = append(put, del)
		} else {
			w.plan.Deletes = append(w.plan.Deletes, del)
		}
	}
	if len(put) == 0 {
		return nil
	}
	return w.remove(s, put)
}
