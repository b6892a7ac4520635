// Package rules tests the alerting rules of observe/prometheus with the rule engine of
// Prometheus. It is a module of its own, because no other module should depend on
// Prometheus. The tests do what `promtool test rules` does: promtool itself links the
// service discovery of every cloud and takes several times as long to build.
package rules

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
)

const (
	file = "../../observe/prometheus/alerts.yml"
	step = 30 * time.Second
)

// load returns the rules of the file. They query db.
func load(t *testing.T, db storage.Storage) ([]*rules.AlertingRule, rules.QueryFunc) {
	t.Helper()
	engine := promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery)
	m := rules.NewManager(&rules.ManagerOptions{
		Context: t.Context(), Logger: slog.New(slog.DiscardHandler), Parser: parser.NewParser(parser.Options{}),
	})
	groups, errs := m.LoadGroups(step, labels.EmptyLabels(), "", nil, false, file)
	if errs != nil {
		t.Fatal(errs)
	}
	var all []*rules.AlertingRule
	for _, g := range groups {
		all = append(all, g.AlertingRules()...)
	}
	for _, r := range all {
		r.SetRestored(true)
	}
	if db == nil {
		return all, nil
	}
	return all, rules.EngineQueryFunc(engine, db)
}

// TestRules asserts that Prometheus accepts the file, and that every rule says what it
// means and what to do.
func TestRules(t *testing.T) {
	all, _ := load(t, nil)
	if len(all) == 0 {
		t.Fatal("the file has no rules")
	}
	for _, r := range all {
		for _, name := range []string{"summary", "description", "action"} {
			if text := r.Annotations().Get(name); !strings.HasSuffix(text, ".") {
				t.Errorf("%s: %s is %q", r.Name(), name, text)
			}
		}
		if s := r.Labels().Get("severity"); s != "warning" && s != "critical" {
			t.Errorf("%s: severity is %q", r.Name(), s)
		}
		if !slices.ContainsFunc(slices.Concat(stories, migrations), func(s story) bool {
			return slices.ContainsFunc(s.alerts, func(a alert) bool { return a.name == r.Name() })
		}) {
			t.Errorf("%s: it fires in no test", r.Name())
		}
	}
}

// story is a history of the metrics, one value for each step, and the alerts that fire
// in it.
type story struct {
	name   string
	series []string
	alerts []alert
}

// alert fires at every step from from to until.
type alert struct {
	name        string
	labels      string // without the name and the severity
	from, until time.Duration
	summary     string // at from; "" is not compared
}

func TestStories(t *testing.T) {
	for _, s := range slices.Concat(stories, migrations) {
		t.Run(s.name, func(t *testing.T) { s.play(t) })
	}
}

func (s story) play(t *testing.T) {
	db := promqltest.LoadedStorage(t, "load 30s\n  "+strings.Join(s.series, "\n  "))
	defer db.Close()
	all, query := load(t, db)
	for at := time.Duration(0); at <= 2*time.Hour; at += step {
		var got, want []string
		for _, r := range all {
			if _, err := r.Eval(context.Background(), 0, time.Unix(0, 0).Add(at), query, nil, 0); err != nil {
				t.Fatalf("%s at %v: %v", r.Name(), at, err)
			}
			for _, a := range r.ActiveAlerts() {
				if a.State == rules.StateFiring {
					got = append(got, r.Name()+" "+show(a.Labels))
					s.compareSummary(t, r.Name(), at, a)
				}
			}
		}
		for _, a := range s.alerts {
			if a.from <= at && at <= a.until {
				want = append(want, a.name+" "+a.labels)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("at %v:\nfires: %q\nwant:  %q", at, got, want)
		}
	}
}

// show returns the labels of an alert without its name and severity.
func show(l labels.Labels) string {
	var list []string
	l.Range(func(l labels.Label) {
		if l.Name != labels.AlertName && l.Name != "severity" {
			list = append(list, fmt.Sprintf("%s=%s", l.Name, l.Value))
		}
	})
	return strings.Join(list, " ")
}

func (s story) compareSummary(t *testing.T, name string, at time.Duration, got *rules.Alert) {
	for _, text := range []string{got.Annotations.Get("summary"), got.Annotations.Get("description"), got.Annotations.Get("action")} {
		if strings.Contains(text, "<error") || strings.Contains(text, "<no value>") {
			t.Errorf("%s at %v: %s", name, at, text)
		}
	}
	for _, a := range s.alerts {
		if text := got.Annotations.Get("summary"); a.name == name && a.labels == show(got.Labels) && a.from == at && a.summary != "" && a.summary != text {
			t.Errorf("%s at %v: %q, want %q", name, at, text, a.summary)
		}
	}
}

const (
	target  = `job="shop",instance="a"`
	greeter = target + `,service="greeter"`
	onA     = "instance=a job=shop service=greeter"
	onAx    = "instance=a job=shop registry=x service=greeter"
	end     = 2 * time.Hour
)

var stories = []story{{
	name: "healthy, after a short outage in the beginning",
	series: []string{
		`naming_watch_stale{` + target + `} 0 1 1 0x300`,
		`naming_watch_staleness_seconds{` + greeter + `} 0 30 60 stale _x300`,
		`naming_endpoint_registered{` + greeter + `} 2 3x300`,
		`naming_endpoint_registrations_total{` + greeter + `,reason="first"} 2 3x300`,
		`naming_endpoint_registration_failures_total{` + greeter + `,error_type="timeout"} 0 2 4x300`,
		`naming_endpoint_held{` + greeter + `} 0 3 3 0x300`,
		`naming_resolver_addresses{` + greeter + `} 0 0 3x300`,
		`naming_watch_failures_total{` + greeter + `,error_type="timeout"} 0 1 3x300`,
	},
}, {
	name: "stale",
	series: []string{
		`naming_watch_staleness_seconds{` + greeter + `,registry="x"} 0 30 60 90 120 stale _x300`,
		`naming_watch_staleness_seconds{` + target + `,service=""} _x4 61 stale _x300`,
		`naming_watch_staleness_seconds{job="shop",instance="b"} _x10 61 stale _x300`,
	},
	alerts: []alert{
		{"NamingStale", onAx, 90 * time.Second, 2 * time.Minute, `The endpoints of "greeter" in a have been stale for 1m 30s.`},
		{"NamingStale", "instance=a job=shop", 2 * time.Minute, 2 * time.Minute, `The endpoints of "" in a have been stale for 1m 1s.`},
		{"NamingStale", "instance=b job=shop", 5 * time.Minute, 5 * time.Minute, `The endpoints of "" in b have been stale for 1m 1s.`},
	},
}, {
	name: "never registered, until the credentials are renewed",
	series: []string{
		`naming_endpoint_registration_failures_total{` + greeter + `,error_type="timeout"} 1x300`,
		`naming_endpoint_registration_failures_total{` + greeter + `,error_type="permission_denied"} 0+1x40 40x300`,
		`naming_endpoint_registered{` + greeter + `} _x40 1x300`,
	},
	alerts: []alert{{"NamingNotRegistered", onA, 330 * time.Second, 1170 * time.Second, `a cannot register any endpoint of "greeter".`}},
}, {
	name: "registered once, and lost",
	series: []string{
		`naming_endpoint_registered{` + greeter + `,registry="x"} 1x20 0x20 1x300`,
		`naming_endpoint_registration_failures_total{` + greeter + `,registry="x",error_type="_OTHER"} 0x20 1+1x20 21x300`,
	},
	alerts: []alert{{"NamingNotRegistered", onAx, 930 * time.Second, 1230 * time.Second, ""}},
}, {
	name: "a process that could not register ended",
	series: []string{
		`naming_endpoint_registration_failures_total{` + greeter + `,error_type="timeout"} 0+1x8 stale _x300`,
	},
}, {
	name: "withdrawn after failures",
	series: []string{
		`naming_endpoint_registration_failures_total{` + greeter + `,error_type="timeout"} 0+1x8 8x300`,
		`naming_endpoint_registered{` + greeter + `} 1x8 0x300`,
	},
}, {
	name: "two of three registered",
	series: []string{
		`naming_endpoint_registered{` + greeter + `} 2x300`,
		`naming_endpoint_registration_failures_total{` + greeter + `,error_type="timeout"} 0+1x40 40x300`,
	},
	alerts: []alert{{"NamingRegistrationFailing", onA, 330 * time.Second, 22 * time.Minute,
		`a has fewer endpoints of "greeter" registered than it should.`}},
}, {
	name: "two of three servers ended",
	series: []string{
		`naming_endpoint_registered{` + greeter + `} 1x300`,
		`naming_endpoint_registered{job="shop",instance="b",service="greeter"} 1x150 stale _x300`,
		`naming_endpoint_registered{job="shop",instance="c",service="greeter"} 1x150 stale _x300`,
		`naming_endpoint_registered{job="mail",instance="c",service="mail"} 1x150 stale _x300`,
		`naming_endpoint_registered{job="half",instance="c",service="half"} 4x150 2x300`,
	},
	alerts: []alert{
		{"NamingFewerRegistered", "job=shop service=greeter", 4830 * time.Second, end, `Less than half of the endpoints of "greeter" of an hour ago are registered.`},
		{"NamingFewerRegistered", "job=mail service=mail", 4830 * time.Second, end, ""},
	},
}, {
	name: "held",
	series: []string{
		`naming_endpoint_held{` + greeter + `} 0 3x9 0x300`,
	},
	alerts: []alert{{"NamingHeld", onA, 150 * time.Second, 5 * time.Minute, `a holds 3 endpoints of "greeter" that the registry lost.`}},
}, {
	name: "malformed entries, of a new service and of an old one",
	series: []string{
		`naming_watch_malformed_entries_total{` + greeter + `} _x60 1x300`,
		`naming_watch_malformed_entries_total{job="shop",instance="b",service="greeter"} 1x120 2x300`,
	},
	alerts: []alert{
		{"NamingMalformed", onA, 30 * time.Minute, 2670 * time.Second, `a left out malformed entries of "greeter".`},
		{"NamingMalformed", "instance=b job=shop service=greeter", 0, 870 * time.Second, ""},
		{"NamingMalformed", "instance=b job=shop service=greeter", 3630 * time.Second, 4470 * time.Second, ""},
	},
}, {
	name: "a channel without addresses",
	series: []string{
		`naming_resolver_addresses{` + greeter + `} 3x9 0x9 3x300`,
	},
	alerts: []alert{{"NamingNoAddresses", onA, 6 * time.Minute, 570 * time.Second, `A gRPC channel of a has no addresses for "greeter".`}},
}}

// onNew has the labels of the registry "new" of a migration.
const onNew = "instance=a job=shop service=greeter side=new"

// migrations are stories of programs with two registries.
var migrations = []story{{
	name: "a healthy migration, in two phases at once, with moments of differences",
	series: []string{
		`naming_migration_phase{` + greeter + `} -1 0x20 3x300`,
		`naming_migration_phase{job="shop",instance="b",service="greeter"} 1x20 4x300`,
		`naming_migration_phase{job="shop",instance="b",service="mail"} 7x300`,
		`naming_migration_fallback{` + greeter + `} 0 1x18 0x300`,
		`naming_migration_missing{` + greeter + `} 0 5x9 0x300`,
		`naming_migration_extra{` + greeter + `} 3x300`,
		`naming_watch_staleness_seconds{` + greeter + `,side="new"} 0 30 60 stale _x300`,
		`naming_endpoint_registered{` + greeter + `,side=""} 2x300`,
		`naming_endpoint_registered{` + greeter + `,side="old"} 2x150 0x150`,
		`naming_endpoint_registered{` + greeter + `,side="new"} 0x10 2x300`,
		`naming_endpoint_registration_failures_total{` + greeter + `,side="new",error_type="timeout"} 0 2 4x300`,
	},
}, {
	name: "one registry does not answer",
	series: []string{
		`naming_watch_staleness_seconds{` + greeter + `,side="new"} 0 30 60 90 120 stale _x300`,
		`naming_watch_stale{` + target + `,side=""} 0x300`,
	},
	alerts: []alert{{"NamingMigrationSideStale", onNew, 90 * time.Second, 2 * time.Minute, `Registry new has not vouched for "greeter" in a for 1m 30s.`}},
}, {
	name: "no registry answers",
	series: []string{
		`naming_watch_staleness_seconds{` + greeter + `,side=""} 0 30 60 90 stale _x300`,
	},
	alerts: []alert{{"NamingStale", onA, 90 * time.Second, 90 * time.Second, ""}},
}, {
	name: "one registry cannot be written",
	series: []string{
		`naming_endpoint_registered{` + greeter + `,side=""} 1x300`,
		`naming_endpoint_registered{` + greeter + `,side="old"} 1x300`,
		`naming_endpoint_registration_failures_total{` + greeter + `,side="new",error_type="permission_denied"} 0+1x40 40x300`,
		`naming_endpoint_registered{` + greeter + `,side="new"} _x40 1x300`,
	},
	alerts: []alert{{"NamingMigrationSideNotRegistered", onNew, 330 * time.Second, 1170 * time.Second, `a cannot register any endpoint of "greeter" in registry new.`}},
}, {
	name: "two servers are not in the new registry",
	series: []string{
		`naming_migration_missing{` + greeter + `} 0 2x29 0x300`,
	},
	alerts: []alert{{"NamingMigrationMissing", onA, 330 * time.Second, 15 * time.Minute, `2 endpoints of "greeter" are only in the old registry, as a sees it.`}},
}, {
	name: "a fallback that lasts",
	series: []string{
		`naming_migration_fallback{` + greeter + `} 0 1x29 0x300`,
	},
	alerts: []alert{{"NamingMigrationFallback", onA, 630 * time.Second, 15 * time.Minute, `a needs both registries for "greeter" in a phase that uses one.`}},
}, {
	name: "the phase is not known",
	series: []string{
		`naming_migration_phase{` + greeter + `} -1x29 5x300`,
		`naming_migration_phase{job="shop",instance="b",service="greeter"} 5x300`,
	},
	alerts: []alert{{"NamingMigrationPhaseUnknown", onA, 5 * time.Minute, 870 * time.Second, `a does not know the phase of "greeter".`}},
}, {
	name: "a process does not follow",
	series: []string{
		`naming_migration_phase{` + greeter + `} 0x300`,
		`naming_migration_phase{job="shop",instance="b",service="greeter"} 3x9 4x10 0x300`,
	},
	alerts: []alert{{"NamingMigrationPhasesApart", "service=greeter", 6 * time.Minute, 10 * time.Minute, `Processes have "greeter" in phases that are 4 apart.`}},
}}

// TestDashboard asserts that Prometheus understands every expression of the dashboard.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("../../observe/prometheus/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	p := parser.NewParser(parser.Options{})
	n := 0
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			n++
			if _, err := p.ParseExpr(strings.ReplaceAll(target.Expr, "$__rate_interval", "1m")); err != nil {
				t.Errorf("%s: %v", panel.Title, err)
			}
		}
	}
	if n == 0 {
		t.Error("the dashboard has no expressions")
	}
}
