package serve_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/serve"
)

// Tests in this file serve on loopback, and wait for events.

// patience is how long a test waits for an event that must happen.
const patience = time.Minute

// diary has the events of a test, in order.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) note(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.add(line)
}

// add is note with d.mu held.
func (d *diary) add(line string) {
	if n := len(d.lines); n == 0 || d.lines[n-1] != line {
		d.lines = append(d.lines, line)
	}
}

func (d *diary) want(t *testing.T, want ...string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(d.lines, want) {
		t.Errorf("happened:\n%q\nwant:\n%q", d.lines, want)
	}
}

// notedStore notes each endpoint that is put into a store or removed.
type notedStore struct {
	*memory.Store
	diary   *diary
	accepts <-chan struct{}
}

func (s notedStore) Apply(ctx context.Context, service string, changes ...naming.Change) error {
	// Run knows that the server accepts a moment before the listener does.
	// TestStoppedBefore covers a server that does not accept.
	select {
	case <-s.accepts:
	case <-ctx.Done():
	case <-time.After(patience):
	}
	// An effect of the change is noted after the change.
	s.diary.mu.Lock()
	defer s.diary.mu.Unlock()
	err := s.Store.Apply(ctx, service, changes...)
	for _, c := range changes {
		line := fmt.Sprint(c.Op)
		if c.Endpoint.Info().Draining {
			line += " draining"
		}
		if err == nil {
			s.diary.add(line)
		}
	}
	return err
}

// notedListener notes the calls of the server.
type notedListener struct {
	net.Listener
	diary   *diary
	once    sync.Once
	accepts chan struct{} // closed when it is asked for a connection
	end     chan error    // makes Accept fail
}

func (l *notedListener) Accept() (net.Conn, error) {
	l.once.Do(func() { l.diary.note("accepts"); close(l.accepts) })
	type accepted struct {
		conn net.Conn
		err  error
	}
	done := make(chan accepted, 1)
	go func() {
		conn, err := l.Listener.Accept()
		done <- accepted{conn, err}
	}()
	select {
	case a := <-done:
		return a.conn, a.err
	case err := <-l.end:
		_ = l.Listener.Close()
		<-done
		return nil, err
	}
}

func (l *notedListener) Close() error {
	l.diary.note("closes")
	return l.Listener.Close()
}

// notedHealth notes its shutdown, and has calls that last.
type notedHealth struct {
	*health.Server
	diary   *diary
	begun   chan struct{}
	release chan struct{}
}

func (h *notedHealth) Shutdown() {
	h.diary.note("health is shut down")
	h.Server.Shutdown()
}

// Check of the service "slow" lasts until release is closed.
func (h *notedHealth) Check(ctx context.Context, req *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if req.Service == "slow" {
		h.begun <- struct{}{}
		select {
		case <-h.release:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		req = &healthpb.HealthCheckRequest{}
	}
	return h.Server.Check(ctx, req)
}

// site is a server that Run runs.
type site struct {
	*testing.T
	diary  diary
	store  *memory.Store
	client *naming.Client
	server *grpc.Server
	health *notedHealth
	lis    *notedListener
	opts   *serve.Options
	cancel context.CancelFunc
	ended  chan error
}

func newSite(t *testing.T) *site {
	s := &site{T: t, store: new(memory.Store), server: grpc.NewServer(), ended: make(chan error, 1)}
	accepts := make(chan struct{})
	s.client = naming.New(notedStore{s.store, &s.diary, accepts}, quiet)
	t.Cleanup(s.client.Close)
	s.health = &notedHealth{health.NewServer(), &s.diary, make(chan struct{}), make(chan struct{})}
	healthpb.RegisterHealthServer(s.server, s.health)
	s.lis = &notedListener{Listener: listen(t, "127.0.0.1:0"), diary: &s.diary, accepts: accepts, end: make(chan error)}
	s.opts = &serve.Options{Health: s.health, Register: &naming.RegisterOptions{DrainDelay: 50 * time.Millisecond}}
	return s
}

func (s *site) run() {
	ctx, cancel := context.WithCancel(s.Context())
	s.cancel = cancel
	go func() { s.ended <- serve.Run(ctx, s.client, service, s.server, s.lis, s.opts) }()
}

// await waits until the registry has n endpoints, and returns the last.
func (s *site) await(n int) (last naming.Endpoint) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	for v, err := range s.client.Watch(ctx, service) {
		if err != nil {
			s.Fatal(err)
		}
		if len(v.Endpoints) == n {
			if n > 0 {
				last = v.Endpoints[n-1]
			}
			break
		}
	}
	return last
}

// end waits for Run to return.
func (s *site) end() error {
	s.Helper()
	select {
	case err := <-s.ended:
		return err
	case <-time.After(patience):
		s.Fatal("Run does not return")
		return nil
	}
}

// slow begins a call that lasts until s.health.release is closed.
func (s *site) slow() <-chan error {
	s.Helper()
	client, done := dial(s.T, s.lis.Addr().String()), make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, err := client.Check(ctx, &healthpb.HealthCheckRequest{Service: "slow"})
		done <- err
	}()
	select {
	case <-s.health.begun:
	case <-time.After(patience):
		s.Fatal("the call does not begin")
	}
	return done
}

// TestOrder: the steps of a stop have the order in which no call fails.
func TestOrder(t *testing.T) {
	s := newSite(t)
	s.run()
	if got, want := s.await(1).Addr, s.lis.Addr().String(); got != want {
		t.Errorf("the endpoint's address is %q, want %q", got, want)
	}
	call := s.slow()
	s.cancel()
	s.await(0)
	// New calls are served until after the endpoint has gone, and those in
	// progress to their end.
	close(s.health.release)
	if err := <-call; err != nil {
		t.Errorf("the call in progress ended with %v", err)
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
	s.diary.want(t, "accepts", "Add", "Add draining", "Delete", "health is shut down", "closes")
}

func TestAcceptFails(t *testing.T) {
	s := newSite(t)
	s.run()
	s.await(1)
	call := s.slow()
	broken := errors.New("the network card has melted")
	s.lis.end <- broken
	s.await(0)
	close(s.health.release)
	if err := <-call; err != nil {
		t.Errorf("the call in progress ended with %v", err)
	}
	if err := s.end(); !errors.Is(err, broken) {
		t.Errorf("Run returned %v", err)
	}
	s.diary.want(t, "accepts", "Add", "closes", "Add draining", "Delete", "health is shut down")
}

func TestStoppedByOthers(t *testing.T) {
	s := newSite(t)
	s.run()
	s.await(1)
	s.server.Stop()
	if err := s.end(); err != nil {
		t.Error(err)
	}
	s.await(0)
}

// TestStoppedBefore: a server that does not serve is never registered.
func TestStoppedBefore(t *testing.T) {
	s := newSite(t)
	s.server.Stop()
	s.run()
	if err := s.end(); !errors.Is(err, grpc.ErrServerStopped) {
		t.Errorf("Run returned %v", err)
	}
	s.diary.want(t, "closes")
}

func TestStopTimeout(t *testing.T) {
	for _, c := range []struct {
		timeout time.Duration
		want    error
	}{{10 * time.Millisecond, context.DeadlineExceeded}, {-1, nil}} {
		t.Run(c.timeout.String(), func(t *testing.T) {
			s := newSite(t)
			s.opts.StopTimeout = c.timeout
			s.run()
			s.await(1)
			call := s.slow()
			s.cancel()
			if err := s.end(); !errors.Is(err, c.want) {
				t.Errorf("Run returned %v, want %v", err, c.want)
			}
			if err := <-call; status.Code(err) != codes.Unavailable {
				t.Errorf("the call in progress ended with %v", err)
			}
		})
	}
}

// TestRunFollowsHealth: a server that is not registered still serves.
func TestRunFollowsHealth(t *testing.T) {
	s := newSite(t)
	s.run()
	client := dial(t, s.lis.Addr().String())
	for range 3 {
		s.await(1)
		s.health.SetServingStatus("", notServing)
		s.await(0)
		if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
			t.Error(err)
		}
		s.health.SetServingStatus("", serving)
	}
	s.await(1)
	s.cancel()
	if err := s.end(); err != nil {
		t.Error(err)
	}
}

func TestRunOfARegistryThatIsDown(t *testing.T) {
	s := newSite(t)
	down := errors.New("down")
	s.store.Down(down)
	s.opts.Register.CloseTimeout = 100 * time.Millisecond
	s.run()
	// The server serves nevertheless.
	if _, err := dial(t, s.lis.Addr().String()).Check(t.Context(), &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Error(err)
	}
	s.cancel()
	if err := s.end(); err != nil {
		t.Error(err) // nothing was put, so nothing is left
	}
	s.diary.want(t, "accepts", "health is shut down", "closes")
}
