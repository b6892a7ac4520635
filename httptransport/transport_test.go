package httptransport_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/balancer"
	"github.com/naming-go/naming/httptransport"
)

// TestHost: the host of the URL is the service, without the port. The server gets the host
// as the caller set it, the caller's request stays as it is, and the response refers to it.
func TestHost(t *testing.T) {
	for _, c := range []struct{ url, host, want string }{
		{"http://greeter/a?b=c", "", "greeter /a?b=c"},
		{"http://greeter:8080/a", "", "greeter:8080 /a"},
		{"http://greeter/a", "example.com", "example.com /a"},
	} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host+" "+r.RequestURI) })
		w := newWorld(t, nil)
		w.put(at(s.addr)...)
		req, err := http.NewRequestWithContext(t.Context(), "GET", c.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.host != "" {
			req.Host = c.host
		}
		before, url, header := *req, *req.URL, maps.Clone(req.Header)
		resp, err := w.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if string(text) != c.want {
			t.Errorf("%s: the server got %q, want %q", c.url, text, c.want)
		}
		if resp.Request != req || !reflect.DeepEqual(before, *req) || url != *req.URL || !maps.EqualFunc(header, req.Header, func(a, b []string) bool { return reflect.DeepEqual(a, b) }) {
			t.Errorf("%s: the request was modified, or the response has another", c.url)
		}
	}
}

// TestServiceOptions: Service and ServiceOf name the service, whatever the URL says, also
// with a name that is not a host name.
func TestServiceOptions(t *testing.T) {
	for name, opts := range map[string]*httptransport.Options{
		"Service":   {Service: "shop/greeter"},
		"ServiceOf": {ServiceOf: func(r *http.Request) string { return "shop" + r.URL.Path }},
	} {
		s := serve(t, nil)
		w := newWorld(t, opts)
		if err := w.store.Apply(t.Context(), "shop/greeter", naming.Change{Endpoint: at(s.addr)[0]}); err != nil {
			t.Fatal(err)
		}
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://any.example/greeter", nil)
		if text, err := w.do(req); err != nil || text != s.addr {
			t.Errorf("%s: got %q, %v", name, text, err)
		}
	}
}

// TestInvalid: what cannot work fails with ErrInvalid, and closes the body.
func TestInvalid(t *testing.T) {
	none := func(*http.Request) string { return "" }
	for name, c := range map[string]struct {
		opts *httptransport.Options
		url  string
	}{
		"two services": {&httptransport.Options{Service: "a", ServiceOf: none}, "http://greeter/"},
		"own TLS":      {&httptransport.Options{Transport: &http.Transport{DialTLSContext: newNetwork().dial}}, "https://greeter/"},
		"balancer":     {&httptransport.Options{Balancer: balancer.Config{Pick: "best"}}, "http://greeter/"},
		"no service":   {&httptransport.Options{ServiceOf: none}, "http://greeter/"},
		"long name":    {nil, "http://" + strings.Repeat("a", 2_000) + "/"},
		"scheme":       {nil, "ftp://greeter/"},
		"no host":      {nil, "http:///path"},
	} {
		w := newWorld(t, c.opts)
		b := newBody("x")
		req, err := http.NewRequestWithContext(t.Context(), "POST", c.url, b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.do(req); !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("%s: got %v", name, err)
		}
		if b.count() != 1 {
			t.Errorf("%s: the body was closed %d times", name, b.count())
		}
	}
	if _, err := httptransport.New(nil, nil).RoundTrip(request(t, "GET", nil)); !errors.Is(err, naming.ErrInvalid) {
		t.Errorf("nil Builder: got %v", err)
	}
}

// TestNoEndpoints: a service without endpoints fails requests at once, with an error that
// names the service and the reason. A registry that is down does so as well.
func TestNoEndpoints(t *testing.T) {
	w := newWorld(t, nil)
	fails := func(want string) {
		t.Helper()
		b := newBody("x")
		_, err := w.do(request(t, "POST", b))
		if !errors.Is(err, httptransport.ErrNoEndpoints) || !strings.Contains(err.Error(), `"greeter"`) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		if b.count() != 1 {
			t.Errorf("the body was closed %d times", b.count())
		}
	}
	fails("has no endpoints")

	w = newWorld(t, nil)
	w.put(at("not an address")...)
	fails("none of 1 has a valid address")

	w = newWorld(t, nil)
	w.put(at("a:1")...)
	w.store.Withhold("greeter", "a:1", naming.Maintenance, "closed on Mondays")
	fails("closed on Mondays")

	w = newWorld(t, nil)
	w.store.Down(errors.New("out of service"))
	fails("out of service")
}

// TestWaits: before the first set, requests wait for it until their context is done.
func TestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		defer n.serve("a:1", saying("a"))()
		w := newWorld(t, &httptransport.Options{Transport: n.transport()})
		w.put(at("a:1")...)
		w.store.Silence()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		b := newBody("x")
		start := time.Now()
		_, err := w.do(request(t, "POST", b).WithContext(ctx))
		var timeout interface{ Timeout() bool }
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(start) != time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		if b.count() != 1 {
			t.Errorf("the body was closed %d times", b.count())
		}
		done := make(chan string)
		go func() { done <- w.get() }()
		time.Sleep(time.Second)
		w.store.Speak()
		if got := <-done; got != "a" {
			t.Errorf("got %q", got)
		}
	})
}

// spread sends n requests and counts the answers.
func (w *world) spread(n int) map[string]int {
	w.Helper()
	got := make(map[string]int)
	for range n {
		got[w.get()]++
	}
	return got
}

// TestDraining: a draining endpoint gets no new request while there are others.
func TestDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		defer n.serve("a:1", saying("a"))()
		defer n.serve("b:1", saying("b"))()
		w := newWorld(t, &httptransport.Options{Transport: n.transport()})
		w.put(at("a:1", "b:1")...)
		if got := w.spread(40); got["a"] < 15 || got["b"] < 15 {
			t.Errorf("got %v", got)
		}
		w.put(naming.Endpoint{Addr: "a:1", Draining: true})
		time.Sleep(time.Second)
		if got := w.spread(10); got["b"] != 10 {
			t.Errorf("got %v while a drains", got)
		}
		w.delete("b:1")
		time.Sleep(time.Second)
		if got := w.spread(10); got["a"] != 10 {
			t.Errorf("got %v with nothing but a", got)
		}
		w.CloseIdleConnections()
	})
}

// TestOutageAndWipe: an outage of the registry changes nothing, and a wipe is survived.
func TestOutageAndWipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		w := newWorld(t, &httptransport.Options{Transport: n.transport()})
		for _, a := range []string{"a:1", "b:1", "c:1", "d:1"} {
			defer n.serve(a, saying(a))()
			w.put(at(a)...)
		}
		check := func(when string) {
			t.Helper()
			if got := w.spread(20); len(got) != 4 {
				t.Errorf("%s: got %v", when, got)
			}
		}
		check("at first")
		w.store.Down(errors.New("down"))
		time.Sleep(time.Hour)
		check("after an hour of an outage")
		w.store.Up()
		time.Sleep(time.Minute)
		w.store.Wipe()
		time.Sleep(5 * time.Second)
		check("after a wipe")
		w.CloseIdleConnections()
	})
}

// TestBalancer: weights, zones and subsets are as Options.Balancer says.
func TestBalancer(t *testing.T) {
	for name, c := range map[string]struct {
		config balancer.Config
		check  func(got map[string]int) bool
	}{
		"weight":    {balancer.Config{}, func(got map[string]int) bool { return 28 <= got["a:1"] && got["a:1"] <= 36 && len(got) == 3 }},
		"zone":      {balancer.Config{Zone: "east"}, func(got map[string]int) bool { return got["b:1"] == 64 }},
		"subset":    {balancer.Config{Subset: 1}, func(got map[string]int) bool { return len(got) == 1 }},
		"by number": {balancer.Config{Subset: 2, ClientNumber: new(int)}, func(got map[string]int) bool { return len(got) == 2 }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				w := newWorld(t, &httptransport.Options{Transport: n.transport(), Balancer: c.config})
				for _, a := range []string{"a:1", "b:1", "c:1"} {
					defer n.serve(a, saying(a))()
				}
				w.put(weighing("a:1", `{"weight":2}`), weighing("b:1", `{"zone":"east"}`), weighing("c:1", `{"zone":"west"}`))
				if got := w.spread(64); !c.check(got) {
					t.Errorf("got %v", got)
				}
				w.CloseIdleConnections()
			})
		})
	}
}

// TestSubsetReplaces: an endpoint of the subset that cannot be dialed is replaced.
func TestSubsetReplaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		w := newWorld(t, &httptransport.Options{Transport: n.transport(), Balancer: balancer.Config{Subset: 1}})
		stops := make(map[string]func())
		for _, a := range []string{"a:1", "b:1", "c:1"} {
			stops[a] = n.serve(a, saying(a))
			defer stops[a]()
			w.put(at(a)...)
		}
		first := w.get()
		stops[first]()
		if second := w.get(); second == first {
			t.Errorf("got %q again", second)
		}
		w.CloseIdleConnections()
	})
}

// TestLeastLoaded: a request is in flight until its response body is closed. An endpoint
// with open bodies gets fewer requests.
func TestLeastLoaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		defer n.serve("a:1", saying("a"))()
		defer n.serve("b:1", saying("b"))()
		w := newWorld(t, &httptransport.Options{Transport: n.transport(), Balancer: balancer.Config{Pick: balancer.LeastLoaded}})
		w.put(at("a:1")...)
		var open []*http.Response
		for range 20 {
			resp, err := w.RoundTrip(request(t, "GET", nil))
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, resp)
		}
		w.put(at("b:1")...)
		time.Sleep(time.Second)
		if got := w.spread(40); got["a"] > 5 {
			t.Errorf("got %v while a has 20 requests", got)
		}
		for _, resp := range open {
			_ = resp.Body.Close()
		}
		if got := w.spread(40); got["a"] < 10 {
			t.Errorf("got %v with nothing in flight", got)
		}
		w.CloseIdleConnections()
	})
}

// TestRedirect: a relative Location leads an http.Client to the same service.
func TestRedirect(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/from" {
			http.Redirect(w, r, "/to", http.StatusFound)
			return
		}
		_, _ = io.WriteString(w, r.Host+r.URL.Path)
	})
	w := newWorld(t, nil)
	w.put(at(s.addr)...)
	client := &http.Client{Transport: w.Transport}
	resp, err := client.Get("http://greeter/from")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); string(text) != "greeter/to" {
		t.Errorf("got %q", text)
	}
}
