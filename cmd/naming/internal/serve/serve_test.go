package serve

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/cmd/naming/internal/hub"
	"github.com/naming-go/naming/cmd/naming/internal/hub/hubtest"
	"github.com/naming-go/naming/cmd/naming/internal/show"
)

// world is a registry and a server of it.
type world struct {
	hubtest.World

	refreshes atomic.Int64 // requests for targets
}

// start serves a registry until the test ends. It does not wait for an answer of the registry.
func start(t testing.TB, store *memory.Store, opts hub.Options) *world {
	t.Helper()
	w := &world{World: hubtest.World{Store: store, Hub: hub.New(opts)}}
	s, err := New(w.Hub, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	w.Start(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		s.ServeHTTP(rw, r)
		if r.URL.Path == "/prometheus/targets" {
			w.refreshes.Add(1)
		}
	}))
	return w
}

func (w *world) wait(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := w.Hub.Wait(ctx); err != nil {
		t.Fatal(err)
	}
}

func wantStatus(t *testing.T, resp *http.Response, body string, status int) {
	t.Helper()
	if resp.StatusCode != status {
		t.Fatalf("%s: status %d, want %d: %s", resp.Request.URL, resp.StatusCode, status, body)
	}
}

var paths = []string{"/prometheus/targets", "/prometheus/targets?service=a", "/v1/services", "/v1/services/a"}

func TestARegistryThatNeverAnsweredIsNotEmpty(t *testing.T) {
	store := new(memory.Store)
	store.Down(errors.New("down"))
	w := start(t, store, hub.Options{})
	for _, path := range append(paths, "/readyz") {
		resp, body := w.Get(t, path)
		wantStatus(t, resp, body, http.StatusServiceUnavailable)
	}
	resp, body := w.Get(t, "/healthz")
	wantStatus(t, resp, body, http.StatusOK)
	hubtest.Eventually(t, "the answer has the error", func() bool {
		_, body := w.Get(t, "/prometheus/targets")
		return strings.Contains(body, "down")
	})
}

func TestAnswersOutliveTheRegistry(t *testing.T) {
	w := start(t, new(memory.Store), hub.Options{})
	w.Put(t, "a", hubtest.Endpoint("one"))
	hubtest.Eventually(t, "the service is listed", func() bool { _, body := w.Get(t, "/v1/services"); return strings.Contains(body, `"serving":1`) })
	w.wait(t)
	fresh := make(map[string]string)
	for _, path := range paths {
		resp, body := w.Get(t, path)
		wantStatus(t, resp, body, http.StatusOK)
		if resp.Header.Get("Age") != "0" || resp.Header.Get("Naming-Stale") != "false" || resp.Header.Get("Naming-As-Of") != "" {
			t.Fatalf("%s: a fresh answer has the header %v", path, resp.Header)
		}
		fresh[path] = body
	}
	w.Store.Down(errors.New("it is \x1b[31mdown"))
	hubtest.Eventually(t, "the answers are stale and grow old", func() bool {
		resp, _ := w.Get(t, "/v1/services/a")
		return resp.Header.Get("Naming-Stale") == "true" && resp.Header.Get("Age") != "0"
	})
	for _, path := range paths[:2] {
		if _, body := w.Get(t, path); body != fresh[path] {
			t.Fatalf("%s: the targets have changed with an error: %s", path, body)
		}
	}
	resp, body := w.Get(t, "/readyz")
	wantStatus(t, resp, body, http.StatusOK)
	if !strings.Contains(body, "stale, age") || strings.Contains(body, "\x1b") || !strings.Contains(body, "down") {
		t.Fatalf("readyz says %q", body)
	}
}

func TestTargets(t *testing.T) {
	w := start(t, new(memory.Store), hub.Options{})
	w.Put(t, "a", naming.Change{Endpoint: naming.Endpoint{ID: "1", Addr: "10.0.0.1:80", Metadata: json.RawMessage(
		`{"weight":2,"zone":"z","version":"v1","tags":["x","y"],"metrics-port":9100,"on":true,"deep":{"a":1},"none":null}`)}},
		naming.Change{Endpoint: naming.Endpoint{ID: "2", Addr: "[::1]:80", Draining: true}},
		naming.Change{Endpoint: naming.Endpoint{ID: "3", Addr: "unix:/run/a.sock"}},
		naming.Change{Endpoint: naming.Endpoint{ID: "4", Addr: "10.0.0.4:80"}})
	w.Store.Withhold("a", "4", naming.Maintenance, "disk")
	w.Put(t, "naming/migration", naming.Change{Endpoint: naming.Endpoint{ID: "*", Addr: "record:1"}})
	w.Put(t, "b/c", hubtest.Endpoint("one"))
	const label = "__meta_naming_"
	want := []group{
		{[1]string{"10.0.0.1:80"}, map[string]string{label + "service": "a", label + "id": "1", label + "state": "serving", label + "weight": "2", label + "zone": "z",
			label + "version": "v1", label + "tags": ",x,y,", label + "metadata_metrics_port": "9100", label + "metadata_on": "true"}},
		{[1]string{"[::1]:80"}, map[string]string{label + "service": "a", label + "id": "2", label + "state": "draining"}},
		{[1]string{"10.0.0.4:80"}, map[string]string{label + "service": "a", label + "id": "4", label + "state": "withheld", label + "reason": naming.Maintenance.String()}},
		{[1]string{"one:80"}, map[string]string{label + "service": "b/c", label + "id": "one", label + "state": "serving"}},
	}
	check := func(query string, want ...group) {
		t.Helper()
		var got []group
		hubtest.Eventually(t, fmt.Sprintf("the targets of %q are %+v", query, want), func() bool {
			got = nil
			resp, body := w.Get(t, "/prometheus/targets"+query)
			if resp.StatusCode == http.StatusServiceUnavailable {
				return false
			}
			wantStatus(t, resp, body, http.StatusOK)
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatalf("%v: %s", err, body)
			}
			return fmt.Sprint(got) == fmt.Sprint(want)
		})
	}
	check("", want...)
	check("?service=b%2Fc", want[3])
	check("?service=b/c&service=a&state=serving&state=draining", want[0], want[1], want[3])
	check("?service=unknown")
}

// TestLabelsAreStableAndBounded: labels change only with the entry, and a long value makes none.
func TestLabelsAreStableAndBounded(t *testing.T) {
	long := strings.Repeat("x", maxValue+1)
	e := show.Endpoint{ID: "1", State: show.Serving, Zone: long, Version: "v1", Tags: []string{long}, Metadata: json.RawMessage(`{"a.b":"1","a-b":"2","a_b":"3","long":"` + long + `"}`)}
	want := map[string]string{"service": "a", "id": "1", "state": "serving", "version": "v1", "metadata_a_b": "2"}
	for range 20 {
		got := make(map[string]string)
		for name, value := range labels("a", &e) {
			got[strings.TrimPrefix(name, labelPrefix)] = value
		}
		if !maps.Equal(got, want) {
			t.Fatalf("got the labels %v, want %v", got, want)
		}
	}
}

func TestRefusedRequests(t *testing.T) {
	w := start(t, new(memory.Store), hub.Options{})
	w.wait(t)
	for _, tt := range []struct {
		path   string
		status int
		text   string
	}{
		{"/prometheus/targets?services=a", http.StatusBadRequest, "unknown parameter"},
		{"/prometheus/targets?state=good", http.StatusBadRequest, "unknown state"},
		{"/prometheus/targets?service=", http.StatusBadRequest, "error"},
		{"/v1/services?endpoints=yes", http.StatusBadRequest, "true or false"},
		{"/v1/services?endpoints=true&endpoints=false", http.StatusBadRequest, "true or false"},
		{"/v1/services?service=%zz", http.StatusBadRequest, "cannot be parsed"},
		{"/v1/services/%ff", http.StatusBadRequest, "error"},
		{"/v1/services/a", http.StatusNotFound, "no service"},
		{"/v1/services?" + strings.Repeat("service=a&", maxNames+1), http.StatusBadRequest, "more than"},
		{"/v1/watch?x=1", http.StatusBadRequest, "unknown parameter"},
		{"/unknown", http.StatusNotFound, "not found"},
	} {
		resp, body := w.Get(t, tt.path)
		if resp.StatusCode != tt.status || !strings.Contains(body, tt.text) {
			t.Errorf("%.60s: status %d, %q; want status %d and %q", tt.path, resp.StatusCode, body, tt.status, tt.text)
		}
	}
	resp, err := http.Post(w.URL+"/v1/services", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("a POST has the status %d, want %d", resp.StatusCode, http.StatusMethodNotAllowed)
	}
	for host, status := range map[string]int{"evil.example:9780": http.StatusMisdirectedRequest, "localhost:1": http.StatusOK, "[::1]": http.StatusOK, "127.0.0.1.evil.example": http.StatusMisdirectedRequest} {
		if resp, body := w.Get(t, "/healthz", "Host", host); resp.StatusCode != status {
			t.Errorf("the host %q has the status %d, want %d: %s", host, resp.StatusCode, status, body)
		}
	}
}

// TestHeadOfAWatchEnds: the connection of an answer that never ends could not be used again.
func TestHeadOfAWatchEnds(t *testing.T) {
	w := start(t, new(memory.Store), hub.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // only a hang takes longer
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, w.URL+"/v1/watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	hubtest.Eventually(t, "the watch has ended", func() bool { return w.Hub.Counts().Subscribers == 0 })
}

func TestServicesByEscapedNames(t *testing.T) {
	w := start(t, new(memory.Store), hub.Options{})
	names := []string{"a/b", "a//b", "..", "a b", "ä?x=1", "a%2Fb", "<script>"}
	for _, name := range names {
		w.Put(t, name, hubtest.Endpoint("of "+name))
	}
	for _, name := range names {
		var doc hub.Document
		hubtest.Eventually(t, fmt.Sprintf("the service %q is served", name), func() bool {
			resp, body := w.Get(t, "/v1/services/"+strings.ReplaceAll(url.PathEscape(name), ".", "%2E"))
			return resp.StatusCode == http.StatusOK && json.Unmarshal([]byte(body), &doc) == nil
		})
		if doc.Service != name || len(doc.Endpoints) != 1 || doc.Endpoints[0].ID != "of "+name {
			t.Errorf("the service %q is %+v", name, doc)
		}
	}
}

func TestEntityTagsAndCompression(t *testing.T) {
	w := start(t, new(memory.Store), hub.Options{})
	w.Put(t, "a", hubtest.Endpoint("one"))
	hubtest.Eventually(t, "the service is served", func() bool { resp, _ := w.Get(t, "/v1/services/a"); return resp.StatusCode == http.StatusOK })
	for _, path := range paths {
		plain, body := w.Get(t, path, "Accept-Encoding", "identity")
		zipped, raw := w.Get(t, path, "Accept-Encoding", "br, gzip;q=0.5")
		if plain.Header.Get("Content-Encoding") != "" || zipped.Header.Get("Content-Encoding") != "gzip" || len(body) == 0 || !strings.HasPrefix(raw, "\x1f\x8b") {
			t.Fatalf("%s: the answers have the headers %v and %v", path, plain.Header, zipped.Header)
		}
		same, _ := w.Get(t, path, "If-None-Match", plain.Header.Get("ETag"))
		wantStatus(t, same, "", http.StatusNotModified)
		if same.Header.Get("Age") == "" {
			t.Errorf("%s: an answer without a body has no age", path)
		}
	}
	old, _ := w.Get(t, "/v1/services/a")
	w.Put(t, "a", hubtest.Endpoint("two"))
	hubtest.Eventually(t, "a change has another tag", func() bool {
		resp, _ := w.Get(t, "/v1/services/a", "If-None-Match", old.Header.Get("ETag"))
		return resp.StatusCode == http.StatusOK
	})
}

// watcher reads the events of a watch.
type watcher struct {
	t    testing.TB
	body *bufio.Scanner
	id   string // of the last event that had one
}

// watch begins a watch.
func (w *world) watch(t testing.TB, query, lastID string) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.URL+"/v1/watch"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); resp.Body.Close() })
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("the watch has the status %d and the header %v", resp.StatusCode, resp.Header)
	}
	s := bufio.NewScanner(resp.Body)
	s.Buffer(nil, 64<<20)
	return &watcher{t: t, body: s}
}

// next returns the kind and the data of the next event.
func (w *watcher) next(doc any) string {
	w.t.Helper()
	event := ""
	for w.body.Scan() {
		line := w.body.Text()
		switch field, value, _ := strings.Cut(line, ": "); field {
		case "id":
			w.id = value
		case "event":
			event = value
		case "data":
			if err := json.Unmarshal([]byte(value), doc); err != nil {
				w.t.Fatal(err)
			}
		case "":
			if event != "" {
				return event
			}
		}
	}
	w.t.Fatalf("the watch has ended: %v", w.body.Err())
	return ""
}

func TestWatch(t *testing.T) {
	w := start(t, new(memory.Store), hub.Options{})
	for i := range 250 {
		w.Put(t, fmt.Sprintf("s-%03d", i), hubtest.Endpoint("one"))
	}
	hubtest.Eventually(t, "all services are known", func() bool { return len(w.Hub.Snapshot().Services) == 250 && w.Hub.Snapshot().Status.Waiting == 0 })
	watch := w.watch(t, "", "")
	var names []string
	for n := 1; ; n++ {
		var part snapshotPart
		if event := watch.next(&part); event != "snapshot" || part.First != (n == 1) || part.Last != (watch.id != "") {
			t.Fatalf("event %d is %q, %+v", n, event, part)
		}
		for _, s := range part.Services {
			names = append(names, s.Service+s.Endpoints[0].ID)
		}
		if part.Last {
			break
		}
	}
	if len(names) != 250 || !slices.IsSorted(names) {
		t.Fatalf("the snapshot has %d services", len(names))
	}
	first := watch.id
	change := func(watch *watcher, service string, event hub.Kind, id string) {
		t.Helper()
		var doc hub.ChangeDocument
		if kind := watch.next(&doc); kind != "change" || doc.Service != service || doc.Event != event || id != "" && doc.Endpoint.ID != id {
			t.Fatalf("got the event %q, %+v; want that %q of %q is %s", kind, doc, id, service, event)
		}
	}
	w.Put(t, "s-007", hubtest.Endpoint("two"))
	change(watch, "s-007", hub.Added, "two")
	w.Put(t, "s-008", hubtest.Endpoint("three"))
	change(watch, "s-008", hub.Added, "three")
	again := w.watch(t, "", first)
	change(again, "s-007", hub.Added, "two")
	change(again, "s-008", hub.Added, "three")
	change(w.watch(t, "?service=s-008", first), "s-008", hub.Added, "three")
	var part snapshotPart
	one := w.watch(t, "?service=s-008", "unknown-1")
	if event := one.next(&part); event != "snapshot" || !part.First || !part.Last || len(part.Services) != 1 || len(part.Services[0].Endpoints) != 2 {
		t.Fatalf("after an unknown ID: %q, %+v; want a snapshot of one service", event, part)
	}
	w.Put(t, "new", hubtest.Endpoint("one"))
	var doc hub.ChangeDocument
	if watch.next(&doc); doc.Event != hub.Synced || doc.All == nil || len(doc.All.Endpoints) != 1 {
		t.Fatalf("a new service is %+v, want its endpoints", doc)
	}
}

func TestWatchOfAReaderThatIsTooSlow(t *testing.T) {
	w := start(t, new(memory.Store), hub.Options{Changes: 4})
	w.Put(t, "a", hubtest.Endpoint("one"))
	hubtest.Eventually(t, "the service is known", func() bool { s := w.Hub.Snapshot(); return len(s.Services) == 1 && s.Status.Waiting == 0 })
	id := w.Hub.Snapshot().ID
	for i := range 10 {
		w.Put(t, "a", hubtest.Endpoint(strconv.Itoa(i)))
	}
	hubtest.Eventually(t, "all changes are there", func() bool { return len(w.Hub.Snapshot("a").Services[0].Endpoints) == 11 })
	var part snapshotPart
	if event := w.watch(t, "", id).next(&part); event != "snapshot" || len(part.Services[0].Endpoints) != 11 {
		t.Fatalf("got %q, %+v; want a snapshot of 11 endpoints", event, part)
	}
}

func TestMetrics(t *testing.T) {
	w := start(t, new(memory.Store), hub.Options{})
	w.Put(t, "a", hubtest.Endpoint("one"), hubtest.Endpoint("two"))
	hubtest.Eventually(t, "the metrics count the endpoints", func() bool {
		_, body := w.Get(t, "/metrics")
		return strings.Contains(body, `naming_hub_endpoints{state="serving"} 2`) && strings.Contains(body, "naming_hub_stale_services 0")
	})
}
