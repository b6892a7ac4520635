package kratosnaming

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-kratos/kratos/v2/registry"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/resolver"
)

// Options are the options of a [Registry]. The zero value and a nil pointer mean the
// defaults.
type Options struct {
	// Register are the options of the registrations. Wait has no effect: a kratos app
	// whose registrar returns an error does not start, and a registry that is down must
	// not keep a server from serving.
	Register *naming.RegisterOptions

	// Resolver are the options of the discovery: the cache and the panic threshold.
	// The options that concern gRPC's ClientConns have no effect.
	Resolver *resolver.Options

	// Schemes are the schemes of the URL that gives an endpoint its address. The first
	// scheme that an instance has counts, and without any of them the first URL does. An
	// entry without URLs, such as that of a program that does not use kratos, gets a URL
	// with the first scheme. Nil means grpc, grpcs, http, https.
	//
	// With a codec for kratos, Schemes must begin with the schemes of the codec: an
	// entry cannot hold an instance whose address belongs to another URL than the
	// codec's. With etcdcodec.KratosScheme("http", "https"), set http and https.
	Schemes []string

	// Logger gets what an operator should know. Nil means slog.Default().
	Logger *slog.Logger
}

// answerTimeout is how long Register waits for the registry. A shorter time returns
// before a slow registry has the instance, or has refused it. A longer time delays the
// start of programs while the registry is down. It has to be less than kratos's default
// RegistrarTimeout, ten seconds.
const answerTimeout = 2 * time.Second

// removeTimeout bounds the removal of an instance whose app was stopped as it started.
const removeTimeout = 5 * time.Second

// Registry is a registry.Registrar and a registry.Discovery of kratos. All methods may be
// called concurrently. It holds no resources beside its registrations and watchers.
type Registry struct {
	client   *naming.Client
	builder  *resolver.Builder
	register naming.RegisterOptions
	schemes  []string
	log      *slog.Logger

	registrations registrations
}

var (
	_ registry.Registrar = (*Registry)(nil)
	_ registry.Discovery = (*Registry)(nil)
)

// New returns a Registry on c. It sends no request to the registry. Close c after the app
// and the clients that use the Registry have ended.
func New(c *naming.Client, opts *Options) *Registry {
	var o Options
	if opts != nil {
		o = *opts
	}
	r := &Registry{
		client:        c,
		builder:       resolver.NewBuilder(c, o.Resolver),
		schemes:       o.Schemes,
		log:           o.Logger,
		registrations: registrations{open: make(map[key]*registration)},
	}
	if o.Register != nil {
		r.register = *o.Register
		r.register.Wait = false
	}
	if len(r.schemes) == 0 {
		r.schemes = []string{"grpc", "grpcs", "http", "https"}
	}
	if r.log == nil {
		r.log = slog.Default()
	}
	return r
}

// Register announces an instance, and keeps it announced until Deregister is called or the
// Client is closed. If the instance is registered already, Register updates it: in place,
// unless the address has changed.
//
// Register returns when the instance is in the registry, and after two seconds at the
// latest, or when ctx is past its deadline: a registry that is down is not an error, and
// gets the instance when it is back. The error is [naming.ErrInvalid] for an instance
// that can never be registered, such as one without a URL or one that the Store refuses,
// or [naming.ErrClientClosed]. If ctx is canceled, which kratos does when an app is
// stopped as it starts, the instance is removed, and the error is context.Canceled.
func (r *Registry) Register(ctx context.Context, s *registry.ServiceInstance) error {
	if r.client == nil {
		return fmt.Errorf("%w: New was given a nil Client", naming.ErrInvalid)
	}
	e, err := r.endpoint(s)
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	k := key{s.Name, e.ID}
	g := r.registrations.get(k)
	if g != nil && g.addr == e.Addr {
		err = g.Update(wait, e.Metadata)
	}
	if g == nil || g.addr != e.Addr || errors.Is(err, naming.ErrRegistrationClosed) {
		if g, err = r.announce(ctx, k, e); err != nil {
			return err
		}
		if err = g.Wait(wait); errors.Is(err, naming.ErrInvalid) {
			r.withdraw(k, g)
		}
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		r.withdraw(k, g)
		return ctx.Err()
	}
	if errors.Is(err, naming.ErrInvalid) || errors.Is(err, naming.ErrClientClosed) {
		return err
	}
	return nil
}

// announce registers an endpoint, in place of one with the same ID and another address.
func (r *Registry) announce(ctx context.Context, k key, e naming.Endpoint) (*registration, error) {
	reg, err := r.client.Register(ctx, k.service, e, &r.register)
	if err != nil {
		return nil, err
	}
	g := &registration{Registration: reg, addr: e.Addr}
	if old := r.registrations.replace(k, g); old != nil {
		_ = old.Close() // returns at once: the newer registration has the entry
	}
	return g, nil
}

// withdraw removes an endpoint at once, without the draining mark.
func (r *Registry) withdraw(k key, g *registration) {
	r.registrations.remove(k, g)
	ctx, cancel := context.WithTimeout(context.Background(), removeTimeout)
	defer cancel()
	_ = g.Withdraw(ctx) // logs its error
}

// Deregister withdraws an instance in the order that drops no call: the instance is marked
// as draining, clients get the drain delay to turn to other servers, and the instance is
// removed. Deregister returns after that, and when ctx is done. The server has to serve
// until then, as it does in a kratos app.
//
// The error is always nil: App.Stop would not stop the servers otherwise. An instance that
// cannot be removed in time is logged (Warn). It is removed later, or leaves the registry
// when its lease ends. An instance that is not registered is ignored.
func (r *Registry) Deregister(ctx context.Context, s *registry.ServiceInstance) error {
	e, err := r.endpoint(s)
	if err != nil {
		return nil // it was never registered
	}
	g := r.registrations.remove(key{s.Name, e.ID}, nil)
	if g == nil {
		return nil
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_ = g.Close() // logs its error
	}()
	select {
	case <-closed:
	case <-ctx.Done():
		r.log.Warn("naming: an instance is still being withdrawn, and its server may stop too soon",
			"service", s.Name, "id", e.ID, "err", context.Cause(ctx))
	}
	return nil
}

// GetService returns the instances of a service that a client should call, as Watch does.
// It waits until they are known, or until ctx is done. It answers from memory if the
// service is watched, so that a change of this moment may be missing. The slice and its
// instances belong to the caller.
//
// A service without such instances is an error that says why: the registry has none, or
// withholds all, or did not answer within FirstAnswerTimeout of Options.Resolver.
func (r *Registry) GetService(ctx context.Context, service string) ([]*registry.ServiceInstance, error) {
	for set, err := range r.builder.Watch(ctx, service) {
		if err = errors.Join(err, set.Err); err != nil {
			return nil, err
		}
		return r.instances(service, set.Endpoints), nil
	}
	return nil, ctx.Err() // the sequence never ends without an error
}

// registration is a Registration and the address that it was made with.
type registration struct {
	*naming.Registration
	addr string
}

type key struct{ service, id string }

// registrations are the registrations that Deregister has to close.
type registrations struct {
	mu   sync.Mutex
	open map[key]*registration // guarded by mu
}

func (r *registrations) get(k key) *registration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open[k]
}

// replace stores a registration and returns the one before, or nil.
func (r *registrations) replace(k key, g *registration) (old *registration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old = r.open[k]
	r.open[k] = g
	return old
}

// remove removes the registration of a key and returns it, or nil. If g is not nil, remove
// removes only g.
func (r *registrations) remove(k key, g *registration) *registration {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.open[k]
	if old == nil || g != nil && old != g {
		return nil
	}
	delete(r.open, k)
	return old
}
