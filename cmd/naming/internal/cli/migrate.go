package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/steer"
	"github.com/naming-go/naming/migrate"
)

func (a *app) migrateCommand() *cobra.Command {
	var pair pairFlags
	cmd := &cobra.Command{
		Use: "migrate", Short: "Move services from one registry to another",
		Long: strings.TrimSpace(`
Move services from one registry to another, while calls are made. The phases of services are
records in both registries, which the programs follow: see docs/migrating.md of the library.

  0 old  1 dual-write  2 shadow  3 union  4 prefer-new  5 new-read  6 new-write  7 done

Name the registries with --old and --new, or with a migrate URL in --store or NAMING_STORE:

  export NAMING_STORE='migrate:?from=consul://10.0.0.1:8500&to=etcd://10.0.0.2:2379&phases=records'

Each step ahead has a gate. The gates are advice: --force overrides them. A step back has no
gate.`),
		Example: "  naming migrate advance --all            # begins the migration, in phase 0\n" +
			"  naming migrate status\n" +
			"  naming migrate verify --service greeter --soak 1h && naming migrate advance --service greeter",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	pair.add(cmd)
	cmd.AddCommand(
		a.migrateStatusCommand(&pair), a.migratePlanCommand(&pair), a.migrateVerifyCommand(&pair),
		a.migrateAdvanceCommand(&pair), a.migrateBackCommand(&pair),
		a.migrateBridgeCommand(&pair), a.migrateApproveCommand(&pair), a.migrateSweepCommand(&pair),
		a.migrateDrillCommand(&pair),
	)
	for _, sub := range cmd.Commands() {
		if sub.Flag("service") != nil {
			a.completeService(sub, func([]string) []string {
				f, _, _ := a.resolvePair(pair) // without both registries, one is enough
				return slices.DeleteFunc([]string{f.oldURL, f.newURL}, func(s string) bool { return s == "" })
			})
		}
	}
	return cmd
}

// scopeFlags are the flags that say which services a command is about.
type scopeFlags struct {
	services []string
	all      bool
}

// add adds the flags. mustChoose says that the command has no default.
func (f *scopeFlags) add(cmd *cobra.Command, mustChoose bool) {
	cmd.Flags().StringSliceVar(&f.services, "service", nil, "the `NAME` of a service; may be given more than once (default all)")
	if mustChoose {
		cmd.Flags().Lookup("service").Usage = "the `NAME` of a service; may be given more than once. * is the record of all services without a record of their own"
		cmd.Flags().BoolVar(&f.all, "all", false, "all services: the record * and the records of single services")
	}
}

func (f *scopeFlags) check(mustChoose bool) error {
	switch {
	case mustChoose && f.all == (len(f.services) > 0):
		return usage("name services with --service, or use --all for all services")
	case !mustChoose && slices.Contains(f.services, steer.AllServices):
		return usage("--service: all services are the default")
	}
	for _, name := range f.services {
		if err := naming.CheckService(name); err != nil {
			return err
		}
	}
	return nil
}

// judgeFlags are the flags that say what an operator has decided.
type judgeFlags struct {
	accept  string
	confirm []string
}

func (f *judgeFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.accept, "accept", "", "what may differ or be lost: a `LIST` of id, address, weight, zone, version, tags, metadata, draining, draining-mark, withheld")
	cmd.Flags().StringSliceVar(&f.confirm, "confirm", nil, "the `CONDITION` that you have looked after, as no tool can see it: "+strings.Join(steer.Human, ", "))
}

func (f *judgeFlags) judge() (steer.Judge, error) {
	accept, err := migrate.ParseAccept(f.accept)
	if err != nil {
		return steer.Judge{}, usage("--accept: %s", message(err))
	}
	for _, name := range f.confirm {
		if !slices.Contains(steer.Human, name) {
			return steer.Judge{}, usage("--confirm is %q: want %s", name, strings.Join(steer.Human, ", "))
		}
	}
	return steer.Judge{Accept: accept, Confirmed: f.confirm}, nil
}

// soakFlags say for how long gates must be open.
type soakFlags struct{ soak, settle time.Duration }

func (f *soakFlags) add(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&f.soak, "soak", 0, "how long the gates must be open; a day has a deploy of every service in it")
	cmd.Flags().DurationVar(&f.settle, "settle", 3*time.Second, "how long a difference may last, as servers restart")
}

func (f *soakFlags) check() error {
	if f.soak < 0 || f.settle < 0 {
		return usage("--soak and --settle must not be negative")
	}
	return nil
}

// observe reads both registries once.
func (a *app) observe(ctx context.Context, p *pair, j steer.Judge, services []string) *steer.World {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return steer.Observe(ctx, p.Registries, j.Accept, services...)
}

// worldError returns an error if a registry, or its records, could not be read.
func worldError(p *pair, w *steer.World) error {
	var bad []string
	for _, r := range []struct {
		name, url    string
		err, records error
	}{{"old", p.oldURL, w.OldErr, w.Records.Old.Err}, {"new", p.newURL, w.NewErr, w.Records.New.Err}} {
		switch {
		case r.err != nil:
			bad = append(bad, fmt.Sprintf("the %s registry, %s: %s", r.name, shortURL(r.url), message(r.err)))
		case r.records != nil:
			bad = append(bad, fmt.Sprintf("the records of the %s registry, %s: %s", r.name, shortURL(r.url), message(r.records)))
		}
	}
	if len(bad) == 0 && w.BridgesErr != nil {
		bad = append(bad, "the bridges of a registry: "+message(w.BridgesErr))
	}
	if len(bad) == 0 {
		return nil
	}
	return &statusError{statusRegistry, errors.New(strings.Join(bad, "; "))}
}

// operator returns who runs the command, for the records.
func (a *app) operator() string {
	name := cmp.Or(a.Getenv("USER"), a.Getenv("LOGNAME"), "unknown")
	host, err := os.Hostname()
	if err != nil {
		return name
	}
	return name + "@" + host
}

// gateText returns a gate as lines: the step, and each condition with what opens it.
func gateText(g steer.Gate) string {
	var b strings.Builder
	verdict := "open"
	if !g.Open {
		verdict = "closed"
	}
	fmt.Fprintf(&b, "%s: %s -> %s: %s\n", naming.SafeText(g.Service), g.From, g.To, verdict)
	for _, c := range g.Conditions {
		mark := "ok"
		if !c.Holds {
			mark = "no"
		}
		fmt.Fprintf(&b, "  %s  %-10s  %s\n", mark, c.Name, c.Why)
		if c.Opens != "" {
			fmt.Fprintf(&b, "                  %s.\n", c.Opens)
		}
	}
	return b.String()
}

func gatesText(gates []steer.Gate) string {
	var b strings.Builder
	for _, g := range gates {
		b.WriteString(gateText(g))
	}
	if b.Len() == 0 {
		return "No service was found.\n"
	}
	return b.String()
}
