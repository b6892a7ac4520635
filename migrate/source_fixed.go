package migrate

import (
	"fmt"

	"github.com/naming-go/naming"
)

// Fixed returns a Source in which all services have one state, which never changes. A
// state that is not valid is unknown, and Err says why.
func Fixed(s State) Source {
	f := new(fixed)
	if err := s.Valid(); err != nil {
		f.setErr(err)
		return f
	}
	f.replace(map[string]State{anyService: s})
	return f
}

type fixed struct{ stateTable }

// Close implements [Source].
func (*fixed) Close() {}

// Settable is a [Source] whose states the program sets: from a configuration of its own,
// or in a test. The zero value knows no state, and is ready to use. It must not be
// copied.
type Settable struct{ stateTable }

// Set sets the state of a service, or of all services without a state of their own if
// service is "*". It returns after the functions of Notify were called.
//
// A Seq of 0 means one more than the Seq of the present state. With another Seq, the
// state must count more than the present state, by the rules of [State.Seq]. To set the
// present state again does nothing. The error is [naming.ErrInvalid], and nothing has
// changed then.
func (s *Settable) Set(service string, state State) error {
	if err := naming.CheckService(service); err != nil {
		return fmt.Errorf("migrate: set a phase: %w", err)
	}
	if err := state.Valid(); err != nil {
		return fmt.Errorf("service %q: %w", service, err)
	}
	var refused error
	s.update(func(states map[string]State) (map[string]State, bool) {
		present, known := states[service]
		next := state
		if state.Seq == 0 {
			next.Seq = present.Seq
			if next != present {
				next.Seq++
			}
		}
		switch {
		case known && next == present:
			return states, false
		case known && !next.supersedes(present):
			refused = fmt.Errorf("migrate: set a phase of service %q: %w: %v with seq %d does not count more than the present %v with seq %d",
				service, naming.ErrInvalid, next.Phase, next.Seq, present.Phase, present.Seq)
			return states, false
		}
		if states == nil {
			states = make(map[string]State)
		}
		states[service] = next
		return states, true
	})
	return refused
}

// Close implements [Source]. It does nothing.
func (s *Settable) Close() {}
