package migrate

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/naming-go/naming"
)

// merged is the endpoints of both registries together. The lists are sorted by ID, and no
// ID is in two of them.
type merged struct {
	usable    []naming.Endpoint
	withheld  []naming.Withheld
	uncovered []string // live addresses of usable that the lead does not say to use; sorted

	// The endpoints of the lead, as the other registry's marks leave them. They are of use
	// only if uncovered is empty.
	leadUsable   []naming.Endpoint
	leadWithheld []naming.Withheld
}

// merge returns the endpoints of both registries. Where both have an address, the entries
// of the lead count. Several entries of one registry with one address all stay, as for a
// reader of the registry alone.
//
// The registries usually agree about most addresses. merge compares the sorted lists, and
// looks closer only at the addresses about which the registries differ. The lists of the lead
// are made only if the reader wants the lead alone.
func merge(lead sideIndex, views *[2]view, m *memory, alone bool) merged {
	l, o := &views[lead], &views[lead.other()]
	if len(o.usable)+len(o.withheld) == 0 && len(m.left[lead.other()]) == 0 {
		return merged{usable: l.usable, withheld: l.withheld, leadUsable: l.usable, leadWithheld: l.withheld}
	}
	x := merger{lead: lead, views: views, memory: m}
	x.findDifferences()
	if len(x.differ) == 0 {
		return merged{usable: l.usable, leadUsable: l.usable}
	}
	x.index()
	x.addLead()
	if alone {
		x.out.leadUsable, x.out.leadWithheld = slices.Clone(x.out.usable), slices.Concat(x.out.withheld, x.vouched)
	}
	x.addOther()
	x.sort()
	x.out.usable = x.withTheRest(x.out.usable)
	if alone && len(x.out.uncovered) == 0 {
		x.out.leadUsable = x.withTheRest(x.out.leadUsable)
	}
	return x.out
}

// merger merges the endpoints of both registries.
type merger struct {
	lead   sideIndex
	views  *[2]view
	memory *memory

	differ  map[string]struct{} // the addresses about which the registries differ
	says    [2]map[string]*verdict
	ids     map[string]string // the address of each ID that was claimed
	vouched []naming.Withheld // entries of the lead whose failed check does not count
	out     merged
}

// verdict is what one registry says about an address.
type verdict struct {
	live     *naming.Endpoint // the first usable entry that is not draining, or nil
	drains   bool             // a usable entry is draining
	withheld *naming.Withheld // no entry is usable: a reason, maintenance rather than a failed check
}

func (v *verdict) usable() bool { return v != nil && v.withheld == nil }

// findDifferences collects the addresses about which the registries differ, or about
// which something else has to be looked at.
func (x *merger) findDifferences() {
	l, o := x.views[x.lead].usable, x.views[x.lead.other()].usable
	for i, j := 0, 0; i < len(l) || j < len(o); {
		if i < len(l) && j < len(o) && sameBytes(&l[i], &o[j]) {
			i, j = i+1, j+1 // most endpoints are equal, and their IDs are sorted
			continue
		}
		switch c := compareAt(l, o, i, j); {
		case c < 0:
			x.differ = add(x.differ, l[i].Addr)
			i++
		case c > 0:
			x.differ = add(x.differ, o[j].Addr)
			j++
		default:
			if l[i].Addr != o[j].Addr || isDraining(&l[i]) != isDraining(&o[j]) {
				x.differ = add(add(x.differ, l[i].Addr), o[j].Addr)
			}
			i, j = i+1, j+1
		}
	}
	for i := range x.views {
		for j := range x.views[i].withheld {
			x.differ = add(x.differ, x.views[i].withheld[j].Endpoint.Addr)
		}
		for addr := range x.memory.left[i] {
			x.differ = add(x.differ, addr)
		}
	}
}

// sameBytes reports whether two endpoints are the same bytes, without the flags that a Store
// sets. It is much faster than [naming.Endpoint.Equal], and never true if Equal is false.
func sameBytes(a, b *naming.Endpoint) bool {
	return a.ID == b.ID && a.Addr == b.Addr && a.Draining == b.Draining && bytes.Equal(a.Metadata, b.Metadata)
}

// compareAt compares the IDs at l[i] and o[j]. The end of a list comes after every ID.
func compareAt(l, o []naming.Endpoint, i, j int) int {
	switch {
	case i == len(l):
		return 1
	case j == len(o):
		return -1
	}
	return strings.Compare(l[i].ID, o[j].ID)
}

// index collects what each registry says about the addresses in x.differ.
func (x *merger) index() {
	x.ids = make(map[string]string)
	for i := range x.views {
		says := make(map[string]*verdict, len(x.differ))
		x.says[i] = says
		for e := range x.usable(sideIndex(i)) {
			v := says[e.Addr]
			if v == nil {
				v = new(verdict)
				says[e.Addr] = v
			}
			if isDraining(e) {
				v.drains = true
			} else if v.live == nil {
				v.live = e
			}
		}
		for w := range x.withheld(sideIndex(i)) {
			switch v := says[w.Endpoint.Addr]; {
			case v == nil:
				says[w.Endpoint.Addr] = &verdict{withheld: w}
			case v.withheld != nil && v.withheld.Reason == naming.FailedCheck:
				v.withheld = w
			}
		}
	}
}

// usable yields the usable entries of registry i that have to be looked at.
func (x *merger) usable(i sideIndex) func(func(*naming.Endpoint) bool) {
	return func(yield func(*naming.Endpoint) bool) {
		list := x.views[i].usable
		for j := range list {
			if e := &list[j]; has(x.differ, e.Addr) && !x.hasLeft(i, e.Addr) && !yield(e) {
				return
			}
		}
	}
}

// withheld yields the withheld entries of registry i.
func (x *merger) withheld(i sideIndex) func(func(*naming.Withheld) bool) {
	return func(yield func(*naming.Withheld) bool) {
		list := x.views[i].withheld
		for j := range list {
			if w := &list[j]; !x.hasLeft(i, w.Endpoint.Addr) && !yield(w) {
				return
			}
		}
	}
}

// hasLeft reports whether an entry of registry i left the other registry in order, and
// registry i is stale, so that it does not know.
func (x *merger) hasLeft(i sideIndex, addr string) bool {
	return !x.views[i].fresh && has(x.memory.left[i.other()], addr)
}

// veto returns why an address must not be used, or nil. An operator's decision in one
// registry counts in both. A failed check counts unless the other registry is fresh and
// says to use the address.
func (x *merger) veto(addr string) (why *naming.Withheld) {
	for _, i := range []sideIndex{x.lead, x.lead.other()} {
		v, j := x.says[i][addr], i.other()
		if v == nil || v.withheld == nil {
			continue
		}
		if v.withheld.Reason != naming.FailedCheck {
			return v.withheld
		}
		if why == nil && !(x.views[j].fresh && x.says[j][addr].usable()) {
			why = v.withheld
		}
	}
	return why
}

// addLead adds the entries of the lead.
func (x *merger) addLead() {
	for e := range x.usable(x.lead) {
		x.addUsable(x.lead, *e)
	}
	for w := range x.withheld(x.lead) {
		addr := w.Endpoint.Addr
		if addr == "" || x.says[x.lead][addr].usable() || x.veto(addr) != nil {
			x.addWithheld(*w)
		} else {
			x.vouched = append(x.vouched, *w)
		}
	}
}

// addOther adds the entries of the other registry, except those whose address the lead has
// added.
func (x *merger) addOther() {
	i := x.lead.other()
	for e := range x.usable(i) {
		if e.Addr == "" || !x.leadHas(e.Addr) {
			x.addUsable(i, *e)
		}
	}
	for w := range x.withheld(i) {
		if addr := w.Endpoint.Addr; addr == "" || !x.leadHas(addr) {
			x.addWithheld(*w)
		}
	}
}

// leadHas reports whether addLead added the entries of an address.
func (x *merger) leadHas(addr string) bool {
	v := x.says[x.lead][addr]
	return v.usable() || v != nil && x.veto(addr) != nil
}

// addUsable adds an entry that registry i says to use.
func (x *merger) addUsable(i sideIndex, e naming.Endpoint) {
	if e.Addr != "" {
		if why := x.veto(e.Addr); why != nil {
			x.addWithheld(naming.Withheld{Endpoint: e, Reason: why.Reason, Detail: why.Detail})
			return
		}
		x.setDraining(i, &e)
	}
	name := cmp.Or(e.Addr, e.ID)
	if !x.claimID(&e) {
		return
	}
	x.out.usable = append(x.out.usable, e)
	if i != x.lead && !isDraining(&e) {
		x.out.uncovered = append(x.out.uncovered, name)
	}
}

// setDraining marks e, of registry i, if its address is draining in a fresh registry. If
// only a stale registry says so, and the fresh one does not, the fresh one's data count.
func (x *merger) setDraining(i sideIndex, e *naming.Endpoint) {
	j := i.other()
	own, there := isDraining(e), x.says[j][e.Addr]
	switch {
	case !own && (x.drains(i, e.Addr) || x.drains(j, e.Addr)):
		e.Draining = true
	case own && !x.views[i].fresh && x.views[j].fresh && there.usable() && !there.drains:
		id := e.ID
		*e = *there.live
		e.ID = id
	}
}

// drains reports whether registry i is fresh and says that an address is draining.
func (x *merger) drains(i sideIndex, addr string) bool {
	v := x.says[i][addr]
	return x.views[i].fresh && v.usable() && v.live == nil
}

func (x *merger) addWithheld(w naming.Withheld) {
	if x.claimID(&w.Endpoint) {
		x.out.withheld = append(x.out.withheld, w)
	}
}

// claimID makes the ID of e unique in the result. One ID with two addresses, one in each
// registry, is two endpoints. claimID reports false for an endpoint without an address if
// the result has its ID, because only the ID distinguishes such endpoints.
func (x *merger) claimID(e *naming.Endpoint) bool {
	addr, taken := x.claimed(e.ID)
	if taken && addr == "" && e.Addr == "" {
		return false
	}
	for n, id := 0, e.ID; taken; n++ {
		e.ID = alias(id, e.Addr, n)
		_, taken = x.claimed(e.ID)
	}
	x.ids[e.ID] = e.Addr
	return true
}

// alias returns the nth ID for an endpoint whose ID is taken. It is not longer than an ID
// may be, because one endpoint whose ID is too long would hide all others.
func alias(id, addr string, n int) string {
	suffix := "@" + addr
	if n > 0 {
		suffix += "@" + strconv.Itoa(n)
	}
	if len(id)+len(suffix) > naming.MaxID {
		id = ""
	}
	return id + suffix
}

// claimed returns the address of an ID that is in the result. The entries about which the
// registries agree are in the result, too.
func (x *merger) claimed(id string) (addr string, taken bool) {
	if addr, taken = x.ids[id]; taken {
		return addr, true
	}
	list := x.views[x.lead].usable
	i, found := slices.BinarySearchFunc(list, id, compareID)
	if !found || has(x.differ, list[i].Addr) {
		return "", false
	}
	return list[i].Addr, true
}

func compareID(e naming.Endpoint, id string) int { return strings.Compare(e.ID, id) }

// sort sorts the lists of the result.
func (x *merger) sort() {
	for _, list := range [][]naming.Endpoint{x.out.usable, x.out.leadUsable} {
		sortEndpoints(list)
	}
	for _, list := range [][]naming.Withheld{x.out.withheld, x.out.leadWithheld} {
		sortWithheld(list)
	}
	slices.Sort(x.out.uncovered)
	x.out.uncovered = slices.Compact(x.out.uncovered)
}

func sortEndpoints(list []naming.Endpoint) {
	slices.SortFunc(list, func(a, b naming.Endpoint) int { return strings.Compare(a.ID, b.ID) })
}

func sortWithheld(list []naming.Withheld) {
	slices.SortFunc(list, func(a, b naming.Withheld) int { return strings.Compare(a.Endpoint.ID, b.Endpoint.ID) })
}

// withTheRest returns a sorted list together with the entries of the lead about which the
// registries agree.
func (x *merger) withTheRest(list []naming.Endpoint) []naming.Endpoint {
	lead := x.views[x.lead].usable
	all := make([]naming.Endpoint, 0, len(lead)+len(list))
	for i := range lead {
		e := &lead[i]
		if has(x.differ, e.Addr) {
			continue
		}
		for len(list) > 0 && list[0].ID < e.ID {
			all, list = append(all, list[0]), list[1:]
		}
		all = append(all, *e)
	}
	return append(all, list...)
}
