// Package doctor examines a live registry: whether it answers and how fast, which version and
// which limits it has, which rights the credentials lack, and which entries need an operator.
package doctor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/naming-go/naming"
)

// Level says how urgent a Finding is.
type Level string

// The levels.
const (
	OK      Level = "ok"
	Note    Level = "note"    // worth knowing; nothing has to be done
	Problem Level = "problem" // something fails, or will
)

// Finding is one result of an examination.
type Finding struct {
	Part  string `json:"part"` // what was examined, such as "latency" or "rights"
	Level Level  `json:"level"`
	What  string `json:"what"`
	Do    string `json:"do,omitempty"` // what an operator can do about it
}

// Target is a registry to examine.
type Target struct {
	// Store is a store on the registry.
	Store naming.Store
	// Client is a Client on Store, which reads the entries.
	Client *naming.Client
	// Malformed returns the entries that Store could not understand so far, without
	// duplicates.
	Malformed func() []naming.MalformedError
	// Etcd or Consul is what is known of the registry besides. At most one is set.
	Etcd   *Etcd
	Consul *Consul
}

// Options says how far an examination goes. The zero value is the usual examination.
type Options struct {
	// ReadOnly leaves out the examinations that write. They write one endpoint, without an
	// address that anybody listens on, to a service with a random name, and remove it.
	ReadOnly bool
	// Dial connects to each endpoint by TCP, and reports where nobody listens.
	Dial bool
	// Slow is the median time of a read from which on the latency is a problem. 0 means 100
	// milliseconds: registrations and changes take several reads, one after the other.
	Slow time.Duration
	// Samples is how many requests the latency is measured with. 0 means 20.
	Samples int
	// Timeout bounds each request. 0 means 10 seconds.
	Timeout time.Duration
	// Progress, if not nil, is called while the entries are read.
	Progress func(done, of int)
}

// examination is one run of Examine.
type examination struct {
	Target
	opts   Options
	report func(Finding)
	probed string // the service that rights has written to; empty: none
}

// Examine examines a registry and calls report with each Finding. An error means that the
// registry did not answer at all, or that ctx is done.
func Examine(ctx context.Context, t Target, opts Options, report func(Finding)) error {
	if opts.Samples <= 0 {
		opts.Samples = 20
	}
	if opts.Timeout <= 0 {
		opts.Timeout = 10 * time.Second
	}
	if opts.Slow <= 0 {
		opts.Slow = 100 * time.Millisecond
	}
	x := &examination{Target: t, opts: opts, report: report}
	if err := x.reach(ctx); err != nil {
		return err
	}
	steps := []func(context.Context){x.latency, x.backend, x.rights, x.entries}
	for _, step := range steps {
		if step(ctx); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

func (x *examination) ok(part, format string, args ...any) {
	x.report(Finding{Part: part, Level: OK, What: fmt.Sprintf(format, args...)})
}

func (x *examination) note(part, do, format string, args ...any) {
	x.report(Finding{Part: part, Level: Note, What: fmt.Sprintf(format, args...), Do: do})
}

func (x *examination) problem(part, do, format string, args ...any) {
	x.report(Finding{Part: part, Level: Problem, What: fmt.Sprintf(format, args...), Do: do})
}

// bounded returns a context for one request.
func (x *examination) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, x.opts.Timeout)
}

// probeService is a service that nobody else uses.
func probeService() string { return "naming-doctor-" + rand.Text() }

// reach asks for the endpoints of a service that does not exist. A refusal is an answer.
func (x *examination) reach(ctx context.Context) error {
	err := x.read(ctx, probeService())
	if err == nil || errors.Is(err, naming.ErrPermission) {
		x.ok("reach", "the registry answers")
		return nil
	}
	return err
}

// read reads a service, which need not exist.
func (x *examination) read(ctx context.Context, service string) error {
	ctx, cancel := x.bounded(ctx)
	defer cancel()
	for _, err := range x.Store.Watch(ctx, service) {
		return err
	}
	return ctx.Err()
}

// latency measures reads that the registry's leader confirms.
func (x *examination) latency(ctx context.Context) {
	var took []time.Duration
	for range x.opts.Samples {
		begin := time.Now()
		if err := x.read(ctx, probeService()); err != nil {
			if !errors.Is(err, naming.ErrPermission) && ctx.Err() == nil {
				x.problem("latency", "look at the network and at the log of the registry", "a read failed: %v", naming.SafeError(err))
			}
			return // rights reports a refusal
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	median, worst := took[len(took)/2], took[len(took)-1]
	text := fmt.Sprintf("a read takes %v, at most %v (%d reads)", round(median), round(worst), len(took))
	if median >= x.opts.Slow {
		x.problem("latency", "look at the distance to the registry, its disks and its load", "%s", text)
		return
	}
	x.ok("latency", "%s", text)
}

func round(d time.Duration) time.Duration {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(time.Microsecond)
}

func (x *examination) backend(ctx context.Context) {
	switch {
	case x.Etcd != nil:
		x.Etcd.examine(ctx, x)
	case x.Consul != nil:
		x.Consul.examine(ctx, x)
	}
}
