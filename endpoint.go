package naming

import (
	"bytes"
	"cmp"
	"encoding/json"
	"reflect"
)

// Equal reports whether e and o are the same endpoint in the same state: equal IDs,
// addresses and draining marks, and metadata of the same JSON value. White space, the
// order of an object's members and the escapes in a string do not matter. The spelling
// of a number matters: 1, 1.0 and 1e0 are three values, so that each makes the round
// trip through a registry unchanged.
func (e Endpoint) Equal(o Endpoint) bool {
	return e.ID == o.ID && e.Addr == o.Addr && e.Draining == o.Draining && sameJSON(e.Metadata, o.Metadata)
}

// sameJSON reports whether a and b are the same JSON value.
func sameJSON(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	// Decoding is the rare case: most values that differ in their bytes differ, and
	// most values that are equal were spelt by the same writer.
	va, err := decodeJSON(a)
	if err != nil {
		return false
	}
	vb, err := decodeJSON(b)
	return err == nil && reflect.DeepEqual(va, vb)
}

func compareEndpoints(a, b Endpoint) int { return cmp.Compare(a.ID, b.ID) }

// decodeJSON returns the value of m, in which numbers are of type json.Number.
func decodeJSON(m json.RawMessage) (v any, err error) {
	if len(m) == 0 {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(m))
	d.UseNumber()
	err = d.Decode(&v)
	return v, err
}

// EndpointInfo is the reserved members of an endpoint's metadata.
type EndpointInfo struct {
	// Weight is the endpoint's share of traffic relative to the other endpoints. It
	// is 0 if the metadata has no positive weight.
	Weight float64
	// Zone is where the endpoint runs. Version is the version that it runs.
	Zone, Version string
	// Tags are labels.
	Tags []string
	// Draining says that the endpoint is about to leave: it finishes the calls that
	// it has, and gets new ones only while the service has no other endpoint.
	Draining bool
}

// Info returns the reserved members of the metadata, decoded. A member that is missing
// or has the wrong type has the zero value. So has a weight that is not positive. Names
// of members are case-sensitive.
func (e Endpoint) Info() EndpointInfo {
	info := EndpointInfo{Draining: e.Draining}
	if !mayHaveInfo(e.Metadata) {
		return info
	}
	var members map[string]json.RawMessage // a struct would ignore case
	if json.Unmarshal(e.Metadata, &members) != nil {
		return info
	}
	// One at a time, so that a member of the wrong type does not hide the others.
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

// mayHaveInfo reports false for most metadata without reserved members, which saves
// decoding it.
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

// member decodes m into v. If m has another type, v keeps its value.
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
