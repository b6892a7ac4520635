package migrateproof

import (
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/naming-go/naming/internal/mutant"
	"github.com/naming-go/naming/internal/zerodrop"
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

// proof runs the scenarios on a pair: the short form, or all of it at full length.
func proof(t *testing.T, p Pair, calls int) {
	opts := Options{Options: zerodrop.Options{Calls: calls, Rate: 4_000}}
	if mutant.Full() {
		opts = Options{Options: zerodrop.Options{Calls: 350_000}, Full: true}
	}
	if err := test(t, p, opts, (*world).scenarios).Err(); err != nil {
		t.Error(err)
	}
}

func TestMemory(t *testing.T)       { proof(t, Memory(t), 20_000) }
func TestConsulToEtcd(t *testing.T) { proof(t, ConsulToEtcd(t), 10_000) }
func TestEtcdToConsul(t *testing.T) { proof(t, EtcdToConsul(t), 10_000) }

// TestScenario is for the mutants. MIGRATE_PROOF_ONLY names the scenarios to run, instead of
// a short one.
func TestScenario(t *testing.T) {
	only := os.Getenv("MIGRATE_PROOF_ONLY")
	if only == "" {
		only = "jumps"
	}
	p := Memory(t)
	p.Old.Settle = 8 * time.Second
	opts := Options{Options: zerodrop.Options{Calls: 2_000, Rate: 4_000, Only: strings.Split(only, ",")}}
	if err := test(t, p, opts, (*world).scenarios).Err(); err != nil {
		t.Error(err)
	}
}
