package report

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Report is the report of a run.
type Report struct {
	Facts    []Fact    `json:"facts"`
	Titles   []Fact    `json:"-"` // of the scenarios
	Rows     []Row     `json:"-"`
	Verdicts []Verdict `json:"-"`
}

// Fact is a fact about a run, such as a version.
type Fact struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// table is the table of one case.
type table struct {
	scenario, backend, name string
	metrics                 []string // with their units
	peers                   []string
	cells                   map[[2]string]Row // by peer and metric
	errs                    []string
}

func (t *table) title() string {
	title := t.scenario + " " + t.backend
	if t.name != "" {
		title += ", " + t.name
	}
	return title
}

func heading(r Row) string {
	if r.Unit == "" {
		return r.Metric
	}
	return r.Metric + ", " + r.Unit
}

// tables returns the tables in the order of the rows.
func (r *Report) tables() []*table {
	var list []*table
	for _, row := range r.Rows {
		i := slices.IndexFunc(list, func(t *table) bool {
			return t.scenario == row.Scenario && t.backend == row.Backend && t.name == row.Case
		})
		if i < 0 {
			i = len(list)
			list = append(list, &table{scenario: row.Scenario, backend: row.Backend, name: row.Case, cells: make(map[[2]string]Row)})
		}
		t, h := list[i], heading(row)
		if !slices.Contains(t.metrics, h) {
			t.metrics = append(t.metrics, h)
		}
		if !slices.Contains(t.peers, row.Peer) {
			t.peers = append(t.peers, row.Peer)
		}
		t.cells[[2]string{row.Peer, h}] = row
		if row.Err != "" {
			t.errs = append(t.errs, row.Peer+": "+row.Metric+": "+row.Err)
		}
	}
	return list
}

// cell returns the text of a cell. A peer that failed without a value has "failed".
func (t *table) cell(peer, metric string) string {
	row, ok := t.cells[[2]string{peer, metric}]
	switch {
	case !ok:
		return "-"
	case row.Err != "" && len(row.Values) == 0:
		return "failed"
	case row.Err != "":
		return row.cell() + " !"
	}
	return row.cell()
}

// Text writes the report as tables.
func (r *Report) Text(w io.Writer) error {
	for _, f := range r.Facts {
		fmt.Fprintf(w, "%s: %s\n", f.Name, f.Text)
	}
	fmt.Fprintln(w, Legend)
	last := ""
	for _, t := range r.tables() {
		if t.scenario != last {
			last = t.scenario
			fmt.Fprintf(w, "\n# %s %s\n", t.scenario, r.titleOf(t.scenario))
		}
		fmt.Fprintf(w, "\n%s\n", t.title())
		tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
		fmt.Fprintf(tw, "\t%s\n", strings.Join(t.metrics, "\t"))
		for _, p := range t.peers {
			fmt.Fprint(tw, p)
			for _, m := range t.metrics {
				fmt.Fprint(tw, "\t", t.cell(p, m))
			}
			fmt.Fprintln(tw)
		}
		if err := tw.Flush(); err != nil {
			return err
		}
		for _, e := range t.errs {
			fmt.Fprintf(w, "! %s\n", e)
		}
	}
	if len(r.Verdicts) == 0 {
		return nil
	}
	fmt.Fprint(w, "\n# Targets\n\n")
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, v := range r.Verdicts {
		fmt.Fprintln(tw, strings.Join(v.fields(), "\t"))
	}
	return tw.Flush()
}

// Legend explains the tables.
const Legend = "A cell is the median of the repeats (least–greatest), and × its ratio to the floor of the same repeat. " +
	"! marks a peer that failed in some repeat. + marks this library made slower on purpose."

func (v Verdict) fields() []string {
	met, got := "met", number(v.Got)
	if !v.Met {
		met = "NOT MET"
	}
	if v.Got < 0 {
		got = "failed"
	}
	return []string{met, strings.TrimSpace(v.Scenario + " " + v.Backend + " " + v.Case), v.Peer, v.Metric,
		got, "<= " + strings.TrimSpace(number(v.Max)+" "+v.Unit)}
}

func (r *Report) titleOf(scenario string) string {
	for _, t := range r.Titles {
		if t.Name == scenario {
			return t.Text
		}
	}
	return ""
}

// Lines writes the report as lines of JSON: the facts, the rows, the verdicts.
func (r *Report) Lines(w io.Writer) error {
	enc := json.NewEncoder(w)
	if err := enc.Encode(r); err != nil {
		return err
	}
	for _, row := range r.Rows {
		if err := enc.Encode(row); err != nil {
			return err
		}
	}
	for _, v := range r.Verdicts {
		if err := enc.Encode(v); err != nil {
			return err
		}
	}
	return nil
}
