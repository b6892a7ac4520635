package prometheusnaming

import (
	"sync"
	"time"

	"github.com/naming-go/naming"
)

// state is what the gauges are computed from.
type state struct {
	mu       sync.Mutex
	services map[string]*service // the services that a hook was called for, by name
}

// service is the state of one service. It is guarded by state.mu.
type service struct {
	registers  bool             // an endpoint was registered
	registered map[string]int   // the number of registrations that have an endpoint in the registry, by ID
	holds      bool             // an endpoint was held
	held       int64            // negative while Released overtakes Held
	withheld   map[string]int64 // by reason, for every reason that there was
	staleSince time.Time        // zero while the endpoints are fresh
	publishes  bool             // a set of addresses was published
	addresses  int64
}

// update calls f with the service that has the name. The caller must not block in f.
func (s *state) update(name string, f func(*service)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.services[name]
	if v == nil {
		v = new(service)
		s.services[name] = v
	}
	f(v)
}

// register counts a registration that has its endpoint in the registry.
func (v *service) register(id string) {
	v.registers = true
	if v.registered == nil {
		v.registered = make(map[string]int)
	}
	v.registered[id]++
}

// unregister counts a registration whose endpoint left the registry. A registration
// that is withdrawn may never have had its endpoint there.
func (v *service) unregister(id string) {
	if v.registered[id] > 1 {
		v.registered[id]--
	} else {
		delete(v.registered, id)
	}
}

// countWithheld adds n to the endpoints that are withheld for a reason.
func (v *service) countWithheld(reason naming.Reason, n int64) {
	if v.withheld == nil {
		v.withheld = make(map[string]int64)
	}
	v.withheld[reasonValue(reason)] += n
}

// reasonValue returns the value of the label reason of a withheld endpoint. Package
// naming treats every reason that it does not know as maintenance.
func reasonValue(r naming.Reason) string {
	if r == naming.FailedCheck {
		return "failed_check"
	}
	return "maintenance"
}

// reading is what the gauges show of one service, or of several together.
type reading struct {
	registers, holds, publishes, stale bool
	registered, held, addresses        int64
	withheld                           map[string]int64
	staleness                          time.Duration
}

// read returns the readings by the name of the service, and the number of services
// whose endpoints are stale. If together is true, there is one reading for all
// services, under the empty name. Nothing is delivered under the lock: a slow
// collector must not delay hooks.
func (s *state) read(now time.Time, together bool) (readings map[string]*reading, stale int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	readings = make(map[string]*reading, len(s.services))
	for name, v := range s.services {
		if together {
			name = ""
		}
		r := readings[name]
		if r == nil {
			r = new(reading)
			readings[name] = r
		}
		r.add(v, now)
		if !v.staleSince.IsZero() {
			stale++
		}
	}
	return readings, stale
}

// add adds a service to r. Held and Released are called from different goroutines and
// may arrive in the wrong order, and so may the calls of Withheld: a count that is
// negative for a moment is shown as 0.
func (r *reading) add(v *service, now time.Time) {
	r.registers = r.registers || v.registers
	r.registered += int64(len(v.registered))
	r.holds = r.holds || v.holds
	r.held += max(v.held, 0)
	for reason, n := range v.withheld {
		if r.withheld == nil {
			r.withheld = make(map[string]int64)
		}
		r.withheld[reason] += max(n, 0)
	}
	r.publishes = r.publishes || v.publishes
	r.addresses += v.addresses
	if !v.staleSince.IsZero() {
		r.stale = true
		r.staleness = max(r.staleness, now.Sub(v.staleSince))
	}
}
