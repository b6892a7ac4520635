package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/naming-go/naming/cmd/naming/internal/cli"
	"github.com/naming-go/naming/cmd/naming/internal/devetcd"
	"github.com/naming-go/naming/internal/consultest"
)

// raceOptions has a program under the race detector end at once. By default such a program
// sleeps for a second at its end, and the scripts run hundreds of programs.
const raceOptions = "atexit_sleep_ms=0"

// atOnce is how many tests run beside each other. The tests mostly wait for programs and leases,
// so that the number of processors says little.
const atOnce = "6"

// TestMain makes the test binary the command naming in scripts.
func TestMain(m *testing.M) {
	_ = os.Setenv("GORACE", raceOptions)
	_ = flag.Set("test.parallel", atOnce) // the command line has precedence
	testscript.Main(m, map[string]func(){
		"naming":     func() { os.Exit(cli.Main(context.Background(), cli.OS(), os.Args[1:]...)) },
		"testserver": testserver,
	})
}

// TestScripts runs the scripts of testdata against etcd and against Consul. In a script,
// NAMING_STORE is a registry of its own, NAMING_OTHER is another one, in etcd, and nobody
// listens on FREE_ADDR.
func TestScripts(t *testing.T) {
	t.Parallel()
	s, err := devetcd.Start(t.Context(), devetcd.Options{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	other := func(name string) string { return fmt.Sprintf("etcd://%s?prefix=/other-%s/", s.Addr(), name) }
	scripts(t, "etcd", other, func(name string) string {
		return fmt.Sprintf("etcd://%s?prefix=/%s/", s.Addr(), name)
	})
	agent := consultest.Start(t, nil)
	scripts(t, "consul", func(name string) string { return other("consul-" + name) }, func(name string) string {
		return fmt.Sprintf("consul://%s?prefix=%s-x-", agent.Addr, name) // no prefix begins another
	})
}

// scripts runs all scripts against one kind of registry. url returns the registry of a script,
// and other returns the second one.
func scripts(t *testing.T, kind string, other, url func(name string) string) {
	t.Run(kind, func(t *testing.T) {
		t.Parallel()
		testscript.Run(t, testscript.Params{
			Dir: "testdata",
			Setup: func(e *testscript.Env) error {
				name := strings.TrimPrefix(e.WorkDir[strings.LastIndex(e.WorkDir, "/")+1:], "script-")
				e.Setenv("NAMING_STORE", url(name))
				e.Setenv("NAMING_OTHER", other(name))
				e.Setenv("HOME", e.WorkDir)
				e.Setenv("GORACE", raceOptions)
				e.Setenv("FREE_ADDR", freeAddr(t))
				return nil
			},
			Condition: func(cond string) (bool, error) { return cond == kind, nil },
			Cmds: map[string]func(*testscript.TestScript, bool, []string){
				"eventually": eventually,
			},
		})
	})
}

// eventually runs a command until it succeeds and prints a text: eventually TEXT COMMAND ARG...
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: eventually TEXT COMMAND ARG...")
	}
	const bound = time.Minute // only a hang takes longer
	for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && strings.Contains(ts.ReadFile("stdout"), args[0]) != neg {
			return
		}
		if time.Since(begin) > bound {
			ts.Fatalf("no %q from %v: %v", args[0], args[1:], err)
		}
	}
}
