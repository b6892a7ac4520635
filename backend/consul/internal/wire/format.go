package wire

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
)

// Format is the format of another framework. Its functions may be called
// concurrently.
type Format struct {
	// Decode completes the endpoint of an entry of another writer. The endpoint has
	// its ID, and the address that it has without a Format.
	Decode func(*Entry, *naming.Endpoint) error
	// Encode adds to a registration what the framework's programs read, and returns
	// the tags to put before the endpoint's own tags.
	Encode func(naming.Endpoint, *api.AgentServiceRegistration) (tags []string)
}

// The members of metadata that keep what an entry says beyond an address and metadata.
const (
	entryMember     = "@entry"
	endpointsMember = "endpoints" // of @entry
	metaMember      = "Meta"      // of @entry
)

// Members collects the metadata of an entry of another writer.
type Members struct {
	// Tags are the tags without another meaning.
	Tags []string

	members map[string]json.RawMessage // of the metadata
	aside   map[string]json.RawMessage // of @entry
	meta    map[string]json.RawMessage // of @entry's Meta
}

// Members returns what an entry says to every reader.
func (e *Entry) Members() *Members {
	m := &Members{
		Tags:    e.Service.Tags,
		members: make(map[string]json.RawMessage),
		aside:   make(map[string]json.RawMessage),
		meta:    make(map[string]json.RawMessage),
	}
	for key, value := range e.Service.Meta {
		m.members[key] = raw(value)
	}
	// Every service has two weights. Consul sets a weight that nobody gave to 1.
	weight := e.Service.Weights.Passing
	warning := e.Warning()
	if warning {
		weight = e.Service.Weights.Warning
	}
	if weight > 1 || warning && weight == 1 && e.Service.Weights.Passing > 1 {
		m.set("weight", weight)
	}
	return m
}

// set sets a member. What Meta has in its place is kept in @entry.
func (m *Members) set(name string, value any) {
	if old, ok := m.members[name]; ok {
		m.meta[name] = old
	}
	m.members[name] = raw(value)
}

// Says reports whether the member name has the value s. It first adds a missing member
// with that value.
func (m *Members) Says(name, s string) bool {
	text := Marshal(s)
	if old, ok := m.members[name]; ok {
		return string(old) == text
	}
	m.members[name] = json.RawMessage(text)
	return true
}

// Delete removes a member.
func (m *Members) Delete(name string) { delete(m.members, name) }

// SetAside keeps a value in a member of @entry.
func (m *Members) SetAside(name string, value any) { m.aside[name] = raw(value) }

// SetAsideEndpoints keeps what another framework calls endpoints, where [Parts] finds
// them.
func (m *Members) SetAsideEndpoints(value any) { m.SetAside(endpointsMember, value) }

// Number turns a member that is a string into a number, if the string is a number. The
// frameworks have strings only, and a weight of an endpoint is a number.
func (m *Members) Number(name string) {
	value := m.members[name]
	if old, aside := m.meta[name]; aside { // the framework's programs read Meta
		value = old
	}
	var s string
	if len(value) == 0 || json.Unmarshal(value, &s) != nil || !isNumber(s) {
		return
	}
	delete(m.meta, name)
	m.members[name] = json.RawMessage(s)
}

// Metadata returns the metadata, or nil.
func (m *Members) Metadata() json.RawMessage {
	if len(m.Tags) > 0 {
		m.set("tags", m.Tags)
	}
	if len(m.meta) > 0 {
		m.SetAside(metaMember, m.meta)
	}
	if len(m.aside) > 0 {
		m.members[entryMember] = raw(m.aside)
	}
	if len(m.members) == 0 {
		return nil
	}
	return raw(m.members)
}

// isNumber reports whether s is a number in JSON.
func isNumber(s string) bool {
	return s != "" && (s[0] == '-' || '0' <= s[0] && s[0] <= '9') && json.Valid([]byte(s)) &&
		!strings.ContainsAny(s, " \t\r\n")
}

// Weight returns the weight in the form that the frameworks have: the digits of a
// number. It reports false if the member is not a number, or too long for Consul.
func Weight(members map[string]json.RawMessage) (s string, ok bool) {
	s = string(members["weight"])
	return s, isNumber(s) && len(s) <= MaxValue
}

// Text returns the string that a member is, and reports whether it is a string.
func Text(members map[string]json.RawMessage, name string) (s string, ok bool) {
	value := members[name]
	if len(value) == 0 || value[0] != '"' || json.Unmarshal(value, &s) != nil {
		return "", false
	}
	return s, true
}

// Parts returns the members of an endpoint's metadata, its tags, and the endpoints that
// [Members.SetAsideEndpoints] kept. Each is empty if the metadata has none.
func Parts[T any](metadata json.RawMessage) (members map[string]json.RawMessage, tags []string, endpoints []T) {
	members, _ = Object(metadata)
	if list, ok := members["tags"]; ok {
		tags, _ = Tags(list)
	}
	if aside, ok := Object(members[entryMember]); ok {
		var list []*T
		if json.Unmarshal(aside[endpointsMember], &list) == nil && !slices.Contains(list, nil) {
			for _, v := range list {
				endpoints = append(endpoints, *v)
			}
		}
	}
	return members, tags, endpoints
}
