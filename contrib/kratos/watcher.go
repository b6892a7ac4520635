package kratosnaming

import (
	"context"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/go-kratos/kratos/v2/registry"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/resolver"
)

// Watch returns a watcher of the instances that a client of a service should call:
// draining and withheld instances are left out, and held ones are used if nothing else is.
// It sends no request to the registry before the first Next, and all watchers share one
// watch of the service. The error is [naming.ErrInvalid] for an invalid name.
//
// The first Next returns when the service has instances. Every further Next returns when
// the instances have changed, and skips states between. They are sorted by ID. An empty slice means that the
// registry has no instances, or withholds all of them. An outage of the registry changes
// nothing. Each slice and its instances belong to the caller.
//
// Next returns an error after Stop and when ctx is done (context.Canceled, at which
// kratos's clients stop calling Next), and after the Client was closed
// ([naming.ErrClientClosed]). Stop returns at once, may be called more than once and
// concurrently with Next, and returns nil. A watcher whose ctx is done needs no Stop.
func (r *Registry) Watch(ctx context.Context, service string) (registry.Watcher, error) {
	if err := naming.CheckService(service); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &watcher{registry: r, service: service, ctx: ctx, cancel: cancel}
	w.sets.next, w.sets.stop = iter.Pull2(r.builder.Watch(ctx, service))
	context.AfterFunc(ctx, w.sets.end)
	return w, nil
}

// watcher is a registry.Watcher.
type watcher struct {
	registry *Registry
	service  string
	ctx      context.Context
	cancel   context.CancelFunc
	sets     sets
}

// sets are what the mutex guards: the functions of a pulled sequence must not be called
// concurrently. Next holds the mutex while it waits, until ctx is done at the latest.
type sets struct {
	mu   sync.Mutex
	next func() (resolver.Set, error, bool) // guarded by mu
	stop func()                             // guarded by mu
	last []naming.Endpoint                  // guarded by mu; nil: nothing is known
}

// Next implements registry.Watcher: see [Registry.Watch].
func (w *watcher) Next() ([]*registry.ServiceInstance, error) {
	endpoints, err := w.sets.pull(w.ctx)
	if err != nil {
		return nil, err
	}
	return w.registry.instances(w.service, endpoints), nil
}

// Stop implements registry.Watcher: see [Registry.Watch].
func (w *watcher) Stop() error {
	w.cancel()
	return nil
}

// pull returns the endpoints of the next set that differs from the last one. It skips sets
// without endpoints until one had endpoints: an unknown set must not look like an empty
// one.
func (s *sets) pull(ctx context.Context) ([]naming.Endpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		set, err, ok := s.next()
		if err != nil {
			s.stop() // the sequence waits for it
			return nil, err
		}
		if !ok { // the error was returned before
			return nil, naming.ErrClientClosed
		}
		list := set.Endpoints
		slices.SortFunc(list, func(a, b naming.Endpoint) int { return strings.Compare(a.ID, b.ID) })
		if s.last == nil && len(list) == 0 || s.last != nil && slices.EqualFunc(s.last, list, sameInstance) {
			continue
		}
		s.last = append([]naming.Endpoint{}, list...) // not nil
		return s.last, nil
	}
}

// sameInstance reports whether two endpoints are the same instance of kratos, which has no
// draining mark.
func sameInstance(a, b naming.Endpoint) bool {
	a.Draining = b.Draining
	return a.Equal(b)
}

// end ends the sequence.
func (s *sets) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop()
}
