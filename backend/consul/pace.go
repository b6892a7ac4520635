package consul

import (
	"context"
	"net/http/httptrace"
	"sync/atomic"
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
func (b *bucket) take(now time.Time) time.Duration { return b.takeN(now, 1) }

// takeN takes n tokens.
func (b *bucket) takeN(now time.Time, n int) time.Duration {
	if full := now.Add(-time.Duration(b.burst) * b.every); b.at.Before(full) {
		b.at = full
	}
	b.at = b.at.Add(time.Duration(n) * b.every)
	return max(b.at.Sub(now), 0)
}

// An answer is the whole service, also for one change, and costs the agent and
// everybody who watches the service as much. So what bounds a watch is how many
// entries it reads: entryRate in a second, once it has read entryBurst, where an
// answer counts as smallAnswer entries at least. Up to 200 entries that is a
// change every 15 ms and more.
//
// Changes that come close together are read together: after news, a watch rests. The
// rest is entryRest for each entry, which is about how long an idle machine takes to read
// and show one. An answer that takes longer, without answerTime, means that the machine is
// busy, often because many watches read the same change. The rest then grows by busyRest
// times the excess, up to maxRest. A larger busyRest reads more changes together, a
// smaller one shows them sooner.
//
// A rest shorter than shortRest is skipped, because waking up from it costs more
// processor time than it saves. The entries read meanwhile still count for entryRate.
const (
	entryRate   = 15_000
	entryBurst  = 30_000
	smallAnswer = 150
	answerTime  = 500 * time.Microsecond // to read an answer without its entries
	entryRest   = 20 * time.Microsecond
	busyRest    = 4
	shortRest   = 2 * time.Millisecond
	maxRest     = 100 * time.Millisecond
)

// pace bounds how often one sequence asks, whatever Consul answers.
type pace struct {
	entries bucket    // what was read; it may be overdrawn
	vain    bucket    // questions that follow an answer without news
	rest    time.Time // until when nothing is asked

	// arrived is when the first byte of the answer came. The transport sets arrived, in
	// a goroutine of its own. A transport that does not support httptrace leaves it nil.
	arrived atomic.Pointer[time.Time]
}

func newPace() *pace {
	return &pace{
		entries: bucket{every: time.Second / entryRate, burst: entryBurst},
		vain:    bucket{every: time.Second / 2, burst: 16},
	}
}

// trace returns a context for queries. Their transport notes in p when an answer arrives.
func (p *pace) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: func() {
		now := time.Now()
		p.arrived.Store(&now)
	}})
}

// read notes, once an answer has been read and shown, that the answer had n entries and
// whether it brought news.
func (p *pace) read(n int, news bool) {
	now := time.Now()
	usual := time.Duration(n) * entryRest
	rest := usual
	if at := p.arrived.Swap(nil); at != nil {
		rest += busyRest * max(now.Sub(*at)-answerTime-usual, 0)
	}
	// What is asked next waits until this is paid for, and not before: an answer
	// may be more than the bucket holds.
	d := p.entries.takeN(now, max(n, smallAnswer))
	if news {
		d = max(d, min(rest, maxRest))
	} else {
		d = max(d, p.vain.take(now))
	}
	if d < shortRest {
		d = 0
	}
	p.rest = now.Add(d)
}

// wait waits until the next question may be asked.
func (p *pace) wait(ctx context.Context) error {
	return sleep(ctx, time.Until(p.rest))
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
