package bridge_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/etcdtest"
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

// eventually fails the test unless the service has exactly these endpoints within a time.
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
	var got map[string]naming.Endpoint
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if got = s.list(s.to, service); equal(got) {
			return
		}
	}
	s.Fatalf("the target has %v, want %v", got, want)
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
	for deadline := time.Now().Add(30 * time.Second); b.Status().Blown == nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.Fatalf("no alarm: %+v", b.Status())
		}
	}
}

// approve approves a plan as soon as its digest is known to other processes.
func (s *servers) approve(b *bridge.Bridge, digest string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 30*time.Second)
	defer cancel()
	for {
		err := b.Approve(ctx, digest)
		if err == nil {
			return
		}
		if ctx.Err() != nil || !strings.Contains(err.Error(), "approval") {
			s.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
