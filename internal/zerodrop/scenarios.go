package zerodrop

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/naming-go/naming"
)

// Scenario is something that happens while calls are made.
type Scenario struct {
	Name string
	// Needs are the verbs that Cycle uses. The scenario is left out if one of them is
	// nil.
	Needs []func() error
	// Begin, if not nil, is called before the first server starts, and End after the
	// last server has stopped.
	Begin func() error
	End   func()
	// Cycle is repeated until enough calls were made. It is called once at least. The
	// run is settled before and after.
	Cycle func() error
	// Faulty says that the registry does not work all the time.
	Faulty bool
	// Still says that no client may make a connection, unless a registration was
	// lost. A single endpoint that leaves and comes back is not held.
	Still bool
	// Publishes says that the scenario shows nothing unless clients get a set.
	Publishes bool
	// Effect, if not nil, counts an effect of the scenario. The scenario shows nothing
	// while the count is 0.
	Effect func() int64
}

const quietScenario = "quiet"

// single is a Play on one registry.
type single struct {
	*Play
	backend Backend
}

// scenarios returns all scenarios on one registry.
func (r single) scenarios() []Scenario {
	v := &r.backend.Verbs
	ttl := cmp.Or(r.backend.TTL, 2*time.Second)
	stale, resynced, held := r.phase.stale.Load, r.phase.resynced.Load, r.phase.held.Load
	return []Scenario{
		{Name: quietScenario, Still: true, Cycle: func() error { r.Pause(100 * time.Millisecond); return nil }},
		{Name: "metadata", Still: true, Cycle: r.ChangeMetadata, Publishes: true},
		{Name: "reorder", Still: true, Cycle: r.reorder, Publishes: true},
		{Name: "resync", Still: true, Needs: verbs(v.BreakWatches), Cycle: r.resync, Faulty: true, Effect: resynced},
		{Name: "rolling restart", Cycle: func() error { return r.RollingRestart(nil) }},
		{Name: "scaling", Cycle: r.Scale},
		{Name: "turnover", Cycle: r.Turnover},
		{Name: "outage", Still: true, Needs: verbs(v.Down, v.Up), Cycle: r.During(v.Down, v.Up, 300*time.Millisecond), Faulty: true, Effect: stale},
		{Name: "outage beyond the time to live", Needs: verbs(v.Down, v.Up), Cycle: r.During(v.Down, v.Up, ttl*3/2), Faulty: true, Effect: stale},
		// On a busy machine Consul's agent may take longer to start than the time to
		// live. An endpoint then leaves for a moment.
		{Name: "crash", Still: r.backend.Name != "consul", Needs: verbs(v.Restart), Cycle: v.Restart, Faulty: true, Effect: stale},
		{Name: "silence", Still: true, Needs: verbs(v.Silence, v.Speak), Cycle: r.During(v.Silence, v.Speak, 500*time.Millisecond), Faulty: true},
		{Name: "mass expiry", Needs: verbs(v.ExpireLeases), Cycle: v.ExpireLeases, Faulty: true, Effect: held},
		{Name: "wipe", Needs: verbs(v.Wipe), Cycle: v.Wipe, Faulty: true, Effect: held},
		{Name: "wipe during an outage", Needs: verbs(v.Down, v.Wipe, v.Up), Cycle: Sequence(v.Down, v.Wipe, v.Up), Faulty: true, Effect: stale},
		{Name: "leader change", Still: true, Needs: verbs(v.ChangeLeader), Cycle: v.ChangeLeader, Faulty: true},
		{Name: "member loss", Still: true, Needs: verbs(v.LoseMember, v.RegainMember), Cycle: r.During(v.LoseMember, v.RegainMember, time.Second), Faulty: true},
		{Name: "restarts and broken watches", Needs: verbs(v.BreakWatches), Cycle: func() error { return r.RollingRestart(v.BreakWatches) }, Faulty: true, Effect: resynced},
		// This scenario fails. Clients wait up to half a minute before they ask the
		// registry again, and all servers move meanwhile.
		{Name: "restarts after an outage", Needs: verbs(v.Down, v.Up), Cycle: Sequence(r.During(v.Down, v.Up, 8*time.Second), func() error { return r.RollingRestart(nil) }), Faulty: true, Effect: stale},
		{Name: "restarts and an outage", Needs: verbs(v.Down, v.Up), Cycle: r.restartWhileDown, Faulty: true, Effect: stale},
	}
}

// applicable reports whether the backend has the verbs.
func (s *Scenario) applicable() bool {
	return !slices.ContainsFunc(s.Needs, func(f func() error) bool { return f == nil })
}

func verbs(fs ...func() error) []func() error { return fs }

// Sequence returns a function that calls fs one after the other, up to the first error.
func Sequence(fs ...func() error) func() error {
	return func() error {
		for _, f := range fs {
			if err := f(); err != nil {
				return err
			}
		}
		return nil
	}
}

// During lets calls be made between begin and end.
func (r *Play) During(begin, end func() error, d time.Duration) func() error {
	return Sequence(begin, func() error { r.Pause(d); return nil }, end)
}

// ChangeMetadata changes every server's metadata, and with it the attributes in gRPC.
func (r *Play) ChangeMetadata() error {
	for i, s := range r.fleet.all() {
		m := fmt.Appendf(nil, `{"weight":%d,"zone":"z%d","build":%d}`, 1+r.rand.IntN(9), i%2, r.rand.Uint32())
		if err := s.reg.Update(r.ctx, m); err != nil {
			return err
		}
	}
	r.Pause(20 * time.Millisecond) // without a pause the changes would be merged
	return nil
}

// reorder lists the last server first for a while, with a second endpoint at its
// address.
func (r single) reorder() error {
	list := r.fleet.addrs()
	e := naming.Endpoint{ID: "!", Addr: list[len(list)-1]}
	if err := r.backend.Servers.Apply(r.ctx, r.service, naming.Change{Endpoint: e}); err != nil {
		return err
	}
	r.Pause(r.site.DrainDelay)
	return r.backend.Servers.Apply(r.ctx, r.service, naming.Change{Op: naming.Delete, Endpoint: e})
}

// resync replaces every client's watch. The new watch finds the same endpoints.
func (r single) resync() error {
	p := &r.phase
	before := p.stale.Load()
	if err := r.backend.BreakWatches(); err != nil {
		return err
	}
	return r.Await("stale sets", func() bool { return p.stale.Load() > before })
}

// RollingRestart replaces one server after the other, at its own address or another.
// With disturb, it settles before each server, because a client without a watch cannot
// follow servers that all move.
func (r *Play) RollingRestart(disturb func() error) error {
	for _, s := range r.fleet.all() {
		addr := s.addr
		if r.rand.IntN(2) == 0 {
			addr = ""
		}
		if disturb != nil {
			if err := r.Settle(); err != nil {
				return err
			}
			if err := disturb(); err != nil {
				return err
			}
		}
		if err := s.Stop(); err != nil {
			return err
		}
		if _, err := r.Start(addr, true); err != nil {
			return err
		}
	}
	return nil
}

// Scale doubles the fleet, and halves it.
func (r *Play) Scale() error {
	if _, err := r.fleet.startMany(fleetSize); err != nil {
		return err
	}
	if err := r.Settle(); err != nil {
		return err
	}
	all := r.fleet.all()
	r.rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return stopMany(all[:fleetSize])
}

// Turnover replaces all servers at once.
func (r *Play) Turnover() error {
	old := r.fleet.all()
	if _, err := r.fleet.startMany(fleetSize); err != nil {
		return err
	}
	return stopMany(old)
}

// restartWhileDown restarts a server while the registry is down. The server cannot
// withdraw, so clients list it all the time.
func (r single) restartWhileDown() error {
	all := r.fleet.all()
	s := all[r.rand.IntN(len(all))]
	if err := r.backend.Down(); err != nil {
		return err
	}
	if s.Stop() == nil {
		return errors.New("a server was withdrawn while the registry was down")
	}
	if _, err := r.Start(s.addr, false); err != nil {
		return err
	}
	return r.backend.Up()
}
