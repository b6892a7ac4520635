package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/naming-go/naming/cmd/naming/internal/cli"
)

// This file and its neighbours bad_*_test.go are the table of bad input: what the built command
// says, and its exit status, for each kind of input that can be wrong.

// ran is what a run of the command has left.
type ran struct {
	status   int
	out, err string
}

func (r ran) all() string { return r.out + r.err }

// execute runs the built command until it ends. A word NAME=VALUE before the arguments is a
// variable of the environment.
func execute(t *testing.T, words ...string) ran {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // only a hang takes longer
	defer cancel()
	cmd := newCommand(ctx, t, words...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("naming %q does not end; it printed %s%s", words, &out, &stderr)
	}
	return ran{exitStatus(t, err), out.String(), stderr.String()}
}

// newCommand returns the built command with an environment of its own.
func newCommand(ctx context.Context, t *testing.T, words ...string) *exec.Cmd {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir(), "USER=ada", "GORACE=" + raceOptions}
	for len(words) > 0 && variable.MatchString(words[0]) {
		env, words = append(env, words[0]), words[1:]
	}
	cmd := exec.CommandContext(ctx, "naming", words...)
	cmd.Env = env
	return cmd
}

var variable = regexp.MustCompile(`^[A-Z_]+=`)

// exitStatus returns the status of a command that has ended: 128 and more for a signal.
func exitStatus(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &exit):
		t.Fatal(err)
	}
	if s := exit.Sys().(syscall.WaitStatus); s.Signaled() {
		return 128 + int(s.Signal())
	}
	return exit.ExitCode()
}

// expect checks a run. The message is on standard error.
func (r ran) expect(t *testing.T, status int, message string) {
	t.Helper()
	if r.status != status || !regexp.MustCompile(message).MatchString(r.err) {
		t.Errorf("the status is %d, want %d; want %q in\n%s", r.status, status, message, r.err)
	}
	r.sober(t)
}

// sober checks what holds of every run: no stack of a panic, and no secret of these tests.
func (r ran) sober(t *testing.T) {
	t.Helper()
	for _, text := range []string{"goroutine ", "panic:", "fatal error:", secret} {
		if strings.Contains(r.all(), text) {
			t.Errorf("%q was printed:\n%s", text, r.all())
		}
	}
}

// secret is the password and the token of these tests.
const secret = "hunter2hunter2"

// badLine is a command line that can never work, or that asks for what is not there.
type badLine struct {
	args    string // separated by spaces; '' is an empty argument
	status  int
	message string
}

func words(args string) []string {
	list := strings.Fields(args)
	for i, w := range list {
		if w == "''" {
			list[i] = ""
		}
	}
	return list
}

// badLines have at least one line for each command. None of them asks a registry.
var badLines = slices.Concat([]badLine{
	{"frobnicate", 2, `^naming: unknown command "frobnicate"`},
	{"--frobnicate", 2, `unknown flag: --frobnicate`},
	{"help frobnicate", 2, `unknown command "frobnicate"`},
	{"help migrate frobnicate", 2, `unknown command "frobnicate"`},
	{"completion tcsh", 2, `unknown command "tcsh"`},
	{"completion bash extra", 2, `unknown command "extra"`},
	{"completion zsh extra", 2, `unknown command "extra"`},
	{"completion fish extra", 2, `unknown command "extra"`},
	{"completion powershell extra", 2, `unknown command "extra"`},
	{"man", 2, `accepts 1 arg`},
	{"man /dev/null/pages", 1, `the directory of the pages: .*not a directory`},
	{"ls", 2, `no registry: use --store URL or set NAMING_STORE`},
	{"NAMING_STORE= ls", 2, `no registry: use --store URL or set NAMING_STORE`},
	{"NAMING_STORE=garbage ls", 2, `^naming: NAMING_STORE: it has no scheme`},
	{"NAMING_STORE=memory: ls --store garbage", 2, `^naming: --store: it has no scheme`},
	{"ls extra", 2, `unknown command "extra"`},
	{"ls --output xml", 2, `"xml" for "-o, --output".*want table, json or yaml`},
	{"ls --timeout soon -s memory:", 2, `"soon" for "--timeout"`},
	{"ls --timeout 0s -s memory:", 2, `--timeout must be positive`},
	{"ls --timeout -1s -s memory:", 2, `--timeout must be positive`},
	{"get -s memory:", 2, `accepts 1 arg`},
	{"get '' -s memory:", 2, `empty service name`},
	{"get a\xffb -s memory:", 2, `service name "a\\xffb" is not UTF-8`},
	{"get a\x1b[31mb -s memory:", 1, `service "a\\x1b\[31mb" has no endpoints`},
	{"get greeter -s memory:", 1, `service "greeter" has no endpoints in memory:`},
	{"watch '' -s memory:", 2, `empty service name`},
	{"top extra -s memory:", 2, `unknown command "extra"`},
	{"top --sort smell -s memory:", 2, `--sort: "smell" is not one of`},
	{"resolve '' -s memory:", 2, `empty service name`},
	{"resolve greeter -s memory:", 1, `service "greeter" has no endpoints in memory:`},
	{"resolve naming://host/greeter -s memory:", 2, `authority "host"`},
	{"resolve naming:greeter -s memory:", 2, `no slashes after the scheme`},
	{"resolve naming:///%zz -s memory:", 2, `is not a target`},
	{"deregister greeter -s memory:", 2, `accepts 2 arg`},
	{"deregister greeter one -s memory:", 1, `service "greeter" has no entry with the ID "one"`},
	{"drain greeter -s memory:", 2, `no ENDPOINT`},
	{"drain greeter --all -s memory:", 2, `add --yes`},
	{"drain greeter one --wait -1s -s memory:", 2, `--verify and --wait must not be negative`},
	{"drain greeter one -s memory:", 1, `service "greeter" has no endpoints`},
	{"resume greeter one --all --yes -s memory:", 2, `--all takes no ENDPOINT`},
	{"resume greeter one -s memory:", 1, `service "greeter" has no endpoints`},
	{"check --many 0 -s memory:", 2, `--many must be from 1 to`},
	{"check --many 1000000000 -s memory:", 2, `--many must be from 1 to`},
	{"check --ttl 0s -s memory:", 2, `--ttl and --quiet must be positive`},
	{"check --prefix \xff -s memory:", 2, `--prefix: .*not UTF-8`},
	{"check --prefix '' -s memory:", 2, `--prefix must not be empty`},
	{"check migrate:?from=memory:&to=memory:&phase=old", 2, `give the URL of one of them`},
	{"doctor --samples 0 -s memory:", 2, `--samples must be from 1 to`},
	{"doctor --samples 1000000000 -s memory:", 2, `--samples must be from 1 to`},
	{"bench --changes 0 -s memory:", 2, `must be positive`},
	{"bench --registrations 1000000000 -s memory:", 2, `--registrations, --concurrency and --changes must be at most`},
	{"diff memory:", 2, `accepts 2 arg`},
	{"diff memory: memory: --accept colour", 2, `--accept: .*"colour"`},
	{"copy memory:", 2, `accepts 2 arg`},
	{"copy memory: memory: --leased maybe", 2, `--leased is "maybe"`},
	{"copy memory: migrate:?from=memory:&to=memory:&phase=old", 2, `name the one to write to`},
}, badEntries, badServers, badMigrations)

// badEntries are lines of the commands that write an entry.
var badEntries = []badLine{
	{"register greeter -s memory:", 2, `accepts 2 arg`},
	{"register greeter 10.0.0.1 -s memory:", 2, `address "10.0.0.1": not host:port`},
	{"register greeter 0.0.0.0:80 -s memory:", 2, `wildcard address`},
	{"register greeter a\x1b:80 -s memory:", 2, `U\+001B in address`},
	{"register '' 10.0.0.1:80 -s memory:", 2, `empty service name`},
	{"register greeter 10.0.0.1:80 --metadata { -s memory:", 2, `--metadata is not JSON`},
	{"register greeter 10.0.0.1:80 --metadata [] --zone a -s memory:", 2, `--metadata is not an object`},
	{"register greeter 10.0.0.1:80 --metadata {\"zone\":\"b\"} --zone a -s memory:", 2, `"zone", and so has a flag`},
	{"register greeter 10.0.0.1:80 --weight -1 -s memory:", 2, `--weight is -1`},
	{"register greeter 10.0.0.1:80 --weight NaN -s memory:", 2, `--weight is NaN`},
	{"register greeter 10.0.0.1:80 --id \xff -s memory:", 2, `ID "\\xff" is not UTF-8`},
	{"register greeter 10.0.0.1:80 --ttl 1ms -s memory:", 2, `--ttl must be from 1s to 24h`},
	{"register greeter 10.0.0.1:80 --drain-delay -1s -s memory:", 2, `--drain-delay must be from 0s to 1h`},
	{"run greeter -s memory: -- true", 2, `"addr" not set`},
	{"run greeter --addr 10.0.0.1:80 -s memory:", 2, `at least 2 arg`},
	{"run greeter --addr 10.0.0.1 -s memory: -- true", 2, `--addr: .*missing port`},
	{"run greeter --addr 10.0.0.1:80 --health-addr 10.0.0.2 -s memory: -- true", 2, `--health-addr: .*missing port`},
	{"run '' --addr 10.0.0.1:80 -s memory: -- true", 2, `empty service name`},
	{"run greeter --addr 10.0.0.1:80 --health smoke -s memory: -- true", 2, `--health is "smoke"`},
	{"run greeter --addr 10.0.0.1:80 --ttl -1s -s memory: -- true", 2, `--ttl must be from 1s to 24h`},
	{"run greeter --addr 10.0.0.1:80 --health-every 0s -s memory: -- true", 2, `--health-every.* must be positive`},
	{"run greeter --addr 10.0.0.1:80 --health none -s memory: -- /no/such/program", 127, `/no/such/program`},
}

// badServers are lines of the commands that listen.
var badServers = []badLine{
	{"dev extra", 2, `unknown command "extra"`},
	{"dev --listen nowhere --temporary", 2, `--listen: .*missing port`},
	{"dev --listen 127.0.0.1:99999 --temporary", 2, `--listen: .*the port is not a number`},
	{"dev --listen example.org:0 --temporary", 2, `--listen: .*want an IP address`},
	{"dev --listen 127.0.0.1:0 --data-dir x --temporary", 2, `data-dir temporary`},
	{"dev --listen 127.0.0.1:0 --data-dir /dev/null/x", 1, `--data-dir: .*not a directory`},
	{"dev --listen 192.0.2.1:0 --temporary", 1, `192.0.2.1`},
	{"serve --listen nowhere -s memory:", 2, `--listen: .*missing port`},
	{"serve --listen 127.0.0.1:0", 2, `no registry`},
	{"ui --listen nowhere -s memory:", 2, `--listen: .*missing port`},
	{"ui --listen 127.0.0.1:0", 2, `no registry`},
}

// badMigrations are lines of the commands below migrate.
var badMigrations = []badLine{
	{"migrate frobnicate", 2, `unknown command "frobnicate" for "naming migrate"`},
	{"migrate status", 2, `two registries are needed: use --old URL and --new URL`},
	{"migrate status --old memory: --new memory:", 2, `--old and --new are the same registry`},
	{"migrate status --old foo://x --new memory:", 2, `--old: .*unknown scheme "foo"`},
	{"migrate status --old memory: --new foo://x", 2, `--new: .*unknown scheme "foo"`},
	{"migrate status --service * --old etcd://127.0.0.1:1 --new memory:", 2, `--service: all services are the default`},
	{"migrate plan --accept colour --old etcd://127.0.0.1:1 --new memory:", 2, `--accept: .*"colour"`},
	{"migrate plan --confirm nothing --old etcd://127.0.0.1:1 --new memory:", 2, `--confirm is "nothing"`},
	{"migrate verify --soak -1s --old etcd://127.0.0.1:1 --new memory:", 2, `--soak and --settle must not be negative`},
	{"migrate verify --to nowhere --old etcd://127.0.0.1:1 --new memory:", 2, `--to: .*nowhere`},
	{"migrate advance --old etcd://127.0.0.1:1 --new memory:", 2, `--service, or use --all`},
	{"migrate advance --all --share 2 --old etcd://127.0.0.1:1 --new memory:", 2, `share`},
	{"migrate back --old etcd://127.0.0.1:1 --new memory:", 2, `--service, or use --all`},
	{"migrate bridge --fuse 2 --old etcd://127.0.0.1:1 --new memory:", 2, `--fuse is 2`},
	{"migrate bridge --election moon --old etcd://127.0.0.1:1 --new memory:", 2, `--election is "moon"`},
	{"migrate approve --old etcd://127.0.0.1:1 --new memory:", 2, `accepts 1 arg`},
	{"migrate sweep --fuse 2 --old etcd://127.0.0.1:1 --new memory:", 2, `--fuse is 2`},
	{"migrate drill --servers 1 --old etcd://127.0.0.1:1 --new memory:", 2, `--servers must be from 2`},
}

func TestBadLines(t *testing.T) {
	t.Parallel()
	for _, line := range badLines {
		t.Run(strings.ToValidUTF8(line.args, "?"), func(t *testing.T) {
			execute(t, words(line.args)...).expect(t, line.status, line.message)
		})
	}
}

// everyCommand calls f with the words of each command of the tree that can be run.
func everyCommand(f func(path string)) {
	root := cli.Commands()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		f(strings.TrimPrefix(strings.TrimPrefix(cmd.CommandPath(), "naming"), " "))
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk(root)
}

// Each command has a line in the table, and refuses an unknown flag with the way to its help.
func TestBadLinesHaveAllCommands(t *testing.T) {
	everyCommand(func(path string) {
		if !slices.ContainsFunc(badLines, func(l badLine) bool {
			rest := variable.ReplaceAllString(l.args, "")
			return strings.HasPrefix(strings.TrimSpace(rest)+" ", path+" ") || path == ""
		}) {
			t.Errorf("naming %s has no line in the table of bad input", path)
		}
		if path == "help" {
			return // It has no flags.
		}
		help := strings.TrimSpace("naming " + path)
		execute(t, append(words(path), "--no-such-flag")...).expect(t, 2, `unknown flag: --no-such-flag\nRun '`+help+` --help' for usage`)
	})
}
