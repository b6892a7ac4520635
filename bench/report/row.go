// Package report writes the results of a run as a table, as lines of JSON and as a page of
// HTML.
package report

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Row is one metric of one peer in one case of a scenario.
type Row struct {
	Scenario string `json:"scenario"`       // such as "S2"
	Case     string `json:"case,omitempty"` // what varies within it, such as "W = 5,000"
	Backend  string `json:"backend"`        // "etcd" or "consul"
	Peer     string `json:"peer"`
	Floor    bool   `json:"floor,omitempty"` // the peer is a raw client
	Metric   string `json:"metric"`
	Unit     string `json:"unit,omitempty"`
	// Values has one number for each repeat that succeeded.
	Values []float64 `json:"values,omitempty"`
	// Ratios are the values divided by the floor's values of the same repeat. A repeat
	// without a value of the floor has no ratio.
	Ratios []float64 `json:"ratios,omitempty"`
	// Text is a verdict, in a row without values.
	Text string `json:"text,omitempty"`
	// Err is the error of a repeat. It is empty if all repeats succeeded.
	Err string `json:"error,omitempty"`
}

// Spread is the median of values, with the least and the greatest.
type Spread struct{ Median, Min, Max float64 }

// SpreadOf returns the spread of values. Without values it returns NaNs.
func SpreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{math.NaN(), math.NaN(), math.NaN()}
	}
	return Spread{Percentile(values, 50), slices.Min(values), slices.Max(values)}
}

// Percentile returns the p-th percentile of values, with linear interpolation. Without
// values it returns NaN.
func Percentile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	at := p / 100 * float64(len(s)-1)
	i := int(at)
	if i+1 >= len(s) {
		return s[len(s)-1]
	}
	return s[i] + (at-float64(i))*(s[i+1]-s[i])
}

// number formats v with three significant digits, and commas.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "-"
	case a >= 100 || v == math.Trunc(v):
		return commas(strconv.FormatFloat(math.Round(v), 'f', 0, 64))
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

func commas(s string) string {
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	var b strings.Builder
	for i, d := range s {
		if i > 0 && (len(s)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return sign + b.String()
}

// Number formats a whole number with commas.
func Number(n int) string { return commas(strconv.Itoa(n)) }

// cell returns the text of a row in a table.
func (r Row) cell() string {
	if len(r.Values) == 0 {
		return cmp.Or(r.Text, "-")
	}
	s := SpreadOf(r.Values)
	out := number(s.Median)
	if len(r.Values) > 1 && s.Min != s.Max {
		out += " (" + number(s.Min) + "–" + number(s.Max) + ")"
	}
	if len(r.Ratios) > 0 && !r.Floor {
		out += " ×" + number(SpreadOf(r.Ratios).Median)
	}
	return out
}

// Target is a bound that this library has to keep.
type Target struct {
	Scenario string `json:"scenario"`
	Case     string `json:"case,omitempty"` // empty: any
	Backend  string `json:"backend"`
	Peer     string `json:"peer"`
	Metric   string `json:"metric"`
	// Ratio says that Max bounds the ratio to the floor instead of the value.
	Ratio bool    `json:"ratio,omitempty"`
	Max   float64 `json:"max"`
}

// Verdict is a target and its result in one case.
type Verdict struct {
	Target
	Got  float64 `json:"got"` // the median
	Unit string  `json:"unit,omitempty"`
	Met  bool    `json:"met"`
}

// Judge compares rows with targets. A row of a peer that failed does not meet its target.
// A target without a row is left out.
func Judge(rows []Row, targets []Target) []Verdict {
	var verdicts []Verdict
	for _, t := range targets {
		for _, r := range rows {
			if r.Scenario != t.Scenario || r.Backend != t.Backend || r.Peer != t.Peer || r.Metric != t.Metric ||
				t.Case != "" && r.Case != t.Case {
				continue
			}
			v := Verdict{Target: t, Unit: r.Unit}
			v.Case = r.Case
			values := r.Values
			if t.Ratio {
				values, v.Unit = r.Ratios, "× floor"
			}
			if len(values) == 0 && r.Err == "" {
				continue
			}
			v.Got = SpreadOf(values).Median
			v.Met = r.Err == "" && v.Got <= t.Max
			if math.IsNaN(v.Got) {
				v.Got = -1 // JSON has no NaN
			}
			verdicts = append(verdicts, v)
		}
	}
	return verdicts
}
