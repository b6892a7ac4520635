package naming

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// cursor is a reader's place in the chain of a shared watch.
type cursor struct {
	shared *shared
	wake   func()        // nil, or called after every step
	done   chan struct{} // closed by finish; nil if there is wake

	// Guarded by shared.mu.
	index  int // in shared.cursors
	closed bool

	// mu guards the fields below. It is taken after shared.mu.
	mu       sync.Mutex
	at       *step // the step to read next; until the set was read, the step to wait for
	started  bool  // the set was read
	behind   diff  // the changes of steps before at that the reader did not get
	finished bool
}

// newCursor returns a cursor of a service, which must be closed.
func (c *Client) newCursor(service string, wake func()) (*cursor, error) {
	if err := c.check(service); err != nil {
		return nil, err
	}
	return c.newSubjectCursor(subject{service}, wake)
}

// newSubjectCursor is newCursor of a subject, on a usable Client.
func (c *Client) newSubjectCursor(sub subject, wake func()) (*cursor, error) {
	s, err := c.acquire(sub)
	if err != nil {
		return nil, err
	}
	cur := &cursor{shared: s, wake: wake}
	if wake == nil {
		cur.done = make(chan struct{})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	cur.at = s.chain.tail
	if s.closed {
		cur.finish()
	}
	s.cursors.add(cur)
	return cur, nil
}

// cursorList is the cursors of a shared watch. It is part of shared, and guarded by its
// mu.
type cursorList struct {
	list  []*cursor // each knows its index
	wakes []func()  // of the followers; the slice is replaced, never modified
	stale bool      // wakes has to be made anew
}

func (l *cursorList) add(c *cursor) {
	c.index = len(l.list)
	l.list = append(l.list, c)
	l.stale = l.stale || c.wake != nil
}

func (l *cursorList) remove(c *cursor) {
	end := len(l.list) - 1
	l.list[end].index = c.index
	l.list[c.index] = l.list[end]
	l.list[end] = nil
	l.list = l.list[:end]
	if c.wake != nil {
		l.wakes, l.stale = nil, true
	}
}

// wakeFuncs returns the functions that wake the followers.
func (l *cursorList) wakeFuncs() []func() {
	if l.stale {
		l.wakes, l.stale = nil, false
		for _, c := range l.list {
			if c.wake != nil {
				l.wakes = append(l.wakes, c.wake)
			}
		}
	}
	return l.wakes
}

// finish ends waiting for news: the cursor or the Client was closed.
func (c *cursor) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.finished {
		c.finished = true
		if c.done != nil {
			close(c.done)
		}
	}
}

// close ends the cursor. It may be called more than once.
func (c *cursor) close() {
	c.finish()
	s := c.shared
	if s.removeCursor(c) {
		s.client.release(s)
	}
}

// removeCursor removes a cursor, and reports false if it was removed before.
func (s *shared) removeCursor(c *cursor) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.closed {
		return false
	}
	c.closed = true
	s.cursors.remove(c)
	return true
}

// catchUp moves the cursor to the end of the chain. It keeps the net changes for the
// reader. shared.mu is held.
func (c *cursor) catchUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.skipToEnd()
}

// skipToEnd moves the cursor to the end of the chain, and adds the changes to behind.
// mu is held.
func (c *cursor) skipToEnd() {
	for next := c.at.after(); next != nil; next = c.at.after() {
		if c.started {
			if c.behind == nil {
				c.behind = make(diff)
			}
			c.behind.add(c.at.changes)
		}
		c.at = next
	}
}

// skip moves the cursor to the end of the chain without the changes, and reports whether
// the set was read for the first time or has changed. shared.mu is held.
func (c *cursor) skip() (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.started {
		c.started = c.shared.status.Synced
		c.at = c.shared.chain.tail
		return c.started
	}
	changed = len(c.behind) > 0
	for next := c.at.after(); next != nil; next = c.at.after() {
		changed = changed || len(c.at.changes) > 0
		c.at = next
	}
	c.behind = nil
	return changed
}

// passedMark moves the cursor to the end of the chain. It returns the last state of the endpoint
// id with the draining mark among the steps that it passes, or nil. Steps that sweep has passed
// do not count.
func (c *cursor) passedMark(id string) (marked *Endpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for next := c.at.after(); next != nil; next = c.at.after() {
		n, found := slices.BinarySearchFunc(c.at.changes, id, func(ch change, id string) int { return strings.Compare(ch.id(), id) })
		if found && c.at.changes[n].new != nil && c.at.changes[n].new.Draining {
			marked = c.at.changes[n].new.Endpoint
		}
		c.at = next
	}
	return marked
}

// news is the result of a cursor: the whole set, or else changes. Both are empty if
// nothing is new.
type news struct {
	set     []*entry
	changes []change
}

func (n news) empty() bool { return n.set == nil && len(n.changes) == 0 }

// usable returns the news of the endpoints that may be used. In it, an endpoint that is
// withheld from now on is gone.
func (n news) usable() news {
	if slices.ContainsFunc(n.set, func(e *entry) bool { return e.withheld != nil }) {
		set := make([]*entry, 0, len(n.set))
		for _, e := range n.set {
			if e.withheld == nil {
				set = append(set, e)
			}
		}
		n.set = set
	}
	if slices.ContainsFunc(n.changes, func(c change) bool { return c.usable() != c }) {
		var changes []change
		for _, c := range n.changes {
			// The endpoint may be the same before and after it was withheld.
			if c = c.usable(); !sameEntry(c.old, c.new) {
				changes = append(changes, c)
			}
		}
		n.changes = changes
	}
	return n
}

// readNews returns the news since the last call, and a channel that is closed when there
// may be more.
func (c *cursor) readNews() (news, <-chan struct{}) {
	if n, more := c.readChanges(); more != nil {
		return n, more
	}
	c.shared.mu.Lock()
	defer c.shared.mu.Unlock()
	return c.readNewsLocked()
}

// readChanges is readNews after the set was read. Before, it returns no channel. It does
// not need the lock of the watch.
func (c *cursor) readChanges() (news, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.started {
		return news{}, nil
	}
	return c.advance()
}

// readNewsLocked is readNews with shared.mu held.
func (c *cursor) readNewsLocked() (news, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.started {
		return c.advance()
	}
	c.at = c.shared.chain.tail
	if !c.shared.status.Synced {
		return news{}, c.at.ready
	}
	c.started = true
	return news{set: c.shared.ordered()}, c.at.ready
}

// advance moves the cursor to the end of the chain, and returns the net changes. mu is
// held.
func (c *cursor) advance() (news, <-chan struct{}) {
	// The fast path of a reader that keeps up, without a map: no step or one step.
	next := c.at.after()
	if len(c.behind) == 0 {
		if next == nil {
			return news{}, c.at.ready
		}
		if next.after() == nil {
			changes := c.at.changes
			c.at = next
			return news{changes: changes}, next.ready
		}
	}
	c.skipToEnd()
	changes := c.behind.sorted()
	c.behind = nil
	return news{changes: changes}, c.at.ready
}

// Follower reads the changes of a service without a goroutine of its own. It is meant
// for programs that keep the set in a form of their own, as package resolver does.
// [Client.Follow] returns one. Its methods may be called concurrently with each other,
// but Next not with itself.
type Follower struct {
	cursor   *cursor
	statuses int  // shared.statuses as of the last Event; guarded by shared.mu
	live     bool // the last result of Current; guarded by shared.mu
}

// Event is the result of [Follower.Next]: a snapshot or changes, and the status.
type Event struct {
	// Batch is a snapshot, sorted by ID, in the first Event in which Status.Synced is
	// true. In all later Events it is the net changes since the Event before. It is
	// empty if only the status changed.
	//
	// An endpoint that is withheld from now on is in Withheld, and not in Deleted. An
	// endpoint that may be used again is in Put. All readers share the Put and the
	// Withheld of a snapshot: they must not be modified. The other slices belong to
	// the receiver.
	Batch
	// Status is the present status. Failures do not end a Follower: they are in
	// Status, also before the first snapshot.
	Status Status
}

// Follow returns a Follower of a service. It does not wait for the registry. Call Next
// once after Follow, as the set may be known already. From then on, wake is called
// whenever Next may have a new Event.
//
// wake is called from the goroutine that all readers of the service depend on. It must
// not block, nor call methods of the Client or the Follower. It may be called once more
// during or just after the Follower's Close.
//
// The error is [ErrInvalid] or [ErrClientClosed].
func (c *Client) Follow(service string, wake func()) (*Follower, error) {
	cur, err := c.newCursor(service, wake)
	if err != nil {
		return nil, fmt.Errorf("naming: follow %q: %w", service, err)
	}
	return &Follower{cursor: cur}, nil
}

// FollowServices returns a Follower of the list of services that have endpoints, as
// Follow does of a service. The endpoints of its Events have an ID only, which is the
// name of a service.
func (c *Client) FollowServices(wake func()) (*Follower, error) {
	err := c.usable()
	if err != nil {
		return nil, fmt.Errorf("naming: follow services: %w", err)
	}
	cur, err := c.newSubjectCursor(subject{}, wake)
	if err != nil {
		return nil, fmt.Errorf("naming: follow services: %w", err)
	}
	return &Follower{cursor: cur}, nil
}

// Next returns the changes since its last call, and false if nothing changed. It does not
// block. After the Client was closed, it returns one Event with [ErrClientClosed] in its
// status. After Close it returns false.
func (f *Follower) Next() (Event, bool) {
	s := f.cursor.shared
	s.mu.Lock() // the changes and the status are of one moment
	defer s.mu.Unlock()
	n, _ := f.cursor.readNewsLocked()
	if f.cursor.closed || n.empty() && s.statuses == f.statuses {
		return Event{}, false
	}
	f.statuses = s.statuses
	e := Event{Status: s.currentStatus()}
	if n.set != nil {
		view := s.view()
		e.Snapshot, e.Put, e.Withheld = true, view.Endpoints, view.Withheld
	}
	for _, ch := range n.changes {
		switch {
		case ch.new == nil:
			e.Deleted = append(e.Deleted, ch.old.ID)
		case ch.new.withheld != nil:
			e.Withheld = append(e.Withheld, *ch.new.withheld)
		default:
			e.Put = append(e.Put, *ch.new.Endpoint)
		}
	}
	return e, true
}

// Current returns the present state of the service, and whether anything changed since the
// last call of Current or Next. It is for programs that look at the whole set, and need no
// changes. A call of Next afterwards returns the changes since Current. After Close it returns
// a zero View and false.
//
// live says that the endpoints follow the registry: the present watch has delivered its
// snapshot. They can be stale as well, until the watch has proved itself.
func (f *Follower) Current() (v View, live, changed bool) {
	s := f.cursor.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.cursor.closed {
		return View{}, false, false
	}
	live = s.isLive()
	changed = f.cursor.skip() || s.statuses != f.statuses || live != f.live
	f.statuses, f.live = s.statuses, live
	return s.view(), live, changed
}

// Retry says that the set has probably changed, for example because connections break.
// If the watch has failed and waits for its next attempt, the attempt is made at once,
// but not more than once in a second. Each attempt that got a full read and then failed
// doubles the second, up to 30 seconds. If the watch has not failed, Retry makes no
// request. Retry does not block.
func (f *Follower) Retry() {
	if feed := f.cursor.shared.hasten(); feed != nil {
		feed.Retry()
	}
}

// hasten ends a pause before the next attempt. It returns the Feed, if there is one.
func (s *shared) hasten() Feed {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.health.hurry <- struct{}{}:
	default: // also if there is no pause
	}
	return s.feed
}

// Close ends the Follower. It may be called more than once.
func (f *Follower) Close() { f.cursor.close() }
