package migrate

import (
	"cmp"
	"fmt"
	"strconv"

	"github.com/naming-go/naming"
)

// Phase is how far the migration of a service is. Servers and readers of a service may
// be in different phases, as a change of the phase reaches them at different times. They
// are safe together as long as they are at most three phases apart. The only unsafe
// pairs are a server in Old with a reader in NewRead or later, and a server in NewWrite
// or later with a reader in Shadow or earlier.
//
// A program may go from any phase to any other, in both directions.
type Phase uint8

const (
	// Old: servers register in the old registry, and readers use the old registry.
	Old Phase = iota
	// DualWrite: servers register in both registries, and readers use the old one.
	DualWrite
	// Shadow: as DualWrite. Readers also watch the new registry, and compare.
	Shadow
	// Union: servers register in both registries, and readers use the endpoints of
	// both. Where both have an endpoint, the data of the old registry count.
	Union
	// PreferNew: as Union, but the share of clients that [State.Share] says uses the
	// new registry alone while it covers the old one. The data of the new registry
	// count.
	PreferNew
	// NewRead: servers register in both registries. Readers use the new one, and what
	// it does not cover of the old one, until it does.
	NewRead
	// NewWrite: servers register in the new registry, and readers use the new one.
	NewWrite
	// Done: as NewWrite. The old registry may be switched off.
	Done
)

const phases = 8

var phaseNames = [phases]string{"old", "dual-write", "shadow", "union", "prefer-new", "new-read", "new-write", "done"}

// String returns the name of the phase, such as "dual-write".
func (p Phase) String() string {
	if p < phases {
		return phaseNames[p]
	}
	return "Phase(" + strconv.Itoa(int(p)) + ")"
}

// ParsePhase returns the phase with a name, as String returns it, or with a number from
// 0 to 7. The error is [naming.ErrInvalid].
func ParsePhase(s string) (Phase, error) {
	for p, name := range phaseNames {
		if s == name || s == strconv.Itoa(p) {
			return Phase(p), nil
		}
	}
	return 0, fmt.Errorf("migrate: %w: %q is not a phase: a phase is a number from 0 to 7, or one of %q", naming.ErrInvalid, s[:min(len(s), 64)], phaseNames)
}

// writes reports whether servers register in registry i in phase p.
func (p Phase) writes(i sideIndex) bool {
	if i == oldSide {
		return p <= NewRead
	}
	return p >= DualWrite
}

// counts returns the registry whose registration counts in phase p.
func (p Phase) counts() sideIndex {
	if p <= Union {
		return oldSide
	}
	return newSide
}

// State is the phase of a service, and who set it.
type State struct {
	// Phase is the phase.
	Phase Phase
	// Share is the part of the clients that prefer the new registry in PreferNew,
	// from 0 to 1. Other phases ignore it.
	Share float64
	// Seq is the number of the change. Of two states of a service, the state with
	// the higher Seq counts. If both have the same Seq, the state with the lower
	// phase counts, and then the state with the lower share.
	Seq uint64
	// By says who made the change, for people.
	By string
}

// Valid returns an error if the phase or the share is out of range. The error is
// [naming.ErrInvalid].
func (s State) Valid() error {
	if s.Phase >= phases {
		return fmt.Errorf("migrate: %w: %v is not a phase: the last is %v", naming.ErrInvalid, s.Phase, Done)
	}
	if !(s.Share >= 0 && s.Share <= 1) { // also if it is not a number
		return fmt.Errorf("migrate: %w: share %v is not between 0 and 1", naming.ErrInvalid, s.Share)
	}
	return nil
}

// supersedes reports whether s counts, and not o. The order is total, so that all
// programs choose the same state of two, whichever they read first.
func (s State) supersedes(o State) bool {
	return cmp.Or(cmp.Compare(o.Seq, s.Seq), cmp.Compare(s.Phase, o.Phase), cmp.Compare(s.Share, o.Share), cmp.Compare(s.By, o.By)) < 0
}

// Source says in which phase each service is. [Fixed], [File] and [Records] return a
// Source, and [Settable] is a Source. All methods may be called concurrently.
type Source interface {
	// State returns the present state of a service: the state that is set for the
	// service itself, or else the state of the service "*". It is false if the state
	// is not known: the source has neither of both, or could not be read since the
	// program began. Servers then register in both registries, and readers use the
	// endpoints of both. A source that was read before, and cannot be read now,
	// returns the last state.
	//
	// It does not block.
	State(service string) (State, bool)

	// Services returns all states that are set: those of single services, and the
	// state of the service "*", which all other services have. The map belongs to
	// the caller.
	Services() map[string]State

	// Notify has changed called after each change of a state, until stop is called.
	// States that change together cause a single call. changed must not block, nor
	// call methods of the Source. It may be called once more during or just after
	// stop.
	Notify(changed func()) (stop func())

	// Err returns why the source cannot be read at present, or nil.
	Err() error

	// Close frees what the source holds, and ends its goroutines. The last states
	// remain. It may be called more than once.
	Close()
}
