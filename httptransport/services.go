package httptransport

import (
	"fmt"
	"sync"
	"time"

	"github.com/naming-go/naming"
)

// services are the services that a Transport follows.
type services struct {
	transport *Transport // constant

	mu     sync.RWMutex
	byName map[string]*service // guarded by mu
	closed bool                // guarded by mu
	timer  *time.Timer         // of sweep; nil: no services; guarded by mu
}

func (r *services) init(t *Transport) {
	r.transport = t
	r.byName = make(map[string]*service)
}

// acquire returns a service, which is started. The caller releases it.
func (r *services) acquire(name string) (*service, error) {
	s := r.find(name)
	if s == nil {
		var victim *service
		var err error
		s, victim, err = r.add(name)
		if victim != nil {
			victim.close()
		}
		if err != nil {
			return nil, err
		}
	}
	if err := s.start(); err != nil {
		r.drop(s)
		s.release()
		return nil, err
	}
	return s, nil
}

// find returns the service with this name, with one user more, or nil.
func (r *services) find(name string) *service {
	r.mu.RLock()
	defer r.mu.RUnlock()
	s := r.byName[name]
	if s != nil {
		s.users.Add(1)
	}
	return s
}

// add adds a service, unless another goroutine has done so. It returns the service with
// one user more, and the service that had to go, which the caller closes.
func (r *services) add(name string) (s, victim *service, err error) {
	if err := naming.CheckService(name); err != nil {
		return nil, nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, nil, ErrClosed
	}
	if s = r.byName[name]; s == nil {
		if limit := r.transport.options.MaxServices; len(r.byName) >= limit {
			if victim = r.leastUseful(); victim == nil {
				return nil, nil, fmt.Errorf("naming: service %q: %d other services are in use, and Options.MaxServices is %d", naming.SafeText(name), limit, limit)
			}
			delete(r.byName, victim.name)
		}
		s = newService(r.transport, name)
		r.byName[name] = s
		if r.timer == nil {
			r.timer = time.AfterFunc(r.period(), r.sweep)
		}
	}
	s.users.Add(1)
	return s, victim, nil
}

// leastUseful returns the service without users that was not used for the longest time, one
// without endpoints if there is any. Names that somebody made up have no endpoints. r.mu is
// locked.
func (r *services) leastUseful() *service {
	var best *service
	var bestEmpty bool
	for _, s := range r.byName {
		if s.users.Load() > 0 {
			continue
		}
		empty := s.isEmpty()
		if best == nil || empty && !bestEmpty || empty == bestEmpty && s.used.Load() < best.used.Load() {
			best, bestEmpty = s, empty
		}
	}
	return best
}

// drop removes a service that could not be started.
func (r *services) drop(s *service) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byName[s.name] == s {
		delete(r.byName, s.name)
	}
}

// period is the time between two sweeps. A service is released within a fifth more than
// its idle time.
func (r *services) period() time.Duration {
	return max(r.transport.options.ServiceIdleTime/5, time.Millisecond)
}

// sweep releases the services that were not used for long.
func (r *services) sweep() {
	for _, s := range r.removeIdle(time.Now().Add(-r.transport.options.ServiceIdleTime)) {
		s.close()
	}
}

// removeIdle removes the services whose last use was before a time, and returns them.
func (r *services) removeIdle(before time.Time) (idle []*service) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	for name, s := range r.byName {
		if s.users.Load() == 0 && s.used.Load() < before.UnixNano() {
			delete(r.byName, name)
			idle = append(idle, s)
		}
	}
	if len(r.byName) > 0 {
		r.timer.Reset(r.period())
	} else {
		r.timer = nil
	}
	return idle
}

func (r *services) all() (all []*service) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, s := range r.byName {
		all = append(all, s)
	}
	return all
}

// close keeps services from being added, and returns all. The caller closes them.
func (r *services) close() []*service {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*service
	for name, s := range r.byName {
		delete(r.byName, name)
		all = append(all, s)
	}
	r.closed = true
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
	return all
}
