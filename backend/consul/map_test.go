package consul_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/consul/consulcodec"
	"github.com/naming-go/naming/internal/consultest"
)

// mapEndpoints returns endpoints with different IDs that formats change or refuse.
func mapEndpoints() (eps []naming.Endpoint) {
	for i, m := range []string{
		``, `1`, `"text"`, `{}`, `{"weight":3}`, `{"weight":1.5}`, `{"weight":"3"}`, `{"zone":"a","tags":["x"]}`, `{"version":"v1","n":1.0}`,
		`{"draining":true}`, `{"@entry":{"Meta":{"a":"b"}}}`, `{"naming-copy":{"origin":"old","bridge":"b","epoch":1}}`,
		`"` + strings.Repeat("x", 60<<10) + `"`, // more than Consul has room for
	} {
		for _, draining := range []bool{false, true} {
			eps = append(eps, naming.Endpoint{ID: fmt.Sprintf("m%d%v", i, draining), Addr: "10.0.0.1:80", Metadata: json.RawMessage(m), Draining: draining})
		}
	}
	for i, addr := range []string{"", "[2001:db8::1]:9000", "unix:/run/a.sock", "h", "h:http", "例え.jp:80"} {
		eps = append(eps, naming.Endpoint{ID: fmt.Sprint("a", i), Addr: addr})
	}
	return append(eps, naming.Endpoint{Addr: "10.0.0.2:80"}, naming.Endpoint{ID: "~old~a/b", Addr: "10.0.0.3:80"})
}

// TestMap: with every codec, and every option that changes what is written or read, Map
// says what a list has after Apply.
func TestMap(t *testing.T) {
	agent := consultest.Start(t, nil)
	for name, o := range map[string]consul.Options{
		"own":        {},
		"kratos":     {Codec: consulcodec.Kratos()},
		"gomicro":    {Codec: consulcodec.GoMicro()},
		"grpcspring": {Codec: consulcodec.GRPCSpring()},
		"no marks":   {NoDrainingMark: true},
		"tag":        {Tag: "x"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, agent, func(_ *api.Config, all *consul.Options) {
				all.Codec, all.NoDrainingMark, all.Tag = o.Codec, o.NoDrainingMark, o.Tag
			})
			mapAgrees(t, r)
		})
	}
	t.Run("read only", func(t *testing.T) {
		s := consul.New(agent.Client(t), &consul.Options{Datacenter: "dc2"})
		if _, err := s.Map("greeter", naming.Endpoint{Addr: "10.0.0.1:80"}); !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("Map of a Store that only reads returned %v", err)
		}
	})
}

func mapAgrees(t *testing.T, r *rig) {
	lease, err := r.Grant(t.Context(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]naming.Endpoint)
	var puts []naming.Change
	for _, e := range mapEndpoints() {
		as, err := r.Map("greeter", e)
		if err == nil {
			want[as.ID] = as
		} else if !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("%.200q: %v is not ErrInvalid", e.ID, err)
		}
		add := naming.Change{Op: naming.Add, Endpoint: e, Lease: lease}
		if err == nil || !errors.Is(r.Apply(t.Context(), "greeter", add), naming.ErrInvalid) {
			puts = append(puts, add) // also what no reader gets
		}
	}
	if err := r.Apply(t.Context(), "greeter", puts...); err != nil {
		t.Fatal(err)
	}
	for b, err := range r.Watch(t.Context(), "greeter") {
		if err != nil {
			t.Fatal(err)
		}
		for _, got := range b.Put {
			if w := want[got.ID]; !got.Equal(w) || got.NoDrainingMark != w.NoDrainingMark || got.Unleased != w.Unleased {
				t.Errorf("a list has %+v\nMap returned %+v", got, w)
			}
			delete(want, got.ID)
		}
		break
	}
	for id := range want {
		t.Errorf("a list lacks %q, which Map maps", id)
	}
}
