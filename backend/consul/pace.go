package consul

import (
	"context"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// bucket is a token bucket. It starts with burst tokens, and gets one more in each
// period of length every, up to burst. One goroutine uses it.
type bucket struct {
	every time.Duration
	burst int
	at    time.Time // when the bucket was empty, at this rate; zero: it is full
}

// spend takes n tokens out, and returns how long to wait until the bucket has had them.
// The bucket may be overdrawn.
func (b *bucket) spend(now time.Time, n int) time.Duration {
	if full := now.Add(-time.Duration(b.burst) * b.every); b.at.Before(full) {
		b.at = full
	}
	b.at = b.at.Add(time.Duration(n) * b.every)
	return max(b.at.Sub(now), 0)
}

// An answer is the whole service, also for one change. Its cost for the agent and for
// each watch grows with the service. So the entries that a watch reads are bounded:
// entryRate in a second, once it has read entryBurst, where an answer counts as
// smallAnswer entries at least. A service of up to 200 entries may change every 15 ms. A
// larger entryRate shows the changes of larger services sooner, and lets one service
// occupy more of the agent.
//
// After news, a watch rests, so that changes that come close together are read together:
//
//	rest = entryRest × entries + busyRest × max(0, took - answerTime - entryRest × entries)
//
// entryRest is about the time that an idle machine takes to read and show an entry. An
// answer that takes longer means that the machine is busy, often because many watches
// read the same change. A larger busyRest reads more changes together, a smaller busyRest
// shows them sooner. maxRest bounds the delay of a change.
//
// A rest shorter than shortRest is skipped, because waking up from it costs more
// processor time than it saves. The entries read meanwhile still count for entryRate.
const (
	entryRate   = 15_000
	entryBurst  = 30_000
	smallAnswer = 150
	answerTime  = 500 * time.Microsecond // the time to read an answer without entries
	entryRest   = 20 * time.Microsecond
	busyRest    = 4
	shortRest   = 2 * time.Millisecond
	maxRest     = 100 * time.Millisecond
)

// pace bounds how often one watch asks, whatever Consul answers. Only arrived is used by
// more than one goroutine.
type pace struct {
	entries bucket    // the entries that were read
	vain    bucket    // queries that follow an answer without news
	rest    time.Time // until when nothing is asked

	// arrived is when the first byte of the answer came. The transport sets arrived in a
	// goroutine of its own. A transport without httptrace leaves it nil.
	arrived atomic.Pointer[time.Time]
}

func newPace() *pace {
	return &pace{
		entries: bucket{every: time.Second / entryRate, burst: entryBurst},
		vain:    bucket{every: time.Second / 2, burst: 16},
	}
}

// trace returns a context for queries whose transport notes when an answer arrives.
func (p *pace) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: func() {
		now := time.Now()
		p.arrived.Store(&now)
	}})
}

// noteAnswer notes an answer that has been read and shown: that it had n entries, and
// whether it brought news. It sets the rest.
func (p *pace) noteAnswer(n int, news bool) {
	now := time.Now()
	usual := time.Duration(n) * entryRest
	rest := usual
	if at := p.arrived.Swap(nil); at != nil {
		rest += busyRest * max(now.Sub(*at)-answerTime-usual, 0)
	}
	// An answer is paid for after it was read, by the next query: its size is not known
	// before, and may be more than the bucket holds.
	d := p.entries.spend(now, max(n, smallAnswer))
	if news {
		d = max(d, min(rest, maxRest))
	} else {
		d = max(d, p.vain.spend(now, 1))
	}
	if d < shortRest {
		d = 0
	}
	p.rest = now.Add(d)
}

// wait waits until the next query may be made.
func (p *pace) wait(ctx context.Context) error {
	return sleep(ctx, time.Until(p.rest))
}

// sleep waits for d, or until ctx is done. It then returns the error of ctx.
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
