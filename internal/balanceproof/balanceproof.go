// Package balanceproof measures how package balancer spreads calls, on real gRPC servers and
// ClientConns with a registry in memory. It counts calls and connections at the servers.
//
// The parts of a run are those of a [Report]. The tests run them in a short form, and check
// the shares and that no call fails. Latencies are measured and never checked. The program
// in cmd runs them at full length, and writes the tables and the picture of
// docs/balancing.md.
package balanceproof

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"google.golang.org/grpc"
)

// Options are the options of [Run]. The zero value is the short form.
type Options struct {
	// Full makes all parts as large and as long as docs/balancing.md has them.
	Full bool
	// Logf, if not nil, gets a line about each part.
	Logf func(format string, args ...any)
}

func (o *Options) logf(format string, args ...any) {
	if o.Logf != nil {
		o.Logf(format, args...)
	}
}

// pickSize returns the first value in the short form, and the second in the full form.
func pickSize[T any](o *Options, short, full T) T {
	if o.Full {
		return full
	}
	return short
}

// Report is what a run measured.
type Report struct {
	Weights Weights
	Zones   Zones
	Slow    Slow
	Subsets Subsets
	Rolling Rolling
}

// Run runs all parts. It returns an error if a part could not be run, or if a call failed.
func Run(ctx context.Context, opts Options) (*Report, error) {
	r := new(Report)
	for _, part := range []struct {
		name string
		run  func() error
	}{
		{"weights", func() (err error) { r.Weights, err = MeasureWeights(ctx, opts); return }},
		{"zones", func() (err error) { r.Zones, err = MeasureZones(ctx, opts); return }},
		{"a slow server", func() (err error) { r.Slow, err = MeasureSlow(ctx, opts); return }},
		{"subsets", func() (err error) { r.Subsets, err = MeasureSubsets(ctx, opts); return }},
		{"rolling restarts", func() (err error) { r.Rolling, err = MeasureRolling(ctx, opts); return }},
	} {
		start := time.Now()
		if err := part.run(); err != nil {
			return nil, fmt.Errorf("%s: %w", part.name, err)
		}
		opts.logf("%s: %v", part.name, time.Since(start).Round(100*time.Millisecond))
	}
	return r, nil
}

// environment says what the figures of a report depend on.
func environment() string {
	return fmt.Sprintf("%s, gRPC %s, %d processors", runtime.Version(), grpc.Version, runtime.GOMAXPROCS(0))
}

var quiet = slog.New(slog.DiscardHandler)

// patience is how long a run waits for an event that must happen.
const patience = 2 * time.Minute

// await waits until f returns true.
func await(ctx context.Context, what string, f func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, ctx.Err())
		}
	}
	return nil
}
