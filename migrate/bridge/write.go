package bridge

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
)

// perApply is how many copies one Apply changes at most.
const perApply = 100

// carryOut makes one Apply of what a service needs. Additions come before deletions.
func (t *term) carryOut(s *service, w work) error {
	if len(w.puts) > 0 {
		return t.put(s, w.puts[:min(len(w.puts), perApply)])
	}
	return t.remove(s, w.deletes[:min(len(w.deletes), perApply)])
}

// apply is Apply on the target, for a Bridge whose election is valid.
func (t *term) apply(service string, changes []naming.Change) error {
	if !t.lead.valid() {
		return errDeposed
	}
	ctx, cancel := context.WithTimeout(t.ctx, callTimeout)
	defer cancel()
	return t.b.target.Apply(ctx, service, changes...)
}

// put puts copies. A copy that the target refuses stops no other.
func (t *term) put(s *service, puts []putWork) error {
	before := make(map[string]record, len(puts))
	changes := make([]naming.Change, 0, len(puts))
	sent := make([]putWork, 0, len(puts))
	for _, p := range puts {
		r := s.ledger[p.id]
		if r != nil {
			before[p.id] = *r
		}
		e, err := t.prepare(s, p)
		if errors.Is(err, errRefused) {
			continue
		}
		if err != nil {
			return err
		}
		changes = append(changes, naming.Change{Op: naming.Add, Endpoint: e, Lease: s.ledger[p.id].lease.Lease})
		sent = append(sent, p)
	}
	if len(changes) == 0 {
		return nil
	}
	err := t.apply(s.name, changes)
	switch {
	case err == nil:
		t.notePut(s, sent, changes)
		return nil
	case errors.Is(err, naming.ErrLeaseLost):
		return t.probe(s, sent, err)
	case errors.Is(err, naming.ErrInvalid) && len(sent) == 1:
		t.refuse(s, sent[0], before, err)
		return nil
	case errors.Is(err, naming.ErrInvalid):
		return t.putSingly(s, sent)
	}
	return err
}

// putSingly puts copies one by one, because the target refused some of them.
func (t *term) putSingly(s *service, puts []putWork) error {
	for _, p := range puts {
		if err := t.pace.wait(t.ctx); err != nil {
			return err
		}
		if err := t.put(s, []putWork{p}); err != nil {
			return err
		}
	}
	return nil
}

// errRefused says that no form of a copy is left.
var errRefused = errors.New("refused")

// prepare writes a copy into the ledger before it is put: the Apply may fail and take
// effect all the same. It returns the copy.
func (t *term) prepare(s *service, p putWork) (naming.Endpoint, error) {
	r := s.ledger[p.id]
	first := 0
	if r != nil && r.native.Equal(p.native) {
		first = r.form
	}
	e, at, err := t.copier.copy(s.name, p.native, t.lead.epoch.Load(), first)
	if err != nil {
		t.noteRefusal(s, p, err)
		return e, errRefused
	}
	if r == nil || t.pool.isLost(r.lease) {
		lease, err := t.pool.take(t.ctx)
		if err != nil {
			return e, err
		}
		if r == nil {
			r = &record{leaving: p.native.Info().Draining}
			s.ledger[p.id] = r
		}
		r.lease = lease
	}
	if time.Since(r.putAt) > repairEvery {
		r.repairs = 0
	}
	if r.gone || r.edited {
		r.repairs++
	}
	r.native, r.form, r.putAt = p.native, at, time.Now()
	r.sure, r.seen, r.gone, r.edited = false, false, false, false
	return e, nil
}

// notePut notes that copies are in the target.
func (t *term) notePut(s *service, puts []putWork, changes []naming.Change) {
	appeared := 0
	for i, p := range puts {
		r := s.ledger[p.id]
		r.sure = true
		r.leaving = r.leaving || p.native.Info().Draining
		delete(s.inherited, p.id)
		delete(s.refused, p.id)
		if p.appear {
			appeared++
		}
		if l, lacks := t.copier.loss(s.name, p.native, changes[i].Endpoint); lacks {
			t.b.reportLoss(p.id, l)
		} else {
			t.b.forgetLoss(s.name, p.id)
		}
	}
	t.fuse.note(s.name, 0, appeared)
	t.b.noteSuccess()
	if f := t.b.hooks.Copied; f != nil {
		f(CopiedInfo{Service: s.name, Count: len(puts)})
	}
}

// refuse notes that the target refused a copy as invalid. The next form is tried, if one is
// left.
func (t *term) refuse(s *service, p putWork, before map[string]record, err error) {
	r := s.ledger[p.id]
	if r.form+1 < len(forms) {
		r.form++
		if _, _, no := t.copier.copy(s.name, p.native, 0, r.form); no == nil {
			return
		}
	}
	was, existed := before[p.id]
	if existed && was.sure && was.lease == r.lease {
		*r = was // the copy is in the target as it was
	} else {
		delete(s.ledger, p.id)
		t.pool.release(r.lease)
	}
	t.noteRefusal(s, p, err)
}

// noteRefusal notes that no form of a copy can be put.
func (t *term) noteRefusal(s *service, p putWork, err error) {
	s.refused[p.id] = refusal{native: p.native, until: time.Now().Add(refusedFor)}
	t.b.reportLoss(p.id, migrate.Loss{Service: s.name, Endpoint: p.native, Err: naming.SafeError(err)})
}

// probe renews the leases of copies that could not be put, because one has ended. It
// returns err if no lease has ended.
func (t *term) probe(s *service, puts []putWork, err error) error {
	leases := make(map[*sharedLease]bool)
	for _, p := range puts {
		leases[s.ledger[p.id].lease] = true
	}
	for l := range maps.Keys(leases) {
		t.pool.renew(t.ctx, l)
		if t.pool.isLost(l) {
			err = nil
		}
	}
	return err
}

// remove deletes copies that are under own leases. A copy that is under another lease
// stays: its owner decides.
func (t *term) remove(s *service, deletes []Delete) error {
	changes := make([]naming.Change, len(deletes))
	counted := 0
	for i, d := range deletes {
		changes[i] = naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: d.ID}, Lease: s.ledger[d.ID].lease.Lease}
		if d.Counts {
			counted++
		}
	}
	if err := t.apply(s.name, changes); err != nil {
		return err
	}
	for _, d := range deletes {
		t.pool.release(s.ledger[d.ID].lease)
		delete(s.ledger, d.ID)
		t.b.forgetLoss(s.name, d.ID)
	}
	t.fuse.note(s.name, counted, 0)
	t.b.noteSuccess()
	if f := t.b.hooks.Removed; f != nil {
		f(RemovedInfo{Service: s.name, Count: len(deletes)})
	}
	return nil
}
