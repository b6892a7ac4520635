// Package uitest asks a page of package ui for actions, in tests.
package uitest

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/naming-go/naming/cmd/naming/internal/hub/hubtest"
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
	hubtest.SetHeaders(r, headers...)
	return r
}

// Post asks for an action as [Page.NewRequest] says, and returns the answer.
func (p Page) Post(t *testing.T, action, body string, headers ...string) (status int, answer string) {
	t.Helper()
	resp, answer := hubtest.Do(t, p.NewRequest(t.Context(), t, action, body, headers...))
	return resp.StatusCode, answer
}
