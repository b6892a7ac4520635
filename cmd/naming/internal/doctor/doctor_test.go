package doctor_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/backend/open"
	"github.com/naming-go/naming/cmd/naming/internal/doctor"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/etcdtest"
)

// report is the findings of an examination, one per line.
type report string

// examine examines a registry.
func examine(t *testing.T, target doctor.Target, o doctor.Options) report {
	t.Helper()
	target.Client = naming.New(target.Store, &naming.Options{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	defer target.Client.Close()
	if target.Malformed == nil {
		target.Malformed = func() []naming.MalformedError { return nil }
	}
	o.Slow = time.Hour // no machine is too busy for the tests
	var b strings.Builder
	err := doctor.Examine(t.Context(), target, o, func(f doctor.Finding) {
		if f.Level == doctor.Problem && f.Do == "" {
			t.Errorf("the problem %q comes without advice", f.What)
		}
		fmt.Fprintf(&b, "%s %s: %s\n", f.Level, f.Part, f.What)
	})
	if err != nil {
		t.Fatal(err)
	}
	return report(b.String())
}

// has checks that the report has a finding that begins with each text.
func (r report) has(t *testing.T, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains("\n"+string(r), "\n"+w) {
			t.Errorf("no finding %q in\n%s", w, r)
		}
	}
}

// hasNot checks that the report has no finding that begins with one of the texts.
func (r report) hasNot(t *testing.T, texts ...string) {
	t.Helper()
	for _, w := range texts {
		if strings.Contains("\n"+string(r), "\n"+w) {
			t.Errorf("a finding %q in\n%s", w, r)
		}
	}
}

// openTarget opens a registry by its URL.
func openTarget(t *testing.T, url string) doctor.Target {
	t.Helper()
	var target doctor.Target
	store, done, err := open.Store(t.Context(), url, &open.Options{
		OnMalformed: func(*naming.MalformedError) {},
		OnEtcd:      func(c *clientv3.Client, o etcd.Options) { target.Etcd = &doctor.Etcd{Client: c, Options: o} },
		OnConsul:    func(c *api.Client, o consul.Options) { target.Consul = &doctor.Consul{Client: c, Options: o} },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = done() })
	target.Store = store
	return target
}

func put(t *testing.T, s naming.Store, service string, endpoints ...naming.Endpoint) {
	t.Helper()
	for _, e := range endpoints {
		if err := s.Apply(t.Context(), service, naming.Change{Endpoint: e}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEntries(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	store := &memory.Store{}
	put(t, store, "greeter", naming.Endpoint{Addr: listener.Addr().String()}, naming.Endpoint{Addr: "127.0.0.1:1", Draining: true}, naming.Endpoint{ID: "twin", Addr: "127.0.0.1:1"})
	put(t, store, "sick", naming.Endpoint{Addr: "127.0.0.1:2"}, naming.Endpoint{Addr: "127.0.0.1:3"})
	store.Withhold("sick", "127.0.0.1:2", naming.FailedCheck, "smoke")
	store.Withhold("sick", "127.0.0.1:3", naming.Maintenance, "holiday")
	bad := []naming.MalformedError{{Key: "greeter/\x1b[31m", Service: "greeter", Err: errors.New("not JSON\x07")}}
	target := doctor.Target{Store: store, Malformed: func() []naming.MalformedError { return bad }}

	r := examine(t, target, doctor.Options{})
	r.has(t, "ok reach:", "ok latency:", "ok rights: allowed: to register an endpoint", "ok rights: allowed: to register again",
		"ok rights: allowed: to read naming/migration", "ok rights: allowed: to read naming/bridge", "ok entries: 2 services with 3 endpoints",
		"problem malformed: 1 entry cannot be read", "note withheld: 1 endpoint in maintenance: sick 127.0.0.1:3",
		"problem withheld: 1 endpoint failed a check: sick 127.0.0.1:2", "note draining: 1 endpoint draining: greeter 127.0.0.1:1",
		"note ghosts: 1 endpoint with the address of another endpoint of the service: greeter ")
	if strings.ContainsAny(string(r), "\x1b\x07") {
		t.Errorf("the report has control characters: %q", r)
	}
	r = examine(t, target, doctor.Options{Dial: true, ReadOnly: true})
	r.has(t, "problem ghosts: 2 endpoints of 3 cannot be connected to from here: greeter 127.0.0.1:1, greeter twin", "note rights: not tried")
	r.hasNot(t, "ok rights: allowed: to grant")
}

// A refused right is a problem, and the examination goes on.
func TestRefused(t *testing.T) {
	store := &memory.Store{}
	store.RefuseFunc(func(method, _ string) error {
		if method == "Grant" {
			return naming.ErrPermission
		}
		return nil
	})
	r := examine(t, doctor.Target{Store: store}, doctor.Options{})
	r.has(t, "problem rights: refused: to grant a lease", "ok entries: 0 services with 0 endpoints")
	r.hasNot(t, "ok rights: allowed: to register")
}

// A registry that answers late is a problem.
func TestSlow(t *testing.T) {
	target := doctor.Target{Store: &memory.Store{}, Malformed: func() []naming.MalformedError { return nil }}
	target.Client = naming.New(target.Store, nil)
	defer target.Client.Close()
	late := false
	err := doctor.Examine(t.Context(), target, doctor.Options{Slow: 1}, func(f doctor.Finding) {
		late = late || f.Part == "latency" && f.Level == doctor.Problem
	})
	if err != nil || !late {
		t.Errorf("late is %v, error %v", late, err)
	}
}

// A registry that lists the service of the examination after its removal, as Consul does for a
// moment, has no further service.
func TestOwnService(t *testing.T) {
	store := &lingering{Store: &memory.Store{}}
	put(t, store, "greeter", naming.Endpoint{Addr: "10.0.0.1:80"})
	examine(t, doctor.Target{Store: store}, doctor.Options{}).has(t, "ok entries: 1 service with 1 endpoint")
}

// lingering is a store that never removes a service from the list.
type lingering struct{ *memory.Store }

func (l *lingering) Apply(ctx context.Context, service string, changes ...naming.Change) error {
	if changes[0].Op == naming.Delete {
		return nil
	}
	changes[0].Lease = nil
	return l.Store.Apply(ctx, service, changes...)
}

// What the examination has put is removed, whenever it ends.
func TestNothingIsLeft(t *testing.T) {
	for _, stop := range []string{"", "Apply", "Renew"} {
		store := &memory.Store{}
		ctx, cancel := context.WithCancel(t.Context())
		var once sync.Once
		store.RefuseFunc(func(method, service string) error {
			if method == stop && strings.HasPrefix(service, "naming-doctor-") || method == stop && method == "Renew" {
				once.Do(cancel)
			}
			return nil
		})
		target := doctor.Target{Store: store, Client: naming.New(store, nil), Malformed: func() []naming.MalformedError { return nil }}
		err := doctor.Examine(ctx, target, doctor.Options{}, func(doctor.Finding) {})
		target.Client.Close()
		if stopped := err != nil; stopped != (stop != "") || stopped && !errors.Is(err, context.Canceled) {
			t.Errorf("stopped in %q: the error is %v", stop, err)
		}
		for names, err := range store.Services(t.Context()) {
			if len(names) > 0 || err != nil {
				t.Errorf("stopped in %q: the registry has %v, error %v", stop, names, err)
			}
			break
		}
		cancel()
	}
}

func TestUnreachable(t *testing.T) {
	store := &memory.Store{}
	store.Down(errors.New("no power"))
	err := doctor.Examine(t.Context(), doctor.Target{Store: store}, doctor.Options{}, func(f doctor.Finding) { t.Errorf("a finding %+v", f) })
	if err == nil || !strings.Contains(err.Error(), "no power") {
		t.Errorf("the error is %v", err)
	}
}

func TestEtcd(t *testing.T) {
	c := etcdtest.Start(t, nil)
	url := "etcd://" + c.Members[0].Addr + "?prefix=/naming/"
	target := openTarget(t, url)
	put(t, target.Store, "greeter", naming.Endpoint{Addr: "10.0.0.1:80"})
	r := examine(t, target, doctor.Options{})
	r.has(t, "ok version: etcd 3.", "ok limits: the database has", "note auth: authentication is off", "ok clock:",
		"note orphans: 1 key under no lease, which stay when their program dies: /naming/greeter/10.0.0.1:80", "ok limits: the shortest time to live is 1s")

	c.EnableAuth(t, etcdtest.User{Name: "stranger", Password: "secret", Prefix: "/elsewhere/"})
	t.Setenv("STRANGER", "stranger")
	t.Setenv("STRANGER_PASSWORD", "secret")
	r = examine(t, openTarget(t, url+"&username-env=STRANGER&password-env=STRANGER_PASSWORD"), doctor.Options{})
	r.has(t, "ok reach:", "ok auth: user stranger", "problem rights: refused: to list services", "problem rights: refused: to read a service",
		"problem rights: refused: to read naming/migration", "ok rights: allowed: to grant a lease", "problem rights: refused: to register an endpoint")
	r.hasNot(t, "ok entries")
}

// A member that is down is named. A cluster whose other members are not in the URL is noted.
func TestEtcdMembers(t *testing.T) {
	c := etcdtest.Start(t, &etcdtest.Options{Members: 3})
	examine(t, openTarget(t, "etcd://"+c.Members[0].Addr), doctor.Options{}).has(t, "note members: the cluster has 3 members, and the URL names one")
	c.Members[2].Kill(t)
	url := "etcd://" + c.Members[0].Addr + "?endpoint=" + c.Members[2].Addr
	examine(t, openTarget(t, url), doctor.Options{}).has(t, "problem members: member http://"+c.Members[2].Addr+" does not answer")
}

func TestConsul(t *testing.T) {
	a := consultest.Start(t, &consultest.Options{ACL: true, Config: map[string]any{"limits": map[string]any{"http_max_conns_per_client": 50}}})
	admin := consul.New(a.Client(t), nil)
	put(t, admin, "greeter", naming.Endpoint{Addr: "10.0.0.1:80"})
	setToken(t, a.CreateToken(t, `service_prefix "" { policy = "write" } node_prefix "" { policy = "read" } agent_prefix "" { policy = "read" }`))
	url := "consul://" + a.Addr + "?token-env=DOCTOR_TOKEN"
	examine(t, openTarget(t, url), doctor.Options{}).has(t, "ok members: 1 server", "ok version: Consul 1.", "problem limits: the agent accepts 50 connections",
		"ok auth: token ", "note orphans: 1 registration without a check", "ok rights: allowed: to register an endpoint")

	setToken(t, a.CreateToken(t, `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`))
	examine(t, openTarget(t, url), doctor.Options{}).has(t, "note version: the agent does not say its version", "problem rights: refused: to register an endpoint",
		"ok rights: allowed: to list services")

	t.Setenv("DOCTOR_TOKEN", "11111111-2222-3333-4444-555555555555")
	examine(t, openTarget(t, url), doctor.Options{}).has(t, "problem auth: the token is unknown to Consul")
}

func setToken(t *testing.T, token *consultest.Token) {
	t.Helper()
	t.Setenv("DOCTOR_TOKEN", token.Secret)
}
