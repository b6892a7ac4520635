// Package entry encodes and decodes the JSON of entries, for the formats of packages
// etcd and etcdcodec.
//
// An entry may have members that an endpoint has no place for. [HideMembers] keeps such
// members in the endpoint's metadata, and [RevealMembers] returns them when the endpoint
// is put again.
package entry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

var errNoObject = errors.New("not a JSON object")

// AppendString appends s as a JSON string.
func AppendString(b []byte, s string) []byte {
	q, err := json.Marshal(s)
	if err != nil {
		panic(err) // encoding/json encodes every string
	}
	return append(b, q...)
}

// AppendJSON appends v without white space. Nil is appended as null. It panics if v is
// not valid JSON, which naming.Normalize checks.
func AppendJSON(b, v []byte) []byte {
	if v == nil {
		return append(b, "null"...)
	}
	buf := bytes.NewBuffer(b)
	if err := json.Compact(buf, v); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

// AppendMembers appends members to an object that is not empty and not closed yet,
// sorted by name and each after a comma.
func AppendMembers(b []byte, members map[string]json.RawMessage) []byte {
	for _, name := range slices.Sorted(maps.Keys(members)) {
		b = append(b, ',')
		b = AppendString(b, name)
		b = append(b, ':')
		b = AppendJSON(b, members[name])
	}
	return b
}

// EncodeObject returns the JSON object with the given members, sorted by name.
func EncodeObject(members map[string]json.RawMessage) json.RawMessage {
	if len(members) == 0 {
		return json.RawMessage("{}")
	}
	b := append([]byte{'{'}, AppendMembers(nil, members)[1:]...)
	return append(b, '}')
}

// Mark is the member of an entry that says whether the endpoint drains. Known is false
// if the entry has no such member, or one that is not a bool.
type Mark struct{ Known, Draining bool }

// UnmarshalJSON implements [json.Unmarshaler]. Null has no effect, as with a bool.
func (m *Mark) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case "null":
	case "true", "false":
		*m = Mark{Known: true, Draining: b[0] == 't'}
	default:
		*m = Mark{}
	}
	return nil
}

// DecodeObject decodes a JSON object into the struct v as encoding/json does. It returns
// the members whose names are not in names. The last name is that of the mark m, which
// is a field of v: if the mark is unknown and not null, DecodeObject returns its member
// too.
func DecodeObject(value []byte, v any, m *Mark, names ...string) (map[string]json.RawMessage, error) {
	members, err := object(value)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(value, v); err != nil {
		return nil, err
	}
	if last := len(names) - 1; !m.Known {
		for name, value := range members {
			if strings.EqualFold(name, names[last]) && string(value) == "null" {
				delete(members, name)
			}
		}
		names = names[:last]
	}
	for name := range members {
		if IsOneOf(name, names) {
			delete(members, name)
		}
	}
	return members, nil
}

// object returns the members of a JSON object.
func object(value []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(value) {
		return nil, errors.New("not UTF-8")
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(value, &members); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoObject, err)
	}
	if members == nil {
		return nil, fmt.Errorf("%w: null", errNoObject)
	}
	return members, nil
}

// HasMember reports whether a JSON object has a member of that name. The case of the
// name does not matter.
func HasMember(value []byte, name string) bool {
	members, _ := object(value)
	for other := range members {
		if strings.EqualFold(other, name) {
			return true
		}
	}
	return false
}

// OmitNull returns nil for an empty m and for the JSON value null, and else m.
func OmitNull(m json.RawMessage) json.RawMessage {
	if len(m) == 0 || string(bytes.TrimSpace(m)) == "null" {
		return nil
	}
	return m
}

const (
	entryMember    = "@entry"
	metadataMember = "@metadata"
)

// HideMembers returns metadata with the member "@entry", an object of the given members.
// Metadata that is not an object, or an empty one, becomes the member "@metadata". HideMembers
// returns metadata unchanged in two cases: members is empty, or metadata already contains
// the text "@entry".
func HideMembers(metadata json.RawMessage, members map[string]json.RawMessage) json.RawMessage {
	if len(members) == 0 || bytes.Contains(metadata, []byte(entryMember)) {
		return metadata
	}
	b := []byte(`{"` + entryMember + `":{`)
	b = append(b, AppendMembers(nil, members)[1:]...)
	b = append(b, '}')
	rest := bytes.TrimSpace(metadata)
	switch {
	case len(rest) == 0:
		return append(b, '}')
	case rest[0] != '{', isEmpty(rest):
		b = append(b, `,"`+metadataMember+`":`...)
		return append(append(b, rest...), '}')
	}
	return append(append(b, ','), rest[1:]...)
}

// isEmpty reports whether an object is {}.
func isEmpty(m []byte) bool {
	return m[0] == '{' && bytes.TrimLeft(m[1:], " \t\r\n")[0] == '}'
}

// RevealMembers undoes HideMembers: it returns the metadata and the members that
// HideMembers was given. Metadata that HideMembers did not make is returned unchanged,
// without members. fits reports whether the format would hide the member m beside the
// metadata rest.
func RevealMembers(metadata json.RawMessage, fits func(rest json.RawMessage, name string, m json.RawMessage) bool) (rest json.RawMessage, extra map[string]json.RawMessage) {
	if !bytes.Contains(metadata, []byte(entryMember)) {
		return metadata, nil
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(metadata, &members) != nil || json.Unmarshal(members[entryMember], &extra) != nil || len(extra) == 0 {
		return metadata, nil
	}
	delete(members, entryMember)
	if m, ok := members[metadataMember]; ok {
		if len(members) > 1 || m[0] == '{' && !isEmpty(m) || string(m) == "null" {
			return metadata, nil
		}
		rest = m
	} else if len(members) > 0 {
		rest = EncodeObject(members)
	}
	for name, m := range extra {
		if !fits(rest, name, m) {
			return metadata, nil
		}
	}
	return rest, extra
}

// IsOneOf reports whether name is one of names. Case does not matter.
func IsOneOf(name string, names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
}
