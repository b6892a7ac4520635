// Package serve keeps a gRPC server registered exactly while it can
// take calls, and stops it in the order that drops none:
//
//	s := grpc.NewServer()
//	h := health.NewServer()
//	healthpb.RegisterHealthServer(s, h)
//	...
//	err := serve.Run(ctx, c, "greeter", s, lis, &serve.Options{Health: h})
//
// # The order
//
// The endpoint is put into the registry after the server has begun to accept
// connections, and not before its health service says SERVING. It is withdrawn
// when the health service says anything else, and put there again once it says
// SERVING again; the server goes on meanwhile.
//
// When ctx is done, these steps follow, each when the one before is complete:
//
//  1. The endpoint is marked as draining: clients turn to others.
//  2. The server serves on for the drain delay, until the last client has
//     heard of it.
//  3. The endpoint is removed from the registry. (The three are what
//     [naming.Registration.Close] does.)
//  4. The health service is shut down, for those who ask it directly. It is not
//     done earlier: it would have clients that check health drop a server that
//     others still need.
//  5. The server stops gracefully: it takes no more calls and ends those in
//     progress, for [Options.StopTimeout] at most.
//  6. What is left then is cut off.
package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
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

// Options are the options of [Run] and [Announce]. The zero value, and a nil
// pointer, mean the defaults.
type Options struct {
	// Addr is the address that clients dial. Empty means the address of the
	// listener, if that is one that clients can dial (see [Addr]): a server
	// that listens on all interfaces has to say under which address others
	// reach it.
	Addr string

	// ID and Metadata are those of the [naming.Endpoint].
	ID       string
	Metadata json.RawMessage

	// Health is the server's health service, such as a *health.Server. The
	// endpoint is in the registry only while it says SERVING for
	// HealthService; the empty name stands for the server as a whole.
	//
	// Nil means that the endpoint is in the registry while the server serves.
	// Run takes that for a mistake if the server has a health service.
	Health        healthgrpc.HealthServer
	HealthService string

	// Register are the options of the registration. Wait has no effect here: a
	// registry that is down does not keep a server from serving.
	Register *naming.RegisterOptions

	// OnRegistration, if not nil, is called with every Registration that is
	// made, also that after the health service was not SERVING for a while.
	// It is for Status, Update, Drain and Resume, and must not block; closing
	// is done here.
	OnRegistration func(*naming.Registration)

	// Readiness, if not nil, is kept up to date with the registration, for
	// readiness probes. One Readiness can serve several servers: it is ready
	// while all of them are.
	Readiness *Readiness

	// StopTimeout is how long Run lets calls in progress go on after the
	// endpoint was withdrawn. 0 means [DefaultStopTimeout]; a negative value
	// means that they are cut off at once.
	StopTimeout time.Duration
}

// Run serves s on lis, and keeps its address in r as an endpoint of a service
// while it can take calls. When ctx is done it withdraws the endpoint and stops
// the server, in the order above, and returns nil if all went well.
//
// What can never work is an error before anything is served, and is
// [naming.ErrInvalid]: a listener on all interfaces without Options.Addr, say.
// A registry that is down is no error: the server serves, and is announced when
// the registry is back.
//
// Run returns before ctx is done if the server does not serve any more, with
// the error of Serve, which is nil if somebody else stopped the server; if the
// health service ends to tell how it stands; or if r was closed before the
// endpoint could be announced. In each case it goes through the same steps
// first, so that connected clients lose nothing, and no endpoint is left behind.
//
// The error when ctx is done tells of an endpoint that could not be withdrawn,
// which stays listed until its lease ends, or of calls that were cut off; the
// latter is a [context.DeadlineExceeded]. Handlers that go on although their
// call was cut off are not waited for.
//
// The listener is closed when Run returns, whatever it returns.
func Run(ctx context.Context, c *naming.Client, service string, s *grpc.Server, lis net.Listener, opts *Options) error {
	o := opts.orDefaults()
	if o.Addr == "" {
		addr, err := Addr(lis)
		if err != nil {
			_ = lis.Close()
			return fmt.Errorf("naming: serve %q: %w: set Options.Addr", service, err)
		}
		o.Addr = addr
	}
	_, hasHealth := s.GetServiceInfo()[healthgrpc.Health_ServiceDesc.ServiceName]
	err := o.check(c, service)
	if err == nil && hasHealth && o.Health == nil {
		err = fmt.Errorf("%w: the server has a health service, and Options.Health is nil", naming.ErrInvalid)
	}
	if err != nil {
		_ = lis.Close()
		return fmt.Errorf("naming: serve %q: %w", service, err)
	}

	accepting := make(chan struct{})
	served := make(chan error, 1)
	go func() { served <- s.Serve(&listener{Listener: lis, accepting: accepting}) }()
	select {
	case <-accepting:
	case err := <-served:
		return err
	}

	announceCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	announced := make(chan error, 1)
	go func() { announced <- o.announce(announceCtx, c, service) }()

	// Whichever ends first, the endpoint is withdrawn before anything else.
	var serveErr error
	select {
	case err = <-announced:
	case serveErr = <-served:
		cancel()
		err = <-announced
	}
	if h, ok := o.Health.(interface{ Shutdown() }); ok {
		h.Shutdown()
	}
	return errors.Join(serveErr, err, stop(s, o.StopTimeout))
}

// stop stops a server gracefully, and not so gracefully after a timeout.
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

// Announce is the part of [Run] for a server that is served and stopped by
// other means: it keeps Options.Addr in r as an endpoint of a service while
// Options.Health says SERVING. The server has to accept connections already.
// When ctx is done Announce withdraws the endpoint, which takes the propagation
// time, and returns; the server has to serve until then.
//
// The error is that of [naming.Registration.Close] when ctx is done. Before that
// it tells of what can never work ([naming.ErrInvalid]), of a Client that was
// closed, or of a health service that ended to tell how it stands.
func Announce(ctx context.Context, c *naming.Client, service string, opts *Options) error {
	o := opts.orDefaults()
	if err := o.check(c, service); err != nil {
		return fmt.Errorf("naming: announce in %q: %w", service, err)
	}
	return o.announce(ctx, c, service)
}

func (o *Options) orDefaults() Options {
	var d Options
	if o != nil {
		d = *o
	}
	if d.StopTimeout == 0 {
		d.StopTimeout = DefaultStopTimeout
	}
	var reg naming.RegisterOptions
	if d.Register != nil {
		reg = *d.Register
	}
	reg.Wait = false
	d.Register = &reg
	return d
}

func (o *Options) endpoint() naming.Endpoint {
	return naming.Endpoint{ID: o.ID, Addr: o.Addr, Metadata: o.Metadata}
}

// check finds what would be an error of Register, which may be called much
// later.
func (o *Options) check(c *naming.Client, service string) error {
	if c == nil {
		return fmt.Errorf("%w: the Client is nil", naming.ErrInvalid)
	}
	if err := naming.CheckAddress(o.Addr); err != nil {
		return err
	}
	_, err := naming.Normalize(service, []naming.Change{{Endpoint: o.endpoint()}})
	return err
}

func (o *Options) announce(ctx context.Context, c *naming.Client, service string) error {
	w := watchHealth(o.Health, o.HealthService)
	defer w.stop()
	o.Readiness.begin()
	defer o.Readiness.end()
	var reg *naming.Registration
	defer func() { o.Readiness.set(reg, nil) }()
	for {
		switch serving := w.serving(); {
		case ctx.Err() != nil: // below
		case serving && reg == nil:
			var err error
			if reg, err = c.Register(ctx, service, o.endpoint(), o.Register); err != nil {
				return err
			}
			o.Readiness.set(nil, reg)
			if o.OnRegistration != nil {
				o.OnRegistration(reg)
			}
		case !serving && reg != nil:
			// Close logs its error, and the lease does what it could not.
			_ = reg.Close()
			o.Readiness.set(reg, nil)
			reg = nil
			continue // it took a while
		}
		var err error
		select {
		case <-w.news:
			continue
		case <-w.ended:
			err = fmt.Errorf("naming: health service of %q: watch of %q ended: %w", service, o.HealthService, w.err)
		case <-ctx.Done():
		}
		if reg != nil {
			err = errors.Join(err, reg.Close())
		}
		return err
	}
}

// Addr returns the address of a listener as clients dial it: "host:port", or
// "unix:" and the absolute path of a socket. The error is [naming.ErrInvalid]
// and names the address if clients cannot dial it as it is, such as that of a
// listener on all interfaces: which of the machine's addresses clients can
// reach is nothing that can be found out here.
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

// listener closes accepting when it is first asked for a connection.
type listener struct {
	net.Listener
	once      sync.Once
	accepting chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	l.once.Do(func() { close(l.accepting) })
	return l.Listener.Accept()
}
