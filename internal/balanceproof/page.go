package balanceproof

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The lines of a page between which the tables of a report stand.
const (
	tablesBegin = "<!-- The program of make balance writes what follows. -->\n"
	tablesEnd   = "<!-- The end of what the program writes. -->\n"
)

// ReplaceTables returns a page with the tables of the report in the place of others.
func (r *Report) ReplaceTables(page []byte) ([]byte, error) {
	before, rest, ok := bytes.Cut(page, []byte(tablesBegin))
	_, after, end := bytes.Cut(rest, []byte(tablesEnd))
	if !ok || !end {
		return nil, errors.New("the page has no place for tables")
	}
	return slices.Concat(before, []byte(tablesBegin+"\n"+r.Tables()+"\n"+tablesEnd), after), nil
}

// Tables returns the report as Markdown.
func (r *Report) Tables() string {
	b := new(strings.Builder)
	fmt.Fprintf(b, "%s.\n", environment())
	r.tableWeights(b)
	r.tableZones(b)
	r.tableSlow(b)
	r.tableSubsets(b)
	r.tableRolling(b)
	return b.String()
}

func (w Weights) deviation() float64 { return max(w.First.Deviation(), w.Second.Deviation()) }

func (r *Report) tableWeights(b *strings.Builder) {
	w := r.Weights
	fmt.Fprintf(b, "\n**Weights.** %d clients made %s calls, and %s calls after a change of the weights.\n", w.Clients, thousands(sum(w.First.Calls)), thousands(sum(w.Second.Calls)))
	fmt.Fprintf(b, "The greatest deviation of a server's share is %.2f %% of the share. Connections at first: %d. New\n", 100*w.deviation(), w.Accepted)
	fmt.Fprintf(b, "connections during and after the change: %d.\n\n", w.AcceptedAfter)
	b.WriteString("| server | weight | share of the calls | weight's share | new weight | share of the calls | weight's share |\n|-|-|-|-|-|-|-|\n")
	for i := range w.First.Weights {
		m1, c1 := w.First.Share(i)
		m2, c2 := w.Second.Share(i)
		fmt.Fprintf(b, "| %d | %g | %.2f %% | %.2f %% | %g | %.2f %% | %.2f %% |\n", i+1, w.First.Weights[i], 100*m1, 100*c1, w.Second.Weights[i], 100*m2, 100*c2)
	}
}

func (r *Report) tableZones(b *strings.Builder) {
	fmt.Fprintf(b, "\n**Zones.** %d zones with %d servers each, and callers in zone a, whose servers leave. The load of\n", zones, perZone)
	b.WriteString("a server is computed for as many callers in each zone.\n\n")
	b.WriteString("| servers left in zone a | calls | stay in zone a | formula | load of a server in zone a |\n|-|-|-|-|-|\n")
	for _, z := range r.Zones {
		load := "-"
		if z.Own > 0 {
			load = fmt.Sprintf("%.1f × the mean", z.Load)
		}
		fmt.Fprintf(b, "| %d | %s | %.2f %% | %.2f %% | %s |\n", z.Own, thousands(z.Calls), 100*z.Measured, 100*z.Computed, load)
	}
}

func (r *Report) tableSlow(b *strings.Builder) {
	s := r.Slow
	fmt.Fprintf(b, "\n**One slow server of ten.** A call takes %g ms, and %g ms at one server from the beginning\n", inMilliseconds(s.Fast), inMilliseconds(s.Slow))
	fmt.Fprintf(b, "of the measurement on. Each policy has %d calls a second, at the same time as the others. The last\n", s.Rate)
	fmt.Fprintf(b, "column is the share of the same server when it has been fast again for %v.\n\n", s.Rest)
	b.WriteString("| policy | calls | median | 99th percentile | share of the slow server | its share when it is fast again |\n|-|-|-|-|-|-|\n")
	for _, p := range s.Policies {
		fmt.Fprintf(b, "| %s | %s | %s | %s | %.1f %% | %.1f %% |\n", p.Policy, thousands(int64(p.Calls)), milliseconds(p.P50), milliseconds(p.P99), 100*p.Share, 100*p.Back)
	}
}

func (r *Report) tableSubsets(b *strings.Builder) {
	b.WriteString("\n**Subsets.** Connections of each server, and how many connections all clients make when one server\nleaves, on average.\n\n")
	b.WriteString("| clients | servers | subset | connections | of a server: least | median | most | new when one leaves |\n|-|-|-|-|-|-|-|-|\n")
	row := func(s Spread, how, note string) {
		fmt.Fprintf(b, "| %s | %d | %d by %s%s | %s | %d | %d | %d | %.0f |\n", thousands(int64(s.Clients)), s.Servers, s.Size, how, note,
			thousands(int64(s.Connections())), s.Min(), s.Median(), s.Max(), float64(sum(s.Leaving))/float64(len(s.Leaving)))
	}
	c := r.Subsets.Computed[0]
	fmt.Fprintf(b, "| %s | %d | none, computed | %s | %[1]s | %[1]s | %[1]s | 0 |\n", thousands(int64(c.Clients)), c.Servers, thousands(int64(c.Clients*c.Servers)))
	row(r.Subsets.Computed[0], "name", ", computed")
	row(r.Subsets.Computed[1], "number", ", computed")
	row(r.Subsets.Real[0].Spread, "name", ", counted")
	row(r.Subsets.Real[1].Spread, "number", ", counted")
}

func (r *Report) tableRolling(b *strings.Builder) {
	failed, calls := r.Rolling.Failed()
	fmt.Fprintf(b, "\n**Rolling restarts.** All %d servers were restarted one after the other, %s. Of %s calls without\n", r.Rolling.Servers, plural(r.Rolling.Rounds, "time"), thousands(calls))
	fmt.Fprintf(b, "retries, %d failed.\n\n| policy | calls | failed |\n|-|-|-|\n", failed)
	for _, p := range r.Rolling.Policies {
		fmt.Fprintf(b, "| %s | %s | %d |\n", p.Policy, thousands(p.Calls), p.Failed)
	}
}
