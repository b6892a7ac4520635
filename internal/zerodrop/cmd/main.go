// Command cmd runs the scenarios of package zerodrop. The last line says how many calls
// were made and how many of them failed. The exit status is 0 only if every rule held.
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

	"github.com/naming-go/naming/internal/servertest"
	"github.com/naming-go/naming/internal/zerodrop"
)

// backends are the registries by their names.
var backends = map[string]func(testing.TB) zerodrop.Backend{
	"memory": func(testing.TB) zerodrop.Backend { return zerodrop.Memory() },
	"etcd":   zerodrop.Etcd,
	"consul": zerodrop.Consul,
}

func main() {
	store := flag.String("store", "memory", "the registry: memory, etcd or consul")
	calls := flag.Int("calls", 200_000, "how many calls to make at least")
	rate := flag.Int("rate", 0, "how many calls to make in a second at most; 0 means no limit")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "what decides which servers are stopped")
	only := flag.String("only", "", "the scenarios to run, with commas between; empty means all")
	flag.Parse()
	start := backends[*store]
	if start == nil {
		fmt.Fprintf(os.Stderr, "there is no registry %q\n", *store)
		os.Exit(2)
	}
	opts := zerodrop.Options{
		Calls: *calls, Rate: *rate, Seed: *seed,
		Logf: func(format string, args ...any) { fmt.Printf(format+"\n", args...) },
	}
	if *only != "" {
		opts.Only = strings.Split(*only, ",")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	report, p := new(zerodrop.Report), servertest.NewProgram("zerodrop", os.Stdout)
	ok := p.Run(func() bool {
		r, err := zerodrop.Run(ctx, start(p), opts)
		if r != nil {
			report = r
		}
		if err != nil {
			fmt.Println(err)
		}
		return err == nil && r.Err() == nil
	})
	fmt.Printf("took %v, %.0f calls/s; longest gap of a caller %v, %v while nothing happened\n", report.Took.Round(time.Millisecond),
		float64(report.Calls)/max(report.Took.Seconds(), 1e-3), report.Gap.Round(time.Millisecond), report.QuietGap.Round(time.Millisecond))
	fmt.Printf("zero-drop: store %s: %v\n", *store, report)
	if !ok {
		os.Exit(1)
	}
}
