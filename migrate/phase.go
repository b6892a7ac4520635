package migrate

import (
	"fmt"
	"strconv"
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
// 0 to 7.
func ParsePhase(s string) (Phase, error) {
	for p, name := range phaseNames {
		if s == name || s == strconv.Itoa(p) {
			return Phase(p), nil
		}
	}
	return 0, fmt.Errorf("migrate: %q is not a phase: a phase is a number from 0 to 7, or one of %q", s[:min(len(s), 64)], phaseNames)
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
	// Seq is the number of the change. Of two states the one with the higher Seq
	// counts, and of two with the same Seq the one with the lower phase.
	Seq uint64
	// By says who made the change, for people.
	By string
}

// Valid returns an error if the phase or the share is out of range.
func (s State) Valid() error {
	if s.Phase >= phases {
		return fmt.Errorf("migrate: %v is not a phase: the last is %v", s.Phase, Done)
	}
	if !(s.Share >= 0 && s.Share <= 1) { // also if it is not a number
		return fmt.Errorf("migrate: share %v is not between 0 and 1", s.Share)
	}
	return nil
}

// supersedes reports whether s counts, and not o.
func (s State) supersedes(o State) bool {
	return s.Seq > o.Seq || s.Seq == o.Seq && s.Phase < o.Phase
}

// Source says in which phase each service is. [Fixed], [File] and [Records] return one.
// All methods may be called concurrently.
type Source interface {
	// State returns the present state of a service. It is false if the state is not
	// known, because the source could not be read since the program began. Servers
	// then register in both registries, and readers use the endpoints of both. A
	// source that was read once, and cannot be read now, returns the last state.
	//
	// It does not block.
	State(service string) (State, bool)

	// Services returns the states that are set for single services. The state of
	// all other services is that of the service "*", and is in the result if it is
	// known. The map belongs to the caller.
	Services() map[string]State

	// Notify has changed called after each change of a state, until stop is called.
	// changed must not block, nor call methods of the Source. It may be called once
	// more during or just after stop.
	Notify(changed func()) (stop func())

	// Err returns why the source cannot be read at present, or nil.
	Err() error

	// Close frees what the source holds. The last states remain.
	Close()
}
