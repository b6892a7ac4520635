package resolver

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
)

// runs is a debouncer whose runs take a while. It notes when each of them began.
type runs struct {
	debouncer
	mu    sync.Mutex
	takes time.Duration
	alarm time.Duration // after a run, once; 0: none
	now   int
	began []time.Time
	t     *testing.T
}

func newRuns(t *testing.T, takes time.Duration) *runs {
	r := &runs{takes: takes, t: t}
	r.debouncer.run = r.one
	return r
}

func (r *runs) one() {
	r.begin()
	r.mu.Lock()
	if r.now++; r.now != 1 {
		r.t.Errorf("%d runs at a time", r.now)
	}
	r.began = append(r.began, time.Now())
	var alarm time.Time
	if r.alarm > 0 {
		alarm, r.alarm = time.Now().Add(r.alarm), 0
	}
	r.mu.Unlock()
	time.Sleep(r.takes)
	r.mu.Lock()
	r.now--
	r.mu.Unlock()
	r.finish(time.Now(), alarm)
}

// after returns when each run began, after start.
func (r *runs) after(start time.Time) (list []time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, at := range r.began {
		list = append(list, at.Sub(start))
	}
	return list
}

// TestOneRunAtATime: events that come during a run cause one more run after its end.
func TestOneRunAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRuns(t, 20*time.Millisecond)
		start := time.Now()
		for range 3 {
			r.event()
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		// The second run begins quietTime after the last event, which is long past
		// when the first run ends.
		if got := r.after(start); len(got) != 2 || got[0] != 0 || got[1] != 20*time.Millisecond {
			t.Errorf("runs began after %v, want 0s and 20ms", got)
		}
		r.close()
		r.wait()
	})
}

// TestAlarm: a run begins at the time of the alarm, unless an event comes first.
func TestAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRuns(t, 0)
		r.alarm = time.Minute
		start := time.Now()
		r.event()
		time.Sleep(time.Hour)
		if got := r.after(start); len(got) != 2 || got[1] != time.Minute {
			t.Errorf("runs began after %v, want 0s and 1m", got)
		}
		r.began, r.alarm = nil, time.Minute
		start = time.Now()
		r.event()
		time.Sleep(time.Second)
		r.event() // and the run that it causes sets no alarm
		time.Sleep(time.Hour)
		if got := r.after(start); len(got) != 2 || got[1] != time.Second {
			t.Errorf("runs began after %v, want 0s and 1s", got)
		}
		r.close()
		r.wait()
	})
}

// TestNoRunAfterClose: neither an event nor the timer starts a run after close.
func TestNoRunAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRuns(t, 0)
		start := time.Now()
		r.event()
		synctest.Wait()
		r.event() // waits for quietTime
		r.close()
		r.event()
		r.wait()
		time.Sleep(time.Minute)
		if got := r.after(start); len(got) != 1 {
			t.Errorf("runs began after %v, want one at once", got)
		}

		r = newRuns(t, 0)
		r.close()
		r.event() // would start a run at once
		r.wait()
		time.Sleep(time.Minute)
		if got := r.after(start); len(got) != 0 {
			t.Errorf("runs began after %v, want none after close", got)
		}
	})
}

// BenchmarkDeliverers is a lone change from publish until its ClientConn has the change:
// on the goroutine of the run, and on a goroutine of an errgroup with a limit.
func BenchmarkDeliverers(b *testing.B) {
	one := func() *dispatcher {
		target := newTarget(NewBuilder(nil, nil), "x")
		target.dispatcher.join(&conn{target: target, cc: idler{}})
		return &target.dispatcher
	}
	b.Run("count", func(b *testing.B) {
		d := one()
		b.ReportAllocs()
		for b.Loop() {
			d.publish(&state{})
			d.dispatch()
		}
	})
	b.Run("errgroup", func(b *testing.B) {
		d := one()
		var g errgroup.Group
		g.SetLimit(1)
		done := make(chan struct{}, 1)
		b.ReportAllocs()
		for b.Loop() {
			d.publish(&state{})
			for !g.TryGo(func() error { d.dispatch(); done <- struct{}{}; return nil }) {
			}
			<-done
		}
	})
}
