package httptransport_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/httptransport"
	"github.com/naming-go/naming/internal/servertest"
)

// TestClose: requests that wait for a set or a connection fail when the Transport is closed,
// and so do later ones. Requests in progress go on. In the end nothing is left: a bubble
// fails if a goroutine is.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		release := make(chan struct{})
		defer n.serve("a:1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-release
			_, _ = io.WriteString(w, "a")
		}))()
		inner := n.transport()
		inner.IdleConnTimeout = 0
		dial := inner.DialContext
		inner.DialContext = blackHole("b:1", dial)
		w := newWorld(t, &httptransport.Options{Transport: inner, ServiceOf: func(r *http.Request) string { return r.URL.Hostname() }})
		w.put(at("a:1")...)
		if err := w.client.Update(t.Context(), "hole", update("b:1")); err != nil {
			t.Fatal(err)
		}
		send := func(host string) chan error {
			done := make(chan error, 1)
			go func() {
				req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+host+"/", nil)
				text, err := w.do(req)
				if err == nil && text != "a" {
					err = fmt.Errorf("got %q", text)
				}
				done <- err
			}()
			synctest.Wait()
			return done
		}
		inProgress, dialing := send("greeter"), send("hole")
		w.store.Silence()
		waiting := send("other")
		if err := w.Transport.Close(); err != nil {
			t.Error(err)
		}
		for name, done := range map[string]chan error{"dialing": dialing, "waiting": waiting, "later": send("greeter"), "new": send("new")} {
			if err := <-done; !errors.Is(err, httptransport.ErrClosed) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		close(release)
		if err := <-inProgress; err != nil {
			t.Errorf("in progress: %v", err)
		}
		if err := w.Transport.Close(); err != nil {
			t.Error(err)
		}
		w.store.Speak()
	})
}

// blackHole returns a function that dials, and at one address waits for the end of the
// context.
func blackHole(addr string, dial dialFunc) dialFunc {
	return func(ctx context.Context, network, to string) (net.Conn, error) {
		if to == addr {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return dial(ctx, network, to)
	}
}

// TestIdleService: a service that was not used for ServiceIdleTime is released: its
// connections are closed, and its watch ends. A service in use stays.
func TestIdleService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var open atomic.Int64
		release := make(chan struct{})
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "a")
			if r.Method == "POST" {
				_ = http.NewResponseController(w).Flush()
				<-release
			}
		})
		defer n.serveCounted("a:1", h, &open)()
		w := newWorld(t, &httptransport.Options{Transport: n.transport(), ServiceIdleTime: time.Minute})
		w.put(at("a:1")...)
		resp, err := w.RoundTrip(request(t, "POST", nil))
		if err != nil {
			t.Fatal(err)
		}
		w.get()
		time.Sleep(time.Hour)
		w.get()
		if got := open.Load(); got != 2 {
			t.Errorf("%d connections of a service in use, want 2", got)
		}
		close(release)
		_, _ = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if got := open.Load(); got == 0 {
			t.Error("released too early")
		}
		time.Sleep(14 * time.Second)
		synctest.Wait()
		if got := open.Load(); got != 0 {
			t.Errorf("%d connections of a service that is not used", got)
		}
		if got := w.get(); got != "a" {
			t.Errorf("got %q", got)
		}
		w.CloseIdleConnections()
	})
}

// TestMaxServices: names that nobody registered cannot take more than MaxServices, and do
// not drive a service out that is used. While all are in use, another one fails.
func TestMaxServices(t *testing.T) {
	s := serve(t, nil)
	w := newWorld(t, &httptransport.Options{MaxServices: 3})
	w.put(at(s.addr)...)
	get := func(name string) error {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+name+"/", nil)
		_, err := w.do(req)
		return err
	}
	w.get()
	for i := range 100 {
		if err := get(fmt.Sprint("made-up-", i)); !errors.Is(err, httptransport.ErrNoEndpoints) {
			t.Fatalf("got %v", err)
		}
	}
	w.get()
	if n := s.conns.Load(); n != 1 {
		t.Errorf("%d connections, want 1: the service was released", n)
	}
	// Three services in use.
	for _, name := range []string{"one", "two", "greeter"} {
		if err := w.client.Update(t.Context(), name, update(s.addr)); err != nil {
			t.Fatal(err)
		}
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+name+"/", nil)
		resp, err := w.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
	}
	if err := get("four"); err == nil || !strings.Contains(err.Error(), "MaxServices") || !strings.Contains(err.Error(), `"four"`) {
		t.Errorf("got %v", err)
	}
}

// TestConcurrent: requests, changes of the set, dead endpoints and Close at the same time do
// no harm. No request fails, and nothing is left.
func TestConcurrent(t *testing.T) {
	before := runtime.NumGoroutine()
	w := newWorld(t, nil)
	var servers []*server
	for range 4 {
		s := serve(t, echo)
		servers = append(servers, s)
		w.put(at(s.addr)...)
	}
	stop := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			s := servers[1+i%3]
			switch rand.IntN(4) {
			case 0:
				w.put(naming.Endpoint{Addr: s.addr, Draining: true})
			case 1:
				w.delete(s.addr)
			default:
				w.put(weighing(s.addr, fmt.Sprintf(`{"weight":%d}`, 1+i%3)))
			}
			runtime.Gosched()
		}
	})
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for i := range 100 {
				method := []string{"GET", "POST"}[i%2]
				if text, err := w.do(request(t, method, newBody("x"))); err != nil || text != method+" x" {
					t.Errorf("got %q, %v", text, err)
				}
			}
		})
	}
	callers.Wait()
	close(stop)
	work.Wait()
	_ = w.Transport.Close()
	w.client.Close()
	for _, s := range servers {
		s.Close()
	}
	servertest.Poll(t, "goroutines", func() error {
		if n := runtime.NumGoroutine(); n > before {
			return fmt.Errorf("%d goroutines, want %d", n, before)
		}
		return nil
	})
}
