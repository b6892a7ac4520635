// Package serve keeps a server in the registry exactly while the server can take calls,
// and stops the server without a failed call:
//
//	s := grpc.NewServer()
//	h := health.NewServer()
//	healthpb.RegisterHealthServer(s, h)
//	...
//	err := serve.Run(ctx, c, "greeter", s, lis, &serve.Options{Health: h})
//
// [Run] serves a gRPC server until ctx is done, and then stops the server. [RunHTTP] does
// the same for a server of net/http. [Announce] is for servers that are served and stopped
// by other means. [Readiness] answers readiness probes. [Options.Host] finds the address
// of a server that listens on all interfaces. [Options.FillFromEnv] reads options from the
// environment.
//
// # The order
//
// The endpoint is registered after the server has begun to accept connections, and not
// before the server is ready: Options.Health says SERVING, and Options.Ready answers 2xx.
// When the server is not ready, the endpoint is removed. When the server is ready again,
// the endpoint is registered again. The server goes on meanwhile.
//
// When ctx is done, these steps follow, each when the one before is complete:
//
//  1. The endpoint is marked as draining. Clients turn to other endpoints.
//  2. The server serves on for the drain delay, until the mark has reached the last
//     client.
//  3. The endpoint is removed from the registry. ([naming.Registration.Close] does steps
//     1 to 3.)
//  4. Run shuts the health service down, for clients that ask the server itself. An
//     earlier shutdown would have such clients drop a server that others still need.
//  5. The server stops gracefully: it takes no new calls and ends the calls in progress,
//     for [Options.StopTimeout] at most.
//  6. Calls that are left then are cut off.
package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/naming-go/naming"
)

// DefaultStopTimeout is the default of [Options.StopTimeout].
const DefaultStopTimeout = 10 * time.Second

// Options are the options of [Run], [RunHTTP] and [Announce]. The zero value and a nil
// pointer mean the defaults.
type Options struct {
	// Addr is the address that clients dial. Empty means the address of the listener,
	// if clients can dial that (see [Addr]). A server that listens on all interfaces
	// needs Addr or Host: only the operator knows the address at which others reach
	// the server. Announce has no listener and needs Addr.
	Addr string

	// Host, if not nil, returns the host that clients dial, for a server that listens
	// on all interfaces: see [HostFromEnv], [HostOfInterface] and [HostOnRouteTo]. The
	// port is the listener's. Host is called once, before the server serves, and has
	// ten seconds. The address is logged. Host has no effect if Addr is set or if the
	// listener has an address that clients can dial.
	Host HostFunc

	// ID and Metadata are those of the [naming.Endpoint].
	ID       string
	Metadata json.RawMessage

	// Health is the server's health service, such as a *health.Server. The endpoint
	// is in the registry only while Health says SERVING for HealthService. The empty
	// name stands for the server as a whole.
	//
	// Nil means that the endpoint is in the registry while the server serves. If the
	// server has a health service, Run returns an error if Health and Ready are nil.
	// Run shuts Health down after the endpoint was removed. RunHTTP does not, because
	// Health is then the service of another server.
	Health        healthgrpc.HealthServer
	HealthService string

	// Ready, if not nil, is the program's own readiness check. The endpoint is in the
	// registry only while Ready answers "GET /" with a status of 200 to 299. Nil means
	// that the endpoint is in the registry while the server serves. With Health and
	// Ready, both have to agree.
	//
	// Ready is called within the process, every ReadyEvery, by one goroutine at a
	// time. A call that panics or takes longer than ReadyEvery, but at least a second,
	// is a call that failed. The context of its request ends then. The next call
	// begins after the last one has returned. A change is logged with the answer.
	//
	// Ready must not ask Readiness, which is ready only after the endpoint was
	// registered: the error is [naming.ErrInvalid]. The same is true of Health.
	Ready http.Handler

	// ReadyEvery is the time between two calls of Ready. The endpoint is registered or
	// withdrawn once in that time at most. 0 means [DefaultReadyEvery]. The range is
	// 10 milliseconds to an hour.
	//
	// A shorter time follows the program sooner. A handler that changes its mind all
	// the time then costs the registry more writes.
	ReadyEvery time.Duration

	// Register are the options of the registration. Wait has no effect here: a
	// registry that is down must not keep a server from serving.
	Register *naming.RegisterOptions

	// OnRegistration, if not nil, is called with every new Registration, also with
	// the one after the server was not ready for a while. Use the
	// Registration for Status, Update, Drain and Resume, and leave Close to this
	// package. OnRegistration must not block.
	OnRegistration func(*naming.Registration)

	// Readiness, if not nil, follows the registration, for readiness probes. One
	// Readiness can serve several servers. It is ready while all of them are.
	Readiness *Readiness

	// Logger gets the address that Host chose, and the changes of Ready. Nil means
	// slog.Default().
	Logger *slog.Logger

	// StopTimeout is how long Run and RunHTTP let calls in progress go on
	// after the endpoint was withdrawn:
	//
	//	time from the end of ctx until Run or RunHTTP returns
	//	    <= DrainDelay + time to remove the endpoint + StopTimeout
	//
	// A longer timeout lets long calls end, and delays the end of the process, which a
	// supervisor may kill first. A shorter timeout cuts more calls off. 0 means
	// [DefaultStopTimeout]. A negative value cuts calls off at once.
	StopTimeout time.Duration
}

// Run serves s on lis, and keeps the server's address in the registry as an endpoint of a
// service while the server can take calls. When ctx is done, Run withdraws the endpoint
// and stops the server, in the order above, and returns nil if all of that succeeded.
//
// Run returns an error before anything is served if it could never work, such as a
// listener on all interfaces without Options.Addr and Options.Host. That error is [naming.ErrInvalid]. A
// registry that is down is not an error: the server serves, and is registered when the
// registry is back.
//
// Run returns before ctx is done in three cases: Serve returned, with its error, which is
// nil if somebody else stopped the server; the watch of the health service ended; or c
// was closed before the endpoint could be registered. In each case Run goes through the
// same steps first, so that connected clients lose nothing, and no endpoint is left.
//
// The error after ctx is done is that of an endpoint that could not be withdrawn, which
// stays listed until its lease ends, or of calls that were cut off. The error of such
// calls is a [context.DeadlineExceeded]. Run does not wait for handlers that go on although their
// call was cut off.
//
// The listener is closed when Run returns, with an error or without.
func Run(ctx context.Context, c *naming.Client, service string, s *grpc.Server, lis net.Listener, opts *Options) error {
	o, err := opts.forServer(ctx, c, service, lis)
	if err == nil {
		err = o.checkHealth(s)
	}
	if err != nil {
		_ = lis.Close()
		return fmt.Errorf("naming: serve %q: %w", service, err)
	}
	return o.run(ctx, c, service, lis, server{
		serve: func(l *listener) error { return s.Serve(l) },
		stop: func() error {
			if h, ok := o.Health.(interface{ Shutdown() }); ok {
				h.Shutdown()
			}
			return stop(s, o.StopTimeout)
		},
	})
}

// server is a server of any kind, as run sees it.
type server struct {
	serve       func(*listener) error // returns nil if somebody stopped the server
	withdrawing func()                // called on a goroutine of its own when the endpoint begins to be withdrawn; may be nil
	stop        func() error          // called after the endpoint was withdrawn
}

// run serves s on lis and announces its endpoint until ctx is done. The options were
// checked.
func (o *Options) run(ctx context.Context, c *naming.Client, service string, lis net.Listener, s server) error {
	accepting := make(chan struct{})
	served := make(chan error, 1)
	go func() { served <- s.serve(&listener{Listener: lis, accepting: accepting}) }()
	select {
	case <-accepting:
	case err := <-served:
		return err
	}

	announceCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	if s.withdrawing != nil {
		context.AfterFunc(announceCtx, s.withdrawing)
	}
	announced := make(chan error, 1)
	go func() { announced <- o.announce(announceCtx, c, service) }()

	// Whichever ends first, the endpoint is withdrawn before anything else. An
	// errgroup.Group would return only one of the errors, and would not say which
	// goroutine ended first.
	var err, serveErr error
	select {
	case err = <-announced:
	case serveErr = <-served:
		cancel()
		err = <-announced
	}
	return errors.Join(serveErr, err, s.stop())
}

// stop stops a server gracefully, and cuts off the calls that are left after a timeout.
func stop(s *grpc.Server, timeout time.Duration) error {
	if timeout <= 0 {
		s.Stop()
		return nil
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.GracefulStop()
	}()
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-done:
		return nil
	case <-t.C:
		s.Stop()
		return fmt.Errorf("naming: calls in progress were cut off after %v: %w", timeout, context.DeadlineExceeded)
	}
}

// Announce keeps Options.Addr in the registry as an endpoint of a service while
// Options.Health says SERVING and Options.Ready answers 2xx. It is the part of [Run] for a
// server that is served and stopped by other means. The server has to accept connections already. When ctx is done,
// Announce withdraws the endpoint, which takes the drain delay, and returns. The server
// has to serve until then.
//
// The error after ctx is done is that of [naming.Registration.Close]. Before that,
// Announce returns an error if it could never work ([naming.ErrInvalid]), if c was
// closed, or if the watch of the health service ended.
func Announce(ctx context.Context, c *naming.Client, service string, opts *Options) error {
	o := opts.withDefaults()
	if err := o.check(c, service); err != nil {
		return fmt.Errorf("naming: announce in %q: %w", service, err)
	}
	return o.announce(ctx, c, service)
}

// withDefaults returns the options with the defaults in place of zero values.
func (o *Options) withDefaults() Options {
	var d Options
	if o != nil {
		d = *o
	}
	if d.StopTimeout == 0 {
		d.StopTimeout = DefaultStopTimeout
	}
	if d.ReadyEvery == 0 {
		d.ReadyEvery = DefaultReadyEvery
	}
	if d.Logger == nil {
		d.Logger = slog.Default()
	}
	var reg naming.RegisterOptions
	if d.Register != nil {
		reg = *d.Register
	}
	reg.Wait = false
	d.Register = &reg
	return d
}

// forServer returns the options with what follows from the server's listener. The error is
// that of options with which Run could never work.
func (o *Options) forServer(ctx context.Context, c *naming.Client, service string, lis net.Listener) (Options, error) {
	d := o.withDefaults()
	if d.Addr == "" {
		addr, err := d.advertise(ctx, service, lis)
		if err != nil {
			return d, err
		}
		d.Addr = addr
	}
	return d, d.check(c, service)
}

// checkHealth returns an error if the server has a health service that the options ignore.
func (o *Options) checkHealth(s *grpc.Server) error {
	if _, ok := s.GetServiceInfo()[healthgrpc.Health_ServiceDesc.ServiceName]; ok && o.Health == nil && o.Ready == nil {
		return fmt.Errorf("%w: the server has a health service, and Options.Health and Options.Ready are nil", naming.ErrInvalid)
	}
	return nil
}

// endpoint returns the endpoint to register.
func (o *Options) endpoint() naming.Endpoint {
	return naming.Endpoint{ID: o.ID, Addr: o.Addr, Metadata: o.Metadata}
}

// check returns the error that Register would return. Register may be called much later.
func (o *Options) check(c *naming.Client, service string) error {
	if c == nil {
		return fmt.Errorf("%w: the Client is nil", naming.ErrInvalid)
	}
	if err := naming.CheckAddress(o.Addr); err != nil {
		return err
	}
	if err := o.checkReady(); err != nil {
		return err
	}
	_, err := naming.Normalize(service, []naming.Change{{Endpoint: o.endpoint()}})
	return err
}

// announce is Announce with options that were checked.
func (o *Options) announce(ctx context.Context, c *naming.Client, service string) error {
	health := watchHealth(o.Health, o.HealthService, o.Readiness)
	defer health.stop()
	ready := watchHealth(o.prober(service), "", o.Readiness)
	defer ready.stop()
	o.Readiness.begin()
	defer o.Readiness.end()
	a := announcement{options: o, client: c, service: service}
	defer a.forget()
	for {
		if err := a.follow(ctx, health, ready); err != nil {
			return err
		}
		select {
		case <-health.news:
		case <-ready.news:
		case <-health.ended:
			err := fmt.Errorf("naming: health service of %q: watch of %q ended: %w", service, o.HealthService, health.err)
			return errors.Join(err, a.withdraw())
		case <-ready.ended:
			return errors.Join(fmt.Errorf("naming: readiness of %q: %w", service, ready.err), a.withdraw())
		case <-ctx.Done():
			return a.withdraw()
		}
	}
}

// announcement is the registration of a server, as long as the server has one. One
// goroutine uses it.
type announcement struct {
	options *Options
	client  *naming.Client
	service string
	reg     *naming.Registration // nil: not registered
}

// follow registers or withdraws the endpoint, until the registration agrees with the
// watches or ctx is done.
func (a *announcement) follow(ctx context.Context, health, ready *healthWatch) error {
	serving := func() bool { return health.serving() && ready.serving() }
	for now := serving(); ctx.Err() == nil && now != (a.reg != nil); now = serving() {
		if now {
			return a.register(ctx)
		}
		// Close logs its error, and the endpoint leaves with its lease at the latest.
		// It takes the drain delay: the server may be ready by its end.
		_ = a.withdraw()
		a.forget()
	}
	return nil
}

// register registers the endpoint.
func (a *announcement) register(ctx context.Context) (err error) {
	if a.reg, err = a.client.Register(ctx, a.service, a.options.endpoint(), a.options.Register); err != nil {
		a.reg = nil
		return err
	}
	a.options.Readiness.replace(nil, a.reg)
	if a.options.OnRegistration != nil {
		a.options.OnRegistration(a.reg)
	}
	return nil
}

// withdraw closes the registration, if there is one.
func (a *announcement) withdraw() error {
	if a.reg == nil {
		return nil
	}
	return a.reg.Close()
}

// forget removes the registration from Options.Readiness.
func (a *announcement) forget() {
	a.options.Readiness.replace(a.reg, nil)
	a.reg = nil
}

// Addr returns the address of a listener as clients dial it: "host:port", or "unix:" and
// the absolute path of a socket. The error is [naming.ErrInvalid] and names the address
// if clients cannot dial the address as it is. A listener on all interfaces has such an
// address: Addr cannot know which of the machine's addresses clients can reach.
func Addr(lis net.Listener) (string, error) {
	a := lis.Addr()
	addr := a.String()
	if a.Network() == "unix" {
		if name, ok := strings.CutPrefix(addr, "@"); ok {
			addr = "unix-abstract:" + name
		} else if abs, err := filepath.Abs(addr); addr != "" && err == nil {
			addr = "unix:" + abs
		}
	}
	if err := naming.CheckAddress(addr); err != nil {
		return "", fmt.Errorf("clients cannot dial the address of the listener: %w", err)
	}
	return addr, nil
}

// listener closes accepting at the first call of Accept. Close has an effect once.
type listener struct {
	net.Listener
	once, closed sync.Once
	accepting    chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	l.once.Do(func() { close(l.accepting) })
	return l.Listener.Accept()
}

func (l *listener) Close() (err error) {
	l.closed.Do(func() { err = l.Listener.Close() })
	return err
}

// accepted reports whether Accept was called.
func (l *listener) accepted() bool {
	select {
	case <-l.accepting:
		return true
	default:
		return false
	}
}
