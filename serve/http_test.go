package serve_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptrace"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/internal/servertest"
	"github.com/naming-go/naming/serve"
)

// web is a server that RunHTTP runs.
type web struct {
	*testing.T
	diary  diary
	store  *memory.Store
	client *naming.Client
	server *http.Server
	lis    *notedListener
	opts   *serve.Options
	agent  *http.Client
	begun  chan struct{} // has a token for each request of /slow that has begun
	finish chan struct{} // lets the requests of /slow end
	cancel context.CancelFunc
	ended  chan error
}

// newWeb returns a server on real sockets, or in a bubble if p is not nil.
func newWeb(t *testing.T, p *pipes) *web {
	w := &web{T: t, store: new(memory.Store), server: new(http.Server), ended: make(chan error, 1), begun: make(chan struct{}, 100), finish: make(chan struct{})}
	accepts := make(chan struct{})
	w.client = naming.New(notedStore{w.store, &w.diary, accepts}, quiet)
	t.Cleanup(w.client.Close)
	transport := new(http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	var lis net.Listener
	if p != nil {
		lis, transport.DialContext = p.listen(), p.dial
	} else {
		lis = listen(t, "127.0.0.1:0")
	}
	w.agent = &http.Client{Transport: transport}
	w.lis = &notedListener{Listener: lis, diary: &w.diary, accepts: accepts, end: make(chan error)}
	w.server.Handler = http.HandlerFunc(w.handle)
	w.server.ErrorLog = log.New(io.Discard, "", 0)
	w.opts = &serve.Options{Register: &naming.RegisterOptions{DrainDelay: 50 * time.Millisecond}, Logger: quiet.Logger}
	return w
}

func (w *web) handle(rw http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/slow" {
		w.begun <- struct{}{}
		select {
		case <-w.finish:
		case <-r.Context().Done():
		}
	}
	_, _ = io.Copy(rw, r.Body)
}

func (w *web) run() {
	ctx, cancel := context.WithCancel(w.Context())
	w.cancel = cancel
	go func() { w.ended <- serve.RunHTTP(ctx, w.client, service, w.server, w.lis, w.opts) }()
}

// await waits until the registry has n endpoints.
func (w *web) await(n int) {
	w.Helper()
	(&site{T: w.T, client: w.client}).await(n)
}

func (w *web) end() error {
	w.Helper()
	select {
	case err := <-w.ended:
		return err
	case <-time.After(patience):
		w.Fatal("RunHTTP does not return")
		return nil
	}
}

// reply is what a client sees of an answer.
type reply struct {
	err    error
	closes bool // the server says that it closes the connection
	reused bool // the request was sent on a connection that had one before
	proto  int
}

// get sends a request.
func (w *web) get(path string) (r reply) {
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { r.reused = i.Reused }})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.lis.Addr().String()+path, nil)
	if err != nil {
		return reply{err: err}
	}
	resp, err := w.agent.Do(req)
	if err != nil {
		r.err = err
		return r
	}
	_, r.err = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	r.closes, r.proto = resp.Close, resp.ProtoMajor
	if r.err == nil && resp.StatusCode != 200 {
		r.err = errors.New(resp.Status)
	}
	return r
}

// slow begins a request that lasts until w.finish is closed.
func (w *web) slow() <-chan reply {
	w.Helper()
	done := make(chan reply, 1)
	go func() { done <- w.get("/slow") }()
	select {
	case <-w.begun:
	case <-time.After(patience):
		w.Fatal("the request does not begin")
	}
	return done
}

// TestHTTPOrder: the steps of a stop have the order in which no request fails.
func TestHTTPOrder(t *testing.T) {
	w := newWeb(t, nil)
	w.run()
	w.await(1)
	slow := w.slow()
	w.cancel()
	w.await(0)
	close(w.finish)
	if r := <-slow; r.err != nil {
		t.Errorf("the request in progress ended with %v", r.err)
	}
	if err := w.end(); err != nil {
		t.Error(err)
	}
	w.diary.want(t, "accepts", "Add", "Add draining", "Delete", "closes")
}

// TestHTTPStopWaits: a request in progress has StopTimeout to end after the endpoint was
// withdrawn.
func TestHTTPStopWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWeb(t, new(pipes))
		w.run()
		w.await(1)
		slow := w.slow()
		w.cancel()
		time.Sleep(9 * time.Second) // the default is 10 seconds
		w.await(0)
		if len(w.ended) > 0 || len(slow) > 0 {
			t.Error("RunHTTP or the request ended too soon")
		}
		close(w.finish)
		if r := <-slow; r.err != nil {
			t.Errorf("the request in progress ended with %v", r.err)
		}
		if err := w.end(); err != nil {
			t.Error(err)
		}
	})
}

func TestHTTPAcceptFails(t *testing.T) {
	w := newWeb(t, nil)
	w.run()
	w.await(1)
	slow := w.slow()
	broken := errors.New("the network card has melted")
	w.lis.end <- broken
	w.await(0)
	close(w.finish)
	if r := <-slow; r.err != nil {
		t.Errorf("the request in progress ended with %v", r.err)
	}
	if err := w.end(); !errors.Is(err, broken) {
		t.Errorf("RunHTTP returned %v", err)
	}
	w.diary.want(t, "accepts", "Add", "closes", "Add draining", "Delete")
}

func TestHTTPStoppedByOthers(t *testing.T) {
	w := newWeb(t, nil)
	w.run()
	w.await(1)
	if err := w.server.Close(); err != nil {
		t.Error(err)
	}
	if err := w.end(); err != nil {
		t.Error(err)
	}
	w.await(0)
}

// TestHTTPStoppedBefore: a server that does not serve is never registered.
func TestHTTPStoppedBefore(t *testing.T) {
	w := newWeb(t, nil)
	if err := w.server.Close(); err != nil {
		t.Error(err)
	}
	w.run()
	if err := w.end(); !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("RunHTTP returned %v", err)
	}
	w.diary.want(t, "closes")
}

func TestHTTPStopTimeout(t *testing.T) {
	for _, c := range []struct {
		timeout time.Duration
		want    error
	}{{10 * time.Millisecond, context.DeadlineExceeded}, {-1, nil}} {
		t.Run(c.timeout.String(), func(t *testing.T) {
			w := newWeb(t, nil)
			w.opts.StopTimeout = c.timeout
			w.run()
			w.await(1)
			slow := w.slow()
			w.cancel()
			if err := w.end(); !errors.Is(err, c.want) {
				t.Errorf("RunHTTP returned %v, want %v", err, c.want)
			}
			if r := <-slow; r.err == nil {
				t.Error("the request in progress was not cut off")
			}
		})
	}
}

func TestHTTPOfARegistryThatIsDown(t *testing.T) {
	w := newWeb(t, nil)
	w.store.Down(errors.New("down"))
	w.opts.Register.CloseTimeout = 100 * time.Millisecond
	w.run()
	<-w.lis.accepts
	if r := w.get("/"); r.err != nil {
		t.Error(r.err)
	}
	w.cancel()
	if err := w.end(); err != nil {
		t.Error(err) // nothing was put, so nothing is left
	}
	w.diary.want(t, "accepts", "closes")
}

// TestHTTPFollowsReady: a server that is not registered still serves. RunHTTP leaves the
// health service of another server alone.
func TestHTTPFollowsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWeb(t, new(pipes))
		c, h := newCheck(503), health.NewServer()
		w.opts.Ready, w.opts.Health = c, h
		w.run()
		for range 3 {
			time.Sleep(2 * time.Second)
			w.await(0)
			if r := w.get("/"); r.err != nil || r.closes {
				t.Errorf("%+v", r)
			}
			c.say(200)
			w.await(1)
			h.SetServingStatus("", notServing)
			w.await(0)
			h.SetServingStatus("", serving)
			w.await(1)
			c.say(503)
		}
		c.say(200)
		w.await(1)
		w.cancel()
		if err := w.end(); err != nil {
			t.Error(err)
		}
		if a, err := h.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil || a.Status != serving {
			t.Errorf("the health service says %v, %v", a, err)
		}
	})
}

// TestHTTPParting: in the second half of the drain delay every answer closes its
// connection, and a client with a fixed address gives its connection up before the server
// stops. Idle connections are closed after the removal.
func TestHTTPParting(t *testing.T) {
	for name, proto := range map[string]int{"HTTP/1.1": 1, "HTTP/2": 2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWeb(t, new(pipes))
				if proto == 2 {
					w.server.Protocols = new(http.Protocols)
					w.server.Protocols.SetUnencryptedHTTP2(true)
					w.agent.Transport.(*http.Transport).Protocols = w.server.Protocols
				}
				w.opts.Register.DrainDelay = 10 * time.Second
				w.run()
				w.await(1)
				check := func(closes, reused bool) {
					t.Helper()
					r := w.get("/")
					// An answer of HTTP/2 has no such header: the connection has a GOAWAY.
					if r.err != nil || r.reused != reused || r.proto != proto || proto == 1 && r.closes != closes {
						t.Errorf("%+v, want closes %v, reused %v", r, closes, reused)
					}
					synctest.Wait()
				}
				check(false, false)
				check(false, true)
				w.cancel()
				time.Sleep(4900 * time.Millisecond)
				check(false, true)
				time.Sleep(200 * time.Millisecond)
				check(true, true)
				check(true, false)
				check(true, false)
				time.Sleep(4800 * time.Millisecond)
				w.await(1)
				check(true, false)
				time.Sleep(200 * time.Millisecond)
				if err := w.end(); err != nil {
					t.Error(err)
				}
				w.diary.want(t, "accepts", "Add", "Add draining", "Delete", "closes")
			})
		})
	}
}

// TestHTTPPartingEarly: a CloseTimeout that cuts the drain delay moves its middle.
func TestHTTPPartingEarly(t *testing.T) {
	for _, o := range []naming.RegisterOptions{
		{DrainDelay: time.Hour, CloseTimeout: 9 * time.Second}, {}, {DrainDelay: 4500 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWeb(t, new(pipes))
			w.opts.Register = &o
			w.run()
			w.await(1)
			start := time.Now()
			w.cancel()
			half := time.Duration(0)
			for len(w.ended) == 0 {
				if r := w.get("/"); half == 0 && r.closes && r.err == nil {
					half = time.Since(start)
				}
				time.Sleep(10 * time.Millisecond)
			}
			whole := time.Since(start)
			if half < whole/2-50*time.Millisecond || half > whole/2+50*time.Millisecond {
				t.Errorf("%+v: answers close connections after %v of %v", o, half, whole)
			}
		})
	}
}

// TestHTTPHijacked: a connection that a handler took over is left to the handler, and an
// answer to an upgrade keeps its own headers.
func TestHTTPHijacked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(pipes)
		w := newWeb(t, p)
		w.opts.Register.DrainDelay = time.Minute
		w.server.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if c := rw.Header().Get("Connection"); c != "" {
				t.Errorf("an upgrade gets Connection: %s", c)
			}
			conn, buf, err := rw.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
			go func() { _, _ = io.Copy(conn, buf); conn.Close() }()
		})
		w.run()
		w.await(1)
		w.cancel()
		time.Sleep(45 * time.Second) // the server is parting
		conn, err := p.dial(t.Context(), "tcp", w.lis.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		r := bufio.NewReader(conn)
		for range 2 {
			if _, err := r.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.end(); err != nil {
			t.Error(err)
		}
		fmt.Fprintln(conn, "still here")
		if line, err := r.ReadString('\n'); line != "still here\n" {
			t.Errorf("the connection answers %q, %v", line, err)
		}
	})
}

// TestHTTPNeverServes: options and servers that could never work.
func TestHTTPNeverServes(t *testing.T) {
	for name, change := range map[string]func(*web){
		"wildcard":    func(w *web) { w.lis.Listener = listen(t, "[::]:0") },
		"certificate": func(w *web) { w.server.TLSConfig = new(tls.Config) },
		"client":      func(w *web) { w.client = nil },
		"metadata":    func(w *web) { w.opts.Metadata = []byte("{") },
		"ready":       func(w *web) { r := new(serve.Readiness); w.opts.Ready, w.opts.Readiness = r, r },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWeb(t, nil)
			change(w)
			w.run()
			if err := w.end(); !errors.Is(err, naming.ErrInvalid) {
				t.Errorf("RunHTTP returned %v", err)
			}
			w.diary.want(t, "closes")
		})
	}
}

// TestHTTPTLS: a server with a TLSConfig serves TLS and HTTP/2.
func TestHTTPTLS(t *testing.T) {
	w := newWeb(t, nil)
	ca := servertest.NewCA(t)
	pem := ca.Issue(t, "server", time.Hour)
	cert, err := tls.X509KeyPair(pem, pem)
	if err != nil {
		t.Fatal(err)
	}
	w.server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
	w.agent.Transport = &http.Transport{TLSClientConfig: ca.ClientConfig(t, "client"), ForceAttemptHTTP2: true}
	w.run()
	w.await(1)
	for range 2 {
		resp, err := w.agent.Get("https://" + w.lis.Addr().String() + "/")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.ProtoMajor != 2 {
			t.Errorf("the protocol is %s", resp.Proto)
		}
	}
	w.cancel()
	if err := w.end(); err != nil {
		t.Error(err)
	}
	w.diary.want(t, "accepts", "Add", "Add draining", "Delete", "closes")
}
