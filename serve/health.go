package serve

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc/metadata"

	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
)

// healthWatch follows the status of a health service within the process. It calls the
// method Watch of the service with a stream that ends here, without an interceptor or the
// network, and so works with every implementation.
//
// Goroutines: one is in Watch, and calls set. The goroutine of announce calls the other
// methods.
type healthWatch struct {
	news   chan struct{} // capacity 1: has a token after a change of status
	ended  chan struct{} // closed when the watch has ended
	err    error         // why; written before ended is closed
	cancel context.CancelFunc
	status status
}

// status is what the mutex of a healthWatch guards.
type status struct {
	sync.Mutex
	last healthgrpc.HealthCheckResponse_ServingStatus
}

// watchHealth watches the status of a service of h. Without h the status is SERVING. r is
// the Readiness that follows h, and that h must not ask. The caller calls stop in the end.
func watchHealth(h healthgrpc.HealthServer, service string, r *Readiness) *healthWatch {
	ctx, cancel := context.WithCancel(askingFor(context.Background(), r))
	w := &healthWatch{
		news:   make(chan struct{}, 1),
		ended:  make(chan struct{}),
		cancel: cancel,
	}
	if h == nil {
		w.status.last = healthgrpc.HealthCheckResponse_SERVING
		return w
	}
	go func() {
		defer close(w.ended)
		w.err = h.Watch(&healthgrpc.HealthCheckRequest{Service: service}, &healthStream{ctx: ctx, watch: w})
		if w.err == nil {
			w.err = errors.New("no error")
		}
	}()
	return w
}

// serving reports whether the last status is SERVING.
func (w *healthWatch) serving() bool {
	w.status.Lock()
	defer w.status.Unlock()
	return w.status.last == healthgrpc.HealthCheckResponse_SERVING
}

// set notes a new status. It does not block.
func (w *healthWatch) set(s healthgrpc.HealthCheckResponse_ServingStatus) {
	w.status.Lock()
	w.status.last = s
	w.status.Unlock()
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// stop ends the watch. It does not wait for the end: a health service that goes on with a
// call whose context is done must not keep a server from stopping.
func (w *healthWatch) stop() { w.cancel() }

// healthStream is the server's side of a call of Watch. Every status that is sent becomes
// the status of the watch.
type healthStream struct {
	ctx   context.Context
	watch *healthWatch
}

func (s *healthStream) Context() context.Context { return s.ctx }

func (s *healthStream) Send(r *healthgrpc.HealthCheckResponse) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	s.watch.set(r.GetStatus())
	return nil
}

// SendMsg does what Send does. Generated code calls it.
func (s *healthStream) SendMsg(m any) error {
	r, ok := m.(*healthgrpc.HealthCheckResponse)
	if !ok {
		return errors.New("not a HealthCheckResponse")
	}
	return s.Send(r)
}

func (s *healthStream) RecvMsg(any) error { return io.EOF }

func (s *healthStream) SetHeader(metadata.MD) error  { return nil }
func (s *healthStream) SendHeader(metadata.MD) error { return nil }
func (s *healthStream) SetTrailer(metadata.MD)       {}
