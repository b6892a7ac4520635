package gozero

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/zeromicro/go-zero/core/logx"
	"github.com/zeromicro/go-zero/core/proc"
	"github.com/zeromicro/go-zero/zrpc"
	"google.golang.org/grpc"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/resolver"
	"github.com/naming-go/naming/serve"
)

// The defaults of go-zero's section Shutdown, for a configuration that was not loaded from a
// file, and the default of naming.RegisterOptions.DrainDelay.
const (
	defaultWrapUpTime = time.Second
	defaultWaitTime   = 5500 * time.Millisecond
	defaultDrainDelay = time.Second
)

// WithRegistry returns the option of a zrpc client whose target is "naming:///service". Use
// one option for all zrpc clients of a program: they then share watches.
//
// The balancer stays that of RpcClientConf.BalancerName, by default go-zero's p2c_ewma.
// go-zero's balancers are made with gRPC's package balancer/base. So WithRegistry sets
// WithAddresses and NoServiceConfig in a copy of opts. A nil opts means the defaults.
//
// WithRegistry also makes the client non-blocking. A blocking client returns an error, and
// MustNewClient ends the program, if no server answers within three seconds: a program could
// not start while the registry is down. Such a client makes calls as soon as there is a
// server. RpcClientConf.Timeout bounds how long a call waits.
//
// The Client must stay open as long as the zrpc clients. If c is nil, zrpc.NewClient returns
// an error.
func WithRegistry(c *naming.Client, opts *resolver.Options) zrpc.ClientOption {
	var o resolver.Options
	if opts != nil {
		o = *opts
	}
	o.WithAddresses, o.NoServiceConfig = true, true
	resolvers := zrpc.WithDialOption(grpc.WithResolvers(resolver.NewBuilder(c, &o)))
	return join(resolvers, zrpc.WithNonBlock())
}

// join returns an option that sets both. The type of zrpc's options has no name outside of
// go-zero.
func join[T any](a, b func(*T)) func(*T) {
	return func(options *T) {
		a(options)
		b(options)
	}
}

// Publish returns a function for zrpc.NewServer that calls register and then keeps the
// server in the registry as an endpoint of a service, until go-zero's package proc stops the
// process, or c is closed. zrpc calls the function when the server's port is open. A registry
// that is down does not keep the server from serving. A server that cannot open its port is
// never registered.
//
// conf is the configuration of the server. Its section Etcd should be empty. If the section
// is filled in, go-zero registers the server as well, which ends the process if that etcd is
// down.
//
// opts are those of serve.Announce: Addr, ID, Metadata, Register and the others. Publish
// copies them. Nil means the defaults. StopTimeout has no effect, because zrpc stops the
// server. The default of Register.CloseTimeout is nine tenths of conf.Shutdown.WaitTime.
// Health is a health service of the program's own: that of zrpc always says SERVING, and
// both exclude each other (conf.Health).
//
// The error is [naming.ErrInvalid] if the endpoint could never be registered, if nothing says
// at which address clients reach the server, or if conf.Shutdown leaves no time for the drain
// delay: see the documentation of the package. An error that comes later, such as that of a
// health service whose watch ended, is logged with logx.
func Publish(c *naming.Client, service string, conf zrpc.RpcServerConf, register func(*grpc.Server), opts *serve.Options) (func(*grpc.Server), error) {
	o, err := options(c, service, conf, opts)
	if err != nil {
		return nil, fmt.Errorf("naming: publish %q: %w", service, err)
	}
	return func(s *grpc.Server) {
		register(s)
		announce(c, service, o)
	}, nil
}

// announce registers the endpoint, and has package proc withdraw it.
func announce(c *naming.Client, service string, o *serve.Options) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := serve.Announce(ctx, c, service, o); err != nil {
			logx.Errorf("naming: service %q, address %q: %v", service, o.Addr, err)
		}
	}()
	withdraw := func() {
		cancel()
		<-done
	}
	proc.AddWrapUpListener(withdraw)
	// zrpc's Start returns after all shutdown listeners have returned. This one keeps the
	// process alive until the endpoint is removed.
	proc.AddShutdownListener(withdraw)
}

// options returns the options with the defaults of this package. The error is that of
// options with which the endpoint could never be registered or drained.
func options(c *naming.Client, service string, conf zrpc.RpcServerConf, opts *serve.Options) (*serve.Options, error) {
	var o serve.Options
	if opts != nil {
		o = *opts
	}
	var reg naming.RegisterOptions
	if o.Register != nil {
		reg = *o.Register
	}
	o.Register = &reg
	if c == nil {
		return nil, fmt.Errorf("%w: the Client is nil", naming.ErrInvalid)
	}
	if o.Addr == "" {
		addr, err := address(conf.ListenOn)
		if err != nil {
			return nil, err
		}
		o.Addr = addr
	}
	e := naming.Endpoint{ID: o.ID, Addr: o.Addr, Metadata: o.Metadata}
	_, err := naming.Normalize(service, []naming.Change{{Endpoint: e}})
	if err := errors.Join(naming.CheckAddress(o.Addr), err); err != nil {
		return nil, err
	}
	wait := cmp.Or(max(conf.Shutdown.WaitTime, 0), defaultWaitTime)
	if reg.CloseTimeout <= 0 {
		reg.CloseTimeout = wait - wait/10
	}
	return &o, checkStop(max(cmp.Or(reg.DrainDelay, defaultDrainDelay), 0), conf, wait)
}

// checkStop returns an error if the process stops the server before the end of the drain
// delay.
func checkStop(drain time.Duration, conf zrpc.RpcServerConf, wait time.Duration) error {
	wrapUp := cmp.Or(max(conf.Shutdown.WrapUpTime, 0), defaultWrapUpTime)
	switch {
	case drain > wrapUp:
		return fmt.Errorf("%w: go-zero stops the server %v after the signal, before the drain delay of %v is over: set Shutdown.WrapUpTime to %v or more, and Shutdown.WaitTime to more than that",
			naming.ErrInvalid, wrapUp, drain, drain)
	case wait <= wrapUp:
		return fmt.Errorf("%w: go-zero kills the process %v after the signal, when it has just begun to stop the server: set Shutdown.WaitTime to more than %v",
			naming.ErrInvalid, wait, wrapUp)
	}
	return nil
}

// address returns the address at which clients reach a server that listens on listenOn.
func address(listenOn string) (string, error) {
	host, port, err := net.SplitHostPort(listenOn)
	if err != nil {
		return "", fmt.Errorf("%w: ListenOn: %w", naming.ErrInvalid, err)
	}
	if ip, err := netip.ParseAddr(host); host != "" && (err != nil || !ip.IsUnspecified()) {
		return listenOn, nil
	}
	if host = os.Getenv("POD_IP"); host == "" {
		return "", fmt.Errorf("%w: the server listens on all interfaces (%q): set serve.Options.Addr or the environment variable POD_IP to the address at which clients reach it",
			naming.ErrInvalid, listenOn)
	}
	return net.JoinHostPort(host, port), nil
}
