package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming/bench/actor"
	"github.com/naming-go/naming/bench/cases"
	"github.com/naming-go/naming/bench/churn"
	"github.com/naming-go/naming/bench/peer"
	"github.com/naming-go/naming/bench/peers"
	"github.com/naming-go/naming/bench/report"
	"github.com/naming-go/naming/bench/roll"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/servertest"
)

// roles returns the roles of the processes of the scenarios in this file.
func roles() map[string]actor.Role {
	roles := roll.Roles(peers.All())
	roles[cases.RoleName] = cases.Role(peers.All())
	return roles
}

// rest runs the scenarios that are not measured in turns. They take long. S6 and S7 run
// only if they are named, or in a full run without names. S8 runs only if it is named.
type rest struct {
	peers    []peer.Peer
	named    []string // the scenarios that were asked for
	full     bool
	repeats  int           // S7, if full, and three times at most
	parallel int           // S6
	churn    time.Duration // S8
	out      string        // the directory for results that do not fit into a table; empty: none
	logf     func(format string, args ...any)
}

// run adds the results to a report.
func (r rest) run(ctx context.Context, rep *report.Report) error {
	scenarios := []struct {
		name, title string
		byName      bool
		run         func(context.Context) (any, []report.Row, error)
	}{
		{"S6", "Faults: what a registry goes through, and who is right afterwards", false, r.faults},
		{"S7", "Rolling restart of all servers under calls", false, r.rolling},
		{"S8", "Memory and goroutines while endpoints, registrations and consumers come and go", true, r.flat},
	}
	var errs []error
	for _, s := range scenarios {
		if ctx.Err() != nil || !slices.Contains(r.named, s.name) && (s.byName || !r.full || len(r.named) > 0) {
			continue
		}
		rep.Titles = append(rep.Titles, report.Fact{Name: s.name, Text: s.title})
		result, rows, err := s.run(ctx)
		rep.Rows = append(rep.Rows, rows...)
		if r.out != "" {
			err = errors.Join(err, r.write(s.name, result))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
		}
	}
	return errors.Join(errs...)
}

func (r rest) write(name string, result any) error {
	b, err := json.MarshalIndent(result, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(r.out, 0o777); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.out, name+".json"), append(b, '\n'), 0o666)
}

// restTargets returns the targets of these scenarios.
func restTargets() []report.Target {
	var list []report.Target
	for _, p := range []struct{ name, backend string }{{"ours-etcd", "etcd"}, {"ours-consul", "consul"}} {
		list = append(list,
			report.Target{Scenario: "S6", Backend: p.backend, Peer: p.name, Metric: "failed", Max: 0},
			report.Target{Scenario: "S7", Backend: p.backend, Peer: p.name, Metric: "p99, churn to quiet", Max: 1.5},
			report.Target{Scenario: "S7", Backend: p.backend, Peer: p.name, Metric: "churn p99", Ratio: true, Max: 1},
			report.Target{Scenario: "S7", Backend: p.backend, Peer: p.name, Metric: "failed calls", Max: 0},
			report.Target{Scenario: "S8", Backend: p.backend, Peer: p.name, Metric: "not flat", Max: 0})
	}
	return list
}

func (r rest) faults(ctx context.Context) (any, []report.Row, error) {
	results := cases.Run(ctx, r.peers, cases.Options{Parallel: r.parallel, Logf: r.logf})
	var rows []report.Row
	failed := make(map[string]report.Row)
	for _, res := range results {
		row := report.Row{Scenario: "S6", Backend: res.Backend, Peer: res.Peer, Metric: "(" + res.Case + ")", Text: res.String()}
		rows = append(rows, row)
		f, ok := failed[res.Peer]
		if !ok {
			f = report.Row{Scenario: "S6", Backend: res.Backend, Peer: res.Peer, Metric: "failed", Values: []float64{0}}
		}
		if res.Verdict == cases.Fails || res.Verdict == cases.Invalid {
			f.Values[0]++
		}
		failed[res.Peer] = f
	}
	for _, name := range slices.Sorted(maps.Keys(failed)) {
		rows = append(rows, failed[name])
	}
	return results, rows, ctx.Err()
}

// servers starts a registry that ends with the program.
func servers(p *servertest.Program, backend string, etcdArgs ...string) peer.Servers {
	if backend == "consul" {
		return peer.Servers{Consul: consultest.Start(p, nil).Addr}
	}
	return peer.Servers{Etcd: []string{etcdtest.Start(p, &etcdtest.Options{Args: etcdArgs}).Members[0].Addr}}
}

func (r rest) rolling(ctx context.Context) (any, []report.Row, error) {
	opts, rounds := roll.Options{Logf: r.logf}, min(r.repeats, 3)
	if !r.full {
		rounds = 1
		opts.Servers, opts.Clients, opts.Rate, opts.Quiet = 40, 20, 300, 10*time.Second
	}
	var results []*roll.Result
	var rows []report.Row
	for range rounds {
		floors := make(map[string]*roll.Result) // by backend
		for _, p := range r.peers {
			// Readers without gRPC are the same library, which is measured already.
			if p.Name == "ours-etcd-follow" || ctx.Err() != nil {
				continue
			}
			res, err := r.roll(ctx, p, opts)
			switch {
			case errors.Is(err, errors.ErrUnsupported):
				continue
			case err != nil:
				r.logf("S7 %s: %v", p.Name, err)
			default:
				results = append(results, res)
			}
			if p.Floor {
				floors[p.Backend] = res
			}
			rows = add(rows, rollRows(p, res, err, floors[p.Backend]))
		}
	}
	slices.SortStableFunc(rows, func(a, b report.Row) int {
		order := func(row report.Row) int {
			return slices.IndexFunc(r.peers, func(p peer.Peer) bool { return p.Name == row.Peer })
		}
		return cmp.Compare(order(a), order(b))
	})
	return results, rows, ctx.Err()
}

// roll runs S7 for one peer.
func (r rest) roll(ctx context.Context, p peer.Peer, opts roll.Options) (res *roll.Result, err error) {
	err = errors.New("the servers did not start")
	program := servertest.NewProgram("bench", os.Stderr)
	program.Run(func() bool {
		res, err = roll.Run(ctx, p, servers(program, p.Backend), opts)
		return true
	})
	return res, err
}

// rollRows returns the rows of one run, compared with the floor's run of the same round.
func rollRows(p peer.Peer, res *roll.Result, err error, floor *roll.Result) []report.Row {
	row := report.Row{Scenario: "S7", Backend: p.Backend, Peer: p.Name, Floor: p.Floor}
	if err != nil {
		row.Metric, row.Err = "p99, churn to quiet", err.Error()
		return []report.Row{row}
	}
	var rows []report.Row
	for _, m := range []struct {
		metric, unit string
		of           func(*roll.Result) float64
		compared     bool
	}{
		{"quiet p50", "ms", func(r *roll.Result) float64 { return ms(r.Quiet.P50) }, false},
		{"quiet p99", "ms", func(r *roll.Result) float64 { return ms(r.Quiet.P99) }, false},
		{"churn p50", "ms", func(r *roll.Result) float64 { return ms(r.Churn.P50) }, true},
		{"churn p99", "ms", func(r *roll.Result) float64 { return ms(r.Churn.P99) }, true},
		{"p99, churn to quiet", "", func(r *roll.Result) float64 { return r.Ratio }, false},
		{"clients' CPU", "s", func(r *roll.Result) float64 { return r.CPU.Seconds() }, true},
		{"calls", "", func(r *roll.Result) float64 { return float64(r.Quiet.Calls + r.Churn.Calls) }, false},
		{"failed calls", "", func(r *roll.Result) float64 { return float64(r.Quiet.Failed + r.Churn.Failed) }, false},
		{"servers not stopped in order", "", func(r *roll.Result) float64 { return float64(r.Disorder) }, false},
	} {
		row.Metric, row.Unit, row.Values, row.Ratios = m.metric, m.unit, []float64{m.of(res)}, nil
		if m.compared && floor != nil && m.of(floor) > 0 {
			row.Ratios = []float64{m.of(res) / m.of(floor)}
		}
		rows = append(rows, row)
	}
	return rows
}

// add adds the rows of a repeat to those of earlier repeats.
func add(rows, more []report.Row) []report.Row {
	for _, m := range more {
		i := slices.IndexFunc(rows, func(o report.Row) bool { return o.Peer == m.Peer && o.Metric == m.Metric })
		if i < 0 {
			rows = append(rows, m)
			continue
		}
		o := &rows[i]
		o.Values, o.Ratios, o.Err = append(o.Values, m.Values...), append(o.Ratios, m.Ratios...), cmp.Or(o.Err, m.Err)
	}
	return rows
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// flat measures this library alone, in this process. Anything that runs in the process
// would count.
func (r rest) flat(ctx context.Context) (any, []report.Row, error) {
	const rate = 200
	opts := churn.Options{Changes: int(r.churn.Seconds() * rate), Rate: rate, Samples: max(int(r.churn.Minutes()), 12), Logf: r.logf}
	results := make(map[string]*churn.Result)
	var rows []report.Row
	var errs []error
	for _, p := range r.peers {
		if p.Name != "ours-etcd" {
			continue
		}
		program := servertest.NewProgram("bench", os.Stderr)
		ok := program.Run(func() bool {
			// Production systems compact as well, and without it the disk would fill up.
			s := servers(program, p.Backend, "--auto-compaction-mode", "revision", "--auto-compaction-retention", "10000")
			client, err := p.Open(ctx, s)
			if err != nil {
				program.Fatal(err)
			}
			defer client.Close()
			writer, err := clientv3.New(clientv3.Config{Endpoints: s.Etcd})
			if err != nil {
				program.Fatal(err)
			}
			defer writer.Close()
			res, err := churn.Run(ctx, client, churn.Etcd(writer, p), opts)
			results[p.Name] = res
			row := report.Row{Scenario: "S8", Backend: p.Backend, Peer: p.Name, Metric: "not flat", Values: []float64{1}}
			if err != nil {
				row.Err, row.Values = err.Error(), nil
			} else if res.Flat {
				row.Values[0] = 0
			}
			what := row
			what.Metric, what.Values, what.Err, what.Text = "what was found", nil, "", fmt.Sprintf("%d changes in %v; %s", res.Changes, res.Took.Round(time.Second), res.Why)
			rows = append(rows, row, what)
			return true
		})
		if !ok {
			errs = append(errs, fmt.Errorf("%s could not be run", p.Name))
		}
	}
	return results, rows, errors.Join(errs...)
}
