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
//	Options.Prefix + Root + Name(service) + "/" + Keys.Tail(ID)
//
// A Codec must not be modified while a Store uses it, and its functions may be
// called concurrently.
type Codec struct {
	// Root is the path that all keys begin with, if any. One that does not end
	// in a slash gets one.
	Root string

	// Name returns what stands for a service in a key. Nil means the service's
	// name as it is. Store.Services returns what stands in the keys.
	Name func(service string) string

	// Keys says what follows the service in a key. Nil means the ID with "/" and
	// "%" escaped as in a URL, and that the last slash of a key ends the name of
	// the service. Options.Deep changes that.
	Keys *Keys

	// Encode returns the value of an entry. It is given an endpoint as
	// [naming.Normalize] returns it, except that NoDrain is true if the Store
	// writes no draining marks. An error means that the format cannot hold the
	// endpoint, and becomes [naming.ErrInvalid]. Encode must be set. It must neither
	// change nor keep e.Metadata.
	Encode func(service string, e naming.Endpoint) ([]byte, error)

	// Decode returns the endpoint that Encode made value of. Tail is what
	// follows the service and a slash in the entry's key, as it is there, for
	// formats that have the address, or more, in the key. The endpoint may share
	// value's memory.
	//
	// The Store takes the ID from the key. Decode sets an ID if the value names
	// one itself. The Store then knows that a slash in the key separates parts of
	// the key, and does not belong to an address. Decode sets NoDrain if the
	// writer of the entry cannot mark it as draining.
	//
	// An error means that the entry is malformed: the Store leaves it out and
	// reports it. The Store itself checks for the limits of package naming. A
	// format in which every endpoint has an address should return an error for
	// a value without one, as that is mostly an entry in another format. Decode must
	// be set.
	Decode func(service, tail string, value []byte) (naming.Endpoint, error)

	// NoDraining says that the format has no place for the mark of an endpoint
	// that drains. The Store then refuses such an endpoint with
	// [naming.ErrInvalid] before it sends a request, and sets NoDrain on every
	// endpoint that it reads.
	NoDraining bool

	known bool // one of this package: its metadata is JSON
}

// Keys is how a format makes the last part of a key, and takes keys apart. Both
// functions must be set.
type Keys struct {
	// Tail returns what follows the service and a slash in the key of an
	// endpoint, given its ID. It must return different tails for different IDs.
	Tail func(id string) string

	// Split takes apart what follows Options.Prefix and Root in a key. It
	// returns the service by the name that stands in the key, which path begins
	// with, and the ID whose Tail follows it. It returns false for a key that
	// belongs to something else. A put fails with [naming.ErrInvalid] if Split
	// returns another ID for the key than the endpoint's.
	Split func(path string) (service, id string, ok bool)
}

// Default returns the format of etcd's former package clientv3/naming, which is
// also that of etcd's present client/v3/naming:
//
//	greeter/10.0.0.7:9000 = {"Op":0,"Addr":"10.0.0.7:9000","Metadata":null}
//
// What Op says is ignored. Members are read as encoding/json reads them: the case
// of a name does not matter, and of members with one name the last one counts.
//
// An endpoint that drains has the member "Draining" as well, beside Metadata and
// not in it:
//
//	greeter/10.0.0.7:9000 = {"Op":0,"Addr":"10.0.0.7:9000","Metadata":null,"Draining":true}
//
// Readers of both packages ignore members that they do not know. gRPC up to 1.29,
// and up to 1.71 under etcd's client 3.5, panics on metadata that is an object.
// A member "Draining" that is not a bool is another program's.
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
	return &Codec{Encode: encodeUpdate, Decode: decodeUpdate, known: true}
}

var errNoObject = errors.New("not a JSON object")

func encodeUpdate(service string, e naming.Endpoint) ([]byte, error) {
	metadata, extra := takeEntry(e.Metadata, func(_ json.RawMessage, name string, _ json.RawMessage) bool {
		return name != "ID" && !isOneOf(name, updateMembers)
	})
	b := make([]byte, 0, len(e.Addr)+len(e.Metadata)+64)
	b = append(b, `{"Op":0,"Addr":`...)
	b = appendString(b, e.Addr)
	b = append(b, `,"Metadata":`...)
	b = appendJSON(b, metadata)
	if e.Draining {
		b = append(b, drainingSuffix[:len(drainingSuffix)-1]...)
	}
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

func decodeUpdate(_, _ string, value []byte) (naming.Endpoint, error) {
	if e, ok := decodeCanonical(value); ok {
		return e, nil
	}
	e, members, err := decodeMembers(value)
	if err == nil {
		e.Metadata = putEntry(e.Metadata, members)
	}
	return e, err
}

// decodePlain decodes as the old package does, which knows no other members. The
// mark of a server that drains is an exception: [GRPCResolver.Build] heeds it.
func decodePlain(_, _ string, value []byte) (naming.Endpoint, error) {
	if e, ok := decodeCanonical(value); ok {
		return e, nil
	}
	e, _, err := decodeMembers(value)
	return e, err
}

// update is an entry of the default format, as encoding/json reads it.
type update struct {
	Op       naming.Operation
	Addr     string
	Metadata json.RawMessage
	Draining mark
}

var updateMembers = []string{"Op", "Addr", "Metadata", "Draining"}

// decodeMembers returns the endpoint in a value and the members that are no part
// of it.
func decodeMembers(value []byte) (e naming.Endpoint, members map[string]json.RawMessage, err error) {
	var u update
	if members, err = decodeObject(value, &u, &u.Draining, updateMembers...); err != nil {
		return e, nil, err
	}
	said := u.Addr != "" || hasMember(value, "Addr")
	e = naming.Endpoint{Addr: u.Addr, Metadata: noNull(u.Metadata), Draining: u.Draining.draining}
	if id, ok := members["ID"]; ok && id[0] == '"' {
		delete(members, "ID")
		e.ID = "ID" // whatever it is, empty too
	}
	switch {
	case e.ID == "" && e.Addr == "" && e.Metadata == nil:
		return e, nil, errors.New("neither an address nor metadata")
	case !said:
		// Another schema that has a member "metadata" as well.
		return e, nil, errors.New("no member \"Addr\"")
	}
	return e, members, nil
}

// mark is the member of an entry that says whether the endpoint drains. A value
// that is not a bool leaves it unknown.
type mark struct{ known, draining bool }

// UnmarshalJSON implements [json.Unmarshaler]. Null has no effect, as with a bool.
func (m *mark) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case "null":
	case "true", "false":
		*m = mark{known: true, draining: b[0] == 't'}
	default:
		*m = mark{}
	}
	return nil
}

// decodeObject decodes a JSON object into the struct v as encoding/json does, and
// returns the members whose names are not listed. The last of the names belongs to
// m: its member is returned as well unless it is a mark.
func decodeObject(value []byte, v any, m *mark, names ...string) (map[string]json.RawMessage, error) {
	members, err := object(value)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(value, v); err != nil {
		return nil, err
	}
	if last := len(names) - 1; !m.known {
		for name, value := range members {
			if strings.EqualFold(name, names[last]) && string(value) == "null" {
				delete(members, name)
			}
		}
		names = names[:last]
	}
	for name := range members {
		if isOneOf(name, names) {
			delete(members, name)
		}
	}
	return members, nil
}

// drainingSuffix ends the value of an endpoint that drains.
const drainingSuffix = `,"Draining":true}`

// decodeCanonical decodes what encoding/json makes of an Update, and that with
// our mark, which is nearly everything that there is, without looking at each
// member.
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
	metadata, draining := bytes.CutSuffix(rest, []byte(drainingSuffix))
	if !draining {
		metadata = rest[:len(rest)-1]
	}
	if !utf8.Valid(value) || !json.Valid(metadata) {
		return e, false
	}
	e.Addr, e.Metadata, e.Draining = string(addr), noNull(metadata), draining
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

// hasMember reports whether a JSON object has a member of that name, in any case.
func hasMember(value []byte, name string) bool {
	members, _ := object(value)
	for other := range members {
		if strings.EqualFold(other, name) {
			return true
		}
	}
	return false
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

// takeEntry undoes putEntry. Metadata that is not of its making is returned as it
// is: fits reports whether putEntry would have been given a member, beside the
// metadata rest.
func takeEntry(metadata json.RawMessage, fits func(rest json.RawMessage, name string, m json.RawMessage) bool) (rest json.RawMessage, extra map[string]json.RawMessage) {
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
		rest = encodeObject(members)
	}
	for name, m := range extra {
		if !fits(rest, name, m) {
			return metadata, nil
		}
	}
	return rest, extra
}

// isOneOf reports whether name is one of names, in any case.
func isOneOf(name string, names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
}
