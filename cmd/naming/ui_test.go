package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/naming-go/naming/cmd/naming/internal/ui/uitest"
)

// writer asks a page for actions.
type writer struct{ uitest.Page }

// startUI starts a page that may change a registry.
func startUI(t *testing.T, store string) writer {
	t.Helper()
	shown, _ := startServer(t, "ui", "--allow-writes", "--listen", "127.0.0.1:0", "--store", store)
	address, token, found := strings.Cut(shown, "/#token=")
	if !found || len(token) < 26 {
		t.Fatalf("the URL %q has no token", shown)
	}
	return writer{uitest.Page{URL: address, Token: token}}
}

// want is Post that checks the answer.
func (w writer) want(t *testing.T, action, body string, status int, text string, headers ...string) {
	t.Helper()
	if got, answer := w.Post(t, action, body, headers...); got != status || !strings.Contains(answer, text) {
		t.Fatalf("%s %s %q: status %d, want %d and %q: %s", action, body, headers, got, status, text, answer)
	}
}

// endpointID returns the ID of the endpoint of a service that has an address.
func endpointID(t *testing.T, store, service, addr string) string {
	t.Helper()
	for _, line := range strings.Split(output(t, "get", service, "--store", store, "-o", "json"), "\n") {
		if id, found := strings.CutPrefix(strings.TrimSpace(line), `"id": "`); found && strings.Contains(id, addr) {
			return strings.TrimSuffix(id, `",`)
		}
	}
	t.Fatalf("the service %s has no endpoint %s", service, addr)
	return ""
}

// TestUIMarks drains and resumes an endpoint of a registry, and is refused without the right
// token, origin and host.
func TestUIMarks(t *testing.T) {
	t.Parallel()
	for kind, store := range registries(t) {
		t.Run(kind, func(t *testing.T) {
			for _, addr := range []string{"10.0.0.1:80", "10.0.0.2:80"} {
				command(t, "register", "greeter", addr, "--permanent", "--store", store)
			}
			w := startUI(t, store)
			pageHas(t, w.URL+"/service?name=greeter", "10.0.0.2:80")
			body := fmt.Sprintf(`{"service":"greeter","id":%q}`, endpointID(t, store, "greeter", "10.0.0.1:80"))
			for _, headers := range [][]string{
				{"Naming-Token", "wrong"}, {"Naming-Token", ""}, {"Origin", "http://evil.example"}, {"Origin", ""}, {"Sec-Fetch-Site", "cross-site"},
			} {
				w.want(t, "drain", body, http.StatusForbidden, "error", headers...)
			}
			w.want(t, "drain", body, http.StatusMisdirectedRequest, "host", "Host", "evil.example", "Origin", "http://evil.example")
			w.want(t, "look", `{"service":"greeter"}`, http.StatusBadRequest, "not a migrate URL")
			w.want(t, "drain", `{"service":"greeter","id":"nobody"}`, http.StatusBadGateway, "has left the registry")
			if page := page(t, w.URL+"/service?name=greeter"); strings.Contains(page, `"marked":true`) {
				t.Fatalf("a refused action has marked an endpoint: %s", page)
			}
			w.want(t, "drain", body, http.StatusOK, "The endpoint drains: the mark stayed")
			pageHas(t, w.URL+"/service?name=greeter", `"marked":true`)
			if shown := output(t, "get", "greeter", "--store", store, "-o", "json"); !strings.Contains(shown, `"draining"`) && !strings.Contains(shown, "maintenance") {
				t.Fatalf("the registry has no mark: %s", shown)
			}
			w.want(t, "resume", body, http.StatusOK, "The endpoint is resumed")
			pageHas(t, w.URL+"/service?name=greeter", `"serving":2`)
			readOnly, _ := startServer(t, "ui", "--listen", "127.0.0.1:0", "--store", store)
			writer{uitest.Page{URL: readOnly, Token: w.Token}}.want(t, "drain", body, http.StatusForbidden, "--allow-writes")
		})
	}
}

// TestUISteps goes on and back in a migration from Consul to etcd.
func TestUISteps(t *testing.T) {
	t.Parallel()
	stores := registries(t)
	old, next := stores["consul"], stores["etcd"]
	store := "migrate:?phases=records&from=" + url.QueryEscape(old) + "&to=" + url.QueryEscape(next)
	command(t, "register", "greeter", "10.0.0.1:80", "--permanent", "--store", old)
	command(t, "migrate", "advance", "--all", "--store", store)
	w := startUI(t, store)
	pageHas(t, w.URL+"/info", `"steps":true`)
	pageHas(t, w.URL+"/service?name=greeter", `"phase":"old"`)
	w.want(t, "look", `{"service":"greeter"}`, http.StatusOK, `"from":"0 old","to":"1 dual-write"`)
	w.want(t, "step", `{"service":"greeter","phase":"dual-write","from":"0 old"}`, http.StatusOK, "greeter: 0 old to 1 dual-write.")
	pageHas(t, w.URL+"/service?name=greeter", `"phase":"dual-write"`)
	w.want(t, "step", `{"service":"greeter","phase":"shadow","from":"0 old"}`, http.StatusBadGateway, "the phase is 1 dual-write now")
	w.want(t, "look", `{"service":"greeter"}`, http.StatusOK, `"closed":1`)
	w.want(t, "step", `{"service":"greeter","phase":"shadow"}`, http.StatusConflict, "nothing was written: the new registry lacks 1 of 1 endpoint: 10.0.0.1:80")
	w.want(t, "step", `{"service":"greeter","phase":"shadow","force":true}`, http.StatusOK, "greeter: 1 dual-write to 2 shadow.")
	pageHas(t, w.URL+"/service?name=greeter", `"phase":"shadow"`)
	if shown := output(t, "migrate", "status", "--store", store); !strings.Contains(shown, "2 shadow") {
		t.Fatalf("the records have no step of the page: %s", shown)
	}
	w.want(t, "look", `{"service":"greeter","back":true}`, http.StatusOK, `"to":"1 dual-write"`)
	w.want(t, "step", `{"service":"greeter","back":true,"phase":"dual-write"}`, http.StatusOK, "greeter: 2 shadow to 1 dual-write.")
	pageHas(t, w.URL+"/service?name=greeter", `"phase":"dual-write"`)
	w.want(t, "step", `{"service":"*","phase":"dual-write"}`, http.StatusOK, "all services: 0 old to 1 dual-write.")
	body := fmt.Sprintf(`{"service":"greeter","id":%q}`, endpointID(t, old, "greeter", "10.0.0.1:80"))
	w.want(t, "drain", body, http.StatusOK, "The service has no other endpoint that serves.")

	fixed := startUI(t, strings.Replace(store, "phases=records", "phase=union", 1))
	pageHas(t, fixed.URL+"/info", `"steps":false`)
	fixed.want(t, "step", `{"service":"greeter","back":true}`, http.StatusBadRequest, "are not records")
}

// TestUIShowsBridges: a Bridge is shown though the URL of its registry has another format.
func TestUIShowsBridges(t *testing.T) {
	t.Parallel()
	stores := registries(t)
	foreign := map[string]string{"etcd": stores["etcd"] + "&codec=kratos", "consul": stores["consul"] + "&codec=kratos"}
	for kind, store := range stores {
		command(t, "register", "naming/bridge", "10.0.0.1:80", "--permanent", "--id", "m~"+kind+"~other", "--metadata", `{"holder":"x","by":"host/1","epoch":1}`, "--store", store)
	}
	both := "migrate:?phase=union&from=" + url.QueryEscape(foreign["etcd"]) + "&to=" + url.QueryEscape(foreign["consul"])
	for store, want := range map[string][]string{
		foreign["etcd"]: {`"source":"etcd"`}, foreign["consul"]: {`"source":"consul"`}, both: {`"registry":"old","name":"m","source":"etcd"`, `"registry":"new","name":"m","source":"consul"`},
	} {
		shown, _ := startServer(t, "ui", "--listen", "127.0.0.1:0", "--store", store)
		for _, text := range want {
			eventHas(t, shown+"/events", text)
		}
	}
}

// TestUIOnAllInterfaces: a page that other machines reach refuses foreign names of its host, if
// it may change the registry.
func TestUIOnAllInterfaces(t *testing.T) {
	t.Parallel()
	shown, _ := startServer(t, "ui", "--allow-writes", "--listen", "0.0.0.0:0", "--host", "dev.example", "--store", "memory:")
	address, token, _ := strings.Cut(shown, "/#token=")
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	w := writer{uitest.Page{URL: "http://127.0.0.1:" + u.Port(), Token: token}}
	for host, status := range map[string]int{"evil.example": http.StatusMisdirectedRequest, "dev.example": http.StatusBadGateway, "10.0.0.1": http.StatusBadGateway} {
		w.want(t, "drain", `{"service":"greeter","id":"nobody"}`, status, "", "Host", host, "Origin", "http://"+host)
	}
}

// eventHas waits until an event of a page has a text.
func eventHas(t *testing.T, url, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // only a hang takes longer
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	events := bufio.NewScanner(resp.Body)
	for events.Scan() {
		if strings.Contains(events.Text(), text) {
			return
		}
	}
	t.Fatalf("no event of %s has %q: %v", url, text, events.Err())
}
