// Package migrateproof shows that no call is dropped while services move from one registry
// to another, whatever happens to the registries, the programs and the bridge.
//
// The package runs the servers, clients and checks of package zerodrop on two registries.
// The programs are Clients of package migrate, plain Clients that were not upgraded, or
// both, with a bridge. Beside the rules of package zerodrop, a run checks:
//
//   - Every set that a client gets has every server that was registered for some time, or
//     was listed by all clients, and does not leave.
//   - Every client that balances calls every server within five seconds.
//   - After each step, each registry has exactly the running servers where the phase
//     writes, and nothing where the phase does not write. Every reader reads as its phase
//     says.
//   - A change of the phase alone makes no connection and publishes no set.
//
// The hold is off, except in the scenarios about the hold: the hold would hide faults of a
// migration.
package migrateproof

import (
	"context"
	"slices"

	"github.com/naming-go/naming/internal/zerodrop"
)

// Options are the options of [Run].
type Options struct {
	zerodrop.Options
	// Full runs all scenarios, and makes them visit every phase with every server. The
	// short form restarts one server where the full form restarts all. It leaves out
	// scenarios that take long.
	Full bool
}

// long are the scenarios that the short form leaves out, because a registry that was down
// has to prove itself for half a minute.
var long = []string{outageOfBoth, oldSide.blockedName(), newSide.blockedName()}

// shortOnServers are the scenarios that the short form has on real servers: those that
// depend on how a registry answers. A registry in memory shows the others.
var shortOnServers = []string{
	"walk", "jumps under restarts", "the old registry is slow", "the new registry is slow",
	"the old registry is down", "the new registry is down", "servers that are not upgraded",
}

// shortOnEtcd is the one scenario more that the short form has with etcd as the new registry.
const shortOnEtcd = "a bridge is stopped while another works"

// only returns the names of the scenarios to run.
func (o *Options) only(p *Pair, all []zerodrop.Scenario) (names []string) {
	if len(o.Only) > 0 || o.Full {
		return o.Only
	}
	for _, s := range all {
		switch {
		case slices.Contains(long, s.Name):
		case p.Old.URL == "", slices.Contains(shortOnServers, s.Name), s.Name == shortOnEtcd && p.New.Name == "etcd":
			names = append(names, s.Name)
		}
	}
	return names
}

// Run runs the scenarios on a pair of registries. It returns an error if it could not run
// them. What it found is in the Report.
func Run(ctx context.Context, pair Pair, opts Options) (*zerodrop.Report, error) {
	return run(ctx, pair, opts, (*world).scenarios)
}

func run(ctx context.Context, pair Pair, opts Options, scenarios func(*world) []zerodrop.Scenario) (*zerodrop.Report, error) {
	opts.Only = opts.only(&pair, scenarios(&world{Play: new(zerodrop.Play), pair: &pair}))
	return zerodrop.RunSuite(ctx, func(p *zerodrop.Play) (zerodrop.Site, []zerodrop.Scenario) {
		w := &world{Play: p, pair: &pair, full: opts.Full}
		return w.site(), scenarios(w)
	}, opts.Options)
}
