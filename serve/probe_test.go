package serve_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/serve"
)

// check is a readiness check that answers what the test sets.
type check struct {
	answer atomic.Pointer[http.HandlerFunc]
	calls  atomic.Int64
	inside atomic.Int64 // calls that have not returned
}

func newCheck(status int) *check {
	c := new(check)
	c.say(status)
	return c
}

func (c *check) does(f http.HandlerFunc) { c.answer.Store(&f) }

func (c *check) say(status int) {
	c.does(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
}

func (c *check) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.calls.Add(1)
	c.inside.Add(1)
	defer c.inside.Add(-1)
	(*c.answer.Load())(w, r)
}

// countedStore counts the calls of Apply.
type countedStore struct {
	*memory.Store
	applied atomic.Int64
}

func (s *countedStore) Apply(ctx context.Context, service string, changes ...naming.Change) error {
	s.applied.Add(1)
	return s.Store.Apply(ctx, service, changes...)
}

// lockedBuffer is a strings.Builder for concurrent writers.
type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.Reset()
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// ready is a world whose endpoint follows a check.
type ready struct {
	*world
	check *check
	store *countedStore
	log   lockedBuffer
}

// whileReady runs Announce with a check, and test beside it, in a bubble.
func whileReady(t *testing.T, status int, change func(*serve.Options), test func(w *ready)) {
	synctest.Test(t, func(t *testing.T) {
		s := &countedStore{Store: new(memory.Store)}
		w := &ready{check: newCheck(status), store: s}
		w.world = &world{T: t, store: s.Store, client: naming.New(s, quiet), ended: make(chan error, 1)}
		defer w.client.Close()
		w.opts = &serve.Options{Addr: addr, Ready: w.check, Logger: slog.New(slog.NewTextHandler(&w.log, nil))}
		if change != nil {
			change(w.opts)
		}
		ctx, cancel := context.WithCancel(t.Context())
		w.cancel = cancel
		go func() { w.ended <- serve.Announce(ctx, w.client, service, w.opts) }()
		test(w)
		cancel()
		<-w.ended
	})
}

// TestFollowsReady: the endpoint is in the registry exactly while the check answers 2xx.
func TestFollowsReady(t *testing.T) {
	whileReady(t, 503, nil, func(w *ready) {
		w.is("")
		time.Sleep(time.Hour)
		w.is("")
		for _, ok := range []int{200, 204, 299} {
			w.check.say(ok)
			time.Sleep(time.Second)
			w.is("here")
			time.Sleep(time.Hour)
			w.is("here")
			for _, bad := range []int{500, 404, 302, 199} {
				w.check.say(bad)
				time.Sleep(time.Second)
				if bad == 199 { // an informational status is followed by a 200
					w.is("here")
					continue
				}
				w.is("draining")
				time.Sleep(time.Second)
				w.is("")
				w.check.say(ok)
				time.Sleep(time.Second)
				w.is("here")
			}
		}
		w.cancel()
		w.is("draining")
		if calls := w.check.calls.Load(); calls < 3*3600 || calls > 5*3600 {
			t.Errorf("%d calls in four hours and a little, want one a second", calls)
		}
	})
}

// TestReadyThatFails: whatever the check does, the endpoint leaves, and the next answer
// counts.
func TestReadyThatFails(t *testing.T) {
	for name, f := range map[string]http.HandlerFunc{
		"panic":   func(http.ResponseWriter, *http.Request) { panic("lost my mind") },
		"abort":   func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"late":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200); panic("lost my mind") },
		"goexit":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200); runtime.Goexit() },
		"hang":    func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"endless": func(w http.ResponseWriter, r *http.Request) { pour(r.Context(), w) },
		"status":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(-7) },
		"long":    func(w http.ResponseWriter, _ *http.Request) { http.Error(w, strings.Repeat("x", 1<<20), 500) },
		"lines":   func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "\x1b[2J\nevil=1", 500) },
	} {
		t.Run(name, func(t *testing.T) {
			whileReady(t, 200, nil, func(w *ready) {
				w.is("here")
				w.check.does(f)
				time.Sleep(4 * time.Second)
				w.is("")
				if log := w.log.String(); strings.Count(log, "not ready") != 1 || strings.Contains(log, "\x1b") || len(log) > 1000 {
					t.Errorf("the log is %q", log)
				}
				w.check.say(200)
				time.Sleep(3 * time.Second)
				w.is("here")
			})
		})
	}
}

// pour writes a body until ctx is done. Time passes, or a bubble's clock would stand still.
func pour(ctx context.Context, w io.Writer) {
	block := make([]byte, 1<<20)
	for ctx.Err() == nil {
		_, _ = w.Write(block)
		time.Sleep(10 * time.Millisecond)
	}
	panic("cut off")
}

// TestReadyThatIgnoresItsContext: a check that hangs holds one goroutine. Its late answer
// does not count, and the next call begins after its end.
func TestReadyThatIgnoresItsContext(t *testing.T) {
	whileReady(t, 200, nil, func(w *ready) {
		w.is("here")
		release := make(chan int)
		w.check.does(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(<-release) })
		time.Sleep(time.Hour)
		w.is("")
		if inside := w.check.inside.Load(); inside != 1 {
			t.Errorf("%d calls at the same time, want 1", inside)
		}
		calls := w.check.calls.Load()
		w.check.say(503)
		release <- 200
		time.Sleep(time.Minute)
		w.is("")
		if w.check.calls.Load() == calls {
			t.Error("the check is not called again")
		}
		w.check.does(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(<-release) })
		time.Sleep(time.Minute)
		w.cancel()
		if err := <-w.ended; err != nil { // while the check hangs
			t.Error(err)
		}
		w.ended <- nil
		release <- 200
	})
}

// TestReadyFlaps: a check that changes its mind all the time costs the registry one change
// in ReadyEvery at most.
func TestReadyFlaps(t *testing.T) {
	for _, every := range []time.Duration{10 * time.Millisecond, 0, 5 * time.Second} {
		t.Run(every.String(), func(t *testing.T) {
			change := func(o *serve.Options) {
				o.ReadyEvery = every
				o.Register = &naming.RegisterOptions{DrainDelay: -1}
			}
			whileReady(t, 200, change, func(w *ready) {
				var n atomic.Int64
				w.check.does(func(w http.ResponseWriter, _ *http.Request) {
					w.WriteHeader([]int{200, 503}[n.Add(1)%2])
				})
				const looks = 1000
				if every == 0 {
					every = serve.DefaultReadyEvery
				}
				time.Sleep(looks * every)
				synctest.Wait()
				if applied := w.store.applied.Load(); applied > looks+2 || applied < looks/2 {
					t.Errorf("%d changes in %d times ReadyEvery", applied, looks)
				}
				if calls := w.check.calls.Load(); calls > looks+2 {
					t.Errorf("%d calls in %d times ReadyEvery", calls, looks)
				}
			})
		})
	}
}

// TestReadyAndHealth: both have to agree.
func TestReadyAndHealth(t *testing.T) {
	h := health.NewServer()
	h.SetServingStatus("", notServing)
	whileReady(t, 200, func(o *serve.Options) { o.Health = h }, func(w *ready) {
		w.is("")
		h.SetServingStatus("", serving)
		w.is("here")
		w.check.say(503)
		time.Sleep(3 * time.Second)
		w.is("")
		h.SetServingStatus("", notServing)
		w.check.say(200)
		time.Sleep(3 * time.Second)
		w.is("")
		h.SetServingStatus("", serving)
		w.is("here")
		h.SetServingStatus("", notServing)
		w.is("draining")
	})
}

// TestReadyRequest: the check gets a request like that of a server.
func TestReadyRequest(t *testing.T) {
	whileReady(t, 200, nil, func(w *ready) {
		var wrong atomic.Value
		mux := http.NewServeMux()
		mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if _, ok := r.Context().Deadline(); !ok || len(body) > 0 || err != nil || r.RemoteAddr == "" || r.Host == "" {
				wrong.Store(fmt.Sprintf("%+v", r))
			}
			_, _ = io.WriteString(w, strings.Repeat("well ", 1000))
			w.(http.Flusher).Flush()
		})
		w.check.does(mux.ServeHTTP)
		time.Sleep(3 * time.Second)
		w.is("here")
		if why := wrong.Load(); why != nil {
			t.Error("the check was asked with ", why)
		}
	})
}

// TestReadinessLoop: an endpoint that waits for itself would never be registered. That is
// an error, and not a silence.
func TestReadinessLoop(t *testing.T) {
	var r, other serve.Readiness
	mux := http.NewServeMux()
	mux.Handle("/", &r)
	for name, o := range map[string]*serve.Options{
		"ready":           {Ready: &r, Readiness: &r},
		"health":          {Health: r.Health(), Readiness: &r},
		"ready in a mux":  {Ready: mux, Readiness: &r},
		"wrapped health":  {Health: wrappedHealth{r.Health()}, Readiness: &r},
		"both":            {Ready: &other, Health: r.Health(), Readiness: &r},
		"too often":       {Ready: &other, ReadyEvery: 1},
		"less than never": {Ready: &other, ReadyEvery: -time.Second},
		"too seldom":      {Ready: &other, ReadyEvery: 1000 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := naming.New(new(memory.Store), quiet)
				defer c.Close()
				o.Addr, o.Logger = addr, quiet.Logger
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				if err := serve.Announce(ctx, c, service, o); !errors.Is(err, naming.ErrInvalid) || ctx.Err() != nil {
					t.Errorf("Announce returned %v, after an hour: %v", err, ctx.Err())
				}
			})
		})
	}
	// The readiness of another server is a check like any other.
	whileReady(t, 200, func(o *serve.Options) { o.Ready, o.Readiness = &other, &r }, func(w *ready) {
		w.is("")
		ctx, cancel := context.WithCancel(w.Context())
		done := make(chan error)
		go func() { done <- serve.Announce(ctx, w.client, "other", &serve.Options{Addr: addr, Readiness: &other}) }()
		time.Sleep(3 * time.Second)
		w.is("here")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		time.Sleep(3 * time.Second)
		w.is("")
	})
}

type wrappedHealth struct{ healthpb.HealthServer }

// TestReadinessHealth: the gRPC health service of a Readiness.
func TestReadinessHealth(t *testing.T) {
	var r serve.Readiness
	whileReady(t, 503, func(o *serve.Options) { o.Readiness = &r }, func(w *ready) {
		h := r.Health()
		ctx, cancel := context.WithCancel(w.Context())
		stream, unknown := &healthUpdates{ctx: ctx}, &healthUpdates{ctx: ctx}
		watched := make(chan error, 2)
		go func() { watched <- h.Watch(&healthpb.HealthCheckRequest{}, stream) }()
		go func() { watched <- h.Watch(&healthpb.HealthCheckRequest{Service: "x"}, unknown) }()
		for _, c := range []struct {
			answer int
			want   healthpb.HealthCheckResponse_ServingStatus
		}{{503, notServing}, {200, serving}, {500, notServing}, {200, serving}} {
			w.check.say(c.answer)
			time.Sleep(3 * time.Second)
			got, err := h.Check(ctx, &healthpb.HealthCheckRequest{})
			list, lerr := h.List(ctx, &healthpb.HealthListRequest{})
			if err != nil || lerr != nil || got.Status != c.want || list.Statuses[""].Status != c.want || len(list.Statuses) != 1 {
				t.Errorf("%v %v, %v %v; want %v", got, err, list, lerr, c.want)
			}
		}
		if _, err := h.Check(ctx, &healthpb.HealthCheckRequest{Service: "x"}); err == nil {
			t.Error("the service x is known")
		}
		time.Sleep(time.Hour)
		cancel()
		for range 2 {
			if err := <-watched; err == nil {
				t.Error("a watch ended without an error")
			}
		}
		stream.want(t, notServing, serving, notServing, serving)
		unknown.want(t, healthpb.HealthCheckResponse_SERVICE_UNKNOWN)
	})
}

// healthUpdates is the stream of a Watch.
type healthUpdates struct {
	grpc.ServerStream
	ctx context.Context
	mu  sync.Mutex
	got []healthpb.HealthCheckResponse_ServingStatus // guarded by mu
}

func (s *healthUpdates) Context() context.Context { return s.ctx }

func (s *healthUpdates) Send(r *healthpb.HealthCheckResponse) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, r.Status)
	return nil
}

func (s *healthUpdates) want(t *testing.T, want ...healthpb.HealthCheckResponse_ServingStatus) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if fmt.Sprint(s.got) != fmt.Sprint(want) {
		t.Errorf("the watch sent %v, want %v", s.got, want)
	}
}
