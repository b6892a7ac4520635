package serve

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc/metadata"

	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
)

// healthWatch is the state of a health service, observed within the process:
// its method Watch is called with a stream that leads here. No interceptor and
// no network is in between, and every implementation of the service will do.
type healthWatch struct {
	news   chan struct{} // capacity 1: holds a token when serving has another answer
	ended  chan struct{} // closed when the watch has ended, with err set
	err    error
	cancel context.CancelFunc

	mu     sync.Mutex
	status healthgrpc.HealthCheckResponse_ServingStatus
}

// watchHealth watches the state of a service of h. Without h it is SERVING. The
// caller calls stop in the end.
func watchHealth(h healthgrpc.HealthServer, service string) *healthWatch {
	ctx, cancel := context.WithCancel(context.Background())
	w := &healthWatch{
		news:   make(chan struct{}, 1),
		ended:  make(chan struct{}),
		cancel: cancel,
	}
	if h == nil {
		w.status = healthgrpc.HealthCheckResponse_SERVING
		return w
	}
	go func() {
		defer close(w.ended)
		w.err = h.Watch(&healthgrpc.HealthCheckRequest{Service: service}, &healthStream{ctx: ctx, watch: w})
		if w.err == nil {
			w.err = errors.New("without an error")
		}
	}()
	return w
}

func (w *healthWatch) serving() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status == healthgrpc.HealthCheckResponse_SERVING
}

func (w *healthWatch) set(s healthgrpc.HealthCheckResponse_ServingStatus) {
	w.mu.Lock()
	w.status = s
	w.mu.Unlock()
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// stop ends the watch. It does not wait for it: a health service that does not
// end a call whose context is done must not keep a server from stopping.
func (w *healthWatch) stop() { w.cancel() }

// healthStream is the server's side of a call of Watch.
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

// SendMsg is what the generated code calls.
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
