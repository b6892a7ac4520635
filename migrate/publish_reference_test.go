package migrate

import (
	"slices"
	"strings"

	"github.com/naming-go/naming"
)

// reference is a reader that states the rules one address at a time, at any cost.
type reference struct {
	published, waited bool
	alone             int // 0: wide; 1+i: narrow to registry i
	left, drained     [2]map[string]bool
	before            [2][]listing         // the entries of each registry in the last step
	kept              [2][]naming.Endpoint // the entries that stay although they vanished
}

// outcome is a result in a form that can be compared: one line for each endpoint, without
// its ID, which an alias may replace.
type outcome struct {
	Publish, Narrow bool
	Endpoints       []string
	Uncovered       []string
}

func line(e naming.Endpoint, reason naming.Reason) string {
	id, _, _ := strings.Cut(e.ID, "@")
	marks := ""
	if isDraining(&e) {
		marks += " draining"
	}
	if reason != 0 {
		marks += " " + reason.String()
	}
	return id + " " + e.Addr + " " + string(e.Metadata) + marks
}

func observed(r result) outcome {
	o := outcome{Publish: r.publish, Narrow: r.narrow, Uncovered: slices.Clone(r.uncovered)}
	for _, e := range r.usable {
		o.Endpoints = append(o.Endpoints, line(e, 0))
	}
	for _, w := range r.withheld {
		o.Endpoints = append(o.Endpoints, line(w.Endpoint, w.Reason))
	}
	slices.Sort(o.Endpoints)
	return o
}

func (f *reference) forget(i int) {
	f.left[i], f.drained[i], f.before[i], f.kept[i] = nil, nil, nil, nil
}

// step is the reference of memory.step.
func (f *reference) step(c choice, views [2]view) outcome {
	lead, other := c.lead, c.lead.other()
	if !f.published {
		f.alone = 0
		if c.alone {
			f.alone = 1 + int(lead)
		}
	}
	f.observe(views)
	isAlone := f.alone == 1+int(lead)
	f.keep(views, f.published && !(c.narrow && c.sticky && isAlone))
	switch l, o := views[lead], views[other]; {
	case c.narrow && c.sticky && isAlone && l.synced:
		return f.publish(c, true, observed(result{usable: l.usable, withheld: l.withheld}))
	case c.narrow && c.sticky && isAlone,
		!f.published && !f.waited && (!l.synced && !l.failed || !o.synced && !o.failed),
		!l.fresh && !o.fresh && (f.published || !l.synced && !o.synced):
		return outcome{Narrow: isAlone}
	}
	s := f.survey(c, views)
	wide := outcome{Endpoints: s.all, Uncovered: s.uncovered}
	switch l, o := views[lead], views[other]; {
	case s.usable == 0 && !(l.synced && o.synced):
		return outcome{Narrow: isAlone}
	case !c.narrow || !l.fresh || len(s.uncovered) > 0 || len(f.kept[lead]) > 0 || s.leadUsable == 0 && s.usable > 0 || c.cautious && !o.synced:
		return f.publish(c, false, wide)
	case c.sticky:
		return f.publish(c, true, observed(result{usable: l.usable, withheld: l.withheld}))
	}
	return f.publish(c, true, outcome{Endpoints: s.lead})
}

func (f *reference) publish(c choice, narrow bool, o outcome) outcome {
	f.published, f.alone = true, 0
	if narrow {
		f.alone = 1 + int(c.lead)
	}
	o.Publish, o.Narrow = true, narrow
	slices.Sort(o.Endpoints)
	slices.Sort(o.Uncovered)
	o.Uncovered = slices.Compact(o.Uncovered)
	return o
}

// keep notes which entries stay although they vanished: entries that were in use and not
// draining, while the other registry may still answer. comesBack says that the reader uses
// the other registry when it has answered.
func (f *reference) keep(views [2]view, comesBack bool) {
	for i, v := range views {
		now, other := everything(v), views[1-i]
		var kept []naming.Endpoint
		for _, e := range f.kept[i] {
			kept = f.keepEntry(kept, e, now)
		}
		for _, e := range f.before[i] {
			if e.reason == 0 && !isDraining(&e.endpoint) {
				kept = f.keepEntry(kept, e.endpoint, now)
			}
		}
		if !comesBack || other.fresh || other.late {
			kept = nil
		}
		f.kept[i], f.before[i] = kept, now
	}
}

// keepEntry adds e to the list unless the registry has the address or the ID of e now.
func (f *reference) keepEntry(kept []naming.Endpoint, e naming.Endpoint, now []listing) []naming.Endpoint {
	for _, n := range now {
		if n.endpoint.ID == e.ID || e.Addr != "" && n.endpoint.Addr == e.Addr {
			return kept
		}
	}
	return append(kept, e)
}

// observe notes which addresses left a fresh registry in order.
func (f *reference) observe(views [2]view) {
	for i, v := range views {
		if !v.fresh {
			continue
		}
		here, there := everything(v), everything(views[1-i])
		left, drained := map[string]bool{}, map[string]bool{}
		for addr := range merge2(f.left[i], f.drained[i]) {
			left[addr] = len(at(here, addr)) == 0 && len(at(there, addr)) > 0
		}
		for _, e := range here {
			drained[e.endpoint.Addr] = !slices.ContainsFunc(at(here, e.endpoint.Addr), func(o listing) bool { return !isDraining(&o.endpoint) })
		}
		f.left[i], f.drained[i] = trueOnly(left), trueOnly(drained)
	}
}

func merge2(a, b map[string]bool) map[string]bool {
	all := map[string]bool{}
	for _, m := range []map[string]bool{a, b} {
		for k := range m {
			all[k] = true
		}
	}
	return all
}

func trueOnly(m map[string]bool) map[string]bool {
	for k, v := range m {
		if !v || k == "" {
			delete(m, k)
		}
	}
	return m
}

func everything(v view) (list []listing) {
	for _, e := range v.usable {
		list = append(list, listing{endpoint: e})
	}
	for _, w := range v.withheld {
		list = append(list, listing{w.Endpoint, w.Reason})
	}
	return list
}

func at(list []listing, addr string) []listing {
	return slices.DeleteFunc(slices.Clone(list), func(e listing) bool { return e.endpoint.Addr != addr })
}

// survey is what two registries have together.
type survey struct {
	all, lead          []string
	usable, leadUsable int
	uncovered          []string
}

func (f *reference) survey(c choice, views [2]view) (s survey) {
	var lists [2][]listing
	addrs := map[string]bool{}
	for i := range views {
		entries := everything(views[i])
		for _, e := range f.kept[i] {
			entries = append(entries, listing{endpoint: e})
		}
		for _, e := range entries {
			if views[i].fresh || !f.left[1-i][e.endpoint.Addr] {
				lists[i] = append(lists[i], e)
				addrs[e.endpoint.Addr] = true
			}
		}
	}
	for addr := range addrs {
		if addr == "" {
			s.addNameless(at(lists[c.lead], ""), at(lists[c.lead.other()], ""))
			continue
		}
		s.addAddress(addr, opinion{views[c.lead].fresh, at(lists[c.lead], addr)}, opinion{views[c.lead.other()].fresh, at(lists[c.lead.other()], addr)})
	}
	return s
}

// opinion is what one registry has at an address.
type opinion struct {
	fresh   bool
	entries []listing
}

func (o opinion) usable() bool {
	return slices.ContainsFunc(o.entries, func(e listing) bool { return e.reason == 0 })
}

// reasonAgainst returns the reason if all entries are withheld: an operator's, if there is
// one.
func (o opinion) reasonAgainst() (reason naming.Reason) {
	if o.usable() {
		return 0
	}
	for _, e := range o.entries {
		if reason == 0 || reason == naming.FailedCheck {
			reason = e.reason
		}
	}
	return reason
}

func (o opinion) draining() bool {
	return o.usable() && !slices.ContainsFunc(o.entries, func(e listing) bool { return e.reason == 0 && !isDraining(&e.endpoint) })
}

func (s *survey) addAddress(addr string, lead, other opinion) {
	against := lead.reasonAgainst()
	if o := other.reasonAgainst(); against == 0 || against == naming.FailedCheck && o != 0 && o != naming.FailedCheck {
		if o == naming.FailedCheck && lead.fresh && lead.usable() {
			o = 0
		}
		against = o
	}
	vouched := against == naming.FailedCheck && lead.reasonAgainst() == naming.FailedCheck && other.fresh && other.usable()
	if vouched {
		against = 0
	}
	from := lead
	if len(lead.entries) == 0 || vouched {
		from = other
	}
	if vouched {
		for _, e := range lead.entries {
			s.lead = append(s.lead, line(e.endpoint, e.reason))
		}
	}
	for _, e := range from.entries {
		back := other
		if len(lead.entries) == 0 || vouched {
			back = lead
		}
		s.add(e, from, back, against, len(lead.entries) > 0 && !vouched)
	}
}

// add adds an entry of registry from. back is the other registry.
func (s *survey) add(e listing, from, back opinion, against naming.Reason, isLead bool) {
	reason := e.reason
	if reason == 0 {
		reason = against
	}
	if e.reason == 0 && reason == 0 {
		drains := from.fresh && from.draining() || back.fresh && back.draining()
		usable := slices.DeleteFunc(slices.Clone(back.entries), func(o listing) bool { return o.reason != 0 })
		marked := slices.ContainsFunc(usable, func(o listing) bool { return isDraining(&o.endpoint) })
		switch {
		case drains:
			e.endpoint.Draining = true
		case isDraining(&e.endpoint) && !from.fresh && back.fresh && len(usable) > 0 && !marked:
			id := e.endpoint.ID
			e.endpoint = usable[0].endpoint
			e.endpoint.ID = id
		}
		s.usable++
		if isLead {
			s.leadUsable++
		} else if !isDraining(&e.endpoint) {
			s.uncovered = append(s.uncovered, e.endpoint.Addr)
		}
	}
	s.all = append(s.all, line(e.endpoint, reason))
	if isLead {
		s.lead = append(s.lead, line(e.endpoint, reason))
	}
}

// addNameless adds the endpoints without an address, which only an ID distinguishes.
func (s *survey) addNameless(lead, other []listing) {
	for _, list := range []struct {
		entries []listing
		isLead  bool
	}{{lead, true}, {other, false}} {
		for _, e := range list.entries {
			if !list.isLead && slices.ContainsFunc(lead, func(o listing) bool { return o.endpoint.ID == e.endpoint.ID }) {
				continue
			}
			s.add(e, opinion{}, opinion{}, 0, list.isLead)
			if n := len(s.uncovered); n > 0 && s.uncovered[n-1] == "" {
				s.uncovered[n-1] = e.endpoint.ID
			}
		}
	}
}
