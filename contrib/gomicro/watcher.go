package gomicro

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"

	"go-micro.dev/v4/registry"

	"github.com/naming-go/naming"
)

// Watch returns a Watcher of what clients should call, of one service with
// registry.WatchService, and otherwise of all services. It sends no request to the registry.
//
// The Watcher of one service begins with what has changed since GetService last returned the
// service, or with all nodes. A Watcher of all services begins with all nodes. It keeps a
// watch for every service that it has seen.
//
// The error is [naming.ErrInvalid].
func (r *Registry) Watch(opts ...registry.WatchOption) (registry.Watcher, error) {
	var o registry.WatchOptions
	for _, opt := range opts {
		opt(&o)
	}
	if r.client == nil {
		return nil, errNoClient
	}
	if o.Context == nil {
		o.Context = context.Background()
	}
	ctx, cancel := context.WithCancel(o.Context)
	w := &watcher{
		registry: r, ctx: ctx, cancel: cancel,
		results: make(chan *registry.Result),
		answers: make(chan []naming.Endpoint, 16),
	}
	if o.Service == "" {
		go w.followAll()
		return w, nil
	}
	if err := naming.CheckService(o.Service); err != nil {
		cancel()
		return nil, err
	}
	known := r.answered.join(o.Service, w)
	go func() {
		defer r.answered.leave(o.Service, w)
		w.follow(o.Service, known)
	}()
	return w, nil
}

// watcher implements go-micro's registry.Watcher.
type watcher struct {
	registry *Registry
	ctx      context.Context // done when the Watcher has ended
	cancel   context.CancelFunc
	results  chan *registry.Result
	answers  chan []naming.Endpoint // of GetService, a while ago
}

// Next returns the next change, as one Service with one node. The Result belongs to the
// caller. The action is "create", "update" or "delete". After Stop, and after Close of the
// Client, the error is registry.ErrWatcherStopped. A registry that is down is not an error.
func (w *watcher) Next() (*registry.Result, error) {
	select {
	case <-w.ctx.Done():
		return nil, registry.ErrWatcherStopped
	case res := <-w.results:
		return res, nil
	}
}

// Stop ends the Watcher. It may be called more than once.
func (w *watcher) Stop() { w.cancel() }

// followAll follows every service that the registry lists, until the watcher is stopped. It goes
// on to follow a service that has left the list, because the nodes of the service may be held.
func (w *watcher) followAll() {
	defer w.cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	followed := make(map[string]bool)
	for names, err := range w.registry.client.Services(w.ctx) {
		if err != nil {
			return
		}
		for _, name := range names {
			if !followed[name] {
				followed[name] = true
				wg.Go(func() { w.follow(name, nil) })
			}
		}
	}
}

// follow sends the changes of a service, beginning with what has changed since old, until the
// watcher is stopped or the Client is closed.
func (w *watcher) follow(service string, old []naming.Endpoint) {
	known := byID(old)
	sets := w.sets(service)
	for {
		select {
		case now, ok := <-sets:
			if !ok {
				return
			}
			w.send(changes(service, known, now))
			known = now
		case answer := <-w.answers:
			w.send(changes(service, byID(answer), known))
		}
	}
}

// sets returns a channel of the sets of a service, by ID. It is closed at the end of the
// watcher. A receiver that is slow misses sets.
func (w *watcher) sets(service string) <-chan map[string]naming.Endpoint {
	sets := make(chan map[string]naming.Endpoint)
	go func() {
		defer close(sets)
		defer w.cancel()
		first := true
		for set, err := range w.registry.builder.Watch(w.ctx, service) {
			if err != nil {
				return
			}
			// At first, a set without endpoints may mean that the registry has not answered.
			if first && set.Err != nil && !w.registry.empty(w.ctx, service) {
				continue
			}
			first = false
			select {
			case sets <- byID(set.Endpoints):
			case <-w.ctx.Done():
				return
			}
		}
	}()
	return sets
}

func (w *watcher) send(results []*registry.Result) {
	for _, res := range results {
		select {
		case w.results <- res:
		case <-w.ctx.Done():
			return
		}
	}
}

func byID(endpoints []naming.Endpoint) map[string]naming.Endpoint {
	m := make(map[string]naming.Endpoint, len(endpoints))
	for _, e := range endpoints {
		m[e.ID] = e
	}
	return m
}

// changes returns the results that lead from one set to another, deletions last: go-micro's
// cache would otherwise be empty when all nodes are replaced.
func changes(service string, from, to map[string]naming.Endpoint) (results []*registry.Result) {
	var gone []naming.Endpoint
	for _, e := range sorted(to) {
		old, ok := from[e.ID]
		switch {
		case !ok:
			results = append(results, result("create", service, e))
		case versionOf(old) != versionOf(e):
			// go-micro has a list of nodes for each version.
			results = append(results, result("create", service, e))
			gone = append(gone, old)
		case !sameNode(old, e):
			results = append(results, result("update", service, e))
		}
	}
	for _, e := range sorted(from) {
		if _, ok := to[e.ID]; !ok {
			gone = append(gone, e)
		}
	}
	for _, e := range gone {
		results = append(results, result("delete", service, e))
	}
	return results
}

// sameNode reports whether two endpoints are the same node for go-micro, which has no place
// for the draining mark.
func sameNode(a, b naming.Endpoint) bool {
	a.Draining, b.Draining = false, false
	return a.Equal(b)
}

func result(action, service string, e naming.Endpoint) *registry.Result {
	return &registry.Result{Action: action, Service: serviceOf(service, e)}
}

func sorted(m map[string]naming.Endpoint) []naming.Endpoint {
	return slices.SortedFunc(maps.Values(m), func(a, b naming.Endpoint) int { return cmp.Compare(a.ID, b.ID) })
}
