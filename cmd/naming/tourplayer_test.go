package main

import (
	"bufio"
	"context"
	"flag"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// tourBound is the time after which a step hangs. No step takes so long on a busy machine.
const tourBound = 3 * time.Minute

// record has TestTour write what the commands print into the documentation. The test then uses
// the addresses of the documentation, besides that of Consul. What is left out stays left out.
var record = flag.Bool("record", false, "write what the commands of a tour print into the documentation")

// record keeps what a command prints, unless the documentation leaves out lines.
func (s *tourStep) record(text string) {
	if !slices.Contains(s.prints, "...") {
		s.prints = strings.Split(strings.TrimRight(text, "\n"), "\n")
	}
	if text == "" {
		s.prints = nil
	}
}

// player plays the steps of one tour.
type player struct {
	steps   []tourStep
	replace *strings.Replacer // of the addresses of the documentation
	// documented replaces the addresses of this run by those of the documentation.
	documented *strings.Replacer
	dir        string
	env        []string
	terminals  map[string]*tourTerminal
}

// tourTerminal is a terminal with a command that runs.
type tourTerminal struct {
	cmd   *exec.Cmd
	lines chan string // closed at the end of the command
	// skips says that the documentation leaves out lines.
	skips bool
}

// play plays the step with a number: play NUMBER.
func (p *player) play(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	s := &p.steps[n]
	switch {
	case s.kind == prints:
		p.expect(ts, s)
	case s.kind == interrupt:
		p.interrupt(ts, s)
	case s.terminal != "":
		p.start(ts, s)
	default:
		p.run(ts, s)
	}
}

// reads matches the commands that only read.
var reads = regexp.MustCompile(`^(naming (get|ls|resolve|diff|top|man|completion|migrate (status|plan|verify))\b|go run ./examples/client |curl |echo )`)

// run runs a command, and compares what the command prints.
func (p *player) run(ts *testscript.TestScript, s *tourStep) {
	want := normal(p.replace.Replace(strings.Join(s.prints, "\n")))
	for begin := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		text := p.shell(ts, s.text)
		got := normal(text)
		switch over := !reads.MatchString(s.text) || time.Since(begin) > tourBound; {
		case shows(want, got):
			s.record(p.documented.Replace(text))
			return
		case over && *record:
			s.record(p.documented.Replace(text))
			return
		case over:
			ts.Fatalf("%s: %s\nprints:\n%s\nand not:\n%s", s.at, s.text, got, want)
		}
	}
}

// shell runs a command, with the environment and the exit status that the command before
// left. It returns what the command prints.
func (p *player) shell(ts *testscript.TestScript, text string) string {
	ctx, cancel := context.WithTimeout(context.Background(), tourBound)
	defer cancel()
	const script = `. ./.env; . ./.status; eval "$1"; status=$?; export -p >.env; [ "$2" = keep ] || echo "(exit $status)" >.status`
	keep := ""
	if strings.HasPrefix(text, "echo ") {
		keep = "keep" // the command may be repeated
	}
	cmd := exec.CommandContext(ctx, "bash", "-c", script, "bash", p.replace.Replace(text), keep)
	cmd.Dir, cmd.Env = p.dir, p.env
	out, _ := cmd.CombinedOutput() // a tour shows the status by echo $?
	if ctx.Err() != nil {
		ts.Fatalf("%s: hangs:\n%s", text, out)
	}
	return string(out)
}

// start starts a command in its terminal.
func (p *player) start(ts *testscript.TestScript, s *tourStep) {
	if p.terminals[s.terminal] != nil {
		ts.Fatalf("%s: the terminal is busy", s.at)
	}
	r, w, err := os.Pipe()
	ts.Check(err)
	cmd := exec.Command("bash", "-c", `. ./.env; eval "exec $1"`, "bash", p.replace.Replace(s.text))
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = p.dir, p.env, w, w
	err = cmd.Start()
	_ = w.Close()
	ts.Check(err)
	t := &tourTerminal{cmd: cmd, lines: make(chan string, 10000)}
	go func() {
		defer close(t.lines)
		defer r.Close()
		for lines := bufio.NewScanner(r); lines.Scan(); {
			t.lines <- lines.Text()
		}
	}()
	p.terminals[s.terminal] = t
}

// expect waits until a terminal prints a line.
func (p *player) expect(ts *testscript.TestScript, s *tourStep) {
	t := p.terminals[s.terminal]
	if t == nil {
		ts.Fatalf("%s: nothing runs in the terminal", s.at)
	}
	if s.text == "..." {
		t.skips = true
		return
	}
	want, skipped := normal(p.replace.Replace(s.text)), []string{}
	for bound := time.After(tourBound); ; {
		select {
		case line, ok := <-t.lines:
			got := normal(line)
			if got == want {
				s.text, t.skips = p.documented.Replace(line), false
				return
			}
			if skipped = append(skipped, got); !ok || !t.skips {
				ts.Fatalf("%s: the terminal prints:\n%s\nand not:\n%s", s.at, strings.Join(skipped, "\n"), want)
			}
		case <-bound:
			ts.Fatalf("%s: the terminal prints:\n%s\nand never:\n%s", s.at, strings.Join(skipped, "\n"), want)
		}
	}
}

// interrupt presses Ctrl-C in a terminal, and waits for the end of the command.
func (p *player) interrupt(ts *testscript.TestScript, s *tourStep) {
	t := p.terminals[s.terminal]
	if t == nil {
		ts.Fatalf("%s: nothing runs in the terminal", s.at)
	}
	delete(p.terminals, s.terminal)
	ts.Check(t.cmd.Process.Signal(syscall.SIGINT))
	hang := time.AfterFunc(tourBound, func() { _ = t.cmd.Process.Kill() })
	defer hang.Stop()
	if err := t.cmd.Wait(); err != nil {
		ts.Fatalf("%s: the command ends with %v", s.at, err)
	}
	for line := range t.lines {
		if !t.skips {
			ts.Fatalf("%s: the terminal prints a line that the tour does not show: %s", s.at, line)
		}
	}
}

// close kills what still runs.
func (p *player) close() {
	for _, t := range p.terminals {
		_ = t.cmd.Process.Kill()
		_ = t.cmd.Wait()
		for range t.lines { // until its end
		}
	}
}

// varies matches what differs between two runs, with the text that replaces it.
var varies = []struct {
	text *regexp.Regexp
	by   string
}{
	{regexp.MustCompile(`\d{4}[-/]\d\d[-/]\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?`), "DATE"},
	{regexp.MustCompile(`\b\d\d:\d\d:\d\d(\.\d+)?\b`), "TIME"},
	{regexp.MustCompile(`\b(\d+(\.\d+)?(h|ms|m|s|µs))+\b`), "DURATION"},
	{regexp.MustCompile(`data in .*`), "data in DIRECTORY"},
	{regexp.MustCompile(`\b[\w.-]+/\d+ `), "HOST/PROCESS "},
	{regexp.MustCompile(`[ \t]+`), " "},
	{regexp.MustCompile(`(?m) +$`), ""},
}

// normal returns a text without what differs between two runs.
func normal(text string) string {
	for _, v := range varies {
		text = v.text.ReplaceAllString(text, v.by)
	}
	return strings.TrimSpace(text)
}

// shows reports whether a text is as wanted. A line "..." stands for any lines.
func shows(want, got string) bool {
	var pattern strings.Builder
	for line := range strings.Lines(want + "\n") {
		if line == "...\n" {
			pattern.WriteString(`(.*\n)*`)
			continue
		}
		pattern.WriteString(regexp.QuoteMeta(line))
	}
	return regexp.MustCompile("^" + pattern.String() + "$").MatchString(got + "\n")
}
