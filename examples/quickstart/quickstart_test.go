package main

import (
	"bytes"
	"context"
	"regexp"
	"strings"
	"testing"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/internal/etcdtest"
)

// The whole story, with short steps: no call fails.
func TestQuickstart(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		out := tell(t, "memory:")
		if !strings.Contains(out, "the registry is not there") {
			t.Errorf("the registry did not go down:\n%s", out)
		}
	})
	t.Run("etcd", func(t *testing.T) {
		t.Parallel()
		c := etcdtest.Start(t, nil)
		out := tell(t, "etcd://"+c.Members[0].Addr+"?prefix=/naming/")
		if !strings.Contains(out, "left out") {
			t.Errorf("the output does not say that the outage was left out:\n%s", out)
		}
	})
}

func tell(t *testing.T, store string) string {
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), []string{"-store", store, "-step", "300ms"}, &stdout, &stderr)
	out := stdout.String()
	if status != 0 || stderr.Len() > 0 {
		t.Fatalf("status %d, want 0; stderr: %s\nstdout:\n%s", status, &stderr, out)
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
		t.Errorf("escape sequences, and no terminal:\n%q", out)
	}
	return out
}

// Calls that fail are seen.
func TestFailedCalls(t *testing.T) {
	c := naming.New(new(memory.Store), nil)
	defer c.Close()
	conn, err := dial(c) // nobody serves
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s := &story{client: c, screen: newScreen(new(bytes.Buffer)), traffic: newTraffic()}
	s.traffic.call(healthpb.NewHealthClient(conn))
	if out := s.result(); !strings.HasSuffix(out, "no endpoints\nfailed calls: 1\n") {
		t.Errorf("result:\n%s", out)
	}
}

func TestBadArguments(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-store", "zookeeper://h"}, `unknown scheme "zookeeper"`},
		{[]string{"-store", "etcd://user:hunter2@h"}, "it has a user before the host"},
		{[]string{"now"}, `unexpected argument "now"`},
		{[]string{"-step", "soon"}, "invalid value"},
	} {
		var stdout, stderr bytes.Buffer
		status := run(t.Context(), c.args, &stdout, &stderr)
		first, _, _ := strings.Cut(stderr.String(), "\n")
		if status != 2 || !strings.Contains(first, c.want) || stdout.Len() > 0 || strings.Contains(stderr.String(), "hunter2") {
			t.Errorf("%q: status %d, want 2; stderr %q, want a line with %q; stdout %q", c.args, status, stderr.String(), c.want, stdout.String())
		}
	}
}

// An interrupt ends the story early, in order.
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
