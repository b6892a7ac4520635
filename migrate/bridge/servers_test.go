package bridge_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/servertest"
	"github.com/naming-go/naming/migrate"
	"github.com/naming-go/naming/migrate/bridge"
)

// servers are two registries on real servers.
type servers struct {
	*world
	from, to naming.Store
	options  func() *bridge.Options
}

// TestServers runs a Bridge in each direction between Consul and etcd, which elects.
func TestServers(t *testing.T) {
	t.Setenv("ETCD_CLIENT_DEBUG", "error") // the client warns of every lost lease
	cluster, agent := etcdtest.Start(t, nil), consultest.Start(t, nil)
	e := etcd.New(cluster.Client(t), &etcd.Options{Prefix: "/naming/"})
	c := consul.New(agent.Client(t), nil)
	t.Run("consul to etcd", func(t *testing.T) {
		s := &servers{world: &world{T: t}, from: c, to: e, options: func() *bridge.Options {
			return options(func(o *bridge.Options) { o.SourceName, o.TargetName = "consul", "etcd" })
		}}
		s.run("there")
	})
	t.Run("etcd to consul", func(t *testing.T) {
		s := &servers{world: &world{T: t}, from: e, to: c, options: func() *bridge.Options {
			return options(func(o *bridge.Options) {
				o.SourceName, o.TargetName, o.Election = "etcd", "consul", e
				o.TTL, o.Rate = bridge.ConsulTTL, bridge.ConsulRate
			})
		}}
		s.run("back")
	})
	if _, err := bridge.New(e, c, nil); !errors.Is(err, naming.ErrInvalid) {
		t.Errorf("a Bridge that elects on Consul: %v", err)
	}
}

// TestAllOfConsul copies all services of Consul. Consul's own service is not one of them.
func TestAllOfConsul(t *testing.T) {
	t.Setenv("ETCD_CLIENT_DEBUG", "error") // the client warns of every lost lease
	e := etcd.New(etcdtest.Start(t, nil).Client(t), nil)
	c := consul.New(consultest.Start(t, nil).Client(t), nil)
	s := &servers{world: &world{T: t}, from: c, to: e, options: func() *bridge.Options {
		return options(func(o *bridge.Options) { o.SourceName, o.TargetName = "consul", "etcd" })
	}}
	s.put(c, "one", endpoint("1"))
	s.put(c, "two", endpoint("2"))
	s.start(c, e, s.options())
	s.eventually("one", s.copied(endpoint("1"))...)
	s.eventually("two", s.copied(endpoint("2"))...)
	if got, want := s.services(e), []string{bridge.Service, "one", "two"}; !slices.Equal(got, want) {
		t.Errorf("the target has the services %q, want %q", got, want)
	}
	reports, err := migrate.CompareStores(t.Context(), c, e)
	if err != nil || len(reports) != 2 || len(reports[0].Missing)+len(reports[1].Missing) > 0 {
		t.Errorf("the reports are %+v, %v", reports, err)
	}
}

// eventually waits until the service has exactly these endpoints.
func (s *servers) eventually(service string, natives ...naming.Endpoint) {
	s.Helper()
	want := make(map[string]naming.Endpoint)
	for _, e := range natives {
		want[e.ID] = e
	}
	equal := func(got map[string]naming.Endpoint) bool {
		return maps.EqualFunc(got, want, func(a, b naming.Endpoint) bool {
			a, _ = migrate.Native(a)
			b, _ = migrate.Native(b)
			return a.Equal(b)
		})
	}
	servertest.Poll(s.T, "the copies", func() error {
		if got := s.list(s.to, service); !equal(got) {
			return fmt.Errorf("the target has %v, want %v", got, want)
		}
		return nil
	})
}

// copied returns endpoints under the IDs of their copies.
func (s *servers) copied(natives ...naming.Endpoint) []naming.Endpoint {
	for i := range natives {
		natives[i].ID = migrate.CopyID(s.options().SourceName, natives[i].ID)
	}
	return natives
}

func (s *servers) run(service string) {
	only := func() *bridge.Options {
		o := s.options()
		o.Services = func(name string) bool { return name == service }
		return o
	}
	leaving, plain := endpoint("3"), naming.Endpoint{ID: "4", Addr: "10.0.0.4:80", Metadata: json.RawMessage(`{"weight":3,"tags":["x"],"n":{"a":[1]}}`)}
	s.put(s.from, service, endpoint("1"), endpoint("2"), leaving, plain)
	_, stop := s.start(s.from, s.to, only())
	s.eventually(service, s.copied(endpoint("1"), endpoint("2"), leaving, plain)...)
	leaving.Draining = true
	s.put(s.from, service, leaving)
	s.eventually(service, s.copied(endpoint("1"), endpoint("2"), leaving, plain)...)
	s.delete(s.from, service, "3")
	s.eventually(service, s.copied(endpoint("1"), endpoint("2"), plain)...)
	s.put(s.to, service, endpoint("1"))
	s.eventually(service, append(s.copied(endpoint("2"), plain), endpoint("1"))...)
	s.delete(s.to, service, "1")
	s.eventually(service, s.copied(endpoint("1"), endpoint("2"), plain)...)
	stop()
	s.delete(s.from, service, "1", "2", "4")
	b, _ := s.start(s.from, s.to, only())
	s.awaitBlown(b)
	s.eventually(service, s.copied(endpoint("1"), endpoint("2"), plain)...)
	other, err := bridge.New(s.from, s.to, only())
	if err != nil {
		s.Fatal(err)
	}
	s.approve(other, b.Status().Blown.Digest)
	s.eventually(service)
	if names := slices.DeleteFunc(s.services(s.to), func(n string) bool { return n != service }); len(names) != 0 {
		s.Errorf("services %v", names)
	}
}

// services returns the services of a store.
func (s *servers) services(store naming.Store) []string {
	for names, err := range store.Services(s.Context()) {
		if err != nil {
			s.Fatal(err)
		}
		return names
	}
	return nil
}

func (s *servers) awaitBlown(b *bridge.Bridge) {
	s.Helper()
	servertest.Poll(s.T, "the alarm", func() error {
		if st := b.Status(); st.Blown == nil {
			return fmt.Errorf("the status is %+v", st)
		}
		return nil
	})
}

// approve approves a plan as soon as its digest is known to other processes.
func (s *servers) approve(b *bridge.Bridge, digest string) {
	s.Helper()
	servertest.Poll(s.T, "the approval", func() error { return b.Approve(s.Context(), digest) })
}
