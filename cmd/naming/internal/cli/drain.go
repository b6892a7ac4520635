package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/show"
)

// marking is one run of drain or of resume.
type marking struct {
	*app
	draining bool
	all, yes bool
	verify   time.Duration // how long the mark has to stay
	wait     time.Duration // how long to wait for the program; 0: not at all
	service  string
	client   *naming.Client
	ids      map[string]bool // of the endpoints to mark
}

// markResult is the document of drain and of resume.
type markResult struct {
	Service string `json:"service"`
	// Draining is what was asked: true for drain, false for resume.
	Draining bool `json:"draining"`
	// Holds says that every endpoint was as asked for VerifiedSeconds, or left the registry.
	Holds           bool    `json:"holds"`
	VerifiedSeconds float64 `json:"verifiedSeconds"`
	// Waited says what --wait was for has happened. It is missing without --wait.
	Waited *bool `json:"waited,omitempty"`
	// Others is the number of endpoints of the service that still serve, besides these.
	Others int `json:"otherServing"`
	// Endpoints are the endpoints as the registry has them now. Gone are the IDs of those
	// that left the registry meanwhile.
	Endpoints []show.Endpoint `json:"endpoints"`
	Gone      []string        `json:"gone,omitempty"`
}

func (a *app) drainCommand() *cobra.Command {
	return (&marking{app: a, draining: true}).command(&cobra.Command{
		Use: "drain SERVICE ENDPOINT", Short: "Take an endpoint out of the traffic for new calls",
		Long: strings.TrimSpace(`
Take an endpoint that any program registered out of the traffic for new calls. ENDPOINT is
an ID or an address. The program goes on serving the calls that it has, and keeps its
registration. A registration of this framework keeps the mark until 'naming resume', or
until the program itself resumes. A program that is started again registers a new entry:
etcd then has no mark, and Consul keeps the maintenance mode.

In etcd the entry gets the draining mark: clients use the endpoint only while the service
has no other. In Consul the service gets the maintenance mode: clients never use the
endpoint. The agent that has the registration must be the one that is asked.

Afterwards the command looks for a few seconds whether the mark stays. With --wait it also
waits until the endpoint has left the registry, which its program does when it stops.

The exit status is 1 if the service has no such endpoint, if the mark does not stay, or if
the endpoint is still there after --wait.`),
	}, "how long to wait until the endpoint has left the registry")
}

func (a *app) resumeCommand() *cobra.Command {
	return (&marking{app: a}).command(&cobra.Command{
		Use: "resume SERVICE ENDPOINT", Short: "Put an endpoint back into the traffic",
		Long: strings.TrimSpace(`
Put an endpoint back into the traffic: remove the draining mark, or in Consul end the
maintenance mode of the service, whoever began it. ENDPOINT is an ID or an address. A mark
that the program itself has set stays, and the command says so.

Afterwards the command looks for a few seconds whether the mark stays away. With --wait it
also waits until clients may use the endpoint: until no check of the registry fails either.

The exit status is 1 if the service has no such endpoint, if the mark returns, or if
clients may not use the endpoint after --wait.`),
	}, "how long to wait until clients may use the endpoint")
}

// command adds what both commands have.
func (m *marking) command(cmd *cobra.Command, wait string) *cobra.Command {
	cmd.Args = cobra.RangeArgs(1, 2)
	cmd.ValidArgsFunction = m.completeServices
	cmd.RunE = run(func(ctx context.Context, args []string) error { return m.run(ctx, args) })
	flags := cmd.Flags()
	flags.BoolVar(&m.all, "all", false, "all endpoints of the service; needs --yes")
	flags.BoolVar(&m.yes, "yes", false, "yes, all endpoints")
	flags.DurationVar(&m.verify, "verify", 3*time.Second, "how long to look whether the mark stays")
	flags.DurationVar(&m.wait, "wait", 0, wait)
	return cmd
}

func (m *marking) run(ctx context.Context, args []string) error {
	switch {
	case m.all && len(args) == 2:
		return usage("--all takes no ENDPOINT")
	case m.all && !m.yes:
		return usage("--all is about every endpoint of the service; add --yes if that is meant")
	case !m.all && len(args) == 1:
		return usage("no ENDPOINT: name an ID or an address, or use --all")
	case m.verify < 0 || m.wait < 0:
		return usage("--verify and --wait must not be negative")
	}
	c, done, err := m.once(ctx)
	if err != nil {
		return err
	}
	defer done()
	m.client, m.service = c, args[0]
	if err := m.choose(ctx, args[1:]); err != nil {
		return err
	}
	if err := m.markAll(ctx); err != nil {
		return err
	}
	return m.report(ctx)
}

// choose finds the endpoints to mark: the one with an ID, or those with an address.
func (m *marking) choose(ctx context.Context, endpoint []string) error {
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	v, err := m.client.List(ctx, m.service)
	if err != nil {
		return registryError(m.storeName(), err)
	}
	list := show.ServiceOf(v).Endpoints
	if len(list) == 0 {
		return m.unknownService(ctx, m.client, m.service)
	}
	byID, byAddr := make(map[string]bool), make(map[string]bool)
	for _, e := range list {
		if m.all || e.ID == endpoint[0] {
			byID[e.ID] = true
		} else if e.Addr == endpoint[0] {
			byAddr[e.ID] = true
		}
	}
	if m.ids = byID; len(byID) == 0 {
		m.ids = byAddr
	}
	if len(m.ids) == 0 {
		return no("service %q has no endpoint with the ID or the address %q; 'naming get' shows the endpoints", m.service, endpoint[0])
	}
	return nil
}

// markAll marks the endpoints one after the other. An endpoint that left the registry
// meanwhile needs no mark.
func (m *marking) markAll(ctx context.Context) error {
	marked := 0
	for _, id := range slices.Sorted(maps.Keys(m.ids)) {
		call, cancel := context.WithTimeout(ctx, m.timeout)
		err := m.client.Mark(call, m.service, id, m.draining)
		cancel()
		if errors.Is(err, naming.ErrNotFound) {
			continue
		}
		if err != nil && marked > 0 {
			err = fmt.Errorf("%d of %d endpoints were marked, and then: %w", marked, len(m.ids), err)
		}
		if err != nil {
			return registryError(m.storeName(), err)
		}
		marked++
	}
	return nil
}

// report looks whether the mark stays, waits if that was asked, and prints the result.
func (m *marking) report(ctx context.Context) error {
	r, err := m.observe(ctx)
	if err != nil {
		return err
	}
	if err := m.print(r, func() string { return r.text() }); err != nil {
		return err
	}
	return m.verdict(r)
}

// verdict returns an error if a result is not what was asked for.
func (m *marking) verdict(r *markResult) error {
	switch {
	case !r.Holds && m.draining:
		return no("the mark did not stay: the program put its entry again, or another operator removed the mark")
	case !r.Holds:
		return no("the endpoint is still marked: the program itself drains, or another operator marked it again")
	case r.Waited != nil && !*r.Waited && m.draining:
		return no("the endpoint is still in the registry after %v", m.wait)
	case r.Waited != nil && !*r.Waited:
		return no("clients may not use the endpoint after %v", m.wait)
	}
	return nil
}

// observe waits until the registry shows the mark, looks whether the mark stays, and does what
// --wait says.
func (m *marking) observe(ctx context.Context) (*markResult, error) {
	r, shown, err := m.watch(ctx, m.timeout, func(r *markResult) bool { return r.Holds })
	if err != nil || !shown {
		return r, err
	}
	if m.verify > 0 {
		begun := time.Now()
		if r, _, err = m.watch(ctx, m.verify, func(r *markResult) bool { return !r.Holds }); err != nil {
			return nil, err
		}
		r.VerifiedSeconds = time.Since(begun).Round(100 * time.Millisecond).Seconds()
	}
	if m.wait == 0 || !r.Holds {
		return r, nil
	}
	after, over, err := m.watch(ctx, m.wait, (*markResult).over)
	if err != nil {
		return nil, err
	}
	after.Waited, after.VerifiedSeconds = &over, r.VerifiedSeconds
	return after, nil
}

// watch watches the service for d at most, or until enough returns true, which watch reports.
// It returns what the registry showed last. A registry that does not answer at the end is an
// error.
func (m *marking) watch(ctx context.Context, d time.Duration, enough func(*markResult) bool) (last *markResult, met bool, err error) {
	bounded, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var why error
	for v, err := range m.client.Watch(bounded, m.service) {
		switch {
		case ctx.Err() != nil:
			return nil, false, ctx.Err()
		case err != nil && !errors.Is(err, context.DeadlineExceeded):
			return nil, false, registryError(m.storeName(), err)
		case err != nil:
		case v.Stale() || !v.Synced:
			why = v.Err
		default:
			why = nil
			if last = m.result(v); enough(last) {
				return last, true, nil
			}
		}
	}
	if last == nil || why != nil {
		return nil, false, registryError(m.storeName(), fmt.Errorf("the registry did not show the endpoint within %v: %w", d, errors.Join(context.DeadlineExceeded, why)))
	}
	return last, false, nil
}

// result returns how the endpoints stand in a view.
func (m *marking) result(v naming.View) *markResult {
	r := &markResult{Service: m.service, Draining: m.draining, Holds: true, Endpoints: []show.Endpoint{}}
	there := make(map[string]bool)
	for _, e := range show.ServiceOf(v).Endpoints {
		if !m.ids[e.ID] {
			if e.State == show.Serving {
				r.Others++
			}
			continue
		}
		there[e.ID] = true
		r.Endpoints = append(r.Endpoints, e)
		r.Holds = r.Holds && e.Marked() == m.draining
	}
	for _, id := range slices.Sorted(maps.Keys(m.ids)) {
		if !there[id] {
			r.Gone = append(r.Gone, id)
		}
	}
	return r
}

// over reports whether what --wait waits for has happened.
func (r *markResult) over() bool {
	if r.Draining {
		return len(r.Endpoints) == 0
	}
	for _, e := range r.Endpoints {
		if e.State != show.Serving {
			return false
		}
	}
	return true
}

// text returns the result for people.
func (r *markResult) text() string {
	var b strings.Builder
	if len(r.Endpoints) > 0 {
		b.WriteString(endpointTable(r.Endpoints, false))
	}
	for _, id := range r.Gone {
		fmt.Fprintf(&b, "%s left the registry.\n", show.Text(id))
	}
	what := "The mark stayed"
	if !r.Draining {
		what = "The mark stayed away"
	}
	if r.Holds && len(r.Endpoints) > 0 && r.VerifiedSeconds > 0 {
		fmt.Fprintf(&b, "%s for %v.\n", what, time.Duration(r.VerifiedSeconds*float64(time.Second)))
	}
	if r.Draining && r.Others == 0 {
		b.WriteString("Service " + show.Text(r.Service) + " has no other endpoint that serves.\n")
	}
	return b.String()
}
