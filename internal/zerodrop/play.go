package zerodrop

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/naming-go/naming"
)

// Site is where the servers and the clients of a run find each other: one registry, or
// several.
type Site struct {
	// Name is for reports.
	Name string
	// TTL, DrainDelay, Close and Settle are as in [Backend].
	TTL, DrainDelay, Close, Settle time.Duration
	// Server returns the Client of a server, and Reader that of some ClientConns. n
	// counts the servers, or the Clients, of one scenario.
	Server, Reader func(n int, opts *naming.Options) (*naming.Client, error)
	// Readers is how many Clients the ClientConns of a scenario have. Each Client has a
	// ClientConn of either policy. 0 means two.
	Readers int
	// Listed returns an error unless the registries have the endpoints that they should
	// have while servers run at addrs, which are sorted.
	Listed func(ctx context.Context, service string, addrs []string) error

	// Bound, if not 0, turns the set oracle on: every set that a client gets has every
	// server that was registered for Bound, or was listed by all clients, and does not
	// leave.
	Bound time.Duration
	// Balance, if not 0, turns the balance check on: a client that balances calls each
	// such server within Balance. Only time counts in which the client makes progress.
	Balance time.Duration
}

// withDefaults returns the site with the defaults in place of zero values.
func (s Site) withDefaults() Site {
	or := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	or(&s.TTL, 2*time.Second)
	or(&s.DrainDelay, 300*time.Millisecond)
	or(&s.Close, time.Second)
	or(&s.Settle, 90*time.Second)
	if s.Readers == 0 {
		s.Readers = 2
	}
	return s
}

// Suite returns the site and the scenarios of a Play. It is called once for each Play, and
// must start nothing.
type Suite func(*Play) (Site, []Scenario)

const (
	fleetSize  = 4
	perConn    = 2                // closed loops on each ClientConn
	callLimit  = 10 * time.Second // a call that takes longer has failed
	lookLimit  = 10 * time.Second // of one look at all clients and registries
	mostListed = 30
)

// total is the state of all scenarios together.
type total struct {
	// Owned by the goroutine of Run.
	suite   Suite
	opts    Options
	rand    *rand.Rand
	ledger  ledger
	workers uint64 // made so far

	mu     sync.Mutex
	report Report // guarded by mu while calls are made
}

// Play is one scenario in progress. Each scenario has servers, clients and a service of
// its own. What one scenario leaves behind, such as a long wait before a watch is
// retried, must not disturb the next.
type Play struct {
	*total

	// Set once, before calls are made.
	ctx       context.Context
	site      Site
	scenarios []Scenario
	service   string
	phase     phase
	fleet     fleet
	clients   []*client
	monitor   monitor

	// strict is set once, by the scenario. It says that the registry works all the time. A
	// server that stops must then have left the lists of all clients.
	strict bool
	ending atomic.Bool

	newsMu sync.Mutex
	news   chan struct{} // closed, and replaced, when something changed
}

// RunSuite runs the scenarios of a suite. It returns an error if it could not run them.
// What it found is in the Report.
func RunSuite(ctx context.Context, suite Suite, opts Options) (*Report, error) {
	if opts.Limit == 0 {
		opts.Limit = 2 * time.Minute
	}
	t := &total{suite: suite, opts: opts, rand: rand.New(rand.NewPCG(opts.Seed, 0))}
	first := t.newRun(ctx)
	t.opts.Logf("store %s, at least %d calls, seed %d", first.site.Name, opts.Calls, opts.Seed)
	start := time.Now()
	var names []string
	for _, s := range first.scenarios {
		if len(opts.Only) > 0 && !slices.Contains(opts.Only, s.Name) {
			continue
		}
		if s.applicable() {
			names = append(names, s.Name)
		} else {
			t.opts.Logf("%-30s not applicable to %s", s.Name, first.site.Name)
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
		r.Invalid("%d calls were made, want %d", t.report.Calls, opts.Calls)
	}
	t.ledger.check(r)
	t.report.Took = time.Since(start)
	return &t.report, nil
}

func (t *total) newRun(ctx context.Context) *Play {
	r := &Play{total: t, ctx: ctx, news: make(chan struct{})}
	r.fleet.run = r
	r.site, r.scenarios = t.suite(r)
	r.site = r.site.withDefaults()
	return r
}

// Context is done when the run is to end.
func (r *Play) Context() context.Context { return r.ctx }

// Site returns the site. Only [Scenario.Begin] may change it, and a Cycle may change Settle.
func (r *Play) Site() *Site { return &r.site }

// Service returns the name of the service that is called.
func (r *Play) Service() string { return r.service }

// Rand returns the source of the run's random choices. Only the scenarios use it.
func (r *Play) Rand() *rand.Rand { return r.rand }

// Logf logs the progress.
func (r *Play) Logf(format string, args ...any) { r.opts.Logf(format, args...) }

// Accepts returns how many connections the servers of the scenario accepted.
func (r *Play) Accepts() int64 { return r.fleet.accepts.Load() }

// Started returns how many servers of the scenario were started.
func (r *Play) Started() int64 { return r.fleet.started.Load() }

// Published returns how many sets gRPC got in the scenario.
func (r *Play) Published() int64 { return r.phase.published.Load() }

// Lost returns how often a registration was lost in the scenario.
func (r *Play) Lost() int64 { return r.phase.lost.Load() }

// Failed returns how many calls of the scenario failed.
func (r *Play) Failed() int64 { return r.phase.failed.Load() }

// play sets a scenario up, plays it until share calls were made, and takes it down.
func (r *Play) play(name string, share int) error {
	s := &r.scenarios[slices.IndexFunc(r.scenarios, func(s Scenario) bool { return s.Name == name })]
	r.phase.name, r.service, r.strict = name, "zero/drop/"+name, !s.Faulty
	if s.End != nil {
		defer s.End()
	}
	if s.Begin != nil {
		if err := s.Begin(); err != nil {
			return fmt.Errorf("the beginning: %w", err)
		}
	}
	defer r.fleet.stopAll()
	if _, err := r.fleet.startMany(fleetSize); err != nil {
		return fmt.Errorf("the first servers: %w", err)
	}
	defer r.closeClients()
	if err := r.startClients(); err != nil {
		return err
	}
	if err := r.Settle(); err != nil {
		return fmt.Errorf("before the first call: %w", err)
	}
	stopWorkers := r.startWorkers()
	stopMonitor := r.startMonitor()
	out := r.repeat(s, share)
	r.ending.Store(true)
	stopMonitor()
	stopWorkers()
	if err := r.ctx.Err(); err != nil {
		return err
	}
	r.judge(s, share, out)
	return nil
}

// startWorkers starts the closed loops. The function it returns ends them, and waits.
func (r *Play) startWorkers() (stop func()) {
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
func (r *Play) repeat(s *Scenario, share int) (out outcome) {
	start, accepts, published := time.Now(), r.fleet.accepts.Load(), r.phase.published.Load()
	effective := func() bool {
		return !(s.Publishes && r.phase.published.Load() == published) && (s.Effect == nil || s.Effect() > 0)
	}
	for out.cycles == 0 || time.Since(start) < r.opts.Limit && (r.phase.calls.Load() < int64(share) || !effective() && out.cycles < 20) {
		out.cycles++
		err := s.Cycle()
		if err == nil {
			err = r.Settle()
		}
		if r.ctx.Err() != nil {
			break
		}
		if err != nil {
			r.Broken("cycle %d: %v", out.cycles, err)
			break
		}
	}
	out.took, out.effective = time.Since(start), effective()
	out.accepts, out.published = r.fleet.accepts.Load()-accepts, r.phase.published.Load()-published
	return out
}

// judge logs what a scenario caused, and notes the rules that it broke.
func (r *Play) judge(s *Scenario, share int, out outcome) {
	p := &r.phase
	gap := time.Duration(p.gap.Load())
	r.opts.Logf("%-30s %6d calls, %d failed, longest gap %3d ms; %3d connections, %3d sets published, %2d held, %d lost, %d stale, %d resyncs; %d cycles in %v",
		s.Name, p.calls.Load(), p.failed.Load(), gap.Milliseconds(), out.accepts, out.published, p.held.Load(), p.lost.Load(), p.stale.Load(), p.resynced.Load(), out.cycles, out.took.Round(time.Millisecond))
	if out.accepts != 0 && s.Still && p.lost.Load() == 0 {
		r.Broken("%d new connections, want none", out.accepts)
	}
	if !out.effective {
		r.Invalid("it had no effect")
	}
	if n := p.calls.Load(); n < int64(share) {
		r.Invalid("%d calls were made, want %d", n, share)
	}
	if s.Name == quietScenario {
		r.report.QuietGap = gap
	}
	r.report.Gap = max(r.report.Gap, gap)
}

// Broken notes that a rule was broken.
func (r *Play) Broken(format string, args ...any) {
	r.note(&r.report.Broken, fmt.Sprintf(format, args...))
}

// Invalid notes that the run shows nothing.
func (r *Play) Invalid(format string, args ...any) {
	r.note(&r.report.Invalid, fmt.Sprintf(format, args...))
}

func (r *Play) note(list *[]string, what string) {
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

// changed wakes Settle.
func (r *Play) changed() {
	r.newsMu.Lock()
	defer r.newsMu.Unlock()
	close(r.news)
	r.news = make(chan struct{})
}

// Pause lets calls be made for a while.
func (r *Play) Pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.ctx.Done():
	}
}

// Await waits until done reports true.
func (r *Play) Await(what string, done func() bool) error {
	for start := time.Now(); !done(); r.Pause(time.Millisecond) {
		if time.Since(start) > r.site.Settle {
			return fmt.Errorf("no %s in %v", what, r.site.Settle)
		}
		if err := r.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// Settle waits until the registry has exactly the running servers, every client is fresh
// and lists them, with only held endpoints beside them, and every client that balances
// is connected to each.
func (r *Play) Settle() error {
	return r.settle(func(ctx context.Context) error {
		if err := r.clientsSettled(ctx); err != nil {
			return err
		}
		want := r.fleet.addrs()
		if err := r.site.Listed(ctx, r.service, want); err != nil {
			return err
		}
		r.fleet.expect(want)
		return nil
	})
}

// SettleClients is Settle without a look at the registries, which may be down.
func (r *Play) SettleClients() error { return r.settle(r.clientsSettled) }

// settle waits until settled returns nil. A look that has begun may end after the bound: an
// error of a look that the bound cut off would not say what is not settled.
func (r *Play) settle(settled func(context.Context) error) error {
	bound := time.NewTimer(r.site.Settle)
	defer bound.Stop()
	for {
		r.newsMu.Lock()
		news := r.news
		r.newsMu.Unlock()
		ctx, cancel := context.WithTimeout(r.ctx, lookLimit)
		err := settled(ctx)
		cancel()
		if err == nil {
			return nil
		}
		// The registry does not report its changes here, so it is polled.
		t := time.NewTimer(50 * time.Millisecond)
		select {
		case <-news:
		case <-t.C:
		case <-bound.C:
			t.Stop()
			return fmt.Errorf("not settled in %v: %w", r.site.Settle, err)
		case <-r.ctx.Done():
			t.Stop()
			return r.ctx.Err()
		}
		t.Stop()
	}
}

func (r *Play) clientsSettled(ctx context.Context) error {
	want := r.fleet.addrs()
	for _, c := range r.clients {
		if err := c.settled(ctx, want); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	if err := r.fleet.connected(r.balancing()); err != nil {
		return err
	}
	// A client that does not balance and has lost its server connects a moment later. That
	// connection must not count as one of the next step.
	if n, want := r.fleet.connections(), r.wantConnections(); n < want {
		return fmt.Errorf("there are %d connections, want %d", n, want)
	}
	return nil
}
