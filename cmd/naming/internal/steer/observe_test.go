package steer

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/migrate"
)

// broken is a registry that cannot be reached.
type broken struct{ naming.Store }

var errBroken = errors.New("connection refused")

func (*broken) Apply(context.Context, string, ...naming.Change) error { return errBroken }

func (*broken) Watch(context.Context, string) iter.Seq2[naming.Batch, error] {
	return func(yield func(naming.Batch, error) bool) { yield(naming.Batch{}, errBroken) }
}

func (*broken) Services(context.Context) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) { yield(nil, errBroken) }
}

func registries(old, next naming.Store) Registries {
	return Registries{Old: old, New: next, OldRecords: old, NewRecords: next}
}

func fill(t *testing.T, s naming.Store, service string, endpoints ...naming.Endpoint) {
	t.Helper()
	for _, e := range endpoints {
		if err := s.Apply(t.Context(), service, naming.Change{Endpoint: e}); err != nil {
			t.Fatal(err)
		}
	}
}

func record(t *testing.T, r Registries, service string, s migrate.State) {
	t.Helper()
	if _, err := migrate.WriteRecord(t.Context(), r.OldRecords, r.NewRecords, service, s); err != nil {
		t.Fatal(err)
	}
}

func names(w *World) (list []string) {
	for _, o := range w.Services {
		list = append(list, o.Service)
	}
	return list
}

// TestObserve: the services of both registries and of the records are seen, with the record
// that counts.
func TestObserve(t *testing.T) {
	var old, next memory.Store
	r := registries(&old, &next)
	fill(t, &old, "a", at("a:1", "a:2")...)
	fill(t, &next, "a", at("a:1")...)
	fill(t, &next, "b", at("b:1")...)
	record(t, r, AllServices, phase(1))
	record(t, r, "a", phase(3))
	record(t, r, "gone", phase(2))
	w := Observe(t.Context(), r, nil)
	if got := names(w); !slices.Equal(got, []string{"a", "b", "gone"}) {
		t.Fatalf("services: %q", got)
	}
	a, b := w.Services[0], w.Services[1]
	if !a.Own || a.State.Phase != 3 || len(a.Report.Missing) != 1 || a.RecordsDiffer() || a.Joined() != 1 {
		t.Errorf("a: %+v", a)
	}
	if b.Own || !b.Known || b.State.Phase != 1 || !b.Report.Known || len(b.Report.Extra) != 1 {
		t.Errorf("b: %+v", b)
	}
	if got := names(Observe(t.Context(), r, nil, "b", "none")); !slices.Equal(got, []string{"b", "none"}) {
		t.Errorf("named: %q", got)
	}
	if got := names(Observe(t.Context(), r, nil, "none", AllServices)); !slices.Equal(got, []string{"a", "b", "gone", "none"}) {
		t.Errorf("named and all: %q", got)
	}
}

// TestObserveDown: a registry that is down closes all gates, also that of the record of all
// services where no service has it, and the other registry is still seen.
func TestObserveDown(t *testing.T) {
	var old memory.Store
	r := registries(&old, &old)
	r.NewRecords, r.New = &broken{}, &broken{}
	fill(t, &old, "a", at("a:1")...)
	if _, err := migrate.WriteRecord(t.Context(), r.OldRecords, r.NewRecords, "a", phase(1)); err == nil {
		t.Fatal("the record was written to a broken registry")
	}
	w := Observe(t.Context(), r, nil)
	if w.OldErr != nil || !errors.Is(w.NewErr, errBroken) || len(w.Services) != 1 || w.Services[0].Report.Known || !w.Services[0].Known {
		t.Fatalf("world: %+v", w)
	}
	for _, target := range Targets(w) {
		to, err := Wish{Phase: 2, HasPhase: true}.Forward(target)
		if err != nil {
			t.Fatal(err)
		}
		gates := Judge{}.Gates(w, target, to)
		if len(gates) != 1 || gates[0].Open || gates[0].Closed()[0].Name != "answers" {
			t.Errorf("target %s: %+v", target.Record, gates)
		}
	}
	if s := (Judge{}).StatusOf(w); s.NewError == "" || s.Services[0].New.Error == "" || s.Services[0].Old.Endpoints != 1 {
		t.Errorf("status: %+v", s)
	}
	if w := RecordsOnly(t.Context(), r, "a"); w.NewErr == nil || len(w.Services) != 1 || w.Services[0].State.Phase != 1 {
		t.Errorf("records only: %+v", w)
	}
}

// partly is a registry that refuses a service to the caller.
type partly struct {
	naming.Store
	refused string
}

func (p *partly) Watch(ctx context.Context, service string) iter.Seq2[naming.Batch, error] {
	if service != p.refused {
		return p.Store.Watch(ctx, service)
	}
	return func(yield func(naming.Batch, error) bool) { yield(naming.Batch{}, naming.ErrPermission) }
}

// TestObservePart: a part of a registry that cannot be read is an error of the World, and is
// in its document.
func TestObservePart(t *testing.T) {
	var old, next memory.Store
	fill(t, &old, "a", at("a:1")...)
	fill(t, &old, "b", at("b:1")...)
	observe := func(refused string) (*World, *Status) {
		r := registries(&old, &partly{&next, refused})
		w := Observe(t.Context(), r, nil)
		return w, Judge{}.StatusOf(w)
	}
	fill(t, &next, "b", at("b:1")...)
	if w, _ := observe("b"); !errors.Is(w.NewErr, naming.ErrPermission) || !strings.Contains(w.NewErr.Error(), `"b"`) || w.OldErr != nil {
		t.Errorf("an error of a service: %v, %v", w.OldErr, w.NewErr)
	}
	if w, s := observe(migrate.RecordService); w.NewErr != nil || w.Records.New.Err == nil || s.NewRecordsError == "" || s.OldRecordsError != "" {
		t.Errorf("an error of the records: %+v", s)
	}
	if w, s := observe(migrate.BridgeService); w.NewErr != nil || w.BridgesErr == nil || s.BridgesError == "" {
		t.Errorf("an error of the bridges: %+v", s)
	}
}

// TestRecordsDiffer: a registry that has another record, or none, is found and has a remedy.
func TestRecordsDiffer(t *testing.T) {
	var old, next memory.Store
	r := registries(&old, &next)
	fill(t, &old, "a", at("a:1")...)
	record(t, r, AllServices, phase(1))
	if err := next.Apply(t.Context(), migrate.RecordService, naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: AllServices}}); err != nil {
		t.Fatal(err)
	}
	w := Observe(t.Context(), r, nil)
	g := Judge{}.Gate(w.Services[0], phase(2))
	i := slices.IndexFunc(g.Conditions, func(c Condition) bool { return c.Name == "records" })
	if !w.Services[0].RecordsDiffer() || i < 0 || g.Conditions[i].Holds || !strings.Contains(g.Conditions[i].Opens, "--service '*' --to dual-write") {
		t.Errorf("gate: %+v", g)
	}
	s := Judge{}.StatusOf(w)
	if !s.Services[0].RecordsDiffer || s.Services[0].Old.Record == nil || s.Services[0].New.Record != nil || !slices.Equal(s.Disagreement, []string{AllServices}) {
		t.Errorf("status: %+v", s)
	}
}

// TestStatusDocument: scripts depend on the names of the fields.
func TestStatusDocument(t *testing.T) {
	var old, next memory.Store
	r := registries(&old, &next)
	fill(t, &old, "a", at("a:1")...)
	record(t, r, "a", migrate.State{Phase: 4, Share: 0.5, By: "ada"})
	b, err := json.Marshal(Judge{}.StatusOf(Observe(t.Context(), r, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"all":{"phase":"unknown","number":-1}`, `"services":[{"service":"a","phase":"prefer-new","number":4,"share":0.5,"record":"own","seq":1,"by":"ada"`,
		`"old":{"endpoints":1,"copies":0,"withheld":0,`, `"record":{"phase":"prefer-new","number":4,"share":0.5}`, `"missing":1`, `"bridges":[]`,
		`"next":{"service":"a","from":{"phase":"prefer-new","number":4,"share":0.5},"to":{"phase":"prefer-new","number":4,"share":1},"open":false`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in %s", want, b)
		}
	}
}

// silent is a registry that accepts connections and never answers.
type silent struct{ naming.Store }

func (*silent) Watch(ctx context.Context, _ string) iter.Seq2[naming.Batch, error] {
	return func(yield func(naming.Batch, error) bool) {
		<-ctx.Done()
		yield(naming.Batch{}, ctx.Err())
	}
}

func (*silent) Services(ctx context.Context) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		<-ctx.Done()
		yield(nil, ctx.Err())
	}
}

// TestObserveSilent: a silent registry costs the time of ctx, and the other one is seen.
func TestObserveSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var next memory.Store
		fill(t, &next, "a", at("a:1")...)
		ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
		defer cancel()
		begin := time.Now()
		w := Observe(ctx, registries(&silent{}, &next), nil)
		if w.OldErr == nil || w.NewErr != nil || len(w.Services) != 1 || len(w.Services[0].New.View.Endpoints) != 1 {
			t.Errorf("world: %+v", w)
		}
		if d := time.Since(begin); d != 9*time.Second {
			t.Errorf("it took %v", d)
		}
		begin = time.Now()
		ctx, cancel = context.WithTimeout(t.Context(), 9*time.Second)
		defer cancel()
		if w := RecordsOnly(ctx, registries(&silent{}, &next), "a"); w.OldErr == nil || time.Since(begin) > 3*time.Second {
			t.Errorf("after %v: %+v", time.Since(begin), w)
		}
	})
}
