package etcd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/naming-go/naming"
)

// Codec is a wire format: where a service's entries are and what is in them. The
// key of an endpoint is
//
//	Options.Prefix + Root + Name(service) + "/" + ID
//
// with "/" and "%" in the ID escaped as in a URL. A Codec must not be modified
// while a Store uses it, and its functions may be called concurrently.
type Codec struct {
	// Root is what all keys begin with, if anything.
	Root string

	// Name returns what stands for a service in a key. Nil means the service's
	// name as it is. Store.Services returns what stands in the keys.
	Name func(service string) string

	// Encode returns the value of an entry. It is given an endpoint as
	// [naming.Normalize] returns it. An error means that the format cannot hold
	// the endpoint, and becomes [naming.ErrInvalid].
	Encode func(service string, e naming.Endpoint) ([]byte, error)

	// Decode returns the endpoint that Encode made value of. The endpoint may
	// share value's memory. Its ID comes from the key; one that Decode sets
	// only says that the value names its ID itself, so that the key is none
	// that an address with a slash in it was put to as it is. An error means
	// that value is malformed.
	Decode func(service string, value []byte) (naming.Endpoint, error)
}

// Default returns the format of etcd's former package clientv3/naming, which is
// also that of etcd's present client/v3/naming:
//
//	greeter/10.0.0.7:9000 = {"Op":0,"Addr":"10.0.0.7:9000","Metadata":null}
//
// What Op says is ignored. Names of members are matched as encoding/json does,
// without regard to case.
//
// Other members of a value are kept: they appear in the endpoint's metadata as
// the member "@entry", an object, and become members of the value again when
// such an endpoint is put, be it after a detour through another registry. To
// hold it, metadata that is no object, or an empty one, becomes
// {"@entry":{...},"@metadata":...}.
//
// A member "ID" is added to the value of an endpoint that has neither an address
// nor metadata, which would be malformed, and of one whose key would be taken
// for that of another service: that happens only when the name of the service
// ends like the beginning of an address with a slash.
func Default() *Codec {
	return &Codec{Encode: encodeUpdate, Decode: decodeUpdate}
}

var errNoObject = errors.New("not a JSON object")

func encodeUpdate(service string, e naming.Endpoint) ([]byte, error) {
	metadata, extra := takeEntry(e.Metadata, "Op", "Addr", "Metadata", "ID")
	b := make([]byte, 0, len(e.Addr)+len(e.Metadata)+48)
	b = append(b, `{"Op":0,"Addr":`...)
	b = appendString(b, e.Addr)
	b = append(b, `,"Metadata":`...)
	b = appendJSON(b, metadata)
	if e.Addr == "" && metadata == nil || slashed(e.Addr) && claimed(service, escape(e.ID), e.Addr) {
		b = append(b, `,"ID":`...)
		b = appendString(b, e.ID)
	}
	return append(appendMembers(b, extra), '}'), nil
}

func appendString(b []byte, s string) []byte {
	q, err := json.Marshal(s)
	if err != nil {
		panic(err) // no string is no JSON
	}
	return append(b, q...)
}

// appendJSON appends valid JSON without white space; nil is null.
func appendJSON(b, v []byte) []byte {
	if v == nil {
		return append(b, "null"...)
	}
	buf := bytes.NewBuffer(b)
	if err := json.Compact(buf, v); err != nil {
		panic(err) // checked by naming.Normalize
	}
	return buf.Bytes()
}

// appendMembers appends the members of an object that has some already.
func appendMembers(b []byte, members map[string]json.RawMessage) []byte {
	for _, name := range slices.Sorted(maps.Keys(members)) {
		b = append(b, ',')
		b = appendString(b, name)
		b = append(b, ':')
		b = appendJSON(b, members[name])
	}
	return b
}

func decodeUpdate(_ string, value []byte) (naming.Endpoint, error) {
	if e, ok := decodeCanonical(value); ok {
		return e, nil
	}
	e, members, err := decodeMembers(value)
	if err == nil {
		e.Metadata = putEntry(e.Metadata, members)
	}
	return e, err
}

// decodePlain decodes as the old package does, which knows no other members.
func decodePlain(_ string, value []byte) (naming.Endpoint, error) {
	if e, ok := decodeCanonical(value); ok {
		return e, nil
	}
	e, _, err := decodeMembers(value)
	return e, err
}

// decodeMembers returns the endpoint in a value and the members that are no part
// of it.
func decodeMembers(value []byte) (e naming.Endpoint, members map[string]json.RawMessage, err error) {
	members, err = object(value)
	if err != nil {
		return e, nil, err
	}
	var op naming.Operation
	err = errors.Join(take(members, "Op", &op), take(members, "Addr", &e.Addr), take(members, "Metadata", &e.Metadata))
	if err != nil {
		return e, nil, err
	}
	if id, ok := members["ID"]; ok && id[0] == '"' {
		delete(members, "ID")
		e.ID = "ID" // whatever it is, empty too
	}
	e.Metadata = noNull(e.Metadata)
	if e.ID == "" && e.Addr == "" && e.Metadata == nil {
		return e, nil, errors.New("neither an address nor metadata")
	}
	return e, members, nil
}

// decodeCanonical decodes what encoding/json makes of an Update, which is nearly
// everything that there is, without looking at each member.
func decodeCanonical(value []byte) (e naming.Endpoint, ok bool) {
	rest, ok := bytes.CutPrefix(value, []byte(`{"Op":0,"Addr":"`))
	if !ok {
		return e, false
	}
	addr, rest, ok := bytes.Cut(rest, []byte(`","Metadata":`))
	if !ok || len(rest) == 0 || rest[len(rest)-1] != '}' {
		return e, false
	}
	for _, c := range addr {
		if c < ' ' || c == '"' || c == '\\' {
			return e, false
		}
	}
	metadata := rest[:len(rest)-1]
	if !utf8.Valid(value) || !json.Valid(metadata) {
		return e, false
	}
	e.Addr, e.Metadata = string(addr), noNull(metadata)
	return e, e.Addr != "" || e.Metadata != nil
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

// take removes the member of that name, or else one that differs in case only,
// and decodes it into v, which it leaves alone if there is none.
func take(members map[string]json.RawMessage, name string, v any) error {
	m, ok := members[name]
	if !ok {
		for _, other := range slices.Sorted(maps.Keys(members)) {
			if strings.EqualFold(other, name) {
				m, ok, name = members[other], true, other
				break
			}
		}
	}
	if !ok {
		return nil
	}
	delete(members, name)
	if err := json.Unmarshal(m, v); err != nil {
		return fmt.Errorf("member %q: %w", name, err)
	}
	return nil
}

// noNull returns m, or nil for the JSON value null.
func noNull(m json.RawMessage) json.RawMessage {
	if len(m) == 0 || string(bytes.TrimSpace(m)) == "null" {
		return nil
	}
	return m
}

const (
	entryMember    = "@entry"
	metadataMember = "@metadata"
)

// putEntry hides the members of a value that have no place in an endpoint in
// its metadata.
func putEntry(metadata json.RawMessage, members map[string]json.RawMessage) json.RawMessage {
	if len(members) == 0 || bytes.Contains(metadata, []byte(entryMember)) {
		return metadata
	}
	b := []byte(`{"` + entryMember + `":{`)
	b = append(b, appendMembers(nil, members)[1:]...)
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

// takeEntry undoes putEntry. Metadata that is not of its making, or would give
// one of the format's own members twice, is returned as it is.
func takeEntry(metadata json.RawMessage, own ...string) (json.RawMessage, map[string]json.RawMessage) {
	if !bytes.Contains(metadata, []byte(entryMember)) {
		return metadata, nil
	}
	var members, extra map[string]json.RawMessage
	if json.Unmarshal(metadata, &members) != nil || json.Unmarshal(members[entryMember], &extra) != nil || len(extra) == 0 {
		return metadata, nil
	}
	for name := range extra {
		if slices.ContainsFunc(own, func(o string) bool { return strings.EqualFold(o, name) }) {
			return metadata, nil
		}
	}
	delete(members, entryMember)
	if m, ok := members[metadataMember]; ok {
		if len(members) == 1 && (m[0] != '{' || isEmpty(m)) && string(m) != "null" {
			return m, extra
		}
		return metadata, nil
	}
	if len(members) == 0 {
		return nil, extra
	}
	return encodeObject(members), extra
}
