package bridge

import (
	"sync"
	"time"

	"github.com/naming-go/naming"
)

// queue is the services of a term, and which of them are to be reconciled. A service is
// reconciled by one worker at a time. Wakes that come meanwhile are one more turn.
type queue struct {
	mu       sync.Mutex
	more     sync.Cond // there is a turn, or the queue was closed
	services map[string]*tracked
	names    [2]map[string]bool // the services of source and target; nil: unknown
	turns    []*tracked
	unread   int // services whose copies are not known
	closed   bool
	progress chan struct{} // capacity 1: has a token when names or unread changed
}

// tracked is a service in a queue.
type tracked struct {
	*service
	sourceFeed, targetFeed *naming.Follower
	// failures is the failed attempts in a row, retryAt is the time of the next attempt,
	// and stale says of which sides the set is stale. They belong to the worker.
	failures int
	retryAt  time.Time
	stale    [2]bool

	// Guarded by queue.mu.
	queued, running, again, read, dropped bool
	timer                                 *time.Timer
}

// The sides of a Bridge, in queue.names.
const (
	sourceSide = iota
	targetSide
)

func newQueue() *queue {
	q := &queue{services: make(map[string]*tracked), progress: make(chan struct{}, 1)}
	q.more.L = &q.mu
	return q
}

// push gives a service a turn. It is cheap and does not block for long, as watches call it.
func (q *queue) push(s *tracked) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pushLocked(s)
}

func (q *queue) pushLocked(s *tracked) {
	switch {
	case s.dropped || s.queued || q.closed:
	case s.running:
		s.again = true
	default:
		s.queued = true
		q.turns = append(q.turns, s)
		q.more.Signal()
	}
}

// pushAll gives the services with these names a turn. Nil means all services.
func (q *queue) pushAll(names []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if names == nil {
		for _, s := range q.services {
			q.pushLocked(s)
		}
	}
	for _, n := range names {
		if s := q.services[n]; s != nil {
			q.pushLocked(s)
		}
	}
}

// pop waits for a turn. It returns nil when the queue was closed.
func (q *queue) pop() *tracked {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.turns) == 0 && !q.closed {
		q.more.Wait()
	}
	if q.closed {
		return nil
	}
	s := q.turns[0]
	q.turns[0] = nil
	q.turns = q.turns[1:]
	s.queued, s.running = false, true
	if s.timer != nil {
		s.timer.Stop()
	}
	return s
}

// done ends a turn. The service gets another turn at a time, unless that is zero.
func (q *queue) done(s *tracked, next time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s.running = false
	switch {
	case s.again:
		s.again = false
		q.pushLocked(s)
	case next.IsZero() || s.dropped || q.closed:
	case s.timer == nil:
		s.timer = time.AfterFunc(time.Until(next), func() { q.push(s) })
	default:
		s.timer.Reset(time.Until(next))
	}
}

// setNames notes the services of a side. It returns the services that are new, each of
// which the caller has as if pop had returned it. Services that this side no longer has
// get a turn.
func (q *queue) setNames(side int, names map[string]bool) (added []*tracked) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for n := range q.names[side] {
		if s := q.services[n]; s != nil && !names[n] {
			q.pushLocked(s)
		}
	}
	q.names[side] = names
	for n := range names {
		if q.services[n] == nil {
			s := &tracked{service: newService(n), running: true}
			q.services[n] = s
			q.unread++
			added = append(added, s)
		}
	}
	q.signal()
	return added
}

// noteRead notes that the copies of a service are known.
func (q *queue) noteRead(s *tracked) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !s.read {
		s.read = true
		q.unread--
		q.signal()
	}
}

// drop removes a service that neither side has. It reports false if a side has the
// service.
func (q *queue) drop(s *tracked) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.names[sourceSide] == nil || q.names[targetSide] == nil || q.names[sourceSide][s.name] || q.names[targetSide][s.name] {
		return false
	}
	s.dropped = true
	delete(q.services, s.name)
	if !s.read {
		s.read = true
		q.unread--
		q.signal()
	}
	return true
}

// isRead reports whether the services of the target are known, and the copies of all
// services.
func (q *queue) isRead() (names, copies bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.names[targetSide] != nil, q.unread == 0
}

func (q *queue) signal() {
	select {
	case q.progress <- struct{}{}:
	default:
	}
}

// close ends all turns that wait. It returns the services.
func (q *queue) close() (all []*tracked) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.more.Broadcast()
	for _, s := range q.services {
		if s.timer != nil {
			s.timer.Stop()
		}
		all = append(all, s)
	}
	return all
}

// len returns the number of services.
func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.services)
}
