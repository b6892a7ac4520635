package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/open"
	"github.com/naming-go/naming/cmd/naming/internal/measure"
)

func (a *app) benchCommand() *cobra.Command {
	var o measure.Options
	cmd := &cobra.Command{
		Use: "bench [URL]", Short: "Measure a registry, beside the registry's own client", Args: cobra.MaximumNArgs(1),
		Long: "Measure registrations per second, and how long a change takes to reach a watch: through this library and,\n" +
			"side by side, through the registry's own client. The ratios come first: they say what the library costs,\n" +
			"whatever the machine. What was registered is removed, also after Ctrl-C.",
		RunE: run(func(ctx context.Context, args []string) error { return a.bench(ctx, a.registry(args), o) }),
	}
	flags := cmd.Flags()
	flags.IntVar(&o.Registrations, "registrations", 1000, "how many endpoints are registered")
	flags.IntVar(&o.Concurrency, "concurrency", 16, "how many endpoints are registered at once")
	flags.IntVar(&o.Changes, "changes", 200, "how many changes are followed")
	flags.DurationVar(&o.Interval, "interval", 20*time.Millisecond, "the time between two changes")
	return cmd
}

// maxBench bounds the endpoints of a measurement, which are all in memory.
const maxBench = naming.MaxEndpoints / 2

func (a *app) bench(ctx context.Context, url string, o measure.Options) error {
	if o.Registrations > maxBench || o.Concurrency > maxBench || o.Changes > maxBench {
		return usage("--registrations, --concurrency and --changes must be at most %d", maxBench)
	}
	t, done, err := a.measured(ctx, url)
	if err != nil {
		return err
	}
	defer done()
	if o.Progress = nil; a.Terminal && a.format == asTable {
		o.Progress = func(what string, n, of int) { fmt.Fprintf(a.Err, "\r\x1b[K%s: %d of %d", what, n, of) }
		defer fmt.Fprint(a.Err, "\r\x1b[K")
	}
	r, err := measure.Run(ctx, t, o)
	switch {
	case ctx.Err() != nil:
		return no("interrupted")
	case errors.Is(err, naming.ErrInvalid):
		return usage("%s", message(err))
	case err != nil:
		return registryError(shortURL(url), err)
	}
	return a.print(r, func() string { return benchTable(r) })
}

// measured opens a registry for a measurement.
func (a *app) measured(ctx context.Context, url string) (measure.Target, func(), error) {
	var t measure.Target
	if err := oneRegistry(url); err != nil {
		return t, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	log := slog.New(slog.DiscardHandler)
	store, done, err := open.Store(ctx, url, &open.Options{
		Logger:   log,
		OnEtcd:   func(c *clientv3.Client, o etcd.Options) { t.Raw = measure.Etcd(c, o) },
		OnConsul: func(c *api.Client, o consul.Options) { t.Raw = measure.Consul(c, o) },
	})
	if err != nil {
		return t, nil, a.openError(url, err)
	}
	if err := a.reach(ctx, url, store); err != nil {
		_ = done()
		return t, nil, err
	}
	t.Store, t.Client = store, naming.New(store, &naming.Options{Logger: log})
	return t, func() { t.Client.Close(); _ = done() }, nil
}

func benchTable(r measure.Result) string {
	row := func(what, format string, p measure.Pair) []string {
		ratio, raw := "-", "-"
		if p.Raw > 0 {
			ratio, raw = fmt.Sprintf("%.2f", p.Ratio), fmt.Sprintf(format, p.Raw)
		}
		return []string{what, ratio, fmt.Sprintf(format, p.Naming), raw}
	}
	return columns([]string{"MEASURED", "RATIO", "NAMING", "RAW CLIENT"}, [][]string{
		row("registrations per second", "%.0f", r.Registrations),
		row("a change, p50", "%.2f ms", r.P50),
		row("a change, p99", "%.2f ms", r.P99),
	})
}
