package kratosnaming_test

import (
	"slices"
	"testing"

	kratosetcd "github.com/go-kratos/kratos/contrib/registry/etcd/v2"
	"github.com/go-kratos/kratos/v2/registry"

	"github.com/naming-go/naming"
	consulnaming "github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/consul/consulcodec"
	etcdnaming "github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/etcd/etcdcodec"
	kratosnaming "github.com/naming-go/naming/contrib/kratos"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/etcdtest"
)

// open returns a Registry on a store.
func open(t *testing.T, store naming.Store, opts *kratosnaming.Options) *kratosnaming.Registry {
	c := naming.New(store, &naming.Options{Logger: quiet})
	t.Cleanup(c.Close)
	o := kratosnaming.Options{Register: &naming.RegisterOptions{DrainDelay: -1}, Logger: quiet}
	if opts != nil {
		o.Schemes = opts.Schemes
	}
	return kratosnaming.New(c, &o)
}

func TestRoundTripEtcd(t *testing.T) {
	cluster := etcdtest.Start(t, nil)
	for prefix, codec := range map[string]*etcdnaming.Codec{"/kratos": etcdcodec.Kratos(), "/default": nil} {
		t.Run(prefix[1:], func(t *testing.T) {
			r := open(t, etcdnaming.New(cluster.Client(t), &etcdnaming.Options{Codec: codec}), nil)
			roundTrip(t, r, r, instances)
		})
	}
	t.Run("http", func(t *testing.T) {
		codec := etcdcodec.KratosScheme("http", "https")
		codec.Root = "/http/"
		r := open(t, etcdnaming.New(cluster.Client(t), &etcdnaming.Options{Codec: codec}), &kratosnaming.Options{Schemes: []string{"http", "https"}})
		roundTrip(t, r, r, []*registry.ServiceInstance{
			{ID: "1", Endpoints: []string{"http://10.0.0.1:8000"}},
			{ID: "2", Endpoints: []string{"grpc://10.0.0.2:9000", "http://10.0.0.2:8000"}},
			{ID: "3", Endpoints: []string{"https://10.0.0.3:8000"}},
		})
	})
}

func TestRoundTripConsul(t *testing.T) {
	client := consultest.Start(t, nil).Client(t)
	for name, codec := range map[string]*consulnaming.Codec{"kratos": consulcodec.Kratos(), "default": nil} {
		t.Run(name, func(t *testing.T) {
			store := consulnaming.New(client, &consulnaming.Options{Codec: codec})
			r := open(t, store, nil)
			roundTrip(t, r, r, instances)
		})
	}
}

// An app on kratos's own registry sees the instances of ours, and the reverse.
func TestKratosEntries(t *testing.T) {
	cluster := etcdtest.Start(t, nil)
	for name, way := range map[string]func(theirs, ours *kratosRegistry) (from, to *kratosRegistry){
		"ours to theirs": func(theirs, ours *kratosRegistry) (from, to *kratosRegistry) { return ours, theirs },
		"theirs to ours": func(theirs, ours *kratosRegistry) (from, to *kratosRegistry) { return theirs, ours },
	} {
		t.Run(name, func(t *testing.T) {
			ns := "/" + name[:4]
			client := cluster.Client(t)
			theirs := kratosetcd.New(client, kratosetcd.Namespace(ns), kratosetcd.Context(t.Context()))
			codec := etcdcodec.Kratos()
			codec.Root = ns + "/"
			ours := open(t, etcdnaming.New(client, &etcdnaming.Options{Codec: codec}), nil)
			from, to := way(&kratosRegistry{theirs, theirs}, &kratosRegistry{ours, ours})
			roundTrip(t, from, to, slices.DeleteFunc(slices.Clone(instances), func(s *registry.ServiceInstance) bool {
				return s.ID == "odd weights" || s.ID == "names" // the codec has its own rules for these
			}))
		})
	}
}

type kratosRegistry struct {
	registry.Registrar
	registry.Discovery
}
