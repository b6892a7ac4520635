package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/naming-go/naming"
)

// RunHTTP is [Run] for a server of net/http. It serves s on lis, and keeps the server's
// address in the registry as an endpoint of a service while the server is ready (see
// [Options.Ready] and [Options.Health]). When ctx is done, RunHTTP withdraws the endpoint,
// stops the server and returns nil if all of that succeeded. The order loses no request:
//
//  1. The endpoint is marked as draining. The server serves on for the drain delay, and
//     connections stay open. Clients that follow the registry turn to other endpoints.
//  2. In the second half of the drain delay each answer closes its connection and says so
//     ("Connection: close" in HTTP/1.1, GOAWAY in HTTP/2). Clients that do not follow the
//     registry, such as those behind a load balancer, give up their connections in this
//     way. Each of their requests is answered. Idle connections stay open: a server that
//     closes an idle connection may cross a request on its way, and HTTP/1.1 does not say
//     whether that request was received (RFC 9112, section 9.5).
//  3. The endpoint is removed from the registry.
//  4. [http.Server.Shutdown] closes the listener and the idle connections, and waits for
//     the requests in progress, for [Options.StopTimeout] at most.
//  5. [http.Server.Close] closes the connections that are left then.
//
// A client that does not follow the registry can still lose a request in step 4: a request
// that is sent on a connection without a request in the second half of the drain delay, or
// to the address of this server when all other clients have left. A drain delay
// ([naming.RegisterOptions]) of more than twice the pause between two requests of such a
// client gives all its connections up in step 2.
//
// RunHTTP serves TLS if s.TLSConfig is set, with the certificates of s.TLSConfig. A
// listener that does TLS itself needs a server without TLSConfig. HTTP/2 works as in
// net/http. RunHTTP replaces s.Handler by one that calls it: s must serve nothing else, and
// only one call of RunHTTP may use s. A connection that a handler hijacked, such as a
// WebSocket, is neither waited for nor closed, as in Shutdown: see
// [http.Server.RegisterOnShutdown]. Shutdown waits five seconds for a new connection
// without a request.
//
// Errors are those of Run: [naming.ErrInvalid] before anything is served, a
// [context.DeadlineExceeded] for requests that were cut off, the error of Serve, or nil if
// somebody else stopped the server after it had accepted connections. The listener is
// closed when RunHTTP returns.
func RunHTTP(ctx context.Context, c *naming.Client, service string, s *http.Server, lis net.Listener, opts *Options) error {
	o, err := opts.forServer(ctx, c, service, lis)
	if err == nil {
		err = checkTLS(s)
	}
	if err != nil {
		_ = lis.Close()
		return fmt.Errorf("naming: serve %q: %w", service, err)
	}
	h := &partingHandler{next: s.Handler}
	if h.next == nil {
		h.next = http.DefaultServeMux
	}
	s.Handler = h
	returning := make(chan struct{})
	defer close(returning)
	withdrawing := func() { // on a goroutine of its own
		t := time.NewTimer(drainDelay(o.Register) / 2)
		defer t.Stop()
		select {
		case <-t.C:
			h.part()
		case <-returning:
		}
	}
	return o.run(ctx, c, service, lis, server{
		serve:       func(l *listener) error { return serveHTTP(s, l) },
		withdrawing: withdrawing,
		stop:        func() error { return stopHTTP(s, o.StopTimeout) },
	})
}

// checkTLS returns an error for a server that cannot serve TLS.
func checkTLS(s *http.Server) error {
	if t := s.TLSConfig; t != nil && len(t.Certificates) == 0 && t.GetCertificate == nil && t.GetConfigForClient == nil {
		return fmt.Errorf("%w: the server's TLSConfig has no certificate", naming.ErrInvalid)
	}
	return nil
}

// serveHTTP serves until the server is stopped or the listener fails.
func serveHTTP(s *http.Server, l *listener) (err error) {
	defer func() { _ = l.Close() }() // ServeTLS may return before it uses the listener
	if s.TLSConfig != nil {
		err = s.ServeTLS(l, "", "")
	} else {
		err = s.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) && l.accepted() {
		return nil
	}
	return err
}

// stopHTTP stops a server gracefully, and cuts off what is left after a timeout.
func stopHTTP(s *http.Server, timeout time.Duration) error {
	if timeout <= 0 {
		return s.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err := s.Shutdown(ctx)
	if err == nil || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	_ = s.Close()
	return fmt.Errorf("naming: requests in progress were cut off after %v: %w", timeout, err)
}

// drainDelay returns how long [naming.Registration.Close] leaves an endpoint marked: see
// [naming.RegisterOptions].
func drainDelay(r *naming.RegisterOptions) time.Duration {
	const defaultDelay, margin = time.Second, 5 * time.Second
	delay := max(r.DrainDelay, 0)
	if r.DrainDelay == 0 {
		delay = defaultDelay
	}
	if t := r.CloseTimeout; t > 0 {
		delay = min(delay, t-min(margin, t/2))
	}
	return delay
}

// partingHandler is the handler of a server that is about to stop. After part each answer
// closes its connection.
type partingHandler struct {
	next    http.Handler
	parting atomic.Bool
}

func (h *partingHandler) part() { h.parting.Store(true) }

func (h *partingHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// An upgrade answers with a Connection header of its own.
	if h.parting.Load() && len(r.Header["Upgrade"]) == 0 {
		w.Header().Set("Connection", "close")
	}
	h.next.ServeHTTP(w, r)
}
