package httpproof

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Report is the result of a run.
type Report struct {
	Lanes               []Lane // with retries, without retries, static
	Cycles              int
	StaleSets, HeldSeen int64 // the effects of the faults
	Took                time.Duration
	wanted              int
}

func (r *run) report(cycles int, took time.Duration) *Report {
	report := &Report{Cycles: cycles, StaleSets: r.stale.Load(), HeldSeen: r.held.Load(), Took: took, wanted: r.opts.Requests}
	r.ledger.mu.Lock()
	defer r.ledger.mu.Unlock()
	for _, l := range r.lanes {
		report.Lanes = append(report.Lanes, l.report(r.ledger.handled))
	}
	return report
}

// Err returns an error if the run was not a success.
func (r *Report) Err() error {
	var errs []error
	for _, l := range r.Lanes {
		if l.Failed > 0 {
			errs = append(errs, fmt.Errorf("%s: %d of %d requests failed, such as: %w", l.Name, l.Failed, l.Requests, errors.Join(l.FirstErrors...)))
		}
		if l.HandledAmiss > 0 {
			errs = append(errs, fmt.Errorf("%s: %d POST requests were not handled exactly once", l.Name, l.HandledAmiss))
		}
		if l.Requests < int64(r.wanted) {
			errs = append(errs, fmt.Errorf("invalid: %s: %d requests were sent, want %d", l.Name, l.Requests, r.wanted))
		}
	}
	if r.StaleSets == 0 {
		errs = append(errs, errors.New("invalid: the faults had no effect: 0 stale sets"))
	}
	return errors.Join(errs...)
}

// Ratio returns the latency of the requests with retries in parts of that of the static
// transport.
func (r *Report) Ratio() (p50, p99 float64) {
	a, b := r.Lanes[withRetries].Latency, r.Lanes[static].Latency
	return float64(a.P50) / float64(max(b.P50, 1)), float64(a.P99) / float64(max(b.P99, 1))
}

// String returns the last lines of a run.
func (r *Report) String() string {
	var b strings.Builder
	for _, l := range r.Lanes {
		fmt.Fprintf(&b, "%-16s %7d requests, %d failed, %d handled amiss; p50 %v, p99 %v, max %v\n", l.Name, l.Requests, l.Failed, l.HandledAmiss,
			l.Latency.P50.Round(time.Microsecond), l.Latency.P99.Round(time.Microsecond), l.Latency.Max.Round(time.Microsecond))
	}
	p50, p99 := r.Ratio()
	fmt.Fprintf(&b, "%d cycles in %v, %d stale sets, %d held; with retries / static: p50 %.3f, p99 %.3f",
		r.Cycles, r.Took.Round(time.Millisecond), r.StaleSets, r.HeldSeen, p50, p99)
	return b.String()
}
