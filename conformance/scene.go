package conformance

import (
	"time"

	"github.com/naming-go/naming"
)

// scene is a service that only the check changes, and the watches of the service.
// Every watch must show every state that the scene advances to, and no other.
type scene struct {
	e       *env
	service string
	now     set
	readers []*reader
}

// newScene returns a scene of a service without endpoints, with no watch.
func (e *env) newScene(service string) *scene {
	return &scene{e: e, service: service, now: make(set)}
}

// watch adds a watch, and waits until the watch has yielded its first batch.
func (s *scene) watch() error {
	r := s.e.watch(s.service, s.now, nil)
	s.readers = append(s.readers, r)
	return r.begun()
}

// apply makes unconditional changes with one Apply, and waits until every watch
// shows their result.
func (s *scene) apply(changes ...naming.Change) error {
	next := clone(s.now)
	for i, c := range changes {
		next.apply(c)
		if !s.e.atomic && i < len(changes)-1 {
			for _, r := range s.readers {
				r.allow(next)
			}
		}
	}
	return s.advance(next, func() error { return s.e.apply(s.service, changes...) })
}

// advance calls act, which brings the service into its next state, and waits until
// every watch shows the next state.
func (s *scene) advance(next set, act func() error) error {
	return s.advanceWithin(patience, next, act)
}

// advanceWithin is advance with a limit for the wait.
func (s *scene) advanceWithin(limit time.Duration, next set, act func() error) error {
	for _, r := range s.readers {
		r.allow(next)
	}
	if err := act(); err != nil {
		return err
	}
	s.now = next
	for _, r := range s.readers {
		if err := r.await(limit, next); err != nil {
			return err
		}
	}
	return nil
}

// advanceLoosely is advanceWithin for an act that watches may show in several
// batches, such as the end of a lease with several endpoints.
func (s *scene) advanceLoosely(limit time.Duration, next set, act func() error) error {
	for _, r := range s.readers {
		r.acceptAny()
	}
	if err := act(); err != nil {
		return err
	}
	s.now = next
	for _, r := range s.readers {
		if err := r.settled(limit, next); err != nil {
			return err
		}
	}
	return nil
}

// flush puts one more endpoint and deletes it again: a watch that shows both has
// shown every earlier change. It returns an error if a list then is not the present
// state.
func (s *scene) flush() error {
	last := ep("flush", "10.0.0.255:80", "")
	if err := s.apply(add(nil, last)...); err != nil {
		return err
	}
	if err := s.apply(del(last)...); err != nil {
		return err
	}
	return s.e.listed(s.service, s.now)
}

// stays returns an error if the service does not keep its state, in the watches for
// the harness's Quiet and in a list afterwards.
func (s *scene) stays() error {
	if err := s.during(s.e.quiet); err != nil {
		return err
	}
	return s.e.listed(s.service, s.now)
}

// during waits for d. It returns an error if a watch breaks a rule or ends.
func (s *scene) during(d time.Duration) error {
	waits := make([]func() error, len(s.readers))
	for i, r := range s.readers {
		waits[i] = func() error { return r.during(d) }
	}
	if len(waits) == 0 {
		s.e.pause(d)
	}
	return together(waits...)
}
