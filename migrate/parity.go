package migrate

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/naming-go/naming"
)

// Compare returns the difference between the endpoints of a service in two registries.
// The order of the endpoints does not matter. It modifies neither view. It is
// [Comparison.Compare] without options.
func Compare(service string, old, next naming.View) *Report {
	return Comparison{}.Compare(service, old, next)
}

// CompareStores reads services from both registries, once each, and compares them. It is
// [Comparison.Stores] without options.
func CompareStores(ctx context.Context, old, next naming.Store, services ...string) ([]*Report, error) {
	return Comparison{}.Stores(ctx, old, next, services...)
}

// Comparison are the options of a comparison. The zero value means the defaults.
type Comparison struct {
	// Accept is what may differ: an address with no other differences counts as equal.
	Accept Accept
	// Target, if it is a [naming.Mapper], is asked which endpoints of the old registry
	// the format of the new registry refuses: see [Report.Unmappable]. Stores asks the
	// new registry's Store if Target is nil.
	Target naming.Store
}

// Compare returns the difference between the endpoints of a service in two registries.
//
// Endpoints correspond if they have the same address. Of several at one address, those
// with the same ID correspond, and then the others in the order of their IDs. One ID with
// two addresses, one in each registry, is one endpoint that is missing and one that is
// extra. A copy counts as its native, and not at all if its registry also has the native.
func (c Comparison) Compare(service string, old, next naming.View) *Report {
	r := &Report{
		Service: service, Known: old.Synced && next.Synced,
		OldAsOf: old.AsOf, NewAsOf: next.AsOf, OldStale: old.Stale(), NewStale: next.Stale(),
	}
	if !r.Known {
		return r
	}
	x := comparer{report: r, accept: c.Accept}
	if sameEntries(old.Endpoints, next.Endpoints) && len(old.Withheld)+len(next.Withheld) == 0 {
		r.OldCount, r.NewCount = len(old.Endpoints), len(next.Endpoints)
	} else {
		x.compare(entries(old), entries(next))
	}
	if m, ok := c.Target.(naming.Mapper); ok {
		r.Unmappable = refusedBy(m, service, old.Endpoints)
	}
	return r
}

// sameEntries reports whether both lists are equal, byte by byte, and have no copies. It
// is the usual case, and costs no memory.
func sameEntries(old, next []naming.Endpoint) bool {
	return slices.EqualFunc(old, next, func(o, n naming.Endpoint) bool {
		return o.ID == n.ID && o.Addr == n.Addr && o.Draining == n.Draining && bytes.Equal(o.Metadata, n.Metadata) && !strings.HasPrefix(o.ID, copyPrefix)
	})
}

// refusedBy returns the endpoints that a format refuses.
func refusedBy(m naming.Mapper, service string, endpoints []naming.Endpoint) (losses []Loss) {
	for _, e := range endpoints {
		if e, isCopy := Native(e); !isCopy { // a copy has its native in the new registry
			if l, err := lossOf(m, service, e); err == nil && l.Err != nil {
				losses = append(losses, l)
			}
		}
	}
	slices.SortFunc(losses, func(a, b Loss) int { return compareEndpoints(&a.Endpoint, &b.Endpoint) })
	return losses
}

// parityEntry is an endpoint of one registry, as clients see it.
type parityEntry struct {
	naming.Endpoint
	copied   bool
	draining bool
	withheld bool
}

// live reports whether clients call the endpoint now, and will do so.
func (e *parityEntry) live() bool { return !e.draining && !e.withheld }

// entries returns the endpoints of a view, sorted. Copies have become natives. A copy
// whose native is there is left out.
func entries(v naming.View) []parityEntry {
	all := make([]parityEntry, 0, len(v.Endpoints)+len(v.Withheld))
	for _, e := range v.Endpoints {
		all = append(all, parityEntry{Endpoint: e})
	}
	for _, w := range v.Withheld {
		all = append(all, parityEntry{Endpoint: w.Endpoint, withheld: true})
	}
	slices.SortFunc(all, compareEntries)
	ids, addrs := make(map[string]struct{}), make(map[string]struct{})
	list := make([]parityEntry, 0, len(all))
	for _, copies := range []bool{false, true} {
		for _, e := range all {
			if e.Endpoint, e.copied = Native(e.Endpoint); e.copied != copies {
				continue
			}
			if e.copied && (has(ids, e.ID) || e.Addr != "" && has(addrs, e.Addr)) {
				continue
			}
			ids[e.ID], addrs[e.Addr] = struct{}{}, struct{}{}
			e.draining = isDraining(&e.Endpoint)
			list = append(list, e)
		}
	}
	slices.SortFunc(list, compareEntries)
	return list
}

// isDraining returns Info().Draining. It does not decode metadata that cannot say so.
func isDraining(e *naming.Endpoint) bool {
	if !e.Draining && !bytes.Contains(e.Metadata, []byte("draining")) && bytes.IndexByte(e.Metadata, '\\') < 0 {
		return false
	}
	return e.Info().Draining
}

// compareEntries is a total order, so that the order of a view does not matter.
func compareEntries(a, b parityEntry) int {
	return cmp.Or(compareEndpoints(&a.Endpoint, &b.Endpoint), compareBools(a.withheld, b.withheld), compareBools(a.copied, b.copied))
}

func compareEndpoints(a, b *naming.Endpoint) int {
	return cmp.Or(strings.Compare(a.ID, b.ID), strings.Compare(a.Addr, b.Addr), bytes.Compare(a.Metadata, b.Metadata),
		compareBools(a.Draining, b.Draining), compareBools(a.NoDrainingMark, b.NoDrainingMark), compareBools(a.Unleased, b.Unleased))
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// comparer adds the differences of two lists to a report.
type comparer struct {
	report *Report
	accept Accept
}

// place is where endpoints correspond: an address, or the ID of an endpoint that has no
// address.
type place struct{ addr, id string }

func (e *parityEntry) place() place {
	if e.Addr == "" {
		return place{id: e.ID}
	}
	return place{addr: e.Addr}
}

// compare compares two lists, which are sorted.
func (x *comparer) compare(old, next []parityEntry) {
	r := x.report
	r.OldCount, r.OldCopies = countUsable(old)
	r.NewCount, r.Copies = countUsable(next)
	type pair struct{ old, next []*parityEntry }
	places := make(map[place]*pair, len(old))
	at := func(e *parityEntry) *pair {
		p := places[e.place()]
		if p == nil {
			p = new(pair)
			places[e.place()] = p
		}
		return p
	}
	for i := range old {
		p := at(&old[i])
		p.old = append(p.old, &old[i])
	}
	for i := range next {
		p := at(&next[i])
		p.next = append(p.next, &next[i])
	}
	for _, p := range places {
		x.comparePlace(p.old, p.next)
	}
	for _, list := range [][]naming.Endpoint{r.Missing, r.Extra} {
		slices.SortFunc(list, func(a, b naming.Endpoint) int { return compareEndpoints(&a, &b) })
	}
	slices.SortFunc(r.Mismatch, func(a, b Mismatch) int {
		return cmp.Or(compareEndpoints(&a.Old, &b.Old), compareEndpoints(&a.New, &b.New))
	})
}

// countUsable returns the number of endpoints that may be used, and those of them that are
// copies.
func countUsable(list []parityEntry) (n int, copies []naming.Endpoint) {
	for i := range list {
		if list[i].withheld {
			continue
		}
		n++
		if list[i].copied {
			copies = append(copies, list[i].Endpoint)
		}
	}
	return n, copies
}

// comparePlace compares the endpoints at one place. Each list is sorted by ID.
func (x *comparer) comparePlace(old, next []*parityEntry) {
	oldRest, nextRest := x.matchIDs(old, next)
	for len(oldRest) > 0 && len(nextRest) > 0 {
		x.mismatch(oldRest[0], nextRest[0])
		oldRest, nextRest = oldRest[1:], nextRest[1:]
	}
	for _, o := range oldRest {
		if len(next) > 0 {
			x.mismatch(o, best(next))
		} else {
			x.report.Missing = append(x.report.Missing, o.Endpoint)
		}
	}
	for _, n := range nextRest {
		if len(old) > 0 {
			x.mismatch(best(old), n)
		} else {
			x.report.Extra = append(x.report.Extra, n.Endpoint)
		}
	}
}

// matchIDs compares the endpoints that have the same ID. It returns the others that are
// live: an endpoint that drains, or is withheld, may be in one registry only.
func (x *comparer) matchIDs(old, next []*parityEntry) (oldRest, nextRest []*parityEntry) {
	for len(old) > 0 || len(next) > 0 {
		order := 0
		switch {
		case len(next) == 0:
			order = -1
		case len(old) == 0:
			order = 1
		default:
			order = strings.Compare(old[0].ID, next[0].ID)
		}
		if order == 0 {
			x.mismatch(old[0], next[0])
		} else if order < 0 && old[0].live() {
			oldRest = append(oldRest, old[0])
		} else if order > 0 && next[0].live() {
			nextRest = append(nextRest, next[0])
		}
		if order <= 0 {
			old = old[1:]
		}
		if order >= 0 {
			next = next[1:]
		}
	}
	return oldRest, nextRest
}

// best returns the endpoint that stands for its place.
func best(list []*parityEntry) *parityEntry {
	for _, e := range list {
		if e.live() {
			return e
		}
	}
	return list[0]
}

// mismatch adds two endpoints to the report, if they differ.
func (x *comparer) mismatch(old, next *parityEntry) {
	fields := differences(old, next)
	switch {
	case len(fields) == 0:
	case x.accept.Covers(fields):
		x.report.Accepted++
	default:
		x.report.Mismatch = append(x.report.Mismatch, Mismatch{Old: old.Endpoint, New: next.Endpoint, Fields: fields})
	}
}

// differences returns the names of the fields that differ, except the address.
func differences(a, b *parityEntry) (fields []string) {
	if a.ID != b.ID {
		fields = append(fields, fieldID)
	}
	if !bytes.Equal(a.Metadata, b.Metadata) {
		fields = append(fields, metadataDifferences(a.Endpoint, b.Endpoint)...)
	}
	if a.draining != b.draining {
		field := fieldDraining
		if !a.draining && a.NoDrainingMark || !b.draining && b.NoDrainingMark {
			field = fieldDrainingMark
		}
		fields = append(fields, field)
	}
	if a.withheld != b.withheld {
		fields = append(fields, fieldWithheld)
	}
	return fields
}

// metadataDifferences returns the names of the fields in which metadata differ.
func metadataDifferences(a, b naming.Endpoint) (fields []string) {
	if sameValue(a.Metadata, b.Metadata) {
		return nil
	}
	x, y := a.Info(), b.Info()
	for _, f := range []struct {
		name    string
		differs bool
	}{
		{fieldWeight, x.Weight != y.Weight}, {fieldZone, x.Zone != y.Zone}, {fieldVersion, x.Version != y.Version}, {fieldTags, !slices.Equal(x.Tags, y.Tags)},
	} {
		if f.differs {
			fields = append(fields, f.name)
		}
	}
	known := fields
	a.Draining, b.Draining = false, false
	if a.Info().Draining != b.Info().Draining {
		known = append(slices.Clone(known), "draining") // the caller compares it
	}
	if len(known) == 0 || otherMembersDiffer(a.Metadata, b.Metadata, known) {
		fields = append(fields, fieldMetadata)
	}
	return fields
}

// otherMembersDiffer reports whether metadata differ in a member that is not in known, or
// are not objects. Metadata that are absent count as an object without members.
func otherMembersDiffer(a, b json.RawMessage, known []string) bool {
	x, xok := metadataMembers(a)
	y, yok := metadataMembers(b)
	if !xok || !yok {
		return true
	}
	for name := range x {
		if !slices.Contains(known, name) && !sameValue(x[name], y[name]) {
			return true
		}
	}
	for name := range y {
		if _, both := x[name]; !both && !slices.Contains(known, name) {
			return true
		}
	}
	return false
}

func metadataMembers(m json.RawMessage) (members map[string]json.RawMessage, ok bool) {
	if len(m) > 0 {
		ok = json.Unmarshal(m, &members) == nil
	}
	return members, ok || len(m) == 0
}

// sameValue reports whether two texts are the same JSON value.
func sameValue(a, b json.RawMessage) bool {
	return naming.Endpoint{Metadata: a}.Equal(naming.Endpoint{Metadata: b})
}

// compareAtOnce is how many services are read at once.
const compareAtOnce = 8

// Stores reads services from both registries, once each, and compares them. Without
// services it reads the lists of services, and compares all except [RecordService] and
// [BridgeService].
//
// The reports are in the order of the services, or sorted by service. A service that cannot
// be read has a report whose Known is false, and the error has the reason. A change between
// the reads of the two registries looks like a difference. So a caller that finds one reads
// again before it acts.
func (c Comparison) Stores(ctx context.Context, old, next naming.Store, services ...string) ([]*Report, error) {
	if c.Target == nil {
		c.Target = next
	}
	if len(services) == 0 {
		var err error
		if services, err = allServices(ctx, old, next); err != nil {
			return nil, err
		}
	}
	var sides [2]*naming.Client
	for i, store := range []naming.Store{old, next} {
		sides[i] = naming.New(store, nil)
		defer sides[i].Close()
	}
	reports, errs := make([]*Report, len(services)), make([]error, len(services))
	turns := make(chan struct{}, compareAtOnce)
	var wg sync.WaitGroup
	for i, service := range services {
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			reports[i], errs[i] = c.readAndCompare(ctx, sides, service)
		})
	}
	wg.Wait()
	return reports, joinSome(errs)
}

// readAndCompare reads a service from both registries at once.
func (c Comparison) readAndCompare(ctx context.Context, sides [2]*naming.Client, service string) (*Report, error) {
	var views [2]naming.View
	var errs [2]error
	var wg sync.WaitGroup
	for i, name := range []string{"old", "new"} {
		wg.Go(func() {
			if views[i], errs[i] = sides[i].List(ctx, service); errs[i] != nil {
				errs[i] = fmt.Errorf("%s registry: %w", name, errs[i])
			}
		})
	}
	wg.Wait()
	return c.Compare(service, views[oldSide], views[newSide]), errors.Join(errs[:]...)
}

// joinSome joins the first errors, so that an outage does not repeat one error for every
// service.
func joinSome(errs []error) error {
	const most = 5
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if n := len(errs) - most; n > 0 {
		errs = append(errs[:most:most], fmt.Errorf("and %d more errors", n))
	}
	return errors.Join(errs...)
}

// allServices returns the names of the services that are in either registry, sorted.
func allServices(ctx context.Context, old, next naming.Store) ([]string, error) {
	var all []string
	for i, store := range []naming.Store{old, next} {
		names, err := firstList(ctx, store)
		if err != nil {
			return nil, fmt.Errorf("migrate: list the services of the %s registry: %w", []string{"old", "new"}[i], err)
		}
		all = append(all, names...)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	return slices.DeleteFunc(all, func(name string) bool { return isOwnService(name) || naming.CheckService(name) != nil }), nil
}

func firstList(ctx context.Context, store naming.Store) ([]string, error) {
	for names, err := range store.Services(ctx) {
		return names, err
	}
	return nil, errors.New("the sequence of Services ended without a list and without an error")
}
