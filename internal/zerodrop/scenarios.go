package zerodrop

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/naming-go/naming"
)

// scenario is something that happens while calls are made.
type scenario struct {
	name string
	// needs are the verbs that cycle uses: the scenario is left out if one is
	// nil.
	needs []func() error
	// cycle is done as often as it takes for enough calls to be made, and once
	// at least. All is settled before and after.
	cycle func() error
	// faulty says that the registry does not work all the time.
	faulty bool
	// still says that no client may make a connection, unless a registration was
	// lost: a single one that goes and comes back is not held.
	still bool
	// publishes says that clients must be given something for the scenario to
	// show anything.
	publishes bool
	// effect, if not nil, counts what the scenario must have caused to show
	// anything.
	effect func(p *phase) int64
}

const quietScenario = "quiet"

// scenarios returns all scenarios.
func (r *run) scenarios() []scenario {
	v := &r.backend.Verbs
	stale := func(p *phase) int64 { return p.stale.Load() }
	resynced := func(p *phase) int64 { return p.resynced.Load() }
	held := func(p *phase) int64 { return p.held.Load() }
	return []scenario{
		{name: quietScenario, still: true, cycle: func() error { r.pause(100 * time.Millisecond); return nil }},
		{name: "metadata", still: true, cycle: r.changeMetadata, publishes: true},
		{name: "reorder", still: true, cycle: r.reorder, publishes: true},
		{name: "resync", still: true, needs: verbs(v.BreakWatches), cycle: r.resync, faulty: true, effect: resynced},
		{name: "rolling restart", cycle: func() error { return r.rollingRestart(nil) }},
		{name: "scaling", cycle: r.scale},
		{name: "turnover", cycle: r.turnover},
		{name: "outage", still: true, needs: verbs(v.Down, v.Up), cycle: r.during(v.Down, v.Up, 300*time.Millisecond), faulty: true, effect: stale},
		{name: "outage beyond the time to live", needs: verbs(v.Down, v.Up), cycle: r.during(v.Down, v.Up, r.backend.TTL*3/2), faulty: true, effect: stale},
		// On a busy machine an agent of Consul's starts for longer than the time to
		// live there: an endpoint then leaves for a moment.
		{name: "crash", still: r.backend.Name != "consul", needs: verbs(v.Restart), cycle: v.Restart, faulty: true, effect: stale},
		{name: "silence", still: true, needs: verbs(v.Silence, v.Speak), cycle: r.during(v.Silence, v.Speak, 500*time.Millisecond), faulty: true},
		{name: "mass expiry", needs: verbs(v.ExpireLeases), cycle: v.ExpireLeases, faulty: true, effect: held},
		{name: "wipe", needs: verbs(v.Wipe), cycle: v.Wipe, faulty: true, effect: held},
		{name: "wipe during an outage", needs: verbs(v.Down, v.Wipe, v.Up), cycle: sequence(v.Down, v.Wipe, v.Up), faulty: true, effect: stale},
		{name: "leader change", still: true, needs: verbs(v.ChangeLeader), cycle: v.ChangeLeader, faulty: true},
		{name: "member loss", still: true, needs: verbs(v.LoseMember, v.RegainMember), cycle: r.during(v.LoseMember, v.RegainMember, time.Second), faulty: true},
		{name: "restarts and broken watches", needs: verbs(v.BreakWatches), cycle: func() error { return r.rollingRestart(v.BreakWatches) }, faulty: true, effect: resynced},
		// It fails: clients that wait before they ask the registry again, half a
		// minute at most, hear nothing of servers that all move meanwhile.
		{name: "restarts after an outage", needs: verbs(v.Down, v.Up), cycle: sequence(r.during(v.Down, v.Up, 8*time.Second), func() error { return r.rollingRestart(nil) }), faulty: true, effect: stale},
		{name: "restarts and an outage", needs: verbs(v.Down, v.Up), cycle: r.restartWhileDown, faulty: true, effect: stale},
	}
}

// applicable reports whether the backend has the verbs.
func (s *scenario) applicable() bool {
	return !slices.ContainsFunc(s.needs, func(f func() error) bool { return f == nil })
}

func verbs(fs ...func() error) []func() error { return fs }

// sequence does one after the other.
func sequence(fs ...func() error) func() error {
	return func() error {
		for _, f := range fs {
			if err := f(); err != nil {
				return err
			}
		}
		return nil
	}
}

// during lets calls be made between begin and end.
func (r *run) during(begin, end func() error, d time.Duration) func() error {
	return sequence(begin, func() error { r.pause(d); return nil }, end)
}

// changeMetadata changes every server's metadata, and what gRPC makes of it.
func (r *run) changeMetadata() error {
	for i, s := range r.fleet.all() {
		m := fmt.Appendf(nil, `{"weight":%d,"zone":"z%d","build":%d}`, 1+r.rand.IntN(9), i%2, r.rand.Uint32())
		if err := s.reg.Update(r.ctx, m); err != nil {
			return err
		}
	}
	r.pause(20 * time.Millisecond) // or the changes would be taken together
	return nil
}

// reorder lists the last server first for a while, by another endpoint of its
// address.
func (r *run) reorder() error {
	list := r.fleet.addrs()
	e := naming.Endpoint{ID: "!", Addr: list[len(list)-1]}
	if err := r.backend.Servers.Apply(r.ctx, r.service, naming.Change{Endpoint: e}); err != nil {
		return err
	}
	r.pause(r.backend.DrainDelay)
	return r.backend.Servers.Apply(r.ctx, r.service, naming.Change{Op: naming.Delete, Endpoint: e})
}

// resync has every client's watch replaced by another, which finds what was
// there before.
func (r *run) resync() error {
	p := &r.phase
	before := p.stale.Load()
	if err := r.backend.BreakWatches(); err != nil {
		return err
	}
	return r.await("stale sets", func() bool { return p.stale.Load() > before })
}

// rollingRestart replaces one server after the other, at its own address or
// another. Between two of them all is settled if there is something to disturb
// it: no client can do without a word of the registry while all servers move.
func (r *run) rollingRestart(disturb func() error) error {
	for _, s := range r.fleet.all() {
		addr := s.addr
		if r.rand.IntN(2) == 0 {
			addr = ""
		}
		if disturb != nil {
			if err := r.settle(); err != nil {
				return err
			}
			if err := disturb(); err != nil {
				return err
			}
		}
		if err := s.stop(); err != nil {
			return err
		}
		if _, err := r.fleet.start(addr, true); err != nil {
			return err
		}
	}
	return nil
}

// scale doubles the fleet, and halves it.
func (r *run) scale() error {
	if _, err := r.fleet.startMany(fleetSize); err != nil {
		return err
	}
	if err := r.settle(); err != nil {
		return err
	}
	all := r.fleet.all()
	r.rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return stopMany(all[:fleetSize])
}

// turnover replaces all servers at once.
func (r *run) turnover() error {
	old := r.fleet.all()
	if _, err := r.fleet.startMany(fleetSize); err != nil {
		return err
	}
	return stopMany(old)
}

// restartWhileDown restarts a server while the registry is down: it cannot
// withdraw, and clients list it all the time.
func (r *run) restartWhileDown() error {
	all := r.fleet.all()
	s := all[r.rand.IntN(len(all))]
	if err := r.backend.Down(); err != nil {
		return err
	}
	if s.stop() == nil {
		return errors.New("a server was withdrawn while the registry was down")
	}
	if _, err := r.fleet.start(s.addr, false); err != nil {
		return err
	}
	return r.backend.Up()
}
