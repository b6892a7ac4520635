package kitexnaming

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/loadbalance"
	"github.com/cloudwego/kitex/pkg/loadbalance/lbcache"
	"github.com/cloudwego/kitex/pkg/rpcinfo"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/resolver"
)

const (
	// idleTime is how long a Resolver watches a service that nobody resolves. kitex
	// resolves a service every five seconds until no call came for 15 to 30 seconds. A
	// client that reads less often than idleTime gets each answer from a new watch.
	idleTime = time.Minute
	// unusedTime is longer than kitex reads a service for a balancer that no call uses:
	// twice the default of ExpireInterval, and once that of RefreshInterval.
	unusedTime = 40 * time.Second
	// maxWatches bounds the services that a Resolver watches. One service more ends the
	// watch of the service that was resolved longest ago.
	maxWatches = 4096
)

// resolvers counts the Resolvers of the process, for their names.
var resolvers atomic.Int64

// NewResolver returns a Resolver for kitex's client.WithResolver. The opts are those of
// package resolver. FirstAnswerTimeout, PanicThreshold, CacheDir, CacheMaxAge and Logger
// have a meaning here, and nil means the defaults. All methods may be called concurrently.
//
// Make one Resolver for each naming.Client, and use it for any number of kitex clients:
// kitex keeps one cache of balancers for each Resolver until the program ends. A Resolver
// watches a service until nobody has resolved it for a minute, and needs no Close. Keep the
// naming.Client open as long as the kitex clients: after the naming.Client was closed they
// keep their instances, without further changes.
//
// Resolve returns the present instances from memory, without a request. The first call for
// a service waits for the registry, until ctx is done and for FirstAnswerTimeout at most.
// The error has the reason: the service has no endpoints, all endpoints are withheld, or
// the registry has not answered yet. Callers share the instances, and must not modify them.
//
// The name of each Resolver is unique. kitex shares balancers between clients by the name
// of the Resolver, so that two Resolvers of one name would mix up their registries.
func NewResolver(c *naming.Client, opts *resolver.Options) discovery.Resolver {
	r := newResolver(resolver.NewBuilder(c, opts).Watch)
	r.push = r.balancers(lbcache.Options{})
	return r
}

// newResolver returns a Resolver that pushes nothing.
func newResolver(follow func(context.Context, string) iter.Seq2[resolver.Set, error]) *clientResolver {
	return &clientResolver{
		follow: follow,
		name:   fmt.Sprintf("naming-%d", resolvers.Add(1)),
		push:   func(string) {},
		open:   openWatches{most: maxWatches, byService: make(map[string]*watch)},
	}
}

// clientResolver implements kitex's discovery.Resolver.
type clientResolver struct {
	follow func(ctx context.Context, service string) iter.Seq2[resolver.Set, error]
	name   string
	push   func(service string) // has kitex read a service

	open openWatches
}

// Name implements kitex's discovery.Resolver.
func (r *clientResolver) Name() string { return r.name }

// Target implements kitex's discovery.Resolver: the name of the service.
func (r *clientResolver) Target(_ context.Context, target rpcinfo.EndpointInfo) string {
	return target.ServiceName()
}

// Resolve implements kitex's discovery.Resolver.
func (r *clientResolver) Resolve(ctx context.Context, service string) (discovery.Result, error) {
	w, isNew := r.open.use(service, ctx.Value(pushKey{}) != nil)
	if isNew {
		go r.run(w)
		go r.attend(w)
	}
	select {
	case <-w.known:
	case <-ctx.Done():
		return discovery.Result{}, fmt.Errorf("naming: resolve %q: %w", service, context.Cause(ctx))
	}
	a := w.answer.Load()
	return a.result, a.err
}

// run keeps the answer of a watch up to date.
func (r *clientResolver) run(w *watch) {
	for set, err := range r.follow(w.ctx, w.service) {
		if err != nil {
			r.end(w, err)
			return
		}
		a := &answer{err: set.Err}
		if len(set.Endpoints) > 0 {
			a = &answer{result: discovery.Result{Cacheable: true, CacheKey: w.service, Instances: instances(set.Endpoints)}}
		}
		w.set(a)
	}
}

// end ends a watch whose sequence ended with err. An answer without an error stays until
// the watch is idle.
func (r *clientResolver) end(w *watch, err error) {
	if a := w.answer.Load(); a != nil && a.err == nil {
		return
	}
	if w.ctx.Err() != nil {
		err = context.Cause(w.ctx)
	}
	r.open.remove(w)
	w.set(&answer{err: fmt.Errorf("naming: resolve %q: %w", w.service, err)})
	w.cancel(nil)
}

// attend pushes the changes of a watch, and ends the watch when it is idle. It is not
// part of run: kitex calls the program's event handlers in a push.
func (r *clientResolver) attend(w *watch) {
	select {
	case <-w.known:
	case <-w.ctx.Done():
		return
	}
	idle := time.NewTimer(idleTime)
	defer idle.Stop()
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-w.changed:
			if r.open.mayPush(w) {
				r.push(w.service)
			}
		case <-idle.C:
			left := r.open.removeIdle(w)
			if left <= 0 {
				w.cancel(nil)
				return
			}
			idle.Reset(left)
		}
	}
}

// balancers returns a push for clientResolver. kitex keeps the balancers of its default
// policy by the name of the Resolver (see NewBalancerFactory in kitex's package lbcache),
// so that the push finds those of the program's clients.
func (r *clientResolver) balancers(opts lbcache.Options) (push func(service string)) {
	opts.Cacheable = true
	factory := sync.OnceValue(func() *lbcache.BalancerFactory {
		return lbcache.NewBalancerFactory(r, loadbalance.NewWeightedBalancer(), opts)
	})
	ctx := context.WithValue(context.Background(), pushKey{}, true)
	return func(service string) {
		b, err := factory().Get(ctx, rpcinfo.NewEndpointInfo(service, "", nil, nil))
		if err == nil {
			b.Refresh()
		}
	}
}

// pushKey is a key of the context in which a push resolves. kitex resolves in this context
// only if it has no balancer for the service, and then makes one.
type pushKey struct{}

// openWatches are the services that are watched.
type openWatches struct {
	sync.Mutex
	most      int               // constant: how many there may be
	byService map[string]*watch // the mutex also guards the times of each watch
}

// watch is the watch of a service.
type watch struct {
	service string
	ctx     context.Context
	cancel  context.CancelCauseFunc
	answer  atomic.Pointer[answer]
	known   chan struct{} // closed after the first answer
	changed chan struct{} // has an element after a later answer

	used   time.Time // guarded by openWatches: when the service was last resolved
	pushed time.Time // guarded by openWatches: when a push last made a balancer
}

// answer is what Resolve returns.
type answer struct {
	result discovery.Result
	err    error
}

// set sets the answer. One goroutine calls it.
func (w *watch) set(a *answer) {
	if w.answer.Swap(a) == nil {
		close(w.known)
		return
	}
	select {
	case w.changed <- struct{}{}:
	default: // the push that is due reads this answer
	}
}

// use returns the watch of a service. The caller runs a new watch.
func (o *openWatches) use(service string, byPush bool) (w *watch, isNew bool) {
	o.Lock()
	defer o.Unlock()
	w = o.byService[service]
	if isNew = w == nil; isNew {
		if len(o.byService) >= o.most {
			o.evict()
		}
		w = &watch{service: service, known: make(chan struct{}), changed: make(chan struct{}, 1)}
		w.ctx, w.cancel = context.WithCancelCause(context.Background())
		o.byService[service] = w
	}
	w.used = time.Now()
	if byPush {
		w.pushed = w.used
	}
	return w, isNew
}

// evict ends the watch that was used longest ago. The mutex is locked.
func (o *openWatches) evict() {
	var oldest *watch
	for _, w := range o.byService {
		if oldest == nil || w.used.Before(oldest.used) {
			oldest = w
		}
	}
	delete(o.byService, oldest.service)
	oldest.cancel(errTooMany)
}

// errTooMany is the error of a service whose watch ended before its first answer.
var errTooMany = errors.New("too many other services are in use")

// mayPush reports whether kitex may have a balancer of the service that calls use. After a
// push has made a balancer, kitex resolves the service for unusedTime in any case. Without
// mayPush, a service that changes often would be watched for ever.
func (o *openWatches) mayPush(w *watch) bool {
	o.Lock()
	defer o.Unlock()
	return w.used.Sub(w.pushed) > unusedTime
}

// removeIdle removes a watch that is idle. It returns how long the watch is in use at
// least otherwise.
func (o *openWatches) removeIdle(w *watch) (left time.Duration) {
	o.Lock()
	defer o.Unlock()
	left = idleTime - time.Since(w.used)
	if left <= 0 {
		o.delete(w)
	}
	return left
}

// remove removes a watch.
func (o *openWatches) remove(w *watch) {
	o.Lock()
	defer o.Unlock()
	o.delete(w)
}

// delete removes a watch. The mutex is locked.
func (o *openWatches) delete(w *watch) {
	if o.byService[w.service] == w {
		delete(o.byService, w.service)
	}
}
