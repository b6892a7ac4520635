package balanceproof

import (
	"math"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/naming-go/naming/internal/mutant"
)

// options are those of a test: the short form, or all with NAMING_FULL.
func options(t *testing.T) Options {
	return Options{Full: mutant.Full() && os.Getenv(shortVariable) == "", Logf: t.Logf}
}

// shortVariable is the environment variable that makes tests short, for the mutants.
const shortVariable = "BALANCE_PROOF_SHORT"

// tolerance is by which part a server's share of the calls may differ from what its weight
// says.
const tolerance = 0.02

func TestWeights(t *testing.T) {
	t.Parallel()
	w, err := MeasureWeights(t.Context(), options(t))
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range []ByWeight{w.First, w.Second} {
		t.Logf("weights %v: calls %v, deviation %.3f %%", b.Weights, b.Calls, 100*b.Deviation())
		if d := b.Deviation(); !(d <= tolerance) {
			t.Errorf("measurement %d: the weights are %v, the calls %v: a share is %.1f %% off", i, b.Weights, b.Calls, 100*d)
		}
	}
	if want := int64(w.Clients * len(weightsBefore)); w.Accepted != want || w.AcceptedAfter != 0 {
		t.Errorf("the servers accepted %d connections, and %d after the change, want %d and 0", w.Accepted, w.AcceptedAfter, want)
	}
}

// zoneTolerance is by how many of all calls the share of a zone may differ from the formula.
const zoneTolerance = 0.02

func TestZones(t *testing.T) {
	t.Parallel()
	list, err := MeasureZones(t.Context(), options(t))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []ByZone{{Own: 3, Computed: 1, Load: 1}, {Own: 1, Computed: 0.6, Load: 1.4}, {Own: 0}} {
		got := list[i]
		t.Logf("%+v", got)
		if got.Own != want.Own || math.Abs(got.Computed-want.Computed) > 1e-9 || math.Abs(got.Load-want.Load) > 1e-9 {
			t.Errorf("computed %+v, want %+v", got, want)
		}
		if math.Abs(got.Measured-want.Computed) > zoneTolerance {
			t.Errorf("with %d servers in the zone, it has %.1f %% of the calls, want %.1f %%", want.Own, 100*got.Measured, 100*want.Computed)
		}
	}
}

// slowBound bounds the share of the slow server, which is 10 % if the calls are spread evenly.
// It was from 0 to 6 %, and highest on a machine so busy that all servers are slow.
const slowBound = 0.07

// TestSlow: the slow server gets few calls. The time of a call depends on the machine, and
// is not checked.
func TestSlow(t *testing.T) {
	t.Parallel()
	m, err := MeasureSlow(t.Context(), options(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range m.Policies {
		t.Logf("%+v", p)
	}
	i := slices.IndexFunc(m.Policies, func(p BySlow) bool { return p.Policy == leastLoaded })
	if p := m.Policies[i]; p.Later > slowBound {
		t.Errorf("with %s the slow server got %.1f %% of the second half of the calls", p.Policy, 100*p.Later)
	}
	if p := m.Policies[0]; p.Later < 0.09 || p.P99 < m.Slow {
		t.Errorf("with %s the slow server was not called, or is not slow: %+v", p.Policy, p)
	}
}

func TestSubsets(t *testing.T) {
	t.Parallel()
	s, err := MeasureSubsets(t.Context(), options(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range s.Real {
		if !slices.Equal(r.PerServer, r.Computed.PerServer) || !slices.Equal(r.Leaving, r.Computed.Leaving) {
			t.Errorf("connections %v, computed %v; after a server left %v, computed %v", r.PerServer, r.Computed.PerServer, r.Leaving, r.Computed.Leaving)
		}
	}
	for _, c := range s.Computed {
		t.Logf("by number %v: %d to %d, median %d; leaving %v", c.ByNumber, c.Min(), c.Max(), c.Median(), c.Leaving)
		per := 1
		if c.ByNumber {
			per = 2
			if c.Max()-c.Min() > 4 {
				t.Errorf("by number: servers have from %d to %d connections", c.Min(), c.Max())
			}
		}
		if made := slices.Max(c.Leaving); made > per*c.Clients {
			t.Errorf("%d clients made %d connections when one server left", c.Clients, made)
		}
	}
}

// TestControls: the measurements find a policy that does not do what it should, and calls
// that fail. Otherwise the other tests would show nothing.
func TestControls(t *testing.T) {
	t.Parallel()
	config := slowPolicies[0].config // round_robin
	w, err := measureWeights(t.Context(), config, 300)
	if err != nil {
		t.Fatal(err)
	}
	if w.First.Deviation() <= tolerance || w.Second.Deviation() <= tolerance {
		t.Errorf("without weights: %+v", w)
	}
	list, err := measureZones(t.Context(), config, 300)
	if err != nil {
		t.Fatal(err)
	}
	for _, z := range list[:2] {
		if math.Abs(z.Measured-z.Computed) <= zoneTolerance {
			t.Errorf("without a zone: %+v", z)
		}
	}
}

// TestFailedCalls: a server that stops without leaving the registry first fails calls, and
// they are counted.
func TestFailedCalls(t *testing.T) {
	t.Parallel()
	f := newFleet()
	defer f.close()
	s, err := f.start(t.Context(), place{id: "server", duration: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	c, err := f.dial(rollingPolicies[0].config)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll([]*client{c})
	traffic := begin([]*client{c}, 4, 0)
	if err := await(t.Context(), "calls are in progress", func() bool { return s.working.Load() > 0 }); err != nil {
		t.Fatal(err)
	}
	s.grpc.Stop()
	traffic.end()
	if err := callErr([]*client{c}); err == nil {
		t.Error("no call failed")
	}
	_ = s.stop() // the server ended before
}

func TestRolling(t *testing.T) {
	t.Parallel()
	r, err := MeasureRolling(t.Context(), options(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Policies {
		t.Logf("%+v", p)
		if p.Failed > 0 || p.Calls == 0 {
			t.Errorf("%s: %d of %d calls failed", p.Policy, p.Failed, p.Calls)
		}
	}
}
