// Package wire is how endpoints are stored in Consul's service catalogue: it turns
// an endpoint into a registration, and an entry of the catalogue into an endpoint.
// It makes no requests.
//
// [Encode] and [Entry.Endpoint] are each other's inverse for the entries of a Store.
// [Entry.Endpoint] also reads the entries of other writers. A [Format] says how
// another framework writes its entries. [Members] is what the formats share.
package wire

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/hashicorp/consul/api"
)

// Entry is an entry of the catalogue, with the members that matter here.
type Entry struct {
	Node struct {
		Node    string
		Address string
	}
	Service struct {
		ID                       string
		Service                  string
		Tags                     []string
		Address                  string
		TaggedAddresses          URLs
		SocketPath               string
		Meta                     map[string]string
		Port                     int
		Ports                    []Port
		Kind                     string
		Weights                  struct{ Passing, Warning int }
		CreateIndex, ModifyIndex uint64
	}
	Checks Checks
}

// Port is one of several ports of a service. Each has a name.
type Port struct {
	Name    string
	Port    int
	Default bool
}

// URLs are the TaggedAddresses of an entry that are URLs, by name. Only the programs
// of a [Format] write URLs there. Consul adds the other ones, which are copies of the
// service's address.
type URLs map[string]string

// UnmarshalJSON decodes TaggedAddresses.
func (u *URLs) UnmarshalJSON(b []byte) error {
	if !bytes.Contains(b, []byte("://")) {
		return nil
	}
	var all map[string]struct{ Address string }
	if json.Unmarshal(b, &all) != nil {
		return nil // one entry must not spoil the other entries of the answer
	}
	*u = make(URLs)
	for name, a := range all {
		if strings.Contains(a.Address, "://") {
			(*u)[name] = a.Address
		}
	}
	return nil
}

// EntryOf returns the entry of a registration that [Encode] made, without node and checks.
func EntryOf(r *api.AgentServiceRegistration) *Entry {
	e := new(Entry)
	s := &e.Service
	s.ID, s.Service, s.Meta, s.Tags, s.Address, s.Port = r.ID, r.Name, r.Meta, r.Tags, r.Address, r.Port
	if w := r.Weights; w != nil {
		s.Weights.Passing, s.Weights.Warning = w.Passing, w.Warning
	}
	return e
}

// Typical reports whether an entry is a service, and not a proxy or a gateway of the
// service mesh.
func (e *Entry) Typical() bool {
	return e.Service.Kind == "" || e.Service.Kind == string(api.ServiceKindTypical)
}

// ServerService is the name and the service ID under which Consul registers each of its own
// servers.
const ServerService = "consul"

// IsServer reports whether an entry is one of Consul's own servers.
func (e *Entry) IsServer() bool {
	return e.Service.Service == ServerService && e.Service.ID == ServerService
}

// Key returns the place of the entry in the catalogue: node/service ID.
func (e *Entry) Key() string { return e.Node.Node + "/" + e.Service.ID }
