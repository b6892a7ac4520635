package bridge

import (
	"context"
	"sync"
	"time"
)

// pacer spaces the calls of Apply.
type pacer struct {
	interval time.Duration

	mu   sync.Mutex
	next time.Time // when the next call may be made
}

func newPacer(rate int) *pacer { return &pacer{interval: time.Second / time.Duration(rate)} }

// wait returns when the caller may make a call, or with ctx.Err().
func (p *pacer) wait(ctx context.Context) error {
	return sleep(ctx, p.reserve())
}

// reserve returns how long to wait for the next call.
func (p *pacer) reserve() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	at := p.next
	p.next = at.Add(p.interval)
	return at.Sub(now)
}

// sleep waits for d. It returns ctx.Err() if ctx is done before.
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
