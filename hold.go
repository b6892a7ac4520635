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
// The endpoints leave the set, and a [Watcher] of the former interface reports them as deleted.
// [Status.Held] names them for a bounded time. Package resolver uses them while the
// service has no other endpoint to use, and for some seconds afterwards. A held
// endpoint is released when its ID or its address is in the set again.
//
// Four kinds of endpoints are never held: one that was marked as draining, one whose
// entry has no place for the mark ([Endpoint.NoDrainingMark]), one that is or was withheld,
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
	// IncludeNoDrainingMark also holds endpoints whose entries have no place for the
	// draining mark ([Endpoint.NoDrainingMark]), such as those of other frameworks. An
	// orderly stop of most of them then looks like a fault.
	IncludeNoDrainingMark bool
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

// holder finds the sudden losses of one service. It is part of shared, and guarded by
// its mu.
type holder struct {
	sizes recentSizes
	lost  lossList // vanished within the window, and not held
	held  lossList
	addrs map[string]int // how many endpoints of the set have an address; nil while nothing is held
	timer *time.Timer    // not nil: will end the hold of the first
	loud  int            // how many were held when that was last logged as a warning
}

// recentSizes is a monotonic queue of the set's numbers of usable endpoints within the
// window, largest first, each with the time when the set last had it. It yields the
// maximum within the window. Endpoints that left for a known reason are subtracted:
// gone is added to each number that is stored, and subtracted from each that is read.
type recentSizes struct {
	queue []recentSize
	gone  int
}

type recentSize struct {
	n    int
	last time.Time
}

// add adds the size that the set had before a change, in which explained endpoints left
// for a known reason.
func (r *recentSizes) add(size, explained int, now time.Time, window time.Duration) {
	stored := size + r.gone
	for len(r.queue) > 0 && r.queue[len(r.queue)-1].n <= stored {
		r.queue = r.queue[:len(r.queue)-1]
	}
	r.queue = append(r.queue, recentSize{stored, now})
	for now.Sub(r.queue[0].last) > window {
		r.queue = r.queue[1:]
	}
	r.gone += explained
}

// largest returns the largest size within the window.
func (r *recentSizes) largest() int { return r.queue[0].n - r.gone }

// turnover is the endpoints that are held and released because of one change.
type turnover struct{ held, back, expired []Endpoint }

func (t turnover) empty() bool { return len(t.held)+len(t.back)+len(t.expired) == 0 }

// explained reports whether an endpoint that is gone left for a known reason, or may
// have done so.
func (h Hold) explained(e *entry) bool {
	return e.NoDrainingMark && !h.IncludeNoDrainingMark || e.Info().Draining
}

// trackLosses holds and releases endpoints after changes were made to the set. The cost
// does not depend on how many endpoints there are or are held, except for the first
// loss that is held. mu is held.
func (s *shared) trackLosses(changes []change) (t turnover) {
	opts := s.client.hold
	if len(changes) == 0 || opts.Disabled || s.subject == (subject{}) {
		return t
	}
	h, now, size := &s.holder, time.Now(), s.set.usable()
	t.back = h.applyChanges(changes, size, now, opts)
	if !h.lostSuddenly(size, now, opts) {
		return t
	}
	t.held = h.holdLost(s.set.entries, now)
	t.expired = h.held.trim(nil, h.sizes.largest())
	if h.timer == nil && h.held.len() > 0 {
		h.timer = time.AfterFunc(opts.MaxDuration, s.expireHeld)
	}
	return t
}

// applyChanges counts the losses in changes, after which the set has size usable
// endpoints. It returns the endpoints that are held no longer, because they are back.
func (h *holder) applyChanges(changes []change, size int, now time.Time, opts Hold) (back []Endpoint) {
	h.countAddrs(changes)
	before, explained := size, 0
	for _, c := range changes {
		was, is := c.old.usable(), c.new.usable()
		switch {
		case was == nil && is != nil:
			before--
		case was == nil || is != nil:
			// The number of usable endpoints is the same.
		case c.new != nil || opts.explained(was):
			before++
			explained++
		default:
			before++
			h.lost.add(was, now)
		}
		// Also if it is withheld: then the registry has the endpoint, and nobody may
		// call it.
		if c.new != nil {
			h.lost.release(nil, c.new)
			back = h.held.release(back, c.new)
		}
	}
	h.sizes.add(before, explained, now, opts.Window)
	h.resetUnlessHolding()
	return back
}

// lostSuddenly reports whether so much of the set was lost within the window that the
// losses are to be held.
func (h *holder) lostSuddenly(size int, now time.Time, opts Hold) bool {
	if h.lost.len() == 0 {
		return false
	}
	h.lost.releaseOld(nil, now.Add(-opts.Window-1))
	largest := h.sizes.largest()
	h.lost.trim(nil, largest)
	shrunk := largest - size
	single := shrunk < 2 && size > 0
	return h.lost.len() > 0 && float64(shrunk) >= opts.Share*float64(largest) && !single
}

// holdLost holds the endpoints that were lost, and returns them. It skips an endpoint
// whose address is in the set: the endpoint has another ID now, or its address belongs
// to another.
func (h *holder) holdLost(set map[string]*entry, now time.Time) (held []Endpoint) {
	if h.addrs == nil {
		h.addrs = make(map[string]int)
		for _, e := range set {
			h.addrs[e.Addr]++
		}
	}
	for x := h.lost.first; x != nil; x = x.next {
		if x.entry.Addr == "" || h.addrs[x.entry.Addr] == 0 {
			h.held.add(x.entry, now)
			held = append(held, *x.entry.Endpoint)
		}
	}
	h.lost = lossList{}
	return held
}

// countAddrs applies changes to addrs.
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

// resetUnlessHolding resets the fields that are used only while endpoints are held.
func (h *holder) resetUnlessHolding() {
	if h.held.len() == 0 {
		h.loud, h.addrs = 0, nil
	}
}

func (h *holder) stopTimer() {
	if h.timer != nil {
		h.timer.Stop()
	}
}

// expireHeld releases the endpoints that were held for MaxDuration.
func (s *shared) expireHeld() {
	for _, wake := range s.publishExpired() {
		wake()
	}
	s.calls.run()
}

func (s *shared) publishExpired() (wakes []func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.ctx.Err() != nil {
		return nil
	}
	h, most, now := &s.holder, s.client.hold.MaxDuration, time.Now()
	h.timer = nil
	t := turnover{expired: h.held.releaseOld(nil, now.Add(-most))}
	if h.held.len() > 0 {
		h.timer = time.AfterFunc(h.held.first.at.Add(most).Sub(now), s.expireHeld)
	}
	h.resetUnlessHolding()
	if t.empty() {
		return nil
	}
	s.statuses++
	s.queueHeld(t)
	return s.publish(nil)
}

// queueHeld adds the log records and the calls of hooks about endpoints that are held
// or released. mu is held.
func (s *shared) queueHeld(t turnover) {
	if t.empty() {
		return
	}
	h, all := &s.holder, s.holder.held.len()
	level := slog.LevelDebug
	if len(t.held) > 0 && all >= 2*h.loud {
		// One warning per doubling, because thousands may vanish one after the other.
		level, h.loud = slog.LevelWarn, all
	}
	slices.SortFunc(t.back, compareEndpoints)
	slices.SortFunc(t.expired, compareEndpoints)
	s.calls.add(func() { s.reportHeld(t, level, all) })
}

// reportHeld logs and calls hooks. all is how many endpoints are held, and level is that
// of the record about t.held.
func (s *shared) reportHeld(t turnover, level slog.Level, all int) {
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
}
