// Command bench measures this library beside others, and beside the raw clients
// of the registries, which are the floor: on real servers, in one run, in turns.
// Each peer runs in a process of its own.
//
// It writes tables to its output, and the same as lines of JSON and as a page of
// HTML to files.
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
		out := os.Stdout
		os.Stdout = os.Stderr // whatever a peer prints is no reply
		if err := child.Serve(os.Stdin, out, peers.Find); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	full := flag.Bool("full", false, "measure all sizes, with more repeats")
	flag.Bool("short", true, "measure for about ten minutes; the default")
	only := flag.String("scenario", "", "the scenarios to run, with commas between; empty means all")
	which := flag.String("peer", "", "the peers to measure, with commas between; the floor is always there; empty means all")
	backend := flag.String("backend", "", "the backend: etcd or consul; empty means both")
	repeats := flag.Int("repeats", 0, "how often all is repeated; 0 means as often as the size of the run says")
	planted := flag.Bool("planted", true, "also measure ours made slower on purpose")
	out := flag.String("out", "", "the directory for results.jsonl and report.html; empty means none are written")
	parallel := flag.Int("parallel", 4, "how many trials of S6 run side by side")
	hour := flag.Duration("churn", time.Hour, "how long S8 takes; it runs only if -scenario names it")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "unknown argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	size, sizeName := scenarios.Short, "short"
	if *full {
		size, sizeName = scenarios.Full, "full"
	}
	if *repeats > 0 {
		size.Repeats = *repeats
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, func() {
		stop() // the next one ends the program, and on Linux its servers with it
		fmt.Fprintln(os.Stderr, "interrupted: what has begun is measured first; interrupt again to end now")
	})
	log.SetOutput(io.Discard) // Go's HTTP client says that an agent refuses it; so does the report

	program := servertest.NewProgram("bench", os.Stderr)
	if !program.Run(func() bool {
		root := servertest.Root(program)
		exe, err := os.Executable()
		if err != nil {
			program.Fatal(err)
		}
		run := &scenarios.Run{Size: size, Logf: func(format string, args ...any) {
			fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
		}}
		wanted := split(*which)
		for _, p := range peers.All() {
			if *backend != "" && p.Backend != *backend || len(wanted) > 0 && !p.Floor && !slices.Contains(wanted, p.Name) {
				continue
			}
			run.Subjects = append(run.Subjects, scenarios.Subject{Peer: p, Label: p.Name, Exe: exe})
		}
		if *planted {
			dir := program.TempDir()
			for _, plant := range plants {
				slow, err := plant.build(ctx, root, dir)
				if err != nil {
					program.Fatal(err)
				}
				for _, s := range run.Subjects {
					if s.Name == "ours-etcd" && s.Exe == exe {
						s.Label, s.Exe, s.Planted = s.Name+plant.name, slow, true
						run.Subjects = append(run.Subjects, s)
					}
				}
			}
		}
		rep := &report.Report{Facts: facts(root, sizeName, size.Repeats, peers.All())}
		for _, s := range scenarios.All() {
			rep.Titles = append(rep.Titles, report.Fact{Name: s.Name, Text: s.Title})
			for _, b := range s.Backends {
				if len(*only) > 0 && !slices.Contains(split(*only), s.Name) || *backend != "" && b != *backend || ctx.Err() != nil {
					continue
				}
				// Each scenario has servers of its own, and they end with it.
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
		more := rest{named: split(*only), full: *full, repeats: size.Repeats, parallel: *parallel, churn: *hour, out: *out, logf: run.Logf}
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
		if *out != "" {
			if err := write(rep, *out); err != nil {
				program.Fatal(err)
			}
		}
		return true
	}) {
		os.Exit(1)
	}
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
