// Package scenarios measures peers. Each scenario starts servers, runs all peers on them
// in turns, and collects the replies of the children.
package scenarios

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/naming-go/naming/bench/child"
	"github.com/naming-go/naming/bench/peer"
	"github.com/naming-go/naming/bench/report"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/etcdtest"
)

// Subject is a peer with the program that runs it.
type Subject struct {
	peer.Peer
	Label string // the name in the report
	Exe   string // the program
	// Planted says that the subject is this library made slower on purpose.
	Planted bool
}

// Size says how much is measured.
type Size struct {
	Repeats       int
	Samples       int           // S1, for each repeat, on etcd
	ConsulSamples int           // and on Consul
	Registrations int           // S1, for each repeat
	Consumers     []int         // S2, on etcd
	ConsulMany    []int         // and on Consul
	Changes       int           // S2 and S3, for each repeat
	Endpoints     []int         // S3, on etcd
	ConsulLarge   []int         // and on Consul
	Churn         int           // S4: changes
	ChurnOf       int           // S4: endpoints
	ConnsOf       int           // S4 with ClientConns: endpoints
	Services      int           // S5
	Patience      time.Duration // how long a peer may take for one thing
}

// Sizes of a run. Tiny is for tests.
var (
	Full = Size{
		Repeats: 5, Samples: 300, ConsulSamples: 100, Registrations: 50,
		Consumers: []int{100, 1000, 5000}, ConsulMany: []int{100, 1000, 5000}, Changes: 11,
		Endpoints: []int{100, 10_000, 50_000}, ConsulLarge: []int{100, 10_000, 50_000},
		Churn: 2000, ChurnOf: 1000, ConnsOf: 250, Services: 2000, Patience: 2 * time.Minute,
	}
	Short = Size{
		Repeats: 2, Samples: 100, ConsulSamples: 40, Registrations: 20,
		Consumers: []int{100, 5000}, ConsulMany: []int{100, 1000}, Changes: 7,
		Endpoints: []int{100, 50_000}, ConsulLarge: []int{100, 5000},
		Churn: 2000, ChurnOf: 1000, ConnsOf: 100, Services: 2000, Patience: 30 * time.Second,
	}
	Tiny = Size{
		Repeats: 1, Samples: 3, ConsulSamples: 3, Registrations: 2,
		Consumers: []int{10}, ConsulMany: []int{10}, Changes: 2,
		Endpoints: []int{10}, ConsulLarge: []int{10},
		Churn: 20, ChurnOf: 10, ConnsOf: 10, Services: 5, Patience: 20 * time.Second,
	}
)

// Run is one run of the bench.
type Run struct {
	Size
	Subjects []Subject
	Logf     func(format string, args ...any)

	rows []*row
	turn int
}

// row is a report.Row in the making.
type row struct {
	report.Row
	byRepeat map[int]float64
	base     string // the floor's metric that it is compared with
}

// Scenario is something to measure.
type Scenario struct {
	Name, Title string
	Backends    []string
	run         func(*Run, testing.TB, *registry) error
	// options of the Consul agent
	consul *consultest.Options
}

// All returns the scenarios in their order.
func All() []Scenario {
	etcd, both := []string{"etcd"}, []string{"etcd", "consul"}
	// With the default limit no peer could have that many watches. S5 shows what happens
	// within the default.
	unlimited := &consultest.Options{Config: map[string]any{"limits": map[string]any{"http_max_conns_per_client": 12_000}}}
	return []Scenario{
		{Name: "S1", Title: "Propagation: from the write of an endpoint until a consumer has it", Backends: both, run: propagation},
		{Name: "S2", Title: "Fan-out: one change to a service of 10 endpoints, until the last of W consumers has it", Backends: both, run: fanOut, consul: unlimited},
		{Name: "S3", Title: "One big service of N endpoints: the first set, and one more change", Backends: both, run: bigService},
		{Name: "S4", Title: "Churn: changes as fast as one writer goes", Backends: etcd, run: churn},
		{Name: "S5", Title: "Many services of 3 endpoints in one process", Backends: both, run: manyServices},
		{Name: "S5u", Title: "Many services, without a limit of connections to the agent", Backends: []string{"consul"}, run: manyServices, consul: unlimited},
	}
}

// Do runs a scenario on a backend. The failure of a peer is in the rows. Do returns an
// error if the scenario could not be run.
func (r *Run) Do(tb testing.TB, s Scenario, backend string) error {
	reg := &registry{scenario: s.Name, backend: backend, patience: r.Patience}
	switch backend {
	case "etcd":
		c := etcdtest.Start(tb, nil)
		reg.member = c.Members[0]
		reg.servers.Etcd = []string{c.Members[0].Addr}
		reg.etcd = c.Client(tb)
	case "consul":
		a := consultest.Start(tb, s.consul)
		reg.agent, reg.servers.Consul = a, a.Addr
		reg.consul = a.Client(tb)
	default:
		return fmt.Errorf("there is no backend %q", backend)
	}
	return s.run(r, tb, reg)
}

// on returns the subjects of a scenario. Those made slower on purpose run in two scenarios
// only, which is enough to see the difference.
func (r *Run) on(reg *registry) []Subject {
	var on []Subject
	for _, s := range r.Subjects {
		if s.Backend == reg.backend && (!s.Planted || reg.scenario == "S1" || reg.scenario == "S3") {
			on = append(on, s)
		}
	}
	return on
}

// rotated returns the subjects of a scenario, each time in another order.
func (r *Run) rotated(reg *registry) []Subject {
	on := r.on(reg)
	r.turn++
	if len(on) == 0 {
		return nil
	}
	i := r.turn % len(on)
	return append(slices.Clone(on[i:]), on[:i]...)
}

// note adds the measurements of one subject in one case to the rows.
type note struct {
	run     *Run
	reg     *registry
	name    string // of the case
	repeat  int
	subject Subject
}

func (r *Run) note(reg *registry, name string, repeat int, s Subject) note {
	return note{r, reg, name, repeat, s}
}

func (n note) row(metric, unit string) *row {
	key := report.Row{
		Scenario: n.reg.scenario, Case: n.name, Backend: n.reg.backend,
		Peer: n.subject.Label, Floor: n.subject.Floor, Metric: metric, Unit: unit,
	}
	id := fmt.Sprintf("%+v", key)
	for _, r := range n.run.rows {
		if fmt.Sprintf("%+v", report.Row{
			Scenario: r.Scenario, Case: r.Case, Backend: r.Backend,
			Peer: r.Peer, Floor: r.Floor, Metric: r.Metric, Unit: r.Unit,
		}) == id {
			return r
		}
	}
	r := &row{Row: key, byRepeat: make(map[int]float64), base: metric}
	n.run.rows = append(n.run.rows, r)
	return r
}

// add adds a value.
func (n note) add(metric, unit string, value float64) *row {
	r := n.row(metric, unit)
	r.byRepeat[n.repeat] = value
	return r
}

// fail records that a metric could not be measured.
func (n note) fail(metric, unit string, err error) {
	if errors.Is(err, errors.ErrUnsupported) {
		n.row(metric, unit).Text = "none"
		return
	}
	n.run.Logf("%s %s %s: %s: %v", n.reg.scenario, n.name, n.subject.Label, metric, err)
	n.row(metric, unit).Err = err.Error()
}

// Rows returns the measurements. The rows of a case stand together, with the subjects in
// the order of Subjects.
func (r *Run) Rows() []report.Row {
	var cases []string
	order := func(o *row) (kind, subject int) {
		c := o.Scenario + "/" + o.Backend + "/" + o.Case
		if kind = slices.Index(cases, c); kind < 0 {
			kind, cases = len(cases), append(cases, c)
		}
		return kind, slices.IndexFunc(r.Subjects, func(s Subject) bool { return s.Label == o.Peer })
	}
	for _, o := range r.rows {
		order(o) // in the order in which they were measured
	}
	slices.SortStableFunc(r.rows, func(a, b *row) int {
		ak, as := order(a)
		bk, bs := order(b)
		return cmp.Or(cmp.Compare(ak, bk), cmp.Compare(as, bs))
	})
	var rows []report.Row
	for _, own := range r.rows {
		out := own.Row
		var floor *row
		for _, f := range r.rows {
			if f.Floor && f.Scenario == own.Scenario && f.Case == own.Case && f.Backend == own.Backend && f.Metric == own.base {
				floor = f
			}
		}
		for _, repeat := range slices.Sorted(maps.Keys(own.byRepeat)) {
			v := own.byRepeat[repeat]
			out.Values = append(out.Values, v)
			if floor != nil && floor.byRepeat[repeat] > 0 {
				out.Ratios = append(out.Ratios, v/floor.byRepeat[repeat])
			}
		}
		rows = append(rows, out)
	}
	return rows
}

// open starts the child of a subject.
func (reg *registry) open(s Subject) (*child.Child, error) {
	return child.Start(s.Exe, s.Name, reg.servers)
}

// ready adds consumers, and waits until all of them have the wanted number of endpoints.
func (reg *registry) ready(c *child.Child, services []string, each, workers, want int) (began int64, _ child.Reply, _ error) {
	req := child.Request{Services: services, Each: each, Workers: workers, Want: want, Timeout: reg.patience}
	req.Do = child.Arm
	if _, err := c.Do(req); err != nil {
		return 0, child.Reply{}, err
	}
	req.Do = child.Resolve
	resolved, err := c.Do(req)
	if err != nil {
		return 0, child.Reply{}, err
	}
	reply, err := c.Do(child.Request{Do: child.Wait, Timeout: reg.patience})
	return resolved.Began, reply, err
}

// change makes a change. It returns the time until all consumers of c but the first from
// had the change.
func (reg *registry) change(ctx context.Context, c *child.Child, from, want int, apply func(context.Context) error) (time.Duration, child.Reply, error) {
	if _, err := c.Do(child.Request{Do: child.Arm, From: from, Want: want}); err != nil {
		return 0, child.Reply{}, err
	}
	time.Sleep(2 * time.Millisecond) // the child's reply must not disturb the change
	ctx, cancel := context.WithTimeout(ctx, reg.patience)
	defer cancel()
	began := time.Now().UnixNano()
	if err := apply(ctx); err != nil {
		return 0, child.Reply{}, err
	}
	reply, err := c.Do(child.Request{Do: child.Wait, Timeout: reg.patience})
	return time.Duration(reply.At - began), reply, err
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
