// Package live follows many services of one Client, and reports what changed.
package live

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/naming-go/naming"
)

// Update is a change of a service.
type Update struct {
	// View is the present state of the service. Its slices are shared and must not be
	// modified.
	View naming.View
	// First says that this is the first Update of the service in which View.Synced is
	// true.
	First bool
	// Gone says that the service has left the list of services, and that none of its
	// endpoints is held. View is then the last one.
	Gone bool
	// Changes are the endpoints that changed, sorted by ID. All endpoints are in the
	// Changes of a first Update.
	Changes []Change
}

// Kind says how an endpoint changed.
type Kind string

// The kinds of changes.
const (
	Added    Kind = "added"
	Changed  Kind = "changed" // the content or the state
	Deleted  Kind = "deleted"
	Withheld Kind = "withheld"
	Usable   Kind = "usable" // withheld before
)

// Change is a change of an endpoint.
type Change struct {
	Kind     Kind
	Endpoint naming.Endpoint
	// Withheld is the reason of a change of the kind Withheld.
	Withheld *naming.Withheld
}

// Options says what to follow.
type Options struct {
	// Services are the names of the services. Without names, all services of the registry
	// are followed.
	Services []string
	// OnList, if not nil, is called with the state of the list of services whenever it
	// changed. It is not called if Services are given.
	OnList func(naming.View)
	// OnUpdate is called with each Update. The calls of OnList and OnUpdate are made one
	// at a time.
	OnUpdate func(Update)
}

// Run follows services until ctx is done, and returns ctx.Err(). It returns
// [naming.ErrInvalid] at once for a name that can never be one of a service, and
// [naming.ErrClientClosed] if the Client was closed.
func Run(ctx context.Context, c *naming.Client, opts Options) error {
	r := &run{client: c, opts: opts, services: make(map[string]*service)}
	r.dirty.names = make(map[string]bool)
	r.dirty.signal = make(chan struct{}, 1)
	defer r.close()
	if err := r.start(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.dirty.signal:
		}
		if err := r.update(); err != nil {
			return err
		}
	}
}

// run is one call of Run. Only dirty is used by other goroutines.
type run struct {
	client   *naming.Client
	opts     Options
	list     *naming.Follower // nil if the services are given
	services map[string]*service

	dirty dirty
}

// service is a service that is followed.
type service struct {
	follower *naming.Follower
	view     naming.View
	unlisted bool // the list of services does not have it
}

// dirty is the services that may have changed. The empty name is the list of services.
type dirty struct {
	signal chan struct{} // has room for one

	mu    sync.Mutex
	names map[string]bool
}

func (d *dirty) add(name string) {
	d.mu.Lock()
	d.names[name] = true
	d.mu.Unlock()
	select {
	case d.signal <- struct{}{}:
	default:
	}
}

// take returns the services, sorted.
func (d *dirty) take() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	names := slices.Sorted(maps.Keys(d.names))
	clear(d.names)
	return names
}

func (r *run) start() (err error) {
	if len(r.opts.Services) == 0 {
		r.list, err = r.client.FollowServices(func() { r.dirty.add("") })
		r.dirty.add("")
		return err
	}
	for _, name := range r.opts.Services {
		if err := r.follow(name); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) follow(name string) error {
	if r.services[name] != nil {
		return nil
	}
	f, err := r.client.Follow(name, func() { r.dirty.add(name) })
	if err != nil {
		return err
	}
	r.services[name] = &service{follower: f}
	r.dirty.add(name)
	return nil
}

func (r *run) close() {
	if r.list != nil {
		r.list.Close()
	}
	for _, s := range r.services {
		s.follower.Close()
	}
}

// update reports what changed.
func (r *run) update() error {
	for _, name := range r.dirty.take() {
		if name == "" {
			if err := r.updateList(); err != nil {
				return err
			}
			continue
		}
		if s := r.services[name]; s != nil {
			r.updateService(s)
			r.drop(name, s)
		}
	}
	return nil
}

// updateList follows the services of the list, and no others.
func (r *run) updateList() error {
	v, _, changed := r.list.Current()
	if !changed {
		return nil
	}
	if r.opts.OnList != nil {
		r.opts.OnList(v)
	}
	if !v.Synced {
		return nil
	}
	listed := make(map[string]bool, len(v.Endpoints))
	for _, e := range v.Endpoints {
		listed[e.ID] = true
		if err := r.follow(e.ID); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.services)) {
		s := r.services[name]
		s.unlisted = !listed[name]
		r.drop(name, s)
	}
	return nil
}

// drop reports that a service is gone, once it has left the list and has nothing to show. A
// fault of the registry may empty the list: endpoints that are held are shown as long as a
// client may use them.
func (r *run) drop(name string, s *service) {
	if v := s.view; !s.unlisted || len(v.Endpoints)+len(v.Withheld)+len(v.Held) > 0 {
		return
	}
	s.follower.Close()
	delete(r.services, name)
	r.opts.OnUpdate(Update{View: s.view, Gone: true})
}

func (r *run) updateService(s *service) {
	v, _, changed := s.follower.Current()
	if !changed {
		return
	}
	was := s.view
	s.view = v
	r.opts.OnUpdate(Update{View: v, First: v.Synced && !was.Synced, Changes: Diff(was, v)})
}

// Diff returns the changes of the endpoints from one View of a service to the next, sorted by
// ID.
func Diff(was, is naming.View) []Change {
	if same(was.Endpoints, is.Endpoints) && same(was.Withheld, is.Withheld) {
		return nil
	}
	type state struct {
		endpoint *naming.Endpoint
		withheld *naming.Withheld
	}
	index := func(v naming.View) map[string]state {
		m := make(map[string]state, len(v.Endpoints)+len(v.Withheld))
		for i := range v.Endpoints {
			m[v.Endpoints[i].ID] = state{endpoint: &v.Endpoints[i]}
		}
		for i := range v.Withheld {
			w := &v.Withheld[i]
			m[w.Endpoint.ID] = state{endpoint: &w.Endpoint, withheld: w}
		}
		return m
	}
	before, after := index(was), index(is)
	var changes []Change
	for id, now := range after {
		old, known := before[id]
		c := Change{Endpoint: *now.endpoint, Withheld: now.withheld}
		switch {
		case now.withheld != nil && (old.withheld == nil || !sameReason(old.withheld, now.withheld)):
			c.Kind = Withheld
		case !known:
			c.Kind = Added
		case old.withheld != nil && now.withheld == nil:
			c.Kind = Usable
		case !old.endpoint.Equal(*now.endpoint):
			c.Kind = Changed
		default:
			continue
		}
		changes = append(changes, c)
	}
	for id, old := range before {
		if _, ok := after[id]; !ok {
			changes = append(changes, Change{Kind: Deleted, Endpoint: *old.endpoint})
		}
	}
	slices.SortFunc(changes, func(a, b Change) int {
		if a.Endpoint.ID < b.Endpoint.ID {
			return -1
		}
		return 1
	})
	return changes
}

func sameReason(a, b *naming.Withheld) bool { return a.Reason == b.Reason && a.Detail == b.Detail }

// same reports whether two lists are one. A Follower returns the same list as long as the
// endpoints are the same.
func same[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}
