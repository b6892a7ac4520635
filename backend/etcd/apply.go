package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
)

// Apply implements [naming.Store].
func (s *Store) Apply(ctx context.Context, service string, changes ...naming.Change) error {
	changes, err := naming.Normalize(service, changes)
	if err != nil {
		return err
	}
	plans, err := s.makePlans(service, changes)
	if err != nil {
		return err
	}
	most := cost{ops: MaxTxnOps, size: maxTxnSize}
	for len(plans) > 0 {
		n, sum := fit(plans, most)
		err := s.commit(ctx, service, plans[:n])
		switch {
		case err == nil:
			plans = plans[n:]
		case errors.Is(err, errSharedKey):
			most.ops = 1
		case !shrink(err, plans[:n], sum, &most):
			if requestTooLarge(err) {
				err = fmt.Errorf("%w: %w", naming.ErrInvalid, err)
			}
			return fmt.Errorf("etcd: apply to %q: %w", service, s.describe(ctx, lacking(err, plans[:n])))
		}
	}
	return nil
}

// idPlan is all changes of an Apply to one ID. They become one operation, since a
// transaction must not name a key twice.
type idPlan struct {
	id, key string
	rawKey  string // where else the endpoint may be; empty: nowhere
	edits   []edit
	// readFirst says that the entry is read before the transaction, which then fails if
	// the entry has changed. Otherwise the transaction itself finds out under which of
	// the leases the entry is. For that it contains the value several times.
	readFirst bool
}

// edit is one change, with the value that Encode made.
type edit struct {
	add    bool
	value  string
	lease  clientv3.LeaseID // of a Delete: NoLease means no condition
	ifFree bool
	orNone bool // the condition also holds for an entry under no lease
}

// makePlans returns the plan of each ID, in the order in which the IDs first occur.
func (s *Store) makePlans(service string, changes []naming.Change) ([]*idPlan, error) {
	list := make([]*idPlan, 0, len(changes))
	byID := make(map[string]*idPlan, len(changes))
	for _, c := range changes {
		e, err := s.makeEdit(service, c)
		if err != nil {
			return nil, err
		}
		id := c.Endpoint.ID
		p := byID[id]
		if p == nil {
			p = &idPlan{id: id, key: s.layout.key(service, id)}
			p.rawKey, _ = s.layout.rawKey(service, id)
			byID[id] = p
			list = append(list, p)
		}
		p.edits = append(p.edits, e)
	}
	return list, nil
}

func (s *Store) makeEdit(service string, c naming.Change) (edit, error) {
	e := edit{add: c.Op == naming.Add, ifFree: c.IfFree, orNone: c.Reclaim}
	if c.Lease != nil {
		l, ok := c.Lease.(*lease)
		if !ok || l.store != s {
			return e, fmt.Errorf("%w: lease of %q in service %q is of another store", naming.ErrInvalid, c.Endpoint.ID, service)
		}
		e.lease = l.id
	}
	if e.add {
		value, err := s.layout.encode(service, c.Endpoint)
		if err != nil {
			return e, err
		}
		e.value = string(value)
	}
	return e, nil
}

// occupant is what may be at a key: nothing, an entry under a lease, or an entry under an
// unknown lease, which the edits do not name.
type occupant struct {
	there   bool
	lease   clientv3.LeaseID
	unknown bool
}

// occupantOf returns the occupant that kv describes. A nil kv means that the key is free.
func occupantOf(kv *mvccpb.KeyValue) occupant {
	if kv == nil {
		return occupant{}
	}
	return occupant{there: true, lease: clientv3.LeaseID(kv.Lease)}
}

// outcome returns the operation that the edits amount to, given what is there. It returns
// none if the occupant stays.
func (p *idPlan) outcome(o occupant) []clientv3.Op {
	var ops []clientv3.Op
	under := func(id clientv3.LeaseID) bool { return !o.unknown && o.lease == id }
	for _, e := range p.edits {
		orNone := e.orNone && under(clientv3.NoLease)
		switch {
		case e.add && (!e.ifFree || !o.there || under(e.lease) || orNone):
			o = occupant{there: true, lease: e.lease}
			var opts []clientv3.OpOption
			if e.lease != clientv3.NoLease {
				opts = append(opts, clientv3.WithLease(e.lease))
			}
			ops = []clientv3.Op{clientv3.OpPut(p.key, e.value, opts...)}
		case !e.add && o.there && (e.lease == clientv3.NoLease || under(e.lease) || orNone):
			o = occupant{}
			ops = []clientv3.Op{clientv3.OpDelete(p.key)}
		}
	}
	return ops
}

// conditions returns the leases that the outcome depends on.
func (p *idPlan) conditions() []clientv3.LeaseID {
	var ids []clientv3.LeaseID
	for _, e := range p.edits {
		if !e.ifFree && (e.add || e.lease == clientv3.NoLease) {
			continue
		}
		if !slices.Contains(ids, e.lease) {
			ids = append(ids, e.lease)
		}
		if e.orNone && !slices.Contains(ids, clientv3.NoLease) {
			ids = append(ids, clientv3.NoLease)
		}
	}
	return ids
}

// branches returns the operation on the Store's own key, with a branch for every lease
// that the outcome depends on. raw is what is at the other key.
func (p *idPlan) branches(raw occupant) []clientv3.Op {
	conditions := p.conditions()
	ops := p.outcome(occupant{there: true, unknown: true})
	if len(conditions) == 0 {
		return ops
	}
	ifAbsent := p.outcome(raw)
	stays := len(ops) == 0
	// Each lease wraps the operation so far in one more transaction, as its else branch.
	for _, id := range conditions {
		ops = p.ifElse(clientv3.Compare(clientv3.LeaseValue(p.key), "=", id), p.outcome(occupant{there: true, lease: id}), ops)
	}
	if stays && len(ifAbsent) == 0 {
		return ops // a comparison with the lease of an absent key is false
	}
	return p.ifElse(clientv3.Compare(clientv3.CreateRevision(p.key), "=", 0), ifAbsent, ops)
}

// ifElse returns a transaction inside the outer one. Its condition decides about this
// plan alone.
func (p *idPlan) ifElse(condition clientv3.Cmp, then, otherwise []clientv3.Op) []clientv3.Op {
	return []clientv3.Op{clientv3.OpTxn([]clientv3.Cmp{condition}, then, otherwise)}
}

// commit makes the changes of some IDs in one transaction.
//
// Whether a raw key is the endpoint's is known by its value. So commit reads the entry
// first, and deletes it only if it has not changed since. The same holds for plans that
// are readFirst. If an entry was changed in between, commit starts again.
func (s *Store) commit(ctx context.Context, service string, plans []*idPlan) error {
	const tries = 10
	for range tries {
		found, err := s.readOccupied(ctx, service, plans)
		if err != nil {
			return err
		}
		if found.shareKey(plans) {
			return errSharedKey
		}
		guards, ops := found.transaction(plans)
		done, err := s.doOps(ctx, guards, ops)
		if done || err != nil {
			return err
		}
	}
	return fmt.Errorf("the entries were changed %d times while they were looked at", tries)
}

// errSharedKey says that the plans need a transaction each.
var errSharedKey = errors.New("two changes name one key")

// shareKey reports whether two of the plans name one key, which a transaction must not: a
// raw key with an entry is the Store's own key of another ID if that ID, escaped, is the
// first one.
func (r occupied) shareKey(plans []*idPlan) bool {
	if len(r.raw) == 0 {
		return false
	}
	keys := make(map[string]bool, len(plans))
	for _, p := range plans {
		keys[p.key] = true
	}
	for p := range r.raw {
		if keys[p.rawKey] {
			return true
		}
	}
	return false
}

// transaction returns what is to be done, given what was read, and the guards: conditions
// that fail if an entry was changed since.
func (r occupied) transaction(plans []*idPlan) (guards []clientv3.Cmp, ops []clientv3.Op) {
	for _, p := range plans {
		raw := r.raw[p]
		o := occupantOf(raw)
		if raw != nil {
			guards = append(guards, clientv3.Compare(clientv3.ModRevision(p.rawKey), "=", raw.ModRevision))
			if len(p.outcome(o)) > 0 {
				ops = append(ops, clientv3.OpDelete(p.rawKey))
			}
		}
		if !p.readFirst {
			ops = append(ops, p.branches(o)...)
			continue
		}
		own := r.own[p]
		if own != nil {
			o = occupantOf(own)
		}
		guards = append(guards, clientv3.Compare(clientv3.ModRevision(p.key), "=", own.GetModRevision()))
		ops = append(ops, p.outcome(o)...)
	}
	return guards, ops
}

// doOps makes one request of the operations. It reports false if a guard failed. A single
// operation without guards needs no transaction.
func (s *Store) doOps(ctx context.Context, guards []clientv3.Cmp, ops []clientv3.Op) (done bool, err error) {
	wrapped := len(guards) > 0 || len(ops) != 1
	if wrapped {
		ops = []clientv3.Op{clientv3.OpTxn(guards, ops, nil)}
	}
	resp, err := s.doUnbounded(ctx, ops[0])
	if err != nil {
		return false, err
	}
	switch {
	case resp.Put() != nil:
		s.noteWritten(resp.Put().Header)
	case resp.Del() != nil:
		s.noteWritten(resp.Del().Header)
	default:
		s.noteWritten(resp.Txn().Header)
	}
	if !wrapped || resp.Txn().Succeeded {
		return true, nil
	}
	if len(guards) == 0 {
		return false, fmt.Errorf("%w: a transaction without conditions did not succeed", errAnswer)
	}
	return false, nil
}

// doUnbounded makes one request on behalf of Apply, which waits as long as its context.
func (s *Store) doUnbounded(ctx context.Context, op clientv3.Op) (resp clientv3.OpResponse, err error) {
	err = s.call(ctx, func(ctx context.Context) (err error) {
		resp, err = s.client.Do(ctx, op)
		return err
	})
	return resp, err
}

// occupied is what was read before a transaction: the entries at the Store's own keys and
// at raw keys. A plan whose entry was not read, or is not there, is missing.
type occupied struct{ own, raw map[*idPlan]*mvccpb.KeyValue }

// readOccupied reads the entries of plans that are readFirst, and the entries that a
// program on the old package's API has put under a raw key.
func (s *Store) readOccupied(ctx context.Context, service string, plans []*idPlan) (found occupied, err error) {
	var gets []clientv3.Op
	byKey := make(map[string]*idPlan)
	byRaw := make(map[string]*idPlan)
	for _, p := range plans {
		if p.readFirst {
			gets = append(gets, clientv3.OpGet(p.key))
			byKey[p.key] = p
		}
		if p.rawKey != "" {
			gets = append(gets, clientv3.OpGet(p.rawKey))
			byRaw[p.rawKey] = p
		}
	}
	if len(gets) == 0 {
		return found, nil
	}
	resp, err := s.doUnbounded(ctx, clientv3.OpTxn(nil, gets, nil))
	if err != nil {
		return found, err
	}
	if n := len(resp.Txn().Responses); n != len(gets) {
		return found, fmt.Errorf("%w: %d answers to %d reads", errAnswer, n, len(gets))
	}
	found = occupied{own: make(map[*idPlan]*mvccpb.KeyValue), raw: make(map[*idPlan]*mvccpb.KeyValue)}
	for _, r := range resp.Txn().Responses {
		for _, kv := range r.GetResponseRange().GetKvs() {
			if p := byKey[string(kv.GetKey())]; p != nil {
				found.own[p] = kv
			}
			if p := byRaw[string(kv.GetKey())]; p != nil && s.isRawEntry(service, p, kv) {
				found.raw[p] = kv
			}
		}
	}
	return found, nil
}

// isRawEntry reports whether what is at the raw key of a plan is the plan's endpoint.
func (s *Store) isRawEntry(service string, p *idPlan, kv *mvccpb.KeyValue) bool {
	tail := p.rawKey[len(s.layout.dir(service)):]
	_, id, mine, _ := s.layout.entry(service, tail, kv.Value)
	return mine && id == p.id
}
