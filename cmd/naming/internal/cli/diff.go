package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/show"
	"github.com/naming-go/naming/migrate"
)

// difference is the document of a service in naming diff.
type difference struct {
	Service string `json:"service"`
	// Known says that both registries have answered. Equal says that they agree.
	Known    bool            `json:"known"`
	Equal    bool            `json:"equal"`
	From     int             `json:"from"` // how many endpoints may be used
	To       int             `json:"to"`
	Missing  []show.Endpoint `json:"missing,omitempty"`
	Extra    []show.Endpoint `json:"extra,omitempty"`
	Mismatch []mismatch      `json:"mismatch,omitempty"`
	Accepted int             `json:"accepted,omitempty"`
	Copies   int             `json:"copies,omitempty"` // endpoints that TO has only as copies of a bridge
	Refused  []string        `json:"refused,omitempty"`
}

type mismatch struct {
	From   show.Endpoint `json:"from"`
	To     show.Endpoint `json:"to"`
	Fields []string      `json:"fields"`
}

func (a *app) diffCommand() *cobra.Command {
	accept := ""
	cmd := &cobra.Command{
		Use: "diff FROM TO [SERVICE...]", Short: "Compare two registries", Args: cobra.MinimumNArgs(2),
		Long: "Compare the services of two registries, address by address. Without names, all services are compared.\n" +
			"The exit status is 0 if the registries agree, 1 if they differ, and 3 if one of them cannot be read.",
		Example: "  naming diff consul://127.0.0.1 'etcd://127.0.0.1?prefix=/naming/' greeter --accept id",
		RunE:    run(func(ctx context.Context, args []string) error { return a.diff(ctx, args, accept) }),
	}
	cmd.Flags().StringVar(&accept, "accept", "", "what may differ: a `LIST` of id, address, weight, zone, version, tags, metadata, draining, draining-mark, withheld")
	return cmd
}

func (a *app) diff(ctx context.Context, args []string, list string) error {
	accept, err := migrate.ParseAccept(list)
	if err != nil {
		return usage("--accept: %w", err)
	}
	from, to, done, err := a.bothStores(ctx, args[0], args[1])
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	reports, readErr := migrate.Comparison{Accept: accept, Target: to}.Stores(ctx, from, to, args[2:]...)
	docs, equal := make([]difference, len(reports)), true
	for i, r := range reports {
		docs[i] = differenceOf(r)
		equal = equal && docs[i].Equal
	}
	if err := a.print(docs, func() string { return diffText(docs) }); err != nil {
		return err
	}
	switch {
	case readErr != nil:
		return &statusError{statusRegistry, errors.New(message(readErr))}
	case !equal:
		return &statusError{status: statusNo}
	}
	return nil
}

// bothStores opens the stores of two URLs.
func (a *app) bothStores(ctx context.Context, fromURL, toURL string) (from, to naming.Store, done func(), err error) {
	from, closeFrom, err := a.registryStore(ctx, fromURL)
	if err != nil {
		return nil, nil, nil, err
	}
	to, closeTo, err := a.registryStore(ctx, toURL)
	if err != nil {
		closeFrom()
		return nil, nil, nil, err
	}
	return from, to, func() { closeTo(); closeFrom() }, nil
}

func differenceOf(r *migrate.Report) difference {
	d := difference{
		Service: r.Service, Known: r.Known, Equal: r.Equal(), From: r.OldCount, To: r.NewCount,
		Missing: endpoints(r.Missing), Extra: endpoints(r.Extra), Accepted: r.Accepted, Copies: len(r.Copies),
	}
	for _, m := range r.Mismatch {
		d.Mismatch = append(d.Mismatch, mismatch{show.EndpointOf(m.Old), show.EndpointOf(m.New), m.Fields})
	}
	for i := range r.Unmappable {
		d.Refused = append(d.Refused, r.Unmappable[i].String())
	}
	return d
}

func endpoints(list []naming.Endpoint) []show.Endpoint {
	var docs []show.Endpoint
	for _, e := range list {
		docs = append(docs, show.EndpointOf(e))
	}
	return docs
}

// diffText is a table of all services, and a line for each difference.
func diffText(docs []difference) string {
	var rows [][]string
	var lines strings.Builder
	for _, d := range docs {
		verdict := "equal"
		switch {
		case !d.Known:
			verdict = "not read"
		case !d.Equal:
			verdict = "different"
		}
		name := show.Text(d.Service)
		rows = append(rows, []string{name, verdict, strconv.Itoa(d.From), strconv.Itoa(d.To), strconv.Itoa(len(d.Missing)), strconv.Itoa(len(d.Extra)), strconv.Itoa(len(d.Mismatch))})
		for _, e := range d.Missing {
			fmt.Fprintf(&lines, "- %s  %s\n", name, describe(e))
		}
		for _, e := range d.Extra {
			fmt.Fprintf(&lines, "+ %s  %s\n", name, describe(e))
		}
		for _, m := range d.Mismatch {
			fmt.Fprintf(&lines, "~ %s  %s differs in %s: %s, and %s\n", name, show.Text(m.From.Addr), strings.Join(m.Fields, ", "), describe(m.From), describe(m.To))
		}
		for _, r := range d.Refused {
			fmt.Fprintf(&lines, "! %s  %s\n", name, r)
		}
	}
	text := columns([]string{"SERVICE", "", "FROM", "TO", "MISSING", "EXTRA", "DIFFERENT"}, rows)
	if lines.Len() > 0 {
		text += "\n" + lines.String()
	}
	return text
}
