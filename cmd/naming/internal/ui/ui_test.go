package ui

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/cmd/naming/internal/httpd"
	"github.com/naming-go/naming/cmd/naming/internal/hub"
	"github.com/naming-go/naming/migrate"
)

// world is a registry and its page.
type world struct {
	store *memory.Store
	hub   *hub.Hub
	url   string
}

func start(t testing.TB, store *memory.Store, opts Options) *world {
	t.Helper()
	c := naming.New(store, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	return startClient(t, &world{store: store, hub: hub.New(hub.Options{})}, c, nil, opts)
}

// startClient is start on a Client that exists.
func startClient(t testing.TB, w *world, c *naming.Client, joined *migrate.Joined, opts Options) *world {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.hub.Run(ctx, c, joined) }()
	s, err := New(w.hub, opts)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(httpd.Limit(httpd.CheckHost(s)))
	w.url = server.URL
	t.Cleanup(func() {
		cancel()
		server.CloseClientConnections()
		server.Close()
		<-done
		c.Close()
	})
	return w
}

func (w *world) put(t testing.TB, service string, changes ...naming.Change) {
	t.Helper()
	if err := w.store.Apply(t.Context(), service, changes...); err != nil {
		t.Fatal(err)
	}
}

func newEndpoint(id string) naming.Change {
	return naming.Change{Endpoint: naming.Endpoint{ID: id, Addr: id + ":80"}}
}

// wait waits until the Hub has services.
func (w *world) wait(t testing.TB, services int) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if s := w.hub.Status(); s.Filled && s.Services == services && s.Waiting == 0 {
			return
		}
		if time.Since(begin) > time.Minute {
			t.Fatalf("the Hub does not have %d services", services)
		}
	}
}

func (w *world) get(t testing.TB, path string) (*http.Response, string) {
	t.Helper()
	resp, err := http.Get(w.url + path)
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

func TestPageIsWhole(t *testing.T) {
	w := start(t, new(memory.Store), Options{})
	_, page := w.get(t, "/")
	for _, part := range []string{"app.js", "app.css", "uplot.js", "uplot.css", "icon.svg"} {
		if resp, body := w.get(t, "/"+part); resp.StatusCode != http.StatusOK || body == "" || !strings.Contains(page, `"`+part+`"`) {
			t.Errorf("%s has the status %d, or is not in the page", part, resp.StatusCode)
		}
	}
	resp, licence := w.get(t, "/uplot.LICENSE")
	if !strings.Contains(licence, "MIT") || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("the licence of uPlot is %q", licence)
	}
	for _, forbidden := range []string{"http:", "https:", "<style", "style=", "onclick", "<script>"} {
		if strings.Contains(page, forbidden) {
			t.Errorf("the page has %q, which its policy refuses", forbidden)
		}
	}
	if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
		t.Errorf("the policy is %q", csp)
	}
}

func TestServiceIsSafeToShow(t *testing.T) {
	w := start(t, new(memory.Store), Options{})
	const evil = "a\x1b[31m\u202e<script>"
	w.put(t, evil, naming.Change{Endpoint: naming.Endpoint{ID: evil, Addr: "10.0.0.1:80", Metadata: json.RawMessage(`{"zone":"\u001b[2J","tags":["\u0007"]}`)}})
	w.store.Withhold(evil, evil, naming.Maintenance, "note\x1b")
	w.wait(t, 1)
	_, body := w.get(t, "/service?name=a%1b%5b31m%e2%80%ae%3Cscript%3E")
	var d detail
	if err := json.Unmarshal([]byte(body), &d); err != nil || len(d.Endpoints) != 1 {
		t.Fatalf("%v: %s", err, body)
	}
	e := d.Endpoints[0]
	for _, text := range []string{d.Text, e.Text, e.Addr, e.Why, e.Zone, e.Tags, e.Metadata} {
		if strings.ContainsAny(text, "\x1b\x07\u202e") {
			t.Errorf("the page shows %q", text)
		}
	}
	if e.ID != evil || d.Name != evil {
		t.Errorf("the keys are %q and %q, want %q", d.Name, e.ID, evil)
	}
	if strings.Contains(body, "<script>") {
		t.Errorf("a document has a tag: %s", body)
	}
}

func TestDetailIsBounded(t *testing.T) {
	s := &hub.Service{View: naming.View{Service: "a"}}
	for i := range 10 {
		s.Endpoints = append(s.Endpoints, naming.Endpoint{ID: fmt.Sprint(i)})
	}
	if d := detailOf(s, 4); len(d.Endpoints) != 4 || d.More != 6 || d.Serving != 10 {
		t.Fatalf("got %d endpoints and %d more", len(d.Endpoints), d.More)
	}
}

// nextEvent returns the next event of a stream that is not a status, and decodes its data.
func nextEvent(t *testing.T, s *bufio.Scanner, docs map[string]any) string {
	t.Helper()
	event := ""
	for s.Scan() {
		switch field, value, _ := strings.Cut(s.Text(), ": "); field {
		case "event":
			event = value
		case "data":
			if docs[event] == nil {
				continue
			}
			if err := json.Unmarshal([]byte(value), docs[event]); err != nil {
				t.Fatal(err)
			}
			return event
		}
	}
	t.Fatalf("the stream has ended: %v", s.Err())
	return ""
}

func TestEvents(t *testing.T) {
	w := start(t, new(memory.Store), Options{})
	w.put(t, "a", newEndpoint("one"))
	w.put(t, "b", newEndpoint("one"))
	w.wait(t, 2)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	stream := bufio.NewScanner(resp.Body)
	var snap snapshotEvent
	if nextEvent(t, stream, map[string]any{"snapshot": &snap}); !snap.First || !snap.Last || len(snap.Rows) != 2 || len(snap.Timeline) == 0 || !snap.Status.Fresh {
		t.Fatalf("got the snapshot %+v", snap)
	}
	var got changesEvent
	next := func() {
		t.Helper()
		got = changesEvent{}
		nextEvent(t, stream, map[string]any{"changes": &got})
	}
	w.put(t, "a", newEndpoint("two"))
	if next(); len(got.Rows) != 1 || got.Rows[0].Serving != 2 || got.Changes[0].Event != "added" || got.Changes[0].Text != "two:80" {
		t.Fatalf("got %+v, want that an endpoint of a is added", got)
	}
	w.put(t, "b", naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: "one"}})
	for !slices.Contains(got.Gone, "b") {
		next()
	}
	seat := naming.Endpoint{ID: "m~old~new", Metadata: json.RawMessage(`{"holder":"x","by":"host/1","digest":"abc","deletes":7}`)}
	w.put(t, migrate.BridgeService, naming.Change{Endpoint: seat})
	for len(got.Bridges) == 0 {
		next()
	}
	if got.Bridges[0] != (hub.Bridge{Name: "m~old~new", By: "host/1", Deletes: 7, Digest: "abc"}) {
		t.Fatalf("got the Bridges %+v", got.Bridges)
	}
}

// fakeActions notes what it is asked to do.
type fakeActions struct {
	mu    sync.Mutex
	calls []string
	err   error
}

func (f *fakeActions) note(parts ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprint(parts...))
	return f.err
}

func (f *fakeActions) Drain(_ context.Context, service, id string) error {
	return f.note("drain ", service, " ", id)
}

func (f *fakeActions) Resume(_ context.Context, service, id string) error {
	return f.note("resume ", service, " ", id)
}

func (f *fakeActions) SetPhase(_ context.Context, service string, s migrate.State) error {
	return f.note("phase ", service, " ", s.Phase, " ", s.Share)
}

func (f *fakeActions) taken() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// post asks for an action as the page does, apart from the headers that are given.
func (w *world) post(t *testing.T, action, body string, headers ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+"/actions/"+action, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Origin", w.url)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Naming-Token", "secret")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
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

func TestActions(t *testing.T) {
	actions := new(fakeActions)
	w := start(t, new(memory.Store), Options{Actions: actions, Token: "secret"})
	for _, tt := range []struct{ action, body string }{
		{"drain", `{"service":"a","id":"1"}`}, {"resume", `{"service":"a","id":"1"}`}, {"phase", `{"service":"a","phase":"prefer-new","share":0.5}`},
	} {
		if status, body := w.post(t, tt.action, tt.body); status != http.StatusOK {
			t.Errorf("%s: status %d: %s", tt.action, status, body)
		}
	}
	want := []string{"drain a 1", "resume a 1", "phase a prefer-new 0.5"}
	if got := actions.taken(); !slices.Equal(got, want) {
		t.Errorf("got the actions %q, want %q", got, want)
	}
	actions.err = errors.New("no right \x1b")
	if status, body := w.post(t, "drain", `{"service":"a","id":"1"}`); status != http.StatusBadGateway || !strings.Contains(body, "no right") || strings.Contains(body, "\x1b") {
		t.Errorf("an action that fails has the status %d: %s", status, body)
	}
}

func TestActionsThatAreRefused(t *testing.T) {
	actions := new(fakeActions)
	w := start(t, new(memory.Store), Options{Actions: actions, Token: "secret"})
	const body = `{"service":"a","id":"1"}`
	for _, tt := range []struct {
		action, body string
		status       int
		headers      []string
	}{
		{"drain", body, http.StatusForbidden, []string{"Naming-Token", "wrong"}},
		{"drain", body, http.StatusForbidden, []string{"Naming-Token", ""}},
		{"drain", body, http.StatusForbidden, []string{"Origin", "http://evil.example"}},
		{"drain", body, http.StatusForbidden, []string{"Origin", "null"}},
		{"drain", body, http.StatusForbidden, []string{"Origin", ""}},
		{"drain", body, http.StatusForbidden, []string{"Sec-Fetch-Site", "same-site"}},
		{"drain", body, http.StatusUnsupportedMediaType, []string{"Content-Type", "text/plain"}},
		{"drain", `{`, http.StatusBadRequest, nil},
		{"drain", `{"service":"","id":"1"}`, http.StatusBadRequest, nil},
		{"drain", `{"service":"a","force":true}`, http.StatusBadRequest, nil},
		{"drain", `{"service":"` + strings.Repeat("a", 100_000) + `"}`, http.StatusBadRequest, nil},
		{"phase", `{"service":"a","phase":"sideways"}`, http.StatusBadRequest, nil},
		{"phase", `{"service":"a","phase":"prefer-new","share":7}`, http.StatusBadRequest, nil},
		{"explode", body, http.StatusBadRequest, nil},
	} {
		if status, answer := w.post(t, tt.action, tt.body, tt.headers...); status != tt.status {
			t.Errorf("%s %.60s %q: status %d, want %d: %.200s", tt.action, tt.body, tt.headers, status, tt.status, answer)
		}
	}
	if got := actions.taken(); len(got) > 0 {
		t.Errorf("refused requests have caused %q", got)
	}
	readOnly := start(t, new(memory.Store), Options{})
	if status, answer := readOnly.post(t, "drain", body); status != http.StatusForbidden || !strings.Contains(answer, "--allow-writes") {
		t.Errorf("a page without actions has the status %d: %s", status, answer)
	}
	if _, err := New(readOnly.hub, Options{Actions: actions}); err == nil {
		t.Error("New accepts actions without a token")
	}
}
