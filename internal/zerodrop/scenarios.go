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
	// needs are the verbs that cycle uses. The scenario is left out if one of them is
	// nil.
	needs []func() error
	// cycle is repeated until enough calls were made. It is called once at least. The
	// run is settled before and after.
	cycle func() error
	// faulty says that the registry does not work all the time.
	faulty bool
	// still says that no client may make a connection, unless a registration was
	// lost. A single endpoint that leaves and comes back is not held.
	still bool
	// publishes says that the scenario shows nothing unless clients get a set.
	publishes bool
	// effect, if not nil, counts an effect of the scenario. The scenario shows nothing
	// while the count is 0.
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
		// On a busy machine Consul's agent may take longer to start than the time to
		// live. An endpoint then leaves for a moment.
		{name: "crash", still: r.backend.Name != "consul", needs: verbs(v.Restart), cycle: v.Restart, faulty: true, effect: stale},
		{name: "silence", still: true, needs: verbs(v.Silence, v.Speak), cycle: r.during(v.Silence, v.Speak, 500*time.Millisecond), faulty: true},
		{name: "mass expiry", needs: verbs(v.ExpireLeases), cycle: v.ExpireLeases, faulty: true, effect: held},
		{name: "wipe", needs: verbs(v.Wipe), cycle: v.Wipe, faulty: true, effect: held},
		{name: "wipe during an outage", needs: verbs(v.Down, v.Wipe, v.Up), cycle: sequence(v.Down, v.Wipe, v.Up), faulty: true, effect: stale},
		{name: "leader change", still: true, needs: verbs(v.ChangeLeader), cycle: v.ChangeLeader, faulty: true},
		{name: "member loss", still: true, needs: verbs(v.LoseMember, v.RegainMember), cycle: r.during(v.LoseMember, v.RegainMember, time.Second), faulty: true},
		{name: "restarts and broken watches", needs: verbs(v.BreakWatches), cycle: func() error { return r.rollingRestart(v.BreakWatches) }, faulty: true, effect: resynced},
		// This scenario fails. Clients wait up to half a minute before they ask the
		// registry again, and all servers move meanwhile.
		{name: "restarts after an outage", needs: verbs(v.Down, v.Up), cycle: sequence(r.during(v.Down, v.Up, 8*time.Second), func() error { return r.rollingRestart(nil) }), faulty: true, effect: stale},
		{name: "restarts and an outage", needs: verbs(v.Down, v.Up), cycle: r.restartWhileDown, faulty: true, effect: stale},
	}
}

// applicable reports whether the backend has the verbs.
func (s *scenario) applicable() bool {
	return !slices.ContainsFunc(s.needs, func(f func() error) bool { return f == nil })
}

func verbs(fs ...func() error) []func() error { return fs }

// sequence returns a function that calls fs one after the other, up to the first error.
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

// changeMetadata changes every server's metadata, and with it the attributes in gRPC.
func (r *run) changeMetadata() error {
	for i, s := range r.fleet.all() {
		m := fmt.Appendf(nil, `{"weight":%d,"zone":"z%d","build":%d}`, 1+r.rand.IntN(9), i%2, r.rand.Uint32())
		if err := s.reg.Update(r.ctx, m); err != nil {
			return err
		}
	}
	r.pause(20 * time.Millisecond) // without a pause the changes would be merged
	return nil
}

// reorder lists the last server first for a while, with a second endpoint at its
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

// resync replaces every client's watch. The new watch finds the same endpoints.
func (r *run) resync() error {
	p := &r.phase
	before := p.stale.Load()
	if err := r.backend.BreakWatches(); err != nil {
		return err
	}
	return r.await("stale sets", func() bool { return p.stale.Load() > before })
}

// rollingRestart replaces one server after the other, at its own address or another.
// With disturb, it settles before each server, because a client without a watch cannot
// follow servers that all move.
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

// restartWhileDown restarts a server while the registry is down. The server cannot
// withdraw, so clients list it all the time.
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
