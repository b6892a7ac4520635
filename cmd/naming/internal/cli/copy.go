package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/show"
	"github.com/naming-go/naming/cmd/naming/internal/transfer"
	"github.com/naming-go/naming/migrate"
)

// copyFlags are the flags of naming copy.
type copyFlags struct {
	services       []string
	accept, leased string
	dry, overwrite bool
	ttl            time.Duration
}

// copyReport is the document of naming copy.
type copyReport struct {
	DryRun  bool `json:"dryRun"`
	Written int  `json:"written"`
	// Same are entries that the target had. Left are entries that are not to be copied.
	Same int `json:"same"`
	Left int `json:"left"`
	// Undecided, Conflicts and Lossy were not copied. Failed were written, and another
	// program has changed or removed them since.
	Undecided int `json:"undecided"`
	Conflicts int `json:"conflicts"`
	Lossy     int `json:"lossy"`
	Failed    int `json:"failed"`
	// Kept are copies that last as long as the command runs.
	Kept    int         `json:"kept,omitempty"`
	Entries []copyEntry `json:"entries"`
}

// copyEntry is an entry of the source.
type copyEntry struct {
	Service  string        `json:"service"`
	Endpoint show.Endpoint `json:"endpoint"`
	// Action is write, overwrite, same, left, undecided, conflict or lossy.
	Action string   `json:"action"`
	Why    string   `json:"why,omitempty"`
	Lost   []string `json:"lost,omitempty"`
}

func (a *app) copyCommand() *cobra.Command {
	var f copyFlags
	cmd := &cobra.Command{
		Use: "copy FROM TO", Short: "Copy the entries of a registry to another one, once", Args: cobra.ExactArgs(2),
		Long: strings.TrimSpace(`
Copy the entries of a registry to another one, once. An entry without a lease is copied as it
is. An entry under a lease belongs to a program that runs, and a copy without a lease would
outlive the program. So say what becomes of such entries:

  --leased skip        they are not copied
  --leased keep        their copies last until Ctrl-C, and are removed then
  --leased permanent   their copies stay until somebody deletes them

Without --leased nothing is written if the source has such entries. An entry of the target is
never replaced without --overwrite. Only a copy under a lease is put on the condition that its
ID is free. Registries have no such condition for an entry without a lease: an entry that
another program writes between the read and the write of the command is replaced.

Entries that are draining, that the source says not to use, and copies of a bridge are left
out. To copy for as long as programs start and stop, run 'naming migrate bridge'.

With --dry-run nothing is written, and each loss of the target's format is shown. --timeout
bounds each request. The exit status is 0 if the target has all entries that are to be copied,
1 if it does not, and 3 if a registry cannot be reached.`),
		Example: "  naming copy consul://127.0.0.1 'etcd://127.0.0.1?prefix=/naming/' --service greeter --dry-run",
		RunE:    run(func(ctx context.Context, args []string) error { return a.copy(ctx, args[0], args[1], &f) }),
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&f.services, "service", nil, "the `NAME` of a service; may be given more than once (default all)")
	a.completeService(cmd, func(args []string) []string { return args })
	flags.StringVar(&f.accept, "accept", "", "what may be lost: a `LIST` of id, address, weight, zone, version, tags, metadata, draining-mark")
	flags.StringVar(&f.leased, "leased", "", "what becomes of entries of programs that run, `HOW`: skip, keep or permanent")
	flags.BoolVar(&f.dry, "dry-run", false, "print what would be done, and write nothing")
	flags.BoolVar(&f.overwrite, "overwrite", false, "replace entries of the target that have the same ID and other content")
	flags.DurationVar(&f.ttl, "ttl", time.Minute, "how long kept copies outlive the command if it is killed")
	return cmd
}

// options checks the flags.
func (f *copyFlags) options() (transfer.Options, error) {
	accept, err := migrate.ParseAccept(f.accept)
	if err != nil {
		return transfer.Options{}, usage("--accept: %s", message(err))
	}
	switch transfer.Leased(f.leased) {
	case "", transfer.Skip, transfer.Keep, transfer.Permanent:
	default:
		return transfer.Options{}, usage("--leased is %q: want skip, keep or permanent", f.leased)
	}
	if f.ttl < 3*time.Second {
		return transfer.Options{}, usage("--ttl must be at least 3s")
	}
	for _, name := range f.services {
		if err := naming.CheckService(name); err != nil {
			return transfer.Options{}, err
		}
	}
	return transfer.Options{Services: f.services, Accept: accept, Overwrite: f.overwrite, Leased: transfer.Leased(f.leased)}, nil
}

func (a *app) copy(ctx context.Context, fromURL, toURL string, f *copyFlags) error {
	opts, err := f.options()
	if err != nil {
		return err
	}
	opts.Timeout = a.timeout
	from, to, done, err := bothStores(ctx, a.readStore, a.writeStore, fromURL, toURL)
	if err != nil {
		return err
	}
	defer done()
	plan, err := transfer.Make(ctx, from, to, opts)
	switch {
	case err != nil && ctx.Err() != nil:
		return no("interrupted: nothing was written")
	case errors.Is(err, migrate.ErrNoMapper):
		return usage("what the format of %s loses cannot be asked", shortURL(toURL))
	case err != nil:
		return registryError("copy", err)
	}
	report := copyReportOf(plan, f.dry)
	if f.dry || report.Undecided > 0 {
		return a.endCopy(report)
	}
	return a.runCopy(ctx, plan, to, f.ttl, report)
}

// runCopy writes what the plan says, and keeps the copies that are to be kept.
func (a *app) runCopy(ctx context.Context, plan *transfer.Plan, to naming.Store, ttl time.Duration, report *copyReport) error {
	progress := a.progress()
	made, err := plan.Run(ctx, to, ttl, func(p transfer.Progress) { progress.show(p.Done, p.Total, show.Text(p.Service)) })
	progress.end()
	report.Written = made.Written
	defer func() {
		if made.Kept() == 0 {
			return
		}
		releasing, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.timeout)
		defer cancel()
		if err := made.Release(releasing); err != nil {
			fmt.Fprintf(a.Err, "naming: the copies stay for %v: %s\n", ttl, message(err))
		}
	}()
	if err != nil {
		return partCopied(ctx, err, made.Written, plan.Count(transfer.Write, transfer.Overwrite))
	}
	missing, err := plan.Missing(ctx, to)
	switch {
	case err != nil && ctx.Err() != nil:
		return no("interrupted: all entries were written, and were not read again")
	case err != nil:
		return registryError("copy", err)
	}
	report.Failed, report.Kept = len(missing), made.Kept()
	for _, item := range missing {
		fmt.Fprintf(a.Err, "naming: %s of %s is not in the target as it was written\n", show.Text(item.Endpoint.ID), show.Text(item.Service))
	}
	err = a.endCopy(report)
	if made.Kept() > 0 {
		fmt.Fprintf(a.Err, "keeping %s until Ctrl-C\n", show.Count(made.Kept(), "copy"))
		// Ctrl-C is how the copies end. The exit status is that of the copy.
		_ = made.Keep(ctx, func(err error) { fmt.Fprintf(a.Err, "naming: a renewal failed: %s\n", message(err)) })
	}
	return err
}

// partCopied returns the error of a copy that ended early.
func partCopied(ctx context.Context, err error, written, total int) error {
	rest := fmt.Sprintf("%d of %d entries were written; run the command again to go on", written, total)
	if ctx.Err() != nil {
		return no("interrupted: %s", rest)
	}
	return registryError("the target", fmt.Errorf("%w; %s", err, rest))
}

// endCopy prints a report. A copy that is not complete has the exit status 1.
func (a *app) endCopy(r *copyReport) error {
	if err := a.print(r, func() string { return r.text() }); err != nil {
		return err
	}
	if r.Undecided > 0 {
		return no("%d entries belong to programs that run, and nothing was written: use --leased skip, keep or permanent", r.Undecided)
	}
	if r.Conflicts+r.Lossy+r.Failed > 0 {
		return &statusError{status: statusNo}
	}
	return nil
}

func copyReportOf(p *transfer.Plan, dry bool) *copyReport {
	r := &copyReport{
		DryRun: dry, Same: p.Count(transfer.Same), Left: p.Count(transfer.Left),
		Undecided: p.Count(transfer.Undecided), Conflicts: p.Count(transfer.Conflict), Lossy: p.Count(transfer.Lossy),
		Entries: []copyEntry{},
	}
	for i := range p.Items {
		item := &p.Items[i]
		r.Entries = append(r.Entries, copyEntry{item.Service, show.EndpointOf(item.Endpoint), string(item.Action), item.Why, item.Lost})
	}
	return r
}

// text has a line for each entry that needs one, and the numbers. A dry run has all entries.
func (r *copyReport) text() string {
	var b strings.Builder
	writes := 0
	for _, e := range r.Entries {
		write := e.Action == string(transfer.Write) || e.Action == string(transfer.Overwrite)
		if write {
			writes++
		}
		if (write && len(e.Lost) == 0 || e.Action == string(transfer.Same)) && !r.DryRun {
			continue
		}
		fmt.Fprintf(&b, "%-9s  %s  %s", e.Action, show.Text(e.Service), describe(e.Endpoint))
		if len(e.Lost) > 0 {
			b.WriteString("  loses " + strings.Join(e.Lost, ", "))
		}
		if e.Why != "" {
			b.WriteString("  (" + e.Why + ")")
		}
		b.WriteString("\n")
	}
	done := strconv.Itoa(r.Written) + " written"
	if r.DryRun {
		done = strconv.Itoa(writes) + " to write"
	}
	fmt.Fprintf(&b, "%s, %d the same, %d left out, %d undecided, %d conflicts, %d with losses", done, r.Same, r.Left, r.Undecided, r.Conflicts, r.Lossy)
	if r.Failed > 0 {
		fmt.Fprintf(&b, ", %d changed by others", r.Failed)
	}
	return b.String() + "\n"
}
