// Command cmd runs the proof of package httpproof. The last lines say how many requests were
// sent, how many of them failed, and how long they took beside a transport with fixed
// addresses. The exit status is 0 only if every rule held.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"testing"

	"github.com/naming-go/naming/internal/httpproof"
	"github.com/naming-go/naming/internal/servertest"
	"github.com/naming-go/naming/internal/zerodrop"
)

// backends are the registries by their names.
var backends = map[string]func(testing.TB) zerodrop.Backend{
	"memory": func(testing.TB) zerodrop.Backend { return zerodrop.Memory() },
	"etcd":   func(tb testing.TB) zerodrop.Backend { return zerodrop.EtcdOf(tb, 1) },
	"consul": zerodrop.Consul,
}

func main() {
	store := flag.String("store", "etcd", "the registry: memory, etcd or consul")
	requests := flag.Int("requests", 200_000, "how many requests to send at least, with each transport")
	rate := flag.Int("rate", 0, "how many requests to send in a second at most, with each transport; 0 means no limit")
	cycles := flag.Int("cycles", 3, "how often to go through all faults")
	flag.Parse()
	start := backends[*store]
	if start == nil {
		fmt.Fprintf(os.Stderr, "no registry %q\n", *store)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	p := servertest.NewProgram("httpproof", os.Stdout)
	ok := p.Run(func() bool {
		report, err := httpproof.Run(ctx, start(p), httpproof.Options{Requests: *requests, Rate: *rate, Cycles: *cycles, Logf: p.Logf})
		if report != nil {
			p.Logf("%v", report)
			if e := report.Err(); e != nil {
				p.Error(e)
			}
		}
		if err != nil {
			p.Error(err)
		}
		return true
	})
	if !ok {
		os.Exit(1)
	}
}
