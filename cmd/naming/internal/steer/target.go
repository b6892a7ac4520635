package steer

import (
	"fmt"
	"slices"

	"github.com/naming-go/naming/migrate"
)

// Target is a record that a step writes, and the services that the record is about.
type Target struct {
	// Record is the name of a service, or AllServices.
	Record string
	// Known says that a state counts for the record. State is that state.
	Known bool
	State migrate.State
	// Services are the services that the step moves.
	Services []Observation
}

// Targets returns the records that a step of some services writes. The name [AllServices] is
// the record of all services without a record of their own. Without names, all records are
// returned.
func Targets(w *World, names ...string) []Target {
	all := Target{Record: AllServices}
	all.State, all.Known = w.Records.States()[AllServices]
	var list []Target
	for _, o := range w.Services {
		if !o.Own && !slices.Contains(names, o.Service) {
			all.Services = append(all.Services, o)
		} else if o.Own && len(names) == 0 || slices.Contains(names, o.Service) {
			list = append(list, Target{Record: o.Service, Known: o.Known, State: o.State, Services: []Observation{o}})
		}
	}
	if wantsAll(names) {
		list = append([]Target{all}, list...)
	}
	return list
}

// Gates returns the gates of all services of a Target. A Target without services has a gate
// of its own: both registries have to answer.
func (j Judge) Gates(w *World, t Target, to migrate.State) []Gate {
	if len(t.Services) == 0 {
		o := w.bare(t.Record)
		o.State, o.Known = t.State, t.Known
		return []Gate{j.gate(&o, to, []need{answers, records, apart})}
	}
	var gates []Gate
	for _, o := range t.Services {
		gates = append(gates, j.Gate(o, to))
	}
	return gates
}

// Moved returns the positions of a record in an earlier and in a later read of the records,
// and whether somebody has written another state between them. It returns false if one of
// the reads is not complete, since the registry that failed may have the record that counts.
func Moved(earlier, later migrate.BothRecords, record string) (was, is Position, moved bool) {
	if earlier.Err() != nil || later.Err() != nil {
		return was, is, false
	}
	before, had := counting(earlier.States(), record)
	after, has := counting(later.States(), record)
	return PositionOf(before, had), PositionOf(after, has), had != has || before != after
}

// counting returns the state that counts for a record: its own, or that of AllServices.
func counting(states map[string]migrate.State, record string) (migrate.State, bool) {
	if s, ok := states[record]; ok {
		return s, true
	}
	s, ok := states[AllServices]
	return s, ok
}

// Wish is where an operator wants a service to go. The zero Wish is one step.
type Wish struct {
	// Phase is the phase, if HasPhase is true.
	Phase    migrate.Phase
	HasPhase bool
	// Share is the part of the clients that prefer the new registry, if HasShare is true.
	// Without a phase it means PreferNew.
	Share    float64
	HasShare bool
}

// Valid returns an error for a Wish that can never be met.
func (w Wish) Valid() error {
	switch {
	case w.HasShare && !(w.Share >= 0 && w.Share <= 1):
		return fmt.Errorf("the share %g is not a number from 0 to 1", w.Share)
	case w.HasShare && w.HasPhase && w.Phase != migrate.PreferNew:
		return fmt.Errorf("the phase %v has no share: only %v has one", w.Phase, migrate.PreferNew)
	}
	return nil
}

// state returns the state that a Wish names, and false if it names none.
func (w Wish) state(now migrate.State) (migrate.State, bool) {
	switch {
	case w.HasShare:
		return migrate.State{Phase: migrate.PreferNew, Share: w.Share}, true
	case !w.HasPhase:
		return migrate.State{}, false
	case w.Phase == migrate.PreferNew && now.Phase == migrate.PreferNew:
		return migrate.State{Phase: w.Phase, Share: now.Share}, true
	case w.Phase == migrate.PreferNew && now.Phase > migrate.PreferNew:
		return migrate.State{Phase: w.Phase, Share: 1}, true
	case w.Phase == migrate.PreferNew:
		return migrate.State{Phase: w.Phase, Share: Shares[0]}, true
	}
	return migrate.State{Phase: w.Phase}, true
}

// Forward returns the state that a step ahead goes to. The present state is not an error: to
// write the state again repairs a registry that has an older record.
func (w Wish) Forward(t Target) (migrate.State, error) {
	to, named := w.state(t.State)
	if !named {
		next, ok := Next(t.State, t.Known)
		if !ok {
			return next, fmt.Errorf("%v is the last phase: deploy the programs with the new registry alone. Then delete the record from both registries: naming deregister %s %s", t.State.Phase, migrate.RecordService, Word(t.Record))
		}
		return next, nil
	}
	if t.Known && Ahead(t.State, to) {
		return to, fmt.Errorf("%v is behind %v: use 'naming migrate back'", PositionOf(to, true), PositionOf(t.State, true))
	}
	return to, nil
}

// Backward returns the state that a step back goes to. The present state is not an error.
func (w Wish) Backward(t Target) (migrate.State, error) {
	to, named := w.state(t.State)
	if !named {
		prev, ok := Back(t.State, t.Known)
		switch {
		case !t.Known:
			return prev, fmt.Errorf("the phase is not known: name one with --to")
		case !ok:
			return prev, fmt.Errorf("%v is the first phase", t.State.Phase)
		}
		return prev, nil
	}
	if t.Known && Ahead(to, t.State) {
		return to, fmt.Errorf("%v is ahead of %v: use 'naming migrate advance'", PositionOf(to, true), PositionOf(t.State, true))
	}
	return to, nil
}
