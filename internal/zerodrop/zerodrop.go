// Package zerodrop shows that no call is dropped, whatever happens to the registry and
// to servers that leave in order.
//
// The package runs real gRPC servers and clients on loopback over a registry. Clients
// call in closed loops, fail fast and never retry. Meanwhile servers come and go, and
// the registry fails. A run checks these rules:
//
//   - No call fails.
//   - Every successful call was handled by exactly one server, once.
//   - Every set of addresses given to gRPC has a live server.
//   - No server stops while a client still lists it, unless the registry failed.
//   - No client makes a connection because of a change of metadata, another order, a
//     resync or an outage.
//   - After every scenario, the registry has exactly the running servers, and every
//     client lists them.
//
// A run that made too few calls, or in which a fault had no effect, shows nothing. It is
// invalid and counts as a failure.
package zerodrop

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/naming-go/naming"
)

// Backend is a registry, and the faults that it can be given.
type Backend struct {
	// Name is for reports.
	Name string
	// Servers is the store on which servers register. Clients is the store that
	// clients watch. Both may be the same store.
	Servers, Clients naming.Store
	// URL is the URL of the registry, for other processes. It is empty for a registry in
	// memory.
	URL string
	// TTL is the time to live of the servers' endpoints. DrainDelay is the time that
	// clients have to learn that a server leaves. 0 means two seconds and 300 ms,
	// which suit a registry in memory.
	TTL, DrainDelay time.Duration
	// Close is how long a server tries to withdraw beyond the DrainDelay. 0
	// means one second.
	Close time.Duration
	// Settle bounds the recovery from a fault. 0 means 90 seconds, because a set may
	// be stale for a minute after the fault.
	Settle time.Duration

	Verbs
}

// Verbs are the faults of registries. Each returns when the fault has happened. A
// scenario that needs a nil verb is left out, and the log says so.
type Verbs struct {
	// Down takes the registry away. Up brings the registry back with its entries,
	// except those whose lease ended meanwhile.
	Down, Up func() error
	// Restart kills the registry and starts it again.
	Restart func() error
	// Silence makes the registry accept requests without an answer, until Speak.
	Silence, Speak func() error
	// Delay makes each answer take longer. 0 ends the delay.
	Delay func(time.Duration) error
	// Wipe makes the registry empty. It may be called after Down.
	Wipe func() error
	// ExpireLeases ends all leases, although they are renewed.
	ExpireLeases func() error
	// BreakWatches ends all watches. New watches work at once.
	BreakWatches func() error
	// ChangeLeader makes another member the leader.
	ChangeLeader func() error
	// LoseMember kills a member, and RegainMember brings it back.
	LoseMember, RegainMember func() error
}

// Options are the options of [Run].
type Options struct {
	// Calls is the least number of calls, spread evenly over the scenarios.
	Calls int
	// Rate bounds the calls per second. 0 means no limit.
	Rate int
	// Limit bounds the time of one scenario. 0 means two minutes.
	Limit time.Duration
	// Only, if not empty, names the scenarios to run.
	Only []string
	// Seed decides which servers are stopped.
	Seed uint64
	// Logf logs the progress.
	Logf func(format string, args ...any)
}

// Report is the result of a run.
type Report struct {
	Calls, Failed int
	// Broken lists the rules that were broken, failed calls among them. Invalid lists
	// the reasons why the run shows nothing. Long lists are cut off.
	Broken, Invalid []string
	Took            time.Duration
	// QuietGap is the longest time between two successful calls of one caller while
	// nothing happened. Gap is the longest such time of the whole run.
	QuietGap, Gap time.Duration
}

// Err returns an error if the run was not a success.
func (r *Report) Err() error {
	var errs []error
	for _, s := range r.Broken {
		errs = append(errs, errors.New(s))
	}
	for _, s := range r.Invalid {
		errs = append(errs, errors.New("invalid: "+s))
	}
	return errors.Join(errs...)
}

// String returns the last line of a run.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d calls, %d failed", r.Calls, r.Failed)
	if n := len(r.Broken); n > 0 {
		fmt.Fprintf(&b, ", %d findings", n)
	}
	if len(r.Invalid) > 0 {
		b.WriteString(", invalid")
	}
	return b.String()
}

// Run runs all scenarios for which the backend has the verbs. It returns an error if it
// could not run them. What it found is in the Report.
func Run(ctx context.Context, b Backend, opts Options) (*Report, error) {
	return RunSuite(ctx, func(p *Play) (Site, []Scenario) {
		return b.site(), single{p, b}.scenarios()
	}, opts)
}

// site returns the site of a run on one registry.
func (b *Backend) site() Site {
	on := func(store naming.Store) func(int, *naming.Options) (*naming.Client, error) {
		return func(_ int, opts *naming.Options) (*naming.Client, error) { return naming.New(store, opts), nil }
	}
	return Site{
		Name: b.Name, TTL: b.TTL, DrainDelay: b.DrainDelay, Close: b.Close, Settle: b.Settle,
		Server: on(b.Servers), Reader: on(b.Clients),
		Listed: func(ctx context.Context, service string, addrs []string) error {
			got, err := Listed(ctx, b.Clients, service)
			if err == nil && !slices.Equal(got, addrs) {
				err = fmt.Errorf("the registry has %v, want %v", got, addrs)
			}
			return err
		},
	}
}

// Listed returns the addresses of a service in a registry, sorted.
func Listed(ctx context.Context, store naming.Store, service string) (addrs []string, err error) {
	for b, err := range store.Watch(ctx, service) {
		if err != nil {
			return nil, fmt.Errorf("the registry: %w", err)
		}
		for _, e := range b.Put {
			addrs = append(addrs, e.Addr)
		}
		slices.Sort(addrs)
		return addrs, nil
	}
	return nil, errors.New("the registry said nothing")
}
