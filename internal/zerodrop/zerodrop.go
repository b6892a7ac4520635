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
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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

const (
	fleetSize  = 4
	perConn    = 2                // closed loops on each ClientConn
	callLimit  = 10 * time.Second // a call that takes longer has failed
	mostListed = 30
)

// total is the state of all scenarios together.
type total struct {
	// Owned by the goroutine of Run.
	backend Backend
	opts    Options
	rand    *rand.Rand
	ledger  ledger
	workers uint64 // made so far

	mu     sync.Mutex
	report Report // guarded by mu while calls are made
}

// run is one scenario in progress. Each scenario has servers, clients and a service of
// its own. What one scenario leaves behind, such as a long wait before a watch is
// retried, must not disturb the next.
type run struct {
	*total

	// Set once, before calls are made.
	ctx     context.Context
	service string
	phase   phase
	fleet   fleet
	clients []*client

	// strict is set once, by the scenario. It says that the registry works all the time. A server that stops must then
	// have left the lists of all clients.
	strict bool
	ending atomic.Bool

	newsMu sync.Mutex
	news   chan struct{} // closed, and replaced, when something changed
}

// Run runs all scenarios for which the backend has the verbs. It returns an error if it
// could not run them. What it found is in the Report.
func Run(ctx context.Context, b Backend, opts Options) (*Report, error) {
	if b.TTL == 0 {
		b.TTL = 2 * time.Second
	}
	if b.DrainDelay == 0 {
		b.DrainDelay = 300 * time.Millisecond
	}
	if b.Close == 0 {
		b.Close = time.Second
	}
	if b.Settle == 0 {
		b.Settle = 90 * time.Second
	}
	if opts.Limit == 0 {
		opts.Limit = 2 * time.Minute
	}
	t := &total{backend: b, opts: opts, rand: rand.New(rand.NewPCG(opts.Seed, 0))}
	t.opts.Logf("store %s, at least %d calls, seed %d", b.Name, opts.Calls, opts.Seed)
	start := time.Now()
	var names []string
	for _, s := range t.newRun(ctx).scenarios() {
		if len(opts.Only) > 0 && !slices.Contains(opts.Only, s.name) {
			continue
		}
		if s.applicable() {
			names = append(names, s.name)
		} else {
			t.opts.Logf("%-30s not applicable to %s", s.name, b.Name)
		}
	}
	if len(names) == 0 {
		return nil, errors.New("no scenario to run")
	}
	share := (opts.Calls + len(names) - 1) / len(names)
	for _, name := range names {
		if err := t.newRun(ctx).play(name, share); err != nil {
			return &t.report, fmt.Errorf("%s: %w", name, err)
		}
	}
	r := t.newRun(ctx)
	r.phase.name = "in the end"
	if t.report.Calls < opts.Calls {
		r.invalid("%d calls were made, want %d", t.report.Calls, opts.Calls)
	}
	t.ledger.check(r)
	t.report.Took = time.Since(start)
	return &t.report, nil
}

func (t *total) newRun(ctx context.Context) *run {
	r := &run{total: t, ctx: ctx, news: make(chan struct{})}
	r.fleet.run = r
	return r
}

// play sets a scenario up, plays it until share calls were made, and takes it down.
func (r *run) play(name string, share int) error {
	all := r.scenarios()
	s := &all[slices.IndexFunc(all, func(s scenario) bool { return s.name == name })]
	r.phase.name, r.service, r.strict = name, "zero/drop/"+name, !s.faulty
	defer r.fleet.stopAll()
	if _, err := r.fleet.startMany(fleetSize); err != nil {
		return fmt.Errorf("the first servers: %w", err)
	}
	defer r.closeClients()
	if err := r.startClients(); err != nil {
		return err
	}
	if err := r.settle(); err != nil {
		return fmt.Errorf("before the first call: %w", err)
	}
	stopWorkers := r.startWorkers()
	out := r.repeat(s, share)
	r.ending.Store(true)
	stopWorkers()
	if err := r.ctx.Err(); err != nil {
		return err
	}
	r.judge(s, share, out)
	return nil
}

// startWorkers starts the closed loops. The function it returns ends them, and waits.
func (r *run) startWorkers() (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range len(r.clients) * perConn {
		r.workers++
		w := &worker{run: r, id: r.workers << 40, client: r.clients[i%len(r.clients)]}
		wg.Go(func() { w.loop(done) })
	}
	return func() {
		close(done)
		wg.Wait()
	}
}

// outcome is what the cycles of a scenario caused.
type outcome struct {
	cycles             int
	took               time.Duration
	accepts, published int64 // connections and sets since the first cycle
	effective          bool  // there was the effect that the scenario is about
}

// repeat repeats the cycle of a scenario until share calls were made, or the time limit
// has passed. A fault may have no effect, so repeat makes up to 20 cycles to see one.
func (r *run) repeat(s *scenario, share int) (out outcome) {
	start, accepts, published := time.Now(), r.fleet.accepts.Load(), r.phase.published.Load()
	effective := func() bool {
		return !(s.publishes && r.phase.published.Load() == published) && (s.effect == nil || s.effect(&r.phase) > 0)
	}
	for out.cycles == 0 || time.Since(start) < r.opts.Limit && (r.phase.calls.Load() < int64(share) || !effective() && out.cycles < 20) {
		out.cycles++
		err := s.cycle()
		if err == nil {
			err = r.settle()
		}
		if r.ctx.Err() != nil {
			break
		}
		if err != nil {
			r.broken("cycle %d: %v", out.cycles, err)
			break
		}
	}
	out.took, out.effective = time.Since(start), effective()
	out.accepts, out.published = r.fleet.accepts.Load()-accepts, r.phase.published.Load()-published
	return out
}

// judge logs what a scenario caused, and notes the rules that it broke.
func (r *run) judge(s *scenario, share int, out outcome) {
	p := &r.phase
	gap := time.Duration(p.gap.Load())
	r.opts.Logf("%-30s %6d calls, %d failed, longest gap %3d ms; %3d connections, %3d sets published, %2d held, %d lost, %d stale, %d resyncs; %d cycles in %v",
		s.name, p.calls.Load(), p.failed.Load(), gap.Milliseconds(), out.accepts, out.published, p.held.Load(), p.lost.Load(), p.stale.Load(), p.resynced.Load(), out.cycles, out.took.Round(time.Millisecond))
	if out.accepts != 0 && s.still && p.lost.Load() == 0 {
		r.broken("%d new connections, want none", out.accepts)
	}
	if !out.effective {
		r.invalid("it had no effect")
	}
	if n := p.calls.Load(); n < int64(share) {
		r.invalid("%d calls were made, want %d", n, share)
	}
	if s.name == quietScenario {
		r.report.QuietGap = gap
	}
	r.report.Gap = max(r.report.Gap, gap)
}

// broken notes that a rule was broken.
func (r *run) broken(format string, args ...any) {
	r.note(&r.report.Broken, fmt.Sprintf(format, args...))
}

// invalid notes that the run shows nothing.
func (r *run) invalid(format string, args ...any) {
	r.note(&r.report.Invalid, fmt.Sprintf(format, args...))
}

func (r *run) note(list *[]string, what string) {
	what = r.phase.name + ": " + what
	r.mu.Lock()
	listed := len(*list) < mostListed
	if listed {
		*list = append(*list, what)
	}
	r.mu.Unlock()
	if listed {
		r.opts.Logf("!! %s", what)
	}
}

// changed wakes settle.
func (r *run) changed() {
	r.newsMu.Lock()
	defer r.newsMu.Unlock()
	close(r.news)
	r.news = make(chan struct{})
}

// pause lets calls be made for a while.
func (r *run) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.ctx.Done():
	}
}

// await waits until done reports true.
func (r *run) await(what string, done func() bool) error {
	for start := time.Now(); !done(); r.pause(time.Millisecond) {
		if time.Since(start) > r.backend.Settle {
			return fmt.Errorf("no %s in %v", what, r.backend.Settle)
		}
		if err := r.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until the registry has exactly the running servers, every client is fresh
// and lists them, with only held endpoints beside them, and every client that balances
// is connected to each.
func (r *run) settle() error {
	ctx, cancel := context.WithTimeout(r.ctx, r.backend.Settle)
	defer cancel()
	for {
		r.newsMu.Lock()
		news := r.news
		r.newsMu.Unlock()
		err := r.settled(ctx)
		if err == nil {
			return nil
		}
		// The registry does not report its changes here, so it is polled.
		t := time.NewTimer(50 * time.Millisecond)
		select {
		case <-news:
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("not settled in %v: %w", r.backend.Settle, err)
		}
		t.Stop()
	}
}

func (r *run) settled(ctx context.Context) error {
	want := r.fleet.addrs()
	for _, c := range r.clients {
		if err := c.settled(ctx, want); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	if err := r.fleet.connected(r.balancing()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for b, err := range r.backend.Clients.Watch(ctx, r.service) {
		if err != nil {
			return fmt.Errorf("the registry: %w", err)
		}
		var got []string
		for _, e := range b.Put {
			got = append(got, e.Addr)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			return fmt.Errorf("the registry has %v, want %v", got, want)
		}
		return nil
	}
	return errors.New("the registry said nothing")
}
