package naming

import (
	"context"
	"log/slog"
	"slices"
	"time"
)

// Hold says what happens when most of a service's endpoints vanish at once without
// having been marked as draining. A fault of the registry looks like that far more
// often than servers that all died in one moment: leases that expired together, a
// registry that was wiped or restored from a backup.
//
// The endpoints leave the set, and an old-style [Watcher] reports them as deleted.
// [Status.Held] names them for a bounded time. Package resolver uses them while the
// service has no other endpoint to use, and for some seconds afterwards. A held
// endpoint is released when its ID or its address is in the set again.
//
// Four kinds of endpoints are never held: one that was marked as draining, one whose
// entry has no place for the mark ([Endpoint.NoDrain]), one that is or was withheld,
// and a single one that vanished while others remain.
type Hold struct {
	// Disabled turns the hold off.
	Disabled bool
	// Share is the part of the set that must vanish within Window: more than 0, at
	// most 1. 0, a negative value and NaN mean one half, and more than 1 means 1.
	//
	// A smaller Share recognises smaller faults, and holds more endpoints that
	// really died. With a larger Share, a fault that takes less of the set is
	// shown as it is.
	Share float64
	// Window is the time within which losses add up, at most a year. 0 and negative
	// values mean 30 seconds. It should be longer than the time between the first
	// and the last expiry of leases that ended together, which is at most their
	// time to live.
	Window time.Duration
	// MaxDuration is how long an endpoint is held at most, itself at most a year. 0
	// and negative values mean five minutes. It should be longer than the servers
	// need to register again. A longer MaxDuration keeps dead addresses longer, if
	// the servers did die.
	MaxDuration time.Duration
	// IncludeNoDrain also holds endpoints whose entries have no place for the
	// draining mark ([Endpoint.NoDrain]), such as those of other frameworks. An
	// orderly stop of most of them then looks like a fault.
	IncludeNoDrain bool
}

// withDefaults returns the options with every value in range.
func (h Hold) withDefaults() Hold {
	if !(h.Share > 0) { // also if it is not a number
		h.Share = 0.5
	}
	if h.Window <= 0 {
		h.Window = 30 * time.Second
	}
	if h.MaxDuration <= 0 {
		h.MaxDuration = 5 * time.Minute
	}
	h.Share, h.Window, h.MaxDuration = min(h.Share, 1), min(h.Window, maxOption), min(h.MaxDuration, maxOption)
	return h
}

// holder finds the sudden losses of one service. It is part of shared, and
// guarded by its mu.
type holder struct {
	// sizes is a monotonic queue of the number of usable endpoints that the set
	// had within the window, the largest first, each with when the set last had
	// it. Endpoints that left for a known reason are not counted: as they leave
	// at the end, left is added to what is stored, and subtracted from what is
	// read.
	sizes []size
	left  int
	lost  lossList // vanished within the window, and not held
	held  lossList
	addrs map[string]int // how many endpoints of the set have an address; nil while nothing is held
	timer *time.Timer    // ends the holding of the first
	loud  int            // how many were held when that was last logged as a warning
}

type size struct {
	n    int
	last time.Time
}

// lossList is endpoints that vanished, each ID once, in the order in which they
// did. The cost of its methods does not depend on how many there are.
type lossList struct {
	byID        map[string]*loss
	byAddr      map[string]*loss // the last of those with one address
	first, last *loss

	// The list as readers get it; nil if it is to be made anew. Readers share
	// the array: what they have of it is never modified.
	shown []Endpoint
}

// loss is an endpoint that vanished, and when.
type loss struct {
	entry      *entry
	at         time.Time
	prev, next *loss // in the list
	same       *loss // the one before it with the same address
	sameNext   *loss // and after it
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
	switch {
	case l.first == nil:
		*l = lossList{}
	case x.prev == nil && l.shown != nil:
		l.shown = l.shown[1:]
	default:
		l.shown = nil
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

// releaseOld removes those that vanished at or before t, and appends them to list.
func (l *lossList) releaseOld(list []Endpoint, t time.Time) []Endpoint {
	for l.first != nil && !l.first.at.After(t) {
		list = append(list, *l.first.entry.Endpoint)
		l.remove(l.first)
	}
	return list
}

// trim removes the oldest if there are far more than n, and appends them to list:
// endpoints that come and go must not add up.
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

// endpoints returns the list, nil if it is empty. It must not be modified.
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

// turnover is what a change did to what is held.
type turnover struct{ held, back, expired []Endpoint }

func (t turnover) empty() bool { return len(t.held)+len(t.back)+len(t.expired) == 0 }

// explained reports whether an endpoint that is gone left for a known reason, or
// may have.
func (h Hold) explained(e *entry) bool {
	return e.NoDrain && !h.IncludeNoDrain || e.Info().Draining
}

// noteLosses takes note of changes, which were made to the set already, and
// returns what is held or released because of them. The cost does not depend on
// how many endpoints there are or are held, except that of the first loss that is
// held. s.mu is held.
func (s *shared) noteLosses(changes []change) (t turnover) {
	opts := s.client.hold
	if len(changes) == 0 || opts.Disabled || s.subject == (subject{}) {
		return t
	}
	h, now := &s.holder, time.Now()
	h.countAddrs(changes)
	size := len(s.set) - s.withheld
	before, explained, lost := size, 0, 0
	for _, c := range changes {
		was, is := c.old.usable(), c.new.usable()
		if was == nil && is != nil {
			before--
		}
		if was != nil && is == nil {
			before++
			switch {
			case c.new != nil || opts.explained(was):
				explained++
			default:
				h.lost.add(was, now)
				lost++
			}
		}
		// Also if it is withheld: then the registry has it, and it must not be
		// called.
		if c.new != nil {
			h.lost.release(nil, c.new)
			t.back = h.held.release(t.back, c.new)
		}
	}
	h.note(before, explained, now, opts.Window)
	if h.held.len() == 0 {
		h.loud, h.addrs = 0, nil
	}
	if h.lost.len() == 0 {
		return t
	}
	h.lost.releaseOld(nil, now.Add(-opts.Window-1))
	largest := h.largest()
	h.lost.trim(nil, largest)

	shrunk := largest - size
	if h.lost.len() == 0 || float64(shrunk) < opts.Share*float64(largest) || shrunk < 2 && size > 0 {
		return t
	}
	if h.addrs == nil {
		h.addrs = make(map[string]int)
		for _, e := range s.set {
			h.addrs[e.Addr]++
		}
	}
	for x := h.lost.first; x != nil; x = x.next {
		// If its address is in the set, the endpoint has another ID now, or its
		// address belongs to another.
		if x.entry.Addr == "" || h.addrs[x.entry.Addr] == 0 {
			h.held.add(x.entry, now)
			t.held = append(t.held, *x.entry.Endpoint)
		}
	}
	h.lost = lossList{}
	t.expired = h.held.trim(t.expired, largest)
	if h.timer == nil && h.held.len() > 0 {
		h.timer = time.AfterFunc(opts.MaxDuration, s.expire)
	}
	return t
}

// countAddrs keeps addrs up to date.
func (h *holder) countAddrs(changes []change) {
	if h.addrs == nil {
		return
	}
	for _, c := range changes {
		if c.old != nil {
			if h.addrs[c.old.Addr]--; h.addrs[c.old.Addr] == 0 {
				delete(h.addrs, c.old.Addr)
			}
		}
		if c.new != nil {
			h.addrs[c.new.Addr]++
		}
	}
}

// note notes the size that the set had before a change, and how many endpoints
// left in it for a known reason.
func (h *holder) note(before, explained int, now time.Time, window time.Duration) {
	stored := before + h.left
	for len(h.sizes) > 0 && h.sizes[len(h.sizes)-1].n <= stored {
		h.sizes = h.sizes[:len(h.sizes)-1]
	}
	h.sizes = append(h.sizes, size{stored, now})
	for now.Sub(h.sizes[0].last) > window {
		h.sizes = h.sizes[1:]
	}
	h.left += explained
}

// largest returns the largest size within the window.
func (h *holder) largest() int { return h.sizes[0].n - h.left }

// stop stops the timer.
func (h *holder) stop() {
	if h.timer != nil {
		h.timer.Stop()
	}
}

// expire lets go of what was held for long enough.
func (s *shared) expire() {
	wakes := s.letGo()
	for _, wake := range wakes {
		wake()
	}
	s.flush()
}

func (s *shared) letGo() (wakes []func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.ctx.Err() != nil {
		return nil
	}
	h, hold := &s.holder, s.client.hold.MaxDuration
	h.timer = nil
	now := time.Now()
	t := turnover{expired: h.held.releaseOld(nil, now.Add(-hold))}
	if h.held.len() > 0 {
		h.timer = time.AfterFunc(h.held.first.at.Add(hold).Sub(now), s.expire)
	} else {
		h.loud, h.addrs = 0, nil
	}
	if t.empty() {
		return nil
	}
	s.statuses++
	s.noteHeld(t)
	return s.publish(nil)
}

// noteHeld notes what was held and released. s.mu is held.
func (s *shared) noteHeld(t turnover) {
	if t.empty() {
		return
	}
	h := &s.holder
	level := slog.LevelDebug
	if len(t.held) > 0 && h.held.len() >= 2*h.loud {
		// Not for each of thousands that vanish one after the other.
		level, h.loud = slog.LevelWarn, h.held.len()
	}
	all := h.held.len()
	for _, list := range [][]Endpoint{t.back, t.expired} {
		slices.SortFunc(list, compareEndpoints)
	}
	s.note(func() {
		hooks, log, service := &s.client.hooks, s.client.log, s.subject.service
		if len(t.held) > 0 {
			log.Log(context.Background(), level, "naming: most endpoints vanished at once, held", s.subject.attr(),
				slog.Int("held", all), slog.Duration("for", s.client.hold.MaxDuration))
			if hooks.Held != nil {
				hooks.Held(HeldInfo{Service: service, Endpoints: t.held})
			}
		}
		if len(t.back) > 0 {
			log.Info("naming: held endpoints are back", s.subject.attr(), slog.Int("back", len(t.back)))
			if hooks.Released != nil {
				hooks.Released(ReleasedInfo{Service: service, Endpoints: t.back, Back: true})
			}
		}
		if len(t.expired) > 0 {
			log.Warn("naming: held endpoints did not come back, given up", s.subject.attr(), slog.Int("given up", len(t.expired)))
			if hooks.Released != nil {
				hooks.Released(ReleasedInfo{Service: service, Endpoints: t.expired, Back: false})
			}
		}
	})
}
