package naming

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// intent is the wanted content of a Registration, its status, and the calls that wait.
// Its methods lock it, except for those that say otherwise.
type intent struct {
	// mu guards all fields. It may be held when claims.mu is taken.
	mu       sync.Mutex
	status   RegistrationStatus
	want     Endpoint  // the content that the registry is to have
	version  int       // counts the changes of want
	applied  int       // the version that is in the registry; 0: none
	accepted *Endpoint // the content that the store accepted last; nil: none yet
	ownMark  bool      // the draining mark of want comes from Drain or Close, and not from Register
	refused  error     // why the store refused want, or the change before it; nil: not refused
	final    bool      // want itself was refused, and is not tried again
	calls    []*call
	// Also guarded by mu:
	everRegistered bool // status.Registered was true before
	mayBeListed    bool // an Apply may have stored the endpoint
}

// call is a method call that waits until a version of the content is in the registry.
type call struct {
	version int
	mark    bool       // asks for the mark of Drain, and fails if only the mark is refused
	done    chan error // capacity 1
}

// ask changes the wanted content, if change is not nil, and returns a call that ends when
// the registry has the result. closing says that Close asks. change runs with the lock
// held.
func (g *announcer) ask(mark, closing bool, change func(want *Endpoint)) *call {
	c := &call{mark: mark, done: make(chan error, 1)}
	i := &g.intent
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.status.Closed && !closing {
		c.done <- ErrRegistrationClosed
		return c
	}
	if !g.claim.isOwner(g) { // otherwise giveWay ends the call
		c.done <- ErrReplaced
		return c
	}
	if change != nil {
		want := i.want
		change(&want)
		// What the program says of the mark counts more than what others say.
		taken := i.status.MarkedByOther && (mark || !want.Draining)
		if taken {
			i.ownMark, i.status.MarkedByOther = mark, false
		}
		if !want.Equal(i.want) || taken && !closing {
			i.ownMark = want.Draining && (mark || i.ownMark)
			i.refused = nil
			i.setWant(want)
			g.poke()
		}
	}
	c.version = i.version
	switch {
	case i.final:
		c.done <- i.refused
	case i.status.Registered && i.applied == i.version:
		c.done <- nil
	default:
		i.calls = append(i.calls, c)
	}
	return c
}

// await waits for a call. If ctx is done first, the content stays wanted.
func (g *announcer) await(ctx context.Context, c *call) error {
	ctx = orBackground(ctx)
	select {
	case err := <-c.done: // also if ctx is done or the Registration closed
		return err
	default:
	}
	defer g.intent.forgetCall(c)
	select {
	case err := <-c.done:
		return err
	case <-g.closing:
		return ErrRegistrationClosed
	case <-g.done: // ended by Close of the Client
		return ErrRegistrationClosed
	case <-ctx.Done():
		if err := g.Status().Err; err != nil {
			return fmt.Errorf("%w; the last attempt failed: %w", ctx.Err(), err)
		}
		return ctx.Err()
	}
}

// setWant sets the wanted content. mu is held.
func (i *intent) setWant(want Endpoint) {
	i.want = want
	i.status.Draining = want.Draining
	i.version++
	i.final = false
}

func (i *intent) forgetCall(c *call) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.calls = slices.DeleteFunc(i.calls, func(other *call) bool { return other == c })
}

// endCalls ends the calls for which ends returns true. mu is held.
func (i *intent) endCalls(err error, ends func(*call) bool) {
	i.calls = slices.DeleteFunc(i.calls, func(c *call) bool {
		ended := ends(c)
		if ended {
			c.done <- err
		}
		return ended
	})
}

// endAllCalls ends all calls with err.
func (i *intent) endAllCalls(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.endCalls(err, func(*call) bool { return true })
}

// endAppliedCalls ends the calls that wait for a version that the registry has.
func (i *intent) endAppliedCalls() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.status.Registered {
		i.endCalls(nil, func(c *call) bool { return c.version <= i.applied })
	}
}

// endMarkCalls ends the calls that ask for the mark of Drain, up to a version.
func (i *intent) endMarkCalls(version int, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.endCalls(err, func(c *call) bool { return c.mark && c.version <= version })
}

// giveUpMark ends the wait of Close for its mark, which the registry does not let this
// user set.
func (i *intent) giveUpMark(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.status.Closed {
		i.endCalls(err, func(c *call) bool { return c.mark })
	}
}

func (i *intent) currentStatus() RegistrationStatus {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.status
}

// wanted returns the wanted content, and whether it was put.
func (i *intent) wanted() (want Endpoint, version int, applied bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.want, i.version, i.applied == i.version
}

// isFinal reports whether the wanted content was refused for good.
func (i *intent) isFinal() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.final
}

// isListed reports whether an Apply may have stored the endpoint.
func (i *intent) isListed() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.mayBeListed
}

// setListed sets mayBeListed and returns its value of before.
func (i *intent) setListed(listed bool) (was bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	was, i.mayBeListed = i.mayBeListed, listed
	return was
}

// setWithheld sets status.Withheld, and reports whether it changed.
func (i *intent) setWithheld(w *Withheld) (changed bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if sameWithheld(i.status.Withheld, w) {
		return false
	}
	i.status.Withheld = w
	return true
}

// setClosed sets status.Closed, and reports whether it was not set before.
func (i *intent) setClosed() (first bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	first = !i.status.Closed
	i.status.Closed = true
	return first
}

// setWithdrawn says that the endpoint was withdrawn.
func (i *intent) setWithdrawn() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.status.Registered {
		i.status.Registered, i.status.Since = false, time.Now()
	}
}

// setApplied says that the store accepted a version of the content.
func (i *intent) setApplied(version int, put Endpoint) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.applied, i.accepted = version, &put
	if i.final {
		i.final, i.refused = false, nil
	}
}

// verdict says how to go on after the store refused content.
type verdict int

const (
	// ordinary means that the store accepted the same content before. The content is
	// retried as after any other error.
	ordinary verdict = iota
	// markUndone means that there is other content to put: only the draining mark was
	// undone, or a newer change replaced the refused one.
	markUndone
	// changeUndone means that the change was undone, and the content of before is to
	// be in the registry.
	changeUndone
	// final means that there is nothing to put.
	final
)

// undo decides how to go on after the store refused a version of the content. It undoes
// the change if there is content from before the change.
func (i *intent) undo(version int, put Endpoint, err error) verdict {
	i.mu.Lock()
	defer i.mu.Unlock()
	want, v := put, markUndone
	switch {
	case i.version != version:
		return markUndone // the newest change is tried at once
	case put.Draining && i.ownMark && (i.accepted == nil || !i.accepted.Draining):
		want.Draining = false
	case put.Draining && i.status.MarkedByOther && i.accepted != nil && sameButMark(put, *i.accepted):
		want.Draining, i.status.MarkedByOther = false, false // nothing but the mark can be the cause
	case i.accepted == nil:
		i.refused, i.final = err, true
		return final
	case put.Equal(*i.accepted):
		return ordinary
	default:
		want, v = *i.accepted, changeUndone
		want.Draining = want.Draining || i.status.MarkedByOther // a change does not cost the mark of others
		i.refused = err
		i.status.Err = err
	}
	applied := i.accepted != nil && want.Equal(*i.accepted)
	i.ownMark = i.ownMark && want.Draining
	i.setWant(want)
	if applied {
		i.applied = i.version
	}
	return v
}

// transition is the status before and after an attempt.
type transition struct {
	was, is  RegistrationStatus
	endpoint Endpoint
	again    bool // the endpoint was registered before, if it is registered now
	final    bool // the content was refused for good
}

// setResult sets the status after an attempt: err and whether it means that the
// endpoint is not in the registry, or no error if the endpoint is there.
func (i *intent) setResult(err error, gone bool) transition {
	i.mu.Lock()
	defer i.mu.Unlock()
	was, s := i.status, &i.status
	s.Err = err
	if err == nil {
		s.Err = i.refused
	}
	switch {
	case err == nil:
		s.Registered, s.FailedAttempts = true, 0
	case gone && s.Registered:
		s.Registered = false
	case err != ErrReplaced: // errors.Is would call methods of the store's error under the lock
		s.FailedAttempts++
	}
	if s.Registered != was.Registered {
		s.Since = time.Now()
	}
	t := transition{was: was, is: *s, endpoint: i.want, again: i.everRegistered, final: i.final}
	i.everRegistered = i.everRegistered || s.Registered
	return t
}
