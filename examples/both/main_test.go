package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/open"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/servertest"
)

// TestBoth builds and runs the program: both endpoints appear, both servers answer, and
// both drain at the same time on SIGTERM.
func TestBoth(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "both")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Run("memory", func(t *testing.T) { testBoth(t, bin, "memory:") })
	t.Run("etcd", func(t *testing.T) {
		url := "etcd://" + etcdtest.Start(t, nil).Members[0].Addr + "?prefix=/naming/"
		testBoth(t, bin, url)
		testDrains(t, bin, url)
	})
}

// process is the program.
type process struct {
	*exec.Cmd
	grpc, http string // addresses
	rest       *bytes.Buffer
	read       sync.WaitGroup
}

// start starts the program, and returns when it has said where it serves.
func start(t *testing.T, bin, url string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	p := &process{Cmd: exec.CommandContext(ctx, bin, "-store", url), rest: new(bytes.Buffer)}
	r, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(r)
	for (p.grpc == "" || p.http == "") && lines.Scan() {
		for prefix, addr := range map[string]*string{"gRPC at ": &p.grpc, "HTTP at ": &p.http} {
			if _, a, ok := strings.Cut(lines.Text(), prefix); ok {
				*addr = a
			}
		}
	}
	p.read.Go(func() {
		for lines.Scan() {
			fmt.Fprintln(p.rest, lines.Text())
		}
	})
	return p
}

// stop sends SIGTERM and waits for the end.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	p.read.Wait()
	if err := p.Wait(); err != nil {
		t.Errorf("the program: %v\n%s", err, p.rest)
	}
}

func testBoth(t *testing.T, bin, url string) {
	p := start(t, bin, url)
	servertest.Poll(t, "readiness over HTTP", func() error { return get("http://" + p.http + "/readyz") })
	if err := get("http://" + p.http + "/hello"); err != nil {
		t.Error(err)
	}
	conn, err := grpc.NewClient(p.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answer, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
	if err != nil || answer.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("gRPC says %v, %v", answer, err)
	}
	p.stop(t)
}

func get(url string) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s %v", resp.Status, body, err)
	}
	return nil
}

// testDrains follows both services in the registry: at one moment both drain, and in the
// end both are gone.
func testDrains(t *testing.T, bin, url string) {
	c, done, err := open.Client(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	p := start(t, bin, url)
	ctx, cancel := context.WithTimeout(t.Context(), servertest.Patience)
	defer cancel()
	states := make(chan state, 100)
	for service, addr := range map[string]string{"greeter": p.grpc, "greeter-http": p.http} {
		go watch(ctx, c, service, addr, states)
	}
	now := make(map[string]string)
	both := func(want string) error {
		for now["greeter"] != want || now["greeter-http"] != want {
			select {
			case s := <-states:
				now[s.service] = s.state
			case <-ctx.Done():
				return errors.New(fmt.Sprint("never both "+want+": ", now))
			}
		}
		return nil
	}
	if err := both("here"); err != nil {
		t.Fatal(err)
	}
	var stopped sync.WaitGroup
	stopped.Go(func() { p.stop(t) })
	for _, want := range []string{"draining", "gone"} {
		if err := both(want); err != nil {
			t.Error(err)
		}
	}
	stopped.Wait()
}

// state is what the registry has of a service.
type state struct{ service, state string }

// watch sends the states of a service with one endpoint, at addr, until ctx is done.
func watch(ctx context.Context, c *naming.Client, service, addr string, states chan<- state) {
	for v, err := range c.Watch(ctx, service) {
		if err != nil {
			return
		}
		s := state{service, "gone"}
		for _, e := range v.Endpoints {
			if s.state = "here"; e.Addr != addr {
				s.state = "at " + e.Addr
			} else if e.Info().Draining {
				s.state = "draining"
			}
		}
		states <- s
	}
}

// TestArguments: run refuses what it would otherwise ignore.
func TestArguments(t *testing.T) {
	for _, args := range [][]string{{"memory:"}, {"-store", "nonsense:"}, {"-grpc", "no such address"}, {"-http", ":0"}} {
		if err := run(t.Context(), args); err == nil {
			t.Errorf("run(%q) returned nil", args)
		}
	}
	t.Setenv("NAMING_HTTP_TTL", "soon")
	if err := run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "NAMING_HTTP_TTL") {
		t.Errorf("run returned %v", err)
	}
}
