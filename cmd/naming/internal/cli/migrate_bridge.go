package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/show"
	"github.com/naming-go/naming/cmd/naming/internal/steer"
	"github.com/naming-go/naming/migrate"
	"github.com/naming-go/naming/migrate/bridge"
)

// bridgeFlags are the flags that say which bridge is meant.
type bridgeFlags struct {
	scopeFlags
	name       string
	reverse    bool
	elect      string
	ttl        time.Duration
	rate       int
	fuse       float64
	fuseWindow time.Duration
}

func (f *bridgeFlags) add(cmd *cobra.Command) {
	f.scopeFlags.add(cmd, false)
	flags := cmd.Flags()
	flags.StringVar(&f.name, "name", "default", "the `NAME` of the migration")
	flags.BoolVar(&f.reverse, "reverse", false, "copy from the new registry to the old one")
	flags.StringVar(&f.elect, "election", "", "the `REGISTRY` in which bridges elect the one that works: old, new or none (default the target, or else the registry that can)")
	flags.DurationVar(&f.ttl, "ttl", 0, "how long copies outlive the bridge (default 15m, and 1h on Consul)")
	flags.IntVar(&f.rate, "rate", 0, "how many `WRITES` are made in a second (default 1000, and 50 on Consul)")
	flags.Float64Var(&f.fuse, "fuse", 0.25, "the `PART` of the copies that may be deleted without an approval, from 0 to 1")
	flags.DurationVar(&f.fuseWindow, "fuse-window", time.Minute, "the time in which deletions add up")
}

// link is a bridge that is meant, with its registries.
type link struct {
	*bridge.Bridge
	name           string
	source, target string       // the names of the registries
	election       naming.Store // nil without elections
	pair           *pair
}

// link makes a bridge. The caller closes the pair.
func (f *bridgeFlags) link(p *pair, logger *slog.Logger, hooks *bridge.Hooks) (*link, error) {
	if err := f.scopeFlags.check(false); err != nil {
		return nil, err
	}
	switch {
	case migrate.CheckName(f.name) != nil:
		return nil, usage("--name has 1 to 64 letters, digits, '-', '_' and '.'")
	case !(f.fuse > 0 && f.fuse <= 1):
		return nil, usage("--fuse is %g: want a number above 0, and at most 1", f.fuse)
	case f.ttl < 0 || f.rate < 0 || f.fuseWindow <= 0:
		return nil, usage("--ttl and --rate must not be negative, and --fuse-window must be positive")
	}
	source, target, sourceName, targetName, exact := p.Old, p.New, p.oldName, p.newName, p.newElects
	writable := p.NewRecords != nil
	if f.reverse {
		source, target, sourceName, targetName, exact = p.New, p.Old, p.newName, p.oldName, p.oldElects
		writable = p.OldRecords != nil
	}
	if !writable {
		return nil, usage("the bridge writes to the registry %s, and the migrate URL says that the registry is read-only", targetName)
	}
	opts := &bridge.Options{
		Name: f.name, SourceName: sourceName, TargetName: targetName, TTL: f.ttl, Rate: f.rate,
		Fuse: bridge.Fuse{Share: f.fuse, Window: f.fuseWindow}, Logger: logger, Hooks: hooks,
	}
	if !exact { // Consul
		opts.TTL, opts.Rate = cmp.Or(f.ttl, bridge.ConsulTTL), cmp.Or(f.rate, bridge.ConsulRate)
	}
	if len(f.services) > 0 {
		opts.Services = func(service string) bool { return slices.Contains(f.services, service) }
	}
	if err := f.election(p, opts); err != nil {
		return nil, err
	}
	b, err := bridge.New(source, target, opts)
	if err != nil {
		return nil, err
	}
	return &link{Bridge: b, name: f.name, source: sourceName, target: targetName, election: opts.Election, pair: p}, nil
}

// election sets the registry of the election.
func (f *bridgeFlags) election(p *pair, opts *bridge.Options) error {
	old, next := p.OldRecords, p.NewRecords
	if !p.oldElects {
		old = nil
	}
	if !p.newElects {
		next = nil
	}
	switch f.elect {
	case "old":
		opts.Election = old
	case "new":
		opts.Election = next
	case "none":
		opts.NoElection = true
		return nil
	case "":
		opts.Election = next
		if f.reverse && old != nil || next == nil {
			opts.Election = old
		}
	default:
		return usage("--election is %q: want old, new or none", f.elect)
	}
	if opts.Election == nil {
		return usage("neither registry that --election allows can elect a bridge, as Consul cannot: use --election none, and run one bridge")
	}
	return nil
}

// seat returns the bridge of this migration and direction that works, or nil.
func (l *link) seat(ctx context.Context) (*steer.Seat, error) {
	if l.election == nil {
		return nil, nil
	}
	seat, err := l.seatIn(ctx, l.election)
	return seat, registryError("the registry of the election", err)
}

// seatIn returns the bridge of this migration and direction that is elected in a registry.
func (l *link) seatIn(ctx context.Context, store naming.Store) (*steer.Seat, error) {
	seats, err := steer.ReadSeats(ctx, store)
	if err != nil {
		return nil, err
	}
	for _, s := range seats {
		if s.Name == l.name && s.Source == l.source && s.Target == l.target {
			return &s, nil
		}
	}
	return nil, nil
}

// alone returns an error if a bridge of this migration and direction is elected in another
// registry than the one that the flags name. Both would write the same copies. A registry
// that cannot be read is left out: a bridge that is elected there is deposed soon.
func (l *link) alone(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, side := range []struct {
		name   string
		store  naming.Store
		elects bool
	}{{"old", l.pair.OldRecords, l.pair.oldElects}, {"new", l.pair.NewRecords, l.pair.newElects}} {
		if side.store == nil || !side.elects || side.store == l.election {
			continue
		}
		if seat, err := l.seatIn(ctx, side.store); err == nil && seat != nil {
			return no("the bridge at %s works, and is elected in the %s registry: use --election %s", show.Text(seat.By), side.name, side.name)
		}
	}
	return nil
}

// bridgeEvent is a line of naming migrate bridge.
type bridgeEvent struct {
	Time time.Time `json:"time"`
	// Event is elected, deposed, copied, removed, blown, whole, loss, failed, dropped or
	// stopped. Of the failures within ten seconds, one is printed, and Count has their
	// number. An event dropped counts events that the output was too slow for.
	Event   string `json:"event"`
	Service string `json:"service,omitempty"`
	Count   int    `json:"count,omitempty"`
	Epoch   uint64 `json:"epoch,omitempty"`
	Digest  string `json:"digest,omitempty"`
	Detail  string `json:"detail,omitempty"`
}

func (e bridgeEvent) text() string {
	parts := []string{e.Time.Format("15:04:05.000"), e.Event}
	if e.Service != "" {
		parts = append(parts, show.Text(e.Service))
	}
	if e.Count > 0 {
		parts = append(parts, fmt.Sprint(e.Count))
	}
	if e.Epoch > 0 {
		parts = append(parts, fmt.Sprint("epoch ", e.Epoch))
	}
	if e.Detail != "" {
		parts = append(parts, naming.SafeText(e.Detail))
	}
	if e.Digest != "" {
		parts = append(parts, "look at the servers, and run 'naming migrate approve "+e.Digest+"' if they are dead")
	}
	return strings.Join(parts, "  ") + "\n"
}

// maxEvents bounds the events that wait to be printed.
const maxEvents = 1000

// failedEvery is the least time between two events of failures.
const failedEvery = 10 * time.Second

// bridgePrinter prints the events of a bridge. The bridge never waits for the reader of the
// output: a terminal that is paused must not stop copies. Events that find no room are
// counted.
type bridgePrinter struct {
	app     *app // its Out; only run uses it
	events  chan bridgeEvent
	dropped atomic.Int64
	done    chan struct{} // closed when run has ended

	// Only run uses these.
	failed   time.Time // when a failure was printed
	failures int       // since then
}

func newBridgePrinter(a *app) *bridgePrinter {
	return &bridgePrinter{app: a, events: make(chan bridgeEvent, maxEvents), done: make(chan struct{})}
}

// print adds an event. It may be called concurrently.
func (p *bridgePrinter) print(e bridgeEvent) {
	e.Time = time.Now()
	select {
	case p.events <- e:
	default:
		p.dropped.Add(1)
	}
}

// run prints events until the event "stopped".
func (p *bridgePrinter) run() {
	defer close(p.done)
	for e := range p.events {
		if n := p.dropped.Swap(0); n > 0 {
			p.write(bridgeEvent{Time: e.Time, Event: "dropped", Count: int(n)})
		}
		if e.Event != "failed" {
			p.write(e)
		} else if p.failures++; e.Time.Sub(p.failed) >= failedEvery {
			if p.failures > 1 {
				e.Count = p.failures
			}
			p.failed, p.failures = e.Time, 0
			p.write(e)
		}
		if e.Event == "stopped" {
			return
		}
	}
}

func (p *bridgePrinter) write(e bridgeEvent) {
	_ = p.app.printOne(e, func() string { return e.text() }) // a bridge goes on without a reader
}

// stop prints the event "stopped" and waits for run. An output that nobody reads is waited
// for until patience is over.
func (p *bridgePrinter) stop(patience time.Duration) {
	timeout := time.After(patience)
	select {
	case p.events <- bridgeEvent{Time: time.Now(), Event: "stopped"}:
	case <-timeout:
		return
	}
	select {
	case <-p.done:
	case <-timeout:
	}
}

func (p *bridgePrinter) hooks() *bridge.Hooks {
	return &bridge.Hooks{
		Elected: func(i bridge.ElectedInfo) { p.print(bridgeEvent{Event: "elected", Epoch: i.Epoch}) },
		Deposed: func(i bridge.DeposedInfo) {
			p.print(bridgeEvent{Event: "deposed", Epoch: i.Epoch, Detail: errorText(i.Err)})
		},
		Copied:  func(i bridge.CopiedInfo) { p.print(bridgeEvent{Event: "copied", Service: i.Service, Count: i.Count}) },
		Removed: func(i bridge.RemovedInfo) { p.print(bridgeEvent{Event: "removed", Service: i.Service, Count: i.Count}) },
		FuseBlown: func(i bridge.FuseBlownInfo) {
			if n := len(i.Plan.Deletes); n > 0 {
				p.print(bridgeEvent{Event: "blown", Count: n, Digest: i.Plan.Digest, Detail: "deletions wait for an approval"})
				return
			}
			p.print(bridgeEvent{Event: "whole"})
		},
		Loss: func(l migrate.Loss) { p.print(bridgeEvent{Event: "loss", Service: l.Service, Detail: l.String()}) },
		Failed: func(i bridge.FailedInfo) {
			p.print(bridgeEvent{Event: "failed", Service: i.Service, Detail: errorText(i.Err)})
		},
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return naming.SafeError(err).Error()
}

func (a *app) migrateBridgeCommand(pair *pairFlags) *cobra.Command {
	var f bridgeFlags
	dry := false
	cmd := &cobra.Command{
		Use: "bridge", Short: "Copy endpoints for programs that are not upgraded, until Ctrl-C", Args: cobra.NoArgs,
		Long: "Copy the endpoints of the old registry to the new one, or with --reverse of the new one to the old one,\n" +
			"for as long as programs know only one of them. Run two or three bridges: they elect the one that\n" +
			"works, and wait for a registry that is away. Ctrl-C stops the bridge, and its copies stay for --ttl.\n" +
			"All bridges of a direction need the same --name and --election. Name the services with --service if\n" +
			"the source is Consul, whose catalogue has the services of all programs.\n" +
			"With --dry-run, print what a bridge would do. The exit status is then 1 if its fuse would blow.",
		RunE: run(func(ctx context.Context, _ []string) error { return a.migrateBridge(ctx, *pair, &f, dry) }),
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "print what a bridge would do, and write nothing")
	return cmd
}

func (a *app) migrateBridge(ctx context.Context, pf pairFlags, f *bridgeFlags, dry bool) error {
	p, err := a.pair(ctx, pf)
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.reached(); err != nil {
		return err
	}
	printer := newBridgePrinter(a)
	l, err := f.link(p, a.logger(), printer.hooks())
	if err != nil {
		return err
	}
	if dry {
		return a.bridgePlan(ctx, l)
	}
	if err := l.alone(ctx, a.timeout/2); err != nil {
		return err
	}
	fmt.Fprintf(a.Err, "bridge %s from %s to %s: waiting for the election\n", l.name, l.source, l.target)
	go printer.run() // ends with stop, or with the process if nobody reads the output
	err = l.Run(ctx)
	printer.stop(time.Second)
	if errors.Is(err, context.Canceled) {
		return nil // Ctrl-C is how a bridge ends.
	}
	return err
}

// plan is the document of what a bridge would do, or has not done.
type plan struct {
	Puts    []planEntry `json:"puts"`
	Deletes []planEntry `json:"deletes"`
	Losses  []planLoss  `json:"losses"`
	// Blown says that the deletions exceed the fuse. Digest is what an approval names.
	Blown  bool   `json:"blown"`
	Digest string `json:"digest,omitempty"`
}

// planEntry is a copy.
type planEntry struct {
	Service string `json:"service"`
	ID      string `json:"id"`
	Addr    string `json:"addr"`
	Counts  bool   `json:"counts,omitempty"` // for the fuse
}

func planDocument(p *bridge.Plan) plan {
	doc := plan{Puts: []planEntry{}, Deletes: []planEntry{}, Losses: []planLoss{}, Blown: p.Blown, Digest: p.Digest}
	for _, put := range p.Puts {
		doc.Puts = append(doc.Puts, planEntry{Service: put.Service, ID: put.Endpoint.ID, Addr: put.Endpoint.Addr})
	}
	for _, d := range p.Deletes {
		doc.Deletes = append(doc.Deletes, planEntry{d.Service, d.ID, d.Addr, d.Counts})
	}
	for _, l := range p.Losses {
		loss := planLoss{Service: l.Service, Endpoint: show.EndpointOf(l.Endpoint), Fields: l.Fields, Refused: errorText(l.Err)}
		doc.Losses = append(doc.Losses, loss)
	}
	return doc
}

func (p *plan) text() string {
	var b strings.Builder
	for _, e := range p.Puts {
		fmt.Fprintf(&b, "+ %s  %s id=%s\n", show.Text(e.Service), show.Text(e.Addr), show.Text(e.ID))
	}
	for _, e := range p.Deletes {
		fmt.Fprintf(&b, "- %s  %s id=%s\n", show.Text(e.Service), show.Text(e.Addr), show.Text(e.ID))
	}
	for i := range p.Losses {
		b.WriteString(p.Losses[i].text() + "\n")
	}
	fmt.Fprintf(&b, "%s to put, %d to delete, %d with losses\n", show.Count(len(p.Puts), "copy"), len(p.Deletes), len(p.Losses))
	if p.Blown {
		fmt.Fprintf(&b, "the deletions exceed the fuse, and wait for an approval of %s\n", p.Digest)
	}
	return b.String()
}

func (a *app) bridgePlan(ctx context.Context, l *link) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	got, err := l.Plan(ctx)
	if err != nil {
		return registryError("a registry", err)
	}
	doc := planDocument(got)
	if err := a.print(doc, func() string { return doc.text() }); err != nil {
		return err
	}
	if doc.Blown {
		return &statusError{status: statusNo}
	}
	return nil
}
