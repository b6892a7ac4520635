package migrateproof

import (
	"slices"
	"time"

	"github.com/naming-go/naming/internal/zerodrop"
	"github.com/naming-go/naming/migrate"
)

// scenarios returns all scenarios that the pair has the verbs for.
func (w *world) scenarios() []zerodrop.Scenario {
	list := w.healthy()
	list = append(list, w.apartScenarios()...)
	list = append(list, w.upgrading()...)
	list = append(list, w.bridgeProcesses()...)
	for s := oldSide; s <= newSide; s++ {
		list = append(list, w.slow(s))
		list = append(list, w.faults(s)...)
	}
	return append(list, w.outage(), w.twice(), w.heldLosses())
}

// healthy returns the scenarios in which both registries work and all programs are in one
// phase.
func (w *world) healthy() []zerodrop.Scenario {
	return []zerodrop.Scenario{
		{Name: "walk", Cycle: w.walk, Effect: w.narrowed.Load},
		{Name: "back from every phase", Cycle: w.backFromEvery, Effect: w.narrowed.Load},
		{Name: "jumps", Still: true, Cycle: w.jump, Effect: w.narrowed.Load},
		{Name: "jumps under restarts", Cycle: w.jumpUnderRestarts, Effect: w.narrowed.Load},
	}
}

// walk goes through all phases and back. After each step, servers are restarted.
func (w *world) walk() error {
	half := migrate.State{Phase: migrate.PreferNew, Share: 0.5}
	var path []migrate.State
	for p := migrate.DualWrite; p <= migrate.Done; p++ {
		if p == migrate.PreferNew {
			path = append(path, half)
		}
		path = append(path, in(p))
	}
	for p := migrate.NewWrite; p > migrate.Old; p-- {
		path = append(path, in(p))
	}
	for _, s := range append(path, in(migrate.Old)) {
		if err := w.step(s); err != nil {
			return err
		}
		if err := w.restart(w.few(), false, w.Rand()); err != nil {
			return err
		}
	}
	return nil
}

// few returns how many servers to restart.
func (w *world) few() int {
	if w.full {
		return len(w.Servers())
	}
	return 1
}

// backFromEvery goes to each phase and back, while servers are restarted.
func (w *world) backFromEvery() error {
	pause := w.dwell
	if w.full {
		pause = w.awaitRestart
	}
	return w.underChurn(func() {
		for top := migrate.DualWrite; top <= migrate.Done; top++ {
			for p := migrate.DualWrite; p <= top; p++ {
				w.set(in(p))
				pause()
			}
			for p := top; p > migrate.Old; p-- {
				w.set(in(p - 1))
				pause()
			}
		}
	})
}

// jump goes to the last phase and back at once, and between other phases that are far
// apart. Nothing else happens, so no jump makes a connection or publishes a set.
func (w *world) jump() error {
	for _, p := range []migrate.Phase{7, 0, 5, 2, 6, 1, 7, 3, 0} {
		if err := w.step(in(p)); err != nil {
			return err
		}
	}
	return nil
}

// jumpUnderRestarts goes to the last phase and back without waiting for anything, and
// then between random phases, while servers are restarted.
func (w *world) jumpUnderRestarts() error {
	return w.underChurn(func() {
		for range 3 {
			w.set(in(migrate.Done))
			w.set(in(migrate.Old))
			w.dwell()
		}
		for range 12 {
			w.set(migrate.State{Phase: migrate.Phase(w.Rand().IntN(8)), Share: w.Rand().Float64()})
			w.dwell()
		}
		w.set(in(w.present().Phase)) // of which the readers' part is known
	})
}

// slow is a scenario in which a registry takes 300 ms for each answer, while the phase
// jumps and servers are restarted.
func (w *world) slow(s side) zerodrop.Scenario {
	const delay = 300 * time.Millisecond
	b := w.pair.backend(s)
	return zerodrop.Scenario{
		Name: s.String() + " is slow", Needs: []func() error{needed(b.Delay != nil)},
		Begin: func() error {
			// A watch may take several answers to show a change.
			w.Site().DrainDelay += 4 * delay
			w.leaveDelay.Store(int64(w.pair.LeaveDelay + 4*delay))
			return b.Delay(delay)
		},
		End:    func() { _ = b.Delay(0) },
		Effect: w.failing.Load,
		Cycle: func() error {
			w.noteFailing(s, delay/2)
			return w.underChurn(func() {
				for _, p := range []migrate.Phase{7, 0, 3, 5, 2, 7, 4, 0} {
					w.set(in(p))
					w.dwell()
				}
			})
		},
	}
}

// needed returns a function that is nil unless there is what a scenario needs.
func needed(there bool) func() error {
	if !there {
		return nil
	}
	return func() error { return nil }
}

// promises says in which phases a fault of one registry drops no call.
type promises struct {
	// restarts are the phases in which servers may come and go meanwhile.
	restarts []migrate.Phase
	// quiet are the phases in which the servers have to stay.
	quiet []migrate.Phase
	// wiped are the phases in which the registry may lose its entries.
	wiped []migrate.Phase
}

// promised returns the promises of a side. Readers that left a registry do not notice its
// faults. Readers that use one registry alone keep the last set while it is down. In
// Shadow and in NewRead, they do not come back to the other one.
func promised(s side) promises {
	if s == oldSide {
		return promises{
			restarts: []migrate.Phase{migrate.PreferNew, migrate.NewRead, migrate.NewWrite, migrate.Done, migrate.Union},
			quiet:    []migrate.Phase{migrate.Old, migrate.DualWrite, migrate.Shadow},
			wiped:    []migrate.Phase{migrate.Union, migrate.PreferNew, migrate.NewRead, migrate.NewWrite, migrate.Done},
		}
	}
	return promises{
		restarts: []migrate.Phase{migrate.Union, migrate.PreferNew, migrate.Shadow, migrate.DualWrite, migrate.Old},
		quiet:    []migrate.Phase{migrate.NewRead, migrate.NewWrite, migrate.Done},
		wiped:    []migrate.Phase{migrate.Old, migrate.DualWrite, migrate.Shadow, migrate.Union, migrate.PreferNew},
	}
}

// faults returns the scenarios in which one registry fails.
func (w *world) faults(s side) []zerodrop.Scenario {
	b, can := w.pair.backend(s), promised(s)
	ill := func(name string, begin, end func() error) zerodrop.Scenario {
		return zerodrop.Scenario{
			Name: s.String() + name, Needs: []func() error{begin, end}, Faulty: true, Effect: w.failing.Load,
			Begin: w.shortLeases,
			Cycle: func() error { return w.ill(s, can, begin, end) },
		}
	}
	emptied := func(name string, verb func() error) zerodrop.Scenario {
		return zerodrop.Scenario{
			Name: s.String() + name, Needs: []func() error{verb}, Faulty: true, Effect: w.Lost,
			Cycle: func() error { return w.emptied(can, verb) },
		}
	}
	return []zerodrop.Scenario{
		ill(" is down", b.Down, b.Up),
		ill(" is silent", b.Silence, b.Speak),
		w.blocked(s),
		emptied(" is wiped", b.Wipe),
		emptied(" loses all leases", b.ExpireLeases),
	}
}

// shortLeases makes leases end soon. What a server could not withdraw from a registry that
// is down stays there until its lease ends. In the short form the leases are longer. There
// the fault is shorter than a lease of three seconds: such a lease could end right after the
// fault, when readers already rely on that registry alone.
func (w *world) shortLeases() error {
	w.Site().TTL = 15 * time.Second
	if w.full {
		w.Site().TTL = 3 * time.Second
	}
	return nil
}

// ill makes a registry fail in each phase. Servers are restarted meanwhile where that is
// promised.
func (w *world) ill(s side, can promises, begin, end func() error) error {
	during := func(f func() error) func() error {
		return zerodrop.Sequence(begin, func() error { w.noteFailing(s, 300*time.Millisecond); return f() }, end, w.Settle)
	}
	for _, p := range w.some(can.quiet) {
		if err := w.goTo(p); err != nil {
			return err
		}
		if err := during(func() error { return nil })(); err != nil {
			return err
		}
	}
	for _, p := range w.some(can.restarts) {
		if err := w.goTo(p); err != nil {
			return err
		}
		if err := during(func() error { return w.restart(w.few(), true, w.Rand()) })(); err != nil {
			return err
		}
	}
	return nil
}

// some returns all phases, or a random one of them in the short form.
func (w *world) some(phases []migrate.Phase) []migrate.Phase {
	if w.full {
		return phases
	}
	i := w.Rand().IntN(len(phases))
	return phases[i : i+1]
}

// emptied makes a registry lose its entries in each phase in which that is promised to
// drop no call. Between two losses, all servers are registered again: a second loss
// within the backoff of a registration would be one of both registries.
func (w *world) emptied(can promises, verb func() error) error {
	for _, p := range can.wiped {
		if err := w.goTo(p); err != nil {
			return err
		}
		if err := verb(); err != nil {
			return err
		}
		if err := w.Settle(); err != nil {
			return err
		}
	}
	return nil
}

// heldLosses is the scenario of the hold: the registry that counts is wiped, where no other
// registry has the endpoints, and both registries are wiped.
func (w *world) heldLosses() zerodrop.Scenario {
	old, next := &w.pair.Old, &w.pair.New
	return zerodrop.Scenario{
		Name: "the hold", Needs: []func() error{old.Wipe, next.Wipe}, Faulty: true, Effect: w.Lost,
		Begin: func() error { w.hold = true; w.Site().Bound = 0; return nil },
		Cycle: func() error {
			for _, c := range []struct {
				phase migrate.Phase
				wipe  []func() error
			}{
				{migrate.Old, []func() error{old.Wipe}},
				{migrate.Union, []func() error{old.Wipe, next.Wipe}},
				{migrate.Done, []func() error{next.Wipe}},
			} {
				if err := w.goTo(c.phase); err != nil {
					return err
				}
				if err := zerodrop.Sequence(append(c.wipe, w.Settle)...)(); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (s side) blockedName() string { return s.String() + " is down when it begins to count" }

// blocked is the scenario in which a registry is down while the phase moves all programs to
// it. Servers must stay in the other one, and readers must go on to use it.
func (w *world) blocked(s side) zerodrop.Scenario {
	b := w.pair.backend(s)
	from, to := migrate.Old, migrate.Done
	if s == oldSide {
		from, to = to, from
	}
	return zerodrop.Scenario{
		Name: s.blockedName(), Needs: []func() error{b.Down, b.Up}, Faulty: true, Effect: w.failing.Load,
		Begin: func() error {
			w.setNext(in(from))
			return nil
		},
		Cycle: func() error {
			if err := w.goTo(from); err != nil {
				return err
			}
			if err := b.Down(); err != nil {
				return err
			}
			w.noteFailing(s, 300*time.Millisecond)
			w.set(in(to))
			w.Pause(4 * w.pair.LeaveDelay)
			if err := w.stillIn(s.other()); err != nil {
				return err
			}
			return b.Up()
		},
	}
}

const outageOfBoth = "restarts after an outage of both"

// outage is the scenario in which both registries are down for a while. Afterwards the
// first servers that move must make readers ask again: a reader that waited for its next
// attempt would lose all servers.
func (w *world) outage() zerodrop.Scenario {
	old, next := &w.pair.Old, &w.pair.New
	return zerodrop.Scenario{
		Name: outageOfBoth, Needs: []func() error{old.Down, old.Up, next.Down, next.Up}, Faulty: true, Effect: w.failing.Load,
		Begin: func() error { w.setNext(in(migrate.Union)); return nil },
		Cycle: zerodrop.Sequence(
			old.Down, next.Down,
			func() error { w.noteFailing(oldSide, 300*time.Millisecond); w.Pause(8 * time.Second); return nil },
			old.Up, next.Up,
			func() error { return w.restart(len(w.Servers()), false, w.Rand()) },
		),
	}
}

// stillIn checks that a registry has all servers.
func (w *world) stillIn(s side) error {
	got, err := zerodrop.Listed(w.Context(), w.pair.backend(s).Clients, w.Service())
	if err != nil {
		return err
	}
	for _, server := range w.Servers() {
		if !slices.Contains(got, server.Addr()) {
			w.Broken("%s left %v before it was in %v", server.Addr(), s, s.other())
		}
	}
	return nil
}
