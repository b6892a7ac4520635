package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/open"
	"github.com/naming-go/naming/cmd/naming/internal/live"
	"github.com/naming-go/naming/cmd/naming/internal/show"
	"github.com/naming-go/naming/cmd/naming/internal/tui"
)

// event is a line of naming watch, in JSON and YAML.
type event struct {
	Time    time.Time `json:"time"`
	Service string    `json:"service"`
	// Event is added, changed, deleted, withheld, usable, synced, stale, fresh or gone.
	Event     string         `json:"event"`
	Endpoint  *show.Endpoint `json:"endpoint,omitempty"`
	Endpoints int            `json:"endpoints"` // how many may be used now
	Error     string         `json:"error,omitempty"`
}

func (a *app) watchCommand() *cobra.Command {
	lines := false
	cmd := &cobra.Command{
		Use: "watch [SERVICE...]", Short: "Show the changes of services as they happen",
		Long: "Show the endpoints of services in a live table on a terminal. Without a terminal, with --lines, and\n" +
			"with --output json or yaml, print the changes as they happen, one line each, until Ctrl-C.\n" +
			"Without names, all services of the registry are watched.",
		RunE: run(func(ctx context.Context, args []string) error {
			if a.live() && !lines {
				return a.screen(ctx, args, tui.Options{Title: "naming watch  " + a.storeName(), Endpoints: true})
			}
			return a.watch(ctx, args)
		}),
		ValidArgsFunction: a.completeServices,
	}
	cmd.Flags().BoolVar(&lines, "lines", false, "print lines also on a terminal")
	return cmd
}

func (a *app) watch(ctx context.Context, services []string) error {
	c, done, err := a.client(ctx, open.ClientOptions{})
	if err != nil {
		return err
	}
	defer done()
	p := &watchPrinter{app: a, stale: make(map[string]bool)}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err = live.Run(ctx, c, live.Options{Services: services, OnList: p.list, OnUpdate: func(u live.Update) {
		if p.update(u); p.err != nil {
			cancel() // nobody reads the output
		}
	}})
	switch {
	case p.err != nil:
		return p.err
	case errors.Is(err, context.Canceled):
		return nil // Ctrl-C is how a watch ends.
	}
	return err
}

// watchPrinter prints the lines of naming watch.
type watchPrinter struct {
	app   *app
	stale map[string]bool // by the name of the service; the empty name is the list
	err   error           // the first error of the output
}

// list prints that the list of services became stale or fresh.
func (p *watchPrinter) list(v naming.View) { p.status(v) }

func (p *watchPrinter) update(u live.Update) {
	name := u.View.Service
	if u.Gone {
		delete(p.stale, name)
		p.print(event{Service: name, Event: "gone"})
		return
	}
	for _, c := range u.Changes {
		e := show.EndpointOf(c.Endpoint)
		if c.Withheld != nil {
			e = show.WithheldOf(*c.Withheld)
		}
		p.print(event{Service: name, Event: string(c.Kind), Endpoint: &e, Endpoints: len(u.View.Endpoints)})
	}
	if u.First {
		p.print(event{Service: name, Event: "synced", Endpoints: len(u.View.Endpoints)})
	}
	p.status(u.View)
}

// status prints that a service became stale or fresh.
func (p *watchPrinter) status(v naming.View) {
	if v.Stale() == p.stale[v.Service] {
		return
	}
	p.stale[v.Service] = v.Stale()
	e := event{Service: v.Service, Event: "fresh", Endpoints: len(v.Endpoints)}
	if v.Stale() {
		e.Event = "stale"
	}
	if v.Err != nil {
		e.Error = naming.SafeError(v.Err).Error()
	}
	p.print(e)
}

func (p *watchPrinter) print(e event) {
	e.Time = time.Now()
	if err := p.app.printOne(e, func() string { return line(e) }); err != nil && p.err == nil {
		p.err = err
	}
}

// line returns an event as a line of text.
func line(e event) string {
	name := "all services"
	if e.Service != "" {
		name = show.Text(e.Service)
	}
	parts := []string{e.Time.Format("15:04:05.000"), name, e.Event}
	if e.Endpoint != nil {
		parts = append(parts, describe(*e.Endpoint))
	} else if e.Event == "synced" {
		parts = append(parts, fmt.Sprint("endpoints=", e.Endpoints))
	}
	if e.Error != "" {
		parts = append(parts, e.Error)
	}
	return strings.Join(parts, "  ") + "\n"
}

// describe returns what there is to say of an endpoint in a line.
func describe(e show.Endpoint) string {
	parts := []string{show.Text(e.Addr)}
	if e.State != show.Serving {
		parts = append(parts, e.Why())
	}
	for _, p := range []struct{ name, value string }{
		{"weight", e.WeightText()}, {"zone", show.Text(e.Zone)}, {"version", show.Text(e.Version)}, {"tags", show.Text(strings.Join(e.Tags, ","))},
	} {
		if p.value != "-" {
			parts = append(parts, p.name+"="+p.value)
		}
	}
	if e.ID != e.Addr {
		parts = append(parts, "id="+show.Text(e.ID))
	}
	return strings.Join(parts, " ")
}
