// Command bench measures this library beside others, and beside the raw clients of the
// registries, which are the floor. All of them run on real servers, in one run, in turns.
// Each peer runs in a process of its own.
//
// Command bench prints tables. It writes the same results to files, as lines of JSON and
// as a page of HTML.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/naming-go/naming/bench/actor"
	"github.com/naming-go/naming/bench/child"
	"github.com/naming-go/naming/bench/peers"
	"github.com/naming-go/naming/bench/report"
	"github.com/naming-go/naming/bench/scenarios"
	"github.com/naming-go/naming/internal/servertest"
)

func main() {
	actor.Main(roles())
	if len(os.Args) == 2 && os.Args[1] == child.Flag {
		serveChild()
		return
	}
	o := parseFlags()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, func() {
		stop() // the next interrupt ends the program, and on Linux its servers with it
		fmt.Fprintln(os.Stderr, "interrupted: the measurement in progress ends first; interrupt again to end now")
	})
	log.SetOutput(io.Discard) // Go's HTTP client logs that an agent refuses it. The report says the same.

	program := servertest.NewProgram("bench", os.Stderr)
	if !program.Run(func() bool { o.measure(ctx, program); return true }) {
		os.Exit(1)
	}
}

// serveChild serves the requests of a parent process.
func serveChild() {
	out := os.Stdout
	os.Stdout = os.Stderr // what a peer prints must not be read as a reply
	if err := child.Serve(os.Stdin, out, peers.Find); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	size         scenarios.Size
	full         bool
	only, which  []string
	backend, out string
	planted      bool
	parallel     int
	churn        time.Duration
}

func parseFlags() options {
	var o options
	flag.BoolVar(&o.full, "full", false, "measure all sizes, with more repeats")
	flag.Bool("short", true, "measure for about ten minutes; the default")
	only := flag.String("scenario", "", "the scenarios to run, with commas between; empty means all")
	which := flag.String("peer", "", "the peers to measure, with commas between; the floor is always measured; empty means all")
	flag.StringVar(&o.backend, "backend", "", "the backend: etcd or consul; empty means both")
	repeats := flag.Int("repeats", 0, "how often everything is repeated; 0 means the number of the size")
	flag.BoolVar(&o.planted, "planted", true, "also measure this library, made slower on purpose")
	flag.StringVar(&o.out, "out", "", "the directory for results.jsonl and report.html; empty means that no files are written")
	flag.IntVar(&o.parallel, "parallel", 4, "how many trials of S6 run side by side")
	flag.DurationVar(&o.churn, "churn", time.Hour, "how long S8 takes; it runs only if -scenario names it")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "unknown argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	o.only, o.which = split(*only), split(*which)
	o.size = scenarios.Short
	if o.full {
		o.size = scenarios.Full
	}
	if *repeats > 0 {
		o.size.Repeats = *repeats
	}
	return o
}

// measure runs the scenarios, prints the report, and writes the files.
func (o options) measure(ctx context.Context, program *servertest.Program) {
	root := servertest.Root(program)
	run := &scenarios.Run{Size: o.size, Logf: func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
	}}
	run.Subjects = o.subjects(ctx, program, root)
	size := "short"
	if o.full {
		size = "full"
	}
	rep := &report.Report{Facts: facts(root, size, o.size.Repeats, peers.All())}
	o.runScenarios(ctx, program, run, rep)
	more := rest{named: o.only, full: o.full, repeats: o.size.Repeats, parallel: o.parallel, churn: o.churn, out: o.out, logf: run.Logf}
	for _, s := range run.Subjects {
		if !s.Planted {
			more.peers = append(more.peers, s.Peer)
		}
	}
	if err := more.run(ctx, rep); err != nil {
		program.Error(err)
	}
	rep.Verdicts = report.Judge(rep.Rows, append(targets(), restTargets()...))
	if err := rep.Text(os.Stdout); err != nil {
		program.Fatal(err)
	}
	if o.out != "" {
		if err := write(rep, o.out); err != nil {
			program.Fatal(err)
		}
	}
}

// subjects returns the peers to measure, and builds those that are made slower on
// purpose.
func (o options) subjects(ctx context.Context, program *servertest.Program, root string) []scenarios.Subject {
	exe, err := os.Executable()
	if err != nil {
		program.Fatal(err)
	}
	var list []scenarios.Subject
	for _, p := range peers.All() {
		if o.backend != "" && p.Backend != o.backend || len(o.which) > 0 && !p.Floor && !slices.Contains(o.which, p.Name) {
			continue
		}
		list = append(list, scenarios.Subject{Peer: p, Label: p.Name, Exe: exe})
	}
	ours := slices.IndexFunc(list, func(s scenarios.Subject) bool { return s.Name == "ours-etcd" })
	if !o.planted || ours < 0 {
		return list
	}
	dir := program.TempDir()
	for _, plant := range plants {
		slow, err := plant.build(ctx, root, dir)
		if err != nil {
			program.Fatal(err)
		}
		s := list[ours]
		s.Label, s.Exe, s.Planted = s.Name+plant.name, slow, true
		list = append(list, s)
	}
	return list
}

// runScenarios runs the scenarios in which peers take turns, and puts what they found
// into the report.
func (o options) runScenarios(ctx context.Context, program *servertest.Program, run *scenarios.Run, rep *report.Report) {
	for _, s := range scenarios.All() {
		rep.Titles = append(rep.Titles, report.Fact{Name: s.Name, Text: s.Title})
		for _, b := range s.Backends {
			if len(o.only) > 0 && !slices.Contains(o.only, s.Name) || o.backend != "" && b != o.backend || ctx.Err() != nil {
				continue
			}
			// Each scenario has servers of its own. They end with the scenario.
			servers := servertest.NewProgram("bench", os.Stderr)
			if !servers.Run(func() bool {
				if err := run.Do(servers, s, b); err != nil {
					run.Logf("%s %s: %v", s.Name, b, err)
					return false
				}
				return true
			}) {
				program.Error(s.Name, b, "could not be run")
			}
		}
	}
	rep.Rows = run.Rows()
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

// write writes the files.
func write(rep *report.Report, dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	for name, render := range map[string]func(io.Writer) error{"results.jsonl": rep.Lines, "report.html": rep.HTML} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if err := errors.Join(render(f), f.Close()); err != nil {
			return err
		}
	}
	return nil
}
