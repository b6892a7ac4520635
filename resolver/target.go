package resolver

import "sync"

// target is what the ClientConns of one service share:
//
//	Follower, cache ──event──> debouncer ──run──> publisher ──publish──> dispatcher ──> ClientConns
//
// The debouncer decides when, the publisher decides what, and the dispatcher delivers.
// Each has one mutex, in its own file. The publisher's may be held when that of the
// Follower, the debouncer, the dispatcher or the saver is taken. The Follower may hold its
// own when it calls event. No lock is taken while that of the debouncer, the dispatcher or
// the saver is held. A target has goroutines only while there is something to do.
type target struct {
	builder *Builder
	service string
	users   int // ClientConns, also those being built; guarded by builder.open

	once     sync.Once
	startErr error // written within once

	publisher  publisher
	dispatcher dispatcher
}

func newTarget(b *Builder, service string) *target {
	t := &target{builder: b, service: service}
	t.dispatcher.limit = b.deliverers
	t.publisher.init(b, service, &t.dispatcher)
	return t
}

// start begins to follow the service, and reads what is known already. Of several
// calls the first one does it, and the others wait.
func (t *target) start() error {
	var logs []func()
	t.once.Do(func() { logs, t.startErr = t.publisher.start() })
	// Not within Do: the logger is the caller's code, and may build a ClientConn.
	for _, log := range logs {
		log()
	}
	return t.startErr
}

// close ends a target that has no ClientConns, and waits for its goroutines.
func (t *target) close() {
	t.publisher.stop()
	t.dispatcher.stop()
	t.publisher.wait()
	t.dispatcher.wait()
}
