package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/live"
	"github.com/naming-go/naming/cmd/naming/internal/show"
)

func (a *app) getCommand() *cobra.Command {
	wide := false
	cmd := &cobra.Command{
		Use: "get SERVICE", Short: "Show the endpoints of a service", Args: cobra.ExactArgs(1),
		Long: "Show the endpoints of a service, also those that the registry says not to use, with the reason.\n" +
			"The exit status is 1 if the service has no endpoint.",
		RunE:              run(func(ctx context.Context, args []string) error { return a.get(ctx, args[0], wide) }),
		ValidArgsFunction: a.completeServices,
	}
	cmd.Flags().BoolVarP(&wide, "wide", "w", false, "show the metadata")
	return cmd
}

func (a *app) get(ctx context.Context, service string, wide bool) error {
	c, done, err := a.once(ctx)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	v, err := c.List(ctx, service)
	if err != nil {
		return registryError(a.storeName(), err)
	}
	if len(v.Endpoints)+len(v.Withheld) == 0 {
		return a.unknownService(ctx, c, service)
	}
	s := show.ServiceOf(v)
	return a.print(s, func() string { return endpointTable(s.Endpoints, wide) })
}

// unknownService returns an error for a service without endpoints. It names services whose
// names are alike.
func (a *app) unknownService(ctx context.Context, c *naming.Client, service string) error {
	names, err := live.Services(ctx, c)
	if err != nil {
		names = nil // The answer is known without them.
	}
	var alike []string
	for _, name := range names {
		if name != service && len(alike) < 3 && (strings.EqualFold(name, service) || strings.Contains(name, service) || strings.Contains(service, name)) {
			alike = append(alike, show.Text(name))
		}
	}
	if len(alike) > 0 {
		return no("service %q has no endpoints in %s; there are: %s", service, a.storeName(), strings.Join(alike, ", "))
	}
	return no("service %q has no endpoints in %s", service, a.storeName())
}

// endpointTable formats endpoints. A column that is empty in all rows is left out.
func endpointTable(list []show.Endpoint, wide bool) string {
	header := []string{"ADDRESS", "STATE", "WEIGHT", "ZONE", "VERSION", "TAGS", "ID"}
	if wide {
		header = append(header, "METADATA")
	}
	rows := make([][]string, len(list))
	for i, e := range list {
		id := ""
		if e.ID != e.Addr {
			id = e.ID
		}
		rows[i] = []string{show.Text(e.Addr), e.Why(), e.WeightText(), show.Text(e.Zone), show.Text(e.Version), show.Text(strings.Join(e.Tags, ",")), show.Text(id)}
		if wide {
			rows[i] = append(rows[i], show.Text(string(e.Metadata)))
		}
	}
	return columns(dropEmpty(header, rows))
}

// dropEmpty removes the columns that have a dash in every row.
func dropEmpty(header []string, rows [][]string) ([]string, [][]string) {
	for c := len(header) - 1; c >= 0; c-- {
		empty := len(rows) > 0
		for _, row := range rows {
			empty = empty && row[c] == "-"
		}
		if !empty {
			continue
		}
		header = append(header[:c:c], header[c+1:]...)
		for i, row := range rows {
			rows[i] = append(row[:c:c], row[c+1:]...)
		}
	}
	return header, rows
}

const completionTimeout = 2 * time.Second

// completeServices completes the name of a service in a shell. A registry that does not
// answer within two seconds completes nothing.
func (a *app) completeServices(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	a.timeout = min(a.timeout, completionTimeout)
	c, done, err := a.once(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer done()
	ctx, cancel := context.WithTimeout(cmd.Context(), a.timeout)
	defer cancel()
	names, err := live.Services(ctx, c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for i, name := range names {
		names[i] = naming.SafeText(name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
