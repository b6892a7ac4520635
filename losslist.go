package naming

import (
	"slices"
	"time"
)

// lossList is a list of endpoints that vanished, each ID once, in the order in which
// they vanished. The cost of its methods does not depend on its length.
type lossList struct {
	byID        map[string]*loss
	byAddr      map[string]*loss // the last one with each address
	first, last *loss

	// The list as readers get it, or nil if it has to be made anew. Readers share the
	// array: an element that a reader has is never modified.
	shown []Endpoint
}

// loss is an endpoint that vanished, and the time when it did.
type loss struct {
	entry      *entry
	at         time.Time
	prev, next *loss // in the list
	same       *loss // the loss before this one with the same address
	sameNext   *loss // the loss after this one with the same address
}

func (l *lossList) len() int { return len(l.byID) }

// add adds an endpoint at the end, and removes an earlier loss of the same ID.
func (l *lossList) add(e *entry, at time.Time) {
	if old := l.byID[e.ID]; old != nil {
		l.remove(old)
	}
	if l.byID == nil {
		l.byID, l.byAddr = make(map[string]*loss), make(map[string]*loss)
	}
	x := &loss{entry: e, at: at, prev: l.last}
	if l.last == nil {
		l.first = x
	} else {
		l.last.next = x
	}
	l.last = x
	if e.Addr != "" {
		if x.same = l.byAddr[e.Addr]; x.same != nil {
			x.same.sameNext = x
		}
		l.byAddr[e.Addr] = x
	}
	if l.shown != nil {
		l.shown = append(l.shown, *e.Endpoint)
	}
	l.byID[e.ID] = x
}

// remove removes x.
func (l *lossList) remove(x *loss) {
	delete(l.byID, x.entry.ID)
	if x.prev == nil {
		l.first = x.next
	} else {
		x.prev.next = x.next
	}
	if x.next == nil {
		l.last = x.prev
	} else {
		x.next.prev = x.prev
	}
	l.removeAddr(x)
	switch {
	case l.first == nil:
		*l = lossList{}
	case x.prev == nil && l.shown != nil:
		l.shown = l.shown[1:]
	default:
		l.shown = nil
	}
}

// removeAddr removes x from the losses with its address.
func (l *lossList) removeAddr(x *loss) {
	if x.same != nil {
		x.same.sameNext = x.sameNext
	}
	switch {
	case x.sameNext != nil:
		x.sameNext.same = x.same
	case x.same != nil:
		l.byAddr[x.entry.Addr] = x.same
	case x.entry.Addr != "":
		delete(l.byAddr, x.entry.Addr)
	}
}

// release removes the endpoints that have the ID or the address of e, and appends
// them to list.
func (l *lossList) release(list []Endpoint, e *entry) []Endpoint {
	if l.len() == 0 {
		return list
	}
	if x := l.byID[e.ID]; x != nil {
		l.remove(x)
		list = append(list, *x.entry.Endpoint)
	}
	for x := l.byAddr[e.Addr]; x != nil; x = l.byAddr[e.Addr] {
		l.remove(x)
		list = append(list, *x.entry.Endpoint)
	}
	return list
}

// releaseOld removes the endpoints that vanished at or before t, and appends them to
// list.
func (l *lossList) releaseOld(list []Endpoint, t time.Time) []Endpoint {
	for l.first != nil && !l.first.at.After(t) {
		list = append(list, *l.first.entry.Endpoint)
		l.remove(l.first)
	}
	return list
}

// trim removes the oldest endpoints down to n if there are far more, and appends them
// to list. Endpoints that come and go must not add up.
func (l *lossList) trim(list []Endpoint, n int) []Endpoint {
	if l.len() <= 2*n+64 {
		return list
	}
	for l.first != nil && l.len() > n {
		list = append(list, *l.first.entry.Endpoint)
		l.remove(l.first)
	}
	return list
}

// endpoints returns the list, or nil if it is empty. The slice must not be modified.
func (l *lossList) endpoints() []Endpoint {
	if l.len() == 0 {
		return nil
	}
	if l.shown == nil {
		l.shown = make([]Endpoint, 0, l.len())
		for x := l.first; x != nil; x = x.next {
			l.shown = append(l.shown, *x.entry.Endpoint)
		}
	}
	return slices.Clip(l.shown)
}
