package serve_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/health"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/serve"
)

// probe sends the request of a readiness probe to a handler.
func probe(t *testing.T, h http.Handler) (status int, body string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/ready", nil))
	if !json.Valid(w.Body.Bytes()) || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%v, body %q", w.Header(), w.Body)
	}
	return w.Code, w.Body.String()
}

func TestFieldI6ReadyHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(memory.Store)
		c := naming.New(s, nil)
		defer c.Close()
		s.Refuse(errors.New("the cause"))
		g, err := c.Register(t.Context(), "svc", naming.Endpoint{Addr: "a:1"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		h := serve.ReadyHandler(g)
		synctest.Wait()
		if status, body := probe(t, h); status != 503 || !strings.Contains(body, `"Err":"memory: grant: the cause"`) || !strings.Contains(body, `"ready":false`) {
			t.Errorf("%d %s", status, body)
		}
		s.Up()
		if err := g.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if status, body := probe(t, h); status != 200 || !strings.Contains(body, `"ready":true`) {
			t.Errorf("%d %s", status, body)
		}
		if status, _ := probe(t, serve.ReadyHandler()); status != 503 {
			t.Errorf("without a registration: %d", status)
		}
		if status, _ := probe(t, serve.ReadyHandler(g, nil)); status != 503 {
			t.Errorf("with a nil registration: %d", status)
		}
		if err := g.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if status, body := probe(t, h); status != 503 || !strings.Contains(body, "draining") {
			t.Errorf("%d %s", status, body)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/ready", nil))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("POST: %d", w.Code)
		}
		w = httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodHead, "/ready", nil))
		if w.Code != 503 {
			t.Errorf("HEAD: %d", w.Code)
		}
	})
}

// A Readiness follows the registrations that come and go with the health service.
func TestFieldI6Readiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := naming.New(new(memory.Store), nil)
		defer c.Close()
		var ready serve.Readiness
		hs := health.NewServer()
		hs.SetServingStatus("", healthgrpc.HealthCheckResponse_NOT_SERVING)
		want := func(status int, why string) {
			t.Helper()
			synctest.Wait()
			if got, body := probe(t, &ready); got != status {
				t.Errorf("%s: %d %s, want %d", why, got, body, status)
			}
			if err := ready.Ready(); (err == nil) != (status == 200) {
				t.Errorf("%s: %v", why, err)
			}
		}
		want(503, "before anything is announced")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 2)
		go func() {
			done <- serve.Announce(ctx, c, "svc", &serve.Options{Addr: "a:1", Readiness: &ready})
		}()
		want(200, "one server")
		go func() {
			done <- serve.Announce(ctx, c, "svc", &serve.Options{Addr: "b:1", Health: hs, Readiness: &ready})
		}()
		want(503, "a second one that does not serve")
		hs.SetServingStatus("", healthgrpc.HealthCheckResponse_SERVING)
		want(200, "both serve")
		hs.SetServingStatus("", healthgrpc.HealthCheckResponse_NOT_SERVING)
		time.Sleep(100 * time.Millisecond)
		want(503, "one does not serve")
		time.Sleep(10 * time.Second)
		want(503, "one is withdrawn")
		hs.SetServingStatus("", healthgrpc.HealthCheckResponse_SERVING)
		want(200, "both again")
		cancel()
		want(503, "both close")
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		want(503, "after the end")
	})
}
