package gokitnaming

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-kit/kit/sd"

	"github.com/naming-go/naming"
)

// RegistrarOptions are the options of a [Registrar]. The zero value and a nil pointer mean
// the defaults.
type RegistrarOptions struct {
	// Register are the options of the registration. Wait has no effect: see
	// [Registrar.Register].
	Register *naming.RegisterOptions
	// Logger gets the errors, which go-kit's interface cannot return. Nil means
	// slog.Default().
	Logger *slog.Logger
}

// answerTimeout is how long Register waits for the registry. A shorter time returns
// before a slow registry has the endpoint. A longer time delays the start of programs
// while the registry is down.
const answerTimeout = 2 * time.Second

// Registrar is an sd.Registrar of go-kit: it registers one endpoint of a service. All
// methods may be called concurrently.
type Registrar struct {
	client   *naming.Client
	service  string
	endpoint naming.Endpoint
	options  naming.RegisterOptions
	log      *slog.Logger

	registered registered
}

var _ sd.Registrar = (*Registrar)(nil)

// registered is the registration of a Registrar.
type registered struct {
	mu           sync.Mutex
	registration *naming.Registration // guarded by mu; nil: not registered
}

// start returns the registration. The first start makes the registration with register, which
// must not block.
func (r *registered) start(register func() (*naming.Registration, error)) (g *naming.Registration, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.registration == nil {
		r.registration, err = register()
	}
	return r.registration, err
}

// take returns the registration, or nil, and forgets it.
func (r *registered) take() *naming.Registration {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.registration
	r.registration = nil
	return g
}

// NewRegistrar returns a Registrar of an endpoint. It sends no request to the registry.
//
// Addr of e may be a URL, which must have a port. It then becomes the member "url" of the
// metadata, unless the metadata is not an object, and Addr the host and port of the URL.
func NewRegistrar(c *naming.Client, service string, e naming.Endpoint, opts *RegistrarOptions) *Registrar {
	r := &Registrar{client: c, service: service, endpoint: fromInstance(e), log: slog.Default()}
	if opts != nil && opts.Register != nil {
		r.options = *opts.Register
		r.options.Wait = false
	}
	if opts != nil && opts.Logger != nil {
		r.log = opts.Logger
	}
	return r
}

// Register implements sd.Registrar. It announces the endpoint, and keeps it announced until
// Deregister is called or the Client is closed. It does nothing while the endpoint is
// announced.
//
// Register returns when the endpoint is in the registry, and after two seconds at the
// latest: a registry that is down gets the endpoint when it is back. What can never work,
// such as an address that nobody can dial, is logged (Error).
func (r *Registrar) Register() {
	g, err := r.registered.start(func() (*naming.Registration, error) {
		if r.client == nil {
			return nil, fmt.Errorf("%w: NewRegistrar was given a nil Client", naming.ErrInvalid)
		}
		return r.client.Register(context.Background(), r.service, r.endpoint, &r.options)
	})
	if err != nil {
		r.log.Error("naming: register", "service", r.service, "addr", r.endpoint.Addr, "err", naming.SafeError(err))
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	_ = g.Wait(ctx) // the Client logs what is wrong
}

// Deregister implements sd.Registrar. It withdraws the endpoint in the order that drops no
// call: the endpoint is marked as draining, clients get the drain delay to turn to other
// servers, and the endpoint is removed. Call Deregister before the server is stopped, and
// stop the server gracefully after Deregister has returned. It returns within CloseTimeout
// of RegistrarOptions.Register, six seconds by default, also while the registry is down.
//
// Deregister does nothing while the endpoint is not announced. The Client logs an endpoint
// that could not be removed, which leaves the registry when its lease ends.
func (r *Registrar) Deregister() {
	if g := r.registered.take(); g != nil {
		_ = g.Close() // logs its error
	}
}
