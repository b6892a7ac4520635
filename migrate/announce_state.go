package migrate

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/naming-go/naming"
)

// content is what an owner may change of an announced endpoint.
type content struct {
	metadata json.RawMessage
	draining bool
}

func (c content) equal(o content) bool {
	return naming.Endpoint{Metadata: c.metadata, Draining: c.draining}.Equal(naming.Endpoint{Metadata: o.metadata, Draining: o.draining})
}

// aspect is a part of the content that is changed, and may be refused, by itself.
type aspect int

const (
	metadataAspect aspect = iota
	drainingAspect
	aspects
	bothAspects // only an argument of ask
)

// set sets one aspect of the content to that of from.
func (c *content) set(which aspect, from content) {
	if which == metadataAspect {
		c.metadata = from.metadata
	} else {
		c.draining = from.draining
	}
}

// versions has the version of each aspect of a content. Versions of a wanted content begin
// with 1.
type versions [aspects]int

// announcementState is the wanted content of an announcement, its plan, its status, and
// the calls that wait. Its methods lock it, except for those that say otherwise.
type announcementState struct {
	// mu guards all fields. It may be held while the status of a registration is read.
	mu sync.Mutex

	// Also guarded by mu:
	turn    context.Context // done when something has changed that a part may have to act on; then replaced
	endTurn context.CancelFunc
	end     chan struct{} // closed when run has to end

	// Also guarded by mu:
	endpoint  naming.Endpoint // ID and address
	plan      plan
	unwritten [2]time.Time // since when the plan does not write a registry; zero: it does
	parts     [2]partState

	// Also guarded by mu:
	want            content
	version         versions // counts the changes of want
	accepted        content  // the content that the registry that counts accepted last, or the first content
	acceptedVersion versions // 0: none was accepted
	calls           []*call

	// Also guarded by mu:
	status   naming.RegistrationStatus
	replaced bool      // a newer announcement owns the endpoint
	farewell *farewell // not nil: Close has begun
}

// partState is the state of an endpoint in one registry.
type partState struct {
	registration *naming.Registration // nil: the endpoint is not to be in the registry
	given        versions             // the content that Register got
	answered     versions             // the content that the registry has, or has refused
	refused      [aspects]error       // why the registry has refused the content that it has answered
	unmarked     error                // why the registry has the given content without the mark; nil: it has the mark
	registered   bool                 // the endpoint was in the registry since Register
	seen         presence             // the status of the registration, as of the last refresh
	leftWith     error                // why the endpoint could not be removed from the registry
	leftUntil    time.Time            // when the lease of the endpoint that was left there has ended
	carries      bool                 // somebody else had marked the endpoint in the other registry when it was registered here
	inherited    bool                 // a newer announcement that was closed had the endpoint there, so that it has to be registered
}

// presence is what the parts act on of the status of a registration.
type presence struct {
	registered bool
	since      time.Time
	replaced   bool // a newer announcement has the entry
}

// farewell says how the announcement ends.
type farewell struct {
	ctx   context.Context
	drain bool // mark the endpoint as draining first
}

// call is a method call that waits until the registry that counts has a content.
type call struct {
	version versions   // of the content; 0: any
	done    chan error // capacity 1
}

func (s *announcementState) init(e naming.Endpoint) {
	s.turn, s.endTurn = context.WithCancel(context.Background())
	s.end = make(chan struct{})
	s.endpoint = naming.Endpoint{ID: e.ID, Addr: e.Addr}
	s.want = content{metadata: e.Metadata, draining: e.Draining}
	s.accepted = s.want
	s.version = versions{1, 1}
	s.status = naming.RegistrationStatus{Since: time.Now(), Draining: e.Draining}
}

// changed begins a new turn. mu is held.
func (s *announcementState) changed() {
	s.endTurn()
	s.turn, s.endTurn = context.WithCancel(context.Background())
}

// inherit says that the announcement owns the endpoint, and in which registries the owner
// of before had the endpoint. Its parts look at the state again, as run may have missed
// that another announcement owned the endpoint.
func (s *announcementState) inherit(present [2]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.parts {
		p := &s.parts[i]
		p.inherited = p.inherited || present[i] && p.registration == nil
	}
	s.changed()
}

// ending returns a channel that is closed when the announcement has ended.
func (s *announcementState) ending() <-chan struct{} { return s.end }

// endRun closes the channel of ending.
func (s *announcementState) endRun() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endTurn()
	close(s.end)
}

func (s *announcementState) setPlan(p plan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p == s.plan {
		return
	}
	// Other programs may have seen states that this one missed.
	missed := p.seq != s.plan.seq+1
	s.plan = p
	for i, written := range p.written {
		switch {
		case written:
			s.unwritten[i] = time.Time{}
		case missed, s.unwritten[i].IsZero():
			s.unwritten[i] = time.Now()
		}
	}
	s.changed()
}

func (s *announcementState) writes(i sideIndex) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.plan.written[i]
}

// isPresent reports whether the endpoint is registered in a registry, or is to be.
func (s *announcementState) isPresent(i sideIndex) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parts[i].registration != nil || s.parts[i].inherited
}

// wantedEndpoint returns the endpoint with the wanted content, and the content's version.
func (s *announcementState) wantedEndpoint() (naming.Endpoint, versions) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.endpoint
	e.Metadata, e.Draining = s.want.metadata, s.want.draining
	return e, s.version
}

// setPresent says that the endpoint is registered in a registry, with a version of the
// content.
func (s *announcementState) setPresent(i sideIndex, r *naming.Registration, given versions) {
	s.mu.Lock()
	defer s.mu.Unlock()
	other, present := s.partStatusLocked(i.other())
	s.parts[i] = partState{registration: r, given: given, carries: present && other.MarkedByOther}
	s.changed()
}

// setCarried says that the part need not carry the mark of the other registry.
func (s *announcementState) setCarried(i sideIndex) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts[i].carries = false
}

// setAbsent says that the endpoint leaves a registry.
func (s *announcementState) setAbsent(i sideIndex) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts[i] = partState{}
	s.changed()
}

// setLeft says whether the endpoint could be removed from a registry that it leaves, and
// until when the endpoint may stay listed otherwise.
func (s *announcementState) setLeft(i sideIndex, err error, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.parts[i].registration == nil { // otherwise the phase has changed back meanwhile
		s.parts[i].leftWith, s.parts[i].leftUntil = err, until
	}
}

// setUnmarked says that a registry refused the draining mark of the given content.
func (s *announcementState) setUnmarked(i sideIndex, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts[i].unmarked = err
}

// setAnswer says that a registry has a version of an aspect, or why it has refused the
// version.
func (s *announcementState) setAnswer(i sideIndex, which aspect, version int, refused error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.parts[i]
	p.answered[which], p.refused[which] = version, refused
	if which == drainingAspect && version != p.given[which] {
		p.unmarked = nil
	}
}

// partStatus returns the status of the registration in a registry. It returns false if the
// endpoint is not registered there.
func (s *announcementState) partStatus(i sideIndex) (naming.RegistrationStatus, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.partStatusLocked(i)
}

// partStatusLocked is partStatus. mu is held.
func (s *announcementState) partStatusLocked(i sideIndex) (naming.RegistrationStatus, bool) {
	p := &s.parts[i]
	if p.registration == nil {
		return naming.RegistrationStatus{}, false
	}
	st := p.registration.Status()
	for _, refused := range p.refused {
		if st.Err == nil {
			st.Err = refused
		}
	}
	return st, true
}

func (s *announcementState) currentStatus() naming.RegistrationStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// refresh computes the status of the whole from the parts. newest says that the announcement
// owns the endpoint.
func (s *announcementState) refresh(newest bool) reading {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.parts {
		s.refreshPart(sideIndex(i))
	}
	if s.replaced == newest {
		s.replaced = !newest
		s.changed()
	}
	was, is := s.status, s.wholeStatus()
	if s.farewell != nil {
		// The removal is not reported, as it is not a loss.
		draining := is.Draining
		is = was
		is.Draining = draining
	}
	if is.Registered != was.Registered {
		is.Since = time.Now()
	}
	s.status = is
	now := reading{status: is, endpoint: s.endpoint, counting: s.plan.counting, replaced: s.replaced, closing: s.farewell != nil}
	now.endpoint.Metadata, now.endpoint.Draining = s.want.metadata, s.want.draining
	for i := range now.parts {
		now.parts[i], _ = s.partStatusLocked(sideIndex(i))
	}
	return now
}

// refreshPart begins a new turn if the status of a registration has changed in a way that
// a part may have to act on. mu is held.
func (s *announcementState) refreshPart(i sideIndex) {
	p := &s.parts[i]
	if p.registration == nil {
		return
	}
	st := p.registration.Status()
	is := presence{registered: st.Registered, since: st.Since, replaced: st.Err == naming.ErrReplaced}
	if is == p.seen {
		return
	}
	p.seen = is
	if refused := errors.Join(p.refused[:]...); is.registered && !p.registered && refused != nil {
		// The registry refused the endpoint and then accepted it, so it is asked again
		// whether it has the content.
		p.answered, p.refused = versions{}, [aspects]error{}
	}
	p.registered = p.registered || is.registered
	s.changed()
}

// wholeStatus returns the status as the registry that counts says. mu is held.
func (s *announcementState) wholeStatus() naming.RegistrationStatus {
	is := naming.RegistrationStatus{Since: s.status.Since, Draining: s.want.draining, Closed: s.status.Closed}
	switch {
	case s.replaced:
		is.Err = naming.ErrReplaced
	case s.plan.counting == noSide:
		is.Registered = true
	default:
		st, _ := s.partStatusLocked(s.plan.counting)
		is.Registered, is.Err, is.FailedAttempts, is.Withheld = st.Registered, st.Err, st.FailedAttempts, st.Withheld
		is.Draining = is.Draining || s.farewell != nil && st.Draining
	}
	if s.farewell == nil && s.markedByOther() {
		is.Draining, is.MarkedByOther = true, true
	}
	return is
}

// markedByOther reports whether somebody else has marked the endpoint as draining in one of
// the registries. mu is held.
func (s *announcementState) markedByOther() bool {
	for i := range s.parts {
		if st, present := s.partStatusLocked(sideIndex(i)); present && st.MarkedByOther {
			return true
		}
	}
	return false
}

// ask changes the wanted content, if change is not nil, and returns a call that ends when
// the registry that counts has the result. change runs with the lock held.
func (s *announcementState) ask(which aspect, change func(*content)) *call {
	c := &call{done: make(chan error, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.farewell != nil {
		return c // await returns the error
	}
	if change != nil {
		want := s.want
		// A Resume also removes the mark that somebody else has set.
		if change(&want); !want.equal(s.want) || which == drainingAspect && s.markedByOther() {
			s.setWant(which, want)
		}
	}
	for i := range c.version {
		if which == bothAspects || which == aspect(i) {
			c.version[i] = s.version[i]
		}
	}
	s.calls = append(s.calls, c)
	return c
}

// setWant changes an aspect of the wanted content. mu is held.
func (s *announcementState) setWant(which aspect, want content) {
	s.want.set(which, want)
	s.version[which]++
	s.status.Draining = s.want.draining
	s.changed()
}

func (s *announcementState) forgetCall(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = slices.DeleteFunc(s.calls, func(other *call) bool { return other == c })
}

// settle ends the calls that have their result. If the registry that counts refused the
// wanted content, the content of before is wanted in both registries again.
func (s *announcementState) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = slices.DeleteFunc(s.calls, func(c *call) bool {
		err, ended := s.result(c)
		if ended {
			c.done <- err
		}
		return ended
	})
	if s.replaced || s.plan.counting == noSide {
		return
	}
	for which := range aspects {
		s.settleAspect(which, &s.parts[s.plan.counting])
	}
}

// settleAspect notes that an aspect of the wanted content was accepted, or undoes its
// change if the change was refused. mu is held.
func (s *announcementState) settleAspect(which aspect, counting *partState) {
	v := s.version[which]
	if counting.answered[which] != v || s.acceptedVersion[which] == v {
		return
	}
	if counting.refused[which] == nil {
		s.accepted.set(which, s.want)
		s.acceptedVersion[which] = v
		return
	}
	// Refused metadata are undone only if earlier metadata were accepted. Otherwise the
	// registry would refuse the earlier metadata as well. The mark is always undone,
	// unless Register asked for the mark.
	if s.acceptedVersion[which] > 0 || which == drainingAspect && v > 1 {
		s.setWant(which, s.accepted)
	}
}

// result returns the result of a call, and false if the call has to wait. mu is held.
func (s *announcementState) result(c *call) (err error, ended bool) {
	if s.replaced {
		return naming.ErrReplaced, true
	}
	if s.plan.counting == noSide {
		return nil, true
	}
	p := &s.parts[s.plan.counting]
	ended = s.status.Registered
	for i, v := range c.version {
		switch {
		case v == 0:
		case p.answered[i] < v:
			ended = false
		case p.refused[i] != nil:
			return p.refused[i], true
		}
	}
	return nil, ended
}

// setClosed begins the end of the announcement. It reports false if the end has begun
// before.
func (s *announcementState) setClosed(f farewell) (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.farewell != nil {
		return false
	}
	s.farewell = &f
	s.status.Closed = true
	s.changed()
	return true
}

// setWithdrawn says that the endpoint was withdrawn.
func (s *announcementState) setWithdrawn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.Registered {
		s.status.Registered, s.status.Since = false, time.Now()
	}
}
