package httptransport

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/balancer"
)

// The defaults of the [Options].
const (
	// DefaultMaxAttempts is the default of Options.MaxAttempts.
	DefaultMaxAttempts = 3
	// DefaultMaxServices is the default of Options.MaxServices.
	DefaultMaxServices = 1_000
	// DefaultServiceIdleTime is the default of Options.ServiceIdleTime.
	DefaultServiceIdleTime = time.Hour
	// DefaultDialTimeout is how long the default of Options.Transport dials an endpoint.
	// A shorter timeout fails connections over slow networks. A longer timeout delays
	// the requests that try an endpoint whose machine has gone.
	DefaultDialTimeout = 5 * time.Second
	// DefaultMaxIdleConns is how many idle connections the default of Options.Transport
	// keeps for each endpoint. net/http's default of two closes and opens connections
	// all the time when more requests are in progress.
	DefaultMaxIdleConns = 100
)

// Options are the options of a [Transport]. The zero value and a nil pointer mean the
// defaults.
type Options struct {
	// Service, if not empty, is the service of all requests, whatever their URL.
	Service string

	// ServiceOf, if not nil, returns the service of a request, which it must not
	// modify. It is called concurrently, and once for each request. A request whose
	// service is empty fails. At most one of Service and ServiceOf may be set.
	ServiceOf func(*http.Request) string

	// Balancer is the load balancing policy, the same as for gRPC: by weight, zone or
	// load, on all endpoints or a subset. Where it speaks of a ClientConn it means a
	// Transport, and where it speaks of connected endpoints it means those that are not
	// avoided. The zero value spreads the requests by weight.
	Balancer balancer.Config

	// Transport sends the requests. It is cloned for every endpoint, so that its limits
	// are those of one endpoint, and its connections are not used. Its Proxy is not
	// used either. Its DialContext gets the network ("tcp" or "unix") and the address
	// of the endpoint. DialTLS and DialTLSContext must be nil: they would decide for
	// which name a certificate is checked. So must Dial, which cannot be canceled.
	//
	// Nil means the values of http.DefaultTransport with [DefaultMaxIdleConns] idle
	// connections for each endpoint and [DefaultDialTimeout]. Changes of
	// http.DefaultTransport have no effect.
	Transport *http.Transport

	// TLSServerName is the name for which TLS certificates are checked. Empty means
	// Transport.TLSClientConfig.ServerName, or else the name of the service.
	TLSServerName string

	// MaxAttempts is the number of endpoints to which one request is sent at most. More
	// attempts survive more dead endpoints, and a request that kills servers kills more
	// of them. 0 means [DefaultMaxAttempts]. 1 or less turns retries on other endpoints
	// off.
	MaxAttempts int

	// MaxServices is the number of services that are followed at the same time, so that
	// names from outside cannot fill the memory. For another service, the service is
	// released that has not been used for the longest time. Services without endpoints
	// go first. If all services are in use, the request fails. 0 or less means
	// [DefaultMaxServices].
	MaxServices int

	// ServiceIdleTime is the time after its last request when a service is released,
	// which closes its connections and its watch. The next request follows the service
	// again, and waits for the endpoints. 0 or less means [DefaultServiceIdleTime].
	ServiceIdleTime time.Duration
}

// withDefaults returns the options with the defaults in place of zero values.
func (opts *Options) withDefaults() Options {
	var o Options
	if opts != nil {
		o = *opts
	}
	switch {
	case o.MaxAttempts == 0:
		o.MaxAttempts = DefaultMaxAttempts
	case o.MaxAttempts < 0:
		o.MaxAttempts = 1
	}
	if o.MaxServices <= 0 {
		o.MaxServices = DefaultMaxServices
	}
	if o.ServiceIdleTime <= 0 {
		o.ServiceIdleTime = DefaultServiceIdleTime
	}
	return o
}

// check returns why the options cannot work.
func (o *Options) check() error {
	invalid := func(why string) error { return fmt.Errorf("%w: httptransport.Options: %s", naming.ErrInvalid, why) }
	//lint:ignore SA1019 what is deprecated has to be refused
	dials := o.Transport != nil && (o.Transport.Dial != nil || o.Transport.DialTLS != nil || o.Transport.DialTLSContext != nil)
	switch {
	case o.Service != "" && o.ServiceOf != nil:
		return invalid("both Service and ServiceOf are set")
	case dials:
		return invalid("Transport has a Dial, DialTLS or DialTLSContext")
	}
	return o.Balancer.Check()
}

// serviceOf returns the service of a request.
func (o *Options) serviceOf(req *http.Request) (string, error) {
	if req.URL == nil {
		return "", fmt.Errorf("%w: the request has no URL", naming.ErrInvalid)
	}
	if s := req.URL.Scheme; s != "http" && s != "https" {
		return "", fmt.Errorf("%w: the scheme of the URL is %q, want http or https", naming.ErrInvalid, s)
	}
	switch {
	case o.ServiceOf != nil:
		return o.ServiceOf(req), nil
	case o.Service != "":
		return o.Service, nil
	}
	return req.URL.Hostname(), nil
}

// dialFunc is the type of DialContext in http.Transport.
type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// newBase returns the http.Transport that is cloned for every endpoint, and the function
// that dials.
func (o *Options) newBase() (*http.Transport, dialFunc) {
	dialer := &net.Dialer{Timeout: DefaultDialTimeout, KeepAlive: 30 * time.Second}
	if o.Transport == nil {
		return &http.Transport{
			ForceAttemptHTTP2:     true,
			MaxIdleConnsPerHost:   DefaultMaxIdleConns,
			IdleConnTimeout:       90 * time.Second,
			TLSHandshakeTimeout:   10 * time.Second,
			ExpectContinueTimeout: time.Second,
		}, dialer.DialContext
	}
	base := o.Transport.Clone()
	base.Proxy = nil
	// A Transport with a DialContext uses HTTP/2 only with ForceAttemptHTTP2. The original
	// has decided during Clone.
	if _, ok := o.Transport.TLSNextProto["h2"]; ok {
		base.ForceAttemptHTTP2 = true
		// golang.org/x/net/http2 puts a pool into the map that all clones would share.
		// A connection could then serve a service for which its certificate was not
		// checked.
		base.TLSNextProto = nil
	}
	if base.DialContext != nil {
		return base, base.DialContext
	}
	return base, dialer.DialContext
}
