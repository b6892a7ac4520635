package serve

import (
	"errors"
	"slices"
	"sync"

	"github.com/naming-go/naming"
)

// Readiness answers readiness probes for servers that [Run] and [Announce] keep registered
// (see [Options.Readiness]). It is a handler like that of [ReadyHandler].
//
// A Readiness is ready while every server that counts is ready, and there is at least one.
// A server counts from when it accepts until its endpoint is withdrawn. A server is not ready while
// it has no registration because its health service is not SERVING.
//
// The zero value is ready to use. All methods may be called concurrently. A Readiness must
// not be copied.
type Readiness struct {
	mu            sync.Mutex // guards the fields below
	registrations []*naming.Registration
	missing       int // servers without a registration
}

// Ready returns nil if every server is ready, and otherwise the reasons of all others.
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

// begin counts a server, without a registration, and end removes one. Both of them, and
// replace, accept a nil Readiness.
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

// replace puts the registration g of a server in the place of old. Nil means none.
func (r *Readiness) replace(old, g *naming.Registration) {
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
