package naming

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// The pace at which a failed watch is retried when a reader is in a hurry or another
// call succeeded, and its jitter: hurryJitter, and wakeSpread more for each watch that
// waits.
const (
	hurryInterval = time.Second
	hurryJitter   = 100 * time.Millisecond
	wakeSpread    = 2 * time.Millisecond
)

// retries wakes the watches of a Client that wait for their next attempt when a call
// succeeds. The zero value is ready to use.
type retries struct {
	failing atomic.Int64 // watches that failed and have not proved themselves since
	waiting atomic.Int64 // watches in a pause

	success struct {
		mu sync.Mutex
		ch chan struct{} // closed, and replaced, by wake; nil until needed
	}
}

// next returns a channel that is closed when a call succeeds.
func (r *retries) next() <-chan struct{} {
	r.success.mu.Lock()
	defer r.success.mu.Unlock()
	if r.success.ch == nil {
		r.success.ch = make(chan struct{})
	}
	return r.success.ch
}

func (r *retries) wake() {
	if r.waiting.Load() == 0 {
		return
	}
	r.success.mu.Lock()
	defer r.success.mu.Unlock()
	if r.success.ch != nil {
		close(r.success.ch)
		r.success.ch = nil
	}
}

// wakeRetries is called when the registry answered: a call of the store succeeded, or a
// watch had a snapshot. Watches in a pause are then retried, a second after their last
// attempt. Each attempt in vain doubles the second for its watch, up to the longest
// wait, until the watch has proved itself. So calls that succeed while watches fail
// cause no storm. It does not block and may be called from any goroutine.
func (c *Client) wakeRetries() { c.retries.wake() }

// answered calls wakeRetries if a call of the store succeeded, and returns its error.
func (c *Client) answered(err error) error {
	if err == nil {
		c.wakeRetries()
	}
	return err
}

// pause waits for d, or until a reader is in a hurry or a call succeeds and the last
// attempt, which began at begun, is long enough ago. It reports false if the watch has
// to end.
func (s *shared) pause(d time.Duration, begun time.Time) bool {
	hurry := make(chan struct{}, 1)
	row := s.setHurry(hurry)
	defer s.setHurry(nil)
	retries := &s.client.retries
	waiting := retries.waiting.Add(1)
	defer retries.waiting.Add(-1)
	back := retries.next()
	t := newRetryTimer(d, begun, hurryJitter+wakeSpread*time.Duration(waiting))
	defer t.Stop()
	for {
		select {
		case <-t.C:
			return true
		case <-s.ctx.Done():
			return false
		case <-hurry:
			hurry = nil
			t.advance(row.futile)
		case <-back:
			back = nil
			if t.advance(row.woken) {
				s.countWoken()
			}
		}
	}
}

// retryTimer fires when the next attempt is due.
type retryTimer struct {
	*time.Timer
	due    time.Time
	begun  time.Time     // of the last attempt
	jitter time.Duration // of an attempt that was moved forward
}

func newRetryTimer(d time.Duration, begun time.Time, jitter time.Duration) *retryTimer {
	return &retryTimer{Timer: time.NewTimer(d), due: time.Now().Add(d), begun: begun, jitter: jitter}
}

// advance moves the next attempt forward to hurryInterval after the last one. The
// interval is doubled as often as doublings says. advance reports whether the attempt
// moved.
func (t *retryTimer) advance(doublings int) bool {
	soon := t.begun.Add(min(hurryInterval<<min(doublings, 10), maxBackoff))
	if now := time.Now(); soon.Before(now) {
		soon = now
	}
	soon = soon.Add(rand.N(t.jitter))
	if !soon.Before(t.due) {
		return false
	}
	t.due = soon
	t.Reset(time.Until(soon))
	return true
}

// setHurry begins a pause, in which readers in a hurry send to hurry, or ends it with
// nil. It returns the row of failures.
func (s *shared) setHurry(hurry chan struct{}) failureRow {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.health.hurry = hurry
	return s.health.row
}

func (s *shared) countWoken() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.health.row.woken++
}

// sleep waits for d and reports true, or for ctx to be done and reports false.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
