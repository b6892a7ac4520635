package consul_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/faultproxy"
	"github.com/naming-go/naming/internal/mutant"
	"github.com/naming-go/naming/internal/servertest"
)

// all are the rights that a program needs.
const all = `service_prefix "" { policy = "write" } node_prefix "" { policy = "read" }`

// TestMain lets more tests run at once than there are processors. A test that waits for
// Consul needs no processor.
func TestMain(m *testing.M) {
	flag.Parse()
	if p := flag.Lookup("test.parallel").Value; p.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = p.Set("8")
	}
	m.Run()
}

// each runs a test with a fault once, or thirty times at full length. Every round has
// programs of its own, because programs that meet fault after fault wait longer and
// longer.
func each(t *testing.T, f func(t *testing.T)) {
	rounds := 1
	if mutant.Full() {
		rounds = 30
	}
	for i := range rounds {
		if !t.Run(strconv.Itoa(i), f) {
			return
		}
	}
}

// rig is a Store on a client of its own, with a link to the agent that can be disturbed.
type rig struct {
	*consul.Store
	agent  *consultest.Agent
	admin  *api.Client // not through the proxy
	client *api.Client
	proxy  *faultproxy.Proxy
	prefix string
	calls  atomic.Int64
	flying atomic.Int64 // requests without an answer

	registered atomic.Int64 // requests to register
	written    atomic.Int64 // requests that change the catalogue
	mostFlying atomic.Int64 // the highest value of flying
	mostOpen   atomic.Int64 // the highest number of connections
	asked      sync.Map     // how often a service was read: *atomic.Int64 by Consul's name

	mu       sync.Mutex
	reported []naming.MalformedError
}

var rigs atomic.Int64

// newRig returns a rig with a prefix of its own. change, if not nil, changes the options.
func newRig(t testing.TB, a *consultest.Agent, change func(*api.Config, *consul.Options)) *rig {
	t.Helper()
	r := &rig{agent: a, admin: a.Client(t), proxy: faultproxy.New(t, a.Addr), prefix: fmt.Sprintf("rig%d.", rigs.Add(1))}
	config := a.Config()
	config.Address = r.proxy.Addr()
	o := consul.Options{
		Prefix: r.prefix,
		Wait:   6 * time.Second,
		OnMalformed: func(m *naming.MalformedError) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.reported = append(r.reported, *m)
		},
	}
	if change != nil {
		change(config, &o)
	}
	r.prefix = o.Prefix
	transport := config.Transport
	t.Cleanup(transport.CloseIdleConnections)
	config.Transport = nil
	config.HttpClient = &http.Client{Transport: counted{r, transport}}
	client, err := api.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	r.client = client
	r.Store = consul.New(client, &o)
	return r
}

// counted counts the requests of a rig.
type counted struct {
	r *rig
	http.RoundTripper
}

func (c counted) RoundTrip(req *http.Request) (*http.Response, error) {
	c.r.calls.Add(1)
	if strings.HasSuffix(req.URL.Path, "/register") {
		c.r.registered.Add(1)
	}
	if req.Method != http.MethodGet && !strings.HasPrefix(req.URL.Path, "/v1/agent/check/update/") {
		c.r.written.Add(1)
	}
	if name, ok := strings.CutPrefix(req.URL.Path, "/v1/health/service/"); ok {
		n, _ := c.r.asked.LoadOrStore(name, new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
	}
	raise(&c.r.mostFlying, c.r.flying.Add(1))
	defer c.r.flying.Add(-1)
	resp, err := c.RoundTripper.RoundTrip(req)
	raise(&c.r.mostOpen, int64(c.r.proxy.Stats().Open))
	return resp, err
}

func raise(most *atomic.Int64, n int64) {
	for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
	}
}

// reads returns how often a service was asked for.
func (r *rig) reads(service string) int64 {
	n, ok := r.asked.Load(r.prefix + service)
	if !ok {
		return 0
	}
	return n.(*atomic.Int64).Load()
}

// interrupt cuts the link until all requests have failed. A transport repeats a request by
// itself when a connection breaks that it has used before.
func (r *rig) interrupt(t testing.TB) {
	t.Helper()
	r.proxy.Cut()
	defer r.proxy.Heal()
	servertest.Poll(t, "the requests do not end", func() error {
		if n := r.flying.Load(); n > 0 {
			return fmt.Errorf("%d requests", n)
		}
		return nil
	})
}

// spoil replaces an endpoint by an entry that cannot be understood.
func (r *rig) spoil(t testing.TB, service, id string) (key string) {
	return r.replace(t, service, id, "{not JSON")
}

// exceed replaces an endpoint by an entry that exceeds a limit.
func (r *rig) exceed(t testing.TB, service, id string) (key string) {
	deep := strings.Repeat("[", naming.MaxDepth) + strings.Repeat("]", naming.MaxDepth)
	return r.replace(t, service, id, `{"a":`+deep+`}`)
}

func (r *rig) replace(t testing.TB, service, id, metadata string) (key string) {
	t.Helper()
	reg := &api.AgentServiceRegistration{
		ID:      "spoilt-" + fmt.Sprint(rigs.Add(1)),
		Name:    r.prefix + service,
		Address: "10.0.0.1",
		Port:    80,
		Meta:    map[string]string{"naming-id": id, "naming-form": "object", "naming-json": metadata},
	}
	entries, _, err := r.admin.Health().Service(reg.Name, "", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Service.Meta["naming-id"] == id {
			reg.ID = e.Service.ID
			reg.Meta["naming-gen"] = e.Service.Meta["naming-gen"]
		}
	}
	if err := r.admin.Agent().ServiceRegister(reg); err != nil {
		t.Fatal(err)
	}
	return r.agent.Name + "/" + reg.ID
}

// registrations returns the service IDs under which Consul has an endpoint of ours.
func (r *rig) registrations(t testing.TB, service, id string) (ids []string) {
	t.Helper()
	entries, _, err := r.admin.Health().Service(r.prefix+service, "", false, &api.QueryOptions{RequireConsistent: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		// A long ID is in several pieces.
		if m := e.Service.Meta["naming-id"]; m != "" && strings.HasPrefix(id, m) && (len(m) == 512 || m == id) {
			ids = append(ids, e.Service.ID)
		}
	}
	return ids
}

func (r *rig) registration(t testing.TB, service, id string) string {
	t.Helper()
	ids := r.registrations(t, service, id)
	if len(ids) != 1 {
		t.Fatalf("%d registrations of %.100q: %q, want 1", len(ids), id, ids)
	}
	return ids[0]
}

// withhold takes an endpoint out of use as an operator or a check does.
func (r *rig) withhold(t testing.TB, service, id string, reason naming.Reason) (undo func()) {
	t.Helper()
	admin, registration := r.admin.Agent(), r.registration(t, service, id)
	if reason == naming.FailedCheck {
		check := &api.AgentCheckRegistration{ID: "extra-" + registration, Name: "Extra", ServiceID: registration}
		check.TTL, check.Status = "1h", api.HealthCritical
		if err := admin.CheckRegister(check); err != nil {
			t.Fatal(err)
		}
		return func() {
			status := api.StatusError{}
			if err := admin.CheckDeregister(check.ID); err != nil && !(errors.As(err, &status) && status.Code == http.StatusNotFound) {
				t.Error(err)
			}
		}
	}
	if err := admin.EnableServiceMaintenance(registration, "the harness says so"); err != nil {
		t.Fatal(err)
	}
	return func() {
		for _, registration := range r.registrations(t, service, id) { // the registration may be another one now
			if err := admin.DisableServiceMaintenance(registration); err != nil {
				t.Error(err)
			}
		}
	}
}

// lose deregisters the endpoints of a lease.
func (r *rig) lose(t testing.TB, l naming.Lease) {
	t.Helper()
	for _, id := range consul.Held(l) {
		if err := r.admin.Agent().ServiceDeregister(id); err != nil {
			t.Fatal(err)
		}
	}
}

func consulError(err error) bool {
	_, ok := errors.AsType[api.StatusError](err)
	return ok
}

func ep(id, addr, metadata string) naming.Endpoint {
	e := naming.Endpoint{ID: id, Addr: addr}
	if metadata != "" {
		e.Metadata = json.RawMessage(metadata)
	}
	return e
}

func add(l naming.Lease, eps ...naming.Endpoint) []naming.Change {
	var changes []naming.Change
	for _, e := range eps {
		changes = append(changes, naming.Change{Op: naming.Add, Endpoint: e, Lease: l})
	}
	return changes
}

func del(ids ...string) []naming.Change {
	var changes []naming.Change
	for _, id := range ids {
		changes = append(changes, naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: id}})
	}
	return changes
}

func isPermission(err error) bool { return errors.Is(err, naming.ErrPermission) }
