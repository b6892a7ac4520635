package httptransport_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/naming-go/naming/httptransport"
	"github.com/naming-go/naming/internal/servertest"
)

// serveTLS starts a server with the certificate of httptest, which is for example.com and
// 127.0.0.1. HTTP/2 is on if h2 is.
func serveTLS(t *testing.T, h2 bool, handler http.HandlerFunc) *server {
	s := newServer(t, handler)
	s.EnableHTTP2 = h2
	s.StartTLS()
	s.addr = s.Listener.Addr().String()
	return s
}

// trusting returns an http.Transport that trusts the certificate of a server.
func trusting(s *server) *http.Transport {
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: pool}}
}

// secure returns a request to https://service/.
func secure(t *testing.T, service, method string, body io.Reader) *http.Request {
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+service+"/", body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// TestCertificate: the certificate is checked for the name of the service or TLSServerName,
// and never for something from the registry, such as the address.
func TestCertificate(t *testing.T) {
	for _, c := range []struct {
		service, name string
		ok            bool
	}{
		{service: "example.com", ok: true},
		{service: "greeter"}, // the certificate is right for the address, and wrong for the service
		{service: "greeter", name: "example.com", ok: true},
		{service: "example.com", name: "other.example"},
	} {
		s := serveTLS(t, false, nil)
		w := newWorld(t, &httptransport.Options{Transport: trusting(s), TLSServerName: c.name, ServiceOf: func(*http.Request) string { return "greeter" }})
		if c.name == "" {
			w = newWorld(t, &httptransport.Options{Transport: trusting(s), Service: c.service})
			if err := w.client.Update(t.Context(), c.service, update(s.addr)); err != nil {
				t.Fatal(err)
			}
		} else {
			w.put(at(s.addr)...)
		}
		_, err := w.do(secure(t, c.service, "GET", nil))
		if _, refused := errors.AsType[*tls.CertificateVerificationError](err); (err == nil) != c.ok || refused == c.ok {
			t.Errorf("%+v: got %v", c, err)
		}
	}
}

// TestCertificateRefused: a request to an endpoint whose certificate is refused goes to
// another endpoint, whatever its method is: nothing was sent.
func TestCertificateRefused(t *testing.T) {
	for range 4 {
		bad, good := newServer(t, nil), serveTLS(t, false, echo)
		bad.TLS = &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}
		bad.StartTLS()
		w := newWorld(t, &httptransport.Options{Transport: trusting(good), TLSServerName: "example.com"})
		w.put(at(bad.Listener.Addr().String(), good.addr)...)
		for range 4 {
			b := newBody("hello")
			if text, err := w.do(secure(t, "greeter", "POST", b)); err != nil || text != "POST hello" {
				t.Errorf("got %q, %v", text, err)
			}
		}
		if n := bad.conns.Load(); n > 1 {
			t.Errorf("%d connections to the endpoint whose certificate is refused", n)
		}
	}
}

// TestHTTP2: HTTP/2 over TLS works, as for an http.Transport that would use it by itself.
func TestHTTP2(t *testing.T) {
	for name, change := range map[string]func(*http.Transport){
		"forced":   func(*http.Transport) {},
		"used":     func(tr *http.Transport) { tr.CloseIdleConnections() },
		"disabled": func(tr *http.Transport) { tr.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{} },
		"HTTP/1 only": func(tr *http.Transport) {
			tr.Protocols = new(http.Protocols)
			tr.Protocols.SetHTTP1(true)
		},
	} {
		s := serveTLS(t, true, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto+" "+r.Host) })
		inner := trusting(s)
		change(inner)
		w := newWorld(t, &httptransport.Options{Transport: inner, TLSServerName: "example.com"})
		w.put(at(s.addr)...)
		want := "HTTP/2.0 greeter"
		if name == "disabled" || name == "HTTP/1 only" {
			want = "HTTP/1.1 greeter"
		}
		if text, err := w.do(secure(t, "greeter", "GET", nil)); err != nil || text != want {
			t.Errorf("%s: got %q, %v", name, text, err)
		}
	}
}

// TestHTTP2GoAway: a server that sends GOAWAY and refuses new connections loses no request:
// they go to another endpoint.
func TestHTTP2GoAway(t *testing.T) {
	a, b := serveTLS(t, true, nil), serveTLS(t, true, nil)
	w := newWorld(t, &httptransport.Options{Transport: trusting(a), TLSServerName: "example.com"})
	w.put(at(a.addr, b.addr)...)
	get := func() string {
		text, err := w.do(secure(t, "greeter", "GET", nil))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	get()
	get()
	done := make(chan error)
	go func() { done <- a.Config.Shutdown(t.Context()) }()
	for range 200 {
		get()
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := get(); got != b.addr {
		t.Errorf("got %q", got)
	}
}

// TestStreams: bodies are streamed in both directions at the same time, with HTTP/1.1 and
// HTTP/2.
func TestStreams(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		s := serveTLS(t, h2, func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			_ = rc.EnableFullDuplex()
			w.WriteHeader(200)
			_ = rc.Flush()
			for lines := bufio.NewScanner(r.Body); lines.Scan(); {
				_, _ = fmt.Fprintf(w, "%s!\n", lines.Text())
				_ = rc.Flush()
			}
		})
		w := newWorld(t, &httptransport.Options{Transport: trusting(s), TLSServerName: "example.com"})
		w.put(at(s.addr)...)
		r, pipe := io.Pipe()
		resp, err := w.RoundTrip(secure(t, "greeter", "POST", r))
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(resp.Body)
		for i := range 3 {
			_, _ = fmt.Fprintf(pipe, "%d\n", i)
			if !lines.Scan() || lines.Text() != fmt.Sprintf("%d!", i) {
				t.Errorf("got %q, %v", lines.Text(), lines.Err())
			}
		}
		_ = pipe.Close()
		if lines.Scan() || lines.Err() != nil {
			t.Errorf("got %q, %v at the end", lines.Text(), lines.Err())
		}
		_ = resp.Body.Close()
	}
}

// TestTrailers: trailers arrive in both directions.
func TestTrailers(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		s := serveTLS(t, h2, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "After")
			_, _ = io.Copy(w, r.Body)
			w.Header().Set("After", r.Trailer.Get("Sum"))
		})
		w := newWorld(t, &httptransport.Options{Transport: trusting(s), TLSServerName: "example.com"})
		w.put(at(s.addr)...)
		req := secure(t, "greeter", "POST", newBody("hello"))
		req.Trailer = http.Header{"Sum": {"42"}}
		resp, err := w.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || string(text) != "hello" || resp.Trailer.Get("After") != "42" {
			t.Errorf("got %q, %v, trailer %v", text, err, resp.Trailer)
		}
	}
}

// TestExpectContinue: with "Expect: 100-continue" the body is sent when the server asks for
// it, and is closed unread when the server does not.
func TestExpectContinue(t *testing.T) {
	inner := &http.Transport{ExpectContinueTimeout: time.Hour}
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		echo(w, r)
	})
	w := newWorld(t, &httptransport.Options{Transport: inner})
	w.put(at(s.addr)...)
	for path, want := range map[string]string{"/yes": "POST hello", "/no": ""} {
		b := newBody("hello")
		req := request(t, "POST", b)
		req.URL.Path = path
		req.Header.Set("Expect", "100-continue")
		if text, err := w.do(req); err != nil || text != want {
			t.Errorf("%s: got %q, %v", path, text, err)
		}
		<-b.closed
		if left, _ := io.ReadAll(b.Reader); (len(left) == 0) != (path == "/yes") {
			t.Errorf("%s: %q was not sent", path, left)
		}
	}
}

// TestUpgrade: after 101 the body of the response is the connection, in both directions.
func TestUpgrade(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.Copy(conn, rw)
	})
	w := newWorld(t, nil)
	w.put(at(s.addr)...)
	req := request(t, "GET", nil)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "echo")
	resp, err := w.RoundTrip(req)
	if err != nil || resp.StatusCode != 101 {
		t.Fatalf("got %v, %v", resp, err)
	}
	rwc, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		t.Fatalf("the body is a %T", resp.Body)
	}
	for _, line := range []string{"a\n", "b\n"} {
		_, _ = io.WriteString(rwc, line)
		got := make([]byte, len(line))
		if _, err := io.ReadFull(rwc, got); err != nil || string(got) != line {
			t.Errorf("got %q, %v", got, err)
		}
	}
	// One direction ends before the other.
	_, _ = io.WriteString(rwc, "end")
	if err := rwc.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Error(err)
	}
	if rest, err := io.ReadAll(rwc); err != nil || string(rest) != "end" {
		t.Errorf("got %q, %v", rest, err)
	}
	_ = rwc.Close()
}

// TestUnix: an address can be a unix socket.
func TestUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for _, addr := range []string{"unix:" + path, "unix://" + path} {
		s := newServer(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) })
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Listener.Close()
		s.Listener = l
		s.Start()
		w := newWorld(t, nil)
		w.put(at(addr)...)
		if got := w.get(); got != "greeter" {
			t.Errorf("%s: got %q", addr, got)
		}
		s.Close()
	}
}

// TestNoProxy: the Proxy of Options.Transport is not used: it is that of the environment in
// most programs, which begin with a clone of http.DefaultTransport.
func TestNoProxy(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RequestURI) })
	inner := http.DefaultTransport.(*http.Transport).Clone()
	inner.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: refusing(t)})
	w := newWorld(t, &httptransport.Options{Transport: inner})
	w.put(at(s.addr)...)
	if got := w.get(); got != "/" { // a proxy would get the whole URL
		t.Errorf("got %q", got)
	}
}

// TestReuse: connections are kept alive, one pool for each endpoint.
func TestReuse(t *testing.T) {
	a, b := serve(t, nil), serve(t, nil)
	w := newWorld(t, nil)
	w.put(at(a.addr, b.addr)...)
	w.spread(50)
	// The same endpoints with other metadata are the same connections.
	w.put(weighing(a.addr, `{"weight":2}`), weighing(b.addr, `{"zone":"z"}`))
	w.spread(50)
	if a, b := a.conns.Load(), b.conns.Load(); a != 1 || b != 1 {
		t.Errorf("%d and %d connections", a, b)
	}
}

// TestDepartedConnections: connections to an endpoint that left the set are closed: idle
// ones at once, and others at the end of the response body.
func TestDepartedConnections(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		release := make(chan struct{})
		handler := func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "x")
			if r.Method == "POST" {
				_ = http.NewResponseController(w).Flush()
				<-release
			}
		}
		a, b := serveTLS(t, h2, handler), serveTLS(t, h2, handler)
		w := newWorld(t, &httptransport.Options{Transport: trusting(a), TLSServerName: "example.com"})
		w.put(at(a.addr)...)
		open := make([]*http.Response, 3)
		for i := range open {
			resp, err := w.RoundTrip(secure(t, "greeter", "POST", nil))
			if err != nil {
				t.Fatal(err)
			}
			open[i] = resp
		}
		if _, err := w.do(secure(t, "greeter", "GET", nil)); err != nil {
			t.Fatal(err)
		}
		w.put(at(b.addr)...)
		w.delete(a.addr)
		busy := int64(len(open))
		if h2 {
			busy = 1
		}
		wantOpen(t, a, busy)
		close(release)
		for _, resp := range open {
			if text, err := io.ReadAll(resp.Body); err != nil || string(text) != "x" {
				t.Errorf("got %q, %v", text, err)
			}
			_ = resp.Body.Close()
		}
		wantOpen(t, a, 0)
	}
}

// wantOpen waits until a server has n connections.
func wantOpen(t *testing.T, s *server, n int64) {
	t.Helper()
	servertest.Poll(t, "connections", func() error {
		if got := s.open.Load(); got != n {
			return fmt.Errorf("%d connections, want %d", got, n)
		}
		return nil
	})
}

// TestBodyIsTheSame: what is not a body, such as the one of a HEAD request, is as net/http
// has it.
func TestNoBody(t *testing.T) {
	s := serve(t, nil)
	w := newWorld(t, nil)
	w.put(at(s.addr)...)
	resp, err := w.RoundTrip(request(t, "HEAD", nil))
	if err != nil || resp.Body != http.NoBody || resp.ContentLength != int64(len(s.addr)) {
		t.Errorf("got %v, %v", resp, err)
	}
	if !strings.HasPrefix(resp.Proto, "HTTP/1.1") {
		t.Errorf("got %q", resp.Proto)
	}
}
