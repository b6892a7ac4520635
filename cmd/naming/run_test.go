package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/open"
	"github.com/naming-go/naming/internal/servertest"
)

// testserver is a program for naming run: it serves on the address of its argument. The path
// /healthz is healthy until /mode?is=bad was called. The path /failed returns how many answers
// were bad, and /exit ends the program with the status 3. With a URL, testserver gets the URL.
func testserver() {
	if strings.HasPrefix(os.Args[1], "http:") {
		_, _ = http.Get(os.Args[1]) // after /exit there is an error
		return
	}
	http.HandleFunc("/exit", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	var bad atomic.Bool
	var failed atomic.Int64
	http.HandleFunc("/failed", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, failed.Load()) })
	http.HandleFunc("/mode", func(_ http.ResponseWriter, r *http.Request) { bad.Store(r.FormValue("is") == "bad") })
	http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if bad.Load() {
			failed.Add(1)
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	fmt.Fprintln(os.Stderr, http.ListenAndServe(os.Args[1], nil))
	os.Exit(1)
}

// outage is naming run in front of a registry that comes and goes.
type outage struct {
	t        *testing.T
	dir      string
	addr     string // of the registry
	server   string // of the program
	registry *exec.Cmd
	run      *exec.Cmd
	log      bytes.Buffer // of run; may be read after its end
}

func newOutage(t *testing.T) *outage {
	o := &outage{t: t, dir: t.TempDir(), addr: freeAddr(t), server: freeAddr(t)}
	t.Cleanup(func() {
		for _, cmd := range []*exec.Cmd{o.run, o.registry} {
			if cmd != nil && cmd.ProcessState == nil {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}
		}
		if t.Failed() {
			t.Logf("naming run:\n%s", o.log.String())
		}
	})
	return o
}

// freeAddr returns an address of the loopback interface that nobody listens on, and that no
// other test gets.
func freeAddr(t *testing.T) string { return servertest.Addr(servertest.Ports(t, 1)[0]) }

func (o *outage) url() string { return "etcd://" + o.addr + "?prefix=/t/" }

// startRegistry starts naming dev, and waits until it can be used.
func (o *outage) startRegistry() {
	o.t.Helper()
	o.registry = exec.Command("naming", "dev", "--listen", o.addr, "--data-dir", filepath.Join(o.dir, "data"))
	out, err := o.registry.StdoutPipe()
	if err != nil {
		o.t.Fatal(err)
	}
	o.registry.Stderr = os.Stderr
	if err := o.registry.Start(); err != nil {
		o.t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.HasPrefix(line, "registry ready") {
		o.t.Fatalf("naming dev: %q, %v", line, err)
	}
}

func (o *outage) killRegistry() {
	o.t.Helper()
	_ = o.registry.Process.Kill()
	_ = o.registry.Wait()
}

// startRun starts naming run, and waits until the program serves.
func (o *outage) startRun() {
	o.t.Helper()
	o.log.Reset()
	o.run = exec.Command("naming", "run", "s", "--store", o.url(), "--addr", o.server, "--ttl", "2s", "--drain-delay", "100ms",
		"--health", "http", "--health-every", "500ms", "--health-failures", "2", "--", "testserver", o.server)
	o.run.Stderr = &o.log
	if err := o.run.Start(); err != nil {
		o.t.Fatal(err)
	}
	o.eventually("the program serves", func() bool { return o.ask("/healthz") })
}

// ask reports whether the program answers.
func (o *outage) ask(path string) bool {
	resp, err := http.Get("http://" + o.server + path)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return true
}

// failed returns how many checks of the program have failed.
func (o *outage) failed() (n int) {
	o.t.Helper()
	resp, err := http.Get("http://" + o.server + "/failed")
	if err != nil {
		o.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := fmt.Fscan(resp.Body, &n); err != nil {
		o.t.Fatal(err)
	}
	return n
}

func (o *outage) eventually(what string, holds func() bool) {
	o.t.Helper()
	const bound = time.Minute // only a hang takes longer
	for begin := time.Now(); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Since(begin) > bound {
			o.t.Fatalf("never: %s", what)
		}
	}
}

// want waits until the registry answers and has the entry, or does not have the entry.
func (o *outage) want(listed bool) {
	o.t.Helper()
	store, done, err := open.Store(o.t.Context(), o.url(), nil)
	if err != nil {
		o.t.Fatal(err)
	}
	defer func() { _ = done() }()
	o.eventually(fmt.Sprint("the entry is there: ", listed), func() bool {
		ctx, cancel := context.WithTimeout(o.t.Context(), 5*time.Second)
		defer cancel()
		list, err := entries(ctx, store)
		return err == nil && (len(list) > 0) == listed
	})
}

// entries returns the entries of the program.
func entries(ctx context.Context, store naming.Store) ([]naming.Endpoint, error) {
	for b, err := range store.Watch(ctx, "s") {
		return b.Put, err
	}
	return nil, ctx.Err()
}

// stop sends a signal to naming run and waits for a status.
func (o *outage) stop(sig os.Signal, status int) {
	o.t.Helper()
	_ = o.run.Process.Signal(sig)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = o.run.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		o.t.Fatal("naming run does not end")
	}
	if got := o.run.ProcessState.ExitCode(); got != status {
		o.t.Errorf("the status is %d, want %d", got, status)
	}
	o.eventually("the program ends", func() bool { return !o.ask("/healthz") })
}

// terminated is the status of a program that SIGTERM has ended.
const terminated = 128 + int(syscall.SIGTERM)

// The program runs on while its registry is down. The entry follows when the registry is back:
// at the start, after the registry was killed, and after the registry did not answer.
func TestRunOutage(t *testing.T) {
	t.Parallel()
	o := newOutage(t)
	o.startRun() // before the registry
	o.startRegistry()
	o.want(true)
	o.killRegistry()
	o.ask("/mode?is=bad")
	o.startRegistry()
	o.want(false)
	o.ask("/mode?is=ok")
	o.want(true)
	_ = o.registry.Process.Signal(syscall.SIGSTOP)
	if !o.ask("/mode?is=bad") {
		t.Error("the program does not serve while its registry is stopped")
	}
	before := o.failed()
	o.eventually("checks fail while the registry is stopped", func() bool { return o.failed() >= before+2 })
	_ = o.registry.Process.Signal(syscall.SIGCONT)
	o.want(false)
	o.ask("/mode?is=ok")
	o.want(true)
	o.stop(syscall.SIGTERM, terminated)
	o.want(false)
}

// A registry that is down does not keep naming run from its end.
func TestRunStopsInOutage(t *testing.T) {
	t.Parallel()
	o := newOutage(t)
	o.startRegistry()
	o.startRun()
	o.want(true)
	o.killRegistry()
	o.stop(syscall.SIGTERM, terminated)
	if n := strings.Count(o.log.String(), "stays listed"); n > 1 {
		t.Errorf("the log says %d times that the endpoint stays listed", n)
	}
	o.startRegistry()
	o.want(false) // the lease ends
	o.killRegistry()
	o.startRun()
	o.stop(syscall.SIGTERM, terminated)
}

// The entry goes with the program when naming run is killed, and when the program is killed.
func TestRunKilled(t *testing.T) {
	t.Parallel()
	o := newOutage(t)
	o.startRegistry()
	o.startRun()
	o.want(true)
	o.stop(syscall.SIGKILL, -1)
	o.want(false)
	o.startRun()
	o.want(true)
	if out, err := exec.Command("pkill", "-KILL", "-P", fmt.Sprint(o.run.Process.Pid)).CombinedOutput(); err != nil {
		t.Fatalf("pkill: %v\n%s", err, out)
	}
	o.stop(syscall.SIGCONT, 128+int(syscall.SIGKILL))
	o.want(false)
}

// TestTerminalRun has naming run in a terminal: Ctrl-C drains first, Ctrl-Z pauses both, bg has them
// go on without the terminal, and the program gets the keys only if it has the terminal.
func TestTerminalRun(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	term := newTerminal(t, "NAMING_STORE="+r.url)
	before := term.settings()
	listed := func(want bool) {
		t.Helper()
		term.eventually(fmt.Sprint("the entry is there: ", want), func() bool {
			list, err := entries(t.Context(), r.store)
			return err == nil && (len(list) > 0) == want
		})
	}
	for _, flag := range []string{"", "--foreground "} {
		term.run("clear; naming run s --addr 127.0.0.1:80 --health none " + flag + "-- sh -c 'trap \"echo interrupted; exit 5\" INT; while :; do sleep 0.1; done'")
		listed(true)
		term.keys("C-z")
		term.idle()
		listed(false)
		term.run("bg") // the shell keeps the terminal
		listed(true)
		term.run("echo shell$((1+1))")
		term.wait("shell2")
		term.run("fg")
		listed(true)
		term.keys("C-c")
		term.wait("interrupted")
		term.restored(before, 5)
		listed(false)
	}
	term.run("clear; naming run s --addr 127.0.0.1:80 --health none -- sh -c 'read key; echo \"the key is <$key>\"'")
	term.wait("the key is <>")
	term.restored(before, 0)
	term.run("clear; naming run s --addr 127.0.0.1:80 --health none --foreground -- sh -c 'read key; echo \"the key is <$key>\"'")
	listed(true)
	term.keys("C-z")
	term.idle()
	term.run("fg")
	listed(true)
	term.run("x")
	term.wait("the key is <x>")
	term.restored(before, 0)
	// The terminal is that of the script again after the end of the program.
	term.run("clear; sh -c 'naming run s --addr 127.0.0.1:80 --health none --foreground -- true; echo ended; read key; echo \"then <$key>\"'")
	term.wait("ended\n")
	term.run("y")
	term.wait("then <y>")
	term.restored(before, 0)
	term.run("clear; echo from a pipe | naming run s --addr 127.0.0.1:80 --health none -- cat")
	term.wait("from a pipe\n")
	term.restored(before, 0)
}
