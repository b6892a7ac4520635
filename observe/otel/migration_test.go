package otelnaming_test

import (
	"errors"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/migrate"
	otelnaming "github.com/naming-go/naming/observe/otel"
	"go.opentelemetry.io/otel/attribute"
)

func newMigration(t testing.TB, opts *otelnaming.Options) *otelnaming.Migration {
	t.Helper()
	m, err := otelnaming.NewMigration("", "", opts)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestMigrationSides: each registry of a joined Client has metrics of its own, beside those
// of the joined Client.
func TestMigrationSides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mt := newMeter()
		m := newMigration(t, &otelnaming.Options{MeterProvider: mt})
		old, next := new(memory.Store), new(memory.Store)
		apply(t, old, "s", naming.Add, "10.0.0.1:1")
		apply(t, next, "s", naming.Add, "10.0.0.1:1")
		j, err := migrate.Join(old, next, migrate.Fixed(migrate.State{Phase: migrate.Union}), &migrate.Options{
			Client:   naming.Options{Logger: quiet, Hooks: m.Joined.Hooks()},
			OldHooks: m.Old.Hooks(), NewHooks: m.New.Hooks(), Hooks: m.Hooks(),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		f, err := j.Follow("s", func() {})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		time.Sleep(time.Minute)
		next.Down(errors.New("no leader"))
		time.Sleep(time.Minute)
		compare(t, "new is down", only(mt.read(), "naming.watch.stale", "naming.migration"), `
			naming.migration.fallback{naming.service.name=s} 0
			naming.migration.phase{naming.service.name=s} 3
			naming.watch.stale{} 0
			naming.watch.stale{naming.side.name=new} 1
			naming.watch.stale{naming.side.name=old} 0
			naming.watch.staleness{naming.service.name=s naming.side.name=new} 60
		`)
	})
}

// TestMigrationHooks: the metrics of the migration itself follow the hooks.
func TestMigrationHooks(t *testing.T) {
	mt := newMeter()
	m := newMigration(t, &otelnaming.Options{MeterProvider: mt, Attributes: []attribute.KeyValue{attribute.String("c", "d")}})
	h := m.Hooks()
	migration := func() []string { return only(mt.read(), "naming.migration") }
	compare(t, "at first", migration(), "")
	h.PhaseChanged(migrate.PhaseChangedInfo{Service: "s"})
	compare(t, "unknown", migration(), `
		naming.migration.phase{c=d naming.service.name=s} -1
		naming.migration.fallback{c=d naming.service.name=s} 0
	`)
	h.PhaseChanged(migrate.PhaseChangedInfo{Service: "s", Known: true, To: migrate.State{Phase: migrate.PreferNew}})
	h.Narrowed(migrate.NarrowedInfo{Service: "s", Registry: "old", Narrow: true})
	h.Narrowed(migrate.NarrowedInfo{Service: "s", Registry: "new", Narrow: false})
	h.Fallback(migrate.FallbackInfo{Service: "s", Since: time.Unix(1, 0)})
	eps := make([]naming.Endpoint, 3)
	r := &migrate.Report{Known: true, Missing: eps[:1], Extra: eps[:2], Mismatch: make([]migrate.Mismatch, 3)}
	h.Parity(migrate.ParityInfo{Service: "s", Report: r, Since: time.Unix(1, 0)})
	compare(t, "differs", migration(), `
		naming.migration.phase{c=d naming.service.name=s} 4
		naming.migration.fallback{c=d naming.service.name=s} 1
		naming.migration.narrowed{c=d naming.service.name=s naming.side.name=new} 0
		naming.migration.missing{c=d naming.service.name=s} 1
		naming.migration.extra{c=d naming.service.name=s} 2
		naming.migration.mismatch{c=d naming.service.name=s} 3
	`)
	h.Fallback(migrate.FallbackInfo{Service: "s"})
	h.Narrowed(migrate.NarrowedInfo{Service: "s", Registry: "new", Narrow: true})
	h.Parity(migrate.ParityInfo{Service: "s", Report: &migrate.Report{Known: true}})
	compare(t, "agrees", migration(), `
		naming.migration.phase{c=d naming.service.name=s} 4
		naming.migration.fallback{c=d naming.service.name=s} 0
		naming.migration.narrowed{c=d naming.service.name=s naming.side.name=new} 1
		naming.migration.missing{c=d naming.service.name=s} 0
		naming.migration.extra{c=d naming.service.name=s} 0
		naming.migration.mismatch{c=d naming.service.name=s} 0
	`)
	h.Parity(migrate.ParityInfo{Service: "s", Report: new(migrate.Report)})
	compare(t, "is not compared", only(migration(), "naming.migration.missing", "naming.migration.extra", "naming.migration.mismatch"), "")
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	compare(t, "closed", only(mt.read(), "naming.migration", "naming.watch.stale"), "")
}

// TestMigrationErrors: the errors of the meter provider are returned.
func TestMigrationErrors(t *testing.T) {
	for _, kind := range []string{"counter", "updowncounter", "gauge", "callback"} {
		if _, err := otelnaming.NewMigration("", "", &otelnaming.Options{MeterProvider: failing{kind: kind}}); !errors.Is(err, errTest) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if _, err := otelnaming.NewMigration("a", "a", nil); err == nil {
		t.Error("both registries have one name")
	}
}

// TestMigrationAllHooks: each hook of a migration is recorded, concurrently with reads.
func TestMigrationAllHooks(t *testing.T) {
	mt := newMeter()
	m := newMigration(t, &otelnaming.Options{MeterProvider: mt})
	h := reflect.ValueOf(m.Hooks()).Elem()
	for i := range h.NumField() {
		if h.Field(i).IsNil() {
			t.Errorf("the hook %s is not recorded", h.Type().Field(i).Name)
		}
	}
	hooks := m.Hooks()
	var wg sync.WaitGroup
	for _, f := range []func(){
		func() { hooks.PhaseChanged(migrate.PhaseChangedInfo{Service: "s", Known: true}) },
		func() { hooks.Narrowed(migrate.NarrowedInfo{Service: "s", Registry: "new", Narrow: true}) },
		func() { hooks.Fallback(migrate.FallbackInfo{Service: "s"}) },
		func() { hooks.Parity(migrate.ParityInfo{Service: "s", Report: new(migrate.Report)}) },
		func() { mt.read() },
	} {
		wg.Go(func() {
			for range 20 {
				f()
			}
		})
	}
	wg.Wait()
}
