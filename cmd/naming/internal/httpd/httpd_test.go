package httpd

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener of connections in memory, whose time is that of a bubble.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// dial returns the client's end of a new connection.
func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.conns <- server
	return client
}

// serve serves a handler in a bubble. stop ends the server and checks its error.
func serve(t *testing.T, h http.HandlerFunc) (lis *pipes, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	lis = newPipes()
	done := make(chan error)
	go func() { done <- Serve(ctx, lis, h) }()
	return lis, func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve returned %v", err)
		}
	}
}

func TestSlowReaderIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		lis, stop := serve(t, func(w http.ResponseWriter, r *http.Request) {
			var err error
			for err == nil && r.Context().Err() == nil {
				_, err = w.Write(make([]byte, 64<<10))
			}
			ended <- err
		})
		defer stop()
		conn := lis.dial()
		defer conn.Close()
		begin := time.Now()
		if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err == nil || time.Since(begin) > WriteTimeout {
			t.Fatalf("a client that reads nothing is dropped after %v with %v, want at most %v", time.Since(begin), err, WriteTimeout)
		}
	})
}

func TestSlowRequestIsDropped(t *testing.T) {
	for name, request := range map[string]string{
		"header": "GET / HTTP/1.1\r\nHost: loc",
		"body":   "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lis, stop := serve(t, func(w http.ResponseWriter, r *http.Request) {
					_, _ = r.Body.Read(make([]byte, 1))
					_, _ = r.Body.Read(make([]byte, 10))
				})
				defer stop()
				conn := lis.dial()
				defer conn.Close()
				begin := time.Now()
				if _, err := conn.Write([]byte(request)); err != nil {
					t.Fatal(err)
				}
				for err := error(nil); err == nil; {
					_, err = conn.Read(make([]byte, 1<<10))
				}
				if took := time.Since(begin); took < readTimeout || took > 2*readTimeout {
					t.Fatalf("the connection ended after %v, want about %v", took, readTimeout)
				}
			})
		})
	}
}

func TestStreamOutlivesAllTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lis, stop := serve(t, func(w http.ResponseWriter, r *http.Request) {
			count := 0
			_ = NewStream(w, r).Run(r.Context(), time.Minute, func(ctx context.Context, w *bufio.Writer) error {
				if count++; count == 3 {
					return WriteEvent(w, "change", "run-1", []byte(`{}`))
				}
				<-ctx.Done()
				return ctx.Err()
			})
		})
		conn := lis.dial()
		defer conn.Close()
		if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for !strings.Contains(got.String(), "data") {
			b := make([]byte, 1<<10)
			n, err := conn.Read(b)
			got.Write(b[:n])
			if err != nil {
				t.Fatalf("%v after %q", err, &got)
			}
		}
		for _, want := range []string{"text/event-stream", "retry: 1000", ":\n\n", "id: run-1\nevent: change\ndata: {}\n\n"} {
			if !strings.Contains(got.String(), want) {
				t.Errorf("the stream has no %q: %q", want, &got)
			}
		}
		begin := time.Now()
		go func() {
			for err := error(nil); err == nil; {
				_, err = conn.Read(make([]byte, 1<<10))
			}
		}()
		if stop(); time.Since(begin) > stopTimeout {
			t.Errorf("the server has stopped after %v, though all streams end", time.Since(begin))
		}
	})
}

func TestServeReturnsTheErrorOfTheListener(t *testing.T) {
	lis := newPipes()
	lis.Close()
	if err := Serve(t.Context(), lis, http.NotFoundHandler()); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("got %v, want ErrClosed", err)
	}
}

func TestCheckHost(t *testing.T) {
	h := CheckHost(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), "dev.example")
	for host, ok := range map[string]bool{
		"localhost": true, "LOCALHOST:80": true, "127.0.0.1:80": true, "127.9.9.9": true, "[::1]:80": true, "[::1]": true, "dev.example:80": true,
		"": false, "evil.example": false, "localhost.evil.example": false, "10.0.0.1": false, "127.0.0.1.nip.io:80": false, "dev.example.evil": false, "[::1].evil": false,
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); (w.Code == http.StatusOK) != ok {
			t.Errorf("the host %q has the status %d", host, w.Code)
		}
	}
}

func TestCheckHostOrIP(t *testing.T) {
	h := CheckHostOrIP(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), "dev.example")
	for host, ok := range map[string]bool{
		"localhost": true, "10.0.0.1:80": true, "[fe80::1]:80": true, "dev.example": true, "": false, "evil.example:80": false, "10.0.0.1.nip.io": false,
	} {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); (w.Code == http.StatusOK) != ok {
			t.Errorf("the host %q has the status %d", host, w.Code)
		}
	}
}

func TestAcceptsGzip(t *testing.T) {
	for header, want := range map[string]bool{
		"gzip": true, "br, gzip": true, "GZIP;q=0.5": true, "gzip; q=1.000": true, "": false, "br": false, "gzip;q=0": false, "gzip; q=0.000": false, "x-gzip-not": false,
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Accept-Encoding", header)
		if got := acceptsGzip(r); got != want {
			t.Errorf("acceptsGzip(%q) = %v, want %v", header, got, want)
		}
	}
}
