package cli

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/naming-go/naming/cmd/naming/internal/drill"
	"github.com/naming-go/naming/cmd/naming/internal/steer"
)

func (a *app) migrateDrillCommand(pair *pairFlags) *cobra.Command {
	var opts drill.Options
	cmd := &cobra.Command{
		Use: "drill", Short: "Rehearse the migration with servers and clients of its own", Args: cobra.NoArgs,
		Long: "Rehearse a migration on these registries: servers and clients in this process, on loopback, go from\n" +
			"phase 0 to 7 and back while calls are made, and a server restarts in each phase. The entries have a\n" +
			"prefix of their own, below that of the registry, and are removed at the end and after Ctrl-C. If the\n" +
			"drill is killed, its servers' entries expire, and a record below naming/migration stays.\n" +
			"The exit status is 0 only if no call failed and nothing was left.",
		RunE: run(func(ctx context.Context, _ []string) error { return a.migrateDrill(ctx, *pair, opts) }),
	}
	flags := cmd.Flags()
	flags.IntVar(&opts.Servers, "servers", 3, "how many servers run")
	flags.IntVar(&opts.Clients, "clients", 4, "how many clients run")
	flags.DurationVar(&opts.Pause, "pause", 200*time.Millisecond, "how long calls go on in each phase, besides a restart")
	flags.DurationVar(&opts.LeaveDelay, "leave-delay", time.Second, "how long a server stays in a registry that it leaves")
	flags.DurationVar(&opts.DrainDelay, "drain-delay", time.Second, "how long a server that stops is listed as draining")
	flags.DurationVar(&opts.Patience, "patience", time.Minute, "how long to wait for each phase")
	return cmd
}

// maxDrill bounds the servers and the clients of a drill.
const maxDrill = 100

func (a *app) migrateDrill(ctx context.Context, f pairFlags, opts drill.Options) error {
	switch {
	case opts.Servers < 2 || opts.Servers > maxDrill || opts.Clients < 1 || opts.Clients > maxDrill:
		return usage("--servers must be from 2 to %d, and --clients from 1 to %d", maxDrill, maxDrill)
	case opts.Pause < 0 || opts.LeaveDelay <= 0 || opts.DrainDelay <= 0 || opts.Patience <= 0:
		return usage("--pause must not be negative, and the other times must be positive")
	}
	f, readOnly, err := a.resolvePair(f)
	if err != nil {
		return err
	}
	if readOnly != "" {
		return usage("a drill writes to both registries, and one of these is read-only")
	}
	space := "drill-" + strings.ToLower(rand.Text()[:8])
	f.oldURL, f.newURL = within(f.oldURL, space), within(f.newURL, space)
	p, err := a.openPair(ctx, f, "")
	if err != nil {
		return err
	}
	defer p.close()
	if err := a.reachable(ctx, p); err != nil {
		return err
	}
	return a.runDrill(ctx, p, opts, space)
}

// runDrill runs a drill and prints a line for each phase.
func (a *app) runDrill(ctx context.Context, p *pair, opts drill.Options, space string) error {
	opts.Registries, opts.Logger = p.Registries, slog.New(slog.DiscardHandler)
	if a.verbose > 0 {
		opts.Logger = a.logger()
	}
	if a.format == asTable {
		fmt.Fprintf(a.Out, "namespace %s\n%s", space, drillHeader())
		opts.OnStep = func(s drill.Step) { fmt.Fprint(a.Out, drillRow(s)) }
	}
	result := drill.Run(ctx, opts)
	if err := a.print(result, func() string { return drillText(result) }); err != nil {
		return err
	}
	if !result.Passed() {
		return &statusError{status: statusNo}
	}
	return nil
}

// reachable returns an error if a registry cannot be read.
func (a *app) reachable(ctx context.Context, p *pair) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	w := new(steer.World)
	_, w.OldErr = steer.Services(ctx, p.Old)
	_, w.NewErr = steer.Services(ctx, p.New)
	return worldError(p, w)
}

// within returns the URL of a registry with a namespace below its prefix.
func within(rawURL, space string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return rawURL // the error comes when the URL is opened
	}
	sep := "/" // in etcd
	switch {
	case strings.HasPrefix(u.Scheme, "consul"):
		sep = "-"
	case !strings.HasPrefix(u.Scheme, "etcd"):
		return rawURL // a registry of its own
	}
	params := u.Query()
	prefix := params.Get("prefix")
	if sep == "/" && prefix != "" && !strings.HasSuffix(prefix, sep) {
		prefix += sep
	}
	params.Set("prefix", prefix+space+sep)
	u.RawQuery = params.Encode()
	return u.String()
}

func drillHeader() string {
	return fmt.Sprintf("%-20s %4s %4s  %-14s %6s %6s %11s\n", "PHASE", "OLD", "NEW", "CLIENTS READ", "CALLS", "FAILED", "CONNECTIONS")
}

func drillRow(s drill.Step) string {
	phase := s.Position.String()
	if s.Back {
		phase += ", back"
	}
	return fmt.Sprintf("%-20s %4d %4d  %-14s %6d %6d %11d\n", phase, s.Old, s.New, s.Reads, s.Calls, s.Failed, s.Connections)
}

func drillText(r *drill.Result) string {
	var b strings.Builder
	b.WriteString("calls: " + strconv.Itoa(r.Calls) + "\n")
	if r.FirstError != "" {
		b.WriteString("the first call that failed: " + r.FirstError + "\n")
	}
	if r.Error != "" {
		b.WriteString("the drill ended early: " + r.Error + "\n")
	}
	if r.Left != "" {
		b.WriteString("the drill has left entries: " + r.Left + "\n")
	}
	b.WriteString("failed calls: " + strconv.Itoa(r.Failed) + "\n")
	return b.String()
}
