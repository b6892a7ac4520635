package open_test

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/open"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/servertest"
)

// The requests of a store, by its URL and environment. In both of them, AGENT is the
// address of an agent that refuses every request, and DIR a directory with a token.
func TestConsulRequests(t *testing.T) {
	dir := t.TempDir()
	servertest.WriteFile(t, filepath.Join(dir, "token"), []byte("from-file\n\n"))
	socket := filepath.Join(shortDir(t), "s")
	plain := startRefuser(t, "tcp", "127.0.0.1:0", false)
	secure := startRefuser(t, "tcp", "127.0.0.1:0", true)
	unix := startRefuser(t, "unix", socket, false)
	ca := filepath.Join(dir, "ca", "pem")
	if err := os.Mkdir(filepath.Dir(ca), 0o700); err != nil {
		t.Fatal(err)
	}
	servertest.WriteFile(t, ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}))
	fill := func(s string, r *refuser) string {
		return strings.NewReplacer("AGENT", r.Listener.Addr().String(), "DIR", dir, "SOCKET", socket).Replace(s)
	}
	for _, c := range []struct {
		url  string
		env  string // separated by spaces
		who  *refuser
		want string // see wantRequest
	}{
		{"consul://AGENT", "", plain, "/v1/health/service/greeter?consistent= token= auth=/"},
		{"consul://AGENT/?prefix=a.", "", plain, "/v1/health/service/a.greeter?"},
		{"consul://AGENT?dc=d", "", plain, "dc=d"},
		{"consul://AGENT?stale=true", "", plain, "stale="},
		{"consul://AGENT?stale=false", "", plain, "consistent="},
		{"consul://AGENT?node-meta=a:b:c", "", plain, "node-meta=a%3Ab%3Ac"},
		{"consul://AGENT?node-meta=a:b:c&node-meta=d:", "", plain, "node-meta=d%3A"},
		{"consul://AGENT?partition=p&ns=n", "", plain, "ns=n&partition=p"},
		{"consul://AGENT?partition=p&ns=n", "CONSUL_PARTITION=x CONSUL_NAMESPACE=y", plain, "ns=n&partition=p"},
		{"consul://AGENT", "CONSUL_PARTITION=x CONSUL_NAMESPACE=y", plain, "ns=y&partition=x"},

		{"consul://AGENT", "CONSUL_HTTP_ADDR=127.0.0.1:1", plain, "greeter"},
		{"consul://AGENT", "CONSUL_HTTP_ADDR=https://127.0.0.1:1/x CONSUL_HTTP_SSL=false", plain, " /v1/"},
		{"consul:", "CONSUL_HTTP_ADDR=AGENT", plain, "greeter"},
		{"consul:///?tag=x", "CONSUL_HTTP_ADDR=http://AGENT", plain, " /v1/"},
		{"consul://", "CONSUL_HTTP_ADDR=http://AGENT/some/path/", plain, " /some/path/v1/health/"},
		{"consul://", "CONSUL_HTTP_ADDR=unix://SOCKET", unix, "greeter"},
		{"consul://SOCKET", "", unix, "greeter"},
		{"consul://SOCKET?dc=d", "CONSUL_HTTP_ADDR=127.0.0.1:1", unix, "dc=d"},

		{"consul://AGENT?token-file=DIR/token", "CONSUL_HTTP_TOKEN=x CONSUL_HTTP_TOKEN_FILE=DIR/none", plain, "token=from-file "},
		{"consul://AGENT?token-env=MINE", "MINE=m CONSUL_HTTP_TOKEN=m CONSUL_HTTP_TOKEN_FILE=DIR/token", plain, "token=m "},
		{"consul://AGENT", "CONSUL_HTTP_TOKEN=x", plain, "token=x "},
		{"consul://AGENT", "CONSUL_HTTP_TOKEN=x CONSUL_HTTP_TOKEN_FILE=DIR/token", plain, "token=from-file "},
		{"consul://AGENT", "CONSUL_HTTP_AUTH=user:pass:word", plain, "auth=user/pass:word"},

		// On HTTP/2 all requests share one connection, and wait if it is dead.
		{"consuls://AGENT?cacert=DIR/ca/pem", "", secure, "HTTP/1.1"},
		{"consuls://AGENT", "CONSUL_CACERT=DIR/ca/pem", secure, "greeter"},
		{"consuls://AGENT", "CONSUL_CAPATH=DIR/ca", secure, "greeter"},
		{"consuls://AGENT?cacert=DIR/ca/pem", "CONSUL_CACERT=DIR/none CONSUL_CAPATH=DIR/none", secure, "greeter"},
		{"consul://AGENT", "CONSUL_CACERT=DIR/ca/pem CONSUL_HTTP_SSL=true", secure, "greeter"},
		{"consul:", "CONSUL_CACERT=DIR/ca/pem CONSUL_HTTP_ADDR=https://AGENT", secure, "greeter"},
		{"consuls:", "CONSUL_CACERT=DIR/ca/pem CONSUL_HTTP_ADDR=http://AGENT CONSUL_HTTP_SSL=false", secure, "greeter"},
		{"consuls://AGENT", "CONSUL_HTTP_SSL_VERIFY=false", secure, "greeter"},
		{"consuls://AGENT?cacert=DIR/ca/pem", "CONSUL_TLS_SERVER_NAME=example.com:8501", secure, "greeter"},
		{"consuls://AGENT?cacert=DIR/ca/pem", "CONSUL_TLS_SERVER_NAME=elsewhere.org", secure, "!elsewhere.org"},
		{"consuls://AGENT?cacert=DIR/ca/pem", "CONSUL_TLS_SERVER_NAME=elsewhere.org CONSUL_HTTP_SSL_VERIFY=false", secure, "!elsewhere.org"},
		{"consuls://AGENT", "", secure, "!unknown authority"},
	} {
		t.Run(c.url+" "+c.env, func(t *testing.T) {
			for v := range strings.FieldsSeq(fill(c.env, c.who)) {
				name, value, _ := strings.Cut(v, "=")
				t.Setenv(name, value)
			}
			wantRequest(t, mustOpen(t, fill(c.url, c.who)), c.who, c.want)
		})
	}
}

// wantRequest watches a service, and fails t unless the request has the text that is
// wanted. A text "!x" means that there is no request, and an error with x.
func wantRequest(t *testing.T, store naming.Store, who *refuser, want string) {
	t.Helper()
	who.takeRequest()
	var err error
	for _, err = range store.Watch(t.Context(), "greeter") {
		break
	}
	got := who.takeRequest()
	if strings.Contains(want, "ns=") { // writes have the same parameters
		err = store.Apply(t.Context(), "greeter", naming.Change{Endpoint: naming.Endpoint{Addr: "a:1"}})
		if put := who.takeRequest(); !strings.Contains(put, want) {
			t.Errorf("the request of a write is %q, with error %v, want %q in it", put, err, want)
		}
	}
	if text, none := strings.CutPrefix(want, "!"); none {
		if got != "" || err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("the request is %q, with error %v, want an error with %q", got, err, text)
		}
	} else if !strings.Contains(got, want) {
		t.Errorf("the request is %q, with error %v, want %q in it", got, err, want)
	}
}

// refuser is a server that refuses every request, and keeps the last.
type refuser struct {
	*httptest.Server
	mu   sync.Mutex
	last string
}

func startRefuser(t *testing.T, network, addr string, secure bool) *refuser {
	lis, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	r := new(refuser)
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		user, password, _ := req.BasicAuth()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.last = fmt.Sprintf("%s %s token=%s auth=%s/%s", req.Proto, req.URL, req.Header.Get("X-Consul-Token"), user, password)
		http.Error(w, "no", http.StatusTeapot)
	}))
	_ = r.Server.Listener.Close()
	r.Server.Listener = lis
	r.Server.Config.ErrorLog = log.New(io.Discard, "", 0)
	if r.EnableHTTP2 = true; secure {
		r.StartTLS()
	} else {
		r.Start()
	}
	t.Cleanup(r.Close)
	return r
}

func (r *refuser) takeRequest() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.last
	r.last = ""
	return last
}

// An error about a variable of the environment does not contain its value.
func TestConsulEnvironment(t *testing.T) {
	dir := t.TempDir()
	servertest.WriteFile(t, filepath.Join(dir, "junk"), []byte("hunter2"))
	for _, c := range []struct{ url, env, want string }{
		{"consul:", "CONSUL_HTTP_ADDR=user:hunter2@h:8500", "CONSUL_HTTP_ADDR is neither host:port"},
		{"consul:", "CONSUL_HTTP_ADDR=http://hunter2@h:8500", "CONSUL_HTTP_ADDR is neither host:port"},
		{"consul:", "CONSUL_HTTP_ADDR=hunter2://h", "CONSUL_HTTP_ADDR is neither host:port"},
		{"consul:", "CONSUL_HTTP_ADDR=h1:1,hunter2:2", "CONSUL_HTTP_ADDR is neither host:port"},
		{"consul:", "CONSUL_HTTP_ADDR=http://h?token=hunter2", "CONSUL_HTTP_ADDR is neither host:port"},
		{"consul:", "CONSUL_HTTP_ADDR=unix://", "CONSUL_HTTP_ADDR is neither host:port"},
		{"consul:", "CONSUL_HTTP_SSL=hunter2", "CONSUL_HTTP_SSL is neither true nor false"},
		{"consul:", "CONSUL_HTTP_SSL_VERIFY=hunter2", "CONSUL_HTTP_SSL_VERIFY is neither true nor false"},
		{"consul:", "CONSUL_HTTP_TOKEN_FILE=hunter2", "CONSUL_HTTP_TOKEN_FILE: no such file"},
		{"consuls:", "CONSUL_CACERT=DIR/junk", "CONSUL_CACERT: " + dir + "/junk has no certificate in PEM"},
		{"consuls:", "CONSUL_CAPATH=DIR/none", "CONSUL_CAPATH: "},
		{"consuls:", "CONSUL_CAPATH=DIR", "CONSUL_CAPATH: "},
		{"consuls:", "CONSUL_CLIENT_CERT=DIR/junk", "only one of CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY is set"},
		{"consuls:", "CONSUL_CLIENT_CERT=DIR/junk CONSUL_CLIENT_KEY=DIR/junk", "CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY: "},
		{"consuls://h?cert=DIR/junk&key=DIR/junk", "CONSUL_CLIENT_CERT=DIR/none", `parameter "cert" and parameter "key": `},
	} {
		t.Run(c.url+" "+c.env, func(t *testing.T) {
			for v := range strings.FieldsSeq(strings.ReplaceAll(c.env, "DIR", dir)) {
				name, value, _ := strings.Cut(v, "=")
				t.Setenv(name, value)
			}
			_, _, err := open.Store(t.Context(), strings.ReplaceAll(c.url, "DIR", dir), nil)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %v, want one with %q, and nothing secret", err, c.want)
			}
		})
	}
}

// shortDir returns a directory for sockets. The paths of sockets must be short.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestConsul(t *testing.T) {
	socket := filepath.Join(shortDir(t), "http.sock")
	a := consultest.Start(t, &consultest.Options{Config: map[string]any{
		"addresses": map[string]any{"http": "127.0.0.1 unix://" + socket},
	}})
	roundTrip(t, mustOpen(t, "consul://"+a.Addr+"?prefix=a."))
	roundTrip(t, mustOpen(t, "consul://"+socket+"?prefix=b."))
	names, _, err := a.Client(t).Catalog().Services(nil)
	if err != nil || names["a.greeter"] == nil || names["b.greeter"] == nil || names["greeter"] != nil {
		t.Errorf("Consul has the services %v, %v", names, err)
	}
}

// allowed is the policy that a program needs.
const allowed = `service_prefix "" { policy = "write" } node_prefix "" { policy = "read" }`

func TestConsulTLSAndTokens(t *testing.T) {
	a := consultest.Start(t, &consultest.Options{TLS: true, ACL: true})
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		servertest.WriteFile(t, path, data)
		return path
	}
	ca, pair := file("ca.pem", a.CA().PEM), file("pair.pem", a.CA().Issue(t, "", time.Hour))
	url := "consuls://" + a.Addr + "?cacert=" + ca + "&cert=" + pair + "&key=" + pair
	first, second := a.CreateToken(t, allowed), a.CreateToken(t, allowed)
	token := file("token", []byte(first.Secret+"\n"))

	store := mustOpen(t, url+"&token-file="+token)
	roundTrip(t, store)
	put := func() error {
		return store.Apply(t.Context(), "greeter", naming.Change{Endpoint: naming.Endpoint{Addr: "a:1"}})
	}
	// The next request uses the new token.
	a.RevokeToken(t, first)
	if err := put(); !errors.Is(err, naming.ErrPermission) {
		t.Errorf("with a token that was revoked: error %v, want ErrPermission", err)
	}
	file("token", []byte(second.Secret))
	if err := put(); err != nil {
		t.Errorf("with the new token: %v", err)
	}
	if err := os.Remove(token); err != nil {
		t.Fatal(err)
	}
	if err := put(); !errors.Is(err, os.ErrNotExist) || strings.Contains(err.Error(), second.Secret) {
		t.Errorf("without the file: error %v, want ErrNotExist", err)
	}

	// The variables of Consul's own tools.
	for name, value := range map[string]string{
		"CONSUL_HTTP_ADDR": a.Addr, "CONSUL_HTTP_SSL": "1", "CONSUL_HTTP_TOKEN": second.Secret,
		"CONSUL_CACERT": ca, "CONSUL_CLIENT_CERT": pair, "CONSUL_CLIENT_KEY": pair,
	} {
		t.Setenv(name, value)
	}
	roundTrip(t, mustOpen(t, "consul:"))
	roundTrip(t, mustOpen(t, url+"&token-env=CONSUL_HTTP_TOKEN"))

	// A new connection reads the certificate again.
	t.Setenv("CONSUL_CLIENT_CERT", "")
	t.Setenv("CONSUL_CLIENT_KEY", "")
	store = mustOpen(t, url)
	file("pair.pem", a.CA().Issue(t, "", -time.Hour))
	if err := put(); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("with a certificate that has expired: error %v, want one about it", err)
	}
	file("pair.pem", a.CA().Issue(t, "", time.Hour))
	if err := put(); err != nil {
		t.Errorf("with the new certificate: %v", err)
	}
}

// TestFieldC15Redirect: a token of a URL stays with the agent that the URL names.
func TestFieldC15Redirect(t *testing.T) {
	stranger := startRefuser(t, "tcp", "127.0.0.1:0", false)
	for _, status := range []int{http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
		agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, stranger.URL+r.URL.RequestURI(), status)
		}))
		t.Setenv("MINE", "secret")
		store := mustOpen(t, "consul://"+agent.Listener.Addr().String()+"?token-env=MINE")
		var err error
		for _, err = range store.Watch(t.Context(), "greeter") {
			break
		}
		for what, err := range map[string]error{
			"watch": err,
			"apply": store.Apply(t.Context(), "greeter", naming.Change{Endpoint: naming.Endpoint{Addr: "a:1"}}),
		} {
			if err == nil || !strings.Contains(err.Error(), "refused") || strings.Contains(err.Error(), "secret") {
				t.Errorf("%d: %s: %v, want a redirect that is refused", status, what, err)
			}
		}
		if asked := stranger.takeRequest(); asked != "" {
			t.Errorf("%d: the stranger was asked %q", status, asked)
		}
		agent.Close()
	}
}
