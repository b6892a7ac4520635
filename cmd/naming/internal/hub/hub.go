// Package hub keeps the present state of all services of one Client in memory, for programs
// that answer many readers: pages, APIs and exporters.
package hub

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/live"
	"github.com/naming-go/naming/migrate"
)

// Options are the options of New. The zero value means the defaults.
type Options struct {
	// Changes is how many changes the timeline keeps. 0 means 10,000.
	Changes int
	// Bytes bounds the endpoints in the timeline, in bytes. 0 means 16 MiB. The newest
	// change is kept even if it is larger.
	Bytes int
}

// Hub keeps the present state of all services, and a timeline of their changes. New makes one.
// All methods may be called concurrently.
type Hub struct {
	run         string // names this Hub among those of other processes
	joined      atomic.Pointer[migrate.Joined]
	subscribers atomic.Int64
	resyncs     atomic.Int64

	state state
}

// state is what a Hub knows.
type state struct {
	mu       sync.RWMutex
	list     naming.View
	services map[string]*Service
	names    []string               // the sorted keys of services; nil if they have to be sorted again
	waiting  map[string]bool        // services of the first list that have not answered; nil before the list
	bridges  map[string]naming.View // by the name of the registry
	version  uint64                 // counts the updates
	timeline timeline
	changed  chan struct{} // closed at the next update
}

// Service is the present state of a service.
type Service struct {
	// View is the state as the Client has it. Its slices are shared and must not be
	// modified. If View.Synced is false, the service is listed and has not answered.
	naming.View
	// Version is the version of the Hub in which the service last changed.
	Version uint64
}

// New returns an empty Hub. Run fills it.
func New(opts Options) *Hub {
	h := &Hub{run: fmt.Sprintf("%08x", rand.Uint32())}
	h.state.services = make(map[string]*Service)
	h.state.bridges = make(map[string]naming.View)
	h.state.changed = make(chan struct{})
	h.state.timeline = timeline{max: cmp.Or(opts.Changes, 10_000), maxBytes: cmp.Or(opts.Bytes, 16<<20)}
	return h
}

// Run follows all services of a Client until ctx is done, and returns ctx.Err(). Call it once.
// joined is nil unless the Client is on two registries. Then joined.Client is the Client.
func (h *Hub) Run(ctx context.Context, c *naming.Client, joined *migrate.Joined) error {
	h.joined.Store(joined)
	return live.Run(ctx, c, live.Options{OnList: h.state.applyList, OnUpdate: h.state.apply})
}

// Wait returns when all services of the first list have answered, or ctx is done.
func (h *Hub) Wait(ctx context.Context) error {
	for {
		filled, changed := h.state.filled()
		if filled {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *state) filled() (filled bool, changed <-chan struct{}) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.waiting != nil && len(s.waiting) == 0, s.changed
}

// applyList applies the list of services.
func (s *state) applyList(v naming.View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.list
	s.list = v
	if v.Synced && s.waiting == nil {
		s.waiting = make(map[string]bool, len(v.Endpoints))
		for _, e := range v.Endpoints {
			s.waiting[e.ID] = true
		}
	}
	if v.Synced {
		for _, e := range v.Endpoints {
			if s.services[e.ID] == nil {
				s.services[e.ID] = &Service{View: naming.View{Service: e.ID}, Version: s.version + 1}
				s.names = nil
			}
		}
	}
	s.publish(statusChanges(was, v))
}

// apply applies an update of a service.
func (s *state) apply(u live.Update) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := u.View.Service
	if u.Gone {
		delete(s.services, name)
		delete(s.waiting, name)
		s.names = nil
		s.publish([]Change{{Service: name, Kind: Gone}})
		return
	}
	service := s.services[name]
	if service == nil {
		service = new(Service)
		s.services[name], s.names = service, nil
	}
	changes := changesOf(service.View, u)
	service.View, service.Version = u.View, s.version+1
	if u.View.Synced {
		delete(s.waiting, name)
	}
	s.publish(changes)
}

// record adds changes that no View has.
func (s *state) record(changes ...Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range changes {
		if service := s.services[c.Service]; service != nil {
			service.Version = s.version + 1
		}
	}
	s.publish(changes)
}

// publish adds changes to the timeline and wakes all that wait. mu is held.
func (s *state) publish(changes []Change) {
	now := time.Now()
	for _, c := range changes {
		c.Time = now
		s.timeline.add(c)
	}
	s.version++
	close(s.changed)
	s.changed = make(chan struct{})
}

// sortedNames returns the names of all services. The slice must not be modified. mu is held
// for writing.
func (s *state) sortedNames() []string {
	if s.names == nil {
		s.names = slices.AppendSeq(make([]string, 0, len(s.services)), maps.Keys(s.services))
		slices.Sort(s.names)
	}
	return s.names
}
