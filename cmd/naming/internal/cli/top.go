package cli

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/open"
	"github.com/naming-go/naming/cmd/naming/internal/show"
	"github.com/naming-go/naming/cmd/naming/internal/tui"
)

// topService is the document of a service in naming top.
type topService struct {
	Service string `json:"service"`
	// Size is how many endpoints may be used: those that serve and those that drain.
	Size     int `json:"size"`
	Serving  int `json:"serving"`
	Draining int `json:"draining"`
	Withheld int `json:"withheld"`
	Held     int `json:"held"`
	// Stale says that the registry does not vouch for the endpoints now. Error is why.
	Stale      bool      `json:"stale"`
	StaleSince time.Time `json:"staleSince,omitzero"`
	Error      string    `json:"error,omitempty"`
}

type topFlags struct {
	once         bool
	sort, filter string
}

func (a *app) topCommand() *cobra.Command {
	var f topFlags
	cmd := &cobra.Command{
		Use: "top", Short: "Show all services in a live table", Args: cobra.NoArgs,
		Long: "Show all services by size, churn, age of the last change, staleness, and withheld and held endpoints.\n" +
			"On a terminal the table is live: keys sort and filter the services, and show the endpoints of one.\n" +
			"Churn is how many endpoints changed in the last minute. Without a terminal, with --once, and with\n" +
			"--output json or yaml, the services are printed once, without churn and ages.",
		Example: "  naming top --sort size\n  naming top --once --filter greeter",
		RunE:    run(func(ctx context.Context, _ []string) error { return a.top(ctx, f) }),
	}
	names := make([]string, len(tui.Keys))
	for i, k := range tui.Keys {
		names[i] = string(k)
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.once, "once", false, "print the services once")
	flags.StringVar(&f.sort, "sort", string(tui.ByName), "the `KEY` to sort by: name, size, churn, age, stale, withheld or held")
	flags.StringVar(&f.filter, "filter", "", "show services and endpoints that contain a `TEXT`")
	_ = cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) top(ctx context.Context, f topFlags) error {
	key, err := tui.ParseKey(f.sort)
	if err != nil {
		return usage("--sort: %w", err)
	}
	if a.live() && !f.once {
		return a.screen(ctx, nil, tui.Options{Title: "naming top  " + a.storeName(), Sort: key, Filter: f.filter})
	}
	c, done, err := a.once(ctx)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	rows, err := tui.Once(ctx, c)
	if err != nil {
		return registryError(a.storeName(), err)
	}
	rows = tui.NewFilter(f.filter).Rows(rows)
	tui.Sort(rows, key, false, time.Now())
	return a.print(topDocuments(rows), func() string { return topTable(rows) })
}

// live reports whether the output is a live table.
func (a *app) live() bool { return a.Terminal && a.format == asTable }

// screen shows services on the terminal until the user quits.
func (a *app) screen(ctx context.Context, services []string, opts tui.Options) error {
	var clientOpts open.ClientOptions
	if f, ok := a.Err.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		// A line of a log would destroy the screen. What is wrong is on the screen.
		clientOpts.Store.Logger = slog.New(slog.DiscardHandler)
		clientOpts.Client.Logger = clientOpts.Store.Logger
	}
	c, done, err := a.client(ctx, clientOpts)
	if err != nil {
		return err
	}
	defer done()
	in := a.In
	if f, ok := in.(*os.File); ok && !term.IsTerminal(int(f.Fd())) {
		in = nil
		if tty, err := os.Open("/dev/tty"); err == nil { // the keys come from the terminal all the same
			defer func() { _ = tty.Close() }()
			in = io.Reader(tty)
		}
	}
	err = tui.Run(ctx, c, services, in, a.Out, opts)
	if errors.Is(err, naming.ErrInvalid) {
		return registryError(a.storeName(), err)
	}
	return err
}

func topDocuments(rows []*tui.Row) []topService {
	docs := make([]topService, len(rows))
	for i, r := range rows {
		docs[i] = topService{
			Service: r.Service, Size: r.Size(), Serving: r.Serving, Draining: r.Draining, Withheld: r.Withheld, Held: r.Held,
			Stale: r.Status.Stale(), StaleSince: r.Status.StaleSince,
		}
		if r.Status.Err != nil {
			docs[i].Error = naming.SafeError(r.Status.Err).Error()
		}
	}
	return docs
}

func topTable(rows []*tui.Row) string {
	now := time.Now()
	count := func(n int) string {
		if n == 0 {
			return "-"
		}
		return strconv.Itoa(n)
	}
	cells := make([][]string, len(rows))
	for i, r := range rows {
		stale := "-"
		if r.Status.Stale() {
			stale = now.Sub(r.Status.StaleSince).Round(time.Second).String()
		}
		cells[i] = []string{show.Text(r.Service), strconv.Itoa(r.Size()), stale, count(r.Withheld), count(r.Held), count(r.Draining)}
	}
	return columns([]string{"SERVICE", "SIZE", "STALE", "WITHHELD", "HELD", "DRAINING"}, cells)
}
