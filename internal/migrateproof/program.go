package migrateproof

import (
	"fmt"
	"sync"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
)

// kind is which registries a program uses.
type kind int

const (
	joined  kind = iota // both, as the phase says
	oldOnly             // a program that was not upgraded
	newOnly             // a program that knows no migration any longer
)

// program is a server or a reader.
type program struct {
	kind   kind
	server bool
	joined *migrate.Joined // nil unless kind is joined
	source *dial           // nil unless kind is joined
}

// writes reports whether the program, a server, is to be in a registry.
func (p *program) writes(s side) bool {
	switch p.kind {
	case oldOnly:
		return s == oldSide
	case newOnly:
		return s == newSide
	}
	state, known := p.source.State("")
	if s == oldSide {
		return !known || state.Phase <= migrate.NewRead
	}
	return !known || state.Phase >= migrate.DualWrite
}

// settled returns an error if the program, a reader, does not read as its phase says.
func (p *program) settled(service string) error {
	if p.joined == nil {
		return nil
	}
	state, known := p.source.State(service)
	got := p.joined.Status(service)
	if got.Known != known || got.State != state || got.Reader == nil {
		return fmt.Errorf("the reader is in %v, want %v", got.State.Phase, state.Phase)
	}
	lead, narrow := "old", false
	switch {
	case !known || state.Phase == migrate.Union:
	case state.Phase == migrate.PreferNew && state.Share == 1, state.Phase >= migrate.NewRead:
		lead, narrow = "new", true
	case state.Phase == migrate.PreferNew:
		return nil // the share decides
	default:
		narrow = true
	}
	if r := got.Reader; r.Lead != lead || r.Narrow != narrow {
		return fmt.Errorf("a reader in %v prefers %q, narrow %v: %s", state.Phase, r.Lead, r.Narrow, r.Why)
	}
	return nil
}

// newClient returns the Client of a program on the pair.
func (p *program) newClient(pair *Pair, opts *naming.Options, hooks *migrate.Hooks) (*naming.Client, error) {
	old, next := pair.stores(p.server)
	switch p.kind {
	case oldOnly:
		return naming.New(old, opts), nil
	case newOnly:
		return naming.New(next, opts), nil
	}
	var sideHooks *naming.Hooks // leases and entries are lost in single registries
	if opts.Hooks != nil {
		sideHooks = &naming.Hooks{Lost: opts.Hooks.Lost}
	}
	j, err := migrate.Join(old, next, p.source, &migrate.Options{
		Client: *opts, Hooks: hooks, OldHooks: sideHooks, NewHooks: sideHooks, LeaveDelay: pair.LeaveDelay,
	})
	if err != nil {
		return nil, err
	}
	p.joined = j
	return j.Client, nil
}

// dial is a [migrate.Source] with one state for all services. The zero value knows no
// state.
type dial struct {
	mu        sync.Mutex
	state     migrate.State
	known     bool
	listeners map[*func()]func()
}

// set sets the state.
func (d *dial) set(s migrate.State) {
	for _, f := range d.store(s) {
		f()
	}
}

// store is set without the calls of the listeners, which it returns.
func (d *dial) store(s migrate.State) []func() {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.Seq = d.state.Seq + 1
	d.state, d.known = s, true
	var list []func()
	for _, f := range d.listeners {
		list = append(list, f)
	}
	return list
}

// State implements [migrate.Source].
func (d *dial) State(string) (migrate.State, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state, d.known
}

// Services implements [migrate.Source].
func (d *dial) Services() map[string]migrate.State {
	states := make(map[string]migrate.State)
	if s, known := d.State(""); known {
		states["*"] = s
	}
	return states
}

// Notify implements [migrate.Source].
func (d *dial) Notify(changed func()) (stop func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.listeners == nil {
		d.listeners = make(map[*func()]func())
	}
	key := &changed
	d.listeners[key] = changed
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.listeners, key)
	}
}

// Err implements [migrate.Source].
func (d *dial) Err() error { return nil }

// Close implements [migrate.Source].
func (d *dial) Close() {}
