package naming

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"
)

// firstProof is how long a watch lives after its first snapshot until it has proved
// itself, after one failure. A set stays stale until a watch has proved itself, because
// a snapshot proves that the registry can be read, not that it can be watched. Each
// failed attempt since a watch that lived for healthyAfter doubles the time, up to
// healthyAfter.
const firstProof = time.Second

// health says how well the watch works. It is part of shared, and guarded by its mu.
type health struct {
	row     failureRow
	readAt  time.Time     // of the first snapshot since the last failure; zero: before that snapshot
	live    bool          // the present watch has had its snapshot
	proof   *time.Timer   // not nil: will call prove
	hurry   chan struct{} // nil, or capacity 1: in a pause, holds a token when a reader asks for a retry
	errText string        // of status.Err
}

// failureRow is a row of failed attempts of one watch. It ends with a watch that lives
// for healthyAfter.
type failureRow struct {
	failures int
	futile   int  // attempts since the last proof that got a full read and then failed, roughly
	woken    int  // pauses since the last proof that a success of another call ended
	counted  bool // in retries.failing
}

// proof returns how long a watch lives until it has proved itself.
func (r failureRow) proof() time.Duration {
	return min(firstProof<<min(max(r.failures, 1)-1, 10), healthyAfter)
}

// delay returns how long to wait before the next attempt: full jitter, as in backoff,
// from a start that grows with the number of the Client's watches that fail. Many
// watches together then read no faster than one may.
func (r failureRow) delay(failing int) time.Duration {
	start := min(minBackoff*time.Duration(max(failing, 1)), maxBackoff)
	return rand.N(min(start<<min(max(r.failures, 1)-1, 16), maxBackoff)) + 1
}

// stopProof stops the timer.
func (h *health) stopProof() {
	if h.proof != nil {
		h.proof.Stop()
		h.proof = nil
	}
}

// awaitProof notes the time of the first snapshot since a failure, and starts the timer
// that ends staleness. mu is held.
func (s *shared) awaitProof() {
	h := &s.health
	if !h.readAt.IsZero() {
		return
	}
	h.readAt = time.Now()
	if s.status.Stale() {
		h.proof = time.AfterFunc(h.row.proof(), s.prove)
	}
}

// isProved reports whether the set is stale and the watch has proved itself. mu is held.
func (s *shared) isProved() bool {
	h := &s.health
	return s.status.Stale() && h.live && !h.readAt.IsZero() && time.Since(h.readAt) >= h.row.proof()
}

// isLive reports whether the set follows the registry. A stale set does so once the present
// watch has had its snapshot, although that watch has not proved itself. mu is held.
func (s *shared) isLive() bool {
	return s.status.Synced && !s.closed && (!s.status.Stale() || s.health.live)
}

// prove ends staleness when a watch has proved itself.
func (s *shared) prove() {
	for _, wake := range s.publishProof() {
		wake()
	}
	s.calls.run()
}

func (s *shared) publishProof() (wakes []func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// If the watch is being replaced, the next snapshot ends staleness.
	if s.closed || s.ctx.Err() != nil || !s.endStaleness() {
		return nil
	}
	s.statuses++
	return s.publish(nil)
}

// endStaleness makes the set fresh if the watch has proved itself, and reports whether
// it did. mu is held.
func (s *shared) endStaleness() bool {
	if !s.isProved() {
		return false
	}
	stale, size := time.Since(s.status.StaleSince), len(s.set.entries)
	s.status = Status{Synced: true, AsOf: time.Now()}
	s.health.row.futile, s.health.row.woken = 0, 0
	s.health.stopProof()
	s.countFailing(false)
	s.calls.add(func() {
		s.client.log.Info("naming: fresh again", s.subject.attr(),
			slog.Duration("stale", stale), slog.Int("endpoints", size))
		if f := s.client.hooks.Stale; f != nil {
			f(StaleInfo{Service: s.subject.service})
		}
	})
	return true
}

// countFailing updates the number of the Client's watches that fail. mu is held.
func (s *shared) countFailing(failing bool) {
	row := &s.health.row
	if row.counted == failing {
		return
	}
	row.counted = failing
	if failing {
		s.client.retries.failing.Add(1)
	} else {
		s.client.retries.failing.Add(-1)
	}
}

// fail makes the set stale after the watch failed, and returns how long to wait before
// the next attempt. The set itself does not change: stale endpoints are better than none.
func (s *shared) fail(err error) time.Duration {
	err = SafeError(err)
	wakes, delay := s.publishFailure(err, err.Error())
	for _, wake := range wakes {
		wake()
	}
	s.calls.run()
	return delay
}

func (s *shared) publishFailure(err error, text string) (wakes []func(), delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, 0
	}
	first, wasLive := !s.status.Stale(), s.isLive()
	s.health.live = false
	s.health.countFailure(first)
	s.countFailing(true)
	delay = s.health.row.delay(int(s.client.retries.failing.Load()))
	same := !first && s.health.errText == text
	if first {
		s.status.StaleSince = time.Now()
	}
	s.status.Err, s.health.errText = err, text
	s.queueFailure(err, first)
	if same && wasLive {
		return s.cursors.wakeFuncs(), delay // only Current returns something else
	}
	if same {
		return nil, delay // readers would see the same status
	}
	s.statuses++
	return s.publish(nil), delay
}

// countFailure counts a failure. first says that the set was not stale.
func (h *health) countFailure(first bool) {
	if h.readAt.IsZero() {
		h.row.futile /= 2 // the registry cannot be read: an attempt costs little
	} else {
		lived := time.Since(h.readAt)
		if lived >= healthyAfter {
			h.row.failures = 0
		}
		if !first || lived < healthyAfter {
			h.row.futile++
		}
	}
	h.row.failures++
	h.readAt = time.Time{}
	h.stopProof()
}

// queueFailure adds the log record and the calls of hooks about a failure. mu is held.
func (s *shared) queueFailure(err error, first bool) {
	since, size := s.status.StaleSince, len(s.set.entries)
	level := slog.LevelDebug
	if first {
		level = slog.LevelWarn
	}
	s.calls.add(func() {
		s.client.log.Log(context.Background(), level, "naming: watch failed, will be tried again",
			s.subject.attr(), slog.Any("err", err), slog.Int("endpoints kept", size))
		hooks := &s.client.hooks
		if hooks.WatchFailed != nil {
			hooks.WatchFailed(WatchFailedInfo{Service: s.subject.service, Err: err})
		}
		if first && hooks.Stale != nil {
			hooks.Stale(StaleInfo{Service: s.subject.service, Since: since})
		}
	})
}
