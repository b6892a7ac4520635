package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/steer"
	"github.com/naming-go/naming/migrate"
)

// stepFlags are the flags of the commands about a step.
type stepFlags struct {
	scopeFlags
	judgeFlags
	soakFlags
	to    string
	share string
	by    string
	seq   uint64
	force bool
}

// add adds the flags that all of the commands have.
func (f *stepFlags) add(cmd *cobra.Command, mustChoose bool) {
	f.scopeFlags.add(cmd, mustChoose)
	f.judgeFlags.add(cmd)
	f.soakFlags.add(cmd)
	f.addWish(cmd)
}

func (f *stepFlags) addWish(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.to, "to", "", "the `PHASE` to go to, as a name or a number (default one step)")
	cmd.Flags().StringVar(&f.share, "share", "", "the `PART` of the clients that prefer the new registry, from 0 to 1")
	_ = cmd.RegisterFlagCompletionFunc("to", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var phases []string
		for p := migrate.Old; p <= migrate.Done; p++ {
			phases = append(phases, p.String())
		}
		return phases, cobra.ShellCompDirectiveNoFileComp
	})
}

// addRecord adds the flags of what a record says besides the phase.
func (f *stepFlags) addRecord(cmd *cobra.Command, operator string) {
	cmd.Flags().StringVar(&f.by, "by", operator, "the `NAME` of who makes the step, for the record")
	cmd.Flags().Lookup("by").DefValue = "" // the user is not part of the help
	cmd.Flags().Uint64Var(&f.seq, "seq", 0, "the `NUMBER` that the record's number has to exceed; programs that ignore a record log it")
}

// cmdFlags are the flags of one command.
type cmdFlags struct {
	*stepFlags
	mustChoose bool
}

// parse checks the flags.
func (f cmdFlags) parse() (wish steer.Wish, j steer.Judge, err error) {
	if err := errors.Join(f.scopeFlags.check(f.mustChoose), f.soakFlags.check()); err != nil {
		return wish, j, err
	}
	if f.to != "" {
		if wish.Phase, err = migrate.ParsePhase(f.to); err != nil {
			return wish, j, usage("--to: %s", strings.TrimPrefix(message(err), "migrate: "))
		}
		wish.HasPhase = true
	}
	if f.share != "" {
		if wish.Share, err = strconv.ParseFloat(f.share, 64); err != nil {
			return wish, j, usage("--share is %q: want a number from 0 to 1", f.share)
		}
		wish.HasShare = true
	}
	if err := wish.Valid(); err != nil {
		return wish, j, usage("%w", err)
	}
	j, err = f.judge()
	return wish, j, err
}

// stepResult is the document of a record in naming migrate advance and back.
type stepResult struct {
	// Record is the name of a service, or * for all services without a record of their own.
	Record  string         `json:"record"`
	From    steer.Position `json:"from"`
	To      steer.Position `json:"to"`
	Written bool           `json:"written"`
	Seq     uint64         `json:"seq,omitempty"`
	Forced  bool           `json:"forced,omitempty"` // a gate was closed
	// Gates are the closed gates.
	Gates []steer.Gate `json:"gates,omitempty"`
	// Warnings are what an operator should know. Error is why the record was not written.
	Warnings []string `json:"warnings,omitempty"`
	Error    string   `json:"error,omitempty"`

	state migrate.State // of To
	err   error         // of Error
}

func (r *stepResult) text() string {
	var b strings.Builder
	for _, g := range r.Gates {
		b.WriteString(gateText(g))
	}
	fmt.Fprintf(&b, "%s: %s -> %s", naming.SafeText(r.Record), r.From, r.To)
	if r.Written {
		fmt.Fprintf(&b, " (seq %d)\n", r.Seq)
	} else {
		b.WriteString(": not written\n")
	}
	return b.String()
}

// step is one run of a command that looks at gates.
type step struct {
	app     *app
	pair    *pair
	judge   steer.Judge
	wish    steer.Wish
	flags   *stepFlags
	lenient bool // a record that cannot go on is left out

	began *migrate.BothRecords // of the first look that read all records; nil before it

	// What the last look saw.
	world   *steer.World
	targets []steer.Target
	to      []migrate.State // of each target
}

// newStep checks the flags and opens the registries. The caller closes the pair.
func (a *app) newStep(ctx context.Context, f pairFlags, flags cmdFlags) (*step, error) {
	wish, j, err := flags.parse()
	if err != nil {
		return nil, err
	}
	p, err := a.pair(ctx, f)
	if err != nil {
		return nil, err
	}
	return &step{app: a, pair: p, judge: j, wish: wish, flags: flags.stepFlags}, nil
}

// look reads both registries and returns the gates.
func (s *step) look(ctx context.Context) ([]steer.Gate, error) {
	s.world = s.app.observe(ctx, s.pair, s.judge, s.flags.services)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	targets := steer.Targets(s.world, s.flags.services...)
	s.targets, s.to = nil, nil
	gates := []steer.Gate{}
	for _, t := range targets {
		to, err := s.wish.Forward(t)
		switch {
		case err != nil && s.lenient:
			to = t.State // the service is that far
		case err != nil && s.flags.all:
			continue // others of many services may go on
		case err != nil:
			return nil, no("%s: %w", naming.SafeText(t.Record), err)
		}
		if s.lenient && len(t.Services) == 0 && s.worldRead() {
			continue // no service has the record
		}
		s.targets, s.to = append(s.targets, t), append(s.to, to)
		gates = append(gates, s.judge.Gates(s.world, t, to)...)
	}
	return gates, s.stayed()
}

// stayed returns an error if a phase has changed since the first look. The soak time of one
// step is not that of another step.
func (s *step) stayed() error {
	if s.began == nil {
		if s.world.Records.Err() == nil {
			s.began = &s.world.Records
		}
		return nil
	}
	return s.moved(*s.began, s.world.Records)
}

// moved returns an error if a record of the targets has changed between two reads.
func (s *step) moved(earlier, later migrate.BothRecords) error {
	for _, t := range s.targets {
		if was, is, moved := steer.Moved(earlier, later, t.Record); moved {
			return no("%s: somebody has written the phase meanwhile: it was %v, and is %v: look again", naming.SafeText(t.Record), was, is)
		}
	}
	return nil
}

// unmoved reads the records again, right before they are written. Another operator may have
// gone back while the endpoints were read.
func (s *step) unmoved(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.app.timeout)
	defer cancel()
	return s.moved(s.world.Records, migrate.ReadRecords(ctx, s.pair.OldRecords, s.pair.NewRecords))
}

// worldRead reports whether both registries were read.
func (s *step) worldRead() bool { return s.world.OldErr == nil && s.world.NewErr == nil }

// lookEvery returns the time between two looks at gates that must be open for a time.
func lookEvery(soak time.Duration) time.Duration {
	return min(max(soak/100, 200*time.Millisecond), 30*time.Second)
}

// soaked looks at the gates until they were open for long enough, or stay closed.
func (s *step) soaked(ctx context.Context) ([]steer.Gate, time.Duration, error) {
	soak := s.flags.soakFlags
	if s.flags.force {
		soak = soakFlags{} // the gates are overridden
	}
	var printed time.Duration
	return steer.Watch(ctx, steer.Soak{For: soak.soak, Settle: soak.settle}, lookEvery(soak.soak), s.look, func(gates []steer.Gate, passed time.Duration) {
		if soak.soak == 0 || passed < printed {
			return
		}
		printed = passed + max(soak.soak/20, time.Second)
		state := "open"
		if !allOpen(gates) {
			state = "closed"
		}
		fmt.Fprintf(s.app.Err, "%v of %v: %s\n", passed.Round(time.Second), soak.soak, state)
	})
}

func (a *app) migrateAdvanceCommand(pair *pairFlags) *cobra.Command {
	var s stepFlags
	cmd := &cobra.Command{
		Use: "advance", Short: "Go one step on", Args: cobra.NoArgs,
		Long: "Write the next phase of services to both registries, if the gate of the step is open. If it is closed,\n" +
			"nothing is written, the reason and what would open the gate are printed, and the exit status is 1.\n" +
			"In prefer-new the steps are shares of the clients: 0.01, 0.1, 0.5 and 1. With --all, the record of all\n" +
			"services and each record of a single service go one step. All gates must be open. If somebody else\n" +
			"writes the phase meanwhile, nothing is written, and the exit status is 1. A record that one registry\n" +
			"did not get counts by the other registry: the exit status is 0, and a warning says so.",
		Example: "  naming migrate advance --service greeter\n  naming migrate advance --service greeter --share 0.25",
		RunE:    run(func(ctx context.Context, _ []string) error { return a.migrateAdvance(ctx, *pair, cmdFlags{&s, true}) }),
	}
	s.add(cmd, true)
	cmd.Flags().BoolVar(&s.force, "force", false, "go on although a gate is closed")
	s.addRecord(cmd, a.operator())
	return cmd
}

func (a *app) migrateAdvance(ctx context.Context, f pairFlags, flags cmdFlags) error {
	s, err := a.newStep(ctx, f, flags)
	if err != nil {
		return err
	}
	defer s.pair.close()
	gates, _, err := s.soaked(ctx)
	switch {
	case errors.Is(err, context.Canceled):
		return no("interrupted: nothing was written")
	case err != nil:
		return err
	case len(s.targets) == 0:
		return no("nothing is left to do: all services are that far")
	}
	open := allOpen(gates)
	if !open && s.flags.force {
		fmt.Fprintln(a.Err, "naming: warning: a gate is closed, and --force overrides the gate")
	}
	results := s.results()
	if !open && !s.flags.force {
		return errors.Join(a.printResults(results), no("a gate is closed: nothing was written"))
	}
	if err := s.unmoved(ctx); err != nil {
		return err
	}
	return a.writeAll(ctx, s.pair, s.flags.by, results)
}

// writers is how many records are written at once. A registry that is silent costs its bound
// for each record.
const writers = 16

// writeAll writes the records of all results and prints the results.
func (a *app) writeAll(ctx context.Context, p *pair, by string, results []stepResult) error {
	a.writeEach(ctx, p, by, results)
	if err := a.printResults(results); err != nil {
		return err
	}
	return unwritten(results)
}

// writeEach writes the records of all results.
func (a *app) writeEach(ctx context.Context, p *pair, by string, results []stepResult) {
	var group errgroup.Group
	group.SetLimit(writers)
	for i := range results {
		group.Go(func() error {
			a.write(ctx, p, by, &results[i])
			return nil
		})
	}
	_ = group.Wait() // the functions return nil
}

// results returns the step of each target, with the closed gates that the last look saw.
func (s *step) results() []stepResult {
	results := make([]stepResult, len(s.targets))
	for i, t := range s.targets {
		results[i] = stepResult{Record: t.Record, From: steer.PositionOf(t.State, t.Known), To: steer.PositionOf(s.to[i], true), state: s.to[i]}
		results[i].state.Seq = s.flags.seq
		for _, g := range s.judge.Gates(s.world, t, s.to[i]) {
			if !g.Open {
				results[i].Gates, results[i].Forced = append(results[i].Gates, g), s.flags.force
			}
		}
	}
	return results
}

// write writes a record to both registries. A record that a single registry has counts.
func (a *app) write(ctx context.Context, p *pair, by string, r *stepResult) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	to := r.state
	to.By = by
	got, err := migrate.WriteRecord(ctx, p.OldRecords, p.NewRecords, r.Record, to)
	var partial *migrate.RecordError
	switch {
	case err == nil:
		r.Written, r.Seq = true, got.Seq
	case errors.As(err, &partial) && partial.Counts:
		r.Written, r.Seq = true, got.Seq
		r.Warnings = append(r.Warnings, strings.TrimPrefix(message(err), "migrate: "))
	default:
		r.err, r.Error = err, strings.TrimPrefix(message(err), "migrate: ")
	}
}

// printResults prints what was written, and the warnings to standard error.
func (a *app) printResults(results []stepResult) error {
	for _, r := range results {
		for _, w := range r.Warnings {
			fmt.Fprintf(a.Err, "naming: warning: %s: %s\n", naming.SafeText(r.Record), naming.SafeText(w))
		}
	}
	return a.print(results, func() string {
		var b strings.Builder
		for _, r := range results {
			b.WriteString(r.text())
		}
		return b.String()
	})
}

// unwritten returns an error if records were not written. The error has the first reasons.
func unwritten(results []stepResult) error {
	const most = 3
	var texts []string
	failed, status := 0, statusUsage
	for _, r := range results {
		if r.err == nil {
			continue
		}
		if failed++; failed <= most {
			texts = append(texts, r.Error)
		}
		if !errors.Is(r.err, naming.ErrInvalid) {
			status = statusRegistry
		}
	}
	switch {
	case failed == 0:
		return nil
	case failed > most:
		texts = append(texts, fmt.Sprintf("%d more records were not written", failed-most))
	}
	return &statusError{status, errors.New(strings.Join(texts, "; "))}
}

func (a *app) migrateBackCommand(pair *pairFlags) *cobra.Command {
	var s stepFlags
	cmd := &cobra.Command{
		Use: "back", Short: "Go one step back", Args: cobra.NoArgs,
		Long: "Write a lower phase of services to both registries. A step back has no gate, and works while one\n" +
			"registry is down: the record in the other one counts. From new-write and done the step goes to\n" +
			"new-read. With --to and the present phase, the record is written again, which repairs a registry that\n" +
			"has another one. Programs ignore a record whose number is lower than that of a record that they have\n" +
			"read, which happens after both registries lost the records: give the number of their log to --seq.\n" +
			"The exit status is 3 if neither registry has the record.",
		Example: "  naming migrate back --service greeter\n  naming migrate back --all --to old",
		RunE:    run(func(ctx context.Context, _ []string) error { return a.migrateBack(ctx, *pair, cmdFlags{&s, true}) }),
	}
	s.scopeFlags.add(cmd, true)
	s.addWish(cmd)
	s.addRecord(cmd, a.operator())
	return cmd
}

func (a *app) migrateBack(ctx context.Context, f pairFlags, flags cmdFlags) error {
	wish, _, err := flags.parse()
	if err != nil {
		return err
	}
	p, err := a.pair(ctx, f)
	if err != nil {
		return err
	}
	defer p.close()
	results, err := a.backResults(ctx, p, wish, flags.stepFlags)
	if err != nil {
		return err
	}
	if len(results) == 0 {
		return no("nothing is left to do: all services are that far back")
	}
	return a.writeAll(ctx, p, flags.by, results)
}

// backResults returns the step back of each record. It reads only the records: the endpoints
// cannot forbid a step back.
func (a *app) backResults(ctx context.Context, p *pair, wish steer.Wish, flags *stepFlags) (results []stepResult, err error) {
	reading, cancel := context.WithTimeout(ctx, a.timeout)
	w := steer.RecordsOnly(reading, p.Registries, flags.services...)
	cancel()
	if w.OldErr != nil && w.NewErr != nil {
		return nil, worldError(p, w)
	}
	for _, t := range steer.Targets(w, flags.services...) {
		to, err := wish.Backward(t)
		switch {
		case err != nil && flags.all:
			continue // others may go back
		case err != nil:
			return nil, no("%s: %w", naming.SafeText(t.Record), err)
		}
		r := stepResult{Record: t.Record, From: steer.PositionOf(t.State, t.Known), To: steer.PositionOf(to, true), state: to}
		r.state.Seq = flags.seq
		o := steer.Observation{Known: t.Known, State: t.State, Old: steer.Side{Err: w.OldErr}, New: steer.Side{Err: w.NewErr}}
		r.Warnings = steer.BackWarnings(o, to)
		results = append(results, r)
	}
	return results, nil
}
