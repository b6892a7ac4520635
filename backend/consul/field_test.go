package consul_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/servertest"
)

// state returns a service as the snapshot of a watch shows it: usable endpoints by
// their IDs, and withheld endpoints as "id!reason:detail".
func state(t testing.TB, s naming.Store, service string) string {
	t.Helper()
	for b, err := range s.Watch(t.Context(), service) {
		must(t, err)
		return render(b)
	}
	panic("a watch without a batch")
}

func render(b naming.Batch) string {
	var list []string
	for _, e := range b.Put {
		list = append(list, e.ID)
	}
	for _, w := range b.Withheld {
		list = append(list, fmt.Sprintf("%s!%v:%s", w.Endpoint.ID, w.Reason, w.Detail))
	}
	for _, id := range b.Deleted {
		list = append(list, "-"+id)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// batches watches a service until the test ends.
func batches(t *testing.T, s naming.Store, service string) (next func(want string)) {
	t.Helper()
	c := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for b, err := range s.Watch(ctx, service) {
			if err != nil {
				c <- "ended: " + err.Error()
				return
			}
			c <- render(b)
		}
	}()
	return func(want string) {
		t.Helper()
		select {
		case got := <-c:
			if got != want {
				t.Fatalf("the watch shows %q, want %q", got, want)
			}
		case <-time.After(servertest.Patience):
			t.Fatalf("the watch shows nothing, want %q", want)
		}
	}
}

// TestFieldW1Maintenance: an endpoint that an operator or a check takes out of use is
// withheld with the reason, and is not lost. This costs no additional request.
func TestFieldW1Maintenance(t *testing.T) {
	t.Parallel()
	server := consultest.Start(t, nil)
	client := server.StartClient(t, nil)
	r := newRig(t, server, nil)
	other := newRig(t, client, func(_ *api.Config, o *consul.Options) { o.Prefix = r.prefix })
	l, err := r.Grant(t.Context(), time.Hour)
	must(t, err)
	l2, err := other.Grant(t.Context(), time.Hour)
	must(t, err)
	must(t, r.Apply(t.Context(), "svc", add(l, ep("a", "h:1", ""))...))
	must(t, other.Apply(t.Context(), "svc", add(l2, ep("b", "h:2", ""))...))
	must(t, r.admin.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: "c", Name: r.prefix + "svc", Address: "h", Port: 3,
		Check: &api.AgentServiceCheck{CheckID: "temperature", Name: "Temperature", TTL: "1h", Status: "passing"},
	}))
	next := batches(t, r, "svc")
	next("a b c@h:3")

	must(t, other.admin.Agent().EnableNodeMaintenance("disk\x1b[2J"))
	next(`b!maintenance:disk\x1b[2J`)
	id := r.registration(t, "svc", "a")
	must(t, r.admin.Agent().EnableServiceMaintenance(id, "later"))
	next("a!maintenance:later")
	must(t, r.admin.Agent().UpdateTTL("temperature", "too hot", "fail"))
	next("c@h:3!failed check:Temperature: too hot")
	must(t, r.admin.Agent().UpdateTTL("temperature", "warm", "warn"))
	next("c@h:3!failed check:Temperature: warm")

	reader := newRig(t, server, func(_ *api.Config, o *consul.Options) { o.Prefix = r.prefix })
	if got, want := state(t, reader, "svc"), `a!maintenance:later b!maintenance:disk\x1b[2J c@h:3!failed check:Temperature: warm`; got != want {
		t.Errorf("a list shows %q, want %q", got, want)
	}
	if n := reader.calls.Load(); n != 1 {
		t.Errorf("a list cost %d requests, want 1", n)
	}
	for list, err := range r.Services(t.Context()) {
		must(t, err)
		if !slices.Contains(list, "svc") {
			t.Errorf("the service whose endpoints are withheld is not listed: %q", list)
		}
		break
	}
	warnings := consul.New(r.client, &consul.Options{Prefix: r.prefix, IncludeWarning: true})
	if got, want := state(t, warnings, "svc"), `a!maintenance:later b!maintenance:disk\x1b[2J c@h:3`; got != want {
		t.Errorf("with IncludeWarning a list shows %q, want %q", got, want)
	}

	must(t, other.admin.Agent().DisableNodeMaintenance())
	next("b")
	must(t, r.admin.Agent().DisableServiceMaintenance(id))
	next("a")
	must(t, r.admin.Agent().UpdateTTL("temperature", "", "pass"))
	next("c@h:3")

	// The end of a lease is not the failure of a check.
	must(t, r.admin.Agent().UpdateTTL(id, "", "fail"))
	next("-a")
}

// TestFieldW2LeftAlone: a lease is renewed while its endpoint is in maintenance, and
// nothing is written. The endpoint is not free for other programs.
func TestFieldW2LeftAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t, consultest.Start(t, nil), nil)
	l, err := r.Grant(t.Context(), time.Hour)
	must(t, err)
	must(t, r.Apply(t.Context(), "svc", add(l, ep("a", "h:1", ""))...))
	id := r.registration(t, "svc", "a")
	for name, mode := range map[string][2]func() error{
		"service": {func() error { return r.admin.Agent().EnableServiceMaintenance(id, "why") }, func() error { return r.admin.Agent().DisableServiceMaintenance(id) }},
		"node":    {func() error { return r.admin.Agent().EnableNodeMaintenance("why") }, func() error { return r.admin.Agent().DisableNodeMaintenance() }},
	} {
		must(t, mode[0]())
		servertest.Poll(t, name, func() error {
			if got := state(t, r, "svc"); got != "a!maintenance:why" {
				return errors.New(got)
			}
			return nil
		})
		index := r.index(t, "svc")
		for range 5 {
			must(t, l.Renew(t.Context()))
		}
		other, err := r.Grant(t.Context(), time.Hour)
		must(t, err)
		must(t, r.Apply(t.Context(), "svc", naming.Change{Endpoint: ep("a", "h:2", ""), Lease: other, IfFree: true}))
		if got := r.index(t, "svc"); got != index {
			t.Errorf("%s: the index of the service went from %d to %d: something was written", name, index, got)
		}
		if got := state(t, r, "svc"); got != "a!maintenance:why" {
			t.Errorf("%s: then it is %q", name, got)
		}
		// An endpoint that is put again stays out of use.
		must(t, r.Apply(t.Context(), "svc", add(l, ep("a", "h:1", `{"zone":"a"}`))...))
		if got := state(t, r, "svc"); got != "a!maintenance:why" {
			t.Errorf("%s: put again it is %q", name, got)
		}
		must(t, mode[1]())
		servertest.Poll(t, name, func() error {
			if got := state(t, r, "svc"); got != "a" {
				return errors.New(got)
			}
			return nil
		})
	}
}

// index returns the index of the last write to a service, its checks or its nodes.
func (r *rig) index(t testing.TB, service string) uint64 {
	t.Helper()
	_, meta, err := r.admin.Health().Service(r.prefix+service, "", false, &api.QueryOptions{RequireConsistent: true})
	must(t, err)
	return meta.LastIndex
}

// TestFieldW3OutlivesLease: maintenance of a service outlives the lease of its endpoint.
// The registration under the next lease is out of use from its first moment, until the
// operator ends the maintenance.
func TestFieldW3OutlivesLease(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, &consultest.Options{Disk: true})
	for _, gentle := range []bool{true, false} {
		t.Run(fmt.Sprintf("IfFree %v", gentle), func(t *testing.T) {
			r := newRig(t, agent, nil)
			l, err := r.Grant(t.Context(), 2*time.Second)
			must(t, err)
			must(t, r.Apply(t.Context(), "svc", add(l, ep("a", "h:1", ""))...))
			old := r.registration(t, "svc", "a")
			must(t, r.admin.Agent().EnableServiceMaintenance(old, "until told otherwise"))
			agent.Kill(t)
			time.Sleep(l.TTL())
			agent.Restart(t)
			if err := l.Renew(t.Context()); !errors.Is(err, naming.ErrLeaseLost) {
				t.Fatalf("the lease has not ended: %v", err)
			}
			servertest.Poll(t, "the lease has not ended", func() error { // the agent may begin its time anew
				if got := state(t, r, "svc"); got != "" {
					return errors.New(got)
				}
				return nil
			})
			// Records every status that a reader can see from here on.
			seen := r.statuses(t, "svc")
			next := batches(t, r, "svc")
			next("")
			l2, err := r.Grant(t.Context(), time.Hour)
			must(t, err)
			must(t, r.Apply(t.Context(), "svc", naming.Change{Endpoint: ep("a", "h:1", ""), Lease: l2, IfFree: gentle}))
			next("a!maintenance:until told otherwise")
			if got := state(t, r, "svc"); got != "a!maintenance:until told otherwise" {
				t.Errorf("under the new lease it is %q", got)
			}
			must(t, l2.Renew(t.Context()))
			id := r.registration(t, "svc", "a")
			if id == old {
				t.Errorf("both leases have the service ID %q: the old one would end the new one", id)
			}
			if gentle {
				if list := seen(); slices.Contains(list, "passing") {
					t.Errorf("a reader saw %q", list)
				}
			}
			must(t, r.admin.Agent().DisableServiceMaintenance(id))
			next("a")
			// The maintenance does not return with a repeated registration.
			must(t, r.Apply(t.Context(), "svc", add(l2, ep("a", "h:2", ""))...))
			next("a")
			if got := state(t, r, "svc"); got != "a" {
				t.Errorf("put again it is %q", got)
			}
		})
	}
}

// statuses watches with Consul's own client until the returned function is called. The
// function returns the worst statuses of the service's entries that were seen.
func (r *rig) statuses(t *testing.T, service string) func() []string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var seen []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		var index uint64
		for {
			entries, meta, err := r.admin.Health().Service(r.prefix+service, "", false, (&api.QueryOptions{WaitIndex: index, WaitTime: time.Minute}).WithContext(ctx))
			if err != nil {
				return
			}
			index = meta.LastIndex
			for _, e := range entries {
				if s := e.Checks.AggregatedStatus(); !slices.Contains(seen, s) {
					seen = append(seen, s)
				}
			}
		}
	}()
	return func() []string { cancel(); <-done; return seen }
}

// TestFieldC1IDOfAnotherNode: a service ID is unique on one node only. Apply removes the
// entry on its node, and no entry with the same ID on another node.
func TestFieldC1IDOfAnotherNode(t *testing.T) {
	t.Parallel()
	server := consultest.Start(t, nil)
	client := server.StartClient(t, nil)
	a := newRig(t, server, nil)
	b := newRig(t, client, func(_ *api.Config, o *consul.Options) { o.Prefix = a.prefix })
	register := func(r *rig, service, host string, meta map[string]string) {
		t.Helper()
		must(t, r.admin.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: "web-8080", Name: r.prefix + service, Address: host, Port: 8080, Meta: meta}))
	}
	shows := func(service, want string) {
		t.Helper()
		servertest.Poll(t, service, func() error {
			if got := state(t, a, service); got != want {
				return fmt.Errorf("%s shows %q, want %q", service, got, want)
			}
			return nil
		})
	}
	for _, test := range []struct {
		name   string
		here   string            // the service of the agent that Apply speaks to
		meta   map[string]string // of both
		change func() []naming.Change
		id     string
	}{
		{name: "another service", here: "billing", id: "web-8080@10.0.0.2:8080"},
		{name: "the same service", here: "web", id: "web-8080@10.0.0.2:8080"},
		{name: "one that looks like ours", here: "billing", meta: map[string]string{"naming-id": "web-8080", "naming-gen": "1"}, id: "web-8080"},
	} {
		mine := "web-8080@10.0.0.1:8080"
		if test.meta != nil {
			mine = test.id
		}
		for _, put := range []bool{false, true} {
			register(a, test.here, "10.0.0.1", test.meta)
			register(b, "web", "10.0.0.2", test.meta)
			want := test.id
			if test.here == "web" {
				want = mine + " " + test.id
			}
			shows("web", want)
			if put { // the new registration takes the place of the old ones
				must(t, a.Apply(t.Context(), "web", add(nil, ep(test.id, "10.0.0.3:8080", ""))...))
			} else {
				must(t, a.Apply(t.Context(), "web", del(test.id)...))
			}
			if put {
				shows("web", want)
				must(t, a.Apply(t.Context(), "web", del(test.id)...))
			}
			want = ""
			if test.here == "web" {
				want = mine
			}
			// The other agent puts its registrations back when it has seen a new server,
			// some seconds after its start.
			servertest.Poll(t, "web", func() error {
				if got := state(t, a, "web"); got != want {
					return errors.Join(fmt.Errorf("web shows %q, want %q", got, want), a.Apply(t.Context(), "web", del(test.id)...))
				}
				return nil
			})
			if test.here != "web" {
				shows(test.here, mine)
			}
			if _, _, err := a.admin.Agent().Service("web-8080", nil); err != nil {
				t.Errorf("%s: the agent's own service was deregistered: %v", test.name, err)
			}
			must(t, a.admin.Agent().ServiceDeregister("web-8080"))
			_ = b.admin.Agent().ServiceDeregister("web-8080")
		}
	}
}

// TestFieldC5Names: an entry of another writer does no harm, whatever the names of the
// entry and of its node. Such a name never becomes part of a path.
func TestFieldC5Names(t *testing.T) {
	t.Parallel()
	r := newRig(t, consultest.Start(t, nil), nil)
	must(t, r.Apply(t.Context(), "svc", add(nil, ep("a", "h:1", ""))...))
	for n, node := range []string{"h\u00a0x", "..", ".", "a/b", "a//b", `c:\`, "x%2F..", "?q=1", "#f", `"`, `\`, "` or Node != \"\"", "line\nfeed", "\x1b[2J", "é", " "} {
		_, err := r.admin.Catalog().Register(&api.CatalogRegistration{
			Node: node, Address: "10.0.0.9",
			Service: &api.AgentService{ID: fmt.Sprint("../", n, "%2F/", node), Service: fmt.Sprint(r.prefix, "ext", n), Port: 80},
			Checks: api.HealthChecks{
				{Node: node, CheckID: "serfHealth", Name: "serf", Status: "critical"},
				{Node: node, CheckID: "own", Name: "own", Status: "critical"},
			},
		}, nil)
		if err != nil {
			t.Logf("Consul refuses node %q: %v", node, err)
			continue
		}
		for list, err := range r.Services(t.Context()) {
			if err != nil {
				t.Fatalf("with a node %q: %v", node, err)
			}
			if !slices.Contains(list, "svc") || !slices.Contains(list, fmt.Sprint("ext", n)) {
				t.Errorf("with a node %q the list is %q", node, list)
			}
			break
		}
		service := fmt.Sprint("ext", n)
		for b, err := range r.Watch(t.Context(), service) {
			must(t, err)
			if len(b.Withheld) != 1 {
				t.Fatalf("on a node %q: %+v, want one that is withheld", node, b)
			}
			// It can be removed, and nothing else is removed with it.
			must(t, r.Apply(t.Context(), service, del(b.Withheld[0].Endpoint.ID)...))
			break
		}
		if got := state(t, r, service); got != "" {
			t.Errorf("on a node %q: after its deletion there is %q", node, got)
		}
		if got := state(t, r, "svc"); got != "a" {
			t.Fatalf("on a node %q: svc shows %q", node, got)
		}
	}
}

// TestFieldC6Unaskable: Watch shows the services that Services lists. Consul has no way
// to ask for the instances of "/service.v1".
func TestFieldC6Unaskable(t *testing.T) {
	t.Parallel()
	r := newRig(t, consultest.Start(t, nil), func(_ *api.Config, o *consul.Options) { o.Prefix = "" })
	for _, name := range []string{"/service.v1", "a//b", "..", "a/../b", "trailing/", "a b", "a%2Fb", "a/b", "~41", "?x", "é"} {
		if err := r.admin.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: "id" + name, Name: name, Address: "10.0.0.1", Port: 80}); err != nil {
			t.Logf("Consul refuses service %q: %v", name, err)
		}
	}
	check := func() {
		t.Helper()
		for list, err := range r.Services(t.Context()) {
			must(t, err)
			for n, name := range list {
				if n > 0 && list[n-1] == name {
					t.Errorf("%q is listed twice: %q", name, list)
				}
				if state(t, r, name) == "" {
					t.Errorf("%q is listed, and a watch shows nothing", name)
				}
			}
			for _, want := range []string{"a b", "a%2Fb", "a/b", "?x", "é"} {
				if !slices.Contains(list, want) {
					t.Errorf("%q is not listed: %q", want, list)
				}
			}
			break
		}
	}
	check()
	for _, name := range []string{"/service.v1", "a//b", "..", "~41"} {
		must(t, r.Apply(t.Context(), name, add(nil, ep("a", "h:1", ""))...))
	}
	check()
}

// TestFieldC7NodeRead: with a token that may write the service and not read the
// node, Apply returns an error that names the right, and nothing is left.
func TestFieldC7NodeRead(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, &consultest.Options{ACL: true})
	token := agent.CreateToken(t, `service_prefix "" { policy = "write" }`)
	r := newRig(t, agent, func(c *api.Config, _ *consul.Options) { c.Token = token.Secret })
	l, err := r.Grant(t.Context(), 30*time.Second)
	must(t, err)
	for _, lease := range []naming.Lease{l, nil} {
		err = r.Apply(t.Context(), "svc", add(lease, ep("a", "h:1", ""))...)
		if !isPermission(err) || !strings.Contains(err.Error(), "node:read") {
			t.Errorf("got %v, want ErrPermission and the right", err)
		}
		if left := r.registrations(t, "svc", "a"); len(left) > 0 {
			t.Errorf("%q are left behind", left)
		}
	}
	// An endpoint that was put before the token lost the right stays.
	agent.SetRules(t, token, all)
	must(t, r.Apply(t.Context(), "svc", add(l, ep("a", "h:1", ""))...))
	agent.SetRules(t, token, `service_prefix "" { policy = "write" }`)
	if err := r.Apply(t.Context(), "svc", add(l, ep("a", "h:2", ""))...); !isPermission(err) {
		t.Errorf("got %v, want ErrPermission", err)
	}
	r.registration(t, "svc", "a")

	// A registration gets the same error.
	agent.SetRules(t, token, `service_prefix "" { policy = "write" }`)
	client := naming.New(r.Store, nil)
	defer client.Close()
	g, err := client.Register(t.Context(), "svc2", naming.Endpoint{Addr: "h:1"}, nil)
	must(t, err)
	servertest.Poll(t, "the error of a registration", func() error {
		if err := g.Status().Err; !isPermission(err) || !strings.Contains(err.Error(), "node:read") {
			return fmt.Errorf("it is %v, want ErrPermission and the right", err)
		}
		return nil
	})
	must(t, g.Close())
	if left := r.registrations(t, "svc2", "h:1"); len(left) > 0 {
		t.Errorf("%q are left behind by a registration", left)
	}
}

// TestFieldC8NodeRenamed: an agent returns with its data and with another name for its
// node. The Store does not take the agent's own entries for entries of another agent.
func TestFieldC8NodeRenamed(t *testing.T) {
	t.Parallel()
	before := consultest.Start(t, nil)
	after := before.StartClient(t, nil) // the same agent, as far as the store can see
	var address atomic.Pointer[string]
	address.Store(&before.Addr)
	r := newRig(t, before, func(c *api.Config, _ *consul.Options) {
		c.Transport.DisableKeepAlives = true
		c.Transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, *address.Load())
		}
	})
	l, err := r.Grant(t.Context(), time.Hour)
	must(t, err)
	must(t, r.Apply(t.Context(), "svc", add(l, ep("a", "h:1", ""))...))
	id := r.registration(t, "svc", "a")
	s, _, err := r.admin.Agent().Service(id, nil)
	must(t, err)
	must(t, after.Client(t).Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: id, Name: s.Service, Address: s.Address, Port: s.Port, Meta: s.Meta,
		Check: &api.AgentServiceCheck{CheckID: id, TTL: "1h", Status: "passing"},
	}))
	must(t, r.admin.Agent().ServiceDeregister(id))
	address.Store(&after.Addr)
	servertest.Poll(t, "the entry under the new name", func() error {
		if got := state(t, r, "svc"); got != "a" {
			return errors.New(got)
		}
		return nil
	})
	must(t, r.Apply(t.Context(), "svc", naming.Change{Endpoint: ep("a", "h:2", ""), Lease: l, IfFree: true}))
	eps, err := once(t.Context(), r, "svc")
	must(t, err)
	if len(eps) != 1 || eps[0].Addr != "h:2" {
		t.Errorf("got %+v, want h:2", eps)
	}
	must(t, l.Renew(t.Context()))
	must(t, l.Revoke(t.Context()))
	if left := r.registrations(t, "svc", "a"); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
}

// TestFieldC12PortNameOfConsul is TestFieldC12PortName of package wire, with answers of
// Consul.
func TestFieldC12PortNameOfConsul(t *testing.T) {
	t.Parallel()
	r := newRig(t, consultest.Start(t, nil), nil)
	must(t, r.admin.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: "web", Name: r.prefix + "svc", Address: "10.0.0.1",
		Ports: api.ServicePorts{{Name: "http", Port: 8080, Default: true}, {Name: "grpc", Port: 9090}},
	}))
	for name, want := range map[string]string{"": "10.0.0.1:8080", "grpc": "10.0.0.1:9090", "other": "10.0.0.1:8080"} {
		s := consul.New(r.client, &consul.Options{Prefix: r.prefix, PortName: name})
		servertest.Poll(t, name, func() error {
			eps, err := once(t.Context(), s, "svc")
			if err != nil || len(eps) != 1 || eps[0].Addr != want {
				return fmt.Errorf("PortName %q: %+v, %v, want %s", name, eps, err, want)
			}
			return nil
		})
		// The endpoint can be deleted.
		if name == "grpc" {
			eps, err := once(t.Context(), s, "svc")
			must(t, err)
			defer func() {
				must(t, s.Apply(t.Context(), "svc", del(eps[0].ID)...))
				if got := state(t, s, "svc"); got != "" {
					t.Errorf("after its deletion there is %q", got)
				}
			}()
		}
	}
}

// TestFieldC14Proxies: proxies and gateways are endpoints only with IncludeProxies.
func TestFieldC14Proxies(t *testing.T) {
	t.Parallel()
	r := newRig(t, consultest.Start(t, nil), nil)
	must(t, r.admin.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: "web", Name: r.prefix + "web", Address: "10.0.0.1", Port: 80}))
	kinds := []api.ServiceKind{api.ServiceKindConnectProxy, api.ServiceKindMeshGateway, api.ServiceKindTerminatingGateway, api.ServiceKindIngressGateway, api.ServiceKindAPIGateway}
	for n, kind := range kinds {
		for _, service := range []string{"web", string(kind)} { // also beside ordinary instances
			reg := &api.AgentServiceRegistration{Kind: kind, ID: fmt.Sprint(service, n), Name: r.prefix + service, Address: "10.0.0.1", Port: 8000 + n}
			if kind == api.ServiceKindConnectProxy {
				reg.Proxy = &api.AgentServiceConnectProxyConfig{DestinationServiceName: "web"}
			}
			must(t, r.admin.Agent().ServiceRegister(reg))
		}
	}
	all := consul.New(r.client, &consul.Options{Prefix: r.prefix, IncludeProxies: true})
	count := func(s naming.Store, service string) int {
		eps, err := once(t.Context(), s, service)
		must(t, err)
		return len(eps)
	}
	servertest.Poll(t, "the proxies", func() error {
		if n := count(all, "web"); n != 1+len(kinds) {
			return fmt.Errorf("%d endpoints with IncludeProxies, want %d", n, 1+len(kinds))
		}
		return nil
	})
	if n := count(r, "web"); n != 1 {
		t.Errorf("%d endpoints without IncludeProxies, want 1", n)
	}
	if n := count(r, string(api.ServiceKindMeshGateway)); n != 0 {
		t.Errorf("%d endpoints of a gateway, want 0", n)
	}
	for s, want := range map[naming.Store]int{r.Store: 1, all: 1 + len(kinds)} {
		for list, err := range s.Services(t.Context()) {
			must(t, err)
			if len(list) != want {
				t.Errorf("listed are %q, want %d", list, want)
			}
			break
		}
	}
}

// TestOwnServers: Consul's own servers are neither a service nor endpoints. A
// program's service with the same name is.
func TestOwnServers(t *testing.T) {
	t.Parallel()
	r := newRig(t, consultest.Start(t, nil), func(_ *api.Config, o *consul.Options) { o.Prefix = "" })
	servertest.Poll(t, "Consul's service", func() error {
		entries, _, err := r.admin.Health().Service("consul", "", false, nil)
		if err == nil && len(entries) == 0 {
			err = errors.New("it has no entry")
		}
		return err
	})
	all := consul.New(r.client, &consul.Options{IncludeProxies: true})
	check := func(services, endpoints string) {
		t.Helper()
		for _, s := range []naming.Store{r.Store, all} {
			for list, err := range s.Services(t.Context()) {
				must(t, err)
				if got := strings.Join(list, " "); got != services {
					t.Errorf("the services are %q, want %q", got, services)
				}
				break
			}
			if got := state(t, s, "consul"); got != endpoints {
				t.Errorf("the endpoints are %q, want %q", got, endpoints)
			}
		}
	}
	check("", "")
	must(t, r.admin.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: "10.0.0.1:80", Name: "consul", Address: "10.0.0.1", Port: 80}))
	check("consul", "10.0.0.1:80")
}

// TestFieldI8ServiceID: other readers of Consul find the endpoint's ID in the service ID.
func TestFieldI8ServiceID(t *testing.T) {
	t.Parallel()
	r := newRig(t, consultest.Start(t, nil), nil)
	l, err := r.Grant(t.Context(), time.Hour)
	must(t, err)
	seen := make(map[string]bool)
	for _, id := range []string{"web-1", "10.0.0.7:9000", "[2001:db8::1]:80", "a/b", "a?b", "..", "é", `c:\`, `"`, strings.Repeat("x", 3000)} {
		for _, service := range []string{"svc", "other"} { // an agent has one of an ID
			for _, lease := range []naming.Lease{l, nil} {
				must(t, r.Apply(t.Context(), service, add(lease, ep(id, "10.0.0.7:9000", ""))...))
				got := r.registration(t, service, id)
				if seen[got] {
					t.Errorf("two registrations have the ID %q", got)
				}
				seen[got] = true
				if want := id; len(id) < 100 && !strings.ContainsAny(id, `/?é\"`) && !strings.HasPrefix(got, want+"~") || len(got) > 200 {
					t.Errorf("%q is %q in Consul", id, got)
				}
			}
			must(t, r.Apply(t.Context(), service, del(id)...))
			if left := r.registrations(t, service, id); len(left) > 0 {
				t.Errorf("%q are left of %q", left, id)
			}
		}
	}
}
