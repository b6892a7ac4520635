// Package httpproof shows that package httptransport loses no request while servers are
// replaced and the registry fails, and what the transport costs.
//
// The package runs real HTTP servers on loopback over a registry of package zerodrop.
// Callers send GET and POST requests in closed loops, in turns with three transports: an
// httptransport.Transport, one that never retries, and an http.Transport with fixed
// addresses. The fixed addresses are those of other servers, which are the same and are
// never replaced. Meanwhile a cycle repeats: nothing happens for a while, all servers are
// replaced one after the other, the registry is away for longer than the time to live, and
// the registry is wiped.
//
// A run checks these rules:
//
//   - No request fails, with retries or without.
//   - Every response is that of its request.
//   - Every POST request was handled exactly once.
//
// A run in which a fault had no effect shows nothing. It is invalid and counts as a failure.
package httpproof

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/httptransport"
	"github.com/naming-go/naming/internal/zerodrop"
	"github.com/naming-go/naming/resolver"
)

const (
	service   = "proof"
	fleetSize = 4
	callers   = 8
)

var quiet = slog.New(slog.DiscardHandler)

// Options are the options of [Run].
type Options struct {
	// Requests is the least number of requests with each transport.
	Requests int
	// Rate bounds the requests per second with each transport. 0 means no limit.
	Rate int
	// Cycles is the number of cycles. 0 means one. If they send too few requests, servers
	// are replaced until there are enough.
	Cycles int
	// Logf logs the progress.
	Logf func(format string, args ...any)
}

// run is a run in progress.
type run struct {
	// Constant.
	backend zerodrop.Backend
	opts    Options
	client  *naming.Client
	lanes   []*lane // one for each transport
	ledger  ledger

	servers     []*server // that are registered; owned by the goroutine of Run
	stale, held atomic.Int64
	isStale     atomic.Bool // the present set of the client
}

// The lanes of a run.
const (
	withRetries = iota
	withoutRetries
	static
)

// Run runs the cycles. It returns an error if it could not.
// What it found is in the Report.
func Run(ctx context.Context, b zerodrop.Backend, opts Options) (*Report, error) {
	r := &run{backend: b, opts: opts}
	r.client = naming.New(b.Clients, &naming.Options{Logger: quiet, Hooks: &naming.Hooks{
		Stale: func(info naming.StaleInfo) {
			r.isStale.Store(!info.Since.IsZero())
			if !info.Since.IsZero() {
				r.stale.Add(1)
			}
		},
		Held: func(info naming.HeldInfo) { r.held.Add(int64(len(info.Endpoints))) },
	}})
	defer r.client.Close()
	defer r.stopAll()
	for range fleetSize {
		if err := r.startServer(ctx); err != nil {
			return nil, fmt.Errorf("the first servers: %w", err)
		}
	}
	fixed, stopFixed, err := r.startFixed()
	if err != nil {
		return nil, err
	}
	defer stopFixed()
	builder := resolver.NewBuilder(r.client, &resolver.Options{Logger: quiet})
	ours, once := httptransport.New(builder, nil), httptransport.New(builder, &httptransport.Options{MaxAttempts: 1})
	defer ours.Close()
	defer once.Close()
	defer fixed.CloseIdleConnections()
	r.lanes = []*lane{
		{name: "with retries", transport: ours},
		{name: "without retries", transport: once},
		{name: "static", transport: fixed},
	}
	if err := r.settle(ctx); err != nil {
		return nil, err
	}
	start := time.Now()
	stop := r.startCallers(ctx)
	cycles, err := r.repeat(ctx)
	stop()
	report := r.report(cycles, time.Since(start))
	return report, cmp.Or(ctx.Err(), err)
}

// step is a part of the cycle. The run is settled before and after.
type step struct {
	name string
	do   func(context.Context) error
}

// repeat repeats the cycle, and then the steps that take little time until enough requests
// were sent.
func (r *run) repeat(ctx context.Context) (cycles int, err error) {
	steps := []step{{"quiet", r.quiet}, {"rolling restart", r.rollingRestart}, {"outage", r.outage}, {"wipe", r.wipe}}
	for range max(r.opts.Cycles, 1) {
		if err := r.take(ctx, steps); err != nil {
			return cycles, err
		}
		cycles++
	}
	for int(r.lanes[withRetries].sent.Load()) < r.opts.Requests {
		if err := r.take(ctx, steps[:2]); err != nil {
			return cycles, err
		}
	}
	return cycles, nil
}

// take takes steps one after the other.
func (r *run) take(ctx context.Context, steps []step) error {
	for _, s := range steps {
		before, start := r.sentAndFailed()
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if err := r.settle(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		after, end := r.sentAndFailed()
		r.opts.Logf("%-16s %7d requests, %d failed, in %v", s.name, after[0]-before[0], after[1]-before[1], end.Sub(start).Round(time.Millisecond))
	}
	return nil
}

// sentAndFailed returns how many requests were sent to the fleet, and how many of them
// failed.
func (r *run) sentAndFailed() (counts [2]int64, at time.Time) {
	for _, l := range r.lanes[:static] {
		counts[0] += l.sent.Load()
		counts[1] += l.failed.Load()
	}
	return counts, time.Now()
}

// quiet lets requests be sent.
func (r *run) quiet(ctx context.Context) error { return pause(ctx, time.Second) }

// rollingRestart replaces one server after the other.
func (r *run) rollingRestart(ctx context.Context) error {
	for range fleetSize {
		if err := r.stopServer(ctx); err != nil {
			return err
		}
		if err := r.startServer(ctx); err != nil {
			return err
		}
	}
	return nil
}

// outage takes the registry away for longer than the time to live.
func (r *run) outage(ctx context.Context) error {
	before := r.stale.Load()
	if err := r.backend.Down(); err != nil {
		return err
	}
	err := pause(ctx, r.ttl()*3/2)
	if err := errors.Join(err, r.backend.Up()); err != nil {
		return err
	}
	return r.await(ctx, "stale sets", func() bool { return r.stale.Load() > before })
}

// wipe makes the registry empty while the client watches it. A client that asks again after
// the servers have returned sees nothing of a wipe.
func (r *run) wipe(ctx context.Context) error {
	if err := r.await(ctx, "fresh sets", func() bool { return !r.isStale.Load() }); err != nil {
		return err
	}
	held, stale := r.held.Load(), r.stale.Load()
	if err := r.backend.Wipe(); err != nil {
		return err
	}
	return r.await(ctx, "held endpoints, nor stale sets,", func() bool { return r.held.Load() > held || r.stale.Load() > stale })
}

func (r *run) ttl() time.Duration        { return cmp.Or(r.backend.TTL, 2*time.Second) }
func (r *run) drainDelay() time.Duration { return cmp.Or(r.backend.DrainDelay, 300*time.Millisecond) }

// pause waits for d.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// patience bounds the recovery from a fault. A set may be stale for a minute after the fault.
const patience = 2 * time.Minute

// await waits until done reports true.
func (r *run) await(ctx context.Context, what string, done func() bool) error {
	for start := time.Now(); !done(); {
		if time.Since(start) > patience {
			return fmt.Errorf("no %s in %v", what, patience)
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until the client is fresh and lists exactly the servers that run.
func (r *run) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var want []string
	for _, s := range r.servers {
		want = append(want, s.addr)
	}
	slices.Sort(want)
	var got []string
	for view, err := range r.client.Watch(ctx, service) {
		if err != nil {
			return fmt.Errorf("not settled: it has %v, want %v: %w", got, want, err)
		}
		got = nil
		for _, e := range view.Endpoints {
			got = append(got, e.Addr)
		}
		slices.Sort(got)
		if !view.Stale() && len(view.Held) == 0 && slices.Equal(got, want) {
			return nil
		}
	}
	return errors.New("the watch ended")
}
