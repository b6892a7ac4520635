// Package uitest asks a page of package ui for actions, in tests.
package uitest

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
)

// Page is a page that takes actions.
type Page struct {
	URL   string // without a slash at its end
	Token string
}

// NewRequest returns a request for an action as the page makes it. The headers, which are names
// and values in turn, replace those of the page. The header Host is the name of the host.
func (p Page) NewRequest(ctx context.Context, t *testing.T, action, body string, headers ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL+"/actions/"+action, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Origin", p.URL)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Naming-Token", p.Token)
	for i := 0; i < len(headers); i += 2 {
		if r.Header.Set(headers[i], headers[i+1]); headers[i] == "Host" {
			r.Host = headers[i+1]
		}
	}
	return r
}

// Post asks for an action as [Page.NewRequest] says, and returns the answer.
func (p Page) Post(t *testing.T, action, body string, headers ...string) (status int, answer string) {
	t.Helper()
	resp, err := http.DefaultClient.Do(p.NewRequest(t.Context(), t, action, body, headers...))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}
