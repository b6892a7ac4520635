package naming

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// errResyncDue ends a watch that is to be replaced; it is no failure.
var errResyncDue = errors.New("periodic full read")

// entry is an endpoint as all readers share it. It is never modified. The
// Endpoint is where the store's batch has it.
type entry struct {
	*Endpoint
	withheld *Withheld // nil: may be used
	decoded  atomic.Pointer[any]
}

// usable returns e, or nil if e is nil or withheld.
func (e *entry) usable() *entry {
	if e == nil || e.withheld != nil {
		return nil
	}
	return e
}

// metadata returns the entry's metadata as encoding/json decodes it. The first
// reader pays for it.
func (e *entry) metadata() any {
	if e.Metadata == nil {
		return nil
	}
	if p := e.decoded.Load(); p != nil {
		return *p
	}
	var v any
	if json.Unmarshal(e.Metadata, &v) != nil {
		v, _ = decodeJSON(e.Metadata) // a number too large for a float64
	}
	e.decoded.Store(&v)
	return v
}

// change is what became of one endpoint: old is nil if it is new, and new is
// nil if it is gone. Both are never nil, and never equal. Either may be
// withheld.
type change struct {
	old, new *entry
	// missed says that the endpoint is gone because the first snapshot of a
	// watch does not have it. A put that ended after that watch had begun may
	// be newer than the snapshot.
	missed bool
}

// usable returns the change as a reader sees it that knows of no endpoints but
// those to be used. Both of its ends are nil if this reader sees no difference.
func (c change) usable() change {
	c.old, c.new = c.old.usable(), c.new.usable()
	return c
}

func (c change) id() string {
	if c.new != nil {
		return c.new.ID
	}
	return c.old.ID
}

// diff is what became of endpoints over several steps, by ID.
type diff map[string]change

func (n diff) add(changes []change) {
	for _, c := range changes {
		id := c.id()
		if before, ok := n[id]; ok {
			c.old = before.old
		}
		if sameEntry(c.old, c.new) {
			delete(n, id)
		} else {
			n[id] = c
		}
	}
}

func (n diff) sorted() []change {
	return slices.SortedFunc(maps.Values(n), compareChanges)
}

func compareChanges(a, b change) int { return strings.Compare(a.id(), b.id()) }

func compareEntries(a, b *entry) int { return strings.Compare(a.ID, b.ID) }

func sameEntry(a, b *entry) bool {
	return a == b || a != nil && b != nil && a.Equal(*b.Endpoint) && sameWithheld(a.withheld, b.withheld)
}

// sameFlags reports whether a Store says the same of how two equal entries are kept.
func sameFlags(a, b *entry) bool { return a.NoDrain == b.NoDrain && a.Unleased == b.Unleased }

func sameWithheld(a, b *Withheld) bool {
	return a == b || a != nil && b != nil && a.Reason == b.Reason && a.Detail == b.Detail
}

// step is one link of a chain that the shared watch appends to and any number
// of readers walk, each at its own pace and without the watch's lock: a step is
// complete when ready is closed, and never modified afterwards. Whoever holds a
// step holds all that follow it, so readers that fell behind are moved to the
// end of the chain from time to time (shared.sweep), and the garbage collector
// does the rest.
type step struct {
	ready   chan struct{} // closed when changes and next are set
	changes []change      // sorted by ID, each ID once; empty if only the status changed
	next    *step
}

func newStep() *step { return &step{ready: make(chan struct{})} }

// after returns the step that follows t, nil if there is none yet.
func (t *step) after() *step {
	select {
	case <-t.ready:
		return t.next
	default:
		return nil
	}
}

// shared is the one watch of a service in a Client. Its goroutine ranges over
// the store's watch, folds what that yields into the set, and appends what
// changed to the chain. The cost of a change does not depend on how many
// endpoints there are, and of readers it only wakes them.
//
// What is called of programs, such as hooks, loggers, the functions of followers
// and the methods of errors and contexts, is called without a lock: wakes are
// returned to the function that took the lock, and the rest is noted for flush.
type shared struct {
	client  *Client
	subject subject
	ctx     context.Context // done when the watch was dropped or the Client closed
	cancel  context.CancelFunc
	after   <-chan struct{} // nil, or closed when the watch before this one has ended

	// Guarded by Client.mu.
	done    chan struct{} // nil until another watch waits for it; closed when run has ended
	readers int
	linger  *time.Timer // not nil: there are no readers, and this will drop the watch

	// Guarded by mu, which is taken before a cursor's own.
	mu       sync.Mutex
	set      map[string]*entry // by ID
	withheld int               // how many of the set are withheld
	begun    time.Time         // when the watch began that the set comes from
	status   Status            // but for Held: see present
	errText  string            // of status.Err
	statuses int               // counts the changes of status but for AsOf
	ended    bool              // the Client was closed
	wasStale bool              // it was stale when the Client was closed
	tail     *step             // the step to be filled next
	version  int               // counts the steps
	length   int               // changes and steps in the chain since the last sweep
	cursors  []*cursor         // each knows its index
	hurry    chan struct{}     // nil, or capacity 1: in a pause, holds a token when a reader asks for another try
	holder   holder
	row      row           // of failed tries
	readAt   time.Time     // of the first snapshot since the last failure; zero if there is none
	live     bool          // the present watch has had its snapshot
	proof    *time.Timer   // not nil: will call prove
	wakes    []func()      // of the followers; the slice is replaced, never modified
	wakesOld bool          // wakes is to be made anew
	flagged  bool          // how an entry is kept has changed, and the followers were not woken since
	notes    []func()      // to be called by flush
	flushing bool          // a goroutine is in flush
	flushed  chan struct{} // nil, or closed when flush has called everything

	// The set in order as it was before step orderAt, and in the form of a
	// View as it was before step viewAt; nil until a reader asks. The slices
	// are never modified.
	order          []*entry
	orderAt        *step
	viewed         []Endpoint
	viewedWithheld []Withheld
	viewAt         *step
}

func (c *Client) newShared(sub subject) *shared {
	s := &shared{
		client:  c,
		subject: sub,
		set:     make(map[string]*entry),
		tail:    newStep(),
	}
	s.ctx, s.cancel = context.WithCancel(c.ctx)
	return s
}

// source returns a watch of the store. A list of services is a snapshot whose
// endpoints have nothing but an ID.
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

// run keeps the subject watched until the watch is dropped or the Client is
// closed.
func (s *shared) run() {
	defer s.settle()
	if s.after != nil {
		<-s.after // so that the hooks are told things in their order
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

// A watch that failed is stale until a later one has proved itself: a snapshot
// proves that the registry can be read, not that it can be watched. A watch has
// proved itself when it has lived for firstProof after its snapshot. Each failed
// try since one that lived for healthyAfter doubles that time, up to healthyAfter.
const firstProof = time.Second

// row is a row of failed tries of one watch. It ends with a watch that lives for
// healthyAfter.
type row struct {
	failures int
	futile   int  // tries that got a full read and did not last, about, since the last proof
	woken    int  // rests that a success ended, since the last proof
	counted  bool // in rests.failing
}

// proof returns how long a watch lives before it has proved itself.
func (r row) proof() time.Duration {
	return min(firstProof<<min(max(r.failures, 1)-1, 10), healthyAfter)
}

// rest returns for how long to wait before the next try: full jitter as in
// backoff, from a start that grows with the number of the Client's watches that
// fail, so that many do not read at the pace at which one may.
func (r row) rest(failing int) time.Duration {
	start := min(minBackoff*time.Duration(max(failing, 1)), maxBackoff)
	return rand.N(min(start<<min(max(r.failures, 1)-1, 16), maxBackoff)) + 1
}

// rests wakes the watches of a Client that wait to be tried again, when a call
// succeeds. The zero value is ready to use.
type rests struct {
	failing atomic.Int64 // watches that failed and have not proved themselves since
	resting atomic.Int64

	mu   sync.Mutex
	back chan struct{} // closed, and replaced, by wake; nil until needed
}

// next returns a channel that is closed when a call succeeds.
func (r *rests) next() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.back == nil {
		r.back = make(chan struct{})
	}
	return r.back
}

func (r *rests) wake() {
	if r.resting.Load() == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.back != nil {
		close(r.back)
		r.back = nil
	}
}

// proved says that the registry answered: a call of the store succeeded, or a watch
// had a snapshot. Watches that wait to be tried again are, a second after their
// last try. Each of them is woken after twice the time if the try was in vain, up
// to the longest wait there is, until it has proved itself: so calls that succeed
// while watches fail make no storm. It does not block and may be called from
// anywhere.
func (c *Client) proved() { c.rests.wake() }

// answered calls proved if a call of the store succeeded, and returns its error.
func (c *Client) answered(err error) error {
	if err == nil {
		c.proved()
	}
	return err
}

// The pace at which a failed watch is tried again because a reader is in a hurry
// or a call succeeded, and the jitter of it: so much, and wakeSpread more for each
// watch that waits.
const (
	hurryInterval = time.Second
	hurryJitter   = 100 * time.Millisecond
	wakeSpread    = 2 * time.Millisecond
)

// pause waits for d, or until a reader is in a hurry or a call succeeds, and the
// last try, which began at begun, is long enough ago. It reports false if the
// watch is to end.
func (s *shared) pause(d time.Duration, begun time.Time) bool {
	hurry := make(chan struct{}, 1)
	row := s.rest(hurry)
	defer s.rest(nil)
	rests := &s.client.rests
	resting := rests.resting.Add(1)
	defer rests.resting.Add(-1)
	back := rests.next()
	due := time.Now().Add(d)
	t := time.NewTimer(d)
	defer t.Stop()
	// sooner moves the next try forward, and reports whether it did.
	sooner := func(doublings int) bool {
		interval := min(hurryInterval<<min(doublings, 10), maxBackoff)
		soon := begun.Add(interval)
		if now := time.Now(); soon.Before(now) {
			soon = now
		}
		soon = soon.Add(rand.N(hurryJitter + wakeSpread*time.Duration(resting)))
		if !soon.Before(due) {
			return false
		}
		due = soon
		t.Reset(time.Until(due))
		return true
	}
	for {
		select {
		case <-t.C:
			return true
		case <-s.ctx.Done():
			return false
		case <-hurry:
			hurry = nil
			sooner(row.futile)
		case <-back:
			back = nil
			if sooner(row.woken) {
				s.woken()
			}
		}
	}
}

// rest begins a pause, in which readers in a hurry send to hurry, or ends it with
// nil.
func (s *shared) rest(hurry chan struct{}) row {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hurry = hurry
	return s.row
}

func (s *shared) woken() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.row.woken++
}

// settle tells the hooks that what was stale, held or withheld is not any more, as
// nobody watches it. It returns when all hooks have been called.
func (s *shared) settle() {
	s.noteEnd()
	s.flush()
	<-s.silent()
	c := s.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending[s.subject] == s {
		delete(c.ending, s.subject)
	}
	if s.done != nil {
		close(s.done)
	}
}

func (s *shared) noteEnd() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holder.stop() // after the last batch, which may have begun the time again
	hooks, service := &s.client.hooks, s.subject.service
	if held := s.holder.held.endpoints(); len(held) > 0 && hooks.Released != nil {
		s.note(func() { hooks.Released(ReleasedInfo{Service: service, Endpoints: held, Back: false}) })
	}
	if s.withheld > 0 && hooks.Withheld != nil {
		withheld := s.view().Withheld
		s.note(func() { hooks.Withheld(WithheldInfo{Service: service, Ceased: withheld}) })
	}
	if stale := s.status.Stale() && !s.ended || s.wasStale; stale && hooks.Stale != nil {
		s.note(func() { hooks.Stale(StaleInfo{Service: service}) })
	}
	s.stopProof()
	s.countFailing(false)
}

// note has flush call f, without the lock and after all that was noted before.
// s.mu is held.
func (s *shared) note(f func()) { s.notes = append(s.notes, f) }

// flush calls what was noted, in its order. If another goroutine is in flush, it
// calls this as well, and flush returns at once.
func (s *shared) flush() {
	if !s.enterFlush() {
		return
	}
	left := false
	defer func() {
		if !left { // a program recovers from the panic of its hook
			s.leaveFlush()
		}
	}()
	for {
		f := s.nextNote()
		if f == nil {
			left = true
			return
		}
		f()
	}
}

func (s *shared) enterFlush() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flushing || len(s.notes) == 0 {
		return false
	}
	s.flushing = true
	return true
}

// nextNote returns the next note, or leaves flush and returns nil.
func (s *shared) nextNote() func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.notes) == 0 {
		s.notes = nil
		s.stopFlushing()
		return nil
	}
	f := s.notes[0]
	s.notes = s.notes[1:]
	return f
}

func (s *shared) leaveFlush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopFlushing()
}

// stopFlushing notes that no goroutine is in flush. s.mu is held.
func (s *shared) stopFlushing() {
	s.flushing = false
	if s.flushed != nil {
		close(s.flushed)
		s.flushed = nil
	}
}

// silent returns a channel that is closed when no goroutine is in flush.
func (s *shared) silent() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	done := make(chan struct{})
	if s.flushing {
		s.flushed = done
	} else {
		close(done)
	}
	return done
}

// sleep waits for d and reports true, or for ctx to be done and reports false.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// watch ranges over one watch of the store until it ends, and returns why.
func (s *shared) watch() error {
	ctx, cancel := s.ctx, context.CancelCauseFunc(nil)
	if s.client.resyncEvery > 0 { // else it would be some bytes of each service for nothing
		ctx, cancel = context.WithCancelCause(ctx)
		defer cancel(nil)
	}
	begun := time.Now()
	s.begin()
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
			context.AfterFunc(ctx, func() { t.Stop() }) // a defer would be kept, too
		}
		first = false
	}
	return errSilentEnd
}

// begin notes that a watch begins.
func (s *shared) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = false
}

// apply applies a batch to the set and tells the readers what changed. first says
// that it is the first batch of a watch, which began at begun. A batch that breaks
// the contract changes nothing, and is an error.
func (s *shared) apply(b Batch, first bool, begun time.Time) error {
	if err := b.check(); err != nil {
		return err
	}
	wakes, err := s.update(b, first, begun)
	for _, wake := range wakes {
		wake()
	}
	s.flush()
	if first && err == nil {
		s.client.proved()
	}
	return err
}

// update is apply without the calls of others' functions: it returns those of the
// followers, and notes the rest.
func (s *shared) update(b Batch, first bool, begun time.Time) (wakes []func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil, nil
	}
	if n := s.sizeAfter(b); n > MaxEndpoints {
		return nil, errTooMany("endpoints", n, MaxEndpoints)
	}
	if len(b.Deleted) > 0 && b.Deleted[0] == "" && s.set[""] == nil {
		return nil, errBroken("a deletion with an empty ID, which no endpoint has")
	}
	if first {
		s.begun, s.live = begun, true
	}
	was := s.status
	began := b.Withheld // if it is the first snapshot
	var ceased []Withheld
	var changes []change
	switch {
	case !b.Snapshot:
		changes = s.fold(b)
		began, ceased = withheldBy(changes)
	case was.Synced:
		changes = s.replace(b, first)
		began, ceased = withheldBy(changes)
	default:
		s.take(b) // the readers, who know nothing yet, take the whole set
	}
	s.status.Synced = true
	if !was.Synced || !was.Stale() {
		s.status.AsOf = time.Now()
	}
	s.awaitProof()
	fresh := s.isProved() // and was stale
	if fresh {
		s.setFresh()
	}
	held := s.noteLosses(changes)
	if !was.Synced || fresh || !held.empty() {
		s.statuses++
	}

	hooks, service := &s.client.hooks, s.subject.service
	if first && was.Synced && hooks.Resynced != nil {
		n := len(changes)
		s.note(func() { hooks.Resynced(ResyncedInfo{Service: service, Changed: n}) })
	}
	s.noteHeld(held)
	s.noteWithheld(began, ceased)
	if !was.Synced || fresh || !held.empty() || len(changes) > 0 {
		wakes = s.publish(changes)
	} else if s.flagged {
		wakes = s.followers() // no news to readers, but registrations look at it
	}
	s.flagged = false
	return wakes, nil
}

// sizeAfter returns how large the set would be after a batch, or a number that is
// not too large if that is not. s.mu is held.
func (s *shared) sizeAfter(b Batch) int {
	n := len(b.Put) + len(b.Withheld)
	if b.Snapshot || len(s.set)+n <= MaxEndpoints {
		return n
	}
	n = len(s.set)
	for i := range b.Put {
		if s.set[b.Put[i].ID] == nil {
			n++
		}
	}
	for i := range b.Withheld {
		if s.set[b.Withheld[i].Endpoint.ID] == nil {
			n++
		}
	}
	for _, id := range b.Deleted {
		if s.set[id] != nil {
			n--
		}
	}
	return n
}

// awaitProof notes that there is a snapshot, and has prove called in due time if the
// set is stale. s.mu is held.
func (s *shared) awaitProof() {
	if !s.readAt.IsZero() {
		return
	}
	s.readAt = time.Now()
	if s.status.Stale() {
		s.proof = time.AfterFunc(s.row.proof(), s.prove)
	}
}

// stopProof stops the timer. s.mu is held.
func (s *shared) stopProof() {
	if s.proof != nil {
		s.proof.Stop()
		s.proof = nil
	}
}

// isProved reports whether the set is stale, and need not be any longer. s.mu is
// held.
func (s *shared) isProved() bool {
	return s.status.Stale() && s.live && !s.readAt.IsZero() && time.Since(s.readAt) >= s.row.proof()
}

// prove ends staleness when a watch has proved itself.
func (s *shared) prove() {
	for _, wake := range s.noteProof() {
		wake()
	}
	s.flush()
}

func (s *shared) noteProof() (wakes []func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.ctx.Err() != nil || !s.isProved() {
		return nil // if the watch is being replaced, the next snapshot ends it
	}
	s.setFresh()
	s.statuses++
	return s.publish(nil)
}

// countFailing keeps the number of the Client's watches that fail. s.mu is held.
func (s *shared) countFailing(failing bool) {
	if s.row.counted == failing {
		return
	}
	s.row.counted = failing
	if failing {
		s.client.rests.failing.Add(1)
	} else {
		s.client.rests.failing.Add(-1)
	}
}

// setFresh notes that the set, which was stale, is not any more. s.mu is held.
func (s *shared) setFresh() {
	stale, size := time.Since(s.status.StaleSince), len(s.set)
	s.status = Status{Synced: true, AsOf: time.Now()}
	s.row.futile, s.row.woken = 0, 0
	s.stopProof()
	s.countFailing(false)
	s.note(func() {
		s.client.log.Info("naming: fresh again", s.subject.attr(),
			slog.Duration("stale", stale), slog.Int("endpoints", size))
		if f := s.client.hooks.Stale; f != nil {
			f(StaleInfo{Service: s.subject.service})
		}
	})
}

// withheldBy returns the endpoints that changes say are withheld from now on, and
// those that are not any more.
func withheldBy(changes []change) (began, ceased []Withheld) {
	reason := func(e *entry) Reason {
		if e == nil || e.withheld == nil {
			return 0
		}
		if e.withheld.Reason == FailedCheck {
			return FailedCheck
		}
		return Maintenance
	}
	for _, c := range changes {
		before, now := reason(c.old), reason(c.new)
		if before == now {
			continue
		}
		if now != 0 {
			began = append(began, *c.new.withheld)
		}
		if before != 0 {
			ceased = append(ceased, *c.old.withheld)
		}
	}
	return began, ceased
}

// noteWithheld notes which endpoints the registry says not to use from now on, and
// which it says so of no longer. s.mu is held.
func (s *shared) noteWithheld(began, ceased []Withheld) {
	if len(began)+len(ceased) == 0 {
		return
	}
	attrs := []any{s.subject.attr(), slog.Int("began", len(began)), slog.Int("ceased", len(ceased)), slog.Int("withheld", s.withheld)}
	if len(began) > 0 {
		w := began[0]
		attrs = append(attrs, slog.String("endpoint", SafeText(w.Endpoint.ID)), slog.String("reason", w.Reason.String()), slog.String("detail", w.Detail))
	}
	s.note(func() {
		s.client.log.Info("naming: the registry says which endpoints not to use", attrs...)
		if f := s.client.hooks.Withheld; f != nil {
			f(WithheldInfo{Service: s.subject.service, Began: began, Ceased: ceased})
		}
	})
}

// fail notes that the watch failed, and returns how long to wait before the next
// try. The set stays as it is: stale beats empty.
func (s *shared) fail(err error) time.Duration {
	err = SafeError(err)
	wakes, rest := s.noteFailure(err, err.Error())
	for _, wake := range wakes {
		wake()
	}
	s.flush()
	return rest
}

func (s *shared) noteFailure(err error, text string) (wakes []func(), rest time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil, 0
	}
	first := !s.status.Stale()
	if !s.readAt.IsZero() {
		if time.Since(s.readAt) >= healthyAfter {
			s.row.failures = 0
		}
		if !first || time.Since(s.readAt) < healthyAfter {
			s.row.futile++
		}
	} else {
		s.row.futile /= 2 // the registry cannot be read: a try costs little
	}
	s.row.failures++
	s.readAt = time.Time{}
	s.stopProof()
	s.countFailing(true)
	rest = s.row.rest(int(s.client.rests.failing.Load()))
	again := !first && s.errText == text
	if first {
		s.status.StaleSince = time.Now()
	}
	s.status.Err, s.errText = err, text
	since, size := s.status.StaleSince, len(s.set)
	level := slog.LevelDebug
	if first {
		level = slog.LevelWarn
	}
	s.note(func() {
		s.client.log.Log(context.Background(), level, "naming: watch failed, will be tried again",
			s.subject.attr(), slog.Any("err", err), slog.Int("endpoints kept", size))
		hooks := &s.client.hooks
		if hooks.WatchFailed != nil {
			hooks.WatchFailed(WatchFailedInfo{Service: s.subject.service, Err: err})
		}
		if first && hooks.Stale != nil {
			hooks.Stale(StaleInfo{Service: s.subject.service, Since: since})
		}
	})
	if again {
		return nil, rest // nothing has changed
	}
	s.statuses++
	return s.publish(nil), rest
}

// end tells the readers that the Client was closed.
func (s *shared) end() {
	for _, wake := range s.noteClosed() {
		wake()
	}
}

func (s *shared) noteClosed() (wakes []func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.holder.stop()
	s.stopProof()
	s.wasStale = s.status.Stale()
	if !s.wasStale {
		s.status.StaleSince = time.Now()
	}
	s.status.Err = ErrClientClosed
	s.statuses++
	for _, c := range s.cursors {
		c.finish()
	}
	return s.publish(nil)
}

// take makes the endpoints of a first snapshot the set. The lists of the snapshot
// also are the present View. s.mu is held.
func (s *shared) take(b Batch) {
	if b.Put == nil {
		b.Put = []Endpoint{}
	}
	s.set = make(map[string]*entry, len(b.Put)+len(b.Withheld))
	order := make([]*entry, 0, len(b.Put)+len(b.Withheld))
	put, withheld := b.entries()
	for i := range put {
		order = append(order, &put[i])
		s.set[put[i].ID] = &put[i]
	}
	for i := range withheld {
		order = append(order, &withheld[i])
		s.set[withheld[i].ID] = &withheld[i]
	}
	if len(withheld) > 0 {
		slices.SortFunc(order, compareEntries)
	}
	s.withheld = len(withheld)
	s.order, s.orderAt = order, s.tail
	s.viewed, s.viewedWithheld, s.viewAt = slices.Clip(b.Put), slices.Clip(b.Withheld), s.tail
}

// fold applies a batch of changes to the set and returns the changes that had an
// effect. s.mu is held.
func (s *shared) fold(b Batch) []change {
	changes := make([]change, 0, len(b.Deleted)+len(b.Put)+len(b.Withheld))
	for _, id := range b.Deleted {
		if old := s.set[id]; old != nil {
			delete(s.set, id)
			changes = append(changes, change{old: old})
		}
	}
	put, withheld := b.entries()
	for _, list := range [][]entry{put, withheld} {
		for i := range list {
			e := &list[i]
			if old := s.set[e.ID]; !sameEntry(old, e) {
				s.set[e.ID] = e
				changes = append(changes, change{old: old, new: e})
			} else if !sameFlags(old, e) {
				s.set[e.ID] = e // no news, but hold or a registration has to know
				s.setFlagged()
			}
		}
	}
	s.count(changes)
	return changes
}

// replace makes the endpoints of a snapshot the set, and returns the difference.
// first says that it is the first snapshot of a watch. s.mu is held.
func (s *shared) replace(b Batch, first bool) []change {
	var changes []change
	set := make(map[string]*entry, len(b.Put)+len(b.Withheld))
	put, withheld := b.entries()
	for _, list := range [][]entry{put, withheld} {
		for i := range list {
			e := &list[i]
			old := s.set[e.ID]
			if !sameEntry(old, e) {
				changes = append(changes, change{old: old, new: e})
			} else if sameFlags(old, e) {
				e = old
			} else {
				s.setFlagged()
			}
			set[e.ID] = e
		}
	}
	for id, old := range s.set {
		if set[id] == nil {
			changes = append(changes, change{old: old, missed: first})
		}
	}
	s.set = set
	s.count(changes)
	return changes
}

// setFlagged notes that the flags of an entry changed, and drops the order and the
// View, which have the old flags. s.mu is held.
func (s *shared) setFlagged() {
	s.flagged = true
	s.order, s.orderAt = nil, nil
	s.viewed, s.viewedWithheld, s.viewAt = nil, nil, nil
}

// count keeps the number of the withheld endpoints, and sorts changes, which were
// made to the set. s.mu is held.
func (s *shared) count(changes []change) {
	for _, c := range changes {
		if c.old != nil && c.old.withheld != nil {
			s.withheld--
		}
		if c.new != nil && c.new.withheld != nil {
			s.withheld++
		}
	}
	if !slices.IsSortedFunc(changes, compareChanges) {
		slices.SortFunc(changes, compareChanges)
	}
}

// entries returns the entries of the endpoints of a batch. The endpoints stay
// where they are: a batch belongs to its receiver.
func (b Batch) entries() (put, withheld []entry) {
	put, withheld = make([]entry, len(b.Put)), make([]entry, len(b.Withheld))
	for i := range put {
		put[i].Endpoint = &b.Put[i]
	}
	for i := range withheld {
		w := &b.Withheld[i]
		withheld[i].Endpoint, withheld[i].withheld = &w.Endpoint, w
	}
	return put, withheld
}

// publish appends a step to the chain, which wakes the readers, and returns the
// functions of the followers, which the caller calls without the lock. s.mu is
// held.
func (s *shared) publish(changes []change) (wakes []func()) {
	t := s.tail
	t.changes, t.next = changes, newStep()
	s.tail = t.next
	if len(changes) == 0 && s.viewAt == t {
		s.viewAt = s.tail // only the status changed
	}
	s.version++
	close(t.ready)
	s.length += len(changes) + 1
	if s.length > 2*len(s.set)+64 {
		s.sweep()
	}
	return s.followers()
}

// followers returns the functions that wake the followers. s.mu is held.
func (s *shared) followers() []func() {
	if s.wakesOld {
		s.setWakes()
	}
	return s.wakes
}

// sweep lets go of the chain: it moves every reader to the end of it, so that
// a slow one holds no more than the difference between what it was told and
// what there is. s.mu is held.
func (s *shared) sweep() {
	s.length = 0
	for _, c := range s.cursors {
		c.catchUp()
	}
	if s.orderAt != s.tail {
		s.order, s.orderAt = nil, nil
	}
	if s.viewAt != s.tail {
		s.viewed, s.viewedWithheld, s.viewAt = nil, nil, nil
	}
}

// presence is what a watch knows of one endpoint.
type presence struct {
	// known says that the watch vouches for the rest: it has had a snapshot,
	// and is not stale.
	known bool
	// there says that the registry has the endpoint, be it withheld or not.
	there bool
	// endpoint is the endpoint as the watch showed it last, nil if there is
	// none. It must not be modified.
	endpoint *Endpoint
	// withheld is why the endpoint is not to be used, nil if it may be used. It
	// must not be modified.
	withheld *Withheld
	// begun is when the present watch began, which is before its first read. A
	// set without the endpoint proves that the endpoint was deleted after a put
	// only if the put had ended by then, or if the watch has shown the put:
	// the snapshot of a watch that began earlier may be older than the put.
	// See change.missed.
	begun time.Time
}

// has returns what the watch knows of the endpoint id.
func (s *shared) has(id string) presence {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := presence{known: s.status.Synced && !s.status.Stale(), begun: s.begun}
	if e := s.set[id]; e != nil {
		p.there, p.endpoint, p.withheld = true, e.Endpoint, e.withheld
	}
	return p
}

// ordered returns the set sorted by ID. The slice must not be modified. s.mu is
// held.
func (s *shared) ordered() []*entry {
	switch {
	case s.order == nil:
		s.order = slices.AppendSeq(make([]*entry, 0, len(s.set)), maps.Values(s.set))
		slices.SortFunc(s.order, compareEntries)
	case s.orderAt != s.tail:
		n := make(diff)
		for t := s.orderAt; t != s.tail; t = t.next {
			n.add(t.changes)
		}
		s.order = merge(s.order, n.sorted())
	}
	s.orderAt = s.tail
	return s.order
}

// merge returns order with changes made to it. Both are sorted.
func merge(order []*entry, changes []change) []*entry {
	if len(changes) == 0 {
		return order
	}
	merged := make([]*entry, 0, len(order)+len(changes))
	for _, c := range changes {
		i, found := slices.BinarySearchFunc(order, c.id(), func(e *entry, id string) int { return strings.Compare(e.ID, id) })
		merged = append(merged, order[:i]...)
		if found {
			i++
		}
		order = order[i:]
		if c.new != nil {
			merged = append(merged, c.new)
		}
	}
	return append(merged, order...)
}

// view returns the present View. s.mu is held.
func (s *shared) view() View {
	if s.viewAt != s.tail {
		order := s.ordered()
		s.viewed = make([]Endpoint, 0, len(order)-s.withheld)
		s.viewedWithheld = nil
		if s.withheld > 0 {
			s.viewedWithheld = make([]Withheld, 0, s.withheld)
		}
		for _, e := range order {
			if e.withheld == nil {
				s.viewed = append(s.viewed, *e.Endpoint)
			} else {
				s.viewedWithheld = append(s.viewedWithheld, *e.withheld)
			}
		}
		s.viewAt = s.tail
	}
	return View{Service: s.subject.service, Endpoints: s.viewed, Withheld: s.viewedWithheld, Status: s.present()}
}

// present returns the present Status. s.mu is held.
func (s *shared) present() Status {
	status := s.status
	status.Held = s.holder.held.endpoints()
	return status
}

// each calls prepare with s.mu held and then visit without it, once the set is
// known and again after every step, or after the newest of several. It returns
// nil when visit returns false.
func (s *shared) each(ctx context.Context, prepare func(), visit func() bool) error {
	for seen := -1; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		now := s.since(seen, prepare)
		if now.news {
			seen = now.version
			if !visit() {
				return nil
			}
			continue
		}
		if now.ended {
			return ErrClientClosed
		}
		select {
		case <-now.more:
		case <-ctx.Done():
		}
	}
}

// moment is what since found.
type moment struct {
	news    bool
	version int
	more    <-chan struct{} // nil if there is news, which may take the reader long; else closed when there is
	ended   bool
}

// since calls prepare, which must not call others' functions, if there is news
// since version seen.
func (s *shared) since(seen int, prepare func()) moment {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := moment{version: s.version, ended: s.ended}
	if s.status.Synced && s.version != seen && !s.ended {
		m.news = true
		prepare()
	} else {
		m.more = s.tail.ready
	}
	return m
}
