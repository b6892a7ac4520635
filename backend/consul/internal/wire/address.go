package wire

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode"

	"github.com/naming-go/naming"
)

// SplitAddr returns the host and the port of an address, if Consul accepts the two and
// if they make the same address again.
func SplitAddr(addr string) (host string, port int, ok bool) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil || host == "" || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return "", 0, false
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		return "", 0, false // Consul refuses the unspecified address
	}
	port, err = strconv.Atoi(p)
	if err != nil || port < 1 || port > 65535 || net.JoinHostPort(host, strconv.Itoa(port)) != addr {
		return "", 0, false
	}
	if naming.CheckAddress(addr) != nil {
		return "", 0, false // a program that reads the entry as another writer's would refuse it
	}
	return host, port, true
}

// address returns the address of an entry of another writer. portName is the name of
// the port to choose, if the entry has several. If there is an error, the address is
// returned as far as the entry has one.
func (e *Entry) address(portName string) (string, error) {
	if path := e.Service.SocketPath; path != "" {
		return "unix:" + path, nil
	}
	host, number := cmp.Or(e.Service.Address, e.Node.Address), e.Port(portName)
	if number == 0 {
		// Consul has services without a port. Nobody can dial such a service, unless
		// the address has more in it than a host.
		return host, naming.CheckAddress(host)
	}
	host, err := PlainHost(host)
	if err == nil && (number < 1 || number > 65535) {
		err = fmt.Errorf("port %d is not from 1 to 65535", number)
	}
	addr := net.JoinHostPort(host, strconv.Itoa(number))
	if err == nil {
		err = naming.CheckAddress(addr)
	}
	return addr, err
}

// Port returns the port of that name, or else the default port.
func (e *Entry) Port(name string) int {
	number := e.Service.Port
	for _, p := range e.Service.Ports {
		switch {
		case name != "" && p.Name == name:
			return p.Port
		case p.Default && number == 0:
			number = p.Port
		}
	}
	return number
}

// PlainHost returns a host in the form that gRPC dials. An IPv6 address loses a pair
// of brackets, which some writers register with it.
func PlainHost(host string) (string, error) {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok {
			if ip, err := netip.ParseAddr(inner); err == nil && ip.Is6() {
				return inner, nil
			}
		}
	}
	if strings.Contains(host, ":") {
		if ip, err := netip.ParseAddr(host); err != nil || !ip.Is6() {
			return host, fmt.Errorf("host %q is neither a name nor an IP address", naming.SafeText(host))
		}
		return host, nil
	}
	if host == "" || strings.ContainsFunc(host, func(r rune) bool {
		return r <= ' ' || r == 0x7f || strings.ContainsRune(`/\?#@%[]{}<>"`, r) || unicode.IsSpace(r)
	}) {
		return host, fmt.Errorf("host %q is neither a name nor an IP address", naming.SafeText(host))
	}
	return host, nil
}
