package naming

import (
	"bytes"
	"cmp"
	"encoding/json"
	"reflect"
)

// Equal reports whether e and o are the same endpoint in the same state: equal
// IDs, addresses and draining marks, and metadata of the same JSON value. White space, the
// order of an object's members and the escapes in a string do not matter; the
// spelling of a number does, so that 1, 1.0 and 1e0 are three values and none
// of them is lost on its way through a registry.
func (e Endpoint) Equal(o Endpoint) bool {
	return e.ID == o.ID && e.Addr == o.Addr && e.Draining == o.Draining && sameJSON(e.Metadata, o.Metadata)
}

func sameJSON(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	// A registry may respell a value, but two values are seldom respelt the
	// same way by accident, so decoding both is the rare case.
	va, err := decodeJSON(a)
	if err != nil {
		return false
	}
	vb, err := decodeJSON(b)
	return err == nil && reflect.DeepEqual(va, vb)
}

func compareEndpoints(a, b Endpoint) int { return cmp.Compare(a.ID, b.ID) }

// decodeJSON returns the value of m with numbers as they are spelt.
func decodeJSON(m json.RawMessage) (v any, err error) {
	if len(m) == 0 {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(m))
	d.UseNumber()
	err = d.Decode(&v)
	return v, err
}

// Info is what the reserved members of an endpoint's metadata say.
type EndpointInfo struct {
	// Weight is the endpoint's share of traffic relative to the others, 0 if
	// there is none to go by.
	Weight float64
	// Zone is where the endpoint runs, and Version what it runs.
	Zone, Version string
	// Tags are labels.
	Tags []string
	// Draining says that the endpoint is about to leave: it serves what it
	// has, and wants no more while there are others.
	Draining bool
}

// Info returns what the reserved members of the metadata say. A member that is
// missing or of another type than it should be has the zero value, and so has a
// weight that is not positive. Names are compared as they are, with their case.
func (e Endpoint) Info() EndpointInfo {
	info := EndpointInfo{Draining: e.Draining}
	if !mayHaveInfo(e.Metadata) {
		return info
	}
	var members map[string]json.RawMessage // and not a struct, which ignores case
	if json.Unmarshal(e.Metadata, &members) != nil {
		return info
	}
	// One at a time: a wrong one takes nothing away from the others.
	member(members["weight"], &info.Weight)
	member(members["zone"], &info.Zone)
	member(members["version"], &info.Version)
	member(members["tags"], &info.Tags)
	if !e.Draining {
		member(members["draining"], &info.Draining)
	}
	info.Weight = max(info.Weight, 0)
	return info
}

// mayHaveInfo reports false for most metadata without reserved members, which is
// most metadata there is.
func mayHaveInfo(m json.RawMessage) bool {
	if bytes.IndexByte(m, '{') < 0 {
		return false
	}
	for _, name := range [...]string{`"weight"`, `"zone"`, `"version"`, `"tags"`, `"draining"`, `\`} {
		if bytes.Contains(m, []byte(name)) {
			return true
		}
	}
	return false
}

// member decodes m into v, or leaves v alone.
func member[T any](m json.RawMessage, v *T) {
	var w T
	if len(m) > 0 && json.Unmarshal(m, &w) == nil {
		*v = w
	}
}

// isNull reports whether m means no metadata.
func isNull(m json.RawMessage) bool {
	return len(m) == 0 || string(bytes.TrimSpace(m)) == "null"
}
