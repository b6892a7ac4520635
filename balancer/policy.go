package balancer

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	grpcbalancer "google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/endpointsharding"
	"google.golang.org/grpc/balancer/pickfirst"
	"google.golang.org/grpc/connectivity"
	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/naming-go/naming/internal/pick"
	"github.com/naming-go/naming/resolver"
)

func init() { grpcbalancer.Register(builder{}) }

// builder builds policies. gRPC calls it.
type builder struct{}

// Name implements gRPC's Builder.
func (builder) Name() string { return Name }

// Build implements gRPC's Builder.
func (builder) Build(cc grpcbalancer.ClientConn, opts grpcbalancer.BuildOptions) grpcbalancer.Balancer {
	p := &policy{ClientConn: cc, client: strconv.FormatUint(rand.Uint64(), 36)}
	p.config.Store(new(Config))
	p.top.byKey = make(map[string]*child)
	p.children = endpointsharding.NewBalancer(p, opts, p.newChild, endpointsharding.Options{})
	return p
}

// policy is the load balancing policy of a ClientConn. Below it is an endpointsharding
// policy, and below that one child for each endpoint, which is a pick_first policy.
//
// Configuration and endpoints come from above, through UpdateClientConnState, down to the
// children. States come from the children, through endpointsharding, up to UpdateState.
type policy struct {
	grpcbalancer.ClientConn // for the children; policy intercepts UpdateState

	// Constant.
	client   string // the default of Config.Client
	children grpcbalancer.Balancer

	config   atomic.Pointer[Config] // never nil
	reselect atomic.Bool            // a goroutine is about to call selectAgain
	top      top
}

// top is what the methods share that go down to the children. The mutex makes one of them
// run at a time, as gRPC's Balancer demands: gRPC's own calls, and the policy's selectAgain.
// A child that is called under the mutex may call UpdateState, which must not lock it.
type top struct {
	mu       sync.Mutex
	closed   bool
	state    grpcresolver.State // the last one, without duplicates
	order    []int32            // in which this client uses the endpoints; nil: it uses all of them
	keys     []string           // of its endpoints
	selected int                // so many of the order are in use
	byKey    map[string]*child  // the children
}

// UpdateClientConnState implements gRPC's Balancer.
func (p *policy) UpdateClientConnState(s grpcbalancer.ClientConnState) error {
	p.top.mu.Lock()
	defer p.top.mu.Unlock()
	c, ok := s.BalancerConfig.(*lbConfig)
	switch {
	case ok:
		p.config.Store(&c.Config)
	case s.BalancerConfig == nil:
		p.config.Store(new(Config))
	default:
		return fmt.Errorf("naming: load balancing policy %q: configuration of type %T: %w", Name, s.BalancerConfig, grpcbalancer.ErrBadResolverState)
	}
	p.top.state = s.ResolverState
	p.top.state.Addresses = nil
	p.top.state.Endpoints, p.top.keys = unique(s.ResolverState.Endpoints)
	p.top.order = nil
	if size := p.config.Load().Subset; size > 0 && len(p.top.keys) > size {
		p.top.order = p.order()
	}
	p.top.selected = p.need()
	return p.update()
}

// unique returns the endpoints without those that have the addresses of an earlier one, and
// a key of each. endpointsharding would use a random one of them.
func unique(all []grpcresolver.Endpoint) ([]grpcresolver.Endpoint, []string) {
	seen := make(map[string]struct{}, len(all))
	keys := make([]string, 0, len(all))
	var kept []grpcresolver.Endpoint // nil: all so far. The slice of the resolver must not change.
	for i, e := range all {
		k := key(e)
		if _, ok := seen[k]; ok || len(e.Addresses) == 0 {
			if kept == nil {
				kept = slices.Clone(all[:i])
			}
			continue
		}
		seen[k] = struct{}{}
		keys = append(keys, k)
		if kept != nil {
			kept = append(kept, e)
		}
	}
	if kept == nil {
		kept = all
	}
	return kept, keys
}

// key returns a text that is the same for endpoints with the same addresses, in any order.
func key(e grpcresolver.Endpoint) string {
	if len(e.Addresses) == 1 {
		return e.Addresses[0].Addr
	}
	addrs := make([]string, len(e.Addresses))
	for i, a := range e.Addresses {
		addrs[i] = a.Addr
	}
	slices.Sort(addrs)
	return strings.Join(slices.Compact(addrs), "\x00")
}

// order returns the order in which this client uses the endpoints. The caller holds top.mu.
func (p *policy) order() []int32 {
	c := p.config.Load()
	s := pick.SubsetOf(cmp.Or(c.Client, p.client), c.ClientNumber)
	ids := make([]string, len(p.top.keys))
	for i, e := range p.top.state.Endpoints {
		ids[i] = p.top.keys[i]
		if n, ok := resolver.EndpointOf(e); ok {
			ids[i] = n.ID
		}
	}
	return s.Order(ids)
}

// need returns how many endpoints of the order have to be in use, so that as many as the
// subset has may work. The caller holds top.mu.
func (p *policy) need() int {
	return pick.First(p.top.order, p.config.Load().Subset, func(i int32) bool {
		c := p.top.byKey[p.top.keys[i]]
		return c != nil && c.failed.Load()
	})
}

// update gives the selected endpoints to the children. The caller holds top.mu.
func (p *policy) update() error {
	state := p.top.state
	if p.top.order != nil {
		state.Endpoints = make([]grpcresolver.Endpoint, p.top.selected)
		for n, i := range p.top.order[:p.top.selected] {
			state.Endpoints[n] = p.top.state.Endpoints[i]
		}
	}
	return p.children.UpdateClientConnState(grpcbalancer.ClientConnState{
		// As round_robin does it: the children listen to health checks.
		ResolverState: pickfirst.EnableHealthListener(state),
	})
}

// selectAgain selects the endpoints of the subset again, after one failed or recovered.
func (p *policy) selectAgain() {
	p.top.mu.Lock()
	defer p.top.mu.Unlock()
	p.reselect.Store(false)
	if p.top.closed || p.top.order == nil {
		return
	}
	if n := p.need(); n != p.top.selected {
		p.top.selected = n
		_ = p.update() // of no interest: nothing is new but the selection
	}
}

// ResolverError implements gRPC's Balancer.
func (p *policy) ResolverError(err error) {
	p.top.mu.Lock()
	defer p.top.mu.Unlock()
	p.children.ResolverError(err)
}

// UpdateSubConnState implements gRPC's Balancer. gRPC calls the listeners of the children
// instead.
func (p *policy) UpdateSubConnState(grpcbalancer.SubConn, grpcbalancer.SubConnState) {}

// ExitIdle implements gRPC's Balancer.
func (p *policy) ExitIdle() {
	p.top.mu.Lock()
	defer p.top.mu.Unlock()
	p.children.ExitIdle()
}

// Close implements gRPC's Balancer.
func (p *policy) Close() {
	p.top.mu.Lock()
	defer p.top.mu.Unlock()
	p.top.closed = true
	p.children.Close()
}

// UpdateState gives the state of all children to gRPC, with a picker of this policy. It
// implements gRPC's ClientConn for endpointsharding, whose picker is right until a child is
// ready: calls wait while a child connects, and fail with a child's error when all failed.
func (p *policy) UpdateState(s grpcbalancer.State) {
	if s.ConnectivityState == connectivity.Ready {
		s.Picker = newPicker(p.config.Load(), endpointsharding.ChildStatesFromPicker(s.Picker))
	}
	p.ClientConn.UpdateState(s)
}

// child is the policy of one endpoint: pick_first, and what is known of the endpoint. It is
// the Balancer that endpointsharding has, and the ClientConn that pick_first has.
type child struct {
	grpcbalancer.ClientConn // of the parent; child intercepts UpdateState

	parent    *policy
	pickFirst grpcbalancer.Balancer
	endpoint  *endpoint
	failed    atomic.Bool
	// Guarded by parent.top.mu, under which endpointsharding calls a child.
	key string
}

// newChild builds a child. endpointsharding calls it.
func (p *policy) newChild(cc grpcbalancer.ClientConn, opts grpcbalancer.BuildOptions) grpcbalancer.Balancer {
	c := &child{ClientConn: cc, parent: p, endpoint: newEndpoint()}
	c.pickFirst = grpcbalancer.Get(pickfirst.Name).Build(c, opts)
	return c
}

// UpdateClientConnState reads what the registry says about the endpoint. Addresses of an
// endpoint never change: endpointsharding makes another child.
func (c *child) UpdateClientConnState(s grpcbalancer.ClientConnState) error {
	e := s.ResolverState.Endpoints[0]
	c.endpoint.update(e)
	if c.key == "" {
		c.key = key(e)
		c.parent.top.byKey[c.key] = c
	}
	return c.pickFirst.UpdateClientConnState(s)
}

// ResolverError implements gRPC's Balancer.
func (c *child) ResolverError(err error) { c.pickFirst.ResolverError(err) }

// UpdateSubConnState implements gRPC's Balancer. gRPC calls the listeners of pick_first
// instead.
func (c *child) UpdateSubConnState(grpcbalancer.SubConn, grpcbalancer.SubConnState) {}

// ExitIdle implements gRPC's Balancer. Unlike the other methods, endpointsharding calls it
// at any time.
func (c *child) ExitIdle() { c.pickFirst.ExitIdle() }

// Close implements gRPC's Balancer.
func (c *child) Close() {
	if c.parent.top.byKey[c.key] == c {
		delete(c.parent.top.byKey, c.key)
	}
	c.pickFirst.Close()
}

// UpdateState implements gRPC's ClientConn for pick_first.
func (c *child) UpdateState(s grpcbalancer.State) {
	switch s.ConnectivityState {
	case connectivity.TransientFailure:
		c.setFailed(true)
	case connectivity.Ready:
		c.setFailed(false) // and not while it connects, which may fail again
	}
	s.Picker = &childPicker{Picker: s.Picker, endpoint: c.endpoint}
	c.ClientConn.UpdateState(s)
}

// setFailed notes whether the endpoint can be reached. A change has the subset selected
// again.
func (c *child) setFailed(failed bool) {
	if c.failed.Swap(failed) == failed || c.parent.config.Load().Subset == 0 {
		return
	}
	if c.parent.reselect.CompareAndSwap(false, true) {
		go c.parent.selectAgain() // not on this goroutine, which may hold top.mu
	}
}

// childPicker is the picker of a child. The policy finds the endpoint in it.
type childPicker struct {
	grpcbalancer.Picker
	endpoint *endpoint
}
