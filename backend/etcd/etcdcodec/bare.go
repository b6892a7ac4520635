package etcdcodec

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/etcd/internal/entry"
)

// GoZero returns the format of go-zero's etcd publisher:
//
//	greeter.rpc/7587869134945672710 = 127.0.0.1:8080
//
// The format has no metadata: an endpoint with metadata is refused. An endpoint cannot be
// marked as draining. go-zero's IDs are the IDs of leases, in decimal.
func GoZero() *etcd.Codec {
	return &etcd.Codec{Encode: encodeBare, Decode: decodeBare, NoDrainingMark: true}
}

// GoKit returns the format of go-kit's sd/etcdv3, with the keys of its
// convention:
//
//	/services/greeter/1.2.3.4:8080 = 1.2.3.4:8080
//
// The value is an address or a URL. The address of a URL is its host and port, and the URL
// is kept as the member "url" of the endpoint's metadata. Other metadata is refused. An
// endpoint cannot be marked as draining.
func GoKit() *etcd.Codec {
	return &etcd.Codec{Root: "/services/", Encode: encodeGoKit, Decode: decodeGoKit, NoDrainingMark: true}
}

func encodeBare(_ string, e naming.Endpoint) ([]byte, error) {
	if e.Metadata != nil {
		return nil, errors.New("the format has no metadata")
	}
	if !bareAddr(e.Addr) {
		return nil, fmt.Errorf("the format cannot hold the address %q", e.Addr)
	}
	return []byte(e.Addr), nil
}

func decodeBare(_, _ string, value []byte) (e naming.Endpoint, err error) {
	if !bareAddr(string(value)) {
		return e, errNoAddress
	}
	e.ID = "id" // see Codec.Decode: a key of these frameworks has no address with a slash
	e.Addr = string(value)
	return e, nil
}

// bareAddr reports whether s can be an address: host:port or unix:path.
func bareAddr(s string) bool {
	if strings.ContainsAny(s, "{}\"<> \t\r\n\x00") {
		return false
	}
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		return path != ""
	}
	_, port, err := net.SplitHostPort(s)
	return err == nil && port != "" && !strings.Contains(s, "/")
}

func encodeGoKit(service string, e naming.Endpoint) ([]byte, error) {
	var url string
	rest := pop(e.Metadata, "url", &url, isText)
	if url != "" && rest == nil && hostOf(url) == e.Addr {
		return []byte(url), nil
	}
	return encodeBare(service, e)
}

func decodeGoKit(service, tail string, value []byte) (e naming.Endpoint, err error) {
	if host := hostOf(string(value)); host != "" {
		e, err = decodeBare(service, tail, []byte(host))
		e.Metadata = push(nil, "url", entry.AppendString(nil, string(value)), nil)
		return e, err
	}
	return decodeBare(service, tail, value)
}

// hostOf returns the host and port of a URL, and "" if s is not a URL.
func hostOf(s string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || scheme == "" || slices.Contains([]string{"unix", "unix-abstract"}, scheme) {
		return ""
	}
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	return rest[strings.LastIndexByte(rest, '@')+1:]
}
