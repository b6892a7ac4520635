package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/naming-go/naming/cmd/naming/internal/show"
	"github.com/naming-go/naming/migrate/bridge"
)

func (a *app) migrateApproveCommand(pair *pairFlags) *cobra.Command {
	var f bridgeFlags
	cmd := &cobra.Command{
		Use: "approve DIGEST", Short: "Approve the deletions that a bridge's fuse has stopped", Args: cobra.ExactArgs(1),
		Long: "Let the bridge that works make exactly the deletions that have a digest. 'naming migrate status' and the\n" +
			"bridge itself show the digest. Look first whether the servers are dead: if they are alive, repair the\n" +
			"source instead. The exit status is 1 if the plan has changed, or no bridge works.",
		RunE: run(func(ctx context.Context, args []string) error { return a.migrateApprove(ctx, *pair, &f, args[0]) }),
	}
	f.add(cmd)
	return cmd
}

// approved is the document of naming migrate approve.
type approved struct {
	Digest  string `json:"digest"`
	Deletes int    `json:"deletes"`
	Bridge  string `json:"bridge"` // the host and the process of the bridge that works
}

func (a *app) migrateApprove(ctx context.Context, pf pairFlags, f *bridgeFlags, digest string) error {
	p, err := a.pair(ctx, pf)
	if err != nil {
		return err
	}
	defer p.close()
	l, err := f.link(p, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return err
	}
	if l.election == nil {
		return usage("a bridge without elections cannot be approved by another process: stop the bridge, and run it with a larger --fuse once")
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	seat, err := l.seat(ctx)
	if err != nil {
		return err
	}
	if seat == nil {
		if err := l.alone(ctx, a.timeout/2); err != nil {
			return err
		}
		return no("no bridge %s from %s to %s works", l.name, l.source, l.target)
	}
	var other *bridge.DigestError
	switch err := l.Approve(ctx, digest); {
	case errors.As(err, &other) && other.Want == "":
		return no("no deletion waits for an approval")
	case errors.As(err, &other):
		return no("the plan is not %s: its digest is %s now", show.Text(digest), show.Text(other.Want))
	case err != nil:
		return registryError("the registry of the election", err)
	}
	doc := approved{Digest: digest, Deletes: seat.Deletes, Bridge: seat.By}
	return a.print(doc, func() string {
		return fmt.Sprintf("approved %d deletions: the bridge at %s makes them within seconds\n", seat.Deletes, show.Text(seat.By))
	})
}

func (a *app) migrateSweepCommand(pair *pairFlags) *cobra.Command {
	var f bridgeFlags
	approve, wait := "", false
	cmd := &cobra.Command{
		Use: "sweep", Short: "Remove the copies of a bridge at the end", Args: cobra.NoArgs,
		Long: "Remove the copies of a migration and direction from their target. Stop the bridges first. Copies whose\n" +
			"servers the target does not have by itself count for the fuse. If they exceed the fuse, they stay, and\n" +
			"the digest for --approve is printed. The exit status is 0 if no copy is left, and 1 if a copy is left\n" +
			"or a bridge works.",
		RunE: run(func(ctx context.Context, _ []string) error { return a.migrateSweep(ctx, *pair, &f, approve, wait) }),
	}
	f.add(cmd)
	cmd.Flags().StringVar(&approve, "approve", "", "the `DIGEST` of the copies that an earlier sweep left")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until no bridge works")
	return cmd
}

func (a *app) migrateSweep(ctx context.Context, pf pairFlags, f *bridgeFlags, digest string, wait bool) error {
	p, err := a.pair(ctx, pf)
	if err != nil {
		return err
	}
	defer p.close()
	l, err := f.link(p, a.logger(), nil)
	if err != nil {
		return err
	}
	if err := a.idle(ctx, l, wait); err != nil {
		return err
	}
	left, err := l.Sweep(ctx, digest)
	switch {
	case errors.Is(err, context.Canceled):
		return no("interrupted: run the command again to go on")
	case err != nil:
		return registryError("a registry", err)
	}
	doc := planDocument(left)
	if err := a.print(doc, func() string { return sweepText(&doc) }); err != nil {
		return err
	}
	if len(doc.Deletes) > 0 {
		return &statusError{status: statusNo}
	}
	return nil
}

// idle returns an error if a bridge works that a sweep does not wait for.
func (a *app) idle(ctx context.Context, l *link, wait bool) error {
	if err := l.alone(ctx, a.timeout/2); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	seat, err := l.seat(ctx)
	switch {
	case err != nil:
		return err
	case seat == nil:
		return nil
	case !wait:
		return no("the bridge at %s works: stop the bridge first. A bridge that died frees its place within 15 seconds: use --wait", show.Text(seat.By))
	}
	fmt.Fprintf(a.Err, "waiting until the bridge at %s has stopped\n", show.Text(seat.By))
	return nil
}

func sweepText(p *plan) string {
	if len(p.Deletes) == 0 {
		return "no copies are left\n"
	}
	text := p.text()
	switch {
	case !p.Blown:
		text += "these copies could not be removed: run the command again\n"
	default:
		text += "if the servers are dead or moved, run the command again with --approve " + p.Digest + "\n"
	}
	return text
}
