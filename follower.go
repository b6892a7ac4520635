package naming

import (
	"fmt"
	"slices"
	"sync"
)

// cursor is a reader's place in the chain of a shared watch.
type cursor struct {
	shared *shared
	index  int           // in shared.cursors; guarded by shared.mu
	wake   func()        // nil, or called after every step
	done   chan struct{} // closed by finish; nil if there is wake

	mu       sync.Mutex // taken after shared.mu, if both
	at       *step      // the step to read next; before the set was taken, the one to wait for
	started  bool       // the set was taken
	behind   diff       // what steps before at changed, and the reader was not told
	finished bool

	closed bool // guarded by shared.mu
}

// newCursor returns a cursor of a service, which must be closed.
func (c *Client) newCursor(service string, wake func()) (*cursor, error) {
	if err := c.check(service); err != nil {
		return nil, err
	}
	s, err := c.acquire(subject{service})
	if err != nil {
		return nil, err
	}
	cur := &cursor{shared: s, wake: wake}
	if wake == nil {
		cur.done = make(chan struct{})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	cur.at = s.tail
	if s.ended {
		cur.finish()
	}
	cur.index = len(s.cursors)
	s.cursors = append(s.cursors, cur)
	s.wakesOld = s.wakesOld || wake != nil
	return cur, nil
}

// leave removes a cursor. s.mu is held.
func (s *shared) leave(c *cursor) {
	end := len(s.cursors) - 1
	s.cursors[end].index = c.index
	s.cursors[c.index] = s.cursors[end]
	s.cursors[end] = nil
	s.cursors = s.cursors[:end]
	if c.wake != nil {
		s.wakes, s.wakesOld = nil, true
	}
}

// setWakes collects the functions of the followers. s.mu is held.
func (s *shared) setWakes() {
	s.wakes, s.wakesOld = nil, false
	for _, c := range s.cursors {
		if c.wake != nil {
			s.wakes = append(s.wakes, c.wake)
		}
	}
}

// finish makes waiting for news pointless.
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
	if s.remove(c) {
		s.client.release(s)
	}
}

// remove removes a cursor, and reports false if it was removed before.
func (s *shared) remove(c *cursor) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.closed {
		return false
	}
	c.closed = true
	s.leave(c)
	return true
}

// catchUp moves the cursor to the end of the chain, and notes what it passes.
// shared.mu is held.
func (c *cursor) catchUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fold()
}

// fold moves the cursor to the end of the chain. c.mu is held.
func (c *cursor) fold() {
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

// news is what a cursor has to tell: the whole set, or else changes. It has
// neither if there is nothing new.
type news struct {
	set     []*entry
	changes []change
}

func (n news) empty() bool { return n.set == nil && len(n.changes) == 0 }

// usable returns the news of the endpoints that may be used: one that is withheld
// is gone.
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
			// Before and after it was withheld it may have been the same.
			if c = c.usable(); !sameEntry(c.old, c.new) {
				changes = append(changes, c)
			}
		}
		n.changes = changes
	}
	return n
}

// read returns what is new, and a channel that is closed when there may be more.
func (c *cursor) read() (news, <-chan struct{}) {
	if n, more := c.readChanges(); more != nil {
		return n, more
	}
	c.shared.mu.Lock()
	defer c.shared.mu.Unlock()
	return c.readShared()
}

// readChanges is read once the set was taken, and returns no channel before that.
func (c *cursor) readChanges() (news, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.started {
		return news{}, nil
	}
	return c.advance()
}

// readShared is read, with shared.mu held.
func (c *cursor) readShared() (news, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.started {
		return c.advance()
	}
	c.at = c.shared.tail
	if !c.shared.status.Synced {
		return news{}, c.at.ready
	}
	c.started = true
	return news{set: c.shared.ordered()}, c.at.ready
}

// advance is read, once the set was taken. c.mu is held.
func (c *cursor) advance() (news, <-chan struct{}) {
	// What a reader that keeps up finds, without a map: nothing or one step.
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
	c.fold()
	changes := c.behind.sorted()
	c.behind = nil
	return news{changes: changes}, c.at.ready
}

// Follower reads the changes of a service without a goroutine of its own, for
// programs that keep the set in a form of their own, as package resolver does.
// [Client.Follow] makes one. Its methods may be called concurrently with each
// other, but Next not with itself.
type Follower struct {
	cursor   *cursor
	statuses int // the status that Next told last
}

// Event is what [Follower.Next] returns.
type Event struct {
	// Batch is a snapshot, sorted by ID, in the first Event in which
	// Status.Synced is true, and the net changes since the event before in all
	// later ones. It is empty if only the status changed. An endpoint that is
	// withheld from now on is in Withheld, and not in Deleted; one that may be
	// used again is in Put. All readers share the Put and the Withheld of a
	// snapshot: they must not be modified. The other slices belong to the
	// receiver.
	Batch
	// Status is the present one. Errors do not end a Follower: they are here,
	// also before the first snapshot.
	Status Status
}

// Follow returns a Follower of a service. It does not wait for the registry.
// Call Next once afterwards, for what is known already: from then on wake is
// called whenever Next may have something new to return.
// It is called from the goroutine that all readers of the service depend on, so
// it must not block, nor call methods of the Client or the Follower; and it
// may be called once more while, or just after, the Follower is closed.
//
// The error is [ErrInvalid] or [ErrClientClosed].
func (c *Client) Follow(service string, wake func()) (*Follower, error) {
	cur, err := c.newCursor(service, wake)
	if err != nil {
		return nil, fmt.Errorf("naming: follow %q: %w", service, err)
	}
	return &Follower{cursor: cur}, nil
}

// Next returns what is new since it was last called, and false if nothing is.
// It does not block. After the Client was closed it still tells so, in the
// status; after Close it returns false.
func (f *Follower) Next() (Event, bool) {
	s := f.cursor.shared
	s.mu.Lock() // the changes and the status are of one moment
	defer s.mu.Unlock()
	n, _ := f.cursor.readShared()
	if f.cursor.closed || n.empty() && s.statuses == f.statuses {
		return Event{}, false
	}
	f.statuses = s.statuses
	e := Event{Status: s.present()}
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

// Retry says that there is reason to believe that the set has changed, such as
// connections that break. If the watch has failed and waits to be tried again, it
// is tried at once, but not more than once in a second. After each attempt that got
// a full read and then failed, that time doubles, up to 30 seconds. If the watch
// has not failed, nothing is asked of the registry. Retry does not block.
func (f *Follower) Retry() {
	s := f.cursor.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.hurry <- struct{}{}:
	default: // also if there is no pause
	}
}

// Close ends the Follower. It may be called more than once.
func (f *Follower) Close() { f.cursor.close() }
