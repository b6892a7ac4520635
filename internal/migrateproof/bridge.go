package migrateproof

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/naming-go/naming/internal/zerodrop"
	"github.com/naming-go/naming/migrate"
	"github.com/naming-go/naming/migrate/bridge"
)

// bridges are the bridges of a world, by the registry that they copy to.
type bridges struct {
	mu   sync.Mutex
	stop [2]func() // guarded by mu: ends the bridge, and waits; nil: no bridge
	made [2]int    // guarded by mu
}

// bridgeOptions returns the options of a bridge that copies to a registry of the pair.
func (p *Pair) bridgeOptions(to side) *bridge.Options {
	o := &bridge.Options{Logger: slog.New(slog.DiscardHandler), ElectionTTL: 3 * time.Second}
	names := [2]string{"old", "new"}
	o.SourceName, o.TargetName = names[to.other()], names[to]
	b, other := p.backend(to), p.backend(to.other())
	if b.Name == "consul" {
		o.Election, o.Rate, o.TTL = other.Servers, bridge.ConsulRate, bridge.ConsulTTL
	}
	return o
}

// startBridge starts a bridge that copies to a registry.
func (w *world) startBridge(to side) error {
	b, err := bridge.New(w.pair.backend(to.other()).Servers, w.pair.backend(to).Servers, w.pair.bridgeOptions(to))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = b.Run(ctx) // returns the error of ctx
	}()
	w.mu.Lock()
	w.bridging[to] = true
	w.mu.Unlock()
	w.bridges.mu.Lock()
	defer w.bridges.mu.Unlock()
	w.bridges.made[to]++
	w.bridges.stop[to] = func() {
		cancel()
		<-ended
	}
	return nil
}

// stopBridges ends all bridges. Their copies stay.
func (w *world) stopBridges() {
	w.bridges.mu.Lock()
	defer w.bridges.mu.Unlock()
	for i, stop := range w.bridges.stop {
		if stop != nil {
			stop()
			w.bridges.stop[i] = nil
		}
	}
}

// restartBridges ends all bridges, and starts others.
func (w *world) restartBridges() error {
	w.stopBridges()
	for to, runs := range w.bridgesRun() {
		if !runs {
			continue
		}
		if err := w.startBridge(side(to)); err != nil {
			return err
		}
	}
	return nil
}

// upgrading returns the scenarios in which some programs are not upgraded, and bridges
// keep them complete.
func (w *world) upgrading() []zerodrop.Scenario {
	// A copy takes as long to show a change as a registry.
	begin := func(kindOf func(server bool, n int) kind, first migrate.Phase, to ...side) func() error {
		return func() error {
			w.kindOf = kindOf
			w.setNext(in(first))
			w.Site().DrainDelay *= 2
			for _, s := range to {
				if err := w.startBridge(s); err != nil {
					return err
				}
			}
			return nil
		}
	}
	everyOther := func(server bool, n int) kind { return []kind{joined, oldOnly}[n%2] }
	servers := func(server bool, n int) kind {
		if !server {
			return joined
		}
		return everyOther(server, n)
	}
	readers := func(server bool, n int) kind {
		if server {
			return []kind{joined, newOnly}[n%2]
		}
		return everyOther(server, n)
	}
	return []zerodrop.Scenario{
		{
			Name:  "servers that are not upgraded",
			Begin: begin(servers, migrate.Old, newSide), End: w.stopBridges,
			Cycle:  func() error { return w.upgrade(migrate.Old, migrate.Done) },
			Effect: w.narrowed.Load,
		},
		{
			// Such a reader of the old registry is what the last two phases have to wait
			// for.
			Name:  "readers that are not upgraded",
			Begin: begin(readers, migrate.DualWrite, oldSide), End: w.stopBridges,
			Cycle:  func() error { return w.upgrade(migrate.DualWrite, migrate.NewRead) },
			Effect: w.narrowed.Load,
		},
		{
			Name:  "bridges in both directions",
			Begin: begin(func(_ bool, n int) kind { return kind(n % 3) }, migrate.DualWrite, oldSide, newSide), End: w.stopBridges,
			Cycle:  func() error { return w.upgrade(migrate.DualWrite, migrate.NewRead) },
			Effect: w.narrowed.Load,
		},
	}
}

// upgrade goes from the first phase to the last and back, while servers are restarted. A
// server that is restarted may be upgraded, or the reverse. The bridges are restarted too.
func (w *world) upgrade(first, last migrate.Phase) error {
	var failed error
	err := w.underChurn(func() {
		for p := first; p < last && failed == nil; p++ {
			w.set(in(p + 1))
			w.awaitRestart()
		}
		failed = w.restartBridges()
		for p := last; p > first && failed == nil; p-- {
			w.set(in(p - 1))
			w.awaitRestart()
		}
	})
	if err == nil {
		err = failed
	}
	return err
}
