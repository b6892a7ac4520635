package main

import (
	"bytes"
	"context"
	"os"
	"regexp"
	"strings"
	"testing"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/examples/internal/demo"
)

// TestQuickstart runs the whole program with short steps, and checks that no call fails.
func TestQuickstart(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), []string{"-step", "300ms"}, &stdout, &stderr)
	out := stdout.String()
	if status != 0 || stderr.Len() > 0 {
		t.Fatalf("status %d, want 0; stderr: %s\nstdout:\n%s", status, &stderr, out)
	}
	if !strings.Contains(out, "the registry is unavailable") {
		t.Errorf("the registry did not go down:\n%s", out)
	}
	if !strings.HasSuffix(out, "\nfailed calls: 0\n") {
		t.Errorf("the output does not end in the number of failed calls:\n%s", out)
	}
	for _, server := range []string{"alpha", "beta", "gamma", "delta"} {
		if !regexp.MustCompile(`\n` + server + ` +127\.0\.0\.1:\d+ +[1-9]`).MatchString(out) {
			t.Errorf("%s has no calls:\n%s", server, out)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Errorf("escape sequences without a terminal:\n%q", out)
	}
	checkPicture(t, out)
}

// checkPicture compares the steps of a run with docs/quickstart.svg, which shows a run.
func checkPicture(t *testing.T, out string) {
	picture, err := os.ReadFile("../../docs/quickstart.svg")
	if err != nil {
		t.Fatal(err)
	}
	if len(picture) > 100<<10 {
		t.Errorf("the picture has %d bytes, want 100 KiB at most", len(picture))
	}
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if (strings.HasPrefix(line, "* ") || strings.HasPrefix(line, "failed calls")) && !strings.Contains(string(picture), ">"+line+"<") {
			t.Errorf("%q is not in the picture; make picture draws it again", line)
		}
	}
}

// TestFailedCalls: a call that fails is counted.
func TestFailedCalls(t *testing.T) {
	c := naming.New(new(memory.Store), nil)
	defer c.Close()
	conn, err := dial(c) // nobody serves
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s := &story{client: c, screen: demo.NewScreen(new(bytes.Buffer)), traffic: demo.NewTraffic()}
	s.traffic.Call(healthpb.NewHealthClient(conn))
	if out := s.result(); !strings.HasSuffix(out, "no endpoints\nfailed calls: 1\n") {
		t.Errorf("result:\n%s", out)
	}
}

func TestBadArguments(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"now"}, `unexpected argument "now"`},
		{[]string{"-step", "soon"}, "invalid value"},
	} {
		var stdout, stderr bytes.Buffer
		status := run(t.Context(), c.args, &stdout, &stderr)
		first, _, _ := strings.Cut(stderr.String(), "\n")
		if status != 2 || !strings.Contains(first, c.want) || stdout.Len() > 0 {
			t.Errorf("%q: status %d, want 2; stderr %q, want a line with %q; stdout %q", c.args, status, stderr.String(), c.want, stdout.String())
		}
	}
}

// TestInterrupt: an interrupt ends the story early, and the servers still leave in order.
func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var stdout, stderr bytes.Buffer
	w := writerFunc(func(p []byte) (int, error) {
		if strings.Contains(string(p), "alpha leaves") {
			cancel()
		}
		return stdout.Write(p)
	})
	status := run(ctx, []string{"-step", "100ms"}, w, &stderr)
	if status != 1 || !strings.Contains(stderr.String(), "canceled") || !strings.HasSuffix(stdout.String(), "failed calls: 0\n") {
		t.Errorf("status %d, want 1; stderr %q; stdout:\n%s", status, stderr.String(), stdout.String())
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
