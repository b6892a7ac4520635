// Package servertest runs real servers for tests. It finds their binaries, chooses ports,
// starts processes that end with the test, and makes certificates. A test whose server is
// missing is skipped with the reason. Packages etcdtest and consultest use servertest.
package servertest

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Patience bounds every wait for a server. It is far longer than a server needs, as other
// programs may use the machine at the same time.
const Patience = 90 * time.Second

// Root returns the root directory of this module.
func Root(tb testing.TB) string {
	tb.Helper()
	// Tests run in the directory of their package. The path of this source file is not
	// known: -trimpath removes it.
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		// The root has this package. A module below the root does not.
		if _, err := os.Stat(filepath.Join(dir, "internal", "servertest")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			tb.Fatal("the test does not run inside the module github.com/naming-go/naming")
		}
		dir = parent
	}
}

// Binary returns the path of bin/name, which make servers builds. If the file does not
// exist, Binary calls [Missing].
func Binary(tb testing.TB, name string) string {
	tb.Helper()
	path := filepath.Join(Root(tb), "bin", name)
	if runtime.GOOS == "windows" {
		path += ".exe"
	}
	switch _, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		Missing(tb, "no bin/"+name+": build it with `make servers`")
	case err != nil:
		tb.Fatal(err)
	}
	return path
}

// Missing skips a test whose server is missing, with the reason. If the environment has
// NAMING_SERVERS=required, as under make test, Missing fails the test, so that a missing
// test is noticed.
func Missing(tb testing.TB, reason string) {
	tb.Helper()
	if os.Getenv("NAMING_SERVERS") == "required" {
		tb.Fatalf("%s (NAMING_SERVERS=required)", reason)
	}
	tb.Skip("skipped: " + reason)
}

var ports struct {
	sync.Mutex
	given map[int]bool
}

// Ports returns n ports that are free on 127.0.0.1. It returns no port twice in one process.
// Another process may take a port before the test uses it: [Start] then tries again with
// other ports.
//
// The ports are below those that the kernel gives to outgoing connections. A server that
// is down must find its port free when it starts again, and a client that dials the port
// meanwhile must not get the same port as its own.
func Ports(tb testing.TB, n int) []int {
	tb.Helper()
	const low, high = 15_000, 32_000
	ports.Lock()
	defer ports.Unlock()
	if ports.given == nil {
		ports.given = make(map[int]bool)
	}
	var free []int
	for range 10_000 {
		if len(free) == n {
			return free
		}
		port := low + rand.IntN(high-low)
		if ports.given[port] || !isFree(port) {
			continue
		}
		ports.given[port] = true
		free = append(free, port)
	}
	tb.Fatalf("no %d free ports from %d to %d", n, low, high)
	return nil
}

// isFree reports whether a port is free for TCP and UDP. The gossip of Consul needs both.
func isFree(port int) bool {
	addr := Addr(port)
	l, err := net.Listen("tcp4", addr)
	if err != nil {
		return false
	}
	l.Close()
	p, err := net.ListenPacket("udp4", addr)
	if err != nil {
		return false
	}
	p.Close()
	return true
}

// Addr returns the address of a port on 127.0.0.1.
func Addr(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// Poll calls f until f returns nil. It fails the test with the last error of f after
// [Patience]. Use Poll only for events that a server does not report: wait for all others.
func Poll(tb testing.TB, what string, f func() error) {
	tb.Helper()
	if err := poll(what, f); err != nil {
		tb.Fatal(err)
	}
}

// Throughout calls f every 20 milliseconds for d, and fails the test with the first
// error. Throughout checks what must stay true on a real server.
func Throughout(tb testing.TB, what string, d time.Duration, f func() error) {
	tb.Helper()
	end := time.NewTimer(d)
	defer end.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := f(); err != nil {
			tb.Fatalf("%s: %v", what, err)
		}
		select {
		case <-tick.C:
		case <-end.C:
			return
		}
	}
}

// poll is Poll that returns an error.
func poll(what string, f func() error) error {
	give := time.NewTimer(Patience)
	defer give.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-give.C:
			return fmt.Errorf("%s: still after %v: %w", what, Patience, err)
		}
	}
}
