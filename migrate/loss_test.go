package migrate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/consul/consulcodec"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/etcd/etcdcodec"
	memstore "github.com/naming-go/naming/backend/memory"
)

// TestLosses: what is lost is known for each format, without a request.
func TestLosses(t *testing.T) {
	in := func(c *etcd.Codec, noMarks bool) naming.Store {
		return etcd.New(nil, &etcd.Options{Codec: c, NoDrainingMark: noMarks})
	}
	stores := map[string]naming.Store{
		"memory": new(memstore.Store), "default": in(etcd.Default(), false), "kratos": in(etcdcodec.Kratos(), false), "kratos unmarked": in(etcdcodec.Kratos(), true),
		"gozero": in(etcdcodec.GoZero(), false), "kitex": in(etcdcodec.Kitex(), false), "consul": consul.New(nil, nil),
		"consul kratos": consul.New(nil, &consul.Options{Codec: consulcodec.Kratos()}),
	}
	for _, test := range []struct{ store, endpoint, want string }{
		{"memory", `a@10.0.0.1:1 {"weight":1,"x":[1]} drain`, ""},
		{"default", `a@10.0.0.1:1 {"weight":1,"x":[1]} drain`, ""},
		{"consul", `a@10.0.0.1:1 {"weight":1.5,"x":[1]} drain`, ""},
		{"consul kratos", `a@10.0.0.1:1 {"weight":1,"x":[1]} drain`, ""},
		{"kratos", `a@10.0.0.1:1 {"weight":1,"zone":"a"} drain`, ""},
		{"kratos unmarked", `a@10.0.0.1:1 {"weight":1}`, "[draining-mark]"},
		{"kratos unmarked", `a@10.0.0.1:1 {"weight":1} nomark`, ""},
		{"kratos unmarked", `a@10.0.0.1:1 {"weight":1} drain`, "[draining-mark]"},
		{"kratos", `a@`, "refused"},
		{"gozero", `a@10.0.0.1:1 nomark`, ""},
		{"gozero", `a@10.0.0.1:1`, "[draining-mark]"},
		{"gozero", `a@10.0.0.1:1 {"weight":1}`, "refused"},
		{"kitex", `a@`, "refused"},
	} {
		losses, err := Losses(stores[test.store], "s", []naming.Endpoint{endpoint(test.endpoint)})
		if err != nil || len(losses) > 1 {
			t.Fatalf("%v, %v", losses, err)
		}
		got := ""
		if len(losses) == 1 {
			l := losses[0]
			got = fmt.Sprint(l.Fields)
			if l.Err != nil {
				got = "refused"
			}
			if !strings.Contains(l.String(), strings.Trim(got, "[]")) {
				t.Errorf("the text %q lacks %q", &l, got)
			}
		}
		if got != test.want {
			t.Errorf("%s: %s: got %q, want %q", test.store, test.endpoint, got, test.want)
		}
	}
}

// mapping is a Store whose format changes endpoints.
type mapping struct {
	*memstore.Store
	f func(naming.Endpoint) (naming.Endpoint, error)
}

func (m mapping) Map(_ string, e naming.Endpoint) (naming.Endpoint, error) { return m.f(e) }

// TestLossFields: each field that a format may lose has its name.
func TestLossFields(t *testing.T) {
	full := endpoint(`a@1 {"weight":2,"zone":"z","version":"v","tags":["t"],"x":1}`)
	for _, test := range []struct {
		want string
		f    func(e *naming.Endpoint)
	}{
		{"", func(e *naming.Endpoint) { e.Unleased = true }},
		{"[id]", func(e *naming.Endpoint) { e.ID = "b" }},
		{"[address]", func(e *naming.Endpoint) { e.Addr = "2" }},
		{"[weight zone version tags metadata]", func(e *naming.Endpoint) { e.Metadata = nil }},
		{"[metadata]", func(e *naming.Endpoint) {
			e.Metadata = []byte(`{"weight":2,"zone":"z","version":"v","tags":["t"]}`)
		}},
		{"[weight]", func(e *naming.Endpoint) {
			e.Metadata = []byte(`{"weight":3,"zone":"z","version":"v","tags":["t"],"x":1}`)
		}},
		{"[draining-mark]", func(e *naming.Endpoint) { e.NoDrainingMark = true }},
	} {
		store := mapping{f: func(e naming.Endpoint) (naming.Endpoint, error) { test.f(&e); return e, nil }}
		losses, err := Losses(store, "s", []naming.Endpoint{full})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, l := range losses {
			got += fmt.Sprint(l.Fields)
		}
		if got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
	// A member that says that the endpoint is draining.
	store := mapping{f: func(e naming.Endpoint) (naming.Endpoint, error) { e.Metadata = nil; return e, nil }}
	losses, err := Losses(store, "s", []naming.Endpoint{endpoint(`a@1 {"draining":true}`)})
	if err != nil || len(losses) != 1 || fmt.Sprint(losses[0].Fields) != "[draining]" {
		t.Errorf("got %v, %v", losses, err)
	}
}

func TestLossesUnknown(t *testing.T) {
	eps := []naming.Endpoint{endpoint("a@1")}
	if _, err := Losses(struct{ naming.Store }{new(memstore.Store)}, "s", eps); !errors.Is(err, ErrNoMapper) {
		t.Errorf("a store that is not a Mapper: %v", err)
	}
	broken := errors.New("broken")
	if _, err := Losses(mapping{f: func(e naming.Endpoint) (naming.Endpoint, error) { return e, broken }}, "s", eps); !errors.Is(err, broken) {
		t.Errorf("a store that cannot say: %v", err)
	}
}

func TestLossAccepted(t *testing.T) {
	for _, test := range []struct {
		loss Loss
		want bool
	}{
		{Loss{Fields: []string{"weight"}}, true}, {Loss{Fields: []string{"weight", "id"}}, false},
		{Loss{Fields: []string{"weight"}, Err: naming.ErrInvalid}, false}, {Loss{Err: naming.ErrInvalid}, false},
	} {
		if got := test.loss.Accepted(Accept{"weight"}); got != test.want {
			t.Errorf("%+v: Accepted is %v", test.loss, got)
		}
	}
}

func TestUnmappable(t *testing.T) {
	old := viewOf("c@", "a@10.0.0.1:1", "b@", "~new~d@")
	r := Comparison{Target: etcd.New(nil, &etcd.Options{Codec: etcdcodec.Kitex()})}.Compare("s", old, viewOf())
	if len(r.Unmappable) != 2 || r.Unmappable[0].Endpoint.ID != "b" || r.Unmappable[1].Endpoint.ID != "c" {
		t.Errorf("got %v, want b and c", r.Unmappable)
	}
}

func put(t *testing.T, s naming.Store, service string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err := s.Apply(context.Background(), service, naming.Change{Endpoint: endpoint(text)}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCompareStores: all services of both registries are compared, except those of
// migrations. A service that cannot be read does not hide the others.
func TestCompareStores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := new(memstore.Store), new(memstore.Store)
		put(t, old, "a", "x@1", "y@2")
		put(t, next, "a", "x@1")
		put(t, next, "b", "x@1")
		put(t, old, RecordService, "*@")
		put(t, next, BridgeService, "seat@")
		for i := range 30 {
			put(t, old, fmt.Sprintf("many-%02d", i), "x@1")
			put(t, next, fmt.Sprintf("many-%02d", i), "x@1")
		}
		reports, err := CompareStores(t.Context(), old, next)
		if err != nil || len(reports) != 32 {
			t.Fatalf("%d reports, %v", len(reports), err)
		}
		if got := reports[0].Service + ": " + brief(reports[0]) + " " + reports[1].Service + ": " + brief(reports[1]); got != "a: missing y@2 b: extra x@1" {
			t.Error(got)
		}
		for _, r := range reports[2:] {
			if !r.Equal() || r.OldCount != 1 || r.OldAsOf.IsZero() {
				t.Errorf("%+v", r)
			}
		}
		if reports, err := CompareStores(t.Context(), old, next, "b", "a"); err != nil || len(reports) != 2 || reports[0].Service != "b" {
			t.Errorf("%v, %v", reports, err)
		}
	})
}

func TestCompareStoresFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := new(memstore.Store), new(memstore.Store)
		put(t, old, "a", "x@1")
		next.Refuse(errors.New("no leader"))
		reports, err := CompareStores(t.Context(), old, next, "a", "b", "c", "d", "e", "f", "g")
		if err == nil || len(reports) != 7 || reports[0].Known || reports[0].Equal() || !strings.Contains(err.Error(), "new registry") || !strings.Contains(err.Error(), "and 2 more errors") {
			t.Errorf("%v, %v", reports, err)
		}
		if _, err := CompareStores(t.Context(), old, next); err == nil || !strings.Contains(err.Error(), "the services of the new registry") {
			t.Errorf("the list of services: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		silent := new(memstore.Store)
		silent.Silence()
		if _, err := CompareStores(ctx, old, silent, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a registry that does not answer: %v", err)
		}
	})
}

// TestCompareStoresAtOnce: services are read several at a time, and not all at once.
func TestCompareStoresAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := new(memstore.Store), new(memstore.Store)
		old.Delay(time.Second)
		next.Delay(time.Second)
		services := make([]string, 32)
		for i := range services {
			services[i] = fmt.Sprint(i)
		}
		start := time.Now()
		if _, err := CompareStores(t.Context(), old, next, services...); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 4*time.Second {
			t.Errorf("%d services took %v, want 4s", len(services), took)
		}
	})
}
