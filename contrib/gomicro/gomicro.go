package gomicro

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"go-micro.dev/v4/registry"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/resolver"
)

// DefaultTimeout is how long calls of a [Registry] wait for an answer of the registry, unless
// Init has set registry.Timeout.
const DefaultTimeout = 5 * time.Second

// Options are the options of [New]. The zero value and a nil pointer mean the defaults.
type Options struct {
	// Register are the options of the registrations. go-micro's RegisterTTL takes
	// precedence over Register.TTL. Wait has no effect: see [Registry.Register].
	Register *naming.RegisterOptions

	// Resolver says which endpoints clients get: CacheDir, CacheMaxAge, PanicThreshold,
	// FirstAnswerTimeout and Logger. The other options have no effect.
	Resolver *resolver.Options
}

// Registry is a registry of go-micro's on a [naming.Client]. It implements go-micro's
// registry.Registry. All methods may be called concurrently, but Register and Deregister of
// one node must be called one after the other, as a go-micro server does.
//
// A Registry holds no resources of its own, and needs no Close. Close of the Client removes
// what is registered, and ends all Watchers.
type Registry struct {
	client   *naming.Client
	builder  *resolver.Builder
	register naming.RegisterOptions

	options  lockedOptions
	nodes    lockedNodes
	answered lockedAnswers
}

// lockedOptions are what Options returns.
type lockedOptions struct {
	sync.Mutex
	options registry.Options
}

// lockedNodes are the nodes that this Registry has registered.
type lockedNodes struct {
	sync.Mutex
	open map[nodeKey]node
}

type nodeKey struct{ service, id string }

type node struct {
	registration *naming.Registration
	endpoint     naming.Endpoint
	ttl          time.Duration
}

// lockedAnswers has what GetService last returned of each service, and the watchers of each
// service.
type lockedAnswers struct {
	sync.Mutex
	endpoints map[string][]naming.Endpoint
	watchers  map[string]map[*watcher]struct{}
}

// New returns a Registry on c. It sends no request to the registry. If c is nil, every method
// that needs the registry returns [naming.ErrInvalid].
func New(c *naming.Client, opts *Options) *Registry {
	var o Options
	if opts != nil {
		o = *opts
	}
	r := &Registry{
		client:  c,
		builder: resolver.NewBuilder(c, o.Resolver),
		nodes:   lockedNodes{open: make(map[nodeKey]node)},
		answered: lockedAnswers{
			endpoints: make(map[string][]naming.Endpoint),
			watchers:  make(map[string]map[*watcher]struct{}),
		},
	}
	if o.Register != nil {
		r.register = *o.Register
	}
	r.register.Wait = false
	r.options.options = *registry.NewOptions()
	return r
}

// Init sets options. Only registry.Timeout has an effect.
func (r *Registry) Init(opts ...registry.Option) error {
	o := r.Options()
	for _, opt := range opts {
		opt(&o)
	}
	r.options.Lock()
	defer r.options.Unlock()
	r.options.options = o
	return nil
}

// Options returns the options that Init has set.
func (r *Registry) Options() registry.Options {
	r.options.Lock()
	defer r.options.Unlock()
	return r.options.options
}

// String returns "naming".
func (r *Registry) String() string { return "naming" }

// Register keeps the nodes of a service registered until Deregister. A node that is
// registered already with the same content costs a comparison and no request.
//
// Register waits until new nodes are in the registry, for registry.Timeout at most. A
// registry that is down is not an error: the nodes are registered when the registry is back.
// The error is [naming.ErrInvalid] if a node can never be registered, such as one with an
// address that clients cannot dial, or [naming.ErrClientClosed].
func (r *Registry) Register(s *registry.Service, opts ...registry.RegisterOption) error {
	if err := r.check(s); err != nil {
		return err
	}
	var o registry.RegisterOptions
	for _, opt := range opts {
		opt(&o)
	}
	ctx, cancel := r.timeout(o.Context)
	defer cancel()
	var errs []error
	for _, n := range s.Nodes {
		errs = append(errs, r.registerNode(ctx, s, n, o.TTL))
	}
	return errors.Join(errs...)
}

func (r *Registry) registerNode(ctx context.Context, s *registry.Service, n *registry.Node, ttl time.Duration) error {
	e, err := endpointOf(s, n)
	if err != nil {
		return err
	}
	key := nodeKey{s.Name, n.Id}
	old, ok := r.nodes.get(key)
	if ok && old.endpoint.Equal(e) && old.ttl == ttl {
		return nil
	}
	reg := r.register
	if ttl != 0 {
		reg.TTL = ttl
	}
	// Not with ctx, which may be done since a node before this one: this one is registered too.
	g, err := r.client.Register(context.Background(), s.Name, e, &reg)
	if err != nil {
		return err
	}
	if err := g.Wait(ctx); err != nil && ctx.Err() == nil {
		return errors.Join(err, g.Close())
	}
	r.nodes.set(key, node{g, e, ttl})
	if ok {
		_ = old.registration.Close() // returns at once: the newer registration has the entry
	}
	return nil
}

// Deregister marks the nodes of a service as draining, waits for the drain delay, and removes
// them. The server must serve until Deregister returns. The error is that of
// [naming.Registration.Close], or registry.ErrNotFound for a node that this Registry has not
// registered. Such a node stays in the registry: it may be another program's.
func (r *Registry) Deregister(s *registry.Service, _ ...registry.DeregisterOption) error {
	if err := r.check(s); err != nil {
		return err
	}
	errs := make([]error, len(s.Nodes))
	var wg sync.WaitGroup
	for i, n := range s.Nodes {
		old, ok := r.nodes.remove(nodeKey{s.Name, n.Id})
		if !ok {
			errs[i] = fmt.Errorf("naming: node %q of %q is not registered here: %w", n.Id, s.Name, registry.ErrNotFound)
			continue
		}
		wg.Go(func() { errs[i] = old.registration.Close() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// GetService returns the nodes of a service that clients should call, as one Service for each
// version. The services belong to the caller. The answer comes from memory once the service
// is known, also while the registry is down.
//
// The error is registry.ErrNotFound if the registry says that there is nothing to call. If the
// registry has not answered within registry.Timeout, the error says why. A service that is not
// there costs a read of the registry.
func (r *Registry) GetService(name string, opts ...registry.GetOption) ([]*registry.Service, error) {
	var o registry.GetOptions
	for _, opt := range opts {
		opt(&o)
	}
	ctx, cancel := r.timeout(o.Context)
	defer cancel()
	var cause error
	for set, err := range r.builder.Watch(ctx, name) {
		switch {
		case err != nil:
			return nil, errors.Join(err, cause)
		case set.Err == nil:
			r.answer(name, set.Endpoints)
			return servicesOf(name, set.Endpoints), nil
		}
		cause = set.Err
		if r.empty(ctx, name) {
			r.answered.set(name, nil)
			return nil, registry.ErrNotFound
		}
	}
	return nil, cause
}

// empty waits until the registry has answered, and reports whether the service has no
// endpoints. It reads the registry once more: the watch may be behind a Register that has just
// returned. It reports false if ctx is done first.
func (r *Registry) empty(ctx context.Context, name string) bool {
	for v, err := range r.client.Watch(ctx, name) { // yields nothing before the answer
		if err != nil {
			return false
		}
		if now, err := r.client.List(ctx, name); err == nil {
			v = now
		}
		return len(v.Endpoints) == 0
	}
	return false
}

// ListServices returns the names of the services that have endpoints, sorted. The other fields
// of the services are empty. The error says why the registry has not answered within
// registry.Timeout. Some codecs read every key of an etcd for that: see backend/etcd.
func (r *Registry) ListServices(opts ...registry.ListOption) ([]*registry.Service, error) {
	if r.client == nil {
		return nil, errNoClient
	}
	var o registry.ListOptions
	for _, opt := range opts {
		opt(&o)
	}
	ctx, cancel := r.timeout(o.Context)
	defer cancel()
	for names, err := range r.client.Services(ctx) {
		if err != nil {
			return nil, err
		}
		services := make([]*registry.Service, len(names))
		for i, name := range names {
			services[i] = &registry.Service{Name: name}
		}
		return services, nil
	}
	return nil, ctx.Err()
}

var errNoClient = fmt.Errorf("%w: New was given a nil Client", naming.ErrInvalid)

// check returns an error for a service that can never be registered.
func (r *Registry) check(s *registry.Service) error {
	switch {
	case r.client == nil:
		return errNoClient
	case s == nil || len(s.Nodes) == 0:
		return fmt.Errorf("%w: a service without nodes", naming.ErrInvalid)
	}
	for _, n := range s.Nodes {
		if n == nil {
			return fmt.Errorf("%w: service %q has a nil node", naming.ErrInvalid, s.Name)
		}
	}
	return nil
}

// timeout returns the context of a call.
func (r *Registry) timeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx == nil {
		ctx = context.Background()
	}
	d := r.Options().Timeout
	if d <= 0 {
		d = DefaultTimeout
	}
	return context.WithTimeout(ctx, d)
}

func (n *lockedNodes) get(key nodeKey) (node, bool) {
	n.Lock()
	defer n.Unlock()
	old, ok := n.open[key]
	return old, ok
}

func (n *lockedNodes) set(key nodeKey, to node) {
	n.Lock()
	defer n.Unlock()
	n.open[key] = to
}

func (n *lockedNodes) remove(key nodeKey) (node, bool) {
	n.Lock()
	defer n.Unlock()
	old, ok := n.open[key]
	delete(n.open, key)
	return old, ok
}

// settle is how long after GetService has returned a set the watchers of the service compare
// the set with the present one. The caller has stored what GetService returned by then.
const settle = time.Second

// answer keeps what GetService is about to return, and has the watchers check it.
//
// go-micro's cache asks GetService and follows a watcher at the same time, without an order
// between the two: a change that comes before the cache has stored the answer is lost, and
// the cache has a server that is gone, or lacks a new one, for a minute.
func (r *Registry) answer(service string, endpoints []naming.Endpoint) {
	r.answered.set(service, endpoints)
	time.AfterFunc(settle, func() {
		for _, w := range r.answered.watchersOf(service) {
			select {
			case w.answers <- endpoints:
			default: // the receiver of a full watcher has not looked at it for a second
			}
		}
	})
}

func (a *lockedAnswers) set(service string, endpoints []naming.Endpoint) {
	a.Lock()
	defer a.Unlock()
	a.endpoints[service] = endpoints
	if len(endpoints) == 0 {
		delete(a.endpoints, service)
	}
}

// join adds a watcher of a service, and returns what GetService last returned.
func (a *lockedAnswers) join(service string, w *watcher) []naming.Endpoint {
	a.Lock()
	defer a.Unlock()
	if a.watchers[service] == nil {
		a.watchers[service] = make(map[*watcher]struct{})
	}
	a.watchers[service][w] = struct{}{}
	return a.endpoints[service]
}

func (a *lockedAnswers) leave(service string, w *watcher) {
	a.Lock()
	defer a.Unlock()
	delete(a.watchers[service], w)
	if len(a.watchers[service]) == 0 {
		delete(a.watchers, service)
	}
}

func (a *lockedAnswers) watchersOf(service string) []*watcher {
	a.Lock()
	defer a.Unlock()
	return slices.Collect(maps.Keys(a.watchers[service]))
}
