package resolver

import (
	"errors"
	"fmt"
	"sync"
	"time"

	grpcresolver "google.golang.org/grpc/resolver"
)

// A change that comes while others do is published when none came for
// quietTime, or when the oldest has waited for maxWait.
const (
	quietTime = 5 * time.Millisecond
	maxWait   = 50 * time.Millisecond
)

// state is what ClientConns are told: endpoints, or why there are none. It is
// never modified.
type state struct {
	number    uint64 // counts the states of a target
	endpoints []grpcresolver.Endpoint
	err       error
}

// target is what the ClientConns of one service share: one Follower and what is
// made of it. Changes come in through wake, go through run, a goroutine that
// exists only while there are some, and go out through publish.
type target struct {
	builder *Builder
	service string
	users   int // ClientConns, also those being built; guarded by builder.mu

	once     sync.Once
	startErr error
	source   source

	// What has to be done. This mutex is held for moments only, so that wake
	// never holds up the registry.
	wakeMu  sync.Mutex
	running bool        // somebody is at work: run, or start
	pending time.Time   // when the oldest change came that Next has not been asked for; zero if there is none
	latest  time.Time   // when the newest change came
	late    bool        // the registry has been silent for too long
	timer   *time.Timer // until the first state: makes it late
	closed  bool
	done    chan struct{} // closed when closed is set
	work    sync.WaitGroup

	// Used by whoever is at work.
	set         *set
	synced      bool
	publishedAt time.Time
	ready       []*conn // scratch

	mu    sync.Mutex
	state *state // nil: nothing is known yet
	conns map[*conn]struct{}
}

func newTarget(b *Builder, service string) *target {
	return &target{
		builder: b,
		service: service,
		running: true, // until start is through
		done:    make(chan struct{}),
		set:     newSet(),
		conns:   make(map[*conn]struct{}),
	}
}

// start begins to follow the service and takes what is known already. Of
// several calls the first one does it, and the others wait.
func (t *target) start() error {
	t.once.Do(func() {
		source, err := t.builder.follow(t.service, t.wake)
		if err != nil {
			t.startErr = err
			return
		}
		t.source = source
		t.step()
		t.wakeMu.Lock()
		defer t.wakeMu.Unlock()
		if t.state == nil {
			t.timer = time.AfterFunc(t.builder.firstAnswer, t.tooLate)
		}
		if t.pending.IsZero() {
			t.running = false
		} else {
			t.work.Go(t.run)
		}
	})
	return t.startErr
}

// join adds a ClientConn, and tells it what is known.
func (t *target) join(c *conn) {
	t.mu.Lock()
	t.conns[c] = struct{}{}
	c.busy = true
	t.mu.Unlock()
	// Once here, and if there is more by now, not at the expense of Build.
	if c.deliverOne() {
		go c.deliver()
	}
}

// close ends a target that has no ClientConns any more, and waits until nothing
// of it runs.
func (t *target) close() {
	t.wakeMu.Lock()
	t.closed = true
	close(t.done)
	if t.timer != nil {
		t.timer.Stop()
	}
	t.wakeMu.Unlock()
	if t.source != nil {
		t.source.Close()
	}
	t.work.Wait()
}

// wake is called when Next may have something new. It does not block.
func (t *target) wake() {
	t.wakeMu.Lock()
	defer t.wakeMu.Unlock()
	t.poke()
}

// poke sees to it that run looks at the source. t.wakeMu is held.
func (t *target) poke() {
	if t.closed {
		return
	}
	t.latest = time.Now()
	if t.pending.IsZero() {
		t.pending = t.latest
	}
	if !t.running {
		t.running = true
		t.work.Go(t.run)
	}
}

// tooLate is called when the first answer is overdue.
func (t *target) tooLate() {
	t.wakeMu.Lock()
	defer t.wakeMu.Unlock()
	t.late = true
	t.poke()
}

// run takes changes until there are none.
func (t *target) run() {
	for {
		t.collect()
		t.step()
		t.wakeMu.Lock()
		if t.closed || t.pending.IsZero() {
			t.running = false
			t.wakeMu.Unlock()
			return
		}
		t.wakeMu.Unlock()
	}
}

// collect waits until it is time to publish what is pending.
func (t *target) collect() {
	if !t.synced {
		return // there are few before that, and all are urgent
	}
	for {
		t.wakeMu.Lock()
		first, latest := t.pending, t.latest
		t.wakeMu.Unlock()
		if first.Sub(t.publishedAt) >= quietTime {
			return
		}
		due := latest.Add(quietTime)
		if end := first.Add(maxWait); end.Before(due) {
			due = end
		}
		wait := time.Until(due)
		if wait <= 0 {
			return
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-t.done:
			timer.Stop()
			return
		}
	}
}

// step takes what is new, and publishes what comes of it.
func (t *target) step() {
	t.wakeMu.Lock()
	t.pending = time.Time{}
	late := t.late
	t.late = false
	t.wakeMu.Unlock()
	first, failed := !t.synced, error(nil)
	// The endpoints and the status of one event need not be of the same moment:
	// what just came back may be missing from the endpoints and not be held any
	// more either. They are once there is no other event.
	for event, ok := t.source.Next(); ok; event, ok = t.source.Next() {
		if event.Status.Synced {
			t.synced = true
			t.set.take(event)
		} else {
			failed = event.Status.Err
		}
	}
	switch {
	case t.synced:
		if changed := t.set.publish(); !changed && !first {
			return // an error, for example: the endpoints stay
		}
		if list := t.set.published; len(list) > 0 {
			t.publish(&state{endpoints: list})
		} else {
			t.publish(&state{err: t.errorf("has no endpoints")})
		}
	case failed != nil:
		t.publish(&state{err: t.errorf("cannot be looked up: %v", failed)})
	case late && t.current() == nil:
		t.publish(&state{err: t.errorf("cannot be looked up: no answer from the registry in %v", t.builder.firstAnswer)})
	}
}

// errorf returns an error that names the service. It has the text of its cause
// and not the cause: gRPC would take the status that a registry's client wraps
// in its errors for that of the call, and end calls that wait for ready.
func (t *target) errorf(format string, args ...any) error {
	return errors.New(fmt.Sprintf("naming: service %q ", t.service) + fmt.Sprintf(format, args...))
}

func (t *target) current() *state {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state
}

// publish makes s the state, and has every ClientConn told. Each is told by a
// goroutine of its own, so that none waits for another.
func (t *target) publish(s *state) {
	t.publishedAt = time.Now()
	t.wakeMu.Lock()
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	t.wakeMu.Unlock()
	t.mu.Lock()
	s.number = 1
	if t.state != nil {
		s.number = t.state.number + 1
	}
	t.state = s
	for c := range t.conns {
		if !c.busy {
			c.busy = true
			t.ready = append(t.ready, c)
		}
	}
	t.mu.Unlock()
	for _, c := range t.ready {
		go c.deliver()
	}
	clear(t.ready)
	t.ready = t.ready[:0]
}
