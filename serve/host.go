package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/naming-go/naming"
)

// HostFunc returns the host at which clients reach a server that listens on all interfaces:
// an IP address or a DNS name, without a port and without brackets. lis is the server's
// listener. A HostFunc may use the network until ctx is done. [Options.Host] is one.
//
// Every error makes [Run] and [RunHTTP] return [naming.ErrInvalid] before anything is
// served. A server that nobody reaches must not be registered.
type HostFunc func(ctx context.Context, lis net.Listener) (host string, err error)

// hostTimeout bounds a call of a HostFunc.
const hostTimeout = 10 * time.Second

// HostFromEnv returns the host that an environment variable names. In Kubernetes the
// downward API sets such a variable to the address of the pod:
//
//	env:
//	- name: POD_IP
//	  valueFrom: {fieldRef: {fieldPath: status.podIP}}
//
// The error is [naming.ErrInvalid] if the variable is not set, empty, or not a host that
// clients can dial. A loopback address is accepted, because somebody wrote it.
func HostFromEnv(name string) HostFunc {
	return func(context.Context, net.Listener) (string, error) {
		host := os.Getenv(name)
		if host == "" {
			return "", fmt.Errorf("%w: the environment variable %s is not set or empty: set it to the address at which clients reach this server", naming.ErrInvalid, name)
		}
		if err := checkHost(host); err != nil {
			return "", fmt.Errorf("the environment variable %s is not a host: %w", name, err)
		}
		return host, nil
	}
}

// checkHost returns an error for a host that clients cannot dial at any port.
func checkHost(host string) error { return naming.CheckAddress(net.JoinHostPort(host, "1")) }

// HostOfInterface returns the address of a network interface, such as eth0. IPv4 comes
// first: an IPv6 address is taken only from an interface without an IPv4 address. Link-local
// addresses do not count (RFC 3927, RFC 4291), since clients of other links cannot dial them.
//
// The error is [naming.ErrInvalid] if the interface does not exist, has no address, or has
// more than one of the family: the error then lists them, so that the operator can write the
// right one in Options.Addr. A loopback address is an error too, unless the interface is the
// loopback interface itself.
func HostOfInterface(name string) HostFunc {
	return func(context.Context, net.Listener) (string, error) {
		host, err := hostOfInterface(name)
		if err != nil {
			return "", fmt.Errorf("%w: interface %q: %w", naming.ErrInvalid, name, err)
		}
		return host, nil
	}
}

func hostOfInterface(name string) (string, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return "", fmt.Errorf("%w: the interfaces are %s", err, interfaceNames())
	}
	list, err := i.Addrs()
	if err != nil {
		return "", err
	}
	var ips []netip.Addr
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			ips = append(ips, p.Addr().Unmap())
		}
	}
	return chooseHost(ips, i.Flags&net.FlagLoopback != 0)
}

// interfaceNames returns the names of the machine's interfaces.
func interfaceNames() string {
	list, err := net.Interfaces()
	if err != nil {
		return "unknown"
	}
	var names []string
	for _, i := range list {
		names = append(names, i.Name)
	}
	return strings.Join(names, ", ")
}

// chooseHost returns the address to advertise among those of an interface. loopback says
// that a loopback address is what the operator asked for.
func chooseHost(ips []netip.Addr, loopback bool) (string, error) {
	ips = slices.DeleteFunc(slices.Clone(ips), func(ip netip.Addr) bool { return ip.IsLinkLocalUnicast() })
	isV6 := func(ip netip.Addr) bool { return !ip.Is4() }
	if v4 := slices.DeleteFunc(slices.Clone(ips), isV6); len(v4) > 0 {
		ips = v4
	}
	switch {
	case len(ips) == 0:
		return "", errors.New("has no address that clients of other machines can dial: set Options.Addr")
	case len(ips) > 1:
		var all []string
		for _, ip := range ips {
			all = append(all, ip.String())
		}
		return "", fmt.Errorf("has more than one address: set Options.Addr to one of %s", strings.Join(all, ", "))
	case ips[0].IsLoopback() && !loopback:
		return "", fmt.Errorf("has the loopback address %v, which only this machine can dial: set Options.Addr", ips[0])
	}
	return ips[0].String(), nil
}

// HostOnRouteTo returns the local address of the route to another machine, such as the
// registry at "etcd.example.com:2379": the address from which that machine would get a
// connection. Clients that share a network with the registry reach the server there. A
// machine behind a NAT has another address for the outside, which this function cannot know.
//
// The function connects a UDP socket, which sends nothing. It asks the DNS for a host name.
// The error is [naming.ErrInvalid] if the machine has no route, and for a loopback address:
// an agent on the same machine, such as Consul's, says nothing about the way of clients.
func HostOnRouteTo(addr string) HostFunc {
	return func(ctx context.Context, _ net.Listener) (string, error) {
		ip, err := localAddr(ctx, addr)
		if err != nil {
			return "", fmt.Errorf("%w: route to %q: %w: name host:port of another machine, or set Options.Addr", naming.ErrInvalid, addr, err)
		}
		return ip.String(), nil
	}
}

func localAddr(ctx context.Context, addr string) (netip.Addr, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "udp", addr)
	if err != nil {
		return netip.Addr{}, err
	}
	defer func() { _ = conn.Close() }()
	a, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		return netip.Addr{}, fmt.Errorf("the local address is %v", conn.LocalAddr())
	}
	ip := a.AddrPort().Addr().Unmap()
	switch {
	case ip.IsLoopback():
		return ip, fmt.Errorf("the local address is %v, which only this machine can dial", ip)
	case ip.IsLinkLocalUnicast():
		return ip, fmt.Errorf("the local address is %v, which only machines of the same link can dial", ip)
	}
	return ip, nil
}

// advertise returns the address that clients dial.
func (o *Options) advertise(ctx context.Context, service string, lis net.Listener) (string, error) {
	addr, err := Addr(lis)
	if err == nil {
		return addr, nil
	}
	port, ok := wildcardPort(lis.Addr())
	switch {
	case !ok:
		return "", fmt.Errorf("%w: set Options.Addr", err)
	case o.Host == nil:
		return "", fmt.Errorf("%w: set Options.Addr, or Options.Host", err)
	}
	ctx, cancel := context.WithTimeout(ctx, hostTimeout)
	defer cancel()
	host, err := o.Host(ctx, lis)
	if err != nil {
		if !errors.Is(err, naming.ErrInvalid) {
			err = fmt.Errorf("%w: %w: set Options.Addr", naming.ErrInvalid, err)
		}
		return "", fmt.Errorf("Options.Host: %w", err)
	}
	addr = net.JoinHostPort(host, port)
	if err := naming.CheckAddress(addr); err != nil {
		return "", fmt.Errorf("Options.Host: %w: set Options.Addr", err)
	}
	o.Logger.Info("naming: address chosen for a listener on all interfaces", "service", service, "addr", addr, "listener", lis.Addr().String())
	return addr, nil
}

// wildcardPort returns the port of the address of a listener on all interfaces.
func wildcardPort(a net.Addr) (port string, ok bool) {
	if !strings.HasPrefix(a.Network(), "tcp") {
		return "", false
	}
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return "", false
	}
	if host == "" {
		return port, true
	}
	ip, err := netip.ParseAddr(host)
	return port, err == nil && ip.Unmap().IsUnspecified()
}
