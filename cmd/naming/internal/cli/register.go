package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/spf13/cobra"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/show"
)

// endpointFlags are the flags that describe an endpoint.
type endpointFlags struct {
	id, metadata  string
	weight        float64
	zone, version string
	tags          []string
	ttl           time.Duration
	drainDelay    time.Duration
}

func (f *endpointFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.id, "id", "", "the ID of the endpoint (default its address)")
	flags.StringVar(&f.metadata, "metadata", "", "the metadata, as `JSON`")
	flags.Float64Var(&f.weight, "weight", 0, "the endpoint's share of calls, relative to the others")
	flags.StringVar(&f.zone, "zone", "", "where the endpoint runs")
	flags.StringVar(&f.version, "version", "", "the version that the endpoint runs")
	flags.StringSliceVar(&f.tags, "tag", nil, "a label; may be given more than once")
	flags.DurationVar(&f.ttl, "ttl", 15*time.Second, "how long the endpoint stays listed after this process has died")
	flags.DurationVar(&f.drainDelay, "drain-delay", time.Second, "how long the endpoint is listed as draining before it is removed")
}

// endpoint returns the endpoint that the flags describe.
func (f *endpointFlags) endpoint(addr string) (naming.Endpoint, error) {
	e := naming.Endpoint{ID: f.id, Addr: addr}
	members := make(map[string]any)
	if f.metadata != "" {
		if !json.Valid([]byte(f.metadata)) {
			return e, usage("--metadata is not JSON")
		}
		e.Metadata = json.RawMessage(f.metadata)
	}
	for name, v := range map[string]any{"weight": f.weight, "zone": f.zone, "version": f.version} {
		if v != 0.0 && v != "" {
			members[name] = v
		}
	}
	if len(f.tags) > 0 {
		members["tags"] = f.tags
	}
	if !(f.weight >= 0) || math.IsInf(f.weight, 0) {
		return e, usage("--weight is %v: want a number from 0 on", f.weight)
	}
	if len(members) > 0 {
		if err := f.merge(&e, members); err != nil {
			return e, err
		}
	}
	return e, f.check(e)
}

// check returns an error for what a registration would refuse for ever.
func (f *endpointFlags) check(e naming.Endpoint) error {
	switch {
	case f.ttl < time.Second || f.ttl > 24*time.Hour:
		return usage("--ttl must be from 1s to 24h")
	case f.drainDelay < 0 || f.drainDelay > time.Hour:
		return usage("--drain-delay must be from 0s to 1h")
	}
	if err := naming.CheckAddress(e.Addr); err != nil {
		return err
	}
	if err := naming.CheckEndpoint(e); err != nil {
		return usage("%w", err)
	}
	return nil
}

// merge adds members to the metadata of e. The flag --metadata keeps its own members.
func (f *endpointFlags) merge(e *naming.Endpoint, members map[string]any) error {
	all := make(map[string]json.RawMessage)
	if e.Metadata != nil {
		if err := json.Unmarshal(e.Metadata, &all); err != nil {
			return usage("--metadata is not an object, so --weight, --zone, --version and --tag have no place in it")
		}
	}
	for name, v := range members {
		if _, set := all[name]; set {
			return usage("--metadata has a member %q, and so has a flag of its own", name)
		}
		b, err := json.Marshal(v)
		if err != nil {
			return usage("--%s: %w", name, err)
		}
		all[name] = b
	}
	b, err := json.Marshal(all)
	e.Metadata = b
	return err
}

// options returns the options of a registration. The library reads 0 as the default. A user
// who writes 0 wants no delay.
func (f *endpointFlags) options() *naming.RegisterOptions {
	delay := f.drainDelay
	if delay == 0 {
		delay = -1
	}
	return &naming.RegisterOptions{TTL: f.ttl, DrainDelay: delay}
}

func (a *app) registerCommand() *cobra.Command {
	var f endpointFlags
	permanent := false
	cmd := &cobra.Command{
		Use: "register SERVICE ADDRESS", Short: "Keep an address registered until Ctrl-C", Args: cobra.ExactArgs(2),
		Long: "Keep an address registered until Ctrl-C, then drain it and remove it. With --permanent, write an entry\n" +
			"without a lease, which stays until 'naming deregister' removes it, and return.",
		RunE: run(func(ctx context.Context, args []string) error {
			e, err := f.endpoint(args[1])
			if err != nil {
				return err
			}
			if permanent {
				return a.put(ctx, args[0], e)
			}
			return a.register(ctx, args[0], e, f.options())
		}),
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&permanent, "permanent", false, "write an entry without a lease, and return")
	return cmd
}

func (a *app) register(ctx context.Context, service string, e naming.Endpoint, opts *naming.RegisterOptions) error {
	c, done, err := a.announcing(ctx)
	if err != nil {
		return err
	}
	defer done()
	var last naming.RegistrationStatus
	opts.OnChange = func(s naming.RegistrationStatus) {
		a.reportRegistration(service, e, &last, s)
		last = s
	}
	g, err := c.Register(ctx, service, e, opts)
	if err != nil {
		return registryError(a.storeName(), err)
	}
	if err := g.Wait(ctx); errors.Is(err, naming.ErrInvalid) {
		return registryError(a.storeName(), err)
	}
	<-ctx.Done()
	if err := g.Close(); err != nil {
		return registryError(a.storeName(), err)
	}
	fmt.Fprintf(a.Err, "removed %s from %s\n", show.Text(e.Addr), show.Text(service))
	return nil
}

// reportRegistration prints what changed about a registration.
func (a *app) reportRegistration(service string, e naming.Endpoint, was *naming.RegistrationStatus, is naming.RegistrationStatus) {
	what := show.Text(e.Addr) + " in " + show.Text(service)
	switch {
	case is.Draining && !was.Draining:
		fmt.Fprintln(a.Err, "draining", what)
	case is.Registered && !was.Registered:
		fmt.Fprintln(a.Err, "registered", what)
	case !is.Registered && is.Err != nil && (was.Err == nil || was.Registered):
		fmt.Fprintf(a.Err, "not registered: %s: %s\n", what, naming.SafeError(is.Err))
	}
}

// put writes an entry without a lease.
func (a *app) put(ctx context.Context, service string, e naming.Endpoint) error {
	store, done, err := a.registryStore(ctx, a.store)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return registryError(a.storeName(), store.Apply(ctx, service, naming.Change{Endpoint: e}))
}

func (a *app) deregisterCommand() *cobra.Command {
	return &cobra.Command{
		Use: "deregister SERVICE ID", Short: "Remove an entry from a service", Args: cobra.ExactArgs(2),
		Long: "Remove an entry from a service: one that was written with --permanent, or that a dead process left\n" +
			"behind. A process that is alive registers its own entry again. The exit status is 1 if the service has\n" +
			"no such entry.",
		RunE:              run(func(ctx context.Context, args []string) error { return a.deregister(ctx, args[0], args[1]) }),
		ValidArgsFunction: a.completeServices,
	}
}

func (a *app) deregister(ctx context.Context, service, id string) error {
	c, done, err := a.announcing(ctx)
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
	for _, e := range show.ServiceOf(v).Endpoints {
		if e.ID == id {
			return registryError(a.storeName(), c.Update(ctx, service, naming.Update{Op: naming.Delete, Addr: id}))
		}
	}
	return no("service %q has no entry with the ID %q", service, id)
}
