// For packages that make one Client of several registries, as package migrate does.

package naming

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"
)

// Composite is what the author of a package that joins several registries implements
// and [NewComposite] uses: each registry has a Client of its own, and the Composite
// decides what a reader gets and where an endpoint is announced. Package migrate has
// one. A program on one registry uses [New].
//
// All methods may be called concurrently.
type Composite interface {
	// Follow returns a Feed of a service, or of the list of services if service is
	// empty. The endpoints of that list have an ID only, which is the name. Follow
	// does not wait for a registry.
	//
	// wake is called whenever Next may have a new Event. It does not block. It may be
	// called from any goroutine, and once more during or just after Close.
	Follow(service string, wake func()) (Feed, error)

	// List reads the endpoints of a service once, as [Client.List] does.
	List(ctx context.Context, service string) (View, error)

	// Apply makes changes to a service, as [Store.Apply] does. The changes have no
	// leases.
	Apply(ctx context.Context, service string, changes []Change) error

	// Announce starts to announce an endpoint. The arguments were checked, and the
	// options have their defaults. Announce does not wait, and ignores Wait.
	Announce(service string, e Endpoint, opts RegisterOptions) (Announcement, error)

	// Close frees what the Composite holds. It is called once, when all Announcements
	// and Feeds are closed, and returns when all goroutines of the Composite have
	// ended.
	Close()
}

// Feed is a source of the changes of a service. A [Follower] is a Feed of one registry.
// Next is not called concurrently with itself.
type Feed interface {
	// Next returns the changes since its last call, and false if nothing changed. It
	// does not block. The first Event in which Status.Synced is true has a snapshot,
	// and later ones have changes or snapshots. Status.Held is ignored: a Client on
	// a Composite holds endpoints itself.
	Next() (Event, bool)
	// Retry says that the set has probably changed: see [Follower.Retry].
	Retry()
	// Close ends the Feed. It may be called more than once.
	Close()
}

var _ Feed = (*Follower)(nil)

// Announcement keeps an endpoint announced. It is what a [Registration] is made of.
// Contexts are never nil. The methods of the same names of Registration say what they do.
//
// After Close or Withdraw has begun, the other methods but Status return
// [ErrRegistrationClosed], and calls of them that wait end with it. The Registration
// returns [ErrClientClosed] instead if Close of the Client has begun. Update, Drain and
// Resume need not name the endpoint in their errors, as the Registration does so.
type Announcement interface {
	Status() RegistrationStatus
	Wait(ctx context.Context) error
	Update(ctx context.Context, metadata json.RawMessage) error
	Drain(ctx context.Context) error
	Resume(ctx context.Context) error
	Withdraw(ctx context.Context) error
	Close() error
}

// SideStatus is the [Status] of one registry of several: see [Status.Sides].
type SideStatus struct {
	// Name is the name of the registry.
	Name string
	// Used says that the endpoints of the registry are in the set, if it has any.
	Used bool
	// Endpoints is the number of endpoints of the registry that may be used, as of
	// the last answer.
	Endpoints int
	// Synced, AsOf, StaleSince and Err are as in [Status].
	Synced           bool
	AsOf, StaleSince time.Time
	Err              error
}

// NewComposite returns a Client on several registries. The Client owns the Composite:
// its Close closes it. ResyncEvery of the options has no effect, as it is an option of
// the Clients of the single registries. Their hold should be disabled, because the
// result holds endpoints itself.
func NewComposite(composite Composite, opts *Options) *Client {
	c := New(nil, opts)
	c.composite, c.compositeClosed = composite, make(chan struct{})
	return c
}

// follow keeps the subject up to date from Feeds of the Client's Composite, until the watch
// is dropped or the Client is closed. A Feed that breaks its contract is replaced by a new
// one, whose first set repairs what the broken event would have changed.
func (s *shared) follow() {
	for {
		begun := time.Now()
		err := s.followFeed()
		if s.ctx.Err() != nil || !s.pause(s.fail(err), begun) {
			return
		}
	}
}

// followFeed applies the events of one Feed, and returns why it cannot go on.
func (s *shared) followFeed() error {
	wake := make(chan struct{}, 1)
	feed, err := s.client.composite.Follow(s.subject.service, func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return err
	}
	defer feed.Close()
	s.setFeed(feed)
	defer s.setFeed(nil)
	for first := true; s.ctx.Err() == nil; {
		if e, ok := feed.Next(); ok {
			if err := s.applyEvent(e, first); err != nil {
				return err
			}
			first = first && !e.Snapshot
			continue
		}
		select {
		case <-wake:
		case <-s.ctx.Done():
		}
	}
	return s.ctx.Err()
}

func (s *shared) setFeed(feed Feed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.feed = feed
}

// applyEvent applies an event of a Feed. first says that the Feed has had no snapshot
// before. An event that breaks the contract changes nothing, and applyEvent returns an
// error.
func (s *shared) applyEvent(e Event, first bool) error {
	if err := e.check(first); err != nil {
		return err
	}
	wakes, err := s.updateFrom(e)
	for _, wake := range wakes {
		wake()
	}
	s.calls.run()
	return err
}

// check is Batch.check for an event.
func (e *Event) check(first bool) error {
	hasSet := e.Snapshot || len(e.Put)+len(e.Deleted)+len(e.Batch.Withheld) > 0
	switch {
	case !e.Status.Synced && hasSet:
		return errBroken("an event with endpoints and the status that nothing is known")
	case e.Status.Synced && first && !e.Snapshot:
		return errNoSnapshot
	}
	return e.Batch.check()
}

// updateFrom is applyEvent without calls of the program's functions, as update is of
// apply.
func (s *shared) updateFrom(e Event) (wakes []func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil
	}
	if err := s.set.checkBatch(e.Batch); err != nil {
		return nil, err
	}
	was := s.status
	if was.Synced && !e.Status.Synced {
		return nil, nil // of a new Feed: the set and the status of before stay until it is known
	}
	var changes []change
	var began, ceased []Withheld
	if e.Status.Synced {
		changes, began, ceased = s.applyToSet(e.Batch)
		s.noteAnswer(e.Status)
	}
	s.status = e.Status
	s.status.Held = nil
	s.queueStaleness(was)
	held := s.trackLosses(changes)
	s.queueHeld(held)
	s.queueWithheld(began, ceased)
	s.set.flagged = false
	s.statuses++
	return s.publish(changes), nil
}

// noteAnswer notes that a Feed works, so that a failure much later is a new one. mu is
// held.
func (s *shared) noteAnswer(status Status) {
	if s.health.readAt.IsZero() {
		s.health.readAt = time.Now()
	}
	if !status.Stale() {
		s.countFailing(false)
	}
}

// queueStaleness adds the log record and the call of the hook if the set became stale or
// fresh. was is the status of before. mu is held.
func (s *shared) queueStaleness(was Status) {
	is := s.status
	if is.Stale() == was.Stale() {
		return
	}
	attrs := []any{s.subject.attr(), slog.Int("endpoints", len(s.set.entries))}
	level, text := slog.LevelWarn, "naming: no registry vouches for the endpoints"
	if is.Stale() {
		attrs = append(attrs, slog.Any("err", is.Err))
	} else {
		level, text = slog.LevelInfo, "naming: fresh again"
		attrs = append(attrs, slog.Duration("stale", time.Since(was.StaleSince)))
	}
	s.calls.add(func() {
		s.client.log.Log(context.Background(), level, text, attrs...)
		if f := s.client.hooks.Stale; f != nil {
			f(StaleInfo{Service: s.subject.service, Since: is.StaleSince})
		}
	})
}
