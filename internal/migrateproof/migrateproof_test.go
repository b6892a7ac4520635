package migrateproof

import (
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/internal/mutant"
	"github.com/naming-go/naming/internal/zerodrop"
	"github.com/naming-go/naming/migrate"
)

// test runs scenarios as a test.
func test(t *testing.T, p Pair, opts Options, scenarios func(*world) []zerodrop.Scenario) *zerodrop.Report {
	t.Helper()
	opts.Seed = rand.Uint64()
	if s := os.Getenv("MIGRATE_PROOF_SEED"); s != "" {
		var err error
		if opts.Seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	opts.Logf = t.Logf
	report, err := run(t.Context(), p, opts, scenarios)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %v in %v", p.Name, report, report.Took)
	return report
}

// TestPairs runs the scenarios on each pair: the short form, or all of it at full length. The
// pairs of the short form run beside each other, because they mostly wait.
func TestPairs(t *testing.T) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, p := range []struct {
		name  string
		make  func(testing.TB) Pair
		calls int
	}{
		{"memory", Memory, 20_000},
		{"Consul to etcd", ConsulToEtcd, 10_000},
		{"etcd to Consul", EtcdToConsul, 10_000},
	} {
		run := func() {
			t.Run(p.name, func(t *testing.T) { proof(t, p.make(t), p.calls) })
		}
		if mutant.Full() {
			run()
		} else {
			wg.Go(run)
		}
	}
}

func proof(t *testing.T, p Pair, calls int) {
	t.Helper()
	opts := Options{Options: zerodrop.Options{Calls: calls, Rate: 1_000}}
	if mutant.Full() {
		opts = Options{Options: zerodrop.Options{Calls: 350_000}, Full: true}
	}
	if err := test(t, p, opts, (*world).scenarios).Err(); err != nil {
		t.Error(err)
	}
}

// TestScenario is for the mutants. MIGRATE_PROOF_ONLY names the scenario to run, instead of a
// short one.
func TestScenario(t *testing.T) {
	only := os.Getenv("MIGRATE_PROOF_ONLY")
	if only == "" {
		only = "jumps"
	}
	checkScenario(t, only)
}

// checkScenario runs a scenario on two memory stores.
func checkScenario(t *testing.T, name string) {
	t.Helper()
	p := Memory(t)
	p.Old.Settle = time.Minute // a mutant may never settle
	opts := Options{Full: true, Options: zerodrop.Options{Calls: 2_000, Rate: 4_000, Only: []string{name}}}
	scenarios := func(w *world) []zerodrop.Scenario { return append(w.scenarios(), w.late()) }
	if err := test(t, p, opts, scenarios).Err(); err != nil {
		t.Error(err)
	}
}

// late is the scenario of a server that starts while nothing else happens.
func (w *world) late() zerodrop.Scenario {
	return zerodrop.Scenario{Name: "late", Begin: func() error { w.Site().Settle = 30 * time.Second; return nil }, Cycle: func() error {
		return w.restart(1, false, w.Rand())
	}}
}

// TestControls: calls fail in fleets that are too far apart. Otherwise the proof would show
// nothing about those that are not.
func TestControls(t *testing.T) {
	for _, name := range []string{"four behind", "five ahead"} {
		t.Run(name, func(t *testing.T) {
			opts := Options{Options: zerodrop.Options{Calls: 1_000, Rate: 4_000, Only: []string{name}}}
			if report := test(t, Memory(t), opts, (*world).tooFarApart); report.Failed == 0 {
				t.Errorf("no call failed: broken %q, invalid %q", report.Broken, report.Invalid)
			}
		})
	}
}

// TestFindings: the checks that only a migration has find what breaks them.
func TestFindings(t *testing.T) {
	for name, want := range map[string]string{
		"connection": "1 new connections, want 0",
		"set":        "sets published, want 0",
		"entry":      "the new registry: it has",
	} {
		t.Run(name, func(t *testing.T) {
			opts := Options{Options: zerodrop.Options{Calls: 100, Rate: 4_000, Limit: 5 * time.Second, Only: []string{name}}}
			report := test(t, Memory(t), opts, (*world).broken)
			if len(report.Broken) == 0 || !strings.Contains(report.Broken[0], want) {
				t.Errorf("broken %q, want %q", report.Broken, want)
			}
		})
	}
}

// broken returns scenarios in which something happens during a step that must not. Each
// waits until the harness has seen what happened.
func (w *world) broken() []zerodrop.Scenario {
	during := func(name string, f func() error) zerodrop.Scenario {
		return zerodrop.Scenario{Name: name, Cycle: func() error {
			w.pair.LeaveDelay = 0
			w.onSet = f
			return w.step(in(migrate.DualWrite))
		}}
	}
	return []zerodrop.Scenario{
		during("connection", func() error {
			accepts := w.Accepts()
			c, err := net.Dial("tcp", w.Servers()[0].Addr())
			if err != nil {
				return err
			}
			defer c.Close()
			return w.Await("connection", func() bool { return w.Accepts() > accepts })
		}),
		during("set", func() error {
			published := w.Published()
			if err := w.ChangeMetadata(); err != nil {
				return err
			}
			return w.Await("set", func() bool { return w.Published() > published })
		}),
		during("entry", func() error {
			w.Site().Settle = time.Second // which ends without success
			return w.pair.New.Servers.Apply(w.Context(), w.Service(), naming.Change{Endpoint: naming.Endpoint{Addr: "127.0.0.1:1"}})
		}),
	}
}

// TestNoEffect: a run in which a fault has no effect fails.
func TestNoEffect(t *testing.T) {
	p := Memory(t)
	p.Old.Wipe = func() error { return nil }
	opts := Options{Options: zerodrop.Options{Calls: 100, Rate: 4_000, Limit: time.Second, Only: []string{"the old registry is wiped"}}}
	report := test(t, p, opts, (*world).scenarios)
	if !slices.Contains(report.Invalid, opts.Only[0]+": it had no effect") {
		t.Errorf("got %v, invalid %q", report, report.Invalid)
	}
}
