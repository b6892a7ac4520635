package httptransport_test

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/httptransport"
	"github.com/naming-go/naming/resolver"
)

// world is a registry in memory with a Transport.
type world struct {
	testing.TB
	store  *memory.Store
	client *naming.Client
	*httptransport.Transport
}

func newWorld(t testing.TB, opts *httptransport.Options) *world {
	t.Helper()
	w := &world{TB: t, store: new(memory.Store)}
	quiet := slog.New(slog.DiscardHandler)
	w.client = naming.New(w.store, &naming.Options{Logger: quiet})
	w.Transport = httptransport.New(resolver.NewBuilder(w.client, &resolver.Options{Logger: quiet}), opts)
	t.Cleanup(func() {
		_ = w.Transport.Close()
		w.client.Close()
	})
	return w
}

// put puts endpoints of the service greeter.
func (w *world) put(endpoints ...naming.Endpoint) {
	w.Helper()
	for _, e := range endpoints {
		if e.ID == "" {
			e.ID = e.Addr
		}
		if err := w.store.Apply(context.Background(), "greeter", naming.Change{Endpoint: e}); err != nil {
			w.Fatal(err)
		}
	}
}

// delete deletes endpoints of the service greeter.
func (w *world) delete(ids ...string) {
	w.Helper()
	for _, id := range ids {
		if err := w.store.Apply(context.Background(), "greeter", naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: id}}); err != nil {
			w.Fatal(err)
		}
	}
}

// at returns endpoints at addresses.
func at(addrs ...string) (endpoints []naming.Endpoint) {
	for _, a := range addrs {
		endpoints = append(endpoints, naming.Endpoint{ID: a, Addr: a})
	}
	return endpoints
}

func weighing(addr, metadata string) naming.Endpoint {
	return naming.Endpoint{ID: addr, Addr: addr, Metadata: json.RawMessage(metadata)}
}

// request returns a request to http://greeter/.
func request(t testing.TB, method string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://greeter/", body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// get sends a GET request to http://greeter/ and returns the body of the response.
func (w *world) get() string {
	w.Helper()
	text, err := w.do(request(w, "GET", nil))
	if err != nil {
		w.Fatal(err)
	}
	return text
}

// do sends a request and returns the body of the response.
func (w *world) do(req *http.Request) (string, error) {
	w.Helper()
	resp, err := w.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// server is an HTTP server that counts its requests, and answers with its address.
type server struct {
	*httptest.Server
	addr     string
	requests atomic.Int64
	conns    atomic.Int64 // all that were accepted
	open     atomic.Int64 // connections
}

// serve starts a server. If handler is nil, it answers every request with its address.
func serve(t testing.TB, handler http.HandlerFunc) *server {
	t.Helper()
	s := newServer(t, handler)
	s.Start()
	s.addr = s.Listener.Addr().String()
	return s
}

func newServer(t testing.TB, handler http.HandlerFunc) *server {
	s := new(server)
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		if handler != nil {
			handler(w, r)
			return
		}
		_, _ = io.WriteString(w, s.addr)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			s.conns.Add(1)
			s.open.Add(1)
		case http.StateClosed, http.StateHijacked:
			s.open.Add(-1)
		}
	}
	t.Cleanup(s.Close)
	return s
}

// refusing returns an address that refuses connections.
func refusing(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	// The port stays ours: a listener without accept would not refuse.
	_ = l.Close()
	return addr
}

// breaks is a handler that reads the request and closes the connection without a response.
func breaks(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	panic(http.ErrAbortHandler)
}

// body is the body of a request that can be read once, and counts the calls of Close.
type body struct {
	io.Reader
	mu     sync.Mutex
	closes int           // guarded by mu
	closed chan struct{} // closed by the first Close
}

func newBody(text string) *body {
	return &body{Reader: strings.NewReader(text), closed: make(chan struct{})}
}

func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closes++
	if b.closes == 1 {
		close(b.closed)
	}
	return nil
}

func (b *body) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closes
}

// dialFunc is the type of http.Transport's DialContext.
type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// network is a network in memory, for bubbles. An address without a server refuses
// connections.
type network struct {
	mu    sync.Mutex
	lis   map[string]*listener // guarded by mu
	dials map[string]int       // guarded by mu
}

func newNetwork() *network {
	return &network{lis: make(map[string]*listener), dials: make(map[string]int)}
}

// transport returns an http.Transport on the network.
func (n *network) transport() *http.Transport { return &http.Transport{DialContext: n.dial} }

func (n *network) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	n.dials[addr]++
	l := n.lis[addr]
	n.mu.Unlock()
	if l == nil {
		return nil, &net.OpError{Op: "dial", Err: io.ErrNoProgress}
	}
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "dial", Err: net.ErrClosed}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// dialed returns how often an address was dialed.
func (n *network) dialed(addr string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials[addr]
}

// serve starts a server. The function that it returns stops the server, and waits.
func (n *network) serve(addr string, h http.Handler) (stop func()) {
	return n.serveCounted(addr, h, new(atomic.Int64))
}

// serveCounted is serve that counts the open connections.
func (n *network) serveCounted(addr string, h http.Handler, open *atomic.Int64) (stop func()) {
	l := &listener{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
	n.mu.Lock()
	n.lis[addr] = l
	n.mu.Unlock()
	s := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0), ConnState: func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}}
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(l) })
	return sync.OnceFunc(func() {
		n.mu.Lock()
		delete(n.lis, addr)
		n.mu.Unlock()
		_ = s.Close()
		wg.Wait()
	})
}

// listener is a net.Listener of a network.
type listener struct {
	addr   string
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: l.addr, Net: "pipe"} }

// saying is a handler that answers with a text.
type saying string

func (s saying) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, string(s))
}
