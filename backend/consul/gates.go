package consul

import (
	"context"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/hashicorp/consul/api"
)

// How a Store bounds its connections: see [Store].
const (
	maxOwn    = 50 // watches with a blocking query of their own
	maxShared = 18 // blocking queries of all other sequences: three, and abandoned queries
	maxShort  = 32 // requests at once that do not wait for a change
	maxWrites = 8  // of maxShort, reserved for Apply and for leases
)

// gates bound the requests of a Store. A request that waits for a gate gets its turn
// in the order of arrival.
type gates struct {
	short  *semaphore.Weighted // requests that do not wait for a change
	reads  *semaphore.Weighted // requests among them that a sequence makes
	own    *semaphore.Weighted // watches with a blocking query of their own
	shared *semaphore.Weighted // blocking queries of a hub
}

func newGates() gates {
	return gates{
		short:  semaphore.NewWeighted(maxShort),
		reads:  semaphore.NewWeighted(maxShort - maxWrites),
		own:    semaphore.NewWeighted(maxOwn),
		shared: semaphore.NewWeighted(maxShared),
	}
}

// enter waits until a request may be made that does not wait for a change. The caller
// calls leave.
func (g *gates) enter(ctx context.Context) error { return g.short.Acquire(ctx, 1) }

func (g *gates) leave() { g.short.Release(1) }

// enterRead is enter for what a sequence reads. It leaves room for registrations and
// renewals. The caller calls leaveRead.
func (g *gates) enterRead(ctx context.Context) error {
	if err := g.reads.Acquire(ctx, 1); err != nil {
		return err
	}
	if err := g.enter(ctx); err != nil {
		g.reads.Release(1)
		return err
	}
	return nil
}

func (g *gates) leaveRead() {
	g.leave()
	g.reads.Release(1)
}

// releaseAt gives back a place at a time, or at once if the time is past. The time is
// when an abandoned query is over at Consul, which does not always notice that nobody
// waits for the answer (consul#8524).
func releaseAt(places *semaphore.Weighted, at time.Time) {
	if d := time.Until(at); d > 0 {
		time.AfterFunc(d, func() { places.Release(1) })
		return
	}
	places.Release(1)
}

// overAt returns when a query that is asked now is over at Consul, which adds up to a
// sixteenth to the wait.
func overAt(q *api.QueryOptions) time.Time {
	return time.Now().Add(q.WaitTime + q.WaitTime/16)
}
