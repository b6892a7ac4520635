package kratosnaming_test

import (
	"testing"

	"github.com/go-kratos/kratos/v2/registry"

	"github.com/naming-go/naming"
	kratosnaming "github.com/naming-go/naming/contrib/kratos"
)

// instances are instances with all fields that kratos has.
var instances = []*registry.ServiceInstance{
	{ID: "plain", Endpoints: []string{"grpc://10.0.0.1:9000"}},
	{ID: "version", Version: "v1", Endpoints: []string{"grpc://10.0.0.2:9000"}},
	{ID: "weight", Version: "v1", Metadata: map[string]string{"weight": "30", "zone": "a"}, Endpoints: []string{"grpc://10.0.0.3:9000"}},
	{ID: "odd weights", Metadata: map[string]string{"weight": "0.5"}, Endpoints: []string{"grpc://10.0.0.4:9000"}},
	{ID: "no weight", Metadata: map[string]string{"weight": "-1", "a": "", "b": "null", "c": `{"d":"e"}`}, Endpoints: []string{"grpc://10.0.0.5:9000"}},
	{ID: "both", Version: "v2", Metadata: map[string]string{"weight": "1"}, Endpoints: []string{"grpc://10.0.0.6:9000", "http://10.0.0.6:8000"}},
	{ID: "http first", Endpoints: []string{"http://10.0.0.7:8000", "grpc://10.0.0.7:9000"}},
	{ID: "two versions", Version: "v3", Metadata: map[string]string{"version": "other"}, Endpoints: []string{"grpc://10.0.0.8:9000"}},
	{ID: "ipv6", Version: "v1", Endpoints: []string{"grpc://[2001:db8::1]:9000"}},
	{ID: "names", Metadata: map[string]string{"tags": "x", "draining": "true", "naming.metadata": "y"}, Endpoints: []string{"grpc://greeter.example.com:9000"}},
}

// roundTrip registers instances with one registry, and compares what another one sees.
func roundTrip(t *testing.T, from registry.Registrar, to registry.Discovery, list []*registry.ServiceInstance) {
	t.Helper()
	want := make(map[string]*registry.ServiceInstance)
	for _, s := range list {
		s := *s
		s.Name = "greeter"
		s.Endpoints = append([]string(nil), s.Endpoints...)
		want[s.ID] = &s
		if err := from.Register(t.Context(), &s); err != nil {
			t.Fatalf("%s: %v", s.ID, err)
		}
	}
	w, err := to.Watch(t.Context(), "greeter")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for {
		got, err := w.Next()
		if err != nil {
			t.Fatal(err)
		}
		if len(got) < len(want) {
			continue // a watch may show some first
		}
		for _, s := range got {
			if s.Name == "greeter" && !s.Equal(want[s.ID]) {
				t.Errorf("%s: got %+v, want %+v", s.ID, *s, *want[s.ID])
			}
		}
		return
	}
}

func TestRoundTrip(t *testing.T) {
	inBubble(t, nil, func(b *bubble) { roundTrip(b.T, b.registry, b.registry, instances) })
}

func TestSchemes(t *testing.T) {
	list := []*registry.ServiceInstance{
		{ID: "tls", Endpoints: []string{"https://10.0.0.1:8000", "grpcs://10.0.0.1:9000"}},
		{ID: "only", Endpoints: []string{"https://10.0.0.2:8000"}},
		{ID: "old", Endpoints: []string{"grpc://10.0.0.3:9000?isSecure=true"}},
		{ID: "other", Endpoints: []string{"tcp://10.0.0.4:1000", "udp://10.0.0.4:2000"}},
		{ID: "one", Endpoints: []string{"grpcs://10.0.0.5:9000"}},
	}
	want := map[string]string{"tls": "10.0.0.1:9000", "only": "10.0.0.2:8000", "old": "10.0.0.3:9000", "other": "10.0.0.4:1000", "one": "10.0.0.5:9000"}
	for _, schemes := range [][]string{nil, {"grpcs", "grpc"}} {
		inBubble(t, &kratosnaming.Options{Schemes: schemes}, func(b *bubble) {
			roundTrip(b.T, b.registry, b.registry, list)
			view, err := b.client.List(b.Context(), "greeter")
			if err != nil {
				b.Fatal(err)
			}
			for _, e := range view.Endpoints {
				if e.Addr != want[e.ID] {
					b.Errorf("%s has the address %s, want %s", e.ID, e.Addr, want[e.ID])
				}
			}
		})
	}
}

// Entries of programs that do not use kratos.
func TestForeignEntries(t *testing.T) {
	for metadata, want := range map[string]*registry.ServiceInstance{
		``:                     {Endpoints: []string{"grpc://10.0.0.1:9000"}},
		`17`:                   {Endpoints: []string{"grpc://10.0.0.1:9000"}},
		`{"weight":0.4}`:       {Metadata: map[string]string{"weight": "1"}, Endpoints: []string{"grpc://10.0.0.1:9000"}},
		`{"weight":2.5}`:       {Metadata: map[string]string{"weight": "3"}, Endpoints: []string{"grpc://10.0.0.1:9000"}},
		`{"weight":1e300}`:     {Metadata: map[string]string{"weight": "1e300"}, Endpoints: []string{"grpc://10.0.0.1:9000"}},
		`{"weight":"x"}`:       {Metadata: map[string]string{"weight": "x"}, Endpoints: []string{"grpc://10.0.0.1:9000"}},
		`{"tags":["a"]}`:       {Metadata: map[string]string{"tags": `["a"]`}, Endpoints: []string{"grpc://10.0.0.1:9000"}},
		`{"version":"v1"}`:     {Version: "v1", Endpoints: []string{"grpc://10.0.0.1:9000"}},
		`{"@entry":"x"}`:       {Endpoints: []string{"grpc://10.0.0.1:9000"}},
		`{"@entry":{"a":"b"}}`: {Endpoints: []string{"grpc://10.0.0.1:9000"}},
		`{"@entry":{"endpoints":["grpc://10.0.0.9:1"]}}`: {Endpoints: []string{"grpc://10.0.0.1:9000"}},
	} {
		inBubble(t, nil, func(b *bubble) {
			e := naming.Endpoint{ID: "1", Addr: "10.0.0.1:9000", Metadata: []byte(metadata)}
			if err := b.store.Apply(b.Context(), "greeter", naming.Change{Endpoint: e}); err != nil {
				b.Fatal(err)
			}
			list, err := b.registry.GetService(b.Context(), "greeter")
			if err != nil || len(list) != 1 {
				b.Fatal(list, err)
			}
			want.ID, want.Name = "1", "greeter"
			if !list[0].Equal(want) {
				b.Errorf("%s: got %+v, want %+v", metadata, *list[0], *want)
			}
		})
	}
}

// A weight of kratos is a weight for programs that do not use kratos.
func TestWeight(t *testing.T) {
	inBubble(t, nil, func(b *bubble) {
		s := greeter("1", "v1", "grpc://10.0.0.1:9000")
		s.Metadata["weight"] = "30"
		b.register(s)
		view, err := b.client.List(b.Context(), "greeter")
		if err != nil || len(view.Endpoints) != 1 {
			b.Fatal(view, err)
		}
		if w := view.Endpoints[0].Info().Weight; w != 30 {
			b.Errorf("the weight is %v, want 30", w)
		}
	})
}
