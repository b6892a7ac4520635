package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"text/tabwriter"
)

// finding is one break of a rule.
type finding struct {
	kind string
	file string // relative to the directory that is checked, with slashes
	line int
	text string
}

// kinds returns the kinds of findings of a run.
func kinds(all bool) []string {
	list := []string{"words", "long", "guard"}
	if all {
		list = append(list, "words-test", "long-test", "words-md")
	}
	return list
}

// readBaseline reads a file with one line for each kind: the kind and the number of
// findings that are allowed. A kind without a line is allowed none.
func readBaseline(name string) (map[string]int, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	allowed := make(map[string]int)
	for s := bufio.NewScanner(f); s.Scan(); {
		line := s.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		var kind string
		var n int
		if _, err := fmt.Sscanf(line, "%s %d", &kind, &n); err != nil || !slices.Contains(kinds(true), kind) {
			return nil, fmt.Errorf("%s: line %q is not a kind and a number", name, line)
		}
		allowed[kind] = n
	}
	return allowed, nil
}

// compare prints the findings of the kinds that exceed their allowed number, or of all
// kinds, and one line for each kind. It reports whether none exceeds it.
func compare(out io.Writer, findings []finding, allowed map[string]int, kinds []string, verbose bool) (ok bool) {
	ok = true
	counts := make(map[string]int)
	for _, f := range findings {
		counts[f.kind]++
	}
	for _, f := range findings {
		if verbose || counts[f.kind] > allowed[f.kind] {
			fmt.Fprintf(out, "%s:%d: %s: %s\n", f.file, f.line, f.kind, f.text)
		}
	}
	for _, kind := range kinds {
		fmt.Fprintf(out, "%s: %d of %d allowed\n", kind, counts[kind], allowed[kind])
		ok = ok && counts[kind] <= allowed[kind]
	}
	return ok
}

// printCounts prints a table of the numbers of findings, by directory and kind.
func printCounts(out io.Writer, findings []finding, all bool) {
	counts := make(map[string]map[string]int)
	total := make(map[string]int)
	for _, f := range findings {
		dir := path.Dir(f.file)
		if counts[dir] == nil {
			counts[dir] = make(map[string]int)
		}
		counts[dir][f.kind]++
		total[f.kind]++
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(name string, cell func(kind string) any) {
		for _, kind := range kinds(all) {
			fmt.Fprint(w, cell(kind), "\t")
		}
		fmt.Fprintln(w, " "+name)
	}
	row("directory", func(kind string) any { return kind })
	for _, dir := range slices.SortedFunc(maps.Keys(counts), cmp.Compare) {
		row(dir, func(kind string) any { return counts[dir][kind] })
	}
	row("total", func(kind string) any { return total[kind] })
	w.Flush()
}
