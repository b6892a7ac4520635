package consul

import (
	"context"
	"time"

	"github.com/hashicorp/consul/api"
)

// bucket is a token bucket: burst tokens at first, and one more for each every
// that has passed. The zero time means that it is full.
type bucket struct {
	every time.Duration
	burst int
	at    time.Time // when it was last full, had it been filled since at this rate
}

// take takes a token and returns how long to wait before it is there.
func (b *bucket) take(now time.Time) time.Duration {
	if full := now.Add(-time.Duration(b.burst) * b.every); b.at.Before(full) {
		b.at = full
	}
	b.at = b.at.Add(b.every)
	return max(b.at.Sub(now), 0)
}

// An answer is the whole service, also for one change, and costs the agent and
// everybody who watches the service as much. Changes that come close together are
// read together: after news comes a rest for each entry, up to maxRest.
const (
	entryRest = 400 * time.Microsecond
	maxRest   = 100 * time.Millisecond
)

// pace bounds how often one sequence asks, whatever Consul answers.
type pace struct {
	any  bucket    // every question
	vain bucket    // those that follow an answer without news
	rest time.Time // until when nothing is asked
}

func newPace() *pace {
	return &pace{
		any:  bucket{every: time.Second / 10, burst: 100},
		vain: bucket{every: time.Second / 2, burst: 16},
	}
}

// read notes that an answer with news had n entries.
func (p *pace) read(n int) {
	p.rest = time.Now().Add(min(time.Duration(n)*entryRest, maxRest))
}

// wait waits until the next question may be asked. vain says that the answer to
// the last brought nothing new.
func (p *pace) wait(ctx context.Context, vain bool) error {
	now := time.Now()
	d := max(p.any.take(now), p.rest.Sub(now))
	if vain {
		d = max(d, p.vain.take(now))
	}
	return sleep(ctx, d)
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// release takes a token out of slots, at once or when a question that was given
// up is over at Consul, which does not always notice that nobody waits for the
// answer (consul#8524).
func release(slots chan struct{}, over time.Time) {
	if d := time.Until(over); d > 0 {
		time.AfterFunc(d, func() { <-slots })
		return
	}
	<-slots
}

// over returns when a question that is asked now is over at Consul, which adds
// up to a sixteenth to the wait.
func over(q *api.QueryOptions) time.Time {
	return time.Now().Add(q.WaitTime + q.WaitTime/16)
}
