package gomicro

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"go-micro.dev/v4/registry"

	"github.com/naming-go/naming"
)

// The members of an endpoint's metadata that have a meaning here. The codecs have the same.
const (
	versionMember  = "version"
	weightMember   = "weight"
	entryMember    = "@entry"
	metadataMember = "@metadata"
)

// endpointOf returns a node of a service as an endpoint. The error is [naming.ErrInvalid].
func endpointOf(s *registry.Service, n *registry.Node) (naming.Endpoint, error) {
	members := make(map[string]any, len(n.Metadata)+2)
	for name, value := range n.Metadata {
		switch name {
		case entryMember, metadataMember:
			return naming.Endpoint{}, fmt.Errorf("%w: node %q has metadata with the name %q", naming.ErrInvalid, n.Id, name)
		case weightMember:
			members[name] = weight(value)
		default:
			members[name] = value
		}
	}
	entry := make(map[string]any)
	if len(s.Endpoints) > 0 {
		entry["endpoints"] = s.Endpoints
	}
	if len(s.Metadata) > 0 {
		entry["metadata"] = s.Metadata
	}
	if _, ok := members[versionMember]; ok {
		entry[versionMember] = s.Version
	} else if s.Version != "" {
		members[versionMember] = s.Version
	}
	if len(entry) > 0 {
		members[entryMember] = entry
	}
	e := naming.Endpoint{ID: n.Id, Addr: n.Address}
	if len(members) > 0 {
		text, err := json.Marshal(members)
		if err != nil {
			return e, fmt.Errorf("%w: node %q: %w", naming.ErrInvalid, n.Id, err)
		}
		e.Metadata = text
	}
	return e, nil
}

// weight returns a number if s is a weight in JSON, as the codecs of go-micro's entries do.
func weight(s string) any {
	if f, err := strconv.ParseFloat(s, 64); err == nil && f > 0 && json.Valid([]byte(s)) {
		return json.RawMessage(s)
	}
	return s
}

// serviceOf returns an endpoint as a service with one node. Metadata of another form is left
// out, so that it cannot keep a client from calling the node.
func serviceOf(name string, e naming.Endpoint) *registry.Service {
	n := &registry.Node{Id: e.ID, Address: e.Addr, Metadata: make(map[string]string)}
	s := &registry.Service{Name: name, Nodes: []*registry.Node{n}}
	members := object(e.Metadata)
	entry := object(members[entryMember])
	delete(members, entryMember)
	delete(members, metadataMember)
	_ = json.Unmarshal(entry["metadata"], &s.Metadata)
	_ = json.Unmarshal(entry["endpoints"], &s.Endpoints)
	// go-micro follows the pointers.
	s.Endpoints = slices.DeleteFunc(s.Endpoints, func(e *registry.Endpoint) bool { return e == nil })
	if v, ok := entry[versionMember]; ok {
		_ = json.Unmarshal(v, &s.Version)
	} else if v, ok := members[versionMember]; ok && json.Unmarshal(v, &s.Version) == nil {
		delete(members, versionMember)
	}
	for name, m := range members {
		n.Metadata[name] = text(m)
	}
	return s
}

// servicesOf returns endpoints as services, one for each version. The schema and the metadata
// of a service are those of its first endpoint.
func servicesOf(name string, endpoints []naming.Endpoint) []*registry.Service {
	var services []*registry.Service
	for _, e := range endpoints {
		s := serviceOf(name, e)
		if i := slices.IndexFunc(services, func(o *registry.Service) bool { return o.Version == s.Version }); i >= 0 {
			services[i].Nodes = append(services[i].Nodes, s.Nodes...)
		} else {
			services = append(services, s)
		}
	}
	return services
}

func versionOf(e naming.Endpoint) string { return serviceOf("", e).Version }

// object returns the members of a JSON object, and none for any other text.
func object(text []byte) map[string]json.RawMessage {
	var members map[string]json.RawMessage
	_ = json.Unmarshal(text, &members)
	return members
}

// text returns a JSON string as its value, and any other value as compact JSON.
func text(m json.RawMessage) string {
	var s string
	if json.Unmarshal(m, &s) == nil && string(m) != "null" {
		return s
	}
	var b bytes.Buffer
	if json.Compact(&b, m) != nil {
		return string(m)
	}
	return b.String()
}
