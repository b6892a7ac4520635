package httptransport

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/internal/pick"
)

// endpoint is an endpoint of a service with its connections.
type endpoint struct {
	// Constant.
	service *service
	addr    string // as in the registry
	network string // "tcp" or "unix"
	target  string // what is dialed
	host    string // of the URL: a key of the connections, and never the Host header

	load    pick.Load
	failing atomic.Bool // dials.failures > 0
	gone    atomic.Bool // not in the set
	once    sync.Once
	inner   atomic.Pointer[http.Transport] // nil: not used yet; written within once

	dials dials // guarded by service.members.mu
	label label // guarded by service.members.mu
}

// label is what the metadata of an endpoint says.
type label struct {
	metadata json.RawMessage // what was decoded
	weight   float64
	zone     string
}

// update decodes the metadata if they changed.
func (l *label) update(e naming.Endpoint) {
	if !bytes.Equal(l.metadata, e.Metadata) {
		info := e.Info()
		*l = label{metadata: e.Metadata, weight: info.Weight, zone: info.Zone}
	}
}

// dials is what is known about dialing an endpoint.
type dials struct {
	failures int       // in a row
	last     time.Time // when the last failure was noted
	retry    time.Time // until when the endpoint is avoided
}

// The time for which an endpoint is avoided: see the documentation of the package.
const (
	minAvoid    = time.Second
	maxAvoid    = 30 * time.Second
	avoidFactor = 1.6
	avoidJitter = 0.2
)

// delay returns for how long an endpoint is avoided.
func (d *dials) delay() time.Duration {
	t := min(float64(minAvoid)*math.Pow(avoidFactor, float64(d.failures-1)), float64(maxAvoid))
	return time.Duration(t * (1 - avoidJitter + 2*avoidJitter*rand.Float64()))
}

// newEndpoint returns an endpoint with a valid address.
func newEndpoint(s *service, addr string) *endpoint {
	e := &endpoint{service: s, addr: addr, network: "tcp", target: addr, host: addr}
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		// gRPC also accepts "unix:///path".
		e.network, e.target, e.host = "unix", strings.TrimPrefix(path, "//"), "localhost"
	} else if name, ok := strings.CutPrefix(addr, "unix-abstract:"); ok {
		e.network, e.target, e.host = "unix", "@"+name, "localhost"
	}
	return e
}

// transport returns the http.Transport of the endpoint. Most clients use few of the
// endpoints of a large service, so it is made at the first use.
func (e *endpoint) transport() *http.Transport {
	if t := e.inner.Load(); t != nil {
		return t
	}
	e.once.Do(func() {
		t := e.service.transport.base.Clone()
		t.DialContext = e.dial
		if t.TLSClientConfig == nil {
			t.TLSClientConfig = new(tls.Config)
		}
		if name := e.service.transport.options.TLSServerName; name != "" {
			t.TLSClientConfig.ServerName = name
		} else if t.TLSClientConfig.ServerName == "" {
			t.TLSClientConfig.ServerName = e.service.name
		}
		e.inner.Store(t)
	})
	return e.inner.Load()
}

// dial connects to the endpoint, whatever the host of the URL is.
func (e *endpoint) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	t := e.service.transport
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
	start := time.Now()
	conn, err := t.dial(ctx, e.network, e.target)
	switch {
	case t.ctx.Err() != nil:
		if err == nil {
			_ = conn.Close()
		}
		return nil, &dialError{ErrClosed}
	case err == nil:
		return conn, nil
	case ctx.Err() == nil:
		e.service.noteFailure(e, start)
		e.service.retryNow()
	}
	return nil, &dialError{err}
}

// leave closes the idle connections. It is called once the endpoint has left the set.
func (e *endpoint) leave() {
	e.gone.Store(true)
	e.closeIdle()
}

func (e *endpoint) closeIdle() {
	if t := e.inner.Load(); t != nil {
		t.CloseIdleConnections()
	}
}

// call is one attempt of a request, and the body of its response.
type call struct {
	req      http.Request
	url      url.URL
	endpoint *endpoint
	timed    bool
	start    time.Time     // if timed
	latency  time.Duration // until the response headers, if timed
	failed   bool          // the server cannot serve now

	body io.ReadCloser // of the response
	done atomic.Bool   // the call no longer counts
}

// attempt sends a request to an endpoint.
func (s *service) attempt(req *http.Request, body *requestBody, e *endpoint) (*http.Response, error) {
	b, err := body.next()
	if err != nil {
		return nil, err
	}
	c := &call{req: *req, url: *req.URL, endpoint: e}
	c.url.Host = e.host
	c.req.URL, c.req.Body = &c.url, b
	if c.req.Host == "" {
		c.req.Host = req.URL.Host
	}
	begin := time.Now()
	if c.timed = e.load.Begin(); c.timed {
		c.start = begin
	}
	resp, err := e.transport().RoundTrip(&c.req)
	if err != nil {
		c.fail(err, begin)
		return nil, err
	}
	c.respond(resp)
	resp.Request = req
	return resp, nil
}

// fail ends a call without a response.
func (c *call) fail(err error, begin time.Time) {
	e := c.endpoint
	canceled := c.req.Context().Err() != nil
	if _, dialed := errors.AsType[*dialError](err); !dialed && !canceled && isBeforeSending(err) {
		e.service.noteFailure(e, begin)
	}
	if c.timed && !canceled {
		c.latency, c.failed = time.Since(c.start), true
	} else {
		c.timed = false
	}
	c.end()
	if e.gone.Load() {
		e.closeIdle()
	}
}

// respond makes c the body of a response.
func (c *call) respond(resp *http.Response) {
	e := c.endpoint
	if e.failing.Load() {
		e.service.noteSuccess(e)
	}
	if c.timed {
		c.latency = time.Since(c.start)
		c.failed = isFailure(resp.StatusCode)
	}
	c.body = resp.Body
	switch w, writes := resp.Body.(io.Writer); {
	case resp.Body == http.NoBody:
		_ = c.Close()
	case writes: // after an upgrade (101)
		resp.Body = &upgraded{call: c, Writer: w}
	default:
		resp.Body = c
	}
}

// isFailure reports whether a status says that the server cannot serve now, and not that
// the request was wrong.
func isFailure(status int) bool {
	return status == http.StatusTooManyRequests || status >= 500 && status != http.StatusNotImplemented
}

// end counts the end of the call.
func (c *call) end() {
	if c.done.Swap(true) {
		return
	}
	if c.timed {
		c.endpoint.load.Sample(time.Duration(c.start.UnixNano())+c.latency, c.latency, c.failed)
	} else {
		c.endpoint.load.End()
	}
	if c.body != nil {
		c.endpoint.service.release()
	}
}

// Read implements io.Reader for the body of the response.
func (c *call) Read(p []byte) (int, error) {
	n, err := c.body.Read(p)
	if err != nil {
		c.end()
	}
	return n, err
}

// Close implements io.Closer for the body of the response.
func (c *call) Close() error {
	err := c.body.Close()
	c.end()
	if c.endpoint.gone.Load() {
		// The connection became idle after its endpoint had left.
		c.endpoint.closeIdle()
	}
	return err
}

// upgraded is the body of a response after which the connection belongs to the caller. The
// end of one direction is not the end of the call.
type upgraded struct {
	*call
	io.Writer
}

func (u *upgraded) Read(p []byte) (int, error) { return u.body.Read(p) }

// CloseWrite closes the direction to the server, as the body of net/http does.
func (u *upgraded) CloseWrite() error {
	if w, ok := u.body.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return http.ErrNotSupported
}
