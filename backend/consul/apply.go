package consul

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul/internal/wire"
)

// Apply implements [naming.Store].
func (s *Store) Apply(ctx context.Context, service string, changes ...naming.Change) error {
	changes, err := naming.Normalize(service, changes)
	if err != nil {
		return err
	}
	if err := s.writable(service); err != nil {
		return err
	}
	a := &apply{
		store: s, service: service, name: toConsul(s.opts.Prefix + service),
		found:   make(map[string][]*wire.Entry),
		put:     make(map[string]*registration),
		deleted: make(map[string]map[string]bool),
	}
	// Everything that is invalid is found before anything is written.
	for _, c := range changes {
		if err := a.prepare(c); err != nil {
			return err
		}
	}
	if err := a.run(ctx); err != nil {
		return fmt.Errorf("consul: apply to %q: %w", service, describe(ctx, err))
	}
	return nil
}

// apply is one call of Apply. Only the goroutine of the call uses it.
type apply struct {
	store         *Store
	service, name string // the name is Consul's
	changes       []prepared
	found         map[string][]*wire.Entry   // by endpoint ID, the entry that counts first; empty unless the catalogue was read
	put           map[string]*registration   // by endpoint ID, what was put last
	deleted       map[string]map[string]bool // by endpoint ID, the service IDs of what was deleted
}

// prepared is a change with what was checked of it.
type prepared struct {
	naming.Change
	lease   *lease                        // nil: none
	service *api.AgentServiceRegistration // of an Add, without IDs, check and number
}

// prepare checks a change and encodes its endpoint.
func (a *apply) prepare(c naming.Change) error {
	p := prepared{Change: c}
	if c.Lease != nil {
		l, ok := c.Lease.(*lease)
		if !ok || l.store != a.store {
			return fmt.Errorf("%w: lease of %q in service %q is of another store", naming.ErrInvalid, c.Endpoint.ID, a.service)
		}
		p.lease = l
	}
	if c.Op == naming.Add {
		var err error
		if p.service, err = a.store.encode(a.service, c.Endpoint); err != nil {
			return err
		}
	}
	a.changes = append(a.changes, p)
	return nil
}

// run makes the changes and waits until the catalogue has them.
func (a *apply) run(ctx context.Context) error {
	if len(a.changes) == 0 {
		return nil
	}
	release, err := a.store.locks.acquire(ctx, a.name)
	if err != nil {
		return err
	}
	defer release()
	var ids []string
	conditional := false
	for _, c := range a.changes {
		ids = append(ids, c.Endpoint.ID)
		conditional = conditional || c.Op == naming.Delete || c.IfFree
		if c.lease != nil && c.Op == naming.Add && !c.lease.live() {
			return naming.ErrLeaseLost
		}
	}
	if conditional {
		if a.found, err = a.readEndpoints(ctx, ids); err != nil {
			return err
		}
	}
	for _, c := range a.changes {
		if err := a.change(ctx, c); err != nil {
			return err
		}
	}
	return a.settle(ctx, ids)
}

// change makes one change, if its condition holds.
func (a *apply) change(ctx context.Context, c prepared) error {
	switch {
	case c.Op == naming.Delete:
		return a.deleteEndpoint(ctx, c)
	case c.IfFree && !a.free(c):
		return nil
	}
	number := a.nextNumber(c.Endpoint.ID)
	wire.SetNumber(c.service, number)
	return a.register(ctx, &registration{name: a.name, endpointID: c.Endpoint.ID, number: number, service: c.service, lease: c.lease})
}

// readEndpoints reads the entries of some endpoints, by endpoint ID, the entry that
// counts first.
func (a *apply) readEndpoints(ctx context.Context, ids []string) (map[string][]*wire.Entry, error) {
	q := &api.QueryOptions{RequireConsistent: true}
	if len(ids) <= 8 {
		// The entries of other writers do not have the IDs of their endpoints.
		terms := []string{`"` + wire.MetaID + `" not in Service.Meta`}
		for _, id := range ids {
			terms = append(terms, `Service.Meta["`+wire.MetaID+`"] == `+quote(wire.FirstPiece(id)))
		}
		q.Filter = strings.Join(terms, " or ")
	}
	if err := a.store.gates.enter(ctx); err != nil {
		return nil, err
	}
	all, meta, err := a.store.fetchEntries(ctx, a.name, q)
	a.store.gates.leave()
	if err != nil {
		return nil, err
	}
	if meta.ResultsFilteredByACLs {
		return nil, errFiltered
	}
	found := make(map[string][]*wire.Entry)
	for _, i := range all {
		id := i.EndpointID(a.store.opts.PortName)
		if slices.Contains(ids, id) {
			found[id] = append(found[id], i)
		}
	}
	for _, list := range found {
		slices.SortFunc(list, func(x, y *wire.Entry) int { return a.store.opts.compare(y, x) })
	}
	return found, nil
}

// free reports whether the condition of an IfFree holds: no lease but that of the
// change has the endpoint. A withheld endpoint is not free. With Reclaim, an endpoint
// without a lease is free as well.
func (a *apply) free(c prepared) bool {
	id := c.Endpoint.ID
	for _, i := range a.found[id] {
		if a.store.opts.standing(i).gone || i.AgentLost() {
			continue
		}
		if _, err := i.Endpoint(a.store.opts.rules()); err == nil {
			return i.Service.ID == c.lease.serviceID(a.name, id) || c.Reclaim && i.Service.ID == wire.ServiceID(wire.NoLease, a.name, id)
		}
	}
	return true
}

// nextNumber returns a number for a registration of an endpoint. It is above the
// numbers of all registrations that are known: numbers grow even when a clock stands
// still or goes back.
func (a *apply) nextNumber(id string) uint64 {
	number := uint64(time.Now().UnixNano())
	if p := a.put[id]; p != nil {
		number = max(number, p.number+1)
	}
	for _, i := range a.found[id] {
		number = max(number, i.Number()+1)
	}
	return number
}

// register makes a registration, and removes the other entries of the endpoint that
// are known.
func (a *apply) register(ctx context.Context, r *registration) error {
	if err := a.complete(r); err != nil {
		return err
	}
	old := a.found[r.endpointID]
	if err := a.store.register(ctx, r, maintenanceCheck(r.service.ID, old)...); err != nil {
		return err
	}
	a.put[r.endpointID] = r
	delete(a.deleted, r.endpointID)
	if err := a.removeOthers(ctx, r.service.ID, "", old); err != nil {
		return err
	}
	a.found[r.endpointID] = []*wire.Entry{r.entry()}
	return nil
}

// complete sets the IDs and the check of a registration, and adds the registration to
// its lease.
func (a *apply) complete(r *registration) error {
	s, opts := r.service, &a.store.opts
	s.Name, s.Partition, s.Namespace = a.name, opts.Partition, opts.Namespace
	if r.lease == nil {
		s.ID = wire.ServiceID(wire.NoLease, a.name, r.endpointID)
		return nil
	}
	s.ID = r.lease.serviceID(a.name, r.endpointID)
	s.Checks = api.AgentServiceChecks{{
		CheckID: s.ID,
		TTL:     r.lease.ttl.String(),
		Status:  api.HealthPassing,

		DeregisterCriticalServiceAfter: opts.DeregisterAfter.String(),
	}}
	if !r.lease.addRegistration(r) {
		return naming.ErrLeaseLost
	}
	return nil
}

// deleteEndpoint deregisters an endpoint, if the condition of the Delete holds: the
// endpoint is under the lease of the change, or with Reclaim under none.
func (a *apply) deleteEndpoint(ctx context.Context, c prepared) error {
	id := c.Endpoint.ID
	list := a.found[id]
	if len(list) == 0 {
		return nil
	}
	newest := list[0].Service.ID
	if c.lease != nil && newest != c.lease.serviceID(a.name, id) && !(c.Reclaim && newest == wire.ServiceID(wire.NoLease, a.name, id)) {
		return nil
	}
	count := make(map[string]int)
	for _, i := range list {
		count[i.Service.ID]++
	}
	// The entry that counts goes last, or readers would see an older one.
	for _, i := range slices.Backward(list) {
		if a.deleted[id] == nil {
			a.deleted[id] = make(map[string]bool)
		}
		a.deleted[id][i.Service.ID] = true
		if err := a.remove(ctx, i, count[i.Service.ID] > 1); err != nil {
			return err
		}
	}
	delete(a.found, id)
	delete(a.put, id)
	return nil
}

// removeOthers deregisters the entries in list, except the one of a registration with
// the agent. id is the service ID of the registration. node is the agent's node. While
// the node is not known, any entry with the ID may be the registration, so all entries
// with the ID stay.
func (a *apply) removeOthers(ctx context.Context, id, node string, list []*wire.Entry) error {
	for _, i := range list {
		var err error
		switch {
		case i.Service.ID != id:
			err = a.remove(ctx, i, false)
		case node != "" && i.Node.Node != "" && i.Node.Node != node:
			err = a.store.deregisterAtCatalog(ctx, i)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// remove deregisters an entry: with the agent if the agent has it, and at the
// catalogue if the agent does not or if other agents have the same ID. A service ID is
// unique on one node only, so what the agent has under the ID may be another service.
func (a *apply) remove(ctx context.Context, i *wire.Entry, onOthers bool) error {
	there, err := a.store.hasSame(ctx, i)
	if err != nil {
		return err
	}
	if there {
		err = a.store.deregister(ctx, i.Service.ID)
		if there = !unknown(err); !there {
			err = nil
		}
	}
	if err == nil && (!there || onOthers) && i.Node.Node != "" {
		err = a.store.deregisterAtCatalog(ctx, i)
	}
	if err == nil && there {
		a.store.leases.forget(i.Service.ID)
	}
	return err
}

// settleLooks is how often settle reads the catalogue. Somebody may put the same
// endpoint at the same time. Then the last registration counts, and another look
// decides.
const settleLooks = 5

// settle waits until the catalogue has what was put and no longer has what was
// deleted, and until what was put counts.
func (a *apply) settle(ctx context.Context, ids []string) error {
	for look := 1; ; look++ {
		found, err := a.readEndpoints(ctx, ids)
		if errors.Is(err, errFiltered) {
			err = a.undo(ctx)
		}
		if err != nil {
			return err
		}
		settled, err := a.settleAll(ctx, found)
		if settled || err != nil {
			return err
		}
		if look == settleLooks {
			return fmt.Errorf("others put the same endpoint %d times at the same time", settleLooks)
		}
	}
}

// settleAll reports whether the entries found are as Apply is to leave them. It acts
// on what is not.
func (a *apply) settleAll(ctx context.Context, found map[string][]*wire.Entry) (settled bool, err error) {
	settled = true
	for id, r := range a.put {
		done, err := a.settlePut(ctx, r, found[id])
		if err != nil {
			return false, fmt.Errorf("put %q: %w", id, err)
		}
		settled = settled && done
	}
	for id, gone := range a.deleted {
		for _, i := range found[id] {
			if gone[i.Service.ID] {
				return false, fmt.Errorf("delete %q: %w", id, errNotSynced)
			}
		}
	}
	return settled, nil
}

// settlePut reports whether an endpoint is as it was put. It acts on what is not.
func (a *apply) settlePut(ctx context.Context, r *registration, found []*wire.Entry) (done bool, err error) {
	mine, others := r.findIn(found)
	if mine == nil {
		// Only the agent knows whether somebody has removed the registration since.
		known, err := a.store.hasRegistered(ctx, r.service.ID)
		if err == nil && known {
			err = errNotSynced
		}
		return true, err
	}
	if others >= r.number && others < maxNumber { // no number is above maxNumber: then the other entry is removed
		a.found[r.endpointID] = nil
		return false, a.register(ctx, r.renumbered(max(a.nextNumber(r.endpointID), others+1)))
	}
	// What an operator said of another entry is copied before that entry is removed.
	if _, out := mine.Maintenance(); !out {
		if note, ok := wire.MaintenanceOf(found); ok {
			if err := a.store.maintain(ctx, mine.Service.ID, note); err != nil {
				return false, err
			}
		}
	}
	if err := a.removeOthers(ctx, mine.Service.ID, mine.Node.Node, found); err != nil {
		return false, err
	}
	if r.lease != nil {
		r.lease.markListed(r)
		if !mine.LeasePasses() {
			// A check that existed before the registration has kept its status.
			return true, a.store.pass(ctx, r.service.ID)
		}
	}
	return true, nil
}

// undo removes what was put with a token that may not read it, because nobody could
// check it afterwards. A registration that was in the catalogue before stays.
func (a *apply) undo(ctx context.Context) error {
	for _, r := range a.put {
		if r.lease != nil && r.lease.wasListed(r) {
			continue
		}
		if err := a.store.deregister(ctx, r.service.ID); err != nil && !unknown(err) {
			return fmt.Errorf("%w; and it is still registered: %w", errNodeRead, err)
		}
		a.store.leases.forget(r.service.ID)
	}
	if len(a.put) == 0 {
		return errFiltered
	}
	return errNodeRead
}
