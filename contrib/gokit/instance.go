package gokitnaming

import (
	"encoding/json"
	"net/url"

	"github.com/naming-go/naming"
)

// urlMember is the member of the metadata that has the URL of an instance. The codec of
// package etcdcodec for go-kit uses the same.
const urlMember = "url"

// fromInstance returns e with a URL in Addr split into the address and the member "url" of
// the metadata. Metadata that is not an object stays as it is.
func fromInstance(e naming.Endpoint) naming.Endpoint {
	raw := e.Addr
	addr := hostOf(raw)
	if addr == "" {
		return e
	}
	e.Addr = addr
	members := make(map[string]any)
	var rest map[string]json.RawMessage
	if len(e.Metadata) > 0 && json.Unmarshal(e.Metadata, &rest) != nil {
		return e
	}
	for name, m := range rest {
		members[name] = m
	}
	members[urlMember] = raw
	e.Metadata, _ = json.Marshal(members) // it was decoded before
	return e
}

// toInstance returns what go-kit's factories get for an endpoint: the URL if there is one
// with the endpoint's address, or else the address.
func toInstance(e naming.Endpoint) string {
	var members map[string]json.RawMessage
	var raw string
	if json.Unmarshal(e.Metadata, &members) == nil && json.Unmarshal(members[urlMember], &raw) == nil && hostOf(raw) == e.Addr {
		return raw
	}
	return e.Addr
}

// hostOf returns the host and port of a URL, or "" if s is not a URL with a host.
func hostOf(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" {
		return ""
	}
	return u.Host
}
