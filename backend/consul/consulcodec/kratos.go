package consulcodec

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/consul/internal/wire"
)

// Kratos returns the format of kratos's Consul registry:
//
//	ID               1
//	Name             greeter
//	Address, Port    127.0.0.1, 8000
//	Tags             version=v1
//	Meta             zone: a
//	TaggedAddresses  http: http://127.0.0.1:8000, grpc: grpc://127.0.0.1:9000
//
// The address of an entry is the address of its URL with scheme grpc, or else grpcs.
// Without such a URL it is the service's address. The version becomes the member
// "version" of the metadata, unless Meta has another version or there are several.
// Other tags become the member "tags". The "weight" of Meta, a string there, becomes
// the member "weight", a number. URLs other than the URL of gRPC with the service's
// address are kept as the member "endpoints" of "@entry".
//
// A Store puts the tag of the version, the weight in Meta, and the URLs. If the
// metadata has no URLs, the Store puts the URL of gRPC. It puts no URL if the address
// of the endpoint is not host:port.
func Kratos() *consul.Codec {
	return &consul.Codec{Format: &wire.Format{Decode: decodeKratos, Encode: encodeKratos}}
}

const versionTag = "version="

func decodeKratos(entry *wire.Entry, ep *naming.Endpoint) error {
	m := entry.Members()
	m.Number("weight")
	if at := onlyTag(m.Tags, versionTag); at >= 0 {
		version := m.Tags[at][len(versionTag):]
		if version == "" || m.Says("version", version) {
			m.Tags = slices.Delete(slices.Clone(m.Tags), at, at+1)
		}
	}
	urls := slices.Sorted(maps.Values(entry.Service.TaggedAddresses))
	// kratos takes the address of a service from its first URL, so that URL goes first.
	own := func(raw string) bool { addr, err := hostPort(raw); return err == nil && addr == ep.Addr }
	if at := slices.IndexFunc(urls, own); at > 0 {
		raw := urls[at]
		urls = slices.Insert(slices.Delete(urls, at, at+1), 0, raw)
	}
	if len(urls) > 0 && !(len(urls) == 1 && urls[0] == grpcURL(ep.Addr)) {
		m.SetAsideEndpoints(urls)
	}
	addr, err := kratosAddr(urls)
	if err != nil {
		return err
	}
	if addr != "" {
		ep.Addr = addr
	}
	ep.Metadata = m.Metadata()
	return nil
}

// onlyTag returns the index of the only tag that begins with prefix, -1 if there is no
// such tag or more than one.
func onlyTag(tags []string, prefix string) int {
	at := -1
	for i, tag := range tags {
		if strings.HasPrefix(tag, prefix) {
			if at >= 0 {
				return -1
			}
			at = i
		}
	}
	return at
}

// kratosAddr returns the address that gRPC dials, empty if no URL has one.
func kratosAddr(urls []string) (string, error) {
	for _, scheme := range []string{"grpc://", "grpcs://"} {
		for _, raw := range urls {
			if strings.HasPrefix(raw, scheme) {
				return hostPort(raw)
			}
		}
	}
	return "", nil
}

// hostPort returns the host and port of a URL.
func hostPort(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", err
	}
	if u.Hostname() == "" || u.Port() == "" || !utf8.ValidString(u.Host) {
		return "", fmt.Errorf("no host and port in %.100q", raw)
	}
	return u.Host, nil
}

func grpcURL(addr string) string { return (&url.URL{Scheme: "grpc", Host: addr}).String() }

func encodeKratos(ep naming.Endpoint, r *api.AgentServiceRegistration) []string {
	members, tags, urls := wire.Parts[string](ep.Metadata)
	for _, raw := range kratosURLs(urls, ep.Addr) {
		u, err := url.Parse(raw)
		if err != nil || r.TaggedAddresses[u.Scheme].Address != "" {
			continue
		}
		if r.TaggedAddresses == nil {
			r.TaggedAddresses = make(map[string]api.ServiceAddress)
		}
		port, _ := strconv.ParseUint(u.Port(), 10, 16)
		r.TaggedAddresses[u.Scheme] = api.ServiceAddress{Address: raw, Port: int(port)}
	}
	if w, ok := wire.Weight(members); ok {
		r.Meta["weight"] = w
	}
	if slices.ContainsFunc(tags, func(tag string) bool { return strings.HasPrefix(tag, versionTag) }) {
		return nil
	}
	version, _ := wire.Text(members, "version")
	return []string{versionTag + version}
}

// kratosURLs returns the URLs to put: those of the metadata if they still have the
// address of the endpoint, or else the URL of gRPC.
func kratosURLs(urls []string, endpointAddr string) []string {
	addr, err := kratosAddr(urls)
	if addr == "" && len(urls) > 0 {
		addr, err = hostPort(urls[0])
	}
	if err == nil && addr == endpointAddr {
		return urls
	}
	if _, _, ok := wire.SplitAddr(endpointAddr); ok {
		return []string{grpcURL(endpointAddr)}
	}
	return nil
}
