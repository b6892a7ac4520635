package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/naming-go/naming/examples/internal/demo"
)

// TestMigration runs the whole program with short steps, and checks that no call fails and
// that no phase makes a client connect.
func TestMigration(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), []string{"-step", "50ms"}, &stdout, &stderr)
	out := stdout.String()
	if status != 0 || stderr.Len() > 0 {
		t.Fatalf("status %d, want 0; stderr: %s\nstdout:\n%s", status, &stderr, out)
	}
	if !strings.HasSuffix(out, "\nfailed calls: 0\n") {
		t.Errorf("the output does not end in the number of failed calls:\n%s", out)
	}
	if strings.Contains(out, "\x1b") {
		t.Errorf("escape sequences without a terminal:\n%q", out)
	}
	for _, s := range steps {
		want := s.registered(3)
		title := regexp.QuoteMeta(fmt.Sprintf("%d %v%s", s.phase, s.phase, s.note))
		row := fmt.Sprintf(`(?m)^%s +%d +%d +%s +[1-9]\d* +0 +0 +12$`, title, want[0], want[1], regexp.QuoteMeta(s.reads))
		if n := len(regexp.MustCompile(row).FindAllString(out, -1)); n != 1 {
			t.Errorf("%d lines match %s:\n%s", n, row, out)
		}
	}
	checkPicture(t)
}

// checkPicture checks that docs/migration.svg, which shows a run, has the present steps.
func checkPicture(t *testing.T) {
	text, err := os.ReadFile("../../docs/migration.svg")
	if err != nil {
		t.Fatal(err)
	}
	picture := string(text)
	for _, s := range steps {
		want := s.registered(3)
		row := fmt.Sprintf(">%-19s%5d%6d    %s", fmt.Sprintf("%d %v%s", s.phase, s.phase, s.note), want[0], want[1], s.reads)
		if !strings.Contains(picture, row) {
			t.Errorf("%q is not in the picture; make picture draws it again", row)
		}
	}
	if !strings.Contains(picture, ">failed calls: 0<") {
		t.Error("the picture does not end in the number of failed calls")
	}
}

// TestEveryPhase: the story has each phase, neighbours on the way forward, and ends where
// it began.
func TestEveryPhase(t *testing.T) {
	reached := steps[0].phase
	for _, s := range steps {
		if s.phase > reached+1 {
			t.Errorf("the story skips from %v to %v", reached, s.phase)
		}
		reached = max(reached, s.phase)
	}
	if last := steps[len(steps)-1].phase; reached != 7 || last != 0 {
		t.Errorf("the story reaches %v and ends in %v", reached, last)
	}
}

// TestFailedCalls: a call that fails is counted, and is in the row of its phase.
func TestFailedCalls(t *testing.T) {
	var out bytes.Buffer
	screen := demo.NewScreen(&out)
	s := newStory(screen, demo.NewLogger(screen, slog.LevelWarn), 0)
	c, err := startClient(&s.config, "reader")
	if err != nil {
		t.Fatal(err)
	}
	defer c.stop()
	s.clients = append(s.clients, c)
	s.begin(steps[0])
	c.traffic.Call(healthpb.NewHealthClient(c.conn)) // nobody serves
	if out := s.result(); !strings.HasSuffix(out, "\nfailed calls: 1\n") {
		t.Errorf("result:\n%s", out)
	}
	if r := s.present(); r.failed != 1 || r.calls != 0 {
		t.Errorf("row: %v", r)
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
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var stdout, stderr bytes.Buffer
	w := writerFunc(func(p []byte) (int, error) {
		if strings.Contains(string(p), "0 old") {
			cancel()
		}
		return stdout.Write(p)
	})
	status := run(ctx, []string{"-step", "50ms"}, w, &stderr)
	if status != 1 || !strings.Contains(stderr.String(), "canceled") || !strings.HasSuffix(stdout.String(), "failed calls: 0\n") {
		t.Errorf("status %d, want 1; stderr %q; stdout:\n%s", status, stderr.String(), stdout.String())
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
