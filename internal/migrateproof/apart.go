package migrateproof

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/internal/zerodrop"
	"github.com/naming-go/naming/migrate"
)

// apart returns the scenarios in which programs are in different phases, or do not know
// the phase.
func (w *world) apartScenarios() []zerodrop.Scenario {
	apart := func() error { w.apart = true; return nil }
	return []zerodrop.Scenario{
		{Name: "one phase apart", Begin: apart, Cycle: w.onePhaseApart, Effect: w.narrowed.Load},
		{Name: "all safe pairs", Begin: apart, Cycle: w.safePairs, Effect: w.narrowed.Load},
		{Name: "unknown phases", Begin: w.beginUnsure, Cycle: w.unknownPhases},
		{Name: "half of the servers in each registry", Begin: w.beginHalves, Cycle: w.halves},
	}
}

// onePhaseApart goes through all phases and back, while each change reaches one program
// after the other and servers are restarted.
func (w *world) onePhaseApart() error {
	for _, up := range []bool{true, false} {
		if err := w.underChurn(func() {
			for i := range migrate.Done {
				p := i + 1
				if !up {
					p = migrate.Done - p
				}
				w.trickle(in(p), w.pair.LeaveDelay/4)
			}
		}); err != nil {
			return err
		}
		if err := w.Settle(); err != nil {
			return err
		}
	}
	return nil
}

// safe reports whether servers and readers in these phases are safe together.
func safe(server, reader migrate.Phase) bool {
	return !(server == migrate.Old && reader >= migrate.NewRead || server >= migrate.NewWrite && reader <= migrate.Shadow)
}

// pairOfPhases is the phase of all servers, and that of all readers.
type pairOfPhases struct{ server, reader migrate.Phase }

// safePairs visits pairs of phases that are safe together, in a random order. In each of
// them, servers are restarted.
func (w *world) safePairs() error {
	var pairs []pairOfPhases
	for s := migrate.Old; s <= migrate.Done; s++ {
		for r := migrate.Old; r <= migrate.Done; r++ {
			if safe(s, r) {
				pairs = append(pairs, pairOfPhases{s, r})
			}
		}
	}
	w.Rand().Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
	if !w.full {
		// The pairs that are almost too far apart are among them.
		pairs = append(pairs[:4], pairOfPhases{migrate.NewWrite, migrate.Union}, pairOfPhases{migrate.DualWrite, migrate.Done},
			pairOfPhases{migrate.Old, migrate.PreferNew})
	}
	for _, next := range pairs {
		if err := w.goToPair(next); err != nil {
			return fmt.Errorf("servers in %v, readers in %v: %w", next.server, next.reader, err)
		}
		if err := w.restart(w.few(), false, w.Rand()); err != nil {
			return err
		}
	}
	return w.goTo(migrate.Old)
}

// goToPair sets the phases of servers and readers, so that each step on the way is safe.
func (w *world) goToPair(next pairOfPhases) error {
	now := w.phases
	via := []pairOfPhases{{next.server, now.reader}}
	switch {
	case safe(next.server, now.reader):
	case safe(now.server, next.reader):
		via = []pairOfPhases{{now.server, next.reader}}
	default:
		via = []pairOfPhases{{migrate.Union, now.reader}, {migrate.Union, next.reader}}
	}
	for _, p := range append(via, next) {
		w.setApart(true, in(p.server))
		w.setApart(false, in(p.reader))
		if err := w.Settle(); err != nil {
			return err
		}
		w.phases = p
	}
	return nil
}

// setApart sets the phase of the servers, or of the readers.
func (w *world) setApart(servers bool, s migrate.State) {
	if servers {
		w.setNext(s)
	}
	for _, p := range w.programs() {
		if p.server == servers {
			setPhase(p.source, s)
		}
	}
}

// beginUnsure makes every other program start in the last phase without knowing the phase.
func (w *world) beginUnsure() error {
	w.apart = true
	w.unsure = func(n int) bool { return n%2 == 1 }
	w.setNext(in(migrate.Done))
	return nil
}

// unknownPhases restarts servers in the first and in the last phase. Some of them do not
// know the phase.
func (w *world) unknownPhases() error {
	for _, p := range []migrate.Phase{migrate.Done, migrate.Old} {
		if err := w.restart(len(w.Servers()), false, w.Rand()); err != nil {
			return err
		}
		if err := w.Settle(); err != nil {
			return err
		}
		if err := w.goTo(p); err != nil {
			return err
		}
	}
	return nil
}

// beginHalves makes half of the servers register in either registry only.
func (w *world) beginHalves() error {
	w.kindOf = func(server bool, n int) kind {
		if !server {
			return joined
		}
		return []kind{oldOnly, newOnly}[n%2]
	}
	w.setNext(in(migrate.Union))
	return nil
}

// halves goes through the phases in which readers use what the new registry does not
// cover. Both registries have as many servers.
func (w *world) halves() error {
	for _, p := range []migrate.Phase{migrate.PreferNew, migrate.NewRead, migrate.Union} {
		if err := w.step(in(p)); err != nil {
			return err
		}
		if err := w.restart(w.few(), false, w.Rand()); err != nil {
			return err
		}
	}
	return nil
}

// tooFarApart returns the scenarios in which programs are too far apart. Calls must fail
// there.
func (w *world) tooFarApart() []zerodrop.Scenario {
	begin := func() error {
		w.apart = true
		w.setNext(in(migrate.Union))
		return nil
	}
	return []zerodrop.Scenario{
		{Name: "four behind", Begin: begin, Cycle: func() error {
			w.setApart(false, in(migrate.Shadow))
			if err := w.Settle(); err != nil {
				return err
			}
			w.setApart(true, in(migrate.NewWrite))
			return w.failThenUnite()
		}},
		{Name: "five ahead", Begin: begin, Cycle: func() error {
			w.setApart(false, in(migrate.NewRead))
			if err := w.Settle(); err != nil {
				return err
			}
			w.setNext(in(migrate.Old)) // of servers that start
			if err := w.restart(len(w.Servers()), false, w.Rand()); err != nil {
				return err
			}
			return w.failThenUnite()
		}},
	}
}

// failThenUnite waits until a call has failed, and brings all programs into the phase Union.
func (w *world) failThenUnite() error {
	if err := w.Await("call that fails", func() bool { return w.Failed() > 0 }); err != nil {
		return err
	}
	return w.goTo(migrate.Union)
}

// twice is the scenario of a program that registers an endpoint again, and then closes the
// registration of before. The endpoint stays in the registry.
func (w *world) twice() zerodrop.Scenario {
	return zerodrop.Scenario{Name: "registered twice", Cycle: func() error {
		for _, p := range []migrate.Phase{migrate.Old, migrate.Union, migrate.Done} {
			if err := w.goTo(p); err != nil {
				return err
			}
			if err := w.registerTwice(w.Servers()[0]); err != nil {
				return fmt.Errorf("in %v: %w", p, err)
			}
		}
		return w.goTo(migrate.Old)
	}}
}

// registerTwice registers another endpoint at the address of a server twice.
func (w *world) registerTwice(s *zerodrop.Server) error {
	const id = "twice"
	opts := &naming.RegisterOptions{TTL: timeToLive, DrainDelay: -1, Wait: true}
	var registrations [2]*naming.Registration
	for i := range registrations {
		var err error
		if registrations[i], err = s.Client().Register(w.Context(), w.Service(), naming.Endpoint{ID: id, Addr: s.Addr()}, opts); err != nil {
			return err
		}
	}
	p := w.programOf(s)
	ctx, cancel := context.WithCancel(w.Context())
	defer cancel()
	var gone [2]atomic.Bool
	for i := oldSide; i <= newSide; i++ {
		if p.writes(i) {
			watching := make(chan struct{})
			go w.pair.awaitGone(ctx, i, w.Service(), id, watching, &gone[i])
			<-watching
		}
	}
	if err := registrations[0].Close(); err != nil {
		return err
	}
	w.Pause(w.pair.DrainDelay)
	for i := range gone {
		if gone[i].Load() {
			w.Broken("an endpoint that was registered twice left %v when the first registration was closed", side(i))
		}
	}
	cancel()
	return registrations[1].Close()
}
