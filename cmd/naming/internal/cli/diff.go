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
	// Unmappable are endpoints that the format of TO refuses, with the reason.
	Unmappable []unmappable `json:"unmappable,omitempty"`
	// FromAsOf and ToAsOf are when the registries vouched for their endpoints.
	FromAsOf time.Time `json:"fromAsOf,omitzero"`
	ToAsOf   time.Time `json:"toAsOf,omitzero"`
}

type unmappable struct {
	Endpoint show.Endpoint `json:"endpoint"`
	Why      string        `json:"why"`
}

type mismatch struct {
	From   show.Endpoint `json:"from"`
	To     show.Endpoint `json:"to"`
	Fields []string      `json:"fields"`
}

func (a *app) diffCommand() *cobra.Command {
	accept := ""
	var scope scopeFlags
	cmd := &cobra.Command{
		Use: "diff FROM TO", Short: "Compare two registries", Args: cobra.ExactArgs(2),
		Long: "Compare the services of two registries, address by address. Services that differ are read a second\n" +
			"time, since a server that starts is in one registry before it is in the other one. READ is how long\n" +
			"ago both registries vouched for their endpoints. A migrate URL is what a program reads that joins.\n" +
			"The exit status is 0 if the registries agree, 1 if they differ, and 3 if one of them cannot be read.",
		Example: "  naming diff consul://127.0.0.1 'etcd://127.0.0.1?prefix=/naming/' --service greeter --accept id",
		RunE:    run(func(ctx context.Context, args []string) error { return a.diff(ctx, args, &scope, accept) }),
	}
	scope.add(cmd, false)
	a.completeService(cmd, func(args []string) []string { return args })
	cmd.Flags().StringVar(&accept, "accept", "", "what may differ: a `LIST` of id, address, weight, zone, version, tags, metadata, draining, draining-mark, withheld")
	return cmd
}

func (a *app) diff(ctx context.Context, urls []string, scope *scopeFlags, list string) error {
	accept, err := migrate.ParseAccept(list)
	if err != nil {
		return usage("--accept: %s", message(err))
	}
	if err := scope.check(false); err != nil {
		return err
	}
	from, to, done, err := bothStores(ctx, a.readStore, a.readStore, urls[0], urls[1])
	if err != nil {
		return err
	}
	defer done()
	reading, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	reports, readErr := compareTwice(reading, migrate.Comparison{Accept: accept, Target: to}, from, to, scope.services)
	if ctx.Err() != nil {
		return no("interrupted")
	}
	docs, equal := make([]difference, len(reports)), true
	for i, r := range reports {
		docs[i] = differenceOf(r)
		equal = equal && docs[i].Equal && len(docs[i].Unmappable) == 0
	}
	if err := a.print(docs, func() string { return diffText(docs, time.Now(), readErr) }); err != nil {
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

// secondRead is the time between the two reads of services that differ.
const secondRead = 300 * time.Millisecond

// compareTwice compares services, and compares a second time what differs.
func compareTwice(ctx context.Context, c migrate.Comparison, from, to naming.Store, services []string) ([]*migrate.Report, error) {
	reports, err := c.Stores(ctx, from, to, services...)
	if err != nil {
		return reports, err
	}
	var differ []string
	for _, r := range reports {
		if !r.Equal() {
			differ = append(differ, r.Service)
		}
	}
	if len(differ) == 0 {
		return reports, nil
	}
	select {
	case <-time.After(secondRead):
	case <-ctx.Done():
		return reports, ctx.Err()
	}
	again, err := c.Stores(ctx, from, to, differ...)
	for _, r := range again {
		for i := range reports {
			if reports[i].Service == r.Service {
				reports[i] = r
			}
		}
	}
	return reports, err
}

// opener opens a store, which the function that it returns closes.
type opener func(ctx context.Context, url string) (naming.Store, func(), error)

// bothStores opens the stores of two URLs. The caller closes both with done.
func bothStores(ctx context.Context, openFrom, openTo opener, fromURL, toURL string) (from, to naming.Store, done func(), err error) {
	from, closeFrom, err := openFrom(ctx, fromURL)
	if err != nil {
		return nil, nil, nil, err
	}
	to, closeTo, err := openTo(ctx, toURL)
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
		FromAsOf: r.OldAsOf, ToAsOf: r.NewAsOf,
	}
	for _, m := range r.Mismatch {
		d.Mismatch = append(d.Mismatch, mismatch{show.EndpointOf(m.Old), show.EndpointOf(m.New), m.Fields})
	}
	for _, l := range r.Unmappable {
		d.Unmappable = append(d.Unmappable, unmappable{show.EndpointOf(l.Endpoint), errorText(l.Err)})
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

// diffText is a table of all services, and a line for each difference. After an error of the
// reads, a table without rows would say that nothing is there.
func diffText(docs []difference, now time.Time, readErr error) string {
	switch {
	case len(docs) == 0 && readErr != nil:
		return ""
	case len(docs) == 0:
		return "No service was found.\n"
	}
	var rows [][]string
	var lines strings.Builder
	for _, d := range docs {
		row := []string{show.Text(d.Service), d.verdict()}
		for _, n := range []int{d.From, d.To, len(d.Missing), len(d.Extra), len(d.Mismatch), len(d.Unmappable), d.Copies} {
			row = append(row, strconv.Itoa(n))
		}
		rows = append(rows, append(row, ageText(now, d.FromAsOf)+", "+ageText(now, d.ToAsOf)))
		d.lines(&lines)
	}
	text := columns([]string{"SERVICE", "VERDICT", "FROM", "TO", "MISSING", "EXTRA", "DIFFERENT", "UNMAPPABLE", "COPIES", "READ"}, rows)
	if lines.Len() > 0 {
		text += "\n" + lines.String()
	}
	return text
}

func (d *difference) verdict() string {
	switch {
	case !d.Known:
		return "not read"
	case !d.Equal || len(d.Unmappable) > 0:
		return "different"
	}
	return "equal"
}

// lines writes a line for each difference.
func (d *difference) lines(b *strings.Builder) {
	name := show.Text(d.Service)
	for _, e := range d.Missing {
		fmt.Fprintf(b, "- %s  %s\n", name, describe(e))
	}
	for _, e := range d.Extra {
		fmt.Fprintf(b, "+ %s  %s\n", name, describe(e))
	}
	for _, m := range d.Mismatch {
		fmt.Fprintf(b, "~ %s  %s differs in %s: %s, and %s\n", name, show.Text(m.From.Addr), strings.Join(m.Fields, ", "), describe(m.From), describe(m.To))
	}
	for _, u := range d.Unmappable {
		fmt.Fprintf(b, "! %s  %s is refused: %s\n", name, describe(u.Endpoint), u.Why)
	}
}

// ageText returns how long ago a registry vouched for its endpoints.
func ageText(now, asOf time.Time) string {
	if asOf.IsZero() {
		return "never"
	}
	return max(0, now.Sub(asOf)).Round(100 * time.Millisecond).String()
}
