package resolver

import (
	"sync"
	"time"
)

// dispatcher delivers the newest state of a service to its ClientConns. Each
// ClientConn gets one state at a time, in order. It may miss states, and always gets
// the last one.
//
//	      publish           next               finish
//	idle --------> queued --------> delivering --------> idle
//	 |                ^               ^     | finish, if there is a newer state
//	 |                +---------------|-----+
//	 +--------------------------------+ join
//
// Goroutines: Build calls join. Close of a ClientConn calls leave. The publisher's run
// calls publish, and then dispatch, which makes the run's goroutine the first deliverer:
// a lone change reaches a ClientConn without another goroutine. The ticker starts more
// deliverers while ClientConns wait. The goroutine that closes the last ClientConn calls
// stop and then wait.
//
// Locks: no other lock is taken while queue is locked, and gRPC, hooks and loggers are
// called without a lock. The lock of the publisher may be held when publish is called.
//
// A bounded errgroup.Group in place of the hand-written count of deliverers would not
// hold the invariant that a queued ClientConn always has a deliverer, on its way at
// least: the queue and the count have to change under one lock. It would also start a
// goroutine for a lone change, which doubles the time until the ClientConn has the
// change (BenchmarkDeliverers).
type dispatcher struct {
	limit int            // deliverers that may be busy at once; constant
	work  sync.WaitGroup // deliverers that this type started
	queue queue
}

// queue is what the mutex of a dispatcher guards, beside the field place of every conn.
// All its methods are called while it is locked.
type queue struct {
	sync.Mutex
	state *state  // nil: nothing has been published
	conns []*conn // all that have joined and not left

	first, last *conn     // the list of the ClientConns in the phase queued
	since       time.Time // when the list was empty last

	// The deliverers of the present generation. When none of them gets on, they
	// count as stuck, and a new generation takes their place.
	deliverers int
	generation int
	delivered  int           // deliveries since the ticker was set last
	took       time.Duration // the last delivery

	ticking bool        // ticker will call tick
	ticker  *time.Timer // nil until needed

	closed bool
	done   chan struct{} // nil until a rest needs it; closed by stop
}

// deliverer is the state of one goroutine in deliver.
type deliverer struct {
	generation int           // in which it was counted
	last       time.Time     // when its last delivery ended
	before     time.Duration // how long its last delivery took
}

// join adds a ClientConn, and delivers the present state to it, if there is one.
func (d *dispatcher) join(c *conn) {
	s := d.add(c)
	if s == nil {
		return
	}
	c.deliver(s)
	d.queue.Lock()
	defer d.queue.Unlock()
	d.queue.settle(c, s)
	// A newer state is delivered by another goroutine: Build must not deliver
	// state after state.
	if c.place.phase == queued {
		d.startDeliverer()
	}
}

// add adds a ClientConn, and returns the state that join has to deliver.
func (d *dispatcher) add(c *conn) *state {
	q := &d.queue
	q.Lock()
	defer q.Unlock()
	c.place.index = len(q.conns)
	q.conns = append(q.conns, c)
	if q.state != nil {
		c.place.phase = delivering
	}
	return q.state
}

// leave removes a ClientConn and reports whether it was there. If a delivery to the
// ClientConn is in progress, quiet is closed at the end of the delivery, and otherwise
// quiet is nil.
func (d *dispatcher) leave(c *conn) (quiet <-chan struct{}, first bool) {
	q := &d.queue
	q.Lock()
	defer q.Unlock()
	if c.place.closed {
		return c.place.quiet, false
	}
	c.place.closed = true
	end := len(q.conns) - 1
	q.conns[end].place.index = c.place.index
	q.conns[c.place.index] = q.conns[end]
	q.conns[end] = nil
	q.conns = q.conns[:end]
	if c.place.phase == delivering {
		c.place.quiet = make(chan struct{})
	}
	return c.place.quiet, true
}

// publish makes s the present state, and queues all ClientConns for it. The caller
// calls dispatch next.
func (d *dispatcher) publish(s *state) {
	q := &d.queue
	q.Lock()
	defer q.Unlock()
	s.number = 1
	if old := q.state; old == nil {
		s.urgent = true
	} else {
		s.number = old.number + 1
		// Endpoints from the cache may have gone long ago.
		s.urgent = s.urgent || old.err != nil || s.err != nil || old.attributes != nil || old.urgent && q.first != nil
	}
	q.state = s
	for _, c := range q.conns {
		if c.place.phase == idle {
			q.push(c)
		}
	}
}

// dispatch delivers the state to queued ClientConns. It returns when the queue is
// empty, or at once if enough deliverers are busy.
func (d *dispatcher) dispatch() {
	if generation, ok := d.enter(); ok {
		d.deliver(generation)
	}
}

// enter counts the caller as a deliverer, and returns its generation. It reports false
// if there are enough.
func (d *dispatcher) enter() (generation int, ok bool) {
	q := &d.queue
	q.Lock()
	defer q.Unlock()
	if q.deliverers < d.limit {
		q.deliverers++
		return q.generation, true
	}
	if q.first != nil {
		d.startTicker() // the others may be stuck
	}
	return 0, false
}

// startDeliverer starts a goroutine that delivers. d.queue is locked. The generation
// is that of the present: the goroutine may be given up before it begins.
func (d *dispatcher) startDeliverer() {
	d.queue.deliverers++
	generation := d.queue.generation
	d.work.Go(func() { d.deliver(generation) })
}

// deliver delivers the state to the queued ClientConns, one after the other. The
// caller has counted this deliverer in its generation.
func (d *dispatcher) deliver(generation int) {
	v := deliverer{generation: generation, last: time.Now()}
	for {
		c, s := d.next(&v)
		if c == nil {
			return
		}
		c.deliver(s)
		if rest := d.finish(&v, c, s); rest > 0 {
			d.rest(rest)
			v.last = time.Now()
		}
	}
}

// next takes a ClientConn from the queue, and returns it with the state to deliver. It
// returns nil if the deliverer has to end.
func (d *dispatcher) next(v *deliverer) (*conn, *state) {
	q := &d.queue
	q.Lock()
	defer q.Unlock()
	if q.first != nil && !q.rejoin(v, d.limit) {
		d.startTicker() // the deliverers that replaced it may be stuck
		return nil, nil
	}
	c := q.pop()
	if c == nil {
		if v.generation == q.generation {
			q.deliverers--
		}
		q.stopTicker()
		return nil, nil
	}
	if q.first != nil {
		d.startTicker()
	}
	c.place.phase = delivering
	return c, q.state
}

// finish notes that s was delivered to c, and returns how long to rest before the next
// delivery (see restFactor).
func (d *dispatcher) finish(v *deliverer, c *conn, s *state) time.Duration {
	q := &d.queue
	q.Lock()
	defer q.Unlock()
	q.settle(c, s)
	now := time.Now()
	q.took = now.Sub(v.last)
	v.last = now
	// A single slow delivery was probably preempted: only two in a row count.
	heavy := min(q.took, v.before)
	v.before = q.took
	if heavy < heavyTime || q.first == nil || q.state.urgent || now.Sub(q.since) >= restLimit {
		return 0
	}
	return min(restFactor*heavy, maxRest)
}

// rest waits for t, or until stop.
func (d *dispatcher) rest(t time.Duration) {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-d.ended():
	}
}

// ended returns a channel that stop closes.
func (d *dispatcher) ended() <-chan struct{} {
	q := &d.queue
	q.Lock()
	defer q.Unlock()
	if q.done == nil {
		q.done = make(chan struct{})
		if q.closed {
			close(q.done)
		}
	}
	return q.done
}

// wait waits for the goroutines of a dispatcher. It is called after stop.
func (d *dispatcher) wait() { d.work.Wait() }

// stop ends rests, and keeps the ticker from starting deliverers. There are no
// ClientConns left.
func (d *dispatcher) stop() {
	q := &d.queue
	q.Lock()
	defer q.Unlock()
	q.closed = true
	q.stopTicker()
	if q.done != nil {
		close(q.done)
	}
}

// startTicker has tick called in a while, unless it will be anyway. d.queue is locked.
func (d *dispatcher) startTicker() {
	if !d.queue.ticking {
		d.setTicker()
	}
}

// setTicker has tick called after busyTime if there is room for more deliverers, and
// otherwise when they may be stuck. d.queue is locked.
func (d *dispatcher) setTicker() {
	q := &d.queue
	q.ticking, q.delivered = true, 0
	wait := min(max(stallTime, 2*q.took), maxStall)
	if q.deliverers < d.limit {
		wait = busyTime
	}
	if q.ticker == nil {
		q.ticker = time.AfterFunc(wait, d.tick)
	} else {
		q.ticker.Reset(wait)
	}
}

// tick is called while ClientConns wait in the queue. Slow and blocked deliveries must
// not hold the others up, so tick starts as many more deliverers as there are, or twice
// as many as are stuck.
func (d *dispatcher) tick() {
	q := &d.queue
	q.Lock()
	defer q.Unlock()
	if q.first == nil || q.closed {
		q.ticking = false
		return
	}
	more := 0
	if room := d.limit - q.deliverers; room > 0 {
		more = min(q.deliverers, room)
	} else if q.delivered == 0 {
		more = 2 * q.giveUp()
	}
	for c := q.first; c != nil && more > 0; c = c.place.next {
		d.startDeliverer()
		more--
	}
	d.setTicker()
}

// push puts c at the end of the queue.
func (q *queue) push(c *conn) {
	c.place.phase = queued
	if q.first == nil {
		q.first, q.since = c, time.Now()
	} else {
		q.last.place.next = c
	}
	q.last = c
}

// pop takes the first ClientConn that is not closed from the queue. It returns nil if
// the queue is empty.
func (q *queue) pop() *conn {
	for q.first != nil {
		c := q.first
		q.first, c.place.next = c.place.next, nil
		c.place.phase = idle
		if c.place.closed {
			continue
		}
		return c
	}
	return nil
}

// settle notes that s was delivered to c. If there is another state by then, c is
// queued again.
func (q *queue) settle(c *conn, s *state) {
	q.delivered++
	c.place.phase = idle
	switch {
	case c.place.closed:
		if c.place.quiet != nil {
			close(c.place.quiet)
		}
	case q.state != s:
		q.push(c)
	}
}

// rejoin counts a deliverer of an older generation, whose delivery ended after all, in
// the present generation. It reports false if there is no room for the deliverer.
func (q *queue) rejoin(v *deliverer, limit int) bool {
	if v.generation == q.generation {
		return true
	}
	if q.deliverers >= limit {
		return false
	}
	q.deliverers++
	v.generation = q.generation
	return true
}

// giveUp begins a new generation, and returns how many deliverers the old one had.
func (q *queue) giveUp() (deliverers int) {
	deliverers, q.deliverers = q.deliverers, 0
	q.generation++
	return deliverers
}

// stopTicker keeps tick from being called.
func (q *queue) stopTicker() {
	if q.ticking {
		q.ticking = false
		q.ticker.Stop()
	}
}
