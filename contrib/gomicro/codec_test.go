package gomicro_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"testing"

	etcdregistry "github.com/go-micro/plugins/v4/registry/etcd"
	"go-micro.dev/v4/registry"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/consul/consulcodec"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/etcd/etcdcodec"
	"github.com/naming-go/naming/contrib/gomicro"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/servertest"
)

// services returns services that are easily changed on their way.
func services() []*registry.Service {
	full := greeter("v1", nodeAt(1))
	full.Metadata = map[string]string{"team": "x"}
	own := greeter("v2", nodeAt(2))
	own.Name = "own-version"
	own.Nodes[0].Metadata["version"] = "other"
	odd := greeter("latest", nodeAt(3))
	odd.Name = "odd"
	odd.Nodes[0].Metadata = map[string]string{"weight": "1.50", "a": "<é>", "tags": "x,y", "empty": ""}
	return []*registry.Service{full, own, odd}
}

func show(services ...*registry.Service) string {
	text, err := json.Marshal(services)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// The services that go-micro's own registry and a Registry on the codec of its entries have
// registered are the same for both.
func TestBesideGoMicro(t *testing.T) {
	cluster := etcdtest.Start(t, nil)
	theirs := etcdregistry.NewRegistry(registry.Addrs(trimSchemes(cluster.Endpoints())...))
	c := naming.New(etcd.New(cluster.Client(t), &etcd.Options{Codec: etcdcodec.GoMicro()}), &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(c.Close)
	ours := gomicro.New(c, &gomicro.Options{Register: &naming.RegisterOptions{DrainDelay: -1}})

	for _, s := range services() {
		for _, writer := range []registry.Registry{theirs, ours} {
			if err := writer.Register(s, registry.RegisterTTL(ttl)); err != nil {
				t.Fatal(err)
			}
			for _, reader := range []registry.Registry{theirs, ours} {
				name := fmt.Sprintf("%s written by %s, read by %s", s.Name, writer, reader)
				servertest.Poll(t, name, func() error { return has(reader, s) })
			}
			if err := writer.Deregister(s); err != nil {
				t.Error(err)
			}
		}
	}
}

// The same for a Store without go-micro's format, and for Consul.
func TestRoundTripCodecs(t *testing.T) {
	cluster := etcdtest.Start(t, nil)
	agent := consultest.Start(t, nil)
	for name, store := range map[string]naming.Store{
		"etcd":            etcd.New(cluster.Client(t), &etcd.Options{Prefix: "/naming/"}),
		"consul":          consul.New(agent.Client(t), nil),
		"consul go-micro": consul.New(agent.Client(t), &consul.Options{Codec: consulcodec.GoMicro()}),
	} {
		c := naming.New(store, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
		r := gomicro.New(c, &gomicro.Options{Register: &naming.RegisterOptions{DrainDelay: -1}})
		for _, s := range services() {
			if err := r.Register(s, registry.RegisterTTL(ttl)); err != nil {
				t.Fatal(err)
			}
			servertest.Poll(t, name+": "+s.Name, func() error { return has(r, s) })
			if err := r.Deregister(s); err != nil {
				t.Error(err)
			}
		}
		c.Close()
	}
}

// has returns an error if the registry has anything else than s under its name.
func has(r registry.Registry, s *registry.Service) error {
	got, err := r.GetService(s.Name)
	if err != nil {
		return err
	}
	if len(got) != 1 || !reflect.DeepEqual(got[0], s) {
		return fmt.Errorf("it has %s, want %s", show(got...), show(s))
	}
	return nil
}
