package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata anew")

func TestPercentile(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		p      float64
		want   float64
	}{
		{[]float64{3}, 50, 3},
		{[]float64{4, 1}, 50, 2.5},
		{[]float64{9, 1, 5}, 50, 5},
		{[]float64{9, 1, 5}, 0, 1},
		{[]float64{9, 1, 5}, 100, 9},
		{[]float64{1, 2, 3, 4, 5}, 99, 4.96},
	} {
		before := append([]float64(nil), tt.values...)
		if got := Percentile(tt.values, tt.p); math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("Percentile(%v, %v) = %v, want %v", tt.values, tt.p, got, tt.want)
		}
		for i := range before {
			if before[i] != tt.values[i] {
				t.Errorf("Percentile(%v) changed its argument to %v", before, tt.values)
			}
		}
	}
	if got := Percentile(nil, 50); !math.IsNaN(got) {
		t.Errorf("Percentile of nothing = %v, want NaN", got)
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 1: "1", 1.024: "1.02", 17.26: "17.3", 1234567.8: "1,234,568", 123: "123", 1000: "1,000", -1234: "-1,234", 0.004: "0.00", math.NaN(): "-",
	} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %q, want %q", v, got, want)
		}
	}
}

// sample is a report with everything that a report can have.
func sample() *Report {
	row := func(peer string, floor bool, metric, unit string, values, ratios []float64) Row {
		return Row{Scenario: "S1", Case: "N = 1,000", Backend: "etcd", Peer: peer, Floor: floor, Metric: metric, Unit: unit, Values: values, Ratios: ratios}
	}
	r := &Report{
		Facts:  []Fact{{"go", "go1.26"}, {"machine", "a <fast> one"}},
		Titles: []Fact{{"S1", "Propagation"}, {"S6", "Faults"}},
		Rows: []Row{
			row("floor-etcd", true, "p50", "ms", []float64{1, 2, 4}, []float64{1, 1, 1}),
			row("ours-etcd", false, "p50", "ms", []float64{1.1, 2, 3}, []float64{1.1, 1, 0.75}),
			row("ours-etcd", false, "allocations", "", []float64{12_345}, nil),
			row("broken", false, "p50", "ms", []float64{100}, []float64{50}),
			{Scenario: "S6", Backend: "consul", Peer: "ours-consul", Metric: "cut", Text: "passes"},
			{Scenario: "S6", Backend: "consul", Peer: "broken", Metric: "cut", Err: "panic: <nil> map"},
		},
	}
	r.Rows[3].Err = "it hung"
	r.Verdicts = Judge(r.Rows, []Target{
		{Scenario: "S1", Backend: "etcd", Peer: "ours-etcd", Metric: "p50", Ratio: true, Max: 1.02},
		{Scenario: "S1", Backend: "etcd", Peer: "ours-etcd", Metric: "p50", Max: 1.9},
		{Scenario: "S1", Backend: "etcd", Peer: "broken", Metric: "p50", Max: 1000},
		{Scenario: "S6", Backend: "consul", Peer: "broken", Metric: "cut", Max: 1},
		{Scenario: "S9", Backend: "etcd", Peer: "ours-etcd", Metric: "p50", Max: 1},
	})
	return r
}

// A target bounds the median of the values, or of the ratios. A peer that failed does not
// meet its target, whatever its values.
func TestJudge(t *testing.T) {
	got := sample().Verdicts
	want := []struct {
		got float64
		met bool
	}{{1, true}, {2, false}, {100, false}, {-1, false}}
	if len(got) != len(want) {
		t.Fatalf("%d verdicts, want %d: %+v", len(got), len(want), got)
	}
	for i, w := range want {
		if got[i].Got != w.got || got[i].Met != w.met {
			t.Errorf("verdict %d: %v %v, want %v %v", i, got[i].Got, got[i].Met, w.got, w.met)
		}
	}
}

var charts = regexp.MustCompile(`(?s)<svg.*?</svg>`)

func TestGolden(t *testing.T) {
	for name, render := range map[string]func(*Report, io.Writer) error{
		"report.txt": (*Report).Text, "report.jsonl": (*Report).Lines, "report.html": (*Report).HTML,
	} {
		var b bytes.Buffer
		if err := render(sample(), &b); err != nil {
			t.Fatal(name, err)
		}
		out := charts.ReplaceAll(b.Bytes(), []byte("<svg/>")) // the last digits of a chart depend on the processor
		path := "testdata/" + name
		if *update {
			if err := os.WriteFile(path, out, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out, want) {
			t.Errorf("%s differs from testdata (go test -update writes it):\n%s", name, out)
		}
	}
}

// Every line is JSON.
func TestLines(t *testing.T) {
	var b bytes.Buffer
	if err := sample().Lines(&b); err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(b.String()) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Errorf("%v: %s", err, line)
		}
		n++
	}
	if want := 1 + 6 + 4; n != want {
		t.Errorf("%d lines, want %d", n, want)
	}
}

// The page refers to no other file, escapes what it shows, and has well-formed charts.
func TestPageStandsAlone(t *testing.T) {
	var b bytes.Buffer
	if err := sample().HTML(&b); err != nil {
		t.Fatal(err)
	}
	html := b.String()
	for _, bad := range []string{"src=", "<link", "<script", "@import", "url(", "<fast>", "panic: <nil>"} {
		if strings.Contains(html, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if n := strings.Count(html, "<svg"); n != 1 {
		t.Errorf("%d charts, want 1, of the metric that several peers have", n)
	}
	svg := html[strings.Index(html, "<svg") : strings.Index(html, "</svg>")+len("</svg>")]
	dec := xml.NewDecoder(strings.NewReader(svg))
	for {
		if _, err := dec.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the chart is not XML: %v", err)
		}
	}
	for _, peer := range []string{"floor-etcd", "ours-etcd", "broken"} {
		if !strings.Contains(svg, peer) {
			t.Errorf("the chart lacks %s", peer)
		}
	}
}
