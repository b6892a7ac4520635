package etcdcodec

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/etcd/internal/entry"
)

// Kratos returns the format of kratos's etcd registry, in its default namespace:
//
//	/microservices/greeter/1 = {"id":"1","name":"greeter","version":"v1","metadata":{"zone":"a","weight":"30"},"endpoints":["grpc://127.0.0.1:9000"],"draining":false}
//
// It is KratosScheme("grpc", "grpcs"): for servers without TLS, and for clients with
// TLS and without.
//
// The version of an entry becomes the member "version" of the endpoint's metadata. The
// entry's metadata is a map of strings. Its member "weight", which kratos's selectors
// read, becomes a number in the endpoint's metadata. A weight that does not parse as a
// number stays a string. Kratos gets the weight rounded to an integer of at least 1. The
// rest of an endpoint's metadata is in the map's member "naming.metadata", as JSON. The
// rest of an entry, such as further endpoints, is in the metadata's member "@entry", as
// with [etcd.Default].
//
// A Store writes the member "draining", which kratos ignores: true for an endpoint that
// drains. An entry without the member is kratos's own, and the endpoint has NoDrainingMark set.
// An endpoint without an address is refused.
func Kratos() *etcd.Codec { return KratosScheme("grpc", "grpcs") }

// KratosScheme returns the format of [Kratos] for the endpoints of a scheme, such
// as "grpcs" for servers with TLS, or "http".
//
// The endpoints of an entry are URLs. The codec writes one URL, with the scheme. It reads
// the address from the first URL with the scheme. Without such a URL, it looks for each of
// the others in turn. A "grpc" URL with the older mark of TLS, the parameter
// isSecure=true, counts as "grpcs", and such an "http" URL as "https". An entry without a
// URL of any of the schemes is malformed: kratos itself has no endpoint for such an
// entry.
//
// A kratos client with TLS uses only grpcs, and a client without TLS uses only grpc.
func KratosScheme(scheme string, others ...string) *etcd.Codec {
	k := kratos{append([]string{scheme}, others...)}
	return &etcd.Codec{Root: "/microservices/", Encode: k.encode, Decode: k.decode}
}

type kratos struct{ schemes []string }

type kratosEntry struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	Version   string            `json:"version"`
	Metadata  map[string]string `json:"metadata"`
	Endpoints []string          `json:"endpoints"`
	Draining  entry.Mark        `json:"draining"`
}

// endpoints returns the URLs that the codec writes.
func (k kratos) endpoints(addr string) []string { return []string{k.schemes[0] + "://" + addr} }

func (k kratos) encode(service string, e naming.Endpoint) ([]byte, error) {
	if e.Addr == "" {
		return nil, errNoAddress
	}
	endpoints := k.endpoints(e.Addr)
	metadata, extra := entry.RevealMembers(e.Metadata, func(rest json.RawMessage, name string, m json.RawMessage) bool {
		switch name {
		case "endpoints":
			// The URLs that the entry had are written again if they still have the address.
			var came []string
			if json.Unmarshal(m, &came) != nil || k.addr(came) != e.Addr || slices.Equal(came, endpoints) {
				return false
			}
			endpoints = came
			return true
		case "version":
			return isText(m) && full(rest, name)
		}
		return !entry.IsOneOf(name, kratosMembers)
	})
	if len(extra) == 0 || extra["endpoints"] == nil {
		endpoints = k.endpoints(e.Addr)
	}
	delete(extra, "endpoints")
	var version string
	metadata = pull(metadata, extra, "version", &version, isText)
	return encodeEntry(extra, written(e, kratosMembers), e.ID, service, version, flatten(metadata, intWeights), endpoints, e.Draining)
}

func (k kratos) decode(_, _ string, value []byte) (e naming.Endpoint, err error) {
	var was kratosEntry
	members, err := entry.DecodeObject(value, &was, &was.Draining, kratosMembers...)
	if err != nil {
		return e, err
	}
	e.ID = "id" // see Codec.Decode: every entry of kratos names its ID
	if e.Addr = k.addr(was.Endpoints); e.Addr == "" {
		return e, fmt.Errorf("no endpoint with the scheme %s", strings.Join(k.schemes, " or "))
	}
	e.Draining, e.NoDrainingMark = was.Draining.Draining, !was.Draining.Known
	e.Metadata = unflatten(was.Metadata, intWeights)
	if was.Version != "" {
		e.Metadata = push(e.Metadata, "version", entry.AppendString(nil, was.Version), members)
	}
	if !slices.Equal(was.Endpoints, k.endpoints(e.Addr)) {
		if members["endpoints"], err = json.Marshal(was.Endpoints); err != nil {
			return e, err
		}
	}
	e.Metadata = entry.HideMembers(e.Metadata, members)
	return e, nil
}

// addr returns the address in the first URL with the first scheme that has one, or "".
func (k kratos) addr(endpoints []string) string {
	for _, scheme := range k.schemes {
		for _, url := range endpoints {
			if s, addr := splitURL(url); strings.EqualFold(s, scheme) {
				return addr
			}
		}
	}
	return ""
}

// splitURL returns the scheme of an endpoint's URL and its address.
func splitURL(url string) (scheme, addr string) {
	scheme, addr, _ = strings.Cut(url, "://")
	addr, secure, _ := strings.Cut(addr, "?isSecure=")
	secure, _, _ = strings.Cut(secure, "&")
	if secure, err := strconv.ParseBool(secure); err == nil && secure && (scheme == "grpc" || scheme == "http") {
		scheme += "s"
	}
	if strings.HasPrefix(scheme, "http") {
		if i := strings.IndexAny(addr, "/?#"); i >= 0 && !strings.HasPrefix(addr, "unix:") {
			addr = addr[:i]
		}
	}
	return scheme, addr
}
