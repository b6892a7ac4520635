package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
	"golang.org/x/sync/errgroup"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/cmd/naming/internal/live"
	"github.com/naming-go/naming/cmd/naming/internal/show"
)

// Consul is what is known of a Consul besides its store.
type Consul struct {
	Client  *api.Client
	Options consul.Options
}

func (t *Consul) examine(ctx context.Context, x *examination) {
	t.leader(ctx, x)
	t.agent(ctx, x)
	t.token(ctx, x)
	t.clock(ctx, x)
	t.ghosts(ctx, x)
	t.orphans(ctx, x)
}

// query returns the options of a request, with the token of the URL.
func (t *Consul) query(ctx context.Context) (*api.QueryOptions, error) {
	q := &api.QueryOptions{Datacenter: t.Options.Datacenter, Namespace: t.Options.Namespace, Partition: t.Options.Partition}
	if t.Options.Token != nil {
		var err error
		if q.Token, err = t.Options.Token(ctx); err != nil {
			return nil, err
		}
	}
	return q.WithContext(ctx), nil
}

func (t *Consul) leader(ctx context.Context, x *examination) {
	ctx, cancel := x.bounded(ctx)
	defer cancel()
	q, err := t.query(ctx)
	if err != nil {
		x.problem("auth", "look at the file or the variable that the URL names", "the token cannot be read: %v", naming.SafeError(err))
		return
	}
	leader, err := t.Client.Status().LeaderWithQueryOptions(q)
	if err != nil || leader == "" {
		x.problem("members", "start enough servers for a majority", "the cluster has no leader: nothing can be registered")
		return
	}
	peers, err := t.Client.Status().PeersWithQueryOptions(q)
	if err != nil {
		return
	}
	x.ok("members", "%s, the leader is %s", show.Count(len(peers), "server"), naming.SafeText(leader))
}

// leastConns is how many connections of one address an agent should accept: a Store takes up
// to 100 of them, and a machine has more than one program.
const leastConns = 200

// agent reports the version and the limits of the agent. The right agent:read is needed.
func (t *Consul) agent(ctx context.Context, x *examination) {
	ctx, cancel := x.bounded(ctx)
	defer cancel()
	q, err := t.query(ctx)
	if err != nil {
		return
	}
	var self struct {
		Config      struct{ Version, NodeName string }
		DebugConfig struct{ HTTPMaxConnsPerClient int }
	}
	if _, err := t.Client.Raw().Query("/v1/agent/self", &self, q); err != nil {
		if refused(err) {
			x.note("version", "grant agent:read to the token to see them", "the agent does not say its version and its limits to this token")
		}
		return
	}
	x.ok("version", "Consul %s, agent %s", naming.SafeText(self.Config.Version), naming.SafeText(self.Config.NodeName))
	switch n := self.DebugConfig.HTTPMaxConnsPerClient; {
	case n <= 0:
		x.ok("limits", "the agent accepts any number of connections")
	case n < leastConns:
		x.problem("limits", "raise limits.http_max_conns_per_client of the agent", "the agent accepts %d connections from one address; one program with many watches takes up to 100", n)
	default:
		x.ok("limits", "the agent accepts %d connections from one address", n)
	}
}

func (t *Consul) token(ctx context.Context, x *examination) {
	ctx, cancel := x.bounded(ctx)
	defer cancel()
	q, err := t.query(ctx)
	if err != nil {
		return
	}
	token, _, err := t.Client.ACL().TokenReadSelf(q)
	switch {
	case err != nil && strings.Contains(err.Error(), "ACL support disabled"):
		x.note("auth", "enable ACLs if others can reach the agent", "ACLs are off: everybody who reaches the agent can change every entry")
	case err != nil && q.Token == "":
		x.note("auth", "", "no token: the agent's default token or the anonymous token counts")
	case refused(err):
		x.problem("auth", "create a new token, or look at the file or the variable that the URL names", "the token is unknown to Consul or may not be used")
	case err == nil:
		x.ok("auth", "token %q, %s", naming.SafeText(token.Description), show.Count(len(token.Policies), "policy"))
		if end := token.ExpirationTime; end != nil && time.Until(*end) < 24*time.Hour {
			x.problem("auth", "create a new token", "the token ends at %v", end.UTC().Format(time.RFC3339))
		}
	}
}

// clock compares the clock of the agent with that of this machine. The right operator:read is
// needed.
func (t *Consul) clock(ctx context.Context, x *examination) {
	ctx, cancel := x.bounded(ctx)
	defer cancel()
	q, err := t.query(ctx)
	if err != nil {
		return
	}
	var host struct{ CollectionTime int64 }
	begin := time.Now()
	if _, err := t.Client.Raw().Query("/v1/agent/host", &host, q); err != nil || host.CollectionTime <= 0 {
		x.note("clock", "grant operator:read to the token to compare them", "not compared: the agent does not say its time to this token")
		return
	}
	reportClock(x, time.Unix(0, host.CollectionTime), begin, 0)
}

// serfHealth is Consul's own check of a node. leaseCheck reports whether a check stands for a
// lease of package backend/consul: the check has the ID of its service.
const serfHealth = "serfHealth"

func leaseCheck(c *api.HealthCheck) bool { return c.ServiceID != "" && c.CheckID == c.ServiceID }

// ghosts reports registrations that stay although nobody renews them.
func (t *Consul) ghosts(ctx context.Context, x *examination) {
	ctx, cancel := x.bounded(ctx)
	defer cancel()
	q, err := t.query(ctx)
	if err != nil {
		return
	}
	checks, _, err := t.Client.Health().State(api.HealthCritical, q)
	if err != nil {
		return // rights reports a refusal
	}
	var ended, nodes []string
	for _, c := range checks {
		switch {
		case c.CheckID == serfHealth:
			nodes = append(nodes, naming.SafeText(c.Node))
		case leaseCheck(c) && strings.HasPrefix(c.ServiceName, t.Options.Prefix):
			ended = append(ended, naming.SafeText(strings.TrimPrefix(c.ServiceName, t.Options.Prefix)+" "+c.ServiceID))
		}
	}
	if len(ended) > 0 {
		x.note("ghosts", "nothing: Consul removes them some minutes after their program died", "%s whose lease has ended: %s", show.Count(len(ended), "registration"), some(ended))
	}
	if len(nodes) > 0 {
		x.problem("ghosts", "start the agent again, or remove the node ('consul force-leave NODE') if it does not come back",
			"%s whose agent is lost: no endpoint there is given to clients: %s", show.Count(len(nodes), "node"), some(nodes))
	}
}

// orphans reports registrations without a check: nothing notices that their program died.
func (t *Consul) orphans(ctx context.Context, x *examination) {
	names, err := t.names(ctx, x)
	if err != nil {
		return
	}
	lists := make([][]string, len(names))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for i, service := range names {
		g.Go(func() (err error) {
			lists[i], err = t.unchecked(ctx, x, service)
			return err
		})
	}
	if g.Wait() != nil {
		return
	}
	if all := slices.Concat(lists...); len(all) > 0 {
		x.note("orphans", "give the registration a check, or remove it ('naming deregister SERVICE ID')",
			"%s without a check, which stay when their program dies: %s", show.Count(len(all), "registration"), some(all))
	}
}

func (t *Consul) names(ctx context.Context, x *examination) ([]string, error) {
	ctx, cancel := x.bounded(ctx)
	defer cancel()
	return live.Services(ctx, x.Client)
}

// unchecked returns the instances of a service that have no check of their own.
func (t *Consul) unchecked(ctx context.Context, x *examination, service string) ([]string, error) {
	ctx, cancel := x.bounded(ctx)
	defer cancel()
	q, err := t.query(ctx)
	if err != nil {
		return nil, err
	}
	entries, _, err := t.Client.Health().Service(t.Options.Prefix+service, "", false, q)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", service, err)
	}
	var list []string
	for _, e := range entries {
		if !slices.ContainsFunc(e.Checks, func(c *api.HealthCheck) bool { return c.ServiceID != "" }) {
			list = append(list, naming.SafeText(service+" "+e.Service.ID))
		}
	}
	return list, nil
}

// refused reports whether Consul refused a request for lack of a right.
func refused(err error) bool {
	var status api.StatusError
	return errors.As(err, &status) && (status.Code == http.StatusForbidden || status.Code == http.StatusUnauthorized)
}
