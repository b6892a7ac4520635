package cli

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// calmRecords is how many records with one message are logged within calmWindow.
	calmRecords = 10
	calmWindow  = time.Minute
)

// calm is a slog.Handler for a command that follows all services: a registry that fails makes
// one record for each of them. It passes the first records with each message, and leaves the
// others out.
type calm struct {
	slog.Handler
	counts *calmCounts
}

// calmCounts counts the records of a calm and of the handlers that were derived from it.
type calmCounts struct {
	mu   sync.Mutex
	seen map[string]calmCount // by message
}

// calmCount is how many records a message has since a time.
type calmCount struct {
	since time.Time
	n     int
}

func newCalm(h slog.Handler) calm {
	return calm{h, &calmCounts{seen: make(map[string]calmCount)}}
}

// add counts a record and returns its number within the window.
func (c *calmCounts) add(r *slog.Record) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	count := c.seen[r.Message]
	if r.Time.Sub(count.since) > calmWindow {
		count = calmCount{since: r.Time}
	}
	count.n++
	c.seen[r.Message] = count
	return count.n
}

// Handle implements slog.Handler.
func (c calm) Handle(ctx context.Context, r slog.Record) error {
	switch n := c.counts.add(&r); {
	case n < calmRecords:
		return c.Handler.Handle(ctx, r)
	case n == calmRecords:
		r = r.Clone()
		r.AddAttrs(slog.String("others", "records like this one are left out for "+calmWindow.String()+": --verbose logs all"))
		return c.Handler.Handle(ctx, r)
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (c calm) WithAttrs(attrs []slog.Attr) slog.Handler {
	return calm{c.Handler.WithAttrs(attrs), c.counts}
}

// WithGroup implements slog.Handler.
func (c calm) WithGroup(name string) slog.Handler { return calm{c.Handler.WithGroup(name), c.counts} }
