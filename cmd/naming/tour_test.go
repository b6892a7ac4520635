package main

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/naming-go/naming/internal/consultest"
)

// TestTour plays the transcripts of the documentation: the blocks of a file that begin with
// ```console below the comment <!-- tour -->. All blocks of a file are one script. In a block,
//
//	$ COMMAND          is a command, and the lines below are what the command prints
//	NAME$ COMMAND      is a command that runs in a terminal of its own
//	NAME | LINE        is what the terminal prints next; "..." stands for any lines
//	NAME^C             is Ctrl-C in the terminal, which ends the command with the status 0
//	# COMMENT          is a comment
//	...                stands for any lines
//
// The addresses of the documentation are replaced by free ones. What a command prints is
// compared without times, durations, digests and the width of columns. A command that only
// reads is repeated until the command prints what the documentation shows.
func TestTour(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin, "./examples/server", "./examples/client")
	build.Dir, build.Env = "../..", append(os.Environ(), "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, file := range []string{"README.md", "docs/command.md"} {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile("../../" + file)
			if err != nil {
				t.Fatal(err)
			}
			steps, err := parseTour(file, string(text))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { // after the script, which runs in parallel
				if !*record || t.Failed() {
					return
				}
				if err := os.WriteFile("../../"+file, []byte(recordTour(string(text), steps)), 0o666); err != nil {
					t.Error(err)
				}
			})
			playTour(t, bin, steps)
		})
	}
}

// playTour runs the steps as a script of testscript.
func playTour(t *testing.T, bin string, steps []tourStep) {
	t.Helper()
	script := filepath.Join(t.TempDir(), "tour.txtar")
	if err := os.WriteFile(script, []byte(tourScript(steps)), 0o666); err != nil {
		t.Fatal(err)
	}
	p := &player{steps: steps, terminals: make(map[string]*tourTerminal)}
	p.replace, p.documented = tourAddresses(t)
	testscript.Run(t, testscript.Params{
		Files: []string{script},
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("GORACE", raceOptions)
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			p.dir, p.env = e.WorkDir, e.Vars
			for _, name := range []string{".env", ".status"} {
				if err := os.WriteFile(filepath.Join(p.dir, name), nil, 0o666); err != nil {
					return err
				}
			}
			e.Defer(p.close)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"play": p.play},
	})
}

// tourAddresses returns what replaces the addresses of the documentation, and what replaces
// their replacements. The order of the addresses stays, because tables are sorted. The Consul
// runs already: the tour's command would use the ports that every Consul uses.
func tourAddresses(t *testing.T) (replace, documented *strings.Replacer) {
	t.Helper()
	known := []string{"127.0.0.1:2379", "127.0.0.1:8081", "127.0.0.1:8082", "127.0.0.1:8083", "127.0.0.1:9780", "127.0.0.1:9781"}
	free := make(map[string]bool)
	for len(free) < len(known) {
		free[freeAddr(t)] = true
	}
	used := slices.Sorted(maps.Keys(free))
	if *record {
		used = known
	}
	consul := consultest.Start(t, nil).Addr
	there := []string{
		"go run ./examples/", "",
		"consul agent -dev", "sleep 3600",
		"naming dev --temporary", "naming dev --temporary --listen " + used[0],
		"naming serve", "naming serve --listen " + used[4],
		"naming ui", "naming ui --listen " + used[5],
		"127.0.0.1:8500", consul,
	}
	back := []string{consul, "127.0.0.1:8500"}
	for i, addr := range used {
		there, back = append(there, known[i], addr), append(back, addr, known[i])
		// A program may have its port as an argument.
		port, to := known[i][strings.LastIndex(known[i], ":")+1:], addr[strings.LastIndex(addr, ":")+1:]
		there = append(there, " "+port, " "+to)
	}
	return strings.NewReplacer(there...), strings.NewReplacer(back...)
}

// tourStep is a line of a transcript, with the lines that belong to the line.
type tourStep struct {
	at       string // the file and the line
	kind     stepKind
	terminal string // empty for a command of the reader's own terminal
	text     string // the command, or the line that the terminal prints
	prints   []string
}

type stepKind int

const (
	types stepKind = iota
	prints
	interrupt
)

var (
	tourBlock   = regexp.MustCompile("(?ms)^<!-- tour -->\n```console\n(.*?)^```$")
	tourCommand = regexp.MustCompile(`^(\w*)\$ (.+)$`)
	tourPrints  = regexp.MustCompile(`^(\w+) \|(?: (.*))?$`)
	tourStop    = regexp.MustCompile(`^(\w+)\^C$`)
)

// parseTour returns the steps of a file.
func parseTour(file, text string) (steps []tourStep, err error) {
	for _, m := range tourBlock.FindAllStringSubmatchIndex(text, -1) {
		line := strings.Count(text[:m[2]], "\n")
		begin := len(steps)
		for s := range strings.Lines(text[m[2]:m[3]]) {
			line++
			s, at := strings.TrimSuffix(s, "\n"), fmt.Sprintf("%s:%d", file, line)
			if c := tourCommand.FindStringSubmatch(s); c != nil {
				steps = append(steps, tourStep{at: at, terminal: c[1], text: c[2]})
			} else if c := tourPrints.FindStringSubmatch(s); c != nil {
				steps = append(steps, tourStep{at: at, kind: prints, terminal: c[1], text: c[2]})
			} else if c := tourStop.FindStringSubmatch(s); c != nil {
				steps = append(steps, tourStep{at: at, kind: interrupt, terminal: c[1]})
			} else if strings.HasPrefix(s, "# ") {
				continue
			} else if last := len(steps) - 1; last < begin || steps[last].kind != types || steps[last].terminal != "" {
				return nil, fmt.Errorf("%s: %q is not below a command", at, s)
			} else {
				steps[last].prints = append(steps[last].prints, s)
			}
		}
	}
	if len(steps) == 0 {
		return nil, fmt.Errorf("%s has no tour", file)
	}
	return steps, nil
}

// tourScript returns a script that plays the steps.
func tourScript(steps []tourStep) string {
	var b strings.Builder
	for i, s := range steps {
		fmt.Fprintf(&b, "# %s: %s\nplay %d\n", s.at, s.text, i)
	}
	return b.String()
}

// recordTour returns a text with what the steps print now.
func recordTour(text string, steps []tourStep) string {
	next := 0
	return tourBlock.ReplaceAllStringFunc(text, func(block string) string {
		lines := strings.SplitAfter(strings.TrimSuffix(block, "```"), "\n")
		var b strings.Builder
		for _, line := range lines {
			s := strings.TrimSuffix(line, "\n")
			switch {
			case tourCommand.MatchString(s) || tourStop.MatchString(s):
				b.WriteString(line)
				for _, printed := range steps[next].prints {
					b.WriteString(printed + "\n")
				}
				next++
			case tourPrints.MatchString(s):
				b.WriteString(strings.TrimRight(steps[next].terminal+" | "+steps[next].text, " ") + "\n")
				next++
			case next == 0 || strings.HasPrefix(s, "# ") || strings.HasPrefix(s, "<!--") || strings.HasPrefix(s, "```"):
				b.WriteString(line)
			}
		}
		return b.String() + "```"
	})
}

// TestTourNotices: a tour notices another output, another command and a line that is left out,
// and not another time, another duration or another width.
func TestTourNotices(t *testing.T) {
	for _, c := range []struct {
		want, got string
		equal     bool
	}{
		{"a  b", "a b", true}, {"a b", "a c", false}, {"a", "a\nb", false}, {"a\nb", "a", false},
		{"12:00:00.000  x", "23:59:59.123  x", true}, {"2026/01/02 12:00:00 INFO x", "2027/11/12 01:02:03 INFO x", true},
		{"stayed for 3s.", "stayed for 3.1s.", true}, {"0s, 0s", "100ms, 1m2s", true}, {"seq 1", "seq 2", false},
		{"a\n...\nc", "a\nb\nb\nc", true}, {"a\n...\nc", "a\nc", true}, {"a\n...\nc", "a\nb", false}, {"a.c", "abc", false},
	} {
		if got := shows(normal(c.want), normal(c.got)); got != c.equal {
			t.Errorf("%q and %q: equal %v, want %v", c.want, c.got, got, c.equal)
		}
	}
	const text = "<!-- tour -->\n```console\none$ run\none | up\n$ get\nx\n\ny\n# Then:\none^C\n```\n"
	steps, err := parseTour("x.md", text)
	if err != nil || len(steps) != 4 || steps[1].text != "up" || strings.Join(steps[2].prints, ",") != "x,,y" || steps[3].at != "x.md:10" {
		t.Errorf("steps: %+v, %v", steps, err)
	}
	if got := recordTour(text, steps); got != text {
		t.Errorf("recorded: %q, want %q", got, text)
	}
	for _, wrong := range []string{"no tour", "<!-- tour -->\n```console\nx\n```\n", "<!-- tour -->\n```console\none$ run\nup\n```\n"} {
		if _, err := parseTour("x.md", wrong); err == nil {
			t.Errorf("no error of %q", wrong)
		}
	}
}
