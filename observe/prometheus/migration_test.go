package prometheusnaming_test

import (
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/migrate"
	prometheusnaming "github.com/naming-go/naming/observe/prometheus"
	"github.com/prometheus/client_golang/prometheus"
)

func newMigration(t testing.TB, opts *prometheusnaming.Options) *prometheusnaming.Migration {
	t.Helper()
	m, err := prometheusnaming.NewMigration("", "", opts)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestMigrationSides: each registry of a joined Client has metrics of its own, beside those
// of the joined Client.
func TestMigrationSides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMigration(t, nil)
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
		compare(t, "new is down", only(read(t, m), "watch_stale", "migration"), `
			migration_fallback{service="s"} 0
			migration_phase{service="s"} 3
			watch_stale{side=""} 0
			watch_stale{side="new"} 1
			watch_stale{side="old"} 0
			watch_staleness_seconds{service="s",side="new"} 60
		`)
	})
}

// TestMigrationHooks: the metrics of the migration itself follow the hooks.
func TestMigrationHooks(t *testing.T) {
	m := newMigration(t, &prometheusnaming.Options{ConstLabels: prometheus.Labels{"cluster": "c"}})
	h := m.Hooks()
	migration := func() []string { return only(read(t, m), "migration") }
	compare(t, "at first", migration(), "")
	h.PhaseChanged(migrate.PhaseChangedInfo{Service: "s"})
	compare(t, "unknown", migration(), `
		migration_phase{cluster="c",service="s"} -1
		migration_fallback{cluster="c",service="s"} 0
	`)
	h.PhaseChanged(migrate.PhaseChangedInfo{Service: "s", Known: true, To: migrate.State{Phase: migrate.PreferNew}})
	h.Narrowed(migrate.NarrowedInfo{Service: "s", Registry: "old", Narrow: true})
	h.Narrowed(migrate.NarrowedInfo{Service: "s", Registry: "new", Narrow: false})
	h.Fallback(migrate.FallbackInfo{Service: "s", Since: time.Unix(1, 0)})
	eps := make([]naming.Endpoint, 3)
	r := &migrate.Report{Known: true, Missing: eps[:1], Extra: eps[:2], Mismatch: make([]migrate.Mismatch, 3)}
	h.Parity(migrate.ParityInfo{Service: "s", Report: r, Since: time.Unix(1, 0)})
	compare(t, "differs", migration(), `
		migration_phase{cluster="c",service="s"} 4
		migration_fallback{cluster="c",service="s"} 1
		migration_narrowed{cluster="c",service="s",side="new"} 0
		migration_missing{cluster="c",service="s"} 1
		migration_extra{cluster="c",service="s"} 2
		migration_mismatch{cluster="c",service="s"} 3
	`)
	h.Fallback(migrate.FallbackInfo{Service: "s"})
	h.Narrowed(migrate.NarrowedInfo{Service: "s", Registry: "new", Narrow: true})
	h.Parity(migrate.ParityInfo{Service: "s", Report: &migrate.Report{Known: true}})
	compare(t, "agrees", migration(), `
		migration_phase{cluster="c",service="s"} 4
		migration_fallback{cluster="c",service="s"} 0
		migration_narrowed{cluster="c",service="s",side="new"} 1
		migration_missing{cluster="c",service="s"} 0
		migration_extra{cluster="c",service="s"} 0
		migration_mismatch{cluster="c",service="s"} 0
	`)
	h.Parity(migrate.ParityInfo{Service: "s", Report: new(migrate.Report)})
	compare(t, "is not compared", only(migration(), "migration_missing", "migration_extra", "migration_mismatch"), "")
	m.Close()
	compare(t, "closed", only(read(t, m), "migration", "watch_stale"), "")
}

// TestMigrationDropService: the phase of several services is the lowest.
func TestMigrationDropService(t *testing.T) {
	m := newMigration(t, &prometheusnaming.Options{DropService: true})
	h := m.Hooks()
	for _, s := range []string{"a", "b", "c"} {
		h.PhaseChanged(migrate.PhaseChangedInfo{Service: s, Known: true, To: migrate.State{Phase: migrate.Phase(len(s) + int(s[0]-'a'))}})
		h.Narrowed(migrate.NarrowedInfo{Service: s, Registry: "new", Narrow: s != "a"})
		h.Fallback(migrate.FallbackInfo{Service: s, Since: time.Unix(1, 0)})
		h.Parity(migrate.ParityInfo{Service: s, Report: &migrate.Report{Known: true, Missing: make([]naming.Endpoint, 2)}})
	}
	compare(t, "three services", only(read(t, m), "migration"), `
		migration_phase 1
		migration_fallback 3
		migration_narrowed{side="new"} 2
		migration_missing 6
		migration_extra 0
		migration_mismatch 0
	`)
}

// TestMigrationErrors: a constant label must not have the name of a label of the metrics.
func TestMigrationErrors(t *testing.T) {
	for _, name := range []string{"side", "service", "not valid\xff"} {
		if _, err := prometheusnaming.NewMigration("", "", &prometheusnaming.Options{ConstLabels: prometheus.Labels{name: "x"}}); err == nil || !strings.Contains(err.Error(), "prometheusnaming: ") {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := prometheusnaming.NewMigration("a", "a", nil); err == nil {
		t.Error("both registries have one name")
	}
}

// TestMigrationAllHooks: each hook of a migration is recorded, concurrently with reads.
func TestMigrationAllHooks(t *testing.T) {
	m := newMigration(t, nil)
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
		func() { read(t, m) },
	} {
		wg.Go(func() {
			for range 20 {
				f()
			}
		})
	}
	wg.Wait()
}
