package ui

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/cmd/naming/internal/hub"
	"github.com/naming-go/naming/cmd/naming/internal/hub/hubtest"
	"github.com/naming-go/naming/cmd/naming/internal/steer"
	"github.com/naming-go/naming/cmd/naming/internal/ui/uitest"
	"github.com/naming-go/naming/migrate"
)

// world is a registry and its page.
type world struct{ hubtest.World }

func newWorld(store *memory.Store) *world {
	return &world{hubtest.World{Store: store, Hub: hub.New(hub.Options{})}}
}

func start(t testing.TB, store *memory.Store, opts Options) *world {
	t.Helper()
	w := newWorld(store)
	w.Start(t, w.page(t, opts))
	return w
}

func (w *world) page(t testing.TB, opts Options) *Server {
	t.Helper()
	s, err := New(w.Hub, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wait waits until the Hub has services.
func (w *world) wait(t testing.TB, services int) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if s := w.Hub.Status(); s.Filled && s.Services == services && s.Waiting == 0 {
			return
		}
		if time.Since(begin) > time.Minute {
			t.Fatalf("the Hub does not have %d services", services)
		}
	}
}

func TestPageIsWhole(t *testing.T) {
	w := start(t, new(memory.Store), Options{})
	_, page := w.Get(t, "/")
	for _, part := range []string{"app.js", "app.css", "uplot.js", "uplot.css", "icon.svg"} {
		if resp, body := w.Get(t, "/"+part); resp.StatusCode != http.StatusOK || body == "" || !strings.Contains(page, `"`+part+`"`) {
			t.Errorf("%s has the status %d, or is not in the page", part, resp.StatusCode)
		}
	}
	resp, licence := w.Get(t, "/uplot.LICENSE")
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
	w.Put(t, evil, naming.Change{Endpoint: naming.Endpoint{ID: evil, Addr: "10.0.0.1:80", Metadata: json.RawMessage(`{"zone":"\u001b[2J","tags":["\u0007"]}`)}})
	w.Store.Withhold(evil, evil, naming.Maintenance, "note\x1b")
	w.wait(t, 1)
	_, body := w.Get(t, "/service?name=a%1b%5b31m%e2%80%ae%3Cscript%3E")
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
	if d := detailOf(s, 4, maxDetail); len(d.Endpoints) != 4 || d.More != 6 || d.Serving != 10 {
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
	w.Put(t, "a", hubtest.Endpoint("one"))
	w.Put(t, "b", hubtest.Endpoint("one"))
	w.wait(t, 2)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.URL+"/events", nil)
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
	w.Put(t, "a", hubtest.Endpoint("two"))
	if next(); len(got.Rows) != 1 || got.Rows[0].Serving != 2 || got.Changes[0].Event != "added" || got.Changes[0].Text != "two:80" {
		t.Fatalf("got %+v, want that an endpoint of a is added", got)
	}
	// The last endpoint of a service is held when it vanishes, unless it drains.
	w.Put(t, "b", naming.Change{Endpoint: naming.Endpoint{ID: "one", Addr: "one:80", Draining: true}})
	for len(got.Rows) != 1 || got.Rows[0].Draining != 1 {
		next()
	}
	w.Put(t, "b", naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: "one"}})
	for !slices.Contains(got.Gone, "b") {
		next()
	}
	seat := naming.Endpoint{ID: "m~old~new", Metadata: json.RawMessage(`{"holder":"x","by":"host/1","digest":"abc","deletes":7}`)}
	w.Put(t, migrate.BridgeService, naming.Change{Endpoint: seat})
	for len(got.Bridges) == 0 {
		next()
	}
	if got.Bridges[0] != (hub.Bridge{Name: "m", Source: "old", Target: "new", By: "host/1", Deletes: 7, Digest: "abc"}) {
		t.Fatalf("got the Bridges %+v", got.Bridges)
	}
}

// fakeActions notes what it is asked to do. Its gate is closed without a confirmation.
type fakeActions struct {
	mu    sync.Mutex
	calls []string
	err   error
	block chan struct{} // if not nil, Mark waits until it is closed or ctx is done
}

func (f *fakeActions) note(parts ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprint(parts...))
	return f.err
}

func (f *fakeActions) Mark(ctx context.Context, service, id string, draining bool) (string, error) {
	err := f.note("mark ", service, " ", id, " ", draining)
	if f.block != nil {
		select {
		case <-f.block:
		case <-ctx.Done():
			return "", f.note("ended")
		}
	}
	return "The mark stayed.", err
}

func (f *fakeActions) Step(_ context.Context, o Order) (*Step, error) {
	s := &Step{Record: o.Record, From: steer.PositionOf(migrate.State{Phase: migrate.NewRead}, true)}
	if o.Back {
		s.To, s.Written, s.Warnings = steer.PositionOf(migrate.State{Phase: migrate.PreferNew, Share: 1}, true), o.Write, []string{"be careful"}
		return s, f.note("back ", o.Record, " ", o.Write)
	}
	s.To = steer.PositionOf(migrate.State{Phase: migrate.NewWrite}, true)
	g := steer.Gate{Service: o.Record, Open: slices.Equal(o.Confirmed, steer.Human), Conditions: []steer.Condition{
		{Name: "answers", Holds: true, Why: "both registries answer"},
		{Name: steer.Readers, Human: true, Holds: slices.Equal(o.Confirmed, steer.Human), Why: "nobody can see that", Opens: "look"},
	}}
	s.Gates = []steer.Gate{g}
	s.Written = o.Write && (g.Open || o.Force)
	return s, f.note("ahead ", o.Record, " ", o.Write, " ", o.Wish, " ", o.From, " ", o.Confirmed, " ", o.Force)
}

func (f *fakeActions) taken() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// asPage makes requests as the page does.
func (w *world) asPage() uitest.Page { return uitest.Page{URL: w.URL, Token: "secret"} }

func TestActions(t *testing.T) {
	actions := new(fakeActions)
	w := start(t, new(memory.Store), Options{Actions: actions, Token: "secret"})
	for _, tt := range []struct {
		action, body string
		status       int
		text         string
	}{
		{"drain", `{"service":"a","id":"1"}`, http.StatusOK, "The mark stayed."},
		{"resume", `{"service":"a","id":"1"}`, http.StatusOK, "The mark stayed."},
		{"look", `{"service":"a"}`, http.StatusOK, `"to":"6 new-write","phase":"new-write"`},
		{"look", `{"service":"a","back":true}`, http.StatusOK, `"warnings":["be careful"]`},
		{"step", `{"service":"a","phase":"new-write","from":"5 new-read"}`, http.StatusConflict, "the gate of a is closed, and nothing was written: nobody can see that"},
		{"step", `{"service":"a","phase":"new-write","confirmed":["readers"]}`, http.StatusOK, "a: 5 new-read to 6 new-write."},
		{"step", `{"service":"*","phase":"prefer-new","share":0.5,"force":true}`, http.StatusOK, `"record":"all services"`},
		{"step", `{"service":"a","back":true}`, http.StatusOK, "a: 5 new-read to 4 prefer-new 1."},
	} {
		if status, body := w.asPage().Post(t, tt.action, tt.body); status != tt.status || !strings.Contains(body, tt.text) {
			t.Errorf("%s %s: status %d, want %d and %q: %s", tt.action, tt.body, status, tt.status, tt.text, body)
		}
	}
	want := []string{
		"mark a 1 true", "mark a 1 false", "ahead a false {old false 0 false}  [] false", "back a false", "ahead a true {new-write true 0 false} 5 new-read [] false",
		"ahead a true {new-write true 0 false}  [readers] false", "ahead * true {prefer-new true 0.5 true}  [] true", "back a true",
	}
	if got := actions.taken(); !slices.Equal(got, want) {
		t.Errorf("got the actions\n%q, want\n%q", got, want)
	}
	actions.err = errors.New("no right \x1b")
	if status, body := w.asPage().Post(t, "drain", `{"service":"a","id":"1"}`); status != http.StatusBadGateway || !strings.Contains(body, "no right") || strings.Contains(body, "\x1b") {
		t.Errorf("an action that fails has the status %d: %s", status, body)
	}
}

func TestStepsThatNeverWork(t *testing.T) {
	actions := new(fakeActions)
	w := start(t, new(memory.Store), Options{Actions: actions, Token: "secret", NoSteps: "one registry"})
	for _, action := range []string{"look", "step"} {
		if status, body := w.asPage().Post(t, action, `{"service":"a"}`); status != http.StatusBadRequest || !strings.Contains(body, "one registry") {
			t.Errorf("%s: status %d: %s", action, status, body)
		}
	}
	if got := actions.taken(); len(got) > 0 {
		t.Errorf("got the actions %q", got)
	}
}

// TestActionOutlivesItsPage: a page that is closed does not end an action in the middle, and
// few actions run at the same time.
func TestActionOutlivesItsPage(t *testing.T) {
	actions := &fakeActions{block: make(chan struct{})}
	w := start(t, new(memory.Store), Options{Actions: actions, Token: "secret"})
	ctx, leave := context.WithCancel(t.Context())
	var pages sync.WaitGroup
	for i := range maxActions {
		pages.Go(func() {
			r := w.asPage().NewRequest(ctx, t, "drain", fmt.Sprintf(`{"service":"a","id":"%d"}`, i))
			if resp, err := http.DefaultClient.Do(r); err == nil {
				resp.Body.Close()
			}
		})
	}
	for begin := time.Now(); len(actions.taken()) < maxActions; time.Sleep(time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatal("the actions have not begun")
		}
	}
	if status, body := w.asPage().Post(t, "drain", `{"service":"a","id":"x"}`); status != http.StatusServiceUnavailable || !strings.Contains(body, "too many") {
		t.Errorf("one action more has the status %d: %s", status, body)
	}
	leave()
	pages.Wait()
	close(actions.block)
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		if status, _ := w.asPage().Post(t, "drain", `{"service":"a","id":"last"}`); status == http.StatusOK {
			break
		}
		if time.Since(begin) > time.Minute {
			t.Fatal("the actions have not ended")
		}
	}
	if got := actions.taken(); slices.Contains(got, "ended") {
		t.Errorf("a closed page has ended an action: %q", got)
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
		{"drain", `{"service":"a","explode":true}`, http.StatusBadRequest, nil},
		{"drain", `{"service":"` + strings.Repeat("a", 100_000) + `"}`, http.StatusBadRequest, nil},
		{"drain", body + `{}`, http.StatusBadRequest, nil},
		{"drain", body, http.StatusMisdirectedRequest, []string{"Host", "evil.example", "Origin", "http://evil.example"}},
		{"drain", body, http.StatusForbidden, []string{"Host", "localhost"}},
		{"drain", body, http.StatusForbidden, []string{"Sec-Fetch-Site", "cross-site"}},
		{"look", body, http.StatusForbidden, []string{"Naming-Token", "wrong"}},
		{"step", `{"service":"a","phase":"sideways"}`, http.StatusBadRequest, nil},
		{"step", `{"service":"a","phase":"prefer-new","share":7}`, http.StatusBadRequest, nil},
		{"explode", body, http.StatusBadRequest, nil},
	} {
		if status, answer := w.asPage().Post(t, tt.action, tt.body, tt.headers...); status != tt.status {
			t.Errorf("%s %.60s %q: status %d, want %d: %.200s", tt.action, tt.body, tt.headers, status, tt.status, answer)
		}
	}
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodHead, http.MethodOptions} {
		r := w.asPage().NewRequest(t.Context(), t, "drain", body)
		r.Method = method
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode < 400 {
			t.Errorf("the method %s has the status %d", method, resp.StatusCode)
		}
	}
	if got := actions.taken(); len(got) > 0 {
		t.Errorf("refused requests have caused %q", got)
	}
	readOnly := start(t, new(memory.Store), Options{})
	if status, answer := readOnly.asPage().Post(t, "drain", body); status != http.StatusForbidden || !strings.Contains(answer, "--allow-writes") {
		t.Errorf("a page without actions has the status %d: %s", status, answer)
	}
	if _, err := New(readOnly.Hub, Options{Actions: actions}); err == nil {
		t.Error("New accepts actions without a token")
	}
}

// TestRequestsOfAStranger: requests that no page makes get an answer, and no file but those of
// the page.
func TestRequestsOfAStranger(t *testing.T) {
	w := start(t, new(memory.Store), Options{})
	w.Put(t, "a", hubtest.Endpoint("one"))
	w.wait(t, 1)
	for path, status := range map[string]int{
		"/../ui.go": 307, "/..%2f..%2fetc/passwd": 404, "/%2e%2e/ui.go": 404, "/assets/": 404, "/app.js/": 301, "//etc/passwd": 307, "/%00": 404, "/none": 404,
		"/service": 400, "/service?name=": 400, "/service?name=%ff": 400, "/service?name=b": 404, "/service?name=" + strings.Repeat("a", 2000): 400,
		"/events/": 404, "/actions/drain": 404,
	} {
		if got := raw(t, w, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); got != status {
			t.Errorf("GET %.60q: status %d, want %d", path, got, status)
		}
	}
	for request, status := range map[string]int{
		"HEAD / HTTP/1.1": 200, "HEAD /events HTTP/1.1": 200, "HEAD /service?name=a HTTP/1.1": 200, "HEAD /info HTTP/1.1": 200,
		"OPTIONS /events HTTP/1.1": 405, "OPTIONS /actions/drain HTTP/1.1": 405, "TRACE / HTTP/1.1": 405, "CONNECT x:1 HTTP/1.1": 421, "GET http://evil.example/ HTTP/1.1": 421,
	} {
		if got := raw(t, w, request+"\r\nHost: localhost\r\n\r\n"); got != status {
			t.Errorf("%s: status %d, want %d", request, got, status)
		}
	}
}

// raw sends a request, and returns the status of the answer. After an answer to HEAD, the
// connection serves another request.
func raw(t *testing.T, w *world, request string) int {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute)) // only a hang takes longer
	r, method := bufio.NewReader(conn), strings.Fields(request)[0]
	send := func(request, method string) int {
		t.Helper()
		if _, err := conn.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("%.60q: %v", request, err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatalf("%.60q: %v", request, err)
		}
		return resp.StatusCode
	}
	status := send(request, method)
	if method == http.MethodHead {
		if again := send("GET /info HTTP/1.1\r\nHost: localhost\r\n\r\n", http.MethodGet); again != http.StatusOK {
			t.Errorf("after %.60q the connection has the status %d", request, again)
		}
	}
	return status
}

// TestEventsAfterAStrangeID: an ID that this server has not given leads to a snapshot.
func TestEventsAfterAStrangeID(t *testing.T) {
	w := start(t, new(memory.Store), Options{})
	w.Put(t, "a", hubtest.Endpoint("one"))
	w.wait(t, 1)
	run, _, _ := strings.Cut(w.Hub.Snapshot().ID, "-")
	for _, id := range []string{"x", "-", run, run + "-", run + "--1", run + "-18446744073709551615", run + "-99999999999999999999", strings.Repeat("9", 10_000), run + "-1e3"} {
		w.withEvents(t, id, func(stream *bufio.Scanner) {
			var snap snapshotEvent
			if nextEvent(t, stream, map[string]any{"snapshot": &snap}); !snap.First || len(snap.Rows) != 1 {
				t.Errorf("after the ID %.40q: %+v, want a snapshot", id, snap)
			}
		})
	}
}

// withEvents calls a function with the events after an ID.
func (w *world) withEvents(t *testing.T, id string, f func(*bufio.Scanner)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.URL+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	if id != "" {
		r.Header.Set("Last-Event-ID", id)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	stream := bufio.NewScanner(resp.Body)
	stream.Buffer(nil, 16<<20)
	f(stream)
}

// TestThousandsOfPages: a server with more pages than it serves refuses the others, and goes on
// with answers.
func TestThousandsOfPages(t *testing.T) {
	w := start(t, new(memory.Store), Options{})
	w.Put(t, "a", hubtest.Endpoint("one"))
	w.wait(t, 1)
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 400}}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithCancel(t.Context())
	var pages sync.WaitGroup
	var served, refused atomic.Int64
	for range 2000 {
		pages.Go(func() {
			r, _ := http.NewRequestWithContext(ctx, http.MethodGet, w.URL+"/events", nil)
			resp, err := client.Do(r)
			if err != nil {
				return // ctx is done.
			}
			defer resp.Body.Close()
			if resp.StatusCode == http.StatusServiceUnavailable {
				_, _ = io.Copy(io.Discard, resp.Body)
				refused.Add(1)
				return
			}
			served.Add(1)
			_, _ = io.Copy(io.Discard, resp.Body)
		})
	}
	for begin := time.Now(); served.Load() < maxPages || refused.Load() < 2000-maxPages; time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatalf("%d pages are served and %d refused, want %d and the others", served.Load(), refused.Load(), maxPages)
		}
	}
	if resp, _ := w.Get(t, "/service?name=a"); resp.StatusCode != http.StatusOK {
		t.Errorf("another request has the status %d", resp.StatusCode)
	}
	cancel()
	pages.Wait()
	for begin := time.Now(); w.Hub.Counts().Subscribers > 0; time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatalf("%d subscriptions stay after their pages", w.Hub.Counts().Subscribers)
		}
	}
}

// TestHugeMetadata: a service with huge entries is shown in part.
func TestHugeMetadata(t *testing.T) {
	w := start(t, new(memory.Store), Options{})
	long := strings.Repeat("\x01", naming.MaxID)
	changes := make([]naming.Change, 800)
	for i := range changes {
		metadata, _ := json.Marshal(map[string]string{"zone": long, "version": long, "x": long})
		changes[i] = naming.Change{Endpoint: naming.Endpoint{ID: fmt.Sprint(i) + long[:naming.MaxID-4], Addr: "a:80", Metadata: metadata}}
	}
	w.Put(t, "a", changes...)
	w.wait(t, 1)
	_, body := w.Get(t, "/service?name=a")
	var d detail
	if err := json.Unmarshal([]byte(body), &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Endpoints) == 0 || d.More == 0 || len(d.Endpoints)+d.More != len(changes) || d.Serving != len(changes) {
		t.Errorf("the page gets %d endpoints and %d more of %d", len(d.Endpoints), d.More, d.Serving)
	}
	if len(body) > 8*maxDetail {
		t.Errorf("the document has %d bytes", len(body))
	}
}
