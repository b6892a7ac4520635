package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/naming-go/naming/bench/peer"
	"github.com/naming-go/naming/bench/report"
)

// facts returns what was measured, and on what machine. The name of the machine is left
// out.
func facts(root, size string, repeats int, peers []peer.Peer) []report.Fact {
	list := []report.Fact{
		{Name: "run", Text: fmt.Sprintf("%s, %d repeats, begun %s", size, repeats, time.Now().UTC().Format("2006-01-02 15:04 UTC"))},
		{Name: "machine", Text: fmt.Sprintf("%s, %d cores, load %s", field("/proc/cpuinfo", "model name"), runtime.NumCPU(), firstWords("/proc/loadavg", 3))},
		{Name: "system", Text: strings.TrimSpace(fmt.Sprintf("%s/%s, kernel %s", runtime.GOOS, runtime.GOARCH, firstWords("/proc/sys/kernel/osrelease", 1)))},
		{Name: "go", Text: runtime.Version()},
	}
	for _, server := range []string{"etcd", "consul"} {
		out, err := exec.Command(root+"/bin/"+server, "--version").Output()
		if err == nil {
			line, _, _ := strings.Cut(string(out), "\n")
			list = append(list, report.Fact{Name: server, Text: line})
		}
	}
	info, _ := debug.ReadBuildInfo()
	modules := []string{"google.golang.org/grpc"}
	for _, p := range peers {
		modules = append(modules, p.Module)
	}
	slices.Sort(modules)
	for _, path := range slices.Compact(modules) {
		version := "this tree"
		if info != nil {
			for _, m := range info.Deps {
				if m.Path == path && m.Replace == nil {
					version = m.Version
				}
			}
		}
		list = append(list, report.Fact{Name: path, Text: version})
	}
	return list
}

// field returns the value of a line "name : value".
func field(file, name string) string {
	f, err := os.Open(file)
	if err != nil {
		return "unknown processor"
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if k, v, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return "unknown processor"
}

func firstWords(file string, n int) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	words := strings.Fields(string(b))
	return strings.Join(words[:min(n, len(words))], " ")
}
