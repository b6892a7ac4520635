package kratosnaming

import (
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/go-kratos/kratos/v2/registry"

	"github.com/naming-go/naming"
)

// The members of metadata that have a meaning. The formats of the backends keep in
// "@entry" what the entry of another framework has beside an endpoint.
const (
	entryMember     = "@entry"
	endpointsMember = "endpoints"
	versionMember   = "version"
	weightMember    = "weight"
)

// endpoint returns the endpoint for an instance. The error is [naming.ErrInvalid].
func (r *Registry) endpoint(s *registry.ServiceInstance) (e naming.Endpoint, err error) {
	if s == nil {
		return e, fmt.Errorf("%w: the instance is nil", naming.ErrInvalid)
	}
	if _, taken := s.Metadata[entryMember]; taken {
		return e, fmt.Errorf("%w: the metadata of the instance %q has a member %q", naming.ErrInvalid, s.ID, entryMember)
	}
	addr := r.address(s.Endpoints)
	if addr == "" {
		return e, fmt.Errorf("%w: no endpoint of the instance %q is a URL with an address: %q", naming.ErrInvalid, s.ID, s.Endpoints)
	}
	members, entry := make(map[string]any), make(map[string]any)
	for name, v := range s.Metadata {
		members[name] = v
	}
	if w, err := strconv.ParseInt(s.Metadata[weightMember], 10, 64); err == nil && w > 0 {
		members[weightMember] = w
	}
	if _, taken := members[versionMember]; taken && s.Version != "" {
		entry[versionMember] = s.Version
	} else if s.Version != "" {
		members[versionMember] = s.Version
	}
	if !slices.Equal(s.Endpoints, []string{r.url(addr)}) {
		entry[endpointsMember] = s.Endpoints
	}
	if len(entry) > 0 {
		members[entryMember] = entry
	}
	e = naming.Endpoint{ID: s.ID, Addr: addr}
	if e.ID == "" {
		e.ID = addr
	}
	if len(members) > 0 {
		e.Metadata, err = json.Marshal(members)
	}
	return e, err
}

// instances returns the instances for the endpoints of a service.
func (r *Registry) instances(service string, endpoints []naming.Endpoint) []*registry.ServiceInstance {
	list := make([]*registry.ServiceInstance, len(endpoints))
	for i, e := range endpoints {
		list[i] = r.instance(service, e)
	}
	return list
}

// instance undoes endpoint.
func (r *Registry) instance(service string, e naming.Endpoint) *registry.ServiceInstance {
	s := &registry.ServiceInstance{ID: e.ID, Name: service, Metadata: make(map[string]string)}
	var members map[string]json.RawMessage
	_ = json.Unmarshal(e.Metadata, &members) // other metadata has no place in an instance
	var entry struct {
		Version   string   `json:"version"`
		Endpoints []string `json:"endpoints"`
	}
	if m, ok := members[entryMember]; ok && json.Unmarshal(m, &entry) == nil {
		s.Version = entry.Version
		// URLs that were kept for another address are out of date.
		if slices.ContainsFunc(entry.Endpoints, func(u string) bool { _, addr := split(u); return addr == e.Addr }) {
			s.Endpoints = entry.Endpoints
		}
	}
	for name, m := range members {
		if name != entryMember {
			s.Metadata[name] = text(name, m)
		}
	}
	if v, ok := s.Metadata[versionMember]; ok && s.Version == "" {
		s.Version = v
		delete(s.Metadata, versionMember)
	}
	if s.Endpoints == nil {
		s.Endpoints = []string{r.url(e.Addr)}
	}
	return s
}

// text returns what kratos has for a member of metadata.
func text(name string, m json.RawMessage) string {
	var s string
	if m[0] == '"' && json.Unmarshal(m, &s) == nil {
		return s
	}
	if f, err := strconv.ParseFloat(string(m), 64); name == weightMember && err == nil && f > 0 && f <= 1<<53 {
		return strconv.FormatInt(int64(max(math.Round(f), 1)), 10)
	}
	return string(m)
}

// url returns the URL for an address.
func (r *Registry) url(addr string) string {
	return (&url.URL{Scheme: r.schemes[0], Host: addr}).String()
}

// address returns the address of the URL with the first of the schemes, or of the first
// URL, or "".
func (r *Registry) address(urls []string) (addr string) {
	for _, want := range r.schemes {
		for _, raw := range urls {
			if scheme, addr := split(raw); scheme == want && addr != "" {
				return addr
			}
		}
	}
	if len(urls) > 0 {
		_, addr = split(urls[0])
	}
	return addr
}

// split returns the scheme and the address of a URL. kratos 2.1 marked TLS with a
// parameter, and the codecs still read the mark.
func split(raw string) (scheme, addr string) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", ""
	}
	scheme = strings.ToLower(u.Scheme)
	if secure, err := strconv.ParseBool(u.Query().Get("isSecure")); err == nil && secure && (scheme == "grpc" || scheme == "http") {
		scheme += "s"
	}
	return scheme, u.Host
}
