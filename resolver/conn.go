package resolver

import (
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	"github.com/naming-go/naming"
)

// conn is the resolver of one ClientConn.
type conn struct {
	// Constant after Build.
	target *target
	cc     grpcresolver.ClientConn
	config *serviceconfig.ParseResult

	place place // guarded by target.dispatcher.queue

	// Used by deliver.
	delivered uint64 // the number of the last state
	current   *state // the state whose endpoints cc has, or nil
}

// place is what the dispatcher keeps of a conn. The mutex of its queue guards it.
type place struct {
	index  int // in queue.conns
	next   *conn
	phase  phase
	closed bool          // nothing is delivered to the ClientConn
	quiet  chan struct{} // not nil: closed at the end of the delivery in progress, for Close to wait for
}

// phase is what happens to a conn.
type phase uint8

const (
	idle   phase = iota // it has the present state, if there is one
	queued              // in the queue of the dispatcher
	delivering
)

// ResolveNow implements the Resolver of gRPC's package resolver. gRPC calls it when
// connections fail, in the hope for other endpoints. ResolveNow does nothing while the
// watch is healthy: the watch has reported every change. A watch that failed, and waits
// before the next attempt, is tried again at once. The rate of such attempts is limited,
// so that a registry survives when all of its clients lose their connections.
func (c *conn) ResolveNow(grpcresolver.ResolveNowOptions) { c.target.publisher.source.Retry() }

// Close implements the Resolver of gRPC's package resolver. It waits for a call of the
// ClientConn in progress. After Close has returned, the ClientConn is not called.
func (c *conn) Close() {
	quiet, first := c.target.dispatcher.leave(c)
	if quiet != nil {
		<-quiet
	}
	if first {
		c.target.builder.release(c.target)
	}
}

// deliver delivers a state to the ClientConn. It is called without a lock, and never
// concurrently for one conn: see phase.
func (c *conn) deliver(s *state) {
	skipped := s.number != c.delivered+1
	c.delivered = s.number
	switch {
	case s.err != nil:
		// A first error is reported without an empty state, which would make gRPC's
		// errors less clear. After endpoints, an error alone would leave the
		// endpoints in use.
		if c.current != nil {
			c.current = nil
			c.update(grpcresolver.State{Endpoints: []grpcresolver.Endpoint{}, ServiceConfig: c.parseEmptyConfig()})
		}
		c.cc.ReportError(s.err)
	case skipped && c.current != nil && c.current.equal(s):
		// The skipped states had no effect in the end.
	default:
		c.current = s
		c.update(grpcresolver.State{
			Addresses:     s.addresses,
			Endpoints:     s.endpoints,
			Attributes:    s.attributes,
			ServiceConfig: c.config,
		})
	}
}

func (c *conn) update(s grpcresolver.State) {
	// The error asks for another resolution. The watch reports every change without
	// being asked.
	_ = c.cc.UpdateState(s)
	if t := c.target; t.builder.published != nil {
		t.builder.published(naming.PublishedInfo{Service: t.service, Addresses: len(s.Endpoints)})
	}
}

// parseEmptyConfig returns the service config for a service without endpoints.
func (c *conn) parseEmptyConfig() *serviceconfig.ParseResult {
	if c.config == nil || c.target.builder.emptyConfig == "" {
		return c.config
	}
	parsed := c.cc.ParseServiceConfig(c.target.builder.emptyConfig)
	if parsed != nil && parsed.Err != nil {
		return c.config
	}
	return parsed
}
