package steer

import (
	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
)

// Condition is one thing that a gate needs.
type Condition struct {
	Name  string `json:"name"`
	Holds bool   `json:"holds"`
	// Why is what was seen. It is safe to print.
	Why string `json:"why"`
	// Opens is what to do about a condition that does not hold.
	Opens string `json:"opens,omitempty"`
	// Human says that no tool can see the condition: a person confirms it by its name.
	Human bool `json:"human,omitempty"`

	// passing says that the condition may fail for a moment, as servers restart.
	passing bool
}

// Gate is what a service needs for a step.
type Gate struct {
	Service string   `json:"service"`
	From    Position `json:"from"`
	To      Position `json:"to"`
	Open    bool     `json:"open"`
	// Conditions are all that the step needs, also what holds.
	Conditions []Condition `json:"conditions"`
}

// Closed returns the conditions that do not hold.
func (g *Gate) Closed() (list []Condition) {
	for _, c := range g.Conditions {
		if !c.Holds {
			list = append(list, c)
		}
	}
	return list
}

// Passing reports whether a gate is closed only by what may be different in a moment.
func (g *Gate) Passing() bool {
	for _, c := range g.Closed() {
		if !c.passing {
			return false
		}
	}
	return !g.Open
}

// The conditions that only a person can confirm.
const (
	// Readers is that no program reads the old registry alone.
	Readers = "readers"
)

// Human are the names of all conditions that only a person can confirm.
var Human = []string{Readers}

// Judge has what an operator has decided.
type Judge struct {
	// Accept is what may be different or lost.
	Accept migrate.Accept
	// Confirmed are the conditions of Human that a person has confirmed.
	Confirmed []string
}

// maxApart is how many phases programs may be apart.
const maxApart = 3

// Gate returns what a service needs for the step to a state. A step that is not ahead needs
// nothing. The first step needs that both registries were read: a record that could not be
// read may say that the migration is at its end.
func (j Judge) Gate(o Observation, to migrate.State) Gate {
	return j.gate(&o, to, needs(&o, to))
}

// gate looks at what a step needs. A step that is not ahead needs nothing.
func (j Judge) gate(o *Observation, to migrate.State, needs []need) Gate {
	g := Gate{Service: o.Service, From: PositionOf(o.State, o.Known), To: PositionOf(to, true), Conditions: []Condition{}}
	if o.Known && !Ahead(to, o.State) {
		needs = nil
	}
	for _, n := range needs {
		c := n(j, o, to)
		if !g.has(c.Name) {
			c.Why = naming.SafeText(c.Why)
			if c.Holds {
				c.Opens = ""
			}
			g.Conditions = append(g.Conditions, c)
		}
	}
	g.Open = len(g.Closed()) == 0
	return g
}

func (g *Gate) has(name string) bool {
	for _, c := range g.Conditions {
		if c.Name == name {
			return true
		}
	}
	return false
}

// needs returns what a step needs: of each phase that it enters or crosses, and of every step.
func needs(o *Observation, to migrate.State) []need {
	from := migrate.Old
	if o.Known {
		from = o.State.Phase
	}
	list := []need{answers, records, endpoints, apart}
	if to.Phase == migrate.PreferNew && from == migrate.PreferNew {
		return append(list, coverage)
	}
	for p := from + 1; p <= to.Phase; p++ {
		list = append(list, phaseNeeds[p]...)
	}
	return list
}

// phaseNeeds are what is needed to enter a phase.
var phaseNeeds = map[migrate.Phase][]need{
	migrate.DualWrite: {format},
	migrate.Shadow:    {registered},
	migrate.Union:     {parity},
	migrate.PreferNew: {parity, natives},
	migrate.NewRead:   {fullShare, coverage, natives},
	migrate.NewWrite:  {coverage, natives, readers},
	migrate.Done:      {oldEmpty, swept, readers},
}
