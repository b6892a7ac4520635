package steer

import (
	"fmt"

	"github.com/naming-go/naming/migrate"
)

// Shares are the parts of the clients that Next raises the canary to, one after the other.
var Shares = []float64{0.01, 0.1, 0.5, 1}

// Position is the state of a service in documents and texts.
type Position struct {
	Phase  string  `json:"phase"` // the name, or "unknown"
	Number int     `json:"number"`
	Share  float64 `json:"share,omitempty"` // of the clients, in prefer-new
}

// unknownPhase is the name of the position of a service without a record.
const unknownPhase = "unknown"

// PositionOf returns the position of a state. The number is -1 if the state is not known.
func PositionOf(s migrate.State, known bool) Position {
	if !known {
		return Position{Phase: unknownPhase, Number: -1}
	}
	p := Position{Phase: s.Phase.String(), Number: int(s.Phase)}
	if s.Phase == migrate.PreferNew {
		p.Share = s.Share
	}
	return p
}

// String returns the number and the name of the phase, such as "3 union".
func (p Position) String() string {
	switch {
	case p.Number < 0:
		return p.Phase
	case p.Phase == migrate.PreferNew.String():
		return fmt.Sprintf("%d %s %g", p.Number, p.Phase, p.Share)
	}
	return fmt.Sprintf("%d %s", p.Number, p.Phase)
}

// Next returns the state one step ahead, and false at the end. The first state is Old. In
// PreferNew the steps are Shares.
func Next(now migrate.State, known bool) (migrate.State, bool) {
	switch {
	case !known:
		return migrate.State{Phase: migrate.Old}, true
	case now.Phase >= migrate.Done:
		return now, false
	case now.Phase == migrate.Union:
		return migrate.State{Phase: migrate.PreferNew, Share: Shares[0]}, true
	case now.Phase == migrate.PreferNew:
		for _, share := range Shares {
			if share > now.Share {
				return migrate.State{Phase: migrate.PreferNew, Share: share}, true
			}
		}
	}
	return migrate.State{Phase: now.Phase + 1}, true
}

// Back returns the state one step back, and false at the beginning and for a state that is
// not known. From NewWrite and Done it is NewRead: servers register in both registries there,
// before a reader uses the old one alone.
func Back(now migrate.State, known bool) (migrate.State, bool) {
	switch {
	case !known || now.Phase == migrate.Old:
		return now, false
	case now.Phase >= migrate.NewWrite:
		return migrate.State{Phase: migrate.NewRead}, true
	case now.Phase == migrate.NewRead:
		return migrate.State{Phase: migrate.PreferNew, Share: 1}, true
	}
	return migrate.State{Phase: now.Phase - 1}, true
}

// Ahead reports whether a state is further than another one.
func Ahead(s, than migrate.State) bool {
	if s.Phase == migrate.PreferNew && than.Phase == migrate.PreferNew {
		return s.Share > than.Share
	}
	return s.Phase > than.Phase
}

// BackWarnings returns what an operator should know about a step back. A step back is never
// refused.
func BackWarnings(o Observation, to migrate.State) (warnings []string) {
	if o.Known && o.State.Phase >= migrate.NewWrite && to.Phase < migrate.NewRead {
		warnings = append(warnings, "servers are in the new registry only: a program that starts may find the old one empty. Go to new-read first, and wait until every server is registered in the old registry")
	}
	if o.Old.Err != nil && to.Phase <= migrate.Union {
		warnings = append(warnings, "the old registry does not answer: a server that starts is not ready before the old registry has it. Phase prefer-new or new-read avoids that")
	}
	if o.New.Err != nil && to.Phase >= migrate.PreferNew {
		warnings = append(warnings, "the new registry does not answer: a server that starts is not ready before the new registry has it. Phase union or a lower one avoids that")
	}
	return warnings
}
