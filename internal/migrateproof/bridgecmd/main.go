// Command bridgecmd runs a bridge between two registries that URLs name, until it gets a
// signal. The tests of package migrateproof kill and stop such processes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/open"
	"github.com/naming-go/naming/migrate/bridge"
)

func main() {
	var opts bridge.Options
	source := flag.String("source", "", "the URL of the registry to copy from")
	target := flag.String("target", "", "the URL of the registry to copy to")
	elect := flag.String("elect", "", "the URL of the registry of the election; empty means the target")
	flag.StringVar(&opts.SourceName, "source-name", "old", "the name of the source")
	flag.StringVar(&opts.TargetName, "target-name", "new", "the name of the target")
	flag.DurationVar(&opts.TTL, "ttl", 0, "the time to live of the copies; 0 means the default")
	flag.DurationVar(&opts.ElectionTTL, "election-ttl", 2*time.Second, "how long other bridges wait for one that died")
	flag.IntVar(&opts.Rate, "rate", 0, "the most changes in a second; 0 means the default")
	flag.Float64Var(&opts.Fuse.Share, "fuse", 0, "the share of the copies that may be deleted at once; 0 means the default")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *source, *target, *elect, opts); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, source, target, elect string, opts bridge.Options) error {
	var stores [3]naming.Store
	for i, url := range []string{source, target, elect} {
		if url == "" && i == 2 {
			continue
		}
		store, done, err := open.Store(ctx, url, nil)
		if err != nil {
			return err
		}
		defer func() { _ = done() }()
		stores[i] = store
	}
	opts.Election = stores[2]
	b, err := bridge.New(stores[0], stores[1], &opts)
	if err != nil {
		return err
	}
	return b.Run(ctx)
}
