package naming

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// How a Store breaks its contract. It is watched again, as after any failure.
var (
	errNoSnapshot = errors.New("the store broke its contract: a watch began without a snapshot")
	errSilentEnd  = errors.New("the store broke its contract: a watch ended without an error")
)

// errReread ends a watch that is to be replaced; it is no failure.
var errReread = errors.New("periodic full read")

// entry is an endpoint as all readers share it. It is never modified. The
// Endpoint is where the store's batch has it.
type entry struct {
	*Endpoint
	decoded atomic.Pointer[any]
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
// nil if it is gone. Both are never nil, and never equal.
type change struct{ old, new *entry }

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

func compareChanges(a, b change) int { return cmp.Compare(a.id(), b.id()) }

func sameEntry(a, b *entry) bool {
	return a == b || a != nil && b != nil && a.Equal(*b.Endpoint)
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

// shared is the one watch of a service in a Registry. Its goroutine ranges over
// the store's watch, folds what that yields into the set, and appends what
// changed to the chain. The cost of a change does not depend on how many
// endpoints there are, and of readers it only wakes them.
type shared struct {
	registry *Registry
	subject  subject
	ctx      context.Context // done when the watch was dropped or the Registry closed
	cancel   context.CancelFunc
	after    <-chan struct{} // nil, or closed when the watch before this one has ended

	// Guarded by Registry.mu.
	done    chan struct{} // nil until another watch waits for it; closed when run has ended
	readers int
	linger  *time.Timer // not nil: there are no readers, and this will drop the watch

	// Guarded by mu, which is taken before a cursor's own.
	mu       sync.Mutex
	set      map[string]*entry // by ID
	status   Status
	statuses int           // counts the changes of status but for AsOf
	ended    bool          // the Registry was closed
	wasStale bool          // it was stale when the Registry was closed
	tail     *step         // the step to be filled next
	version  int           // counts the steps
	length   int           // changes and steps in the chain since the last sweep
	cursors  []*cursor     // each knows its index
	hurry    chan struct{} // nil, or capacity 1: in a pause, holds a token when a reader asks for another try
	holder   holder
	wakes    []func() // of the followers; the slice is replaced, never modified
	wakesOld bool     // wakes is to be made anew

	// The set in order as it was before step orderAt, and in the form of a
	// View as it was before step viewAt; nil until a reader asks. The slices
	// are never modified.
	order   []*entry
	orderAt *step
	viewed  []Endpoint
	viewAt  *step
}

func (r *Registry) newShared(sub subject) *shared {
	s := &shared{
		registry: r,
		subject:  sub,
		set:      make(map[string]*entry),
		tail:     newStep(),
	}
	s.ctx, s.cancel = context.WithCancel(r.ctx)
	return s
}

// source returns a watch of the store. A list of services is a snapshot whose
// endpoints have nothing but an ID.
func (s *shared) source(ctx context.Context) iter.Seq2[Batch, error] {
	if s.subject != (subject{}) {
		return s.registry.store.Watch(ctx, s.subject.service)
	}
	return func(yield func(Batch, error) bool) {
		for names, err := range s.registry.store.Services(ctx) {
			b := Batch{Snapshot: err == nil}
			for _, name := range names {
				b.Put = append(b.Put, Endpoint{ID: name})
			}
			if !yield(b, err) {
				return
			}
		}
	}
}

// run keeps the subject watched until the watch is dropped or the Registry is
// closed.
func (s *shared) run() {
	defer s.settle()
	if s.after != nil {
		<-s.after // so that the hooks are told things in their order
	}
	var b backoff
	for {
		begun := time.Now()
		lived, err := s.watch()
		if s.ctx.Err() != nil {
			return
		}
		if err == errReread {
			continue
		}
		if lived >= healthyAfter {
			b.reset()
		}
		s.fail(err)
		if !s.pause(b.delay(), begun) {
			return
		}
	}
}

// The pace at which readers in a hurry have a failed watch tried again, and the
// jitter of it.
const (
	hurryInterval = time.Second
	hurryJitter   = 100 * time.Millisecond
)

// pause waits for d, or until a reader is in a hurry and the last try, which
// began at begun, is long enough ago. It reports false if the watch is to end.
func (s *shared) pause(d time.Duration, begun time.Time) bool {
	hurry := make(chan struct{}, 1)
	s.setHurry(hurry)
	defer s.setHurry(nil)
	end := time.Now().Add(d)
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			return true
		case <-s.ctx.Done():
			return false
		case <-hurry:
			hurry = nil
			soon := max(time.Until(begun.Add(hurryInterval)), 0) + rand.N(hurryJitter)
			t.Reset(min(soon, time.Until(end)))
		}
	}
}

func (s *shared) setHurry(hurry chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hurry = hurry
}

// settle tells the hooks that what was stale or held is not any more, as
// nobody watches it.
func (s *shared) settle() {
	s.mu.Lock()
	held, stale := s.status.Held, s.status.Stale() && !s.ended || s.wasStale
	s.status.Held = nil
	s.mu.Unlock()
	hooks := &s.registry.hooks
	if len(held) > 0 && hooks.Released != nil {
		hooks.Released(s.subject.service, held, false)
	}
	if stale && hooks.Stale != nil {
		hooks.Stale(s.subject.service, time.Time{})
	}
	r := s.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ending[s.subject] == s {
		delete(r.ending, s.subject)
	}
	if s.done != nil {
		close(s.done)
	}
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

// watch ranges over one watch of the store until it ends, and returns why and
// how long it went well, from its first batch on.
func (s *shared) watch() (lived time.Duration, err error) {
	ctx, cancel := s.ctx, context.CancelCauseFunc(nil)
	if s.registry.reread > 0 { // else it would be some bytes of each service for nothing
		ctx, cancel = context.WithCancelCause(ctx)
		defer cancel(nil)
	}
	var began time.Time
	defer func() {
		if !began.IsZero() {
			lived = time.Since(began)
		}
	}()
	for b, err := range s.source(ctx) {
		if err != nil {
			if context.Cause(ctx) == errReread {
				err = errReread
			}
			return 0, err
		}
		first := began.IsZero()
		if first {
			if !b.Snapshot {
				return 0, errNoSnapshot
			}
			began = time.Now()
			if cancel != nil {
				t := time.AfterFunc(jitter(s.registry.reread), func() { cancel(errReread) })
				context.AfterFunc(ctx, func() { t.Stop() }) // a defer would be kept, too
			}
		}
		s.apply(b, first)
	}
	return 0, errSilentEnd
}

// apply folds a batch into the set and tells the readers what changed. first
// says that it is the first of a watch.
func (s *shared) apply(b Batch, first bool) {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	was := s.status
	var changes []change
	switch {
	case !b.Snapshot:
		changes = s.fold(b)
	case was.Synced:
		changes = s.replace(b.Put)
	default:
		s.take(b.Put) // the readers, who know nothing yet, take the whole set
	}
	s.status = Status{Synced: true, AsOf: time.Now(), Held: was.Held}
	held := s.noteLosses(changes)
	if !held.empty() {
		s.setHeld()
	}
	size := len(s.set)
	fresh := was.Stale() // and is not any more
	if was.Synced && !fresh && len(changes) == 0 {
		s.mu.Unlock()
	} else {
		if !was.Synced || fresh {
			s.statuses++
		}
		s.publish(changes)
	}

	hooks, service := &s.registry.hooks, s.subject.service
	if first && was.Synced && hooks.Resynced != nil {
		hooks.Resynced(service, len(changes))
	}
	if fresh {
		s.registry.log.Info("naming: fresh again", s.subject.attr(),
			slog.Duration("stale", time.Since(was.StaleSince)), slog.Int("endpoints", size))
		if hooks.Stale != nil {
			hooks.Stale(service, time.Time{})
		}
	}
	s.tellHeld(held)
}

// fail notes that the watch failed. The set stays as it is: stale beats empty.
func (s *shared) fail(err error) {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	first := !s.status.Stale()
	again := !first && s.status.Err.Error() == err.Error()
	if first {
		s.status.StaleSince = time.Now()
	}
	s.status.Err = err
	since, size := s.status.StaleSince, len(s.set)
	if again {
		s.mu.Unlock() // the same once more is no news
	} else {
		s.statuses++
		s.publish(nil)
	}
	level := slog.LevelDebug
	if first {
		level = slog.LevelWarn
	}
	s.registry.log.Log(context.Background(), level, "naming: watch failed, will be tried again",
		s.subject.attr(), slog.Any("err", err), slog.Int("endpoints kept", size))
	hooks := &s.registry.hooks
	if hooks.WatchFailed != nil {
		hooks.WatchFailed(s.subject.service, err)
	}
	if first && hooks.Stale != nil {
		hooks.Stale(s.subject.service, since)
	}
}

// end tells the readers that the Registry was closed.
func (s *shared) end() {
	s.mu.Lock()
	s.ended = true
	s.holder.stop()
	s.wasStale = s.status.Stale()
	if !s.wasStale {
		s.status.StaleSince = time.Now()
	}
	s.status.Err = ErrRegistryClosed
	s.statuses++
	for _, c := range s.cursors {
		c.finish()
	}
	s.publish(nil)
}

// take makes the endpoints of a first snapshot the set. They also are the present
// View, unless a careless store has an ID twice. s.mu is held.
func (s *shared) take(put []Endpoint) {
	if put == nil {
		put = []Endpoint{}
	}
	if complete(put); !slices.IsSortedFunc(put, compareEndpoints) {
		slices.SortStableFunc(put, compareEndpoints)
	}
	s.set = make(map[string]*entry, len(put))
	order := make([]*entry, len(put))
	entries := newEntries(put)
	for i := range entries {
		order[i] = &entries[i]
		s.set[entries[i].ID] = &entries[i]
	}
	if len(s.set) == len(put) {
		s.order, s.orderAt = order, s.tail
		s.viewed, s.viewAt = slices.Clip(put), s.tail
	}
}

// fold puts a batch of changes into the set, and returns those that are some.
// s.mu is held.
func (s *shared) fold(b Batch) []change {
	changes := make([]change, 0, len(b.Deleted)+len(b.Put))
	for _, id := range b.Deleted {
		if old := s.set[id]; old != nil {
			delete(s.set, id)
			changes = append(changes, change{old: old})
		}
	}
	complete(b.Put)
	entries := newEntries(b.Put)
	for i := range entries {
		e := &entries[i]
		if old := s.set[e.ID]; !sameEntry(old, e) {
			s.set[e.ID] = e
			changes = append(changes, change{old, e})
		}
	}
	return tidy(changes)
}

// replace makes the endpoints of a snapshot the set, and returns the
// difference. s.mu is held.
func (s *shared) replace(put []Endpoint) []change {
	var changes []change
	set := make(map[string]*entry, len(put))
	complete(put)
	entries := newEntries(put)
	for i := range entries {
		e := &entries[i]
		if old := s.set[e.ID]; sameEntry(old, e) {
			set[e.ID] = old
		} else {
			set[e.ID] = e
			changes = append(changes, change{old, e})
		}
	}
	for id, old := range s.set {
		if set[id] == nil {
			changes = append(changes, change{old: old})
		}
	}
	s.set = set
	return tidy(changes)
}

// complete sets what a careless store may have left out.
func complete(put []Endpoint) {
	for i := range put {
		e := &put[i]
		if e.ID == "" {
			e.ID = e.Addr
		}
		if isNull(e.Metadata) {
			e.Metadata = nil
		}
	}
}

// newEntries returns the entries of endpoints, which stay where they are: a batch
// belongs to who received it.
func newEntries(put []Endpoint) []entry {
	entries := make([]entry, len(put))
	for i := range put {
		entries[i].Endpoint = &put[i]
	}
	return entries
}

// tidy sorts changes and makes one of those that a careless store's batch has
// for one ID.
func tidy(changes []change) []change {
	if len(changes) < 2 {
		return changes
	}
	slices.SortStableFunc(changes, compareChanges)
	for i := 1; i < len(changes); i++ {
		if changes[i-1].id() == changes[i].id() {
			n := make(diff, len(changes))
			n.add(changes)
			return n.sorted()
		}
	}
	return changes
}

// publish appends a step to the chain, which wakes the readers. s.mu is held,
// and is released: followers are woken without it.
func (s *shared) publish(changes []change) {
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
	if s.wakesOld {
		s.setWakes()
	}
	wakes := s.wakes
	s.mu.Unlock()
	for _, wake := range wakes {
		wake()
	}
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
		s.viewed, s.viewAt = nil, nil
	}
}

// has reports whether there is an endpoint id, and whether that is known.
func (s *shared) has(id string) (there, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set[id] != nil, s.status.Synced && !s.status.Stale()
}

// ordered returns the set sorted by ID. The slice must not be modified. s.mu is
// held.
func (s *shared) ordered() []*entry {
	switch {
	case s.order == nil:
		s.order = slices.AppendSeq(make([]*entry, 0, len(s.set)), maps.Values(s.set))
		slices.SortFunc(s.order, func(a, b *entry) int { return cmp.Compare(a.ID, b.ID) })
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
		i, found := slices.BinarySearchFunc(order, c.id(), func(e *entry, id string) int { return cmp.Compare(e.ID, id) })
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
		s.viewed = make([]Endpoint, len(order))
		for i, e := range order {
			s.viewed[i] = *e.Endpoint
		}
		s.viewAt = s.tail
	}
	return View{Service: s.subject.service, Endpoints: s.viewed, Status: s.status}
}

// each calls prepare with s.mu held and then visit without it, once the set is
// known and again after every step, or after the newest of several. It returns
// nil when visit returns false.
func (s *shared) each(ctx context.Context, prepare func(), visit func() bool) error {
	for seen := 0; ; {
		s.mu.Lock()
		tail, ended := s.tail, s.ended
		news := s.status.Synced && s.version != seen && !ended && ctx.Err() == nil
		if news {
			seen = s.version
			prepare()
		}
		s.mu.Unlock()
		if news {
			// tail is not used any more, and so holds no chain while a slow
			// reader is in its loop.
			if !visit() {
				return nil
			}
			continue
		}
		if ended {
			return ErrRegistryClosed
		}
		select {
		case <-tail.ready:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
