package balanceproof

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// someReport is a report that was not measured.
func someReport() *Report {
	spread := Spread{Clients: 1_000, Servers: 4, Size: 2, PerServer: []int{400, 490, 500, 610}, Leaving: []int{3, 5}}
	return &Report{
		Weights: Weights{
			First:   ByWeight{Weights: []float64{1, 3}, Calls: []int64{250, 750}},
			Second:  ByWeight{Weights: []float64{3, 1}, Calls: []int64{760, 240}},
			Clients: 2, Accepted: 4,
		},
		Zones: Zones{{Own: 3, Measured: 1, Computed: 1, Load: 1}, {Own: 1, Measured: 0.59, Computed: 0.6, Load: 1.4}, {}},
		Slow: Slow{Fast: 5 * time.Millisecond, Slow: 100 * time.Millisecond, Policies: []BySlow{
			{Policy: "round_robin", Calls: 1_234_567, P50: 5 * time.Millisecond, P99: 101 * time.Millisecond, Share: 0.1},
			{Policy: "<a & b>", P50: 5 * time.Millisecond, P99: 6 * time.Millisecond},
		}},
		Subsets: Subsets{Computed: [2]Spread{spread, spread}, Real: [2]RealSpread{{Spread: spread}, {Spread: spread}}},
		Rolling: Rolling{Servers: 6, Rounds: 1, Policies: []ByRolling{{"zone", 1_000, 0}, {"weighted", 2_000, 7}}},
	}
}

// TestPicture: the picture is XML with a title and a description, has the figures, and is
// the same each time.
func TestPicture(t *testing.T) {
	picture := string(someReport().Picture())
	d := xml.NewDecoder(strings.NewReader(picture))
	seen := make(map[string]int)
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok {
			seen[e.Name.Local]++
		}
	}
	if seen["title"] != 1 || seen["desc"] != 1 || seen["rect"] < 20 {
		t.Errorf("elements %v", seen)
	}
	for _, want := range []string{"59.0 % stay (formula: 60 %)", "101.0 ms", "7 of 3,000 calls failed", "&lt;a &amp; b&gt;", "400 to 610 connections"} {
		if !strings.Contains(picture, want) {
			t.Errorf("the picture lacks %q", want)
		}
	}
	if again := string(someReport().Picture()); again != picture {
		t.Error("two pictures of one report differ")
	}
}

func TestTables(t *testing.T) {
	text := someReport().Tables()
	for _, want := range []string{
		"deviation of a server's share is 4.00 %", "| 2 | 3 | 75.00 % | 75.00 % | 1 | 24.00 % | 25.00 % |", "| 1 | 0 | 59.00 % | 60.00 % | 1.4 × the mean |",
		"| round_robin | 1,234,567 | 5.0 ms | 101.0 ms | 10.0 % | 0.0 % |", "| 1,000 | 4 | 2 by name, counted | 2,000 | 400 | 500 | 610 | 4 |", "| weighted | 2,000 | 7 |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the tables lack %q:\n%s", want, text)
		}
	}
}

// TestReplaceTables: only what stands between the two lines changes, in the project's page
// too.
func TestReplaceTables(t *testing.T) {
	page, err := os.ReadFile("../../docs/balancing.md")
	if err != nil {
		t.Fatal(err)
	}
	r := someReport()
	once, err := r.ReplaceTables(page)
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(page), tablesBegin)
	_, after, _ := strings.Cut(string(page), tablesEnd)
	if got, want := string(once), before+tablesBegin+"\n"+r.Tables()+"\n"+tablesEnd+after; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if _, err := r.ReplaceTables([]byte("a page\n" + tablesBegin)); err == nil {
		t.Error("a page without a place for tables is accepted")
	}
}
