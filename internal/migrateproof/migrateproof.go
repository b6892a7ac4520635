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

	"github.com/naming-go/naming/internal/zerodrop"
)

// Options are the options of [Run].
type Options struct {
	zerodrop.Options
	// Full makes the scenarios visit every phase with every server. The short form
	// restarts one server where the full form restarts all.
	Full bool
}

// Run runs the scenarios on a pair of registries. It returns an error if it could not run
// them. What it found is in the Report.
func Run(ctx context.Context, pair Pair, opts Options) (*zerodrop.Report, error) {
	return run(ctx, pair, opts, (*world).scenarios)
}

func run(ctx context.Context, pair Pair, opts Options, scenarios func(*world) []zerodrop.Scenario) (*zerodrop.Report, error) {
	return zerodrop.RunSuite(ctx, func(p *zerodrop.Play) (zerodrop.Site, []zerodrop.Scenario) {
		w := &world{Play: p, pair: &pair, full: opts.Full}
		return w.site(), scenarios(w)
	}, opts.Options)
}
