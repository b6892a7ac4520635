package naming

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// maxUnixPath is the longest path of a unix socket on Linux, in bytes.
const maxUnixPath = 107

// CheckAddress returns an error if clients on other machines cannot dial addr. The
// error is [ErrInvalid] and has the address in its text.
//
// A valid address is "host:port" or "[v6]:port" with a host that is not a wildcard and a
// numeric port that is not 0, or "unix:" and a path. A host is an IP address or a DNS
// name in its ASCII form: labels of letters, digits, "-" and "_", the last of which is
// not a number. CheckAddress also refuses an address that [CheckEndpoint] refuses, such
// as one with a control character.
func CheckAddress(addr string) error {
	if why := badAddress(addr); why != "" {
		return fmt.Errorf("%w: address %q: %s", ErrInvalid, cut(addr), why)
	}
	return nil
}

// badAddress returns why addr is not a valid address, or an empty text if it is valid.
func badAddress(addr string) string {
	if err := CheckEndpoint(Endpoint{Addr: addr}); err != nil {
		return err.Error()
	}
	for _, scheme := range []string{"unix:", "unix-abstract:"} {
		if path, ok := strings.CutPrefix(addr, scheme); ok {
			return badPath(path)
		}
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "not host:port"
	}
	if why := badHost(host, strings.HasPrefix(addr, "[")); why != "" {
		return why
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "the port is not a number from 1 to 65535"
	}
	return ""
}

// badPath is badAddress for the path of a unix socket.
func badPath(path string) string {
	// gRPC also accepts "unix:///path".
	rest, slashes := strings.CutPrefix(path, "//")
	switch {
	case strings.Trim(path, "/") == "":
		return "no path"
	case slashes && !strings.HasPrefix(rest, "/"):
		return "not a path: two slashes at its beginning name a host"
	case strings.HasSuffix(path, "/"):
		return "the path is that of a directory"
	case strings.TrimSpace(path) != path:
		return "white space around the path"
	case len(rest) > maxUnixPath:
		return fmt.Sprintf("a path of %d bytes; at most %d are allowed", len(rest), maxUnixPath)
	}
	return ""
}

// badHost is badAddress for a host. brackets says that the host was in brackets.
func badHost(host string, brackets bool) string {
	if host == "" {
		return "no host: clients cannot dial the wildcard address a server listens on"
	}
	ip, err := netip.ParseAddr(host)
	if brackets && (err != nil || !strings.Contains(host, ":")) {
		return "brackets around a host that is not an IPv6 address"
	}
	if err != nil {
		return badHostName(host)
	}
	ip = ip.Unmap()
	switch {
	case ip.IsUnspecified():
		return "clients cannot dial the wildcard address a server listens on"
	case ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "not the address of one host"
	case strings.ContainsAny(ip.Zone(), " /%[]"):
		return "not a zone"
	}
	return ""
}

// badHostName is badAddress for a DNS name.
func badHostName(host string) string {
	name := strings.TrimSuffix(host, ".")
	if len(name) > 253 {
		return "a host name of more than 253 bytes"
	}
	number := false
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return "not a host name"
		}
		number = true
		for i := range len(label) {
			switch c := label[i]; {
			case '0' <= c && c <= '9':
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '-', c == '_':
				number = false
			default:
				return "not a host name"
			}
		}
	}
	if number {
		return "neither an IP address nor a host name"
	}
	return ""
}
