package consul_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/consul/consulcodec"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/mutant"
	"github.com/naming-go/naming/internal/servertest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// once returns the present endpoints of a service.
func once(ctx context.Context, s naming.Store, service string) ([]naming.Endpoint, error) {
	for b, err := range s.Watch(ctx, service) {
		return b.Put, err
	}
	panic("a watch without a batch")
}

// listed returns the IDs of the present endpoints of a service.
func listed(t testing.TB, s naming.Store, service string) string {
	t.Helper()
	eps, err := once(t.Context(), s, service)
	must(t, err)
	return ids(eps)
}

func ids(eps []naming.Endpoint) string {
	var list []string
	for _, e := range eps {
		list = append(list, e.ID)
	}
	return strings.Join(list, " ")
}

// observer is a watch of "greeter" and of the names of services.
type observer struct {
	name   string
	states chan string // the IDs and versions, when they change
	names  chan string
}

// observe starts to watch until the test ends.
func observe(t *testing.T, name string, s naming.Store) *observer {
	f := &observer{name, make(chan string, 100), make(chan string, 100)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	wg.Go(func() {
		set := make(map[string]string)
		for b, err := range s.Watch(ctx, "greeter") {
			if err != nil {
				f.states <- err.Error()
				return
			}
			for _, id := range b.Deleted {
				delete(set, id)
			}
			for _, w := range b.Withheld {
				delete(set, w.Endpoint.ID)
			}
			for _, e := range b.Put {
				id, _, _ := strings.Cut(e.ID, "@")
				var m struct{ Version string }
				_ = json.Unmarshal(e.Metadata, &m)
				set[e.ID] = id + m.Version
			}
			var list []string
			for _, s := range set {
				list = append(list, s)
			}
			slices.Sort(list)
			f.states <- strings.Join(list, " ")
		}
	})
	wg.Go(func() {
		for list, err := range s.Services(ctx) {
			if err != nil {
				list = []string{err.Error()}
			}
			f.names <- strings.Join(list, " ")
		}
	})
	return f
}

// shows waits for a state, and fails if another state comes first.
func (f *observer) shows(t *testing.T, what, want string) {
	t.Helper()
	f.next(t, what, f.states, want)
}

// lists is the same for the names of services.
func (f *observer) lists(t *testing.T, what, want string) {
	t.Helper()
	f.next(t, what, f.names, want)
}

func (f *observer) next(t *testing.T, what string, c chan string, want string) {
	t.Helper()
	select {
	case got := <-c:
		if got != want {
			t.Fatalf("%s: %s shows %q, want %q", f.name, what, got, want)
		}
	case <-time.After(servertest.Patience):
		t.Fatalf("%s: %s shows nothing, want %q", f.name, what, want)
	}
}

// backends counts the ways in which an agent has answered blocking queries.
type backends struct {
	http.RoundTripper
	mu   sync.Mutex
	seen map[string]int
}

func (b *backends) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err == nil && strings.HasPrefix(r.URL.Path, "/v1/health/service/") && r.URL.Query().Has("index") {
		b.mu.Lock()
		b.seen[resp.Header.Get("X-Consul-Query-Backend")]++
		b.mu.Unlock()
	}
	return resp, err
}

// TestNarrow: with each option that narrows what is read, entries come and go for every
// possible reason. It runs on agents that ask the servers for each answer, and on agents
// that get a stream of changes (consul#12640, consul#9758).
func TestNarrow(t *testing.T) {
	for _, streaming := range []bool{true, false} {
		t.Run(fmt.Sprint("streaming ", streaming), func(t *testing.T) {
			t.Parallel()
			config := map[string]any{"use_streaming_backend": streaming, "rpc": map[string]any{"enable_streaming": streaming}}
			server := consultest.Start(t, &consultest.Options{Config: config})
			agent := server.StartClient(t, &consultest.Options{Config: map[string]any{
				"use_streaming_backend": streaming, "node_meta": map[string]string{"rack": "r1"},
			}})
			c := agent.Config()
			t.Cleanup(c.Transport.CloseIdleConnections)
			seen := &backends{RoundTripper: c.Transport, seen: make(map[string]int)}
			c.Transport, c.HttpClient = nil, &http.Client{Transport: seen}
			client, err := api.NewClient(c)
			must(t, err)
			store := func(o consul.Options) naming.Store {
				o.Wait = 6 * time.Second
				return consul.New(client, &o)
			}
			ctx := t.Context()
			plain := store(consul.Options{})
			everything := observe(t, "no option", plain)
			tagged := observe(t, "Tag", store(consul.Options{Tag: "blue"}))
			near := observe(t, "NodeMeta", store(consul.Options{NodeMeta: map[string]string{"rack": "r1"}}))
			both := observe(t, "both", store(consul.Options{Tag: "blue", NodeMeta: map[string]string{"rack": "r1"}}))
			stale := observe(t, "AllowStale", store(consul.Options{AllowStale: true, IncludeWarning: true}))
			every := []*observer{everything, tagged, near, both, stale}
			for _, f := range every {
				f.shows(t, "nothing", "")
			}
			if list := <-tagged.names; strings.Contains(list, "greeter") {
				t.Fatal(list)
			}

			// An entry of a Store, on the client's node.
			must(t, plain.Apply(ctx, "greeter", add(nil, ep("a", "h:1", `{"version":"1","tags":["blue","x"]}`))...))
			for _, f := range every {
				f.shows(t, "put with tag", "a1")
			}
			tagged.lists(t, "put with tag", "greeter")
			must(t, plain.Apply(ctx, "greeter", add(nil, ep("a", "h:1", `{"version":"2","tags":["x"]}`))...))
			for _, f := range []*observer{everything, near, stale} {
				f.shows(t, "put without tag", "a2")
			}
			tagged.shows(t, "put without tag", "")
			both.shows(t, "put without tag", "")
			tagged.lists(t, "put without tag", "")
			must(t, plain.Apply(ctx, "greeter", add(nil, ep("a", "h:1", `{"version":"3","tags":["blue"]}`))...))
			for _, f := range every {
				f.shows(t, "put with tag again", "a3")
			}
			tagged.lists(t, "put with tag again", "greeter")

			// An entry of another writer, on a node whose metadata changes.
			foreign := &api.CatalogRegistration{Node: "foreign", Address: "192.0.2.1", NodeMeta: map[string]string{"rack": "r2"},
				Service: &api.AgentService{ID: "b", Service: "greeter", Port: 80, Tags: []string{"blue"}, Meta: map[string]string{"version": "1"}},
				Check:   &api.AgentCheck{Node: "foreign", CheckID: "b", ServiceID: "b", Status: "passing"}}
			register := func() {
				t.Helper()
				_, err := client.Catalog().Register(foreign, nil)
				must(t, err)
			}
			register()
			for _, f := range []*observer{everything, tagged, stale} {
				f.shows(t, "on a node of another rack", "a3 b1")
			}
			foreign.NodeMeta, foreign.Service.Meta = map[string]string{"rack": "r1"}, map[string]string{"version": "2"}
			register()
			for _, f := range every {
				f.shows(t, "its node has moved here", "a3 b2")
			}
			foreign.Check.Status = "warning"
			register()
			for _, f := range []*observer{everything, tagged, near, both} {
				f.shows(t, "warning", "a3")
			}
			foreign.Check.Status = "critical"
			register()
			stale.shows(t, "critical", "a3")
			foreign.Check.Status = "warning"
			register()
			stale.shows(t, "warning", "a3 b2")
			foreign.Check.Status = "passing"
			register()
			for _, f := range []*observer{everything, tagged, near, both} {
				f.shows(t, "passing", "a3 b2")
			}
			foreign.NodeMeta = map[string]string{"rack": "r2"}
			register()
			near.shows(t, "its node has moved away", "a3")
			both.shows(t, "its node has moved away", "a3")
			foreign.Service.Tags = nil
			register()
			tagged.shows(t, "without its tag", "a3")
			everything.shows(t, "without its tag", "a3 b2")
			stale.shows(t, "without its tag", "a3 b2")
			must(t, plain.Apply(ctx, "greeter", del("a")...))
			tagged.shows(t, "deleted", "")
			tagged.lists(t, "deleted", "")
			near.shows(t, "deleted", "")
			everything.shows(t, "deleted", "b2")

			// A service whose endpoints are all withheld is listed.
			foreign.Check.Status = "warning"
			register()
			everything.shows(t, "warning", "")
			stale.shows(t, "deleted", "b2")
			for name, warnings := range map[string]bool{"plain": false, "warnings": true} {
				s := store(consul.Options{IncludeWarning: warnings})
				for list, err := range s.Services(ctx) {
					must(t, err)
					if !slices.Contains(list, "greeter") {
						t.Errorf("%s: %q", name, list)
					}
					break
				}
			}

			seen.mu.Lock()
			defer seen.mu.Unlock()
			want := map[bool]string{true: "streaming", false: "blocking-query"}[streaming]
			if len(seen.seen) != 1 || seen.seen[want] == 0 {
				t.Errorf("blocking queries were answered by %v, want %s alone", seen.seen, want)
			}
		})
	}
}

// TestTagOfNewest: of two registrations of an endpoint the newest counts, whatever the
// tags of the other one.
func TestTagOfNewest(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, nil)
	r := newRig(t, agent, nil)
	must(t, r.Apply(t.Context(), "greeter", add(nil, ep("a", "h:1", `{"tags":["blue"]}`))...))
	name := r.prefix + "greeter"
	entries, _, err := r.admin.Health().Service(name, "", true, nil)
	must(t, err)
	s := entries[0].Service
	gen := s.Meta["naming-gen"]
	// As another Store would put the endpoint before it removes the old registration.
	s.Meta["naming-gen"] = gen + "0"
	must(t, r.admin.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: "newer", Name: name, Address: "h", Port: 2, Meta: s.Meta, Tags: []string{"green"}}))
	servertest.Poll(t, "the agent has not told the servers", func() error {
		eps, err := once(t.Context(), r, "greeter")
		if err == nil && (len(eps) != 1 || eps[0].Addr != "h:2") {
			err = fmt.Errorf("%v", eps)
		}
		return err
	})
	for tag, want := range map[string]string{"green": "a", "blue": ""} {
		if got := listed(t, consul.New(r.client, &consul.Options{Prefix: r.prefix, Tag: tag}), "greeter"); got != want {
			t.Errorf("tag %s: got %q, want %q", tag, got, want)
		}
	}
}

// TestAllowStale reads from a server that has lost its leader.
func TestAllowStale(t *testing.T) {
	t.Parallel()
	leader := consultest.Start(t, &consultest.Options{Disk: true})
	self, err := leader.Client(t).Agent().Self()
	must(t, err)
	other := consultest.Start(t, &consultest.Options{Disk: true, Config: map[string]any{
		"node_name": "other", "bootstrap_expect": 0,
		"retry_join": []string{fmt.Sprintf("%v:%v", self["Member"]["Addr"], self["Member"]["Port"])},
	}})
	servertest.Poll(t, "the second server has no vote", func() error {
		peers, err := leader.Client(t).Status().Peers()
		if err == nil && len(peers) < 2 {
			err = fmt.Errorf("peers %q", peers)
		}
		return err
	})
	client := other.Client(t)
	strict := consul.New(client, nil)
	must(t, strict.Apply(t.Context(), "greeter", add(nil, ep("a", "h:1", ""))...))
	stale := consul.New(client, &consul.Options{AllowStale: true, Wait: 6 * time.Second})
	servertest.Poll(t, "not replicated", func() error {
		eps, err := once(t.Context(), stale, "greeter")
		if err == nil && len(eps) != 1 {
			err = fmt.Errorf("%v", eps)
		}
		return err
	})
	leader.Kill(t)
	servertest.Poll(t, "there is a leader", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if eps, err := once(ctx, strict, "greeter"); err == nil {
			return fmt.Errorf("%v", eps)
		}
		return nil
	})
	if got := listed(t, stale, "greeter"); got != "a" {
		t.Errorf("got %q", got)
	}
	for list, err := range stale.Services(t.Context()) {
		if err != nil || !slices.Contains(list, "greeter") {
			t.Errorf("services: %q, %v", list, err)
		}
		break
	}
	// AllowStale has no effect on writes.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := stale.Apply(ctx, "greeter", add(nil, ep("b", "h:1", ""))...); err == nil {
		t.Error("Apply without a leader: no error")
	}
}

// TestDatacenter reads another datacenter.
func TestDatacenter(t *testing.T) {
	t.Parallel()
	ports := servertest.Ports(t, 2)
	near := consultest.Start(t, &consultest.Options{Config: map[string]any{"ports": map[string]any{"serf_wan": ports[0]}}})
	far := consultest.Start(t, &consultest.Options{Config: map[string]any{
		"datacenter": "dc2", "primary_datacenter": "dc1",
		"ports":          map[string]any{"serf_wan": ports[1]},
		"retry_join_wan": []string{servertest.Addr(ports[0])},
	}})
	client := near.Client(t)
	farther := consul.New(client, &consul.Options{Datacenter: "dc2"})
	servertest.Poll(t, "no way to the other datacenter", func() error {
		_, err := once(t.Context(), farther, "greeter")
		return err
	})
	must(t, consul.New(client, nil).Apply(t.Context(), "greeter", add(nil, ep("near", "h:1", ""))...))
	must(t, consul.New(far.Client(t), nil).Apply(t.Context(), "greeter", add(nil, ep("far", "h:1", ""))...))
	if got := listed(t, farther, "greeter"); got != "far" {
		t.Errorf("dc2 has %q", got)
	}
	if got := listed(t, consul.New(client, nil), "greeter"); got != "near" {
		t.Errorf("dc1 has %q", got)
	}
	f := observe(t, "dc2", farther)
	f.shows(t, "at first", "far")
	must(t, consul.New(far.Client(t), nil).Apply(t.Context(), "greeter", add(nil, ep("far2", "h:1", ""))...))
	f.shows(t, "later", "far far2")
	if err := farther.Apply(t.Context(), "greeter", del("far")...); !errors.Is(err, naming.ErrInvalid) {
		t.Errorf("Apply: %v, want ErrInvalid", err)
	}
	if eps, err := once(t.Context(), consul.New(client, &consul.Options{Datacenter: "dc3"}), "greeter"); err == nil || !consulError(err) {
		t.Errorf("unknown datacenter: %v, %v", eps, err)
	}
}

// TestEnterprise: Consul without a licence refuses partitions and namespaces, so that an
// endpoint for a namespace never ends up in the default namespace.
func TestEnterprise(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, nil)
	client := agent.Client(t)
	for _, o := range []consul.Options{{Namespace: "team"}, {Partition: "team"}} {
		s := consul.New(client, &o)
		eps, err := once(t.Context(), s, "greeter")
		if !errors.Is(err, naming.ErrInvalid) || !strings.Contains(err.Error(), "Enterprise") {
			t.Errorf("%+v: watch: %v, %v", o, eps, err)
		}
		for list, err := range s.Services(t.Context()) {
			if !errors.Is(err, naming.ErrInvalid) {
				t.Errorf("%+v: services: %q, %v", o, list, err)
			}
			break
		}
		if err := s.Apply(t.Context(), "greeter", add(nil, ep("a", "h:1", ""))...); !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("%+v: Apply: %v", o, err)
		}
	}
	if got := listed(t, consul.New(client, nil), "greeter"); got != "" {
		t.Errorf("the default namespace has %q", got)
	}
}

// TestBesidePeers: programs of other frameworks and a Store share a service.
func TestBesidePeers(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, nil)
	for _, test := range []struct {
		name      string
		codec     *consul.Codec
		good, bad api.AgentServiceRegistration
		want      naming.Endpoint
	}{
		{"kratos", consulcodec.Kratos(),
			api.AgentServiceRegistration{
				Address: "127.0.0.1", Port: 8000, Tags: []string{"version=v1"}, Meta: map[string]string{"zone": "a"},
				TaggedAddresses: map[string]api.ServiceAddress{
					"http": {Address: "http://127.0.0.1:8000", Port: 8000}, "grpc": {Address: "grpc://127.0.0.1:9000", Port: 9000},
				},
			},
			// With a port, so that nothing but the codec refuses it.
			api.AgentServiceRegistration{
				Address: "127.0.0.1", Port: 8001,
				TaggedAddresses: map[string]api.ServiceAddress{"grpc": {Address: "grpc://"}},
			},
			ep("", "127.0.0.1:9000", `{"version":"v1","zone":"a","@entry":{"endpoints":["http://127.0.0.1:8000","grpc://127.0.0.1:9000"]}}`)},
		{"gomicro", consulcodec.GoMicro(),
			api.AgentServiceRegistration{Address: "127.0.0.1", Port: 8000, Tags: []string{"v-10", `t={"zone":"a"}`, "v=v1"}},
			api.AgentServiceRegistration{Address: "127.0.0.1", Port: 8001, Tags: []string{"t-789c"}},
			ep("", "127.0.0.1:8000", `{"version":"v1","zone":"a","tags":["v-10"]}`)},
	} {
		r := newRig(t, agent, func(_ *api.Config, o *consul.Options) { o.Codec = test.codec })
		must(t, r.Apply(t.Context(), "greeter", add(nil, ep("ours", "h:1", `{"version":"v1"}`))...))
		test.good.ID, test.bad.ID = r.prefix+"good", r.prefix+"bad"
		test.want.ID = test.good.ID + "@127.0.0.1:8000"
		for _, reg := range []*api.AgentServiceRegistration{&test.bad, &test.good} {
			reg.Name = r.prefix + "greeter"
			must(t, r.admin.Agent().ServiceRegister(reg))
		}
		servertest.Poll(t, test.name, func() error {
			eps, err := once(t.Context(), r, "greeter")
			if err == nil && (len(eps) != 2 || eps[0].ID != "ours" || !eps[1].Equal(test.want)) {
				err = fmt.Errorf("%v", eps)
			}
			return err
		})
		r.mu.Lock()
		var keys []string
		for _, m := range r.reported {
			keys = append(keys, m.Key)
		}
		r.mu.Unlock()
		if !slices.Contains(keys, agent.Name+"/"+test.bad.ID) {
			t.Errorf("%s: reported are %q", test.name, keys)
		}
		// An entry that the framework's program registered can be put again and deleted.
		moved := test.want
		moved.Addr = "127.0.0.1:9001"
		must(t, r.Apply(t.Context(), "greeter", add(nil, moved)...))
		eps, err := once(t.Context(), r, "greeter")
		if err != nil || len(eps) != 2 || !eps[1].Equal(moved) {
			t.Errorf("%s: after a put there is %v, %v", test.name, eps, err)
		}
		must(t, r.Apply(t.Context(), "greeter", del(test.want.ID)...))
		if got := listed(t, r, "greeter"); got != "ours" {
			t.Errorf("%s: after a deletion there is %q", test.name, got)
		}
	}
}

// TestTLS: the agent asks for a client certificate, and its own certificate is replaced
// and expires.
func TestTLS(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, &consultest.Options{TLS: true, Disk: true})
	// The client asks for its certificate at every handshake.
	var mine atomic.Pointer[tls.Certificate]
	issue := func(valid time.Duration) {
		pem := agent.CA().Issue(t, "app", valid)
		cert, err := tls.X509KeyPair(pem, pem)
		must(t, err)
		mine.Store(&cert)
	}
	issue(time.Hour)
	r := newRig(t, agent, func(c *api.Config, _ *consul.Options) {
		c.Transport.TLSClientConfig = agent.TLS()
		c.Transport.TLSClientConfig.Certificates = nil
		c.Transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return mine.Load(), nil }
	})
	f := observe(t, "TLS", r.Store)
	f.shows(t, "at first", "")
	lease, err := r.Grant(t.Context(), time.Minute)
	must(t, err)
	must(t, r.Apply(t.Context(), "greeter", add(lease, ep("a", "h:1", ""))...))
	f.shows(t, "put", "a")

	without := newRig(t, agent, func(c *api.Config, _ *consul.Options) {
		c.Transport.TLSClientConfig = agent.TLS()
		c.Transport.TLSClientConfig.Certificates = nil
	})
	if _, err := once(t.Context(), without, "greeter"); err == nil || !strings.Contains(err.Error(), "certificate") || isPermission(err) {
		t.Errorf("without a certificate: %v", err)
	}
	stranger := newRig(t, agent, func(c *api.Config, _ *consul.Options) {
		c.Transport.TLSClientConfig = agent.TLS()
		c.Transport.TLSClientConfig.RootCAs = servertest.NewCA(t).Pool()
	})
	_, err = once(t.Context(), stranger, "greeter")
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok {
		t.Errorf("with another CA: %v", err)
	}

	// Only a new connection gets the new certificate.
	agent.RotateCertificate(t, -time.Hour)
	must(t, lease.Renew(t.Context()))
	r.proxy.Reset()
	servertest.Poll(t, "an expired certificate is taken", func() error {
		_, err := once(t.Context(), r, "greeter")
		if _, ok := errors.AsType[x509.CertificateInvalidError](err); !ok {
			return fmt.Errorf("error %v", err)
		}
		return nil
	})
	select {
	case got := <-f.states:
		if !strings.Contains(got, "expired") && !strings.Contains(got, "reset") && !strings.Contains(got, "EOF") {
			t.Errorf("the watch shows %q", got)
		}
	case <-time.After(servertest.Patience):
		t.Error("the watch goes on")
	}
	agent.RotateCertificate(t, time.Hour)
	must(t, lease.Renew(t.Context()))
	if got := listed(t, r, "greeter"); got != "a" {
		t.Errorf("afterwards there is %q", got)
	}
	issue(-time.Hour)
	r.proxy.Reset()
	servertest.Poll(t, "a client's expired certificate is taken", func() error {
		if err := lease.Renew(t.Context()); err == nil {
			return errors.New("no error")
		}
		return nil
	})
	issue(time.Hour)
	must(t, lease.Renew(t.Context()))
	if got := listed(t, r, "greeter"); got != "a" {
		t.Errorf("in the end there is %q", got)
	}
}

// TestLimits puts metadata at Consul's limits and beyond. A real agent decides what is
// beyond.
func TestLimits(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t, nil)
	members := func(n int, key, value string) string {
		m := make(map[string]string)
		for i := range n {
			m[fmt.Sprintf("%s%03d", key, i)] = value
		}
		b, err := json.Marshal(m)
		must(t, err)
		return string(b)
	}
	value := func(n int) string { return strings.Repeat("v", n) }
	documents := map[string]string{
		"59 pairs":             members(59, "k", "v"), // and five of the Store's are 64
		"60 pairs":             members(60, "k", "v"),
		"61 pairs":             members(61, "k", "v"),
		"500 pairs":            members(500, "k", "v"),
		"59 long values":       members(59, "k", value(512)),
		"keys of 128":          members(10, value(125), "v"),
		"keys of 129":          members(10, value(126), "v"),
		"a value of 512":       members(1, "k", value(512)),
		"a value of 513":       members(1, "k", value(513)),
		"a value of 10,000":    members(1, "k", value(10_000)),
		"a value of 512 in é":  members(1, "k", strings.Repeat("é", 256)),
		"a value of 511 and é": members(1, "k", value(511)+"é"),
		"no object":            `["` + strings.Repeat("世🙂", 1000) + `"]`,
		"weights":              `{"weight":65535}`,
		"too much weight":      `{"weight":65536}`,
		"tags":                 `{"tags":["é世🙂","","a=b","a=b","` + value(3000) + `"]}`,
		"no tags":              `{"tags":[]}`,
		"reserved":             `{"naming-id":"x","naming-gen":"9","naming-peer":"1","consul-version":"1","Naming-json":"{","é":"é","a b":"c","":"d"}`,
		"other members":        `{"a":1.0,"b":null,"c":[true,{"d":"e"}],"weight":"3","tags":"x","zone":7}`,
	}
	n := 8
	if mutant.Full() {
		n = 100
	}
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	for i := range n {
		documents[fmt.Sprintf("random %d of seed %d", i, seed)] = randomDocument(rnd, 3)
	}
	for name, codec := range map[string]*consul.Codec{"": nil, "kratos ": consulcodec.Kratos(), "gomicro ": consulcodec.GoMicro(), "grpcspring ": consulcodec.GRPCSpring()} {
		r := newRig(t, agent, func(_ *api.Config, o *consul.Options) { o.Codec = codec })
		for what, metadata := range documents {
			e := ep("a", "10.0.0.1:80", metadata)
			if err := r.Apply(t.Context(), "greeter", add(nil, e)...); err != nil {
				t.Errorf("%s%s: %v", name, what, err)
				continue
			}
			eps, err := once(t.Context(), r, "greeter")
			if err != nil || len(eps) != 1 || !eps[0].Equal(e) {
				t.Errorf("%s%s: got %.500s, %v\nwant %.500s", name, what, fmt.Sprint(eps), err, metadata)
			}
		}
		before := r.registered.Load()
		for _, e := range []naming.Endpoint{
			ep("b", "10.0.0.1:80", members(64, "k", value(512))),
			ep("b", "10.0.0.1:80", members(1, "k", value(40_000))),
			ep(value(naming.MaxID), "10.0.0.1:80", members(1, "k", value(28_000))), // neither is too large alone
		} {
			err := r.Apply(t.Context(), "greeter", add(nil, ep("a", "10.0.0.1:81", ""), e)...)
			if !errors.Is(err, naming.ErrInvalid) || !strings.Contains(err.Error(), "Consul") {
				t.Errorf("%stoo large: %v", name, err)
			}
		}
		if n := r.registered.Load() - before; n > 0 {
			t.Errorf("%s%d registrations before the error", name, n)
		}
	}
}

// randomDocument returns random JSON.
func randomDocument(r *rand.Rand, depth int) string {
	letters := []rune("abcXYZ09-_ .<&\"\\\x00\n\u2028é世🙂")
	text := func() string {
		s := make([]rune, r.IntN(10)*r.IntN(10))
		for i := range s {
			s[i] = letters[r.IntN(len(letters))]
		}
		b, err := json.Marshal(string(s))
		if err != nil {
			panic(err)
		}
		return string(b)
	}
	list := func(item func() string) string {
		s := make([]string, r.IntN(8))
		for i := range s {
			s[i] = item()
		}
		return strings.Join(s, ",")
	}
	kind := r.IntN(5)
	if depth == 0 {
		kind = r.IntN(3)
	}
	switch kind {
	case 0:
		return []string{"true", "0", "-0.0", "1e-400", "65536", "123456789012345678901234567890"}[r.IntN(6)]
	case 1, 2:
		return text()
	case 3:
		return "[" + list(func() string { return randomDocument(r, depth-1) }) + "]"
	}
	return "{" + list(func() string {
		key := text()
		if r.IntN(2) == 0 {
			key = []string{`"weight"`, `"tags"`, `"version"`, `"naming-id"`, `"@entry"`, `"zone"`}[r.IntN(6)]
		}
		return key + ":" + randomDocument(r, depth-1)
	}) + "}"
}
