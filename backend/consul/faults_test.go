package consul_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/mutant"
	"github.com/naming-go/naming/internal/servertest"
)

// ttl is long enough for a lease to be renewed on a busy machine. A lease that is lost
// repeatedly is put again after longer and longer pauses.
const ttl = 6 * time.Second

// program is a program that has registered endpoints, and a second program that watches
// them over the same link.
type program struct {
	*rig
	watcher *naming.Client
	view    atomic.Pointer[naming.View]
	regs    []*naming.Registration
	want    []string
}

func start(t *testing.T, r *rig) *program {
	t.Helper()
	opts := &naming.Options{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	registrar := naming.New(r.Store, opts)
	t.Cleanup(registrar.Close)
	p := &program{rig: r, watcher: naming.New(r.Store, opts)}
	t.Cleanup(p.watcher.Close)
	for i := range 3 {
		e := ep(fmt.Sprintf("id-%d", i), fmt.Sprintf("10.0.0.%d:80", i), `{"zone":"a"}`)
		p.want = append(p.want, e.ID+" "+e.Addr)
		g, err := registrar.Register(t.Context(), "greeter", e, &naming.RegisterOptions{TTL: ttl, DrainDelay: -1})
		if err != nil {
			t.Fatal(err)
		}
		p.regs = append(p.regs, g)
		ctx, cancel := context.WithTimeout(t.Context(), servertest.Patience)
		if err := g.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	go func() {
		for v, err := range p.watcher.Watch(context.Background(), "greeter") {
			if err != nil {
				return
			}
			p.view.Store(&v)
		}
	}()
	p.converged(t)
	return p
}

// passing returns what Consul itself lists.
func (p *program) passing() ([]string, error) {
	entries, _, err := p.admin.Health().Service(p.prefix+"greeter", "", true, &api.QueryOptions{RequireConsistent: true})
	var got []string
	for _, e := range entries {
		got = append(got, fmt.Sprintf("%s %s:%d", e.Service.Meta["naming-id"], e.Service.Address, e.Service.Port))
	}
	slices.Sort(got)
	return got, err
}

// shows returns an error unless Consul and the watch have the expected endpoints.
func (p *program) shows(want []string) error {
	got, err := p.passing()
	if err != nil {
		return err
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("Consul has %q, want %q", got, want)
	}
	v := p.view.Load()
	if v == nil {
		return fmt.Errorf("nothing is watched yet")
	}
	got = nil
	for _, e := range v.Endpoints {
		got = append(got, e.ID+" "+e.Addr)
	}
	if v.Stale() || !slices.Equal(got, want) {
		return fmt.Errorf("the watch shows %q, stale since %v with %v, want %q", got, v.StaleSince, v.Err, want)
	}
	return nil
}

// converged waits until Consul, the watch and the registrations are as expected.
func (p *program) converged(t *testing.T) {
	t.Helper()
	defer func() {
		if !t.Failed() {
			return
		}
		for _, g := range p.regs {
			t.Logf("%+v", g.Status())
		}
		entries, _, err := p.admin.Health().Service(p.prefix+"greeter", "", false, nil)
		for _, e := range entries {
			t.Log(e.Service.ID, e.Service.Meta, e.Checks.AggregatedStatus())
		}
		t.Log(len(entries), err)
	}()
	servertest.Poll(t, "not converged", func() error { return p.shows(p.want) })
}

// gone waits until Consul lists nothing.
func (p *program) gone(t *testing.T) {
	t.Helper()
	servertest.Poll(t, "still listed", func() error {
		got, err := p.passing()
		if err == nil && len(got) > 0 {
			err = fmt.Errorf("%q", got)
		}
		return err
	})
}

// advance raises the registry's index by n.
func advance(t *testing.T, c *api.Client, n int) {
	t.Helper()
	for i := range n {
		if _, err := c.KV().Put(&api.KVPair{Key: "k", Value: fmt.Append(nil, i)}, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		opts   consultest.Options
		client bool // through a client agent
		fault  func(t *testing.T, p *program)
	}{
		{"restarted with its data", consultest.Options{Disk: true}, false, func(t *testing.T, p *program) {
			p.agent.Kill(t)
			p.agent.Restart(t)
		}},
		{"replaced by an empty one", consultest.Options{}, false, func(t *testing.T, p *program) {
			p.agent.Wipe(t)
		}},
		// go-kit and mbobakov are then stale for five minutes.
		{"replaced by an empty one that is thousands behind", consultest.Options{}, false, func(t *testing.T, p *program) {
			advance(t, p.admin, 2000)
			other := ep("other", "10.9.9.9:80", "")
			if err := p.Apply(t.Context(), "greeter", add(nil, other)...); err != nil {
				t.Fatal(err)
			}
			p.agent.Wipe(t)
		}},
		{"servers replaced behind a client agent", consultest.Options{}, true, func(t *testing.T, p *program) {
			advance(t, p.admin, 500)
			v, _ := servers.Load(p.agent)
			server := v.(*consultest.Agent)
			server.Wipe(t)
			p.agent.Join(t, server)
		}},
		{"a black hole for longer than the time to live", consultest.Options{}, false, func(t *testing.T, p *program) {
			p.proxy.BlackHole()
			p.gone(t)
			p.proxy.Heal()
		}},
		{"connections cut", consultest.Options{}, false, func(t *testing.T, p *program) {
			p.interrupt(t)
			p.interrupt(t)
		}},
		{"everything deregistered while the link is down", consultest.Options{}, false, func(t *testing.T, p *program) {
			p.proxy.BlackHole()
			entries, _, err := p.admin.Health().Service(p.prefix+"greeter", "", false, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if err := p.admin.Agent().ServiceDeregister(e.Service.ID); err != nil {
					t.Fatal(err)
				}
			}
			p.proxy.Heal()
		}},
		{"an endpoint deregistered by somebody", consultest.Options{}, false, func(t *testing.T, p *program) {
			entries, _, err := p.admin.Health().Service(p.prefix+"greeter", "", true, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.admin.Agent().ServiceDeregister(entries[0].Service.ID); err != nil {
				t.Fatal(err)
			}
			// At the catalogue only: the agent still has the registration.
			if _, err := p.admin.Catalog().Deregister(&api.CatalogDeregistration{Node: p.agent.Name, ServiceID: entries[1].Service.ID}, nil); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			agent := consultest.Start(t, &test.opts)
			if test.client {
				server := agent
				agent = agent.StartClient(t, nil)
				servers.Store(agent, server)
			}
			each(t, func(t *testing.T) {
				p := start(t, newRig(t, agent, func(_ *api.Config, o *consul.Options) { o.Wait = 2 * time.Second }))
				test.fault(t, p)
				p.converged(t)
			})
		})
	}
}

// elapse waits for some time by Consul's clock: for the wait of a blocking query about
// a key that does not change.
func elapse(t *testing.T, c *api.Client, d time.Duration) {
	t.Helper()
	_, meta, err := c.KV().Get("elapse", nil)
	if err == nil {
		_, _, err = c.KV().Get("elapse", &api.QueryOptions{WaitIndex: max(meta.LastIndex, 1), WaitTime: d})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// several starts programs that meet the same fault.
func several(t *testing.T, agent *consultest.Agent, n int) []*program {
	t.Helper()
	var ps []*program
	for range n {
		ps = append(ps, start(t, newRig(t, agent, func(_ *api.Config, o *consul.Options) {
			o.Wait = 2 * time.Second
			o.DeregisterAfter = time.Second // Consul makes it a minute
		})))
	}
	return ps
}

// TestDeregisteredByConsul: Consul removes an endpoint a minute or two after its lease
// has ended.
func TestDeregisteredByConsul(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, nil)
	programs := 1
	if mutant.Full() {
		programs = 30
	}
	ps := several(t, agent, programs)
	for _, p := range ps {
		p.proxy.BlackHole()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for _, p := range ps {
		p.gone(t)
	}
	for _, p := range ps {
		q := &api.QueryOptions{WaitTime: time.Minute}
		for first := true; ; first = false {
			entries, meta, err := p.admin.Health().Service(p.prefix+"greeter", "", false, q.WithContext(ctx))
			if err != nil {
				t.Fatal(err)
			}
			if len(entries) == 0 {
				if first && p == ps[0] {
					t.Error("an endpoint that is no longer listed was removed at once")
				}
				break
			}
			q.WaitIndex = meta.LastIndex
		}
	}
	for _, p := range ps {
		p.proxy.Heal()
	}
	for _, p := range ps {
		p.converged(t)
	}
}

// TestAgentStopped stops the agent, and with it all of its checks, for longer than the
// time to live. At full length, it stops the agent also for longer than the time after
// which Consul deregisters.
func TestAgentStopped(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, nil)
	clock := consultest.Start(t, nil).Client(t) // the other's stands still
	rounds, programs, d := 1, 3, 2*ttl
	if mutant.Full() {
		rounds, programs, d = 3, 10, ttl+time.Minute+30*time.Second
	}
	for range rounds {
		ps := several(t, agent, programs)
		agent.Pause(t)
		elapse(t, clock, d)
		for _, p := range ps {
			if v := p.view.Load(); !v.Stale() || len(v.Endpoints) != len(p.want) {
				t.Errorf("while the agent is stopped: %+v, want all endpoints, and stale", v)
			}
		}
		agent.Continue(t)
		for _, p := range ps {
			p.converged(t)
		}
	}
}

// TestBlackHole drops all data on the link for half a minute.
func TestBlackHole(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, nil)
	rounds, programs := 1, 1
	if mutant.Full() {
		rounds, programs = 3, 10
	}
	for range rounds {
		ps := several(t, agent, programs)
		for _, p := range ps {
			p.proxy.BlackHole()
		}
		elapse(t, ps[0].admin, 30*time.Second)
		for _, p := range ps {
			p.gone(t)
			if v := p.view.Load(); !v.Stale() || len(v.Endpoints) != len(p.want) {
				t.Errorf("behind a black hole: %+v, want all endpoints, and stale", v)
			}
			p.proxy.Heal()
		}
		for _, p := range ps {
			p.converged(t)
		}
	}
}

// servers are the servers of the client agents.
var servers sync.Map

// TestSnapshotRestored restores a snapshot, so that the catalogue goes back. The index
// of a service that nobody puts again goes back as well.
func TestSnapshotRestored(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, nil)
	admin := agent.Client(t)
	put := func(addr string) (index uint64) {
		t.Helper()
		if addr != "" {
			_, err := admin.Catalog().Register(&api.CatalogRegistration{
				Node: "foreign", Address: addr, Service: &api.AgentService{ID: "x", Service: "static.greeter", Port: 80},
			}, nil)
			if err != nil {
				t.Fatal(err)
			}
		}
		_, meta, err := admin.Health().Service("static.greeter", "", false, &api.QueryOptions{RequireConsistent: true})
		if err != nil {
			t.Fatal(err)
		}
		return meta.LastIndex
	}
	put("10.0.0.1")
	snapshot := agent.Snapshot(t)
	each(t, func(t *testing.T) {
		advance(t, admin, 300)
		before := put("10.0.0.2")
		p := start(t, newRig(t, agent, func(_ *api.Config, o *consul.Options) { o.Wait = 2 * time.Second }))
		client := naming.New(consul.New(p.client, &consul.Options{Prefix: "static.", Wait: 2 * time.Second}), nil)
		defer client.Close()
		shown := make(chan string, 10)
		go func() {
			for v, err := range client.Watch(context.Background(), "greeter") {
				if err != nil {
					return
				}
				if len(v.Endpoints) > 0 {
					shown <- v.Endpoints[0].Addr
				}
			}
		}()
		next := func(want string) {
			t.Helper()
			for timeout := time.After(servertest.Patience); ; {
				select {
				case got := <-shown:
					if got == want {
						return
					}
				case <-timeout:
					t.Fatalf("%s is not shown", want)
				}
			}
		}
		next("10.0.0.2:80")
		agent.Restore(t, snapshot)
		if after := put(""); after >= before {
			t.Errorf("the index has gone from %d to %d, want less", before, after)
		}
		next("10.0.0.1:80") // when the wait is over: an agent that streams waits for the index that was there
		p.converged(t)
	})
}

// TestTokenReplaced revokes the token that everything was registered with, after the
// programs got another token.
func TestTokenReplaced(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, &consultest.Options{ACL: true})
	var secret atomic.Value
	token := agent.CreateToken(t, all)
	secret.Store(token.Secret)
	each(t, func(t *testing.T) {
		p := start(t, newRig(t, agent, func(c *api.Config, o *consul.Options) {
			c.Token = ""
			o.Wait = 2 * time.Second
			o.Token = func(context.Context) (string, error) { return secret.Load().(string), nil }
		}))
		agent.RevokeToken(t, token)
		servertest.Poll(t, "the watch does not tell", func() error {
			if v := p.view.Load(); !v.Stale() || !isPermission(v.Err) {
				return fmt.Errorf("stale since %v: %v", v.StaleSince, v.Err)
			}
			return nil
		})
		token = agent.CreateToken(t, all)
		secret.Store(token.Secret)
		p.converged(t)

		// While Consul is healthy, a renewal registers the endpoint with the next token.
		next := agent.CreateToken(t, all)
		secret.Store(next.Secret)
		p.renewed(t)
		agent.RevokeToken(t, token)
		p.converged(t)
		// The agent cannot remove a registration whose token was revoked. It can remove
		// this one.
		p.proxy.BlackHole()
		p.gone(t)
		p.proxy.Heal()
		p.converged(t)
		token = next
	})
}

// renewed waits until the leases were renewed, and only the two watches wait for an
// answer.
func (p *program) renewed(t *testing.T) {
	t.Helper()
	before := p.registered.Load()
	servertest.Poll(t, "not registered anew", func() error {
		if n := p.registered.Load() - before; n < int64(len(p.want)) || p.flying.Load() > 2 {
			return fmt.Errorf("%d registrations", n)
		}
		return nil
	})
}

// TestFilteredIsNoEmptySet: a token loses the right to read, and Consul answers with an
// empty list. The watch ends with an error instead of an empty set.
func TestFilteredIsNoEmptySet(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, &consultest.Options{ACL: true})
	token := agent.CreateToken(t, all)
	r := newRig(t, agent, func(c *api.Config, _ *consul.Options) { c.Token = token.Secret })
	if err := r.Apply(t.Context(), "greeter", add(nil, ep("a", "10.0.0.1:80", ""))...); err != nil {
		t.Fatal(err)
	}
	agent.SetRules(t, token, `node_prefix "" { policy = "read" }`)
	for b, err := range r.Watch(t.Context(), "greeter") {
		if !isPermission(err) {
			t.Errorf("got %+v, %v, want ErrPermission", b, err)
		}
		break
	}
	for names, err := range r.Services(t.Context()) {
		if !isPermission(err) {
			t.Errorf("got %q, %v, want ErrPermission", names, err)
		}
		break
	}
	if err := r.Apply(t.Context(), "greeter", add(nil, ep("a", "10.0.0.2:80", ""))...); !isPermission(err) {
		t.Errorf("Apply: %v, want ErrPermission", err)
	}
}

// TestOtherWriters: registrations of other writers, with checks, come and go.
func TestOtherWriters(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, nil)
	each(t, func(t *testing.T) { otherWriters(t, agent) })
}

func otherWriters(t *testing.T, agent *consultest.Agent) {
	r := newRig(t, agent, nil)
	warnings := consul.New(r.client, &consul.Options{Prefix: r.prefix, IncludeWarning: true, Wait: 6 * time.Second})
	name := r.prefix + "greeter"
	states, names, warned := make(chan string, 100), make(chan string, 100), make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	follow := func(s naming.Store, out chan string) {
		set := make(map[string]naming.Endpoint)
		last := "nothing"
		for b, err := range s.Watch(ctx, "greeter") {
			if err != nil {
				if ctx.Err() == nil {
					out <- err.Error()
				}
				return
			}
			for _, id := range b.Deleted {
				delete(set, id)
			}
			for _, w := range b.Withheld {
				delete(set, w.Endpoint.ID)
			}
			for _, e := range b.Put {
				set[e.ID] = e
			}
			var list []string
			for id, e := range set {
				list = append(list, strings.TrimSpace(fmt.Sprintf("%s=%s %s", id, e.Addr, e.Metadata)))
			}
			slices.Sort(list)
			if now := strings.Join(list, ", "); now != last { // news of what is withheld is nothing here
				last = now
				out <- now
			}
		}
	}
	go follow(r.Store, states)
	go follow(warnings, warned)
	go func() {
		for list, err := range r.Services(ctx) {
			if err != nil {
				return
			}
			names <- strings.Join(list, ",")
		}
	}()
	next := func(what string, c chan string, want string) {
		t.Helper()
		select {
		case got := <-c:
			if got != want {
				t.Fatalf("%s: got %q, want %q", what, got, want)
			}
		case <-time.After(servertest.Patience):
			t.Fatalf("%s: got nothing, want %q", what, want)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	next("first", states, "")
	next("first", warned, "")
	next("first", names, "")

	// On the agent's node, without an address, and with a check.
	must(r.admin.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: "web", Name: name, Port: 80, Tags: []string{"a"}, Meta: map[string]string{"zone": "eu"}, Weights: &api.AgentWeights{Passing: 5, Warning: 1},
		Check: &api.AgentServiceCheck{CheckID: "web", TTL: "1h", Status: "passing"},
	}))
	web := `web@127.0.0.1:80=127.0.0.1:80 {"tags":["a"],"weight":5,"zone":"eu"}`
	next("registered", states, web)
	next("registered", warned, web)
	next("registered", names, "greeter")
	must(r.admin.Agent().UpdateTTL("web", "", "warn"))
	next("warning", states, "")
	next("warning", warned, strings.Replace(web, `"weight":5`, `"weight":1`, 1))
	must(r.admin.Agent().UpdateTTL("web", "", "fail"))
	next("critical", warned, "")
	must(r.admin.Agent().UpdateTTL("web", "", "pass"))
	next("passing", states, web)
	next("passing", warned, web)

	// At the catalogue, on another node with a check of its own.
	foreign := &api.CatalogRegistration{Node: "foreign", Address: "2001:db8::9", Service: &api.AgentService{ID: "web", Service: name, Port: 80}}
	_, err := r.admin.Catalog().Register(foreign, nil)
	must(err)
	both := `web@127.0.0.1:80=127.0.0.1:80 {"tags":["a"],"weight":5,"zone":"eu"}, web@[2001:db8::9]:80=[2001:db8::9]:80`
	next("other node", states, both)
	foreign.Service, foreign.Check = nil, &api.AgentCheck{Node: "foreign", CheckID: "node", Status: "critical"}
	_, err = r.admin.Catalog().Register(foreign, nil)
	must(err)
	next("other node critical", states, web)
	must(r.admin.Agent().ServiceDeregister("web"))
	next("deregistered", states, "")
	foreign.Check.Status = "passing"
	_, err = r.admin.Catalog().Register(foreign, nil)
	must(err)
	next("other node passing", states, "web@[2001:db8::9]:80=[2001:db8::9]:80")
	foreign.Address = "2001:db8::10"
	_, err = r.admin.Catalog().Register(foreign, nil)
	must(err)
	next("other address", states, "web@[2001:db8::10]:80=[2001:db8::10]:80")

	// And is removed from there.
	must(r.Apply(t.Context(), "greeter", del("web@[2001:db8::10]:80")...))
	next("deleted", states, "")
	next("deleted", names, "")
}

// TestTwoAgents moves endpoints between two programs that have an agent each.
func TestTwoAgents(t *testing.T) {
	t.Parallel()
	server := consultest.Start(t, nil)
	client := server.StartClient(t, nil)
	each(t, func(t *testing.T) { twoAgents(t, server, client) })
}

func twoAgents(t *testing.T, server, client *consultest.Agent) {
	a := newRig(t, server, nil)
	b := newRig(t, client, func(_ *api.Config, o *consul.Options) { o.Prefix = a.prefix })
	list := func(want string) {
		t.Helper()
		for _, r := range []*rig{a, b} {
			for batch, err := range r.Watch(t.Context(), "greeter") {
				got := "["
				for _, e := range batch.Put {
					got += e.ID + " " + e.Addr
				}
				if got += "]"; err != nil || got != want {
					t.Fatalf("got %s, %v, want %s", got, err, want)
				}
				break
			}
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	must(a.Apply(ctx, "greeter", add(nil, ep("x", "h:1", ""))...))
	list("[x h:1]")
	must(b.Apply(ctx, "greeter", add(nil, ep("x", "h:2", ""))...))
	list("[x h:2]")
	must(a.Apply(ctx, "greeter", add(nil, ep("x", "h:3", ""))...))
	list("[x h:3]")
	must(a.Apply(ctx, "greeter", del("x")...))
	list("[]")

	// A lease on one agent, whose endpoint a lease on another agent takes over.
	l, err := a.Grant(ctx, time.Hour)
	must(err)
	must(a.Apply(ctx, "greeter", add(l, ep("x", "h:4", ""))...))
	must(b.Apply(ctx, "greeter", add(nil, ep("x", "h:5", ""))...))
	list("[x h:5]")
	must(l.Renew(ctx)) // its agent does not know yet
	list("[x h:5]")
	must(a.Apply(ctx, "greeter", naming.Change{Op: naming.Delete, Endpoint: ep("x", "", ""), Lease: l}))
	list("[x h:5]")
	must(l.Revoke(ctx))
	list("[x h:5]")
	// A registration with another agent is deleted through the catalogue.
	must(a.Apply(ctx, "greeter", del("x")...))
	list("[]")
}
