package httpproof

import (
	"errors"
	"strings"
	"testing"

	"github.com/naming-go/naming/internal/mutant"
	"github.com/naming-go/naming/internal/zerodrop"
)

// TestMemory is the short form of the proof on a registry in memory. It is always short: the
// mutants run it, within two minutes.
func TestMemory(t *testing.T) {
	t.Parallel() // both tests mostly wait for clients to find that the registry is back
	test(t, zerodrop.Memory(), Options{Requests: 5_000, Rate: 1_000})
}

// TestEtcd is the short form on a real server. With NAMING_FULL it is all of it.
func TestEtcd(t *testing.T) {
	t.Parallel()
	opts := Options{Requests: 20_000, Rate: 1_000}
	if mutant.Full() {
		opts = Options{Requests: 200_000, Cycles: 3}
	}
	test(t, zerodrop.EtcdOf(t, 1), opts)
}

func test(t *testing.T, b zerodrop.Backend, opts Options) {
	opts.Logf = t.Logf
	report, err := Run(t.Context(), b, opts)
	if err != nil {
		t.Error(err)
	}
	if report != nil {
		t.Logf("%v", report)
		if err := report.Err(); err != nil {
			t.Error(err)
		}
	}
}

// TestFindings: each way in which a run can be no success is found.
func TestFindings(t *testing.T) {
	good := func() *Report { return &Report{Lanes: make([]Lane, 3), StaleSets: 1, HeldSeen: 1} }
	if err := good().Err(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Report){
		"no answer":    func(r *Report) { r.Lanes[0].Failed, r.Lanes[0].FirstErrors = 1, []error{errors.New("no answer")} },
		"exactly once": func(r *Report) { r.Lanes[1].HandledAmiss = 1 },
		"0 requests":   func(r *Report) { r.wanted = 1 },
		"0 stale sets": func(r *Report) { r.StaleSets = 0 },
	} {
		r := good()
		change(r)
		if err := r.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	l := &lane{name: "x"}
	for path, n := range map[string]int{"/once": 1, "/twice": 2, "/never": 0} {
		l.found.note(path, true, 1, nil)
		_ = n
	}
	if got := l.report(map[string]int{"/once": 1, "/twice": 2}); got.HandledAmiss != 2 {
		t.Errorf("%d requests handled amiss, want 2", got.HandledAmiss)
	}
}
