package httptransport_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming/httptransport"
)

// echo is a handler that answers with the method and the body of the request.
func echo(w http.ResponseWriter, r *http.Request) {
	text, _ := io.ReadAll(r.Body)
	_, _ = io.WriteString(w, r.Method+" "+string(text))
}

// TestRetryOfDials: a request for which no connection could be made goes to another
// endpoint, whatever its method is, with the whole body, which is closed once.
func TestRetryOfDials(t *testing.T) {
	for range 4 { // the first choice is random
		s := serve(t, echo)
		w := newWorld(t, nil)
		w.put(at(refusing(t), s.addr)...)
		for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
			b := newBody("hello")
			if text, err := w.do(request(t, method, b)); err != nil || text != method+" hello" {
				t.Errorf("%s: got %q, %v", method, text, err)
			}
			<-b.closed
			if b.count() != 1 {
				t.Errorf("%s: the body was closed %d times", method, b.count())
			}
			if text, err := w.do(request(t, method, strings.NewReader("again"))); err != nil || text != method+" again" {
				t.Errorf("%s: got %q, %v", method, text, err)
			}
		}
	}
}

// TestRetryOfBrokenConnections: a request whose connection broke before the response goes to
// another endpoint exactly if net/http calls it replayable.
func TestRetryOfBrokenConnections(t *testing.T) {
	key := http.Header{"Idempotency-Key": nil}
	for name, c := range map[string]struct {
		method  string
		header  http.Header
		body    func() io.Reader
		retried bool
	}{
		"GET":                   {method: "GET", retried: true},
		"no method":             {method: "", retried: true},
		"HEAD":                  {method: "HEAD", retried: true},
		"GET with bytes":        {method: "GET", body: func() io.Reader { return bytes.NewReader([]byte("x")) }, retried: true},
		"GET with a stream":     {method: "GET", body: func() io.Reader { return newBody("x") }},
		"POST":                  {method: "POST"},
		"POST with bytes":       {method: "POST", body: func() io.Reader { return strings.NewReader("x") }},
		"POST with a key":       {method: "POST", header: key, body: func() io.Reader { return strings.NewReader("x") }, retried: true},
		"POST with an x-key":    {method: "POST", header: http.Header{"X-Idempotency-Key": {"1"}}, retried: true},
		"POST, a key, a stream": {method: "POST", header: key, body: func() io.Reader { return newBody("x") }},
		"PUT":                   {method: "PUT"},
		"DELETE":                {method: "DELETE"},
	} {
		t.Run(name, func(t *testing.T) {
			var handled atomic.Int64
			handler := func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				if handled.Add(1) == 1 {
					panic(http.ErrAbortHandler)
				}
			}
			a, b := serve(t, handler), serve(t, handler)
			w := newWorld(t, nil)
			w.put(at(a.addr, b.addr)...)
			var body io.Reader
			if c.body != nil {
				body = c.body()
			}
			req := request(t, c.method, body)
			req.Method = c.method
			for k, v := range c.header {
				req.Header[k] = v
			}
			_, err := w.do(req)
			want := int64(1)
			if c.retried {
				want = 2
			}
			if (err == nil) != c.retried || handled.Load() != want {
				t.Errorf("got %v after %d requests, want %d", err, handled.Load(), want)
			}
			if c.retried && (a.requests.Load() != 1 || b.requests.Load() != 1) {
				t.Errorf("the endpoints got %d and %d requests", a.requests.Load(), b.requests.Load())
			}
		})
	}
}

// TestRetryOfReusedConnections: a request on an idle connection of a server that has gone
// goes to another endpoint. net/http finds out that the connection is dead, and cannot dial.
func TestRetryOfReusedConnections(t *testing.T) {
	for range 5 {
		a, b := serve(t, nil), serve(t, nil)
		w := newWorld(t, nil)
		w.put(at(a.addr, b.addr)...)
		w.spread(4)
		a.CloseClientConnections()
		a.Close()
		if got := w.spread(4); got[b.addr] != 4 {
			t.Errorf("got %v", got)
		}
	}
}

// TestNoRetryAfterResponse: a response is the end, whatever its status is, and also if its
// body breaks off.
func TestNoRetryAfterResponse(t *testing.T) {
	for _, status := range []int{200, 429, 500, 502, 503, 504} {
		handler := func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "10")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		a, b := serve(t, handler), serve(t, handler)
		w := newWorld(t, nil)
		w.put(at(a.addr, b.addr)...)
		resp, err := w.RoundTrip(request(t, "GET", nil))
		if err != nil || resp.StatusCode != status {
			t.Fatalf("got %v, %v", resp, err)
		}
		if _, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the body: %v", err)
		}
		_ = resp.Body.Close()
		if n := a.requests.Load() + b.requests.Load(); n != 1 {
			t.Errorf("%d requests", n)
		}
	}
}

// TestNoRetryAfterTimeout: a request that timed out may be in progress, and is not sent
// again: neither after a timeout of the http.Transport nor after the end of its context.
func TestNoRetryAfterTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var requests atomic.Int64
		slow := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			select {
			case <-r.Context().Done():
			case <-time.After(time.Minute):
			}
		})
		n := newNetwork()
		defer n.serve("a:1", slow)()
		defer n.serve("b:1", slow)()
		inner := n.transport()
		inner.ResponseHeaderTimeout = time.Second
		w := newWorld(t, &httptransport.Options{Transport: inner})
		w.put(at("a:1", "b:1")...)
		_, err := w.do(request(t, "GET", nil))
		if timeout, ok := err.(interface{ Timeout() bool }); !ok || !timeout.Timeout() {
			t.Errorf("got %v, want a timeout", err)
		}
		if n := requests.Load(); n != 1 {
			t.Errorf("%d requests", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if _, err := w.do(request(t, "GET", nil).WithContext(ctx)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if n := requests.Load(); n != 2 {
			t.Errorf("%d requests", n)
		}
		time.Sleep(2 * time.Minute)
	})
}

// TestNoRetryAfterCancel: a request that was canceled is not sent to another endpoint,
// although its connection broke as well.
func TestNoRetryAfterCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	handler := func(w http.ResponseWriter, r *http.Request) {
		cancel()
		panic(http.ErrAbortHandler)
	}
	a, b := serve(t, handler), serve(t, handler)
	w := newWorld(t, nil)
	w.put(at(a.addr, b.addr)...)
	if _, err := w.do(request(t, "GET", nil).WithContext(ctx)); err == nil {
		t.Error("no error")
	}
	if n := a.requests.Load() + b.requests.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// endingContext is a context that has ended before anybody who waits for it knows.
type endingContext struct {
	context.Context
	ended atomic.Bool
}

func (c *endingContext) Err() error {
	if c.ended.Load() {
		return context.Canceled
	}
	return nil
}

// TestNoRetryAfterCancelWhileDialing: a dial that fails after the end of the context is the
// end as well, although nothing was sent.
func TestNoRetryAfterCancelWhileDialing(t *testing.T) {
	ctx := &endingContext{Context: t.Context()}
	w := newWorld(t, &httptransport.Options{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		ctx.ended.Store(true)
		return nil, errors.New("refused")
	}}})
	w.put(at("a:1", "b:1")...)
	req := request(t, "POST", newBody("x")).WithContext(ctx)
	req.GetBody = func() (io.ReadCloser, error) {
		t.Error("another attempt")
		return newBody("x"), nil
	}
	if _, err := w.do(req); err == nil {
		t.Error("no error")
	}
}

// TestMaxAttempts: a request is sent to MaxAttempts endpoints at most, and to each once. The
// error names the service and an endpoint.
func TestMaxAttempts(t *testing.T) {
	for max, want := range map[int]int64{0: 3, 1: 1, -1: 1, 2: 2, 9: 4} {
		var servers []*server
		w := newWorld(t, &httptransport.Options{MaxAttempts: max})
		for range 4 {
			s := serve(t, breaks)
			servers = append(servers, s)
			w.put(at(s.addr)...)
		}
		_, err := w.do(request(t, "GET", nil))
		if !errors.Is(err, io.EOF) || !strings.Contains(err.Error(), `"greeter"`) || !strings.Contains(err.Error(), "127.0.0.1:") {
			t.Errorf("got %v", err)
		}
		var n int64
		for _, s := range servers {
			if r := s.requests.Load(); r > 1 {
				t.Errorf("an endpoint got %d requests", r)
			}
			n += s.requests.Load()
		}
		if n != want {
			t.Errorf("MaxAttempts %d: %d requests, want %d", max, n, want)
		}
	}
}

// TestFailuresCloseTheBody: the body is closed once, also if no endpoint can be reached.
func TestFailuresCloseTheBody(t *testing.T) {
	broken := serve(t, breaks)
	for name, addrs := range map[string][]string{
		"one refuses": {refusing(t)},
		"all refuse":  {refusing(t), refusing(t), refusing(t), refusing(t)},
		"broken":      {broken.addr},
		"one of each": {refusing(t), broken.addr},
	} {
		w := newWorld(t, nil)
		w.put(at(addrs...)...)
		b := newBody("x")
		if _, err := w.do(request(t, "POST", b)); err == nil {
			t.Errorf("%s: no error", name)
		}
		<-b.closed
		if n := b.count(); n != 1 {
			t.Errorf("%s: the body was closed %d times", name, n)
		}
	}
}

// TestBodyOfRetriedRequest: an attempt that has ended cannot read the body of the next one.
// GetBody that fails is the end.
func TestGetBodyFails(t *testing.T) {
	w := newWorld(t, nil)
	w.put(at(refusing(t), refusing(t))...)
	req := request(t, "POST", newBody("x"))
	no := errors.New("no body")
	req.GetBody = func() (io.ReadCloser, error) { return nil, no }
	if _, err := w.do(req); !errors.Is(err, no) {
		t.Errorf("got %v", err)
	}
}

// TestAvoid: an endpoint that cannot be dialed is avoided while there are others, for a time
// that grows. Then one request tries the endpoint. A response ends all that.
func TestAvoid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		defer n.serve("a:1", saying("a"))()
		w := newWorld(t, &httptransport.Options{Transport: n.transport()})
		w.put(at("a:1", "b:1")...)
		w.spread(10)
		if got := n.dialed("b:1"); got != 1 {
			t.Errorf("b was dialed %d times", got)
		}
		const step = 100 * time.Millisecond
		var waits []time.Duration
		began := time.Now()
		for dials, last := 1, began; dials < 11; {
			if time.Since(began) > 10*time.Minute {
				t.Fatalf("b was dialed %d times", dials)
			}
			time.Sleep(step)
			w.spread(2)
			if got := n.dialed("b:1"); got != dials {
				if got != dials+1 {
					t.Fatalf("b was dialed %d times, not %d", got, dials+1)
				}
				waits = append(waits, time.Since(last))
				dials, last = got, time.Now()
			}
		}
		want := time.Second
		for i, d := range waits {
			if d < want*8/10-2*step || d > want*12/10+2*step {
				t.Errorf("wait %d was %v, want %v", i, d, want)
			}
			want = min(want*16/10, 30*time.Second)
		}
		stop := n.serve("b:1", saying("b"))
		time.Sleep(time.Minute)
		w.spread(1)
		if got := w.spread(40); got["b"] < 15 {
			t.Errorf("got %v after b was back", got)
		}
		stop()
		w.CloseIdleConnections()
		dials := n.dialed("b:1")
		w.spread(10)
		time.Sleep(1300 * time.Millisecond)
		w.spread(10)
		if got := n.dialed("b:1"); got != dials+2 {
			t.Errorf("b was dialed %d times after it had been back, want 2", got-dials)
		}
		w.CloseIdleConnections()
	})
}

// TestAllAvoided: if no endpoint can be dialed, all are tried anyway, and the first one that
// is back is found.
func TestAllAvoided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		w := newWorld(t, &httptransport.Options{Transport: n.transport()})
		w.put(at("a:1", "b:1")...)
		for range 5 {
			if _, err := w.do(request(t, "GET", nil)); err == nil {
				t.Fatal("no error")
			}
		}
		if a, b := n.dialed("a:1"), n.dialed("b:1"); a != 5 || b != 5 {
			t.Errorf("a was dialed %d times, b %d times", a, b)
		}
		defer n.serve("b:1", saying("b"))()
		if got := w.spread(10); got["b"] != 10 {
			t.Errorf("got %v", got)
		}
		w.CloseIdleConnections()
	})
}
