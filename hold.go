package naming

import (
	"log/slog"
	"maps"
	"slices"
	"time"
)

// Hold says what is done when most of a service's endpoints vanish at once
// although none of them said that it would. That is what a registry's fault
// looks like, far more often than servers that all died in one moment: leases
// that expired together, a registry that was wiped, or restored from a backup.
//
// The endpoints leave the set, and the old-style Watcher says so; but for a
// bounded time [Status.Held] names them, and package resolver keeps them at the
// end of the list: an address too many costs next to nothing, and one too few
// is an outage. An endpoint that was marked as draining is never held, nor is a
// single one that vanished while others remain.
type Hold struct {
	// Off turns holding off.
	Off bool
	// Share is the part of the set, from 0 to 1, that must have vanished
	// within Window. 0 means one half.
	Share float64
	// Window is the time within which losses are added up. 0 means 30 seconds.
	Window time.Duration
	// For is how long endpoints are held at most. 0 means five minutes.
	For time.Duration
}

func (h Hold) withDefaults() Hold {
	if h.Share <= 0 {
		h.Share = 0.5
	}
	if h.Window <= 0 {
		h.Window = 30 * time.Second
	}
	if h.For <= 0 {
		h.For = 5 * time.Minute
	}
	return h
}

// holder finds the sudden losses of one service. It is part of shared, and
// guarded by its mu.
type holder struct {
	// sizes are the sizes that the set had within the window, without what
	// left it draining, each with when it last had it: those that no later one
	// exceeds, so that the first is the largest.
	sizes []size
	lost  map[string]loss // vanished within the window, and not held
	held  map[string]loss
	timer *time.Timer // ends the holding of the first
}

type size struct {
	n    int
	last time.Time
}

// loss is an endpoint that vanished, and when.
type loss struct {
	entry *entry
	at    time.Time
}

// turnover is what a change did to what is held.
type turnover struct{ held, back, expired []Endpoint }

func (t turnover) empty() bool { return len(t.held)+len(t.back)+len(t.expired) == 0 }

// noteLosses takes note of changes, which were made to the set already, and
// says what is held or released because of them. s.mu is held.
func (s *shared) noteLosses(changes []change) (t turnover) {
	opts := s.registry.hold
	if len(changes) == 0 || opts.Off || s.subject == (subject{}) {
		return t
	}
	h, now := &s.holder, time.Now()
	before, drained := len(s.set), 0
	for _, c := range changes {
		switch {
		case c.old == nil:
			before--
		case c.new == nil:
			before++
		}
		switch {
		case c.new != nil:
			if len(h.lost) > 0 {
				delete(h.lost, c.new.ID)
			}
			if len(h.held) > 0 {
				t.back = h.release(t.back, func(l loss) bool { return l.entry.ID == c.new.ID || l.entry.Addr == c.new.Addr })
			}
		case c.old.Info().Draining:
			drained++
		default:
			if h.lost == nil {
				h.lost = make(map[string]loss)
			}
			h.lost[c.old.ID] = loss{c.old, now}
		}
	}

	for len(h.sizes) > 0 && h.sizes[len(h.sizes)-1].n <= before {
		h.sizes = h.sizes[:len(h.sizes)-1]
	}
	h.sizes = append(h.sizes, size{before, now})
	for now.Sub(h.sizes[0].last) > opts.Window {
		h.sizes = h.sizes[1:]
	}
	for i := range h.sizes {
		h.sizes[i].n -= drained
	}
	if len(h.lost) == 0 {
		return t
	}
	maps.DeleteFunc(h.lost, func(_ string, l loss) bool { return now.Sub(l.at) > opts.Window })
	largest := h.sizes[0].n
	keepNewest(h.lost, largest)

	shrunk := largest - len(s.set)
	if float64(shrunk) < opts.Share*float64(largest) || shrunk < 2 && len(s.set) > 0 {
		return t
	}
	if h.held == nil {
		h.held = make(map[string]loss)
	}
	for id, l := range h.lost {
		h.held[id] = loss{l.entry, now}
		t.held = append(t.held, *l.entry.Endpoint)
	}
	clear(h.lost)
	for _, l := range keepNewest(h.held, largest) {
		t.expired = append(t.expired, *l.entry.Endpoint)
	}
	if h.timer == nil {
		h.timer = time.AfterFunc(opts.For, s.expire)
	}
	return t
}

// keepNewest removes, and returns, the oldest of m if there are many more than
// n: endpoints that come and go must not add up.
func keepNewest(m map[string]loss, n int) (removed []loss) {
	if len(m) <= 2*n+64 {
		return nil
	}
	all := slices.SortedFunc(maps.Values(m), func(a, b loss) int { return a.at.Compare(b.at) })
	removed = all[:len(all)-n]
	for _, l := range removed {
		delete(m, l.entry.ID)
	}
	return removed
}

// release removes from held what f says, and appends it to list.
func (h *holder) release(list []Endpoint, f func(loss) bool) []Endpoint {
	maps.DeleteFunc(h.held, func(_ string, l loss) bool {
		gone := f(l)
		if gone {
			list = append(list, *l.entry.Endpoint)
		}
		return gone
	})
	return list
}

// stop stops the timer.
func (h *holder) stop() {
	if h.timer != nil {
		h.timer.Stop()
	}
}

// expire lets go of what was held for long enough.
func (s *shared) expire() {
	s.mu.Lock()
	if s.ended || s.ctx.Err() != nil {
		s.mu.Unlock()
		return
	}
	h, hold := &s.holder, s.registry.hold.For
	now := time.Now()
	t := turnover{expired: h.release(nil, func(l loss) bool { return now.Sub(l.at) >= hold })}
	h.timer = nil
	if len(h.held) > 0 {
		first := now
		for _, l := range h.held {
			if l.at.Before(first) {
				first = l.at
			}
		}
		h.timer = time.AfterFunc(first.Add(hold).Sub(now), s.expire)
	}
	if t.empty() {
		s.mu.Unlock()
		return
	}
	s.setHeld()
	s.publish(nil)
	s.tellHeld(t)
}

// setHeld puts what is held into the status. s.mu is held.
func (s *shared) setHeld() {
	s.status.Held = nil
	for _, l := range s.holder.held {
		s.status.Held = append(s.status.Held, *l.entry.Endpoint)
	}
	slices.SortFunc(s.status.Held, compareEndpoints)
	s.statuses++
}

// tellHeld logs what was held and released, and calls the hooks.
func (s *shared) tellHeld(t turnover) {
	hooks, log, service := &s.registry.hooks, s.registry.log, s.subject.service
	for _, list := range [][]Endpoint{t.held, t.back, t.expired} {
		slices.SortFunc(list, compareEndpoints)
	}
	if len(t.held) > 0 {
		log.Warn("naming: most endpoints vanished at once, held", s.subject.attr(), slog.Int("held", len(t.held)), slog.Duration("for", s.registry.hold.For))
		if hooks.Held != nil {
			hooks.Held(service, t.held)
		}
	}
	if len(t.back) > 0 {
		log.Info("naming: held endpoints are back", s.subject.attr(), slog.Int("back", len(t.back)))
		if hooks.Released != nil {
			hooks.Released(service, t.back, true)
		}
	}
	if len(t.expired) > 0 {
		log.Warn("naming: held endpoints did not come back, given up", s.subject.attr(), slog.Int("given up", len(t.expired)))
		if hooks.Released != nil {
			hooks.Released(service, t.expired, false)
		}
	}
}
