package main

import (
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/naming-go/naming/bench/child"
	"github.com/naming-go/naming/bench/peer"
	"github.com/naming-go/naming/bench/peers"
	"github.com/naming-go/naming/bench/report"
	"github.com/naming-go/naming/bench/roll"
	"github.com/naming-go/naming/bench/scenarios"
	"github.com/naming-go/naming/internal/servertest"
)

// The binary of the test serves as the child.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == child.Flag {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestPlants: the text that each plant replaces is in the library.
func TestPlants(t *testing.T) {
	for _, p := range plants {
		if _, err := p.apply(servertest.Root(t)); err != nil {
			t.Error(err)
		}
	}
}

// TestPeers: each backend has one floor, and all peers have what the report needs.
func TestPeers(t *testing.T) {
	floors, names := make(map[string]int), make(map[string]bool)
	for _, p := range peers.All() {
		if p.Floor {
			floors[p.Backend]++
		}
		if names[p.Name] || p.Module == "" || p.Entry == nil || p.Open == nil {
			t.Errorf("%q is there twice, or lacks something", p.Name)
		}
		names[p.Name] = true
	}
	if len(floors) != 2 || floors["etcd"] != 1 || floors["consul"] != 1 {
		t.Errorf("floors: %v", floors)
	}
}

// TestRun: a tiny run of the floor and this library has a value for every metric.
func TestRun(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run := &scenarios.Run{Size: scenarios.Tiny, Logf: t.Logf}
	for _, name := range []string{"floor-etcd", "ours-etcd", "ours-etcd-follow"} {
		p, err := peers.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		run.Subjects = append(run.Subjects, scenarios.Subject{Peer: p, Label: name, Exe: exe})
	}
	for _, s := range scenarios.All() {
		if s.Name == "S1" || s.Name == "S2" || s.Name == "S4" {
			if err := run.Do(t, s, "etcd"); err != nil {
				t.Fatal(s.Name, err)
			}
		}
	}
	rep := &report.Report{Rows: run.Rows()}
	var text strings.Builder
	if err := rep.Text(&text); err != nil {
		t.Fatal(err)
	}
	t.Log(text.String())
	if err := rep.HTML(io.Discard); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]report.Row)
	for _, r := range rep.Rows {
		if r.Err != "" || len(r.Values) == 0 && r.Text == "" || len(r.Ratios) == 0 && r.Floor && r.Values[0] > 0 {
			t.Errorf("%+v", r)
		}
		seen[strings.Join([]string{r.Scenario, r.Case, r.Peer, r.Metric}, "/")] = r
	}
	for _, want := range []string{
		"S1//ours-etcd/p50", "S1//ours-etcd/registration p50", "S2/W = 10/ours-etcd-follow/last",
		"S4/20 changes of 10/ours-etcd/last write to right state", "S4/20 changes of 10, 4 ClientConns with round_robin/ours-etcd/CPU",
	} {
		if _, ok := seen[want]; !ok {
			t.Errorf("there is no row %s", want)
		}
	}
	if w := seen["S2/10 built at once/ours-etcd/watchers"]; len(w.Values) != 1 || w.Values[0] != 1 {
		t.Errorf("10 consumers built at once: %v watchers, want 1", w.Values)
	}
}

// TestRollRows: a round of S7 is compared with the floor of the same round. A peer that
// failed in one round has failed.
func TestRollRows(t *testing.T) {
	res := func(p99 time.Duration) *roll.Result {
		return &roll.Result{Churn: roll.Phase{P99: p99, Failed: 1}, Quiet: roll.Phase{Failed: 2}, CPU: 3 * time.Second}
	}
	p := peer.Peer{Name: "p", Backend: "etcd"}
	rows := rollRows(p, res(20*time.Millisecond), nil, res(10*time.Millisecond))
	rows = add(rows, rollRows(p, res(30*time.Millisecond), nil, res(10*time.Millisecond)))
	rows = add(rows, rollRows(p, nil, errors.New("no"), nil))
	for metric, want := range map[string]struct{ values, ratios []float64 }{
		"churn p99":           {[]float64{20, 30}, []float64{2, 3}},
		"failed calls":        {[]float64{3, 3}, nil},
		"clients' CPU":        {[]float64{3, 3}, []float64{1, 1}},
		"p99, churn to quiet": {[]float64{0, 0}, nil},
	} {
		i := slices.IndexFunc(rows, func(r report.Row) bool { return r.Metric == metric })
		if i < 0 || !slices.Equal(rows[i].Values, want.values) || !slices.Equal(rows[i].Ratios, want.ratios) {
			t.Errorf("%s: %+v", metric, rows)
			continue
		}
		if failed := rows[i].Err != ""; failed != (metric == "p99, churn to quiet") {
			t.Errorf("%s: error %q", metric, rows[i].Err)
		}
	}
}
