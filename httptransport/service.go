package httptransport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/internal/pick"
	"github.com/naming-go/naming/resolver"
)

// service follows a service and chooses the endpoints of its requests.
type service struct {
	// Constant.
	transport *Transport
	name      string

	users atomic.Int64 // requests in progress; goes up only while services.mu is locked
	used  atomic.Int64 // the end of the last request, in Unix nanoseconds

	once     sync.Once
	resolver grpcresolver.Resolver // nil: not started; written within once
	startErr error                 // written within once

	known     chan struct{} // closed when there is a first choice
	knownOnce sync.Once
	choice    atomic.Pointer[choice]
	members   members
}

// members are the endpoints of a service.
type members struct {
	mu     sync.Mutex
	byAddr map[string]*endpoint // guarded by mu
	list   []*endpoint          // in the order of the set; guarded by mu
	order  []int32              // of the subset, indices of list; nil: all; guarded by mu
	err    error                // why the list is empty; guarded by mu
	closed bool                 // guarded by mu
}

// choice is what requests choose from. It is never modified.
type choice struct {
	err     error // the error of every request; nil: usable has endpoints
	usable  []*endpoint
	picker  *pick.Picker // of usable
	avoided []*endpoint  // those that could not be dialed, unless all are usable
	probe   time.Time    // when one of them is to be tried; zero: none
}

func newService(t *Transport, name string) *service {
	s := &service{transport: t, name: name, known: make(chan struct{})}
	s.members.byAddr = make(map[string]*endpoint)
	return s
}

// start begins to follow the service. Of several calls the first one does it, and the
// others wait.
func (s *service) start() error {
	s.once.Do(func() { s.startErr = s.build() })
	return s.startErr
}

func (s *service) build() error {
	b := s.transport.builder
	u, err := url.Parse(b.Target(s.name))
	if err != nil {
		return fmt.Errorf("%w: service %q: %w", naming.ErrInvalid, naming.SafeText(s.name), err)
	}
	s.resolver, err = b.Build(grpcresolver.Target{URL: *u}, clientConn{s}, grpcresolver.BuildOptions{DisableServiceConfig: true})
	return err
}

// release ends the use by one request.
func (s *service) release() {
	s.used.Store(time.Now().UnixNano())
	s.users.Add(-1)
}

// isEmpty reports whether no endpoints are known.
func (s *service) isEmpty() bool {
	c := s.choice.Load()
	return c == nil || c.err != nil
}

// close stops following the service and closes its idle connections. Nobody starts it.
func (s *service) close() {
	s.once.Do(func() { s.startErr = ErrClosed })
	if s.resolver != nil {
		s.resolver.Close()
	}
	for _, e := range s.removeAll() {
		e.leave()
	}
}

// removeAll removes all endpoints, and returns them.
func (s *service) removeAll() (gone []*endpoint) {
	m := &s.members
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for _, e := range m.byAddr {
		gone = append(gone, e)
	}
	clear(m.byAddr)
	m.list, m.order = nil, nil
	return gone
}

func (s *service) allEndpoints() (all []*endpoint) {
	m := &s.members
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.byAddr {
		all = append(all, e)
	}
	return all
}

// clientConn is the ClientConn that a Builder's resolver delivers to.
type clientConn struct{ service *service }

// UpdateState replaces the endpoints. Endpoints whose address stays keep their connections.
func (cc clientConn) UpdateState(state grpcresolver.State) error {
	s := cc.service
	gone := s.replace(state.Endpoints)
	s.announce()
	for _, e := range gone {
		e.leave()
	}
	return nil
}

// ReportError makes err the error of all requests while the set is empty. It has no effect on
// a set with endpoints.
func (cc clientConn) ReportError(err error) {
	cc.service.setError(err)
	cc.service.announce()
}

// NewAddress is a deprecated method of gRPC, which package resolver does not call.
func (cc clientConn) NewAddress([]grpcresolver.Address) {}

// ParseServiceConfig is not called: service configs are turned off.
func (cc clientConn) ParseServiceConfig(string) *serviceconfig.ParseResult {
	return &serviceconfig.ParseResult{Err: errors.New("naming: no service configs for HTTP")}
}

// announce wakes the requests that wait for the first choice.
func (s *service) announce() { s.knownOnce.Do(func() { close(s.known) }) }

// replace replaces the endpoints, and returns those that left.
func (s *service) replace(endpoints []grpcresolver.Endpoint) (gone []*endpoint) {
	m := &s.members
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.err = fmt.Errorf("naming: service %q has no endpoints", naming.SafeText(s.name))
	if n := len(endpoints); n > 0 { // if all addresses are refused
		m.err = fmt.Errorf("naming: service %q has no endpoints to use: none of %d has a valid address", naming.SafeText(s.name), n)
	}
	old := m.byAddr
	m.byAddr = make(map[string]*endpoint, len(endpoints))
	m.list = make([]*endpoint, 0, len(endpoints))
	var ids []string
	for _, g := range endpoints {
		found, _ := resolver.EndpointOf(g)
		if naming.CheckAddress(found.Addr) != nil || m.byAddr[found.Addr] != nil {
			continue
		}
		e := old[found.Addr]
		if e == nil {
			e = newEndpoint(s, found.Addr)
		}
		delete(old, found.Addr)
		e.label.update(found)
		m.byAddr[found.Addr] = e
		m.list = append(m.list, e)
		ids = append(ids, found.ID)
	}
	m.order = s.transport.subsetOf(ids)
	for _, e := range old {
		gone = append(gone, e)
	}
	s.choice.Store(s.newChoice())
	return gone
}

func (s *service) setError(err error) {
	m := &s.members
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.list) == 0 && !m.closed {
		m.err = err
		s.choice.Store(s.newChoice())
	}
}

// newChoice returns the choice for the present members. s.members.mu is locked.
func (s *service) newChoice() *choice {
	m := &s.members
	if len(m.list) == 0 {
		return &choice{err: &noEndpointsError{m.err}}
	}
	list := m.inSubset(s.transport.options.Balancer.Subset)
	c := &choice{}
	for _, e := range list {
		if e.dials.failures > 0 {
			c.avoid(e)
		} else {
			c.usable = append(c.usable, e)
		}
	}
	if len(c.usable) == 0 {
		*c = choice{usable: list}
	}
	candidates := make([]pick.Candidate, len(c.usable))
	for i, e := range c.usable {
		candidates[i] = pick.Candidate{Weight: e.label.weight, Zone: e.label.zone, Load: &e.load}
	}
	c.picker = pick.New(s.transport.pick, candidates, rand.Uint64())
	return c
}

// inSubset returns the endpoints of the subset: so many that size of them can be dialed. The
// caller must not modify the list.
func (m *members) inSubset(size int) []*endpoint {
	if m.order == nil {
		return m.list
	}
	n := pick.First(m.order, size, func(i int32) bool { return m.list[i].dials.failures > 0 })
	list := make([]*endpoint, n)
	for i, at := range m.order[:n] {
		list[i] = m.list[at]
	}
	return list
}

// avoid adds an endpoint to those that are avoided.
func (c *choice) avoid(e *endpoint) {
	c.avoided = append(c.avoided, e)
	if c.probe.IsZero() || e.dials.retry.Before(c.probe) {
		c.probe = e.dials.retry
	}
}

// choose returns the endpoint for a request that was sent to some endpoints already. It
// returns nil if it was sent to all. It waits for the first choice.
func (s *service) choose(req *http.Request, tried []*endpoint) (*endpoint, error) {
	c := s.choice.Load()
	if c == nil {
		if err := s.await(req); err != nil {
			return nil, err
		}
		c = s.choice.Load()
	}
	if s.transport.ctx.Err() != nil {
		return nil, ErrClosed
	}
	if c.err != nil {
		return nil, c.err
	}
	if !c.probe.IsZero() && len(tried) == 0 {
		if now := time.Now(); !now.Before(c.probe) {
			if e := s.takeProbe(now); e != nil {
				return e, nil
			}
		}
	}
	return c.pick(tried), nil
}

// await waits for the first choice.
func (s *service) await(req *http.Request) error {
	ctx := req.Context()
	//lint:ignore SA1019 a Cancel that is set is obeyed, as in net/http
	canceled := req.Cancel
	select {
	case <-s.known:
		return nil
	case <-s.transport.ctx.Done():
		return ErrClosed
	case <-ctx.Done():
		return &waitError{service: s.name, err: ctx.Err()}
	case <-canceled:
		return &waitError{service: s.name, err: errors.New("request canceled")}
	}
}

// pick returns an endpoint that is not among those tried, or nil. Endpoints that cannot be
// dialed come last.
func (c *choice) pick(tried []*endpoint) *endpoint {
	if len(tried) == 0 {
		return c.usable[c.picker.Pick()]
	}
	for range 2 * len(tried) {
		if e := c.usable[c.picker.Pick()]; !contains(tried, e) {
			return e
		}
	}
	for _, list := range [][]*endpoint{c.usable, c.avoided} {
		for i, first := 0, rand.IntN(len(list)+1); i < len(list); i++ {
			if e := list[(first+i)%len(list)]; !contains(tried, e) {
				return e
			}
		}
	}
	return nil
}

// contains reports whether a short list has an endpoint.
func contains(list []*endpoint, e *endpoint) bool {
	for _, o := range list {
		if o == e {
			return true
		}
	}
	return false
}

// takeProbe returns an endpoint that was avoided for long enough, or nil. Other requests
// go on to avoid the endpoint until the one that got it has a response.
func (s *service) takeProbe(now time.Time) *endpoint {
	m := &s.members
	m.mu.Lock()
	defer m.mu.Unlock()
	var due *endpoint
	for _, e := range m.inSubset(s.transport.options.Balancer.Subset) {
		if e.dials.failures > 0 && !now.Before(e.dials.retry) {
			due = e
			e.dials.retry = now.Add(e.dials.delay())
			break
		}
	}
	s.choice.Store(s.newChoice()) // with the next time
	return due
}

// noteFailure notes that an endpoint could not be dialed in an attempt that began at start.
func (s *service) noteFailure(e *endpoint, start time.Time) {
	m := &s.members
	m.mu.Lock()
	defer m.mu.Unlock()
	d := &e.dials
	if m.closed || start.Before(d.last) { // attempts at the same time count once
		return
	}
	d.last = time.Now()
	d.failures++
	d.retry = d.last.Add(d.delay())
	// Otherwise the endpoint is avoided already, and takeProbe finds the new time. A choice
	// for each failed dial would cost much when all of many endpoints are dead.
	if !e.failing.Swap(true) {
		s.choice.Store(s.newChoice())
	}
}

// noteSuccess notes that an endpoint that could not be dialed has responded.
func (s *service) noteSuccess(e *endpoint) {
	m := &s.members
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || e.dials.failures == 0 {
		return
	}
	e.dials = dials{}
	e.failing.Store(false)
	s.choice.Store(s.newChoice())
}

// retryNow has a watch that failed tried again at once, as gRPC does when a connection
// fails.
func (s *service) retryNow() {
	if s.resolver != nil {
		s.resolver.ResolveNow(grpcresolver.ResolveNowOptions{})
	}
}
