package migrateproof

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/internal/servertest"
	"github.com/naming-go/naming/internal/zerodrop"
	"github.com/naming-go/naming/migrate"
	"github.com/naming-go/naming/migrate/bridge"
)

// electionTTL is how long a bridge process waits for one that died.
const electionTTL = 2 * time.Second

// bridgeProgram builds the program that runs a bridge, and returns its path.
func bridgeProgram(tb testing.TB) (string, error) {
	path := filepath.Join(tb.TempDir(), "bridgecmd")
	cmd := exec.Command("go", "build", "-o", path, "./internal/migrateproof/bridgecmd")
	cmd.Dir = servertest.Root(tb)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
}

// processes are bridges from the old registry to the new one, each a process of its own.
type processes struct {
	path string
	args []string
	made int
	all  []*servertest.Process
}

// begin builds the program.
func (b *processes) begin(p *Pair, extra ...string) error {
	path, err := bridgeProgram(p.tb)
	if err != nil {
		return err
	}
	b.path = path
	b.args = append([]string{"-source", p.Old.URL, "-target", p.New.URL, "-election-ttl", electionTTL.String()}, extra...)
	if p.New.Name == "consul" {
		b.args = append(b.args, "-elect", p.Old.URL, "-ttl", bridge.ConsulTTL.String(), "-rate", strconv.Itoa(bridge.ConsulRate))
	}
	return nil
}

// start starts another bridge.
func (b *processes) start(tb testing.TB) *servertest.Process {
	b.made++
	p := servertest.NewProcess(tb, fmt.Sprint("bridge", b.made), servertest.Command{
		Path: b.path, Args: b.args, Healthy: func() error { return nil },
	})
	servertest.StartAll(tb, []*servertest.Process{p})
	b.all = append(b.all, p)
	return p
}

// end kills all bridges.
func (b *processes) end(tb testing.TB) {
	for _, p := range b.all {
		p.Kill(tb)
	}
	b.all = nil
}

// seat is what is read of the entry of an election.
type seat struct {
	Epoch  uint64 `json:"epoch"`
	Digest string `json:"digest"`
}

// readSeat returns the entry of the bridge from old to new that works.
func readSeat(ctx context.Context, store naming.Store) (s seat, err error) {
	for b, err := range store.Watch(ctx, bridge.Service) {
		if err != nil {
			return s, err
		}
		for _, e := range b.Put {
			if e.ID == "default~old~new" {
				return s, json.Unmarshal(e.Metadata, &s)
			}
		}
		return s, errors.New("no bridge works")
	}
	return s, errors.New("the registry said nothing")
}

// election returns the registry in which the bridges elect.
func (p *Pair) election() naming.Store {
	if p.New.Name == "consul" {
		return p.Old.Servers
	}
	return p.New.Servers
}

// awaitElection waits until a bridge works that was elected after epoch, and returns its
// epoch.
func (w *world) awaitElection(epoch uint64) (uint64, error) {
	var s seat
	err := w.Await(fmt.Sprint("bridge elected after epoch ", epoch), func() bool {
		var err error
		s, err = readSeat(w.Context(), w.pair.election())
		return err == nil && s.Epoch > epoch
	})
	return s.Epoch, err
}

// bridgeProcesses returns the scenarios in which bridges are killed and stopped. Half of
// the servers are not upgraded.
func (w *world) bridgeProcesses() []zerodrop.Scenario {
	scenario := func(name string, cycle func() error) zerodrop.Scenario {
		return zerodrop.Scenario{
			Name: name, Needs: []func() error{needed(w.pair.Old.URL != "" && w.pair.New.URL != "")}, Faulty: true,
			Begin: func() error {
				w.kindOf = func(server bool, n int) kind {
					if server && n%2 == 1 {
						return oldOnly
					}
					return joined
				}
				w.Site().DrainDelay *= 2
				w.setNext(in(migrate.Union))
				w.mu.Lock()
				w.bridging[newSide] = true
				w.mu.Unlock()
				if err := w.processes.begin(w.pair, "-fuse", "1"); err != nil {
					return err
				}
				w.processes.start(w.pair.tb)
				return nil
			},
			End:    func() { w.processes.end(w.pair.tb) },
			Cycle:  cycle,
			Effect: w.elections.Load,
		}
	}
	return []zerodrop.Scenario{
		scenario("a bridge is killed", w.killBridge),
		scenario("a bridge is stopped while another works", w.stopBridge),
	}
}

// killBridge kills the bridge in each phase from Union on, and starts it again. While no
// bridge works, servers are restarted where readers use both registries.
func (w *world) killBridge() error {
	for p := migrate.Union; p <= migrate.Done; p++ {
		if err := w.goTo(p); err != nil {
			return err
		}
		if err := w.withoutBridge(p <= migrate.PreferNew); err != nil {
			return err
		}
	}
	return nil
}

// withoutBridge kills the bridge, restarts servers or not, and starts the bridge again.
func (w *world) withoutBridge(restart bool) error {
	s, err := readSeat(w.Context(), w.pair.election())
	if err != nil {
		return err
	}
	w.processes.end(w.pair.tb)
	w.Pause(w.pair.LeaveDelay)
	if restart {
		if err := w.restart(w.few(), false, w.Rand()); err != nil {
			return err
		}
	}
	w.processes.start(w.pair.tb)
	if _, err := w.awaitElection(s.Epoch); err != nil {
		return err
	}
	w.elections.Add(1)
	return w.Settle()
}

// stopBridge stops the bridge that works with SIGSTOP, until another bridge was elected,
// has worked and was killed. Servers are restarted all the time. Then the first bridge goes
// on, with what it knew.
func (w *world) stopBridge() error {
	for _, p := range []migrate.Phase{migrate.Union, migrate.NewRead} {
		if err := w.goTo(p); err != nil {
			return err
		}
		s, err := readSeat(w.Context(), w.pair.election())
		if err != nil {
			return err
		}
		first := w.processes.all[len(w.processes.all)-1]
		first.Pause(w.pair.tb)
		second := w.processes.start(w.pair.tb)
		epoch, err := w.awaitElection(s.Epoch)
		if err != nil {
			return err
		}
		w.elections.Add(1)
		if err := w.Settle(); err != nil {
			return err
		}
		if err := w.restart(len(w.Servers()), false, w.Rand()); err != nil {
			return err
		}
		if err := w.Settle(); err != nil {
			return err
		}
		second.Kill(w.pair.tb)
		w.processes.all = w.processes.all[:len(w.processes.all)-1]
		first.Continue(w.pair.tb)
		if _, err := w.awaitElection(epoch); err != nil {
			return err
		}
		if err := w.Settle(); err != nil {
			return err
		}
	}
	return nil
}
