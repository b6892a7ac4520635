package httptransport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/balancer"
	"github.com/naming-go/naming/internal/pick"
	"github.com/naming-go/naming/resolver"
)

// Transport is an http.RoundTripper that sends requests to the endpoints of services. All
// methods may be called concurrently. Make one Transport for each Builder, and close it in
// the end.
type Transport struct {
	// Constant.
	builder *resolver.Builder
	options Options
	invalid error // why no request can be sent
	base    *http.Transport
	dial    dialFunc
	pick    pick.Config
	client  string          // the default of Balancer.Client
	ctx     context.Context // done after Close
	cancel  context.CancelFunc

	services services
}

// New returns a Transport on b. It sends no request to the registry: a service is followed
// from its first request on. The Transport uses only what b has for all load balancing
// policies: the service config of b has no effect. Keep the Client of b open as long as
// the Transport.
//
// If b is nil or the options cannot work, every request fails with [naming.ErrInvalid].
func New(b *resolver.Builder, opts *Options) *Transport {
	t := &Transport{builder: b, options: opts.withDefaults()}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	config := &t.options.Balancer
	t.pick = pick.Config{LeastLoaded: config.Pick == balancer.LeastLoaded, Zone: config.Zone, ZoneFactor: config.ZoneFactor}
	t.client = strconv.FormatUint(rand.Uint64(), 36)
	t.invalid = t.options.check()
	if b == nil {
		t.invalid = fmt.Errorf("%w: httptransport.New was given a nil Builder", naming.ErrInvalid)
	}
	if t.invalid == nil {
		t.base, t.dial = t.options.newBase()
	}
	t.services.init(t)
	return t
}

// subsetOf returns the order in which this client uses endpoints with these IDs, or nil if it
// uses all.
func (t *Transport) subsetOf(ids []string) []int32 {
	c := &t.options.Balancer
	if c.Subset == 0 || len(ids) <= c.Subset {
		return nil
	}
	s := pick.SubsetOf(cmp.Or(c.Client, t.client), c.ClientNumber)
	return s.Order(ids)
}

// RoundTrip sends a request to an endpoint of its service and returns the response. It
// implements http.RoundTripper: the request is not modified, and its body is closed, which
// may happen after RoundTrip has returned.
//
// The error is [ErrNoEndpoints] if the service has no endpoints, [ErrClosed] after Close,
// [naming.ErrInvalid] for a request without a valid name of a service, the error of the
// request's context, or that of the last endpoint that the request was sent to.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	body := &requestBody{req: req}
	s, err := t.serviceOf(req)
	if err != nil {
		body.settle()
		return nil, err
	}
	resp, err := s.send(req, body)
	body.settle()
	if err != nil {
		s.release()
		return nil, err
	}
	return resp, nil
}

// serviceOf returns the service of a request. The caller releases it.
func (t *Transport) serviceOf(req *http.Request) (*service, error) {
	if t.invalid != nil {
		return nil, t.invalid
	}
	name, err := t.options.serviceOf(req)
	if err != nil {
		return nil, err
	}
	return t.services.acquire(name)
}

// send sends a request until an endpoint responds.
func (s *service) send(req *http.Request, body *requestBody) (*http.Response, error) {
	var tried []*endpoint
	var failure error
	for {
		e, err := s.choose(req, tried)
		if err != nil {
			return nil, err
		}
		if e == nil { // all have been tried
			return nil, failure
		}
		resp, err := s.attempt(req, body, e)
		if err == nil {
			return resp, nil
		}
		if req.Context().Err() != nil {
			return nil, err
		}
		failure = &endpointError{service: s.name, addr: e.addr, err: err}
		if len(tried)+1 >= s.transport.options.MaxAttempts || !mayRetry(req, err) || !body.rewind() {
			return nil, failure
		}
		tried = append(tried, e)
	}
}

// mayRetry reports whether a request that failed may be sent to another endpoint, if its
// body can.
func mayRetry(req *http.Request, err error) bool {
	switch {
	case errors.Is(err, ErrClosed):
		return false
	case isBeforeSending(err):
		return true
	}
	return isReplayable(req) && isBroken(err)
}

// isReplayable reports whether a request may be handled twice. It is what net/http calls
// replayable: see the documentation of http.Transport.
func isReplayable(req *http.Request) bool {
	if req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		return false
	}
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	// net/http also takes a key without a value, which is not sent.
	_, key := req.Header["Idempotency-Key"]
	_, xkey := req.Header["X-Idempotency-Key"]
	return key || xkey
}

// CloseIdleConnections closes the connections that no request uses. Later requests make new
// ones.
func (t *Transport) CloseIdleConnections() {
	for _, s := range t.services.all() {
		for _, e := range s.allEndpoints() {
			e.closeIdle()
		}
	}
}

// Close releases all services and closes the connections that no request uses. Requests
// that wait for an endpoint or a connection fail with [ErrClosed], and so do later
// requests. Other requests in progress go on, and their connections are closed at the end
// of their response bodies. Close returns nil. It may be called more than once.
func (t *Transport) Close() error {
	t.cancel()
	for _, s := range t.services.close() {
		s.close()
	}
	return nil
}
