package zerodrop

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming/internal/mutant"
)

// test runs the named scenarios, or all of them, as a test.
func test(t *testing.T, b Backend, calls, rate int, only ...string) *Report {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("ZERO_DROP_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	report, err := Run(t.Context(), b, Options{Calls: calls, Rate: rate, Only: only, Seed: seed, Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v in %v", report, report.Took)
	return report
}

// TestMemory is the short form of make zero-drop. At full length it is all of it.
func TestMemory(t *testing.T) {
	calls, rate := 20_000, 4_000
	if mutant.Full() {
		calls, rate = 200_000, 0
	}
	if err := test(t, Memory(), calls, rate).Err(); err != nil {
		t.Error(err)
	}
}

// TestScenario is for the mutants. ZERO_DROP_ONLY names the scenarios to run, instead of
// a short one. ZERO_DROP_STORE names the store, instead of memory.
func TestScenario(t *testing.T) {
	b := Memory()
	only := os.Getenv("ZERO_DROP_ONLY")
	if only == "" {
		only = "scaling"
	} else {
		b.Settle = 5 * time.Second // a mutant may never settle
	}
	if os.Getenv("ZERO_DROP_STORE") == "consul" {
		b = Consul(t)
	}
	if err := test(t, b, 2_000, 4_000, strings.Split(only, ",")...).Err(); err != nil {
		t.Error(err)
	}
}

// TestTooFewCalls: a run with too few calls fails.
func TestTooFewCalls(t *testing.T) {
	report, err := Run(t.Context(), Memory(), Options{
		Calls: 100_000, Rate: 100, Limit: 300 * time.Millisecond, Only: []string{quietScenario, "scaling"}, Logf: t.Logf,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Broken) > 0 || len(report.Invalid) != 3 || report.Err() == nil || !strings.Contains(report.String(), "invalid") {
		t.Errorf("got %v, broken %q, invalid %q", report, report.Broken, report.Invalid)
	}
}

// TestNoEffect: a run in which the fault had no effect fails.
func TestNoEffect(t *testing.T) {
	b := Memory()
	b.Wipe = func() error { return nil }
	report := test(t, b, 100, 0, "wipe")
	if len(report.Invalid) != 1 || report.Err() == nil {
		t.Errorf("got %v, invalid %q", report, report.Invalid)
	}
}

// TestVerbThatFails: a verb's error makes the run fail.
func TestVerbThatFails(t *testing.T) {
	b := Memory()
	b.Wipe = func() error { return errors.New("no") }
	if report := test(t, b, 100, 0, "wipe"); len(report.Broken) == 0 {
		t.Errorf("got %v", report)
	}
}

func TestNothingToRun(t *testing.T) {
	b := Memory()
	b.Wipe = nil
	if _, err := Run(t.Context(), b, Options{Only: []string{"wipe"}, Logf: t.Logf}); err == nil {
		t.Error("no error")
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	b := Memory()
	b.Wipe = func() error { cancel(); return nil }
	if _, err := Run(ctx, b, Options{Calls: 1e6, Only: []string{"wipe"}, Logf: t.Logf}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestLedger: each way in which the two sides can differ is found.
func TestLedger(t *testing.T) {
	for _, c := range []struct {
		name             string
		ok, handled      []uint64
		calls, failed    int
		broken, invalid_ int
	}{
		{"well", []uint64{1, 2}, []uint64{2, 1}, 2, 0, 0, 0},
		{"failed, handled or not", []uint64{1}, []uint64{1, 2}, 3, 2, 0, 0},
		{"not handled", []uint64{1, 2}, []uint64{1}, 2, 0, 1, 0},
		{"handled twice", []uint64{1}, []uint64{1, 1}, 1, 0, 1, 0},
		{"failed and handled twice", nil, []uint64{1, 1}, 1, 1, 1, 0},
		{"made twice", []uint64{1, 1}, []uint64{1}, 2, 0, 0, 1},
		{"not noted", []uint64{1}, []uint64{1}, 2, 0, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			tt := &total{suite: noSuite, opts: Options{Logf: t.Logf}}
			tt.report.Calls, tt.report.Failed = c.calls, c.failed
			tt.ledger.answered(c.ok)
			for _, id := range c.handled {
				tt.ledger.handle(id)
			}
			tt.ledger.check(tt.newRun(t.Context()))
			if b, i := len(tt.report.Broken), len(tt.report.Invalid); b != c.broken || i != c.invalid_ {
				t.Errorf("broken %q, invalid %q", tt.report.Broken, tt.report.Invalid)
			}
		})
	}
}

// noSuite is for tests of what every Play has.
func noSuite(*Play) (Site, []Scenario) { return Site{}, nil }

// TestFindings: the rules that no mutant breaks find what breaks them.
func TestFindings(t *testing.T) {
	tt := &total{suite: noSuite, opts: Options{Logf: t.Logf}}
	r := tt.newRun(t.Context())
	r.fleet.live = map[string]*Server{"a": {}}
	c := &client{run: r, name: "c"}
	c.applySet(nil) // before the first set
	c.applySet([]string{"a", "b"})
	if len(r.report.Broken) != 0 {
		t.Fatalf("broken: %q", r.report.Broken)
	}
	c.applySet([]string{"b"})
	c.applySet(nil)
	if n := len(r.report.Broken); n != 2 {
		t.Errorf("%d findings, want one of the set without a live server and one of the empty set", n)
	}
	if got := c.addrs(); !slices.Equal(got, nil) {
		t.Errorf("the client has %v", got)
	}
	r.ending.Store(true)
	c.applySet(nil)
	if n := len(r.report.Broken); n != 2 {
		t.Error("the end counts as a failure")
	}
}

// TestEtcd is the same on a cluster of real servers. The short form has the scenarios
// that only real servers can show.
func TestEtcd(t *testing.T) {
	calls, rate := 10_000, 3_000
	only := []string{"turnover", "crash", "silence", "mass expiry", "wipe", "leader change", "member loss"}
	if mutant.Full() {
		calls, rate, only = 200_000, 0, nil
	}
	if err := test(t, Etcd(t), calls, rate, only...).Err(); err != nil {
		t.Error(err)
	}
}

// TestConsul is the same on a real agent.
func TestConsul(t *testing.T) {
	calls, rate := 6_000, 3_000
	only := []string{"resync", "turnover", "crash", "silence", "mass expiry", "wipe"}
	if mutant.Full() {
		calls, rate, only = 200_000, 0, nil
	}
	if err := test(t, Consul(t), calls, rate, only...).Err(); err != nil {
		t.Error(err)
	}
}

// TestSetOracle: a set without a server that is registered is a finding, unless the server
// leaves or is new.
func TestSetOracle(t *testing.T) {
	tt := &total{opts: Options{Logf: t.Logf}, suite: func(*Play) (Site, []Scenario) { return Site{Bound: time.Minute}, nil }}
	r := tt.newRun(t.Context())
	a, b := &Server{fleet: &r.fleet, addr: "a"}, &Server{fleet: &r.fleet, addr: "b"}
	r.fleet.servers, r.fleet.live = []*Server{a, b}, map[string]*Server{"a": a, "b": b}
	a.listed.Store(true)
	b.since.Store(time.Now().UnixNano())
	c := &client{run: r, name: "c"}
	c.applySet([]string{"a", "b"})
	c.applySet([]string{"a"}) // b is new
	if len(r.report.Broken) != 0 {
		t.Fatalf("broken: %q", r.report.Broken)
	}
	b.since.Store(time.Now().Add(-time.Hour).UnixNano())
	c.applySet([]string{"a"})
	c.applySet([]string{"b"})
	if n := len(r.report.Broken); n != 2 {
		t.Errorf("%d findings, want one for each server that is missing", n)
	}
	a.leaving.Store(true)
	c.applySet([]string{"b"})
	if n := len(r.report.Broken); n != 2 {
		t.Error("a server that leaves counts as missing")
	}
}

// TestBalance: a server that a client does not call is a finding. A client that makes no
// progress neglects nobody.
func TestBalance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tt := &total{opts: Options{Logf: t.Logf}, suite: func(*Play) (Site, []Scenario) { return Site{Balance: time.Second}, nil }}
		r := tt.newRun(t.Context())
		a, b := &Server{fleet: &r.fleet, addr: "a"}, &Server{fleet: &r.fleet, addr: "b"}
		r.fleet.servers, r.fleet.live = []*Server{a, b}, map[string]*Server{"a": a, "b": b}
		r.clients = []*client{{run: r, name: "c", balances: true}}
		stop := r.startMonitor()
		defer stop()
		call := func(addr string) {
			for range 100 {
				r.clients[0].reach(addr)
				time.Sleep(mostProgress)
			}
		}
		time.Sleep(time.Hour)
		if len(r.report.Broken) != 0 {
			t.Fatalf("broken: %q", r.report.Broken)
		}
		call("a")
		if n := len(r.report.Broken); n != 1 {
			t.Fatalf("%d findings, want one: %q", n, r.report.Broken)
		}
		b.leaving.Store(true)
		call("a")
		if n := len(r.report.Broken); n != 1 {
			t.Errorf("%d findings: %q", n, r.report.Broken)
		}
	})
}
