package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/httptransport"
	"github.com/naming-go/naming/internal/servertest"
	"github.com/naming-go/naming/resolver"
)

// TestProxy: a request gets the answer of a server. Without a server the status is 503.
func TestProxy(t *testing.T) {
	c := naming.New(new(memory.Store), nil)
	defer c.Close()
	transport := httptransport.New(resolver.NewBuilder(c, nil), nil)
	defer transport.Close()
	proxy := httptest.NewServer(newProxy(transport))
	defer proxy.Close()
	get := func() (int, string) {
		resp, err := http.Get(proxy.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text)
	}
	if status, text := get(); status != http.StatusServiceUnavailable || text != "" {
		t.Errorf("without a server: %d %q", status, text)
	}
	if err := startServer(c); err != nil {
		t.Fatal(err)
	}
	servertest.Poll(t, "no answer of the server", func() error {
		if status, text := get(); status != http.StatusOK || !strings.HasPrefix(text, "hello from ") {
			return fmt.Errorf("got %d %q", status, text)
		}
		return nil
	})
}
