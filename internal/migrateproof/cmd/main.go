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

	"golang.org/x/sync/errgroup"

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

// shortRate is how many calls the short form makes in a second, on each pair.
const shortRate = 1_000

func main() {
	names := flag.String("pairs", "memory,consul-to-etcd,etcd-to-consul", "the pairs of registries, with commas between")
	calls := flag.Int("calls", 100_000, "how many calls to make at least, on all pairs together")
	full := flag.Bool("full", false, "run all scenarios, and visit every phase with every server; a million calls imply it")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "what decides which servers are stopped")
	only := flag.String("only", "", "the scenarios to run, with commas between; empty means all")
	flag.Parse()
	opts := migrateproof.Options{Full: *full || *calls >= 1_000_000}
	opts.Seed = *seed
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
	atOnce := len(list) // the short form mostly waits
	if opts.Full {
		atOnce = 1
	}
	var sum zerodrop.Report
	ok := true
	for _, r := range playAll(ctx, list, atOnce, opts) {
		if r.err != nil {
			fmt.Println(r.err)
			ok = false
		}
		sum.Calls += r.report.Calls
		sum.Failed += r.report.Failed
		sum.Broken = append(sum.Broken, r.report.Broken...)
		sum.Invalid = append(sum.Invalid, r.report.Invalid...)
	}
	ok = ok && sum.Err() == nil && sum.Calls >= *calls
	fmt.Printf("took %v\n", time.Since(start).Round(time.Second))
	fmt.Printf("migrate-proof: %v\n", &sum)
	if !ok {
		os.Exit(1)
	}
}

// result is the result of one pair.
type result struct {
	report *zerodrop.Report
	err    error
}

// playAll runs the scenarios on all pairs, on some of them at the same time.
func playAll(ctx context.Context, names []string, atOnce int, opts migrateproof.Options) []result {
	results := make([]result, len(names))
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i, name := range names {
		own := opts
		own.Logf = func(format string, args ...any) { fmt.Printf("%-14s "+format+"\n", append([]any{name}, args...)...) }
		g.Go(func() error {
			results[i].report, results[i].err = play(ctx, name, own)
			return nil
		})
	}
	_ = g.Wait() // no error
	return results
}

// play runs the scenarios on one pair. The report is never nil.
func play(ctx context.Context, name string, opts migrateproof.Options) (*zerodrop.Report, error) {
	start := pairs[name]
	if start == nil {
		return &zerodrop.Report{}, fmt.Errorf("unknown pair %q", name)
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
