package serve

import (
	"errors"
	"slices"
	"sync"

	"github.com/naming-go/naming"
)

// Readiness is the readiness of the servers that [Run] and [Announce] announce with
// it (see [Options].Readiness): a handler for readiness probes as that of
// [ReadyHandler]. A server is not ready while it has no registration because its
// health service is not SERVING. A server whose Run or Announce has not begun, or has
// ended, does not count, and without any server that counts a Readiness is not ready.
// The zero value is ready to use. All methods may be called concurrently. A Readiness must not be
// copied.
type Readiness struct {
	mu            sync.Mutex
	registrations []*naming.Registration
	missing       int // servers without a registration
}

// Ready returns nil if every server is ready, and otherwise the reasons why not.
func (r *Readiness) Ready() error {
	registrations := r.current()
	if len(registrations) == 0 {
		return errNothing
	}
	var errs []error
	for _, g := range registrations {
		if g == nil {
			errs = append(errs, errNothing)
		} else if err := g.Ready(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

var errNothing = errors.New("naming: no endpoint is registered")

// current returns the registrations, with a nil one if a server has none.
func (r *Readiness) current() []*naming.Registration {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := slices.Clone(r.registrations)
	if r.missing > 0 {
		all = append(all, nil)
	}
	return all
}

// begin notes a server without a registration, and end that it has ended. Both, and
// set, accept a nil Readiness.
func (r *Readiness) begin() { r.count(1) }
func (r *Readiness) end()   { r.count(-1) }

func (r *Readiness) count(n int) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.missing += n
}

// set notes that a server's registration is g in place of old; nil means none.
func (r *Readiness) set(old, g *naming.Registration) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if old != nil {
		r.registrations = slices.DeleteFunc(r.registrations, func(o *naming.Registration) bool { return o == old })
		r.missing++
	}
	if g != nil {
		r.registrations = append(r.registrations, g)
		r.missing--
	}
}
