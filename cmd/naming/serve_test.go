package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/naming-go/naming/cmd/naming/internal/cli"
	"github.com/naming-go/naming/cmd/naming/internal/devetcd"
	"github.com/naming-go/naming/cmd/naming/internal/hub/hubtest"
	"github.com/naming-go/naming/internal/consultest"
)

// registries returns the URLs of an etcd and a Consul of the test.
func registries(t *testing.T) map[string]string {
	t.Helper()
	s, err := devetcd.Start(t.Context(), devetcd.Options{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	agent := consultest.Start(t, nil)
	return map[string]string{"etcd": "etcd://" + s.Addr() + "?prefix=/serve/", "consul": "consul://" + agent.Addr + "?prefix=serve-"}
}

// command runs the command, and fails the test for another status than 0.
func command(t *testing.T, args ...string) {
	t.Helper()
	_ = output(t, args...)
}

// output is command. It returns what the command prints.
func output(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	if status := cli.Main(t.Context(), cli.Env{Out: &out, Err: &out, Getenv: func(string) string { return "" }}, args...); status != 0 {
		t.Fatalf("naming %s: status %d: %s", strings.Join(args, " "), status, &out)
	}
	return out.String()
}

// startServer runs a command that prints a URL in its first line and serves until its context
// is done. It returns the URL, and a function that stops the command and returns its status.
func startServer(t *testing.T, args ...string) (url string, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	status := make(chan int, 1)
	go func() {
		status <- cli.Main(ctx, cli.Env{Out: w, Err: io.Discard, Getenv: func(string) string { return "" }}, args...)
		w.Close()
	}()
	stop = sync.OnceValue(func() int {
		cancel()
		return <-status
	})
	t.Cleanup(func() { stop() })
	lines := bufio.NewReader(r)
	line, err := lines.ReadString('\n')
	if err != nil {
		t.Fatalf("naming %s: status %d without a URL", strings.Join(args, " "), stop())
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	return strings.TrimSuffix(strings.TrimSpace(line[strings.LastIndex(line, "http://"):]), "/"), stop
}

// page returns the body of a page, or an empty text for another status than 200.
func page(t *testing.T, url string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, body := hubtest.Do(t, r)
	if resp.StatusCode != http.StatusOK {
		return ""
	}
	return body
}

// pageHas waits until a page has a text.
func pageHas(t *testing.T, url, text string) {
	t.Helper()
	const bound = time.Minute // only a hang takes longer
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		body := page(t, url)
		if strings.Contains(body, text) {
			return
		}
		if time.Since(begin) > bound {
			t.Fatalf("%s has no %q: %s", url, text, body)
		}
	}
}

func TestServe(t *testing.T) {
	t.Parallel()
	for kind, store := range registries(t) {
		t.Run(kind, func(t *testing.T) {
			command(t, "register", "greeter", "10.0.0.1:80", "--permanent", "--zone", "a", "--store", store)
			url, stop := startServer(t, "serve", "--listen", "127.0.0.1:0", "--store", store)
			pageHas(t, url+"/prometheus/targets", `{"targets":["10.0.0.1:80"],"labels":{"__meta_naming_id":"10.0.0.1:80","__meta_naming_service":"greeter","__meta_naming_state":"serving","__meta_naming_zone":"a"}}`)
			pageHas(t, url+"/readyz", "fresh")
			command(t, "register", "greeter", "10.0.0.2:80", "--permanent", "--store", store)
			pageHas(t, url+"/v1/services/greeter", "10.0.0.2:80")
			pageHas(t, url+"/metrics", `naming_hub_endpoints{state="serving"} 2`)
			if status := stop(); status != 0 {
				t.Fatalf("the status at the end is %d, want 0", status)
			}
		})
	}
	t.Run("migrate", func(t *testing.T) {
		var urls []string
		for _, store := range registries(t) {
			urls = append(urls, store)
		}
		command(t, "register", "greeter", "10.0.0.1:80", "--permanent", "--store", urls[0])
		store := fmt.Sprintf("migrate:?from=%s&to=%s&phase=union", urls[0], urls[1])
		url, _ := startServer(t, "serve", "--listen", "127.0.0.1:0", "--store", store)
		pageHas(t, url+"/v1/services/greeter", `"phase":"union"`)
		pageHas(t, url+"/v1/services/greeter", `"name":"new"`)
		pageHas(t, url+"/prometheus/targets", "10.0.0.1:80")
		pageHas(t, url+"/metrics", `naming_migration_missing`)
		page, stop := startServer(t, "ui", "--listen", "127.0.0.1:0", "--store", store)
		pageHas(t, page+"/", "<title>naming</title>")
		pageHas(t, page+"/info", `"migrating":true`)
		pageHas(t, page+"/service?name=greeter", `"phase":"union"`)
		if status := stop(); status != 0 {
			t.Fatalf("the status at the end is %d, want 0", status)
		}
	})
}

func TestServersRefuseArguments(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	for _, tt := range []struct {
		args   string
		status int
		text   string
	}{
		{"--listen nowhere --store memory:", 2, "--listen"},
		{"--listen " + lis.Addr().String() + " --store memory:", 1, "address already in use"},
		{"--listen 127.0.0.1:0", 2, "no registry"},
		{"--listen 127.0.0.1:0 --store foo://", 2, "unknown scheme"},
		{"--listen 0.0.0.0:0 --host example.org --store memory:", 2, "--host"},
		{"extra --store memory:", 2, "unknown command"},
	} {
		var out bytes.Buffer
		for _, command := range []string{"serve", "ui"} {
			args := append([]string{command}, strings.Fields(tt.args)...)
			out.Reset()
			status := cli.Main(t.Context(), cli.Env{Out: io.Discard, Err: &out, Getenv: func(string) string { return "" }}, args...)
			if status != tt.status || !strings.Contains(out.String(), tt.text) {
				t.Errorf("%s %s: status %d, %q; want %d and %q", command, tt.args, status, &out, tt.status, tt.text)
			}
		}
	}
}
