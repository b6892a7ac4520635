package migrate

import (
	"maps"
	"sync"
)

// anyService is the name under which the state of all services stands that have no state
// of their own.
const anyService = "*"

// stateTable is the states that a source knows, and the functions to call when they
// change. The zero value knows no state. All methods may be called concurrently.
type stateTable struct {
	mu        sync.Mutex
	states    map[string]State
	err       error
	listeners map[*listener]struct{}
}

// listener is one call of Notify.
type listener struct{ changed func() }

// State implements [Source].
func (t *stateTable) State(service string) (State, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.states[service]
	if !ok {
		s, ok = t.states[anyService]
	}
	return s, ok
}

// Services implements [Source].
func (t *stateTable) Services() map[string]State {
	t.mu.Lock()
	defer t.mu.Unlock()
	services := make(map[string]State, len(t.states))
	maps.Copy(services, t.states)
	return services
}

// Notify implements [Source].
func (t *stateTable) Notify(changed func()) (stop func()) {
	l := &listener{changed}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.listeners == nil {
		t.listeners = make(map[*listener]struct{})
	}
	t.listeners[l] = struct{}{}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.listeners, l)
	}
}

// Err implements [Source].
func (t *stateTable) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// setErr sets the result of Err.
func (t *stateTable) setErr(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = err
}

// replace replaces all states. It calls the listeners if a state changed.
func (t *stateTable) replace(states map[string]State) {
	t.update(func(present map[string]State) (map[string]State, bool) {
		return states, !maps.Equal(present, states)
	})
}

// update replaces the states by the result of change, which may modify its argument. If
// change reports that a state changed, update calls the listeners.
func (t *stateTable) update(change func(map[string]State) (map[string]State, bool)) {
	for _, l := range t.apply(change) {
		l.changed()
	}
}

// apply is update without the calls of the listeners, which must not be made under the
// lock. It returns the listeners to call.
func (t *stateTable) apply(change func(map[string]State) (map[string]State, bool)) []*listener {
	t.mu.Lock()
	defer t.mu.Unlock()
	states, changed := change(t.states)
	t.states = states
	if !changed {
		return nil
	}
	list := make([]*listener, 0, len(t.listeners))
	for l := range t.listeners {
		list = append(list, l)
	}
	return list
}
