package main

import (
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// memoryLines are lines of the commands on registries in memory, which are empty and belong to
// one process. The text is in the output.
var memoryLines = []badLine{
	{"ls", 0, `^SERVICE\n$`},
	{"ls -o json", 0, `^\[\]\n$`},
	{"get greeter", 1, `service "greeter" has no endpoints in memory:`},
	{"top --once", 0, `^SERVICE +SIZE`},
	{"resolve greeter", 1, `service "greeter" has no endpoints in memory:`},
	{"drain greeter one", 1, `service "greeter" has no endpoints in memory:`},
	{"resume greeter one", 1, `service "greeter" has no endpoints in memory:`},
	{"deregister greeter one", 1, `service "greeter" has no entry with the ID "one"`},
	{"register greeter 10.0.0.1:80 --permanent", 0, `^$`},
	{"run greeter --addr 10.0.0.1:80 --health none --drain-delay 0s -- echo it runs", 0, `^it runs\n$`},
	{"diff memory: memory:", 0, `^No service was found.\n$`},
	{"copy memory: memory:", 0, `^0 written`},
	{"check --many 50 --quiet 100ms", 0, `passed +FirstBatchIsSnapshot`},
	{"doctor --samples 3", 0, `ok +reach +the registry answers`},
	{"bench --registrations 10 --changes 2", 0, `\d`},
	{"migrate status --old memory: --new memory:", 2, `the same registry`},
	{"migrate plan", 2, `two registries are needed`},
	{"migrate verify --service greeter", 2, `two registries are needed`},
	{"migrate advance --all", 2, `two registries are needed`},
	{"migrate back --all", 2, `two registries are needed`},
	{"migrate bridge", 2, `two registries are needed`},
	{"migrate approve 0123", 2, `two registries are needed`},
	{"migrate sweep", 2, `two registries are needed`},
	{"migrate drill", 2, `two registries are needed`},
	{"ls -s migrate:?from=memory:&to=memory:&phase=union", 0, `^SERVICE\n$`},
}

// memoryLongLines are those that run until Ctrl-C.
var memoryLongLines = []badLine{
	{"watch greeter", 0, `synced +endpoints=0`},
	{"register greeter 10.0.0.1:80 --drain-delay 0s", 0, `registered 10.0.0.1:80 in greeter`},
	{"serve --listen 127.0.0.1:0", 0, `serving memory: at http://127.0.0.1:`},
	{"ui --listen 127.0.0.1:0 --allow-writes", 0, `http://127.0.0.1:\d+/#token=`},
}

// TestMemory runs each command that reads or writes a registry on one in memory.
func TestMemory(t *testing.T) {
	t.Parallel()
	for _, line := range memoryLines {
		t.Run(line.args, func(t *testing.T) {
			t.Parallel()
			line.holds(t, execute(t, line.inMemory()...))
		})
	}
	for _, line := range memoryLongLines {
		t.Run(line.args, func(t *testing.T) {
			t.Parallel()
			s := begin(t, line.inMemory()...)
			s.until("synced|registered|http://")
			s.signal(syscall.SIGINT)
			line.holds(t, s.end())
		})
	}
	everyCommand(func(path string) {
		switch first, _, _ := strings.Cut(path, " "); first {
		case "", "completion", "help", "man", "dev":
			return // they have no registry, or bring their own
		}
		if path != "migrate" && !slices.ContainsFunc(slices.Concat(memoryLines, memoryLongLines), func(l badLine) bool {
			return strings.HasPrefix(l.args+" ", path+" ")
		}) {
			t.Errorf("naming %s has no line", path)
		}
	})
}

// inMemory returns the words of a line that names no registry.
func (l badLine) inMemory() []string { return append([]string{"--store", "memory:"}, words(l.args)...) }

// holds checks the status and the output of a run.
func (l badLine) holds(t *testing.T, r ran) {
	t.Helper()
	if all := r.out + r.err; r.status != l.status || !regexp.MustCompile(l.message).MatchString(all) {
		t.Errorf("the status is %d, want %d; want %q in\n%s", r.status, l.status, l.message, all)
	}
	r.sober(t)
}
