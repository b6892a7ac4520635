package cli

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/live"
	"github.com/naming-go/naming/cmd/naming/internal/show"
)

// counts is a service and how many endpoints it has, by their states.
type counts struct {
	Service  string `json:"service"`
	Serving  int    `json:"serving"`
	Draining int    `json:"draining"`
	Withheld int    `json:"withheld"`
}

func (a *app) lsCommand() *cobra.Command {
	long := false
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the services", Args: cobra.NoArgs,
		Long: "List the services that have endpoints. With --long, read each service and count its endpoints.",
		RunE: run(func(ctx context.Context, _ []string) error { return a.ls(ctx, long) }),
	}
	cmd.Flags().BoolVarP(&long, "long", "l", false, "read each service and count its endpoints")
	return cmd
}

func (a *app) ls(ctx context.Context, long bool) error {
	c, done, err := a.once(ctx)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	names, err := live.Services(ctx, c)
	if err != nil {
		return registryError(a.storeName(), err)
	}
	if !long {
		rows := make([][]string, len(names))
		for i, name := range names {
			rows[i] = []string{show.Text(name)}
		}
		return a.print(names, func() string { return columns([]string{"SERVICE"}, rows) })
	}
	list, err := count(ctx, c, names)
	if err != nil {
		return registryError(a.storeName(), err)
	}
	rows := make([][]string, len(list))
	for i, s := range list {
		rows[i] = []string{show.Text(s.Service), strconv.Itoa(s.Serving), strconv.Itoa(s.Draining), strconv.Itoa(s.Withheld)}
	}
	return a.print(list, func() string {
		return columns([]string{"SERVICE", "SERVING", "DRAINING", "WITHHELD"}, rows)
	})
}

// count reads the services and counts their endpoints.
func count(ctx context.Context, c *naming.Client, names []string) ([]counts, error) {
	list := make([]counts, len(names))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i, name := range names {
		g.Go(func() error {
			v, err := c.List(ctx, name)
			if err != nil {
				return err
			}
			list[i] = countsOf(name, show.ServiceOf(v))
			return nil
		})
	}
	return list, g.Wait()
}

func countsOf(name string, s show.Service) counts {
	c := counts{Service: name}
	for _, e := range s.Endpoints {
		switch e.State {
		case show.Serving:
			c.Serving++
		case show.Draining:
			c.Draining++
		case show.Withheld:
			c.Withheld++
		}
	}
	return c
}
