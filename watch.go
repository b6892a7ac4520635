package naming

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"sync"
	"time"
)

// errResyncDue ends a watch that is to be replaced. It is not a failure.
var errResyncDue = errors.New("periodic full read")

// shared is the one watch of a service in a Client. Its goroutine ranges over the
// store's watch, applies each batch to the set, and appends the changes to the chain.
// The cost of a change does not depend on the number of endpoints, and for each reader
// the goroutine only wakes the reader.
//
// Functions of the program, such as hooks, loggers, the functions of followers and the
// methods of errors and contexts, are called without a lock held. Functions that hold
// mu return the functions of followers to their caller, and add all others to calls.
type shared struct {
	// Set by newShared, or by acquire before run starts, and never changed.
	client  *Client
	subject subject
	ctx     context.Context // done when the watch was dropped or the Client closed
	cancel  context.CancelFunc
	after   <-chan struct{} // nil, or closed when the watch before this one has ended

	usage usage     // guarded by Client.state.mu
	calls callQueue // read-only; the queue has a lock of its own

	// mu guards the fields below. It is taken before cursor.mu and callQueue.mu.
	mu       sync.Mutex
	set      endpointSet
	chain    chain
	cursors  cursorList
	status   Status    // without Held: see currentStatus
	statuses int       // counts the changes of status, but for those of AsOf
	begun    time.Time // when the watch began that the set comes from
	feed     Feed      // nil: none, or not yet
	health   health
	holder   holder
	closed   bool // the Client was closed
	wasStale bool // the set was stale when the Client was closed
}

// usage says who uses a shared watch.
type usage struct {
	readers int
	linger  *time.Timer   // not nil: there are no readers, and the timer will drop the watch
	done    chan struct{} // nil until another watch waits for it; closed when run has ended
}

func (c *Client) newShared(sub subject) *shared {
	s := &shared{client: c, subject: sub, chain: chain{tail: newStep()}}
	s.set.entries = make(map[string]*entry)
	s.ctx, s.cancel = context.WithCancel(c.ctx)
	return s
}

// source returns a watch of the store. The list of services is a snapshot whose
// endpoints have an ID only.
func (s *shared) source(ctx context.Context) iter.Seq2[Batch, error] {
	if s.subject != (subject{}) {
		return s.client.store.Watch(ctx, s.subject.service)
	}
	return func(yield func(Batch, error) bool) {
		for names, err := range s.client.store.Services(ctx) {
			if err == nil {
				err = checkServices(names)
			}
			if err != nil {
				yield(Batch{}, err)
				return
			}
			b := Batch{Snapshot: true, Put: make([]Endpoint, 0, len(names))}
			for _, name := range names {
				b.Put = append(b.Put, Endpoint{ID: name})
			}
			if !yield(b, nil) {
				return
			}
		}
	}
}

// run keeps the subject watched until the watch is dropped or the Client is closed.
func (s *shared) run() {
	defer s.finish()
	if s.after != nil {
		<-s.after // so that hooks are called in the order of the events
	}
	if s.client.composite != nil {
		s.follow()
		return
	}
	for {
		begun := time.Now()
		err := s.watch()
		if s.ctx.Err() != nil {
			return
		}
		if err == errResyncDue {
			continue
		}
		if !s.pause(s.fail(err), begun) {
			return
		}
	}
}

// watch ranges over one watch of the store until it ends, and returns its error.
func (s *shared) watch() error {
	ctx, cancel := s.ctx, context.CancelCauseFunc(nil)
	if s.client.resyncEvery > 0 { // otherwise the context would cost memory for each service
		ctx, cancel = context.WithCancelCause(ctx)
		defer cancel(nil)
	}
	begun := time.Now()
	s.beginWatch()
	first := true
	for b, err := range s.source(ctx) {
		if err != nil {
			if context.Cause(ctx) == errResyncDue {
				err = errResyncDue
			}
			return err
		}
		if first && !b.Snapshot {
			return errNoSnapshot
		}
		if err := s.apply(b, first, begun); err != nil {
			return err
		}
		if first && cancel != nil {
			t := time.AfterFunc(jitter(s.client.resyncEvery), func() { cancel(errResyncDue) })
			context.AfterFunc(ctx, func() { t.Stop() }) // a defer in the loop would be kept, too
		}
		first = false
	}
	return errSilentEnd
}

func (s *shared) beginWatch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.health.live = false
}

// apply applies a batch to the set and publishes the changes to the readers. first says
// that the batch is the first of a watch, which began at begun. A batch that breaks the
// contract changes nothing, and apply returns an error.
func (s *shared) apply(b Batch, first bool, begun time.Time) error {
	if err := b.check(); err != nil {
		return err
	}
	wakes, err := s.update(b, first, begun)
	for _, wake := range wakes {
		wake()
	}
	s.calls.run()
	if first && err == nil {
		s.client.wakeRetries()
	}
	return err
}

// update is apply without calls of the program's functions. It returns the functions
// of the followers to call, and adds the other calls to the queue.
func (s *shared) update(b Batch, first bool, begun time.Time) (wakes []func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil
	}
	if err := s.set.checkBatch(b); err != nil {
		return nil, err
	}
	was, wasLive := s.status, s.isLive()
	if first {
		s.begun, s.health.live = begun, true
	}
	changes, began, ceased := s.applyToSet(b)
	s.status.Synced = true
	if !was.Synced || !was.Stale() {
		s.status.AsOf = time.Now()
	}
	s.awaitProof()
	fresh := s.endStaleness()
	held := s.trackLosses(changes)

	if first && was.Synced {
		s.queueResynced(len(changes))
	}
	s.queueHeld(held)
	s.queueWithheld(began, ceased)

	statusChanged := !was.Synced || fresh || !held.empty()
	if statusChanged {
		s.statuses++
	}
	if statusChanged || len(changes) > 0 {
		wakes = s.publish(changes)
	} else if s.set.flagged || !wasLive {
		// Readers have no event. But registrations look at the flags, and Current returns
		// whether the set is live.
		wakes = s.cursors.wakeFuncs()
	}
	s.set.flagged = false
	return wakes, nil
}

// applyToSet applies a batch to the set. It returns the changes, and the endpoints that
// the registry began and ceased to withhold. mu is held.
func (s *shared) applyToSet(b Batch) (changes []change, began, ceased []Withheld) {
	switch {
	case !b.Snapshot:
		changes = s.set.applyChanges(b)
	case s.status.Synced:
		changes = s.set.applySnapshot(b)
	default:
		s.set.applyFirstSnapshot(b, s.chain.tail)
		return nil, b.Withheld, nil
	}
	began, ceased = withheldBy(changes)
	return changes, began, ceased
}

// publish appends a step to the chain, which wakes the readers. It returns the
// functions of the followers, which the caller calls without the lock. mu is held.
func (s *shared) publish(changes []change) (wakes []func()) {
	at := s.chain.append(changes)
	if len(changes) == 0 {
		s.set.skipEmptyStep(at, s.chain.tail)
	}
	if s.chain.length > 2*len(s.set.entries)+64 {
		s.sweep()
	}
	return s.cursors.wakeFuncs()
}

// sweep releases the chain: it moves every reader to the end of the chain. A slow
// reader then holds the net changes since its last read only. mu is held.
func (s *shared) sweep() {
	s.chain.length = 0
	for _, c := range s.cursors.list {
		c.catchUp()
	}
	s.set.releaseChain(s.chain.tail)
}

// queueResynced adds the call of the hook. mu is held.
func (s *shared) queueResynced(changed int) {
	if f := s.client.hooks.Resynced; f != nil {
		info := ResyncedInfo{Service: s.subject.service, Changed: changed}
		s.calls.add(func() { f(info) })
	}
}

// queueWithheld adds the log record and the call of the hook about withheld endpoints.
// mu is held.
func (s *shared) queueWithheld(began, ceased []Withheld) {
	if len(began)+len(ceased) == 0 {
		return
	}
	attrs := []any{s.subject.attr(), slog.Int("began", len(began)), slog.Int("ceased", len(ceased)), slog.Int("withheld", s.set.withheld)}
	if len(began) > 0 {
		w := began[0]
		attrs = append(attrs, slog.String("endpoint", SafeText(w.Endpoint.ID)), slog.String("reason", w.Reason.String()), slog.String("detail", w.Detail))
	}
	s.calls.add(func() {
		s.client.log.Info("naming: the registry changed which endpoints it withholds", attrs...)
		if f := s.client.hooks.Withheld; f != nil {
			f(WithheldInfo{Service: s.subject.service, Began: began, Ceased: ceased})
		}
	})
}

// closeReaders says to the readers that the Client was closed.
func (s *shared) closeReaders() {
	for _, wake := range s.setClosed() {
		wake()
	}
}

func (s *shared) setClosed() (wakes []func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.holder.stopTimer()
	s.health.stopProof()
	s.wasStale = s.status.Stale()
	if !s.wasStale {
		s.status.StaleSince = time.Now()
	}
	s.status.Err = ErrClientClosed
	s.statuses++
	for _, c := range s.cursors.list {
		c.finish()
	}
	return s.publish(nil)
}

// finish is called when the watch has ended. It calls the hooks for endpoints that were
// stale, held or withheld: they cease to be, because the service is not watched. It
// returns when all hooks have returned.
func (s *shared) finish() {
	s.queueEnd()
	s.calls.run()
	<-s.calls.whenIdle()
	c := s.client
	c.state.mu.Lock()
	defer c.state.mu.Unlock()
	if c.state.ending[s.subject] == s {
		delete(c.state.ending, s.subject)
	}
	if s.usage.done != nil {
		close(s.usage.done)
	}
}

func (s *shared) queueEnd() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holder.stopTimer() // after the last batch, which may have started the timer again
	hooks, service := &s.client.hooks, s.subject.service
	if held := s.holder.held.endpoints(); len(held) > 0 && hooks.Released != nil {
		s.calls.add(func() { hooks.Released(ReleasedInfo{Service: service, Endpoints: held, Back: false}) })
	}
	if s.set.withheld > 0 && hooks.Withheld != nil {
		withheld := s.view().Withheld
		s.calls.add(func() { hooks.Withheld(WithheldInfo{Service: service, Ceased: withheld}) })
	}
	if stale := s.status.Stale() && !s.closed || s.wasStale; stale && hooks.Stale != nil {
		s.calls.add(func() { hooks.Stale(StaleInfo{Service: service}) })
	}
	s.health.stopProof()
	s.countFailing(false)
}
