package migrate_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/etcd/etcdcodec"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/servertest"
	"github.com/naming-go/naming/migrate"
)

// pollState waits until a source has a state.
func pollState(t *testing.T, s migrate.Source, service string, want migrate.State) {
	t.Helper()
	servertest.Poll(t, "the state of "+service, func() error {
		if got, ok := s.State(service); !ok || got != want {
			return fmt.Errorf("it is %+v, %v, want %+v, error %w", got, ok, want, s.Err())
		}
		return nil
	})
}

// TestRealRecords: real etcd and Consul, in both directions. A record is in both of them
// without loss, a source sees it, and a registry that lost its records does not change a
// state.
func TestRealRecords(t *testing.T) {
	cluster, agent := etcdtest.Start(t, nil), consultest.Start(t, nil)
	etcdStore := func(prefix string) naming.Store {
		return etcd.New(cluster.Client(t), &etcd.Options{Prefix: prefix})
	}
	consulStore := func(prefix string) naming.Store {
		return consul.New(agent.Client(t), &consul.Options{Prefix: prefix})
	}
	long := strings.Repeat("group/", 80) + "greeter"
	for name, stores := range map[string][2]naming.Store{
		"etcd to Consul": {etcdStore("/a/"), consulStore("a.")},
		"Consul to etcd": {consulStore("b."), etcdStore("/b/")},
	} {
		t.Run(name, func(t *testing.T) {
			source, err := migrate.Records(stores[0], stores[1], &migrate.RecordsOptions{Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			defer source.Close()
			for service, s := range map[string]migrate.State{
				"*":                   {Phase: migrate.DualWrite},
				"greeter":             {Phase: migrate.PreferNew, Share: 0.1, By: strings.Repeat("x", 256)},
				"a/b c*~ünï%2F\u00a0": {Phase: migrate.Done, Share: 1, Seq: 41, By: `"ada" <a@b>`},
				long:                  {Phase: migrate.Union},
			} {
				want, err := migrate.WriteRecord(t.Context(), stores[0], stores[1], service, s)
				if err != nil {
					t.Fatal(err)
				}
				pollState(t, source, service, want)
				both := migrate.ReadRecords(t.Context(), stores[0], stores[1])
				if both.Old.States[service] != want || both.New.States[service] != want {
					t.Errorf("the registries have %+v and %+v, want %+v", both.Old, both.New, want)
				}
			}
		})
	}
	t.Run("loss", func(t *testing.T) { testRealLoss(t, agent, etcdStore("/c/"), consulStore("c.")) })
	t.Run("format", func(t *testing.T) {
		bare := etcd.New(cluster.Client(t), &etcd.Options{Prefix: "/d/", Codec: etcdcodec.GoZero()})
		_, err := migrate.WriteRecord(t.Context(), bare, consulStore("d."), "greeter", migrate.State{})
		wantTexts(t, err, "the old registry: ", "no metadata", "in the default format of its backend", "counts from now on")
	})
}

// testRealLoss loses all records of Consul.
func testRealLoss(t *testing.T, agent *consultest.Agent, old, next naming.Store) {
	source, err := migrate.Records(old, next, &migrate.RecordsOptions{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	want, err := migrate.WriteRecord(t.Context(), old, next, "greeter", migrate.State{Phase: migrate.NewRead})
	if err != nil {
		t.Fatal(err)
	}
	pollState(t, source, "greeter", want)

	// Consul withholds all endpoints of the agent.
	if err := agent.Client(t).Agent().EnableNodeMaintenance("test"); err != nil {
		t.Fatal(err)
	}
	if got := migrate.ReadRecords(t.Context(), old, next).New.States["greeter"]; got != want {
		t.Errorf("in maintenance, Consul has the record %+v", got)
	}
	agent.Restart(t)
	servertest.Poll(t, "Consul", func() error {
		both := migrate.ReadRecords(t.Context(), old, next)
		if both.New.States == nil {
			return both.Err()
		}
		if len(both.New.States) > 0 {
			t.Errorf("after a restart, Consul has %v", both.New.States)
		}
		return nil
	})
	servertest.Poll(t, "a source that reads both", source.Err)
	wantState(t, source, "greeter", want)
	again, err := migrate.Records(old, next, &migrate.RecordsOptions{FirstWait: time.Minute, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	pollState(t, again, "greeter", want)
	if want, err = migrate.WriteRecord(t.Context(), old, next, "greeter", want); err != nil {
		t.Fatal(err)
	}
	if got := migrate.ReadRecords(t.Context(), old, next).New.States["greeter"]; got != want || want.Seq != 2 {
		t.Errorf("written again, Consul has %+v, want %+v", got, want)
	}
}
