package bridge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/consul/consulcodec"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/etcd/etcdcodec"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/migrate"
	"github.com/naming-go/naming/migrate/bridge"
)

// formatted is a registry in memory that keeps what the format of a Mapper keeps.
type formatted struct {
	*memory.Store
	format naming.Mapper
}

func (f formatted) Map(service string, e naming.Endpoint) (naming.Endpoint, error) {
	return f.format.Map(service, e)
}

func (f formatted) Apply(ctx context.Context, service string, changes ...naming.Change) error {
	kept := slices.Clone(changes)
	for i, c := range changes {
		if c.Op == naming.Delete {
			continue
		}
		e, err := f.format.Map(service, c.Endpoint)
		if err != nil {
			return err
		}
		kept[i].Endpoint = e
	}
	return f.Store.Apply(ctx, service, kept...)
}

// formats are the formats of the backends. Their Stores are asked what they make of an
// endpoint, which needs no server.
func formats(t *testing.T) map[string]naming.Mapper {
	t.Helper()
	ec, err := clientv3.New(clientv3.Config{Endpoints: []string{"127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ec.Close() })
	cc, err := consul.NewClient(api.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]naming.Mapper)
	for name, c := range map[string]*etcd.Codec{
		"default": etcd.Default(), "kratos": etcdcodec.Kratos(), "kitex": etcdcodec.Kitex(),
		"go-micro": etcdcodec.GoMicro(), "go-zero": etcdcodec.GoZero(), "go-kit": etcdcodec.GoKit(),
	} {
		all["etcd "+name] = etcd.New(ec, &etcd.Options{Codec: c})
	}
	all["etcd unmarked"] = etcd.New(ec, &etcd.Options{NoDrainingMark: true})
	for name, c := range map[string]*consul.Codec{
		"default": nil, "kratos": consulcodec.Kratos(), "go-micro": consulcodec.GoMicro(), "grpc-spring": consulcodec.GRPCSpring(),
	} {
		all["consul "+name] = consul.New(cc, &consul.Options{Codec: c})
	}
	return all
}

// variety are endpoints as other programs and formats make them.
func variety() []naming.Endpoint {
	var all []naming.Endpoint
	for i, m := range []string{
		``, `{}`, `{"zone":"a","weight":3,"version":"v2","tags":["x"]}`, `[1,2]`, `"text"`, `{"a":{"b":[1.0,1e3]},"<":"&"}`,
		`{"@entry":{"endpoints":["grpc://h:1","http://h:2"]},"version":"v1"}`, `{"@entry":{"x":1},"@metadata":[1]}`, `{"url":"http://h7:1/x"}`,
	} {
		all = append(all, naming.Endpoint{ID: fmt.Sprintf("h%d:1", i), Addr: fmt.Sprintf("h%d:1", i), Metadata: json.RawMessage(m)})
	}
	all = append(all,
		naming.Endpoint{ID: "host/a~b %", Addr: "[::1]:80"},
		naming.Endpoint{ID: "unix:/run/x", Addr: "unix:/run/x", Metadata: json.RawMessage(`{"zone":"b"}`)},
		naming.Endpoint{ID: "7587869134945672710", Addr: "h:9"},
		naming.Endpoint{ID: "leaving", Addr: "h:10", Draining: true, Metadata: json.RawMessage(`{"k":"v"}`)},
	)
	return all
}

// Consul's Store says that it cannot elect.
func TestNoElectionOnConsul(t *testing.T) {
	client, err := consul.NewClient(api.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	c := consul.New(client, nil)
	if _, err := bridge.New(new(memory.Store), c, nil); !errors.Is(err, naming.ErrInvalid) {
		t.Errorf("a Bridge that elects on Consul: %v", err)
	}
	for _, o := range []*bridge.Options{{Election: new(memory.Store)}, {NoElection: true}} {
		if _, err := bridge.New(new(memory.Store), c, o); err != nil {
			t.Errorf("a Bridge that does not elect on Consul: %v", err)
		}
	}
}

// In each format of a target, each endpoint has one copy, with the ID of a copy and the
// right address. What differs from the native endpoint is what Plan says. The copies are
// put once, and deleted in the end.
func TestFormats(t *testing.T) {
	for name, format := range formats(t) {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			inWorld(t, func(w *world) { testFormat(w, format) })
		})
	}
}

// tapped is a tap that is a Mapper.
type tapped struct {
	*tap
	naming.Mapper
}

// checkElects fails the test unless New accepts the target for elections exactly if the
// target's format can hold an entry of an election.
func (w *world) checkElects(format naming.Mapper) {
	e := naming.Endpoint{ID: "m~a~b", Metadata: json.RawMessage(`{"holder":"x","epoch":7}`)}
	shown, err := format.Map(bridge.Service, e)
	can := err == nil && shown.Equal(e)
	if _, err := bridge.New(w.old, formatted{w.next, format}, nil); (err == nil) != can || err != nil && !errors.Is(err, naming.ErrInvalid) {
		w.Errorf("the format can hold an election: %v, New: %v", can, err)
	}
}

func testFormat(w *world, format naming.Mapper) {
	w.checkElects(format)
	w.put(w.old, "web", variety()...)
	elect := new(memory.Store)
	o := options()
	o.Election = elect
	tap := newTap(w.T, formatted{w.next, format})
	target := tapped{tap, format}
	b, stop := w.start(w.old, target, o)
	settle(5 * time.Minute)
	p, err := b.Plan(w.Context())
	if err != nil || len(p.Puts)+len(p.Deletes) > 0 {
		w.Fatalf("the plan of what is done: %+v, %v", p, err)
	}
	lost := make(map[string]migrate.Loss)
	for _, l := range p.Losses {
		lost[l.Endpoint.ID] = l
		w.Logf("%s loses %v: %v", l.Endpoint.ID, l.Fields, l.Err)
	}
	copies := w.list(w.next, "web")
	for _, e := range variety() {
		c, there := copies[migrate.CopyID("old", e.ID)]
		l, lacks := lost[e.ID]
		native, _ := migrate.Native(c)
		switch {
		case !there && l.Err == nil, there && c.Addr != e.Addr:
			w.Errorf("%s has the copy %+v, loss %v", e.ID, c, l)
		case there && native.Equal(e) == lacks:
			w.Errorf("%s has the copy %+v, metadata %s, loss %v", e.ID, c, native.Metadata, l)
		}
	}
	if puts, _ := tap.history(); puts != len(copies) {
		w.Errorf("%d puts of %d copies", puts, len(copies))
	}
	stop()
	w.next.Lag() // the next one has to know the copies by what the format keeps
	w.next.CatchUp()
	_, stop = w.start(w.old, target, o)
	settle(5 * time.Minute)
	if puts, _ := tap.history(); puts != 2*len(copies) {
		w.Errorf("%d puts of %d copies after a restart", puts, len(copies))
	}
	if again := w.list(w.next, "web"); len(again) != len(copies) {
		w.Errorf("after a restart: %v", slices.Sorted(maps.Keys(again)))
	}
	stop()
	p, err = b.Sweep(w.Context(), "")
	if err != nil || !p.Blown || len(p.Deletes) == 0 {
		w.Fatalf("Sweep: %+v, %v", p, err)
	}
	if p, err = b.Sweep(w.Context(), p.Digest); err != nil || p.Blown || len(p.Deletes) != 0 {
		w.Errorf("Sweep with an approval: %+v, %v", p, err)
	}
	w.want(w.next, "web", "")
}
