package gokitnaming_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/go-kit/kit/sd"
	"github.com/go-kit/kit/sd/etcdv3"
	"github.com/go-kit/log"

	"github.com/naming-go/naming"
	etcdnaming "github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/etcd/etcdcodec"
	gokitnaming "github.com/naming-go/naming/contrib/gokit"
	"github.com/naming-go/naming/internal/etcdtest"
)

// Programs on go-kit's own package see the instances of ours, and the reverse.
func TestGoKitEntries(t *testing.T) {
	cluster := etcdtest.Start(t, nil)
	etcd := cluster.Endpoints()
	theirs, err := etcdv3.NewClient(t.Context(), etcd, etcdv3.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := naming.New(etcdnaming.New(cluster.Client(t), &etcdnaming.Options{Codec: etcdcodec.GoKit()}), &naming.Options{Logger: quiet})
	t.Cleanup(c.Close)

	want := []string{"10.0.0.1:8080", "10.0.0.3:8080", "http://10.0.0.2:8080"}
	for _, instance := range want[1:] {
		gokitnaming.NewRegistrar(c, "greeter", naming.Endpoint{Addr: instance}, &gokitnaming.RegistrarOptions{
			Register: &naming.RegisterOptions{DrainDelay: -1}, Logger: quiet,
		}).Register()
	}
	r := etcdv3.NewRegistrar(theirs, etcdv3.Service{Key: "/services/greeter/" + want[0], Value: want[0]}, log.NewNopLogger())
	r.Register()
	t.Cleanup(r.Deregister)

	their, err := etcdv3.NewInstancer(theirs, "/services/greeter/", log.NewNopLogger())
	if err != nil {
		t.Fatal(err)
	}
	for name, i := range map[string]sd.Instancer{"theirs": their, "ours": gokitnaming.NewInstancer(c, "greeter", nil)} {
		events := make(chan sd.Event, 100)
		i.Register(events)
		for e := range events { // until all are there
			slices.Sort(e.Instances)
			if slices.Equal(e.Instances, want) {
				break
			}
			t.Logf("%s: %s, %v", name, strings.Join(e.Instances, " "), e.Err)
		}
		i.Deregister(events)
		i.Stop()
	}
}
