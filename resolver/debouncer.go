package resolver

import (
	"sync"
	"time"
)

// debouncer decides when the publisher of a service runs: at once after a lone event,
// a little later after events that come close together (see quietTime), and at the
// time of an alarm. Of the runs of a debouncer only one is in progress at a time.
//
// The Follower's goroutine, and the goroutine that reads the cache, call event. A run
// calls begin and then finish. The goroutine that closes the last ClientConn calls
// close and then wait.
//
// The mutex is taken for moments only, because event must not hold up the registry's
// watch. No other lock is taken while it is held. The locks of the Follower and of the
// publisher may be held when it is taken.
type debouncer struct {
	run     func()         // constant
	running sync.WaitGroup // runs in progress
	timing  timing
}

// timing is what the mutex of a debouncer guards.
type timing struct {
	sync.Mutex
	busy      bool      // a run is in progress, or the target has not been started
	closed    bool      // no run begins
	oldest    time.Time // the first event since the last run began; zero means no event
	newest    time.Time // the last event
	published time.Time // the last publication; zero: events are not collected yet
	alarm     time.Time // a run is due without an event; zero means never
	timer     *time.Timer
	armed     time.Time // when timer fires; zero: it does not
}

// event notes that there is something new. It does not block.
func (d *debouncer) event() {
	d.timing.Lock()
	defer d.timing.Unlock()
	now := time.Now()
	d.timing.newest = now
	if d.timing.oldest.IsZero() {
		d.timing.oldest = now
	}
	d.schedule(now)
}

// begin is called by a run before it reads the events. An event that comes later
// causes another run.
func (d *debouncer) begin() {
	d.timing.Lock()
	defer d.timing.Unlock()
	d.timing.oldest = time.Time{}
}

// finish ends a run. published is the time of the last publication, zero as long as
// events are not to be collected. At alarm, if not zero, there is another run in any
// case.
func (d *debouncer) finish(published, alarm time.Time) {
	d.timing.Lock()
	defer d.timing.Unlock()
	d.timing.busy = false
	d.timing.published, d.timing.alarm = published, alarm
	d.schedule(time.Now())
}

// close keeps further runs from beginning.
func (d *debouncer) close() {
	d.timing.Lock()
	defer d.timing.Unlock()
	d.timing.closed = true
	if d.timing.timer != nil {
		d.timing.timer.Stop()
	}
}

// wait waits for a run in progress. It is called after close.
func (d *debouncer) wait() { d.running.Wait() }

// ring is called by the timer.
func (d *debouncer) ring() {
	d.timing.Lock()
	defer d.timing.Unlock()
	d.timing.armed = time.Time{}
	d.schedule(time.Now())
}

// schedule starts a run if one is due, or else sets the timer. d.timing is locked.
func (d *debouncer) schedule(now time.Time) {
	t := &d.timing
	if t.busy || t.closed {
		return // finish schedules what is due by then
	}
	due := t.due()
	switch {
	case due.IsZero():
		if !t.armed.IsZero() {
			t.timer.Stop()
			t.armed = time.Time{}
		}
	case !due.After(now):
		t.busy = true
		d.running.Go(d.run)
	case t.timer == nil:
		t.timer = time.AfterFunc(due.Sub(now), d.ring)
		t.armed = due
	case t.armed.IsZero() || due.Before(t.armed):
		t.timer.Reset(due.Sub(now))
		t.armed = due
	}
	// A timer that fires too early for due is set again by ring. To set it at every
	// event would cost more.
}

// due returns when the next run is due, zero if there is nothing to do. t is locked.
func (t *timing) due() time.Time {
	due := t.oldest
	if due.IsZero() {
		return t.alarm
	}
	if due.Sub(t.published) < quietTime {
		due = t.newest.Add(quietTime)
		if end := t.oldest.Add(maxDelay); end.Before(due) {
			due = end
		}
	}
	if !t.alarm.IsZero() && t.alarm.Before(due) {
		return t.alarm
	}
	return due
}
