// Command cmd runs the scenarios of package migrateproof on pairs of registries. The last
// line says how many calls were made and how many of them failed. The exit status is 0
// only if every rule held.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"testing"
	"time"

	"github.com/naming-go/naming/internal/migrateproof"
	"github.com/naming-go/naming/internal/servertest"
	"github.com/naming-go/naming/internal/zerodrop"
)

// pairs are the pairs of registries by their names.
var pairs = map[string]func(testing.TB) migrateproof.Pair{
	"memory":         migrateproof.Memory,
	"consul-to-etcd": migrateproof.ConsulToEtcd,
	"etcd-to-consul": migrateproof.EtcdToConsul,
}

// shortRate is how many calls the short form makes in a second.
const shortRate = 2_000

func main() {
	names := flag.String("pairs", "memory,consul-to-etcd,etcd-to-consul", "the pairs of registries, with commas between")
	calls := flag.Int("calls", 100_000, "how many calls to make at least, on all pairs together")
	full := flag.Bool("full", false, "run all scenarios, and visit every phase with every server; a million calls imply it")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "what decides which servers are stopped")
	only := flag.String("only", "", "the scenarios to run, with commas between; empty means all")
	flag.Parse()
	opts := migrateproof.Options{Full: *full || *calls >= 1_000_000}
	opts.Seed, opts.Logf = *seed, func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	if !opts.Full {
		opts.Rate = shortRate // calls must not keep the programs from the processors
	}
	if *only != "" {
		opts.Only = strings.Split(*only, ",")
	}
	list := strings.Split(*names, ",")
	opts.Calls = (*calls + len(list) - 1) / len(list)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	start := time.Now()
	var sum zerodrop.Report
	ok := true
	for _, name := range list {
		report, err := play(ctx, name, opts)
		if err != nil {
			fmt.Println(err)
			ok = false
		}
		sum.Calls += report.Calls
		sum.Failed += report.Failed
		sum.Broken = append(sum.Broken, report.Broken...)
		sum.Invalid = append(sum.Invalid, report.Invalid...)
	}
	ok = ok && sum.Err() == nil && sum.Calls >= *calls
	fmt.Printf("took %v\n", time.Since(start).Round(time.Second))
	fmt.Printf("migrate-proof: %v\n", &sum)
	if !ok {
		os.Exit(1)
	}
}

// play runs the scenarios on one pair. The report is never nil.
func play(ctx context.Context, name string, opts migrateproof.Options) (*zerodrop.Report, error) {
	start := pairs[name]
	if start == nil {
		return &zerodrop.Report{}, fmt.Errorf("there is no pair %q", name)
	}
	report := new(zerodrop.Report)
	var err error
	p := servertest.NewProgram("migrateproof", os.Stdout)
	if !p.Run(func() bool {
		r, e := migrateproof.Run(ctx, start(p), opts)
		if r != nil {
			report = r
		}
		err = e
		return err == nil
	}) && err == nil {
		err = fmt.Errorf("the servers of %q failed", name)
	}
	fmt.Printf("%s: %v in %v\n", name, report, report.Took.Round(time.Second))
	return report, err
}
