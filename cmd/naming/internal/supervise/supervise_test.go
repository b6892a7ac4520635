//go:build unix

package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/internal/servertest"
)

// TestMain makes the test binary the programs of the tests: see programs.
func TestMain(m *testing.M) {
	if program := programs[os.Getenv("SUPERVISE_TEST")]; program != nil {
		program(os.Args[1:])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// programs are the programs that the tests run in processes of their own. A program gets its
// arguments.
var programs = map[string]func([]string){
	"server":     server,
	"supervisor": supervisorProgram,
	"check":      checkProgram,
}

// server serves on an address. The path /healthz answers as /mode?is=NAME says: ok, bad, late
// or never. The path /exit ends the server. On SIGTERM the server gets the URL of its second
// argument, if it has one, and ends with the status 9.
func server(args []string) {
	var mode atomic.Value
	mode.Store("ok")
	http.HandleFunc("/mode", func(_ http.ResponseWriter, r *http.Request) { mode.Store(r.FormValue("is")) })
	http.HandleFunc("/exit", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	http.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		switch mode.Load() {
		case "bad":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "late":
			time.Sleep(2 * every)
		case "never":
			<-r.Context().Done()
		}
	})
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	go func() {
		<-terminated
		if len(args) > 1 {
			_, _ = http.Get(args[1])
		}
		os.Exit(9)
	}()
	fmt.Fprintln(os.Stderr, http.ListenAndServe(args[0], nil))
	os.Exit(1)
}

// every is the time between two checks. A healthy program may take so long on a busy machine.
const every = 500 * time.Millisecond

// run is a call of Run.
type running struct {
	t       *testing.T
	client  *naming.Client
	signals chan os.Signal
	status  chan int
	err     error // after status
	addr    string
}

// freeAddr returns an address of the loopback interface that nobody listens on, and that no
// other test gets.
func freeAddr(t *testing.T) string { return servertest.Addr(servertest.Ports(t, 1)[0]) }

// supervise calls Run. change may change the options.
func supervise(t *testing.T, change func(*Options)) *running {
	r := &running{t: t, client: naming.New(new(memory.Store), nil), signals: make(chan os.Signal, 4), status: make(chan int, 1), addr: freeAddr(t)}
	t.Setenv("SUPERVISE_TEST", "server")
	opts := Options{
		Command: []string{os.Args[0], r.addr}, Service: "s", Endpoint: naming.Endpoint{Addr: r.addr},
		Check: HTTP(r.addr, "/healthz"), Every: every, Failures: 2, Grace: time.Minute,
		Signals: r.signals, Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
		Register: naming.RegisterOptions{DrainDelay: 100 * time.Millisecond},
	}
	if change != nil {
		change(&opts)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		status, err := Run(context.Background(), r.client, opts)
		r.err = err
		r.status <- status
	}()
	t.Cleanup(func() {
		for ended := false; !ended; {
			select {
			case <-done:
				ended = true
			case r.signals <- syscall.SIGTERM:
			}
		}
		r.client.Close()
	})
	return r
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	const bound = time.Minute // only a hang takes longer
	for begin := time.Now(); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > bound {
			t.Fatalf("never: %s", what)
		}
	}
}

func (r *running) listed() bool {
	v, err := r.client.List(context.Background(), "s")
	if err != nil {
		r.t.Error(err)
	}
	return len(v.Endpoints) > 0
}

// want waits until the endpoint is listed, or is not.
func (r *running) want(listed bool) {
	r.t.Helper()
	eventually(r.t, fmt.Sprint("the endpoint is listed: ", listed), func() bool { return r.listed() == listed })
}

// ask asks the server, which is running.
func (r *running) ask(path string) {
	resp, err := http.Get("http://" + r.addr + path)
	if err == nil {
		_ = resp.Body.Close()
	}
}

// wantStatus waits for the end of Run, after which the endpoint must not be listed.
func (r *running) wantStatus(want int) {
	r.t.Helper()
	select {
	case got := <-r.status:
		if got != want || r.err != nil {
			r.t.Errorf("the status is %d (%v), want %d", got, r.err, want)
		}
	case <-time.After(time.Minute):
		r.t.Fatal("Run does not return")
	}
	if r.listed() {
		r.t.Error("the endpoint of a program that has ended is listed")
	}
}

// The endpoint is listed while the program is healthy, and not while the program answers badly,
// late or never, and not after the program has ended.
func TestHealth(t *testing.T) {
	r := supervise(t, nil)
	for _, mode := range []string{"bad", "late", "never"} {
		r.want(true)
		r.ask("/mode?is=" + mode)
		r.want(false)
		r.ask("/mode?is=ok")
	}
	r.want(true)
	r.ask("/exit")
	r.wantStatus(3)
}

// A program that is never healthy is never registered, and the log says why once.
func TestNeverHealthy(t *testing.T) {
	var log record
	checks := make(chan struct{})
	r := supervise(t, func(o *Options) {
		o.Every, o.Failures = 10*time.Millisecond, 3
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		o.Check = func(ctx context.Context) error {
			select {
			case checks <- struct{}{}:
			case <-ctx.Done():
			}
			return errors.New("no \x1bdatabase")
		}
	})
	for range 10 {
		<-checks
	}
	if r.listed() {
		t.Error("the endpoint is listed")
	}
	if text := log.String(); strings.Count(text, "not healthy") != 1 || !strings.Contains(text, "database") || strings.Contains(text, "\x1b") {
		t.Errorf("the log is %q", text)
	}
}

// record is a log. Its methods may be called concurrently.
type record struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// An endpoint that no registry can have is an error before the program starts.
func TestInvalid(t *testing.T) {
	valid := naming.Endpoint{Addr: "127.0.0.1:1"}
	for what, o := range map[string]Options{
		"service":  {Endpoint: valid},
		"metadata": {Service: "s", Endpoint: naming.Endpoint{Addr: "127.0.0.1:1", Metadata: []byte("{")}},
		"TTL":      {Service: "s", Endpoint: valid, Register: naming.RegisterOptions{TTL: time.Millisecond}},
		"drain":    {Service: "s", Endpoint: valid, Register: naming.RegisterOptions{DrainDelay: 24 * time.Hour}},
	} {
		started := filepath.Join(t.TempDir(), "started")
		o.Command, o.Every, o.Logger = []string{"touch", started}, every, slog.New(slog.DiscardHandler)
		status, err := Run(t.Context(), naming.New(new(memory.Store), nil), o)
		if status != StatusInvalid || !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("%s: the status is %d (%v)", what, status, err)
		}
		if _, err := os.Stat(started); err == nil {
			t.Errorf("%s: the program was started", what)
		}
	}
}

// A program that a signal has paused is not healthy, although the kernel accepts connections
// for the program.
func TestPaused(t *testing.T) {
	r := supervise(t, func(o *Options) { o.Check = TCP(o.Endpoint.Addr) })
	r.want(true)
	pid := childOf(t, os.Getpid())
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	r.want(false)
	for begin := time.Now(); time.Since(begin) < 3*every; time.Sleep(every / 10) {
		if r.listed() {
			t.Fatal("a check of a paused program registers the endpoint")
		}
	}
	_ = syscall.Kill(pid, syscall.SIGCONT)
	r.want(true)
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	r.want(false)
	r.signals <- syscall.SIGTERM
	r.wantStatus(9)
}

// childOf returns the only child of a process.
func childOf(t *testing.T, parent int) (pid int) {
	t.Helper()
	eventually(t, "there is a child", func() bool {
		out, err := exec.Command("ps", "-A", "-o", "ppid=,pid=,comm=").Output()
		if err != nil {
			t.Fatal(err)
		}
		pid = 0
		for line := range strings.Lines(string(out)) {
			if f := strings.Fields(line); f[0] == strconv.Itoa(parent) && f[2] != "ps" {
				pid, _ = strconv.Atoi(f[1])
			}
		}
		return pid != 0
	})
	return pid
}

// The endpoint is drained and removed before the program gets the signal to stop.
func TestStop(t *testing.T) {
	listed, supervised := make(chan bool, 1), make(chan *running, 1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stopping := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { listed <- (<-supervised).listed() })}
	go func() { _ = stopping.Serve(l) }()
	defer func() { _ = stopping.Close() }()
	r := supervise(t, func(o *Options) { o.Command = append(o.Command, "http://"+l.Addr().String()) })
	supervised <- r
	r.want(true)
	drained := make(chan bool, 1)
	go func() {
		for v, err := range r.client.Watch(context.Background(), "s") {
			if err != nil || len(v.Endpoints) == 0 || v.Endpoints[0].Draining {
				drained <- err == nil && len(v.Endpoints) > 0
				return
			}
		}
	}()
	r.signals <- syscall.SIGTERM
	r.wantStatus(9)
	if !<-drained {
		t.Error("the endpoint was removed and not drained")
	}
	if <-listed {
		t.Error("the program got the signal before its endpoint was removed")
	}
}

// A program that ends while its endpoint drains ends the wait for clients.
func TestEndWhileDraining(t *testing.T) {
	r := supervise(t, func(o *Options) { o.Register.DrainDelay = time.Hour })
	r.want(true)
	r.signals <- syscall.SIGTERM
	eventually(t, "the endpoint is draining", func() bool {
		v, err := r.client.List(t.Context(), "s")
		return err == nil && len(v.Endpoints) > 0 && v.Endpoints[0].Draining
	})
	r.signals <- syscall.SIGTERM // the second signal goes to the program at once
	r.wantStatus(9)
}

func TestKilledAfterGrace(t *testing.T) {
	r := supervise(t, func(o *Options) {
		o.Command = []string{"sh", "-c", "trap '' TERM; while :; do sleep 1; done"}
		o.Check, o.Grace = nil, 200*time.Millisecond
	})
	r.want(true)
	r.signals <- syscall.SIGTERM
	r.wantStatus(128 + int(syscall.SIGKILL))
}

func TestSignalsPassOn(t *testing.T) {
	for _, c := range []struct {
		sig  os.Signal
		want int
	}{{syscall.SIGUSR1, 11}, {syscall.SIGHUP, 12}, {syscall.SIGKILL, 128 + int(syscall.SIGKILL)}} {
		ready := filepath.Join(t.TempDir(), "ready")
		r := supervise(t, func(o *Options) {
			o.Command = []string{"sh", "-c", "trap 'exit 11' USR1; trap 'exit 12' HUP; touch $0; while :; do sleep 0.1; done", ready}
			o.Check = nil
		})
		eventually(t, "the program is ready", func() bool { _, err := os.Stat(ready); return err == nil })
		r.signals <- c.sig
		r.wantStatus(c.want)
	}
}

// A program that forks and ends has ended. What it leaves behind is asked to end.
func TestFork(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	r := supervise(t, func(o *Options) {
		o.Command, o.Check = []string{"sh", "-c", "sleep 1000 & echo $! > $0; exit 4", file}, nil
	})
	r.wantStatus(4)
	pid := pidIn(t, file)
	eventually(t, "the fork ends", func() bool { return ended(pid) })
}

// pidIn waits for a file with the ID of a process.
func pidIn(t *testing.T, file string) (pid int) {
	t.Helper()
	eventually(t, "there is an ID in "+file, func() bool {
		b, err := os.ReadFile(file)
		if err == nil && strings.HasSuffix(string(b), "\n") {
			pid, err = strconv.Atoi(strings.TrimSpace(string(b)))
		}
		return err == nil && pid != 0
	})
	return pid
}

// ended reports whether a process has ended. A process that nobody has reaped has ended.
func ended(pid int) bool {
	out, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
	return err != nil || strings.HasPrefix(string(out), "Z")
}

func TestNotStarted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("#!/no/such/interpreter\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		command string
		want    int
	}{{"no-such-program", StatusNotFound}, {"/no/such/program", StatusNotFound}, {file, StatusNotExecutable}, {t.TempDir(), StatusNotExecutable}} {
		status, err := Run(t.Context(), naming.New(new(memory.Store), nil), Options{
			Command: []string{c.command}, Service: "s", Endpoint: naming.Endpoint{Addr: "127.0.0.1:1"},
		})
		if status != c.want || err == nil {
			t.Errorf("%s: the status is %d (%v), want %d", c.command, status, err, c.want)
		}
	}
}

// supervisorProgram runs the program of its arguments.
func supervisorProgram(args []string) {
	become()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, Signals...)
	status, err := Run(context.Background(), naming.New(new(memory.Store), nil), Options{
		Command: args, Service: "s", Endpoint: naming.Endpoint{Addr: "127.0.0.1:1"}, Every: every, Failures: 1, Grace: time.Minute,
		Signals: signals, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(status)
}
