package consul_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
)

// stranger is a server that wants tokens.
type stranger struct {
	*httptest.Server
	mu  sync.Mutex
	got []string
}

func newStranger(t *testing.T, secure bool) *stranger {
	s := new(stranger)
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.got = append(s.got, fmt.Sprintf("%s %s token %q", r.Method, r.URL.Path, r.Header.Get("X-Consul-Token")))
		_, _ = io.WriteString(w, "[]")
	}))
	if secure {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

func (s *stranger) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got
}

// everything makes every kind of request with which a Store begins.
func everything(ctx context.Context, s *consul.Store) map[string]error {
	errs := make(map[string]error)
	for _, err := range s.Watch(ctx, "greeter") {
		errs["watch"] = err
		break
	}
	for _, err := range s.Services(ctx) {
		errs["services"] = err
		break
	}
	_, errs["grant"] = s.Grant(ctx, time.Minute)
	errs["put"] = s.Apply(ctx, "greeter", add(nil, ep("a", "h:1", ""))...)
	errs["delete"] = s.Apply(ctx, "greeter", del("a")...)
	return errs
}

// TestFieldC15RedirectsElsewhere: when an agent redirects to another host, the token is
// not sent there, with a client of any origin.
func TestFieldC15RedirectsElsewhere(t *testing.T) {
	elsewhere, secure := newStranger(t, false), newStranger(t, true)
	for _, status := range []int{301, 302, 303, 307, 308} {
		for name, location := range map[string]func(agent, path string) string{
			"another port":     func(_, path string) string { return elsewhere.URL + path },
			"another name":     func(agent, path string) string { return strings.Replace(agent, "127.0.0.1", "localhost", 1) + path },
			"without a scheme": func(_, path string) string { return strings.TrimPrefix(elsewhere.URL, "http:") + path },
			"with a name and all": func(_, path string) string {
				return "http://u:p@" + strings.TrimPrefix(elsewhere.URL, "http://") + path
			},
			"https":             func(_, path string) string { return secure.URL + path },
			"https of the same": func(agent, path string) string { return strings.Replace(agent, "http", "https", 1) + path },
			"after a hop":       nil,
		} {
			for maker, make := range map[string]func(*api.Config) (*api.Client, error){"ours": consul.NewClient, "api": api.NewClient} {
				t.Run(fmt.Sprint(status, " ", name, " ", maker), func(t *testing.T) {
					var again atomic.Int64 // requests that came by a redirect to the agent itself
					var agent *httptest.Server
					agent = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if r.URL.Query().Has("hop") {
							again.Add(1)
						}
						switch {
						case location != nil:
							w.Header().Set("Location", location(agent.URL, r.URL.RequestURI()))
						case r.URL.Query().Has("hop"):
							w.Header().Set("Location", elsewhere.URL+r.URL.Path)
						default:
							w.Header().Set("Location", r.URL.Path+"?hop=1")
						}
						w.WriteHeader(status)
					}))
					defer agent.Close()
					transport := &http.Transport{TLSClientConfig: secure.Client().Transport.(*http.Transport).TLSClientConfig.Clone()}
					defer transport.CloseIdleConnections()
					client, err := make(&api.Config{Address: agent.URL, HttpClient: &http.Client{Transport: transport}})
					if err != nil {
						t.Fatal(err)
					}
					s := consul.New(client, &consul.Options{Token: func(context.Context) (string, error) { return "secret", nil }})
					for what, err := range everything(t.Context(), s) {
						if err == nil {
							t.Errorf("%s: no error", what)
						} else if strings.Contains(err.Error(), "secret") || len(err.Error()) > 4*naming.MaxText {
							t.Errorf("%s: %v", what, err)
						}
					}
					if location == nil && status == 307 && again.Load() == 0 {
						t.Error("no redirect to the agent itself was followed")
					}
					if got := append(elsewhere.requests(), secure.requests()...); len(got) > 0 {
						t.Fatalf("a stranger was asked: %q", got)
					}
				})
			}
		}
	}
}

// TestFieldC15Downgrade: a redirect never leads out of TLS, neither to the port of https
// nor with another spelling of the host.
func TestFieldC15Downgrade(t *testing.T) {
	plain := newStranger(t, false)
	agent := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "HTTP://"+r.Host+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	}))
	defer agent.Close()
	transport := agent.Client().Transport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	client, err := consul.NewClient(&api.Config{Address: agent.URL, HttpClient: &http.Client{Transport: redirected{transport, plain.Listener.Addr().String()}}})
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range everything(t.Context(), consul.New(client, nil)) {
		if err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: %v, want a redirect that is refused", what, err)
		}
	}
	if got := plain.requests(); len(got) > 0 {
		t.Errorf("without TLS was asked: %q", got)
	}
}

// redirected sends requests without TLS to an address.
type redirected struct {
	http.RoundTripper
	addr string
}

func (r redirected) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == "http" {
		req = req.Clone(req.Context())
		req.URL.Host = r.addr
	}
	return r.RoundTripper.RoundTrip(req)
}

// TestFieldC15SameAgent: a redirect to the agent itself is followed, with the method and
// the token of the request.
func TestFieldC15SameAgent(t *testing.T) {
	for maker, make := range map[string]func(*api.Config) (*api.Client, error){"ours": consul.NewClient, "api": api.NewClient} {
		t.Run(maker, func(t *testing.T) {
			var bad atomic.Value
			agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("X-Consul-Token") != "secret" {
					bad.Store(r.URL.String())
				}
				if path, ok := strings.CutPrefix(r.URL.Path, "/v1/"); ok {
					http.Redirect(w, r, "/moved/"+path, http.StatusPermanentRedirect)
					return
				}
				w.Header().Set("X-Consul-Index", "7")
				_, _ = io.WriteString(w, `[{"Node":{"Node":"n","Address":"10.0.0.1"},"Service":{"ID":"x","Service":"greeter","Port":1}}]`)
			}))
			defer agent.Close()
			client, err := make(&api.Config{Address: agent.URL})
			if err != nil {
				t.Fatal(err)
			}
			s := consul.New(client, &consul.Options{Token: func(context.Context) (string, error) { return "secret", nil }})
			for b, err := range s.Watch(t.Context(), "greeter") {
				if err != nil || len(b.Put) != 1 {
					t.Fatal(b, err)
				}
				break
			}
			if path := bad.Load(); path != nil {
				t.Errorf("%v was asked without the token", path)
			}
		})
	}
}

// TestNewClientLeavesConfig: NewClient does not change the caller's configuration.
func TestNewClientLeavesConfig(t *testing.T) {
	own := &http.Client{Transport: &http.Transport{}}
	config := &api.Config{Address: "http://127.0.0.1:1", HttpClient: own}
	if _, err := consul.NewClient(config); err != nil {
		t.Fatal(err)
	}
	if _, ok := own.Transport.(*http.Transport); !ok || own.CheckRedirect != nil || config.HttpClient != own || config.Address != "http://127.0.0.1:1" {
		t.Errorf("the configuration was changed: %+v", config)
	}
	if _, err := consul.NewClient(&api.Config{Address: "ftp://x"}); err == nil {
		t.Error("an address of ftp is taken")
	}
	if _, err := consul.NewClient(nil); err != nil {
		t.Error(err)
	}
}

// TestAnswerLimits: an answer above a limit fails, and takes little memory.
func TestAnswerLimits(t *testing.T) {
	entry := []byte(`{"Node":{"Node":"n"},"Service":{"ID":"x","Service":"other"},"Checks":[]},`)
	for name, test := range map[string]struct {
		status int
		body   func(w io.Writer)
		want   string // of the error; "" for none
	}{
		"empty entries": {200, func(w io.Writer) { repeat(w, "[", "{},", naming.MaxEndpoints) }, "too large"},
		"null entries":  {200, func(w io.Writer) { repeat(w, "[", "null,", naming.MaxEndpoints) }, "too large"},
		"a long string": {200, func(w io.Writer) { repeat(w, `["`, strings.Repeat("x", 1<<20), 300) }, "too large"},
		"spaces":        {200, func(w io.Writer) { repeat(w, "", strings.Repeat(" ", 1<<20), 300) }, "too large"},
		"many values":   {200, func(w io.Writer) { repeat(w, `[{"Checks":[`, strings.Repeat("{},", 1<<18), 100) }, "too large"},
		"endless error": {500, func(w io.Writer) { repeat(w, "", strings.Repeat("\x1b[31m", 1<<18), 100) }, "500"},
		"large but fair": {200, func(w io.Writer) {
			repeat(w, "[", string(entry), 10_000)
			_, _ = w.Write(append(bytes.TrimSuffix(entry, []byte(",")), ']'))
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Consul-Index", "7")
				w.WriteHeader(test.status)
				test.body(w)
			}))
			defer agent.Close()
			client, err := consul.NewClient(&api.Config{Address: agent.URL})
			if err != nil {
				t.Fatal(err)
			}
			// A busy machine may need longer to decode an answer than the default bound of silence.
			store := consul.New(client, &consul.Options{Wait: 5 * time.Minute})
			for _, err := range store.Watch(t.Context(), "greeter") {
				switch {
				case test.want == "" && err != nil:
					t.Errorf("%.200v", err)
				case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
					t.Errorf("%.200v, want %q in it", err, test.want)
				}
				if e, ok := errors.AsType[api.StatusError](err); ok && len(e.Body) > consul.MaxErrorAnswer {
					t.Errorf("%d bytes of an error were read", len(e.Body))
				}
				break
			}
		})
	}
}

func repeat(w io.Writer, begin, s string, n int) {
	_, err := io.WriteString(w, begin)
	if len(s) < 1<<10 { // fewer, larger writes
		s, n = strings.Repeat(s, 1000), n/1000+1
	}
	for ; n > 0 && err == nil; n-- {
		_, err = io.WriteString(w, s)
	}
}
