package cli

import (
	"context"
	"fmt"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/show"
	"github.com/naming-go/naming/conformance"
)

// checkResult is the result of one check, in JSON and YAML.
type checkResult struct {
	Check  string `json:"check"`
	Result string `json:"result"` // passed, failed or skipped
	Rule   string `json:"rule"`
	Reason string `json:"reason,omitempty"` // why it failed or was skipped
}

const (
	checkPassed  = "passed"
	checkFailed  = "failed"
	checkSkipped = "skipped"
)

// notAtomic says which registries make the changes of one Apply one by one. The
// documentation of their backends says so too.
var notAtomic = map[string]string{
	"consul":  "Consul's catalogue takes the changes of one Apply one by one.",
	"consuls": "Consul's catalogue takes the changes of one Apply one by one.",
}

func (a *app) checkCommand() *cobra.Command {
	o := conformance.Options{}
	cmd := &cobra.Command{
		Use: "check [URL]", Short: "Check that a live registry keeps the contract", Args: cobra.MaximumNArgs(1),
		Long: "Run the conformance checks that need no faults against a live registry, and name the rule of each.\n" +
			"The checks use services with random names, and remove what they put, also after Ctrl-C.\n" +
			"A message says so if something may be left.\n" +
			"The registry may have other users. The exit status is 1 if a check failed.",
		RunE: run(func(ctx context.Context, args []string) error { return a.check(ctx, a.registry(args), o) }),
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Prefix, "prefix", "naming-check-", "the beginning of the names of the services that the checks use")
	flags.DurationVar(&o.TTL, "ttl", time.Second, "the lifetime of the leases that the checks let expire")
	flags.DurationVar(&o.Quiet, "quiet", time.Second, "how long a check waits before it concludes that nothing happens")
	flags.IntVar(&o.Many, "many", 1000, "the number of endpoints of a large service")
	flags.Uint64Var(&o.Seed, "seed", 0, "the seed of an earlier run, to repeat it (default random)")
	return cmd
}

// registry returns the URL that is the argument of a command, or that of --store.
func (a *app) registry(args []string) string {
	if len(args) > 0 {
		return args[0]
	}
	return a.store
}

// maxMany bounds the endpoints of the large service, so that the checks stay within the limits
// of a service.
const maxMany = naming.MaxEndpoints / 2

func (a *app) check(ctx context.Context, url string, o conformance.Options) error {
	switch {
	case o.TTL <= 0 || o.Quiet <= 0:
		return usage("--ttl and --quiet must be positive")
	case o.Many <= 0 || o.Many > maxMany:
		return usage("--many must be from 1 to %d", maxMany)
	case o.Prefix == "":
		return usage("--prefix must not be empty: the registry may have other users")
	}
	if err := naming.CheckService(o.Prefix + "x"); err != nil {
		return usage("--prefix: %s", message(err))
	}
	o.NotAtomic = notAtomic[schemeOf(url)]
	store, done, err := a.registryStore(ctx, url)
	if err != nil {
		return err
	}
	defer done()
	if err := a.reach(ctx, url, store); err != nil {
		return err
	}
	count := make(map[string]int)
	for r := range conformance.Check(ctx, store, &o) {
		if ctx.Err() != nil {
			return endedEarly(no("interrupted"), &r) // the check was cut short
		}
		c := resultOf(r)
		count[c.Result]++
		if c.Result == checkSkipped && a.format == asTable && a.verbose == 0 {
			continue
		}
		if err := a.printOne(c, func() string { return checkLine(c) }); err != nil {
			return endedEarly(err, &r)
		}
	}
	if a.format == asTable {
		fmt.Fprintf(a.Out, "\n%d passed, %d failed, %d skipped\n", count[checkPassed], count[checkFailed], count[checkSkipped])
		if a.verbose == 0 {
			fmt.Fprintln(a.Out, "--verbose shows the checks that were skipped: nearly all of them need a fault of the registry.")
		}
	}
	if count[checkFailed] > 0 {
		return &statusError{status: statusNo}
	}
	return nil
}

// endedEarly returns the error of a command that ends with a check whose result is not printed.
// It says what may be left.
func endedEarly(why error, r *conformance.Result) error {
	if r.Left == nil {
		return why
	}
	return no("%v; what the check %s put may be left: %s", why, r.Name, message(r.Left))
}

// reach returns an error if the registry does not answer: the checks would all fail for one
// reason.
func (a *app) reach(ctx context.Context, url string, store naming.Store) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	for _, err := range store.Services(ctx) {
		return registryError(shortURL(url), err)
	}
	return registryError(shortURL(url), context.Cause(ctx))
}

func resultOf(r conformance.Result) checkResult {
	c := checkResult{Check: r.Name, Result: checkPassed, Rule: r.Rule}
	switch {
	case r.Skipped != "":
		c.Result, c.Reason = checkSkipped, r.Skipped
	case r.Err != nil:
		c.Result, c.Reason = checkFailed, naming.SafeError(r.Err).Error()
	}
	return c
}

var checkColours = map[string]lipgloss.Style{
	checkPassed:  lipgloss.NewStyle().Foreground(lipgloss.Green),
	checkFailed:  lipgloss.NewStyle().Foreground(lipgloss.Red).Bold(true),
	checkSkipped: lipgloss.NewStyle().Faint(true),
}

func checkLine(c checkResult) string {
	line := checkColours[c.Result].Render(fmt.Sprintf("%-7s", c.Result)) + "  " + show.Text(c.Check) + "  " + show.Text(c.Rule) + "\n"
	if c.Reason != "" {
		line += "         " + show.Text(c.Reason) + "\n"
	}
	return line
}
