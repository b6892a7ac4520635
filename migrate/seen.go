package migrate

import (
	"context"
	"log/slog"
	"sync"
)

// seenStates are the states of the services that this program uses, as they were reported
// last. Readers and servers of a service share one entry. All methods may be called
// concurrently.
type seenStates struct {
	mu        sync.Mutex
	byService map[string]*seenState // guarded by mu; the services that are used
}

// seenState is what is known of a service. seenStates.mu guards all fields.
type seenState struct {
	users int // readers and servers
	last  phaseState
	used  bool // last was reported
	asked bool // the state has to be read again
	busy  bool // a goroutine is in report
}

// phaseState is the result of Joined.state.
type phaseState struct {
	state State
	known bool
}

// use begins the use of a service. The caller ends it with release.
func (s *seenStates) use(service string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byService == nil {
		s.byService = make(map[string]*seenState)
	}
	if s.byService[service] == nil {
		s.byService[service] = new(seenState)
	}
	s.byService[service].users++
}

// release ends the use of a service. The entry of a service without users is dropped, so
// that the memory of a program that uses many services one after the other is bounded.
func (s *seenStates) release(service string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.byService[service]
	if e.users--; e.users == 0 {
		delete(s.byService, service)
	}
}

// report has the state of a service that is used logged, and the hook called, if the state
// is not what was reported last. If another goroutine reports the service, the other one
// reads the state again, and report returns at once. So reports are in order, and the last
// report has the present state, although readers and servers may read states late.
func (s *seenStates) report(j *Joined, service string) {
	e := s.begin(service)
	if e == nil {
		return
	}
	ended := false
	defer func() {
		if !ended { // a call of the program panicked, and the program may recover
			s.end(e)
		}
	}()
	for s.next(e) {
		state, known := j.state(service)
		is := phaseState{state, known}
		if was, changed := s.set(e, is); changed {
			j.reportPhase(service, was, is)
		}
	}
	ended = true
}

// begin asks for a report. It returns nil if another goroutine makes it.
func (s *seenStates) begin(service string) *seenState {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.byService[service]
	if e == nil {
		return nil // the last user has ended meanwhile
	}
	e.asked = true
	if e.busy {
		return nil
	}
	e.busy = true
	return e
}

// next reports whether the state has to be read. Otherwise the report has ended.
func (s *seenStates) next(e *seenState) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := e.asked
	e.asked, e.busy = false, asked
	return asked
}

func (s *seenStates) end(e *seenState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.busy = false
}

// set sets the state that was reported last. It returns the one of before, and whether the
// new one has to be reported.
func (s *seenStates) set(e *seenState, is phaseState) (was phaseState, changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, changed = e.last, !e.used || e.last != is
	e.last, e.used = is, true
	return was, changed
}

// reportPhase logs a new state of a service, and calls the hook.
func (j *Joined) reportPhase(service string, was, is phaseState) {
	level := slog.LevelDebug
	if was.known {
		level = slog.LevelInfo
	}
	j.log.Log(context.Background(), level, "naming: phase of the migration", slog.String("service", service),
		slog.String("phase", is.state.Phase.String()), slog.Float64("share", is.state.Share), slog.Uint64("seq", is.state.Seq), slog.Bool("known", is.known))
	if h := j.opts.Hooks; h != nil && h.PhaseChanged != nil {
		h.PhaseChanged(PhaseChangedInfo{Service: service, From: was.state, To: is.state, WasKnown: was.known, Known: is.known})
	}
}
