package migrateproof

import (
	"fmt"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
)

// anyService stands for all services in a phase source.
const anyService = "*"

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
	joined *migrate.Joined   // nil unless kind is joined
	source *migrate.Settable // nil unless kind is joined
}

// writes reports whether the program, a server, is to be in a registry.
func (p *program) writes(s side) bool {
	switch p.kind {
	case oldOnly:
		return s == oldSide
	case newOnly:
		return s == newSide
	}
	state, known := p.source.State(anyService)
	if s == oldSide {
		return !known || state.Phase <= migrate.NewRead
	}
	return !known || state.Phase >= migrate.DualWrite
}

// settled returns an error if the program, a reader, does not read as its phase says.
// covered says that the new registry has all servers.
func (p *program) settled(service string, covered bool) error {
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
		lead, narrow = "new", covered
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
	// Leases and entries are lost in single registries. The registration as a whole is also
	// lost for a moment when another registry begins to count.
	whole := *opts.Hooks
	whole.Lost = nil
	sideHooks := &naming.Hooks{Lost: opts.Hooks.Lost}
	client := *opts
	client.Hooks = &whole
	j, err := migrate.Join(old, next, p.source, &migrate.Options{
		Client: client, Hooks: hooks, OldHooks: sideHooks, NewHooks: sideHooks, LeaveDelay: pair.LeaveDelay,
	})
	if err != nil {
		return nil, err
	}
	p.joined = j
	return j.Client, nil
}
