// Package hubtest starts Hubs and their servers for tests.
package hubtest

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/cmd/naming/internal/httpd"
	"github.com/naming-go/naming/cmd/naming/internal/hub"
	"github.com/naming-go/naming/migrate"
)

// World is a registry in memory, a Hub, and a server of the Hub.
type World struct {
	Store *memory.Store
	Hub   *hub.Hub
	URL   string // of the server
}

// Start starts a Hub on the store, and a server with the handler, until the test ends. It does
// not wait for an answer of the registry.
func (w *World) Start(t testing.TB, handler http.Handler) {
	t.Helper()
	w.StartClient(t, naming.New(w.Store, &naming.Options{Logger: slog.New(slog.DiscardHandler)}), nil, handler)
}

// StartClient is Start on a Client that exists. The end of the test closes the Client. joined
// is nil unless the Client is on two registries.
func (w *World) StartClient(t testing.TB, c *naming.Client, joined *migrate.Joined, handler http.Handler) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Hub.Run(ctx, c, joined) }()
	server := httptest.NewServer(httpd.Limit(httpd.CheckHost(handler)))
	w.URL = server.URL
	t.Cleanup(func() {
		cancel()
		server.CloseClientConnections()
		server.Close()
		<-done
		c.Close()
	})
}

// Put changes endpoints of a service.
func (w *World) Put(t testing.TB, service string, changes ...naming.Change) {
	t.Helper()
	if err := w.Store.Apply(t.Context(), service, changes...); err != nil {
		t.Fatal(err)
	}
}

// Endpoint returns a change that adds an endpoint with an ID, whose address is the ID and the
// port 80.
func Endpoint(id string) naming.Change {
	return naming.Change{Endpoint: naming.Endpoint{ID: id, Addr: id + ":80"}}
}

// Get returns an answer of the server and its body. headers are names and values. The header
// Host is the name of the host.
func (w *World) Get(t testing.TB, path string, headers ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	SetHeaders(r, headers...)
	return Do(t, r)
}

// SetHeaders sets headers, which are names and values in turn. The header Host is the name of the
// host.
func SetHeaders(r *http.Request, headers ...string) {
	for i := 0; i < len(headers); i += 2 {
		if r.Header.Set(headers[i], headers[i+1]); headers[i] == "Host" {
			r.Host = headers[i+1]
		}
	}
}

// Do returns the answer to a request and its body.
func Do(t testing.TB, r *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// Eventually waits until a condition holds. Only a hang takes a minute.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for begin := time.Now(); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatalf("it does not hold: %s", what)
		}
	}
}
