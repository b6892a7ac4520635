package etcd

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd/internal/entry"
)

// Codec is a wire format: the keys of a service's entries and their values. The key of an
// endpoint is
//
//	Options.Prefix + Root + Name(service) + "/" + Keys.Tail(ID)
//
// [Default] returns the format of etcd's own naming packages, and package etcdcodec has the
// formats of other frameworks. A Codec must not be modified while a Store uses it. Its
// functions may be called concurrently.
type Codec struct {
	// Root is the path that all keys begin with. It may be empty. If it does not end in a
	// slash, it gets a slash.
	Root string

	// Name returns the name of a service in keys. Nil means the service's name,
	// unchanged. Store.Services returns the names that are in the keys.
	Name func(service string) string

	// Keys says what follows the service in a key. Nil means that the ID follows, with
	// "/" and "%" escaped as in a URL, and that the last slash of a key ends the name of
	// the service. Options.Deep changes both.
	Keys *Keys

	// Encode returns the value of an entry. The endpoint is as [naming.Normalize] returns
	// it, except that NoDrainingMark is true if the Store writes no draining marks. An error
	// means that the format cannot hold the endpoint: the Store returns it as
	// [naming.ErrInvalid]. Encode must be set. It must not change e.Metadata or keep it.
	Encode func(service string, e naming.Endpoint) ([]byte, error)

	// Decode returns the endpoint that a value stands for. Tail is what follows the
	// service and a slash in the entry's key, unchanged, for formats that have the
	// address, or more, in the key. The endpoint may share value's memory.
	//
	// The Store gets the ID from the key. Decode sets any ID if the value itself names an
	// ID. The Store then knows that a slash in the key separates parts of the key, and
	// that a percent sign escapes: the tail is not an address as it is. Decode sets
	// NoDrainingMark if the writer of the entry cannot mark the endpoint as draining.
	//
	// An error means that the entry is malformed: the Store leaves it out and reports
	// it. The Store itself checks the limits of package naming, and that Metadata is JSON.
	// If every endpoint of the format has an address, Decode should return an error for
	// a value without an address: it is mostly an entry in another format. Decode must be
	// set.
	Decode func(service, tail string, value []byte) (naming.Endpoint, error)

	// NoDrainingMark says that the format has no place for the mark of an endpoint that
	// drains. The Store then refuses such an endpoint with [naming.ErrInvalid], without a
	// request, and sets NoDrainingMark on every endpoint that it reads.
	NoDrainingMark bool

	// valid says that Decode returns no metadata but valid JSON, which the Store then need
	// not check again.
	valid bool
}

// Keys makes the last part of a key, and splits keys. Both functions must be set.
type Keys struct {
	// Tail returns what follows the service and a slash in the key of the endpoint with
	// that ID. It must return different tails for different IDs.
	Tail func(id string) string

	// Split splits what follows Options.Prefix and Root in a key. It returns the name of
	// the service in the key, with which path begins, and the ID whose Tail follows the
	// name. It returns false for a key that belongs to something else. A put fails with
	// [naming.ErrInvalid] if Split returns another ID for the key than the endpoint's.
	Split func(path string) (service, id string, ok bool)
}

// Default returns the format of etcd's former package clientv3/naming, which is
// also that of etcd's present client/v3/naming:
//
//	greeter/10.0.0.7:9000 = {"Op":0,"Addr":"10.0.0.7:9000","Metadata":null}
//
// The value of Op is ignored. Members are read as encoding/json reads them: the case of a
// name does not matter, and of several members with one name the last one counts.
//
// An endpoint that drains also has the member "Draining", beside Metadata:
//
//	greeter/10.0.0.7:9000 = {"Op":0,"Addr":"10.0.0.7:9000","Metadata":null,"Draining":true}
//
// Readers of both packages ignore members that they do not know. gRPC up to 1.29,
// and up to 1.71 under etcd's client 3.5, panics on metadata that is an object.
// A member "Draining" that is not a bool belongs to another program.
//
// Other members of a value are kept. They appear in the endpoint's metadata as the member
// "@entry", an object. When such an endpoint is put, even after it went through another
// registry, they become members of the value again. To have room for "@entry", metadata
// that is not an object, or an empty object, becomes {"@entry":{...},"@metadata":...}.
//
// The member "ID" is added in two cases. The value of an endpoint that has neither an
// address nor metadata would be malformed without it. And some entries would otherwise be
// read as those of the former package, which neither escapes an address in a key nor sets
// an ID of its own: under another service if the name of the service ends like the
// beginning of an address with a slash, and under another ID if the ID, escaped, is the
// address.
func Default() *Codec {
	return &Codec{Encode: encodeUpdate, Decode: decodeUpdate, valid: true}
}

func encodeUpdate(service string, e naming.Endpoint) ([]byte, error) {
	metadata, extra := entry.RevealMembers(e.Metadata, func(_ json.RawMessage, name string, _ json.RawMessage) bool {
		return name != "ID" && !entry.IsOneOf(name, updateMembers)
	})
	b := make([]byte, 0, len(e.Addr)+len(e.Metadata)+64)
	b = append(b, `{"Op":0,"Addr":`...)
	b = entry.AppendString(b, e.Addr)
	b = append(b, `,"Metadata":`...)
	b = entry.AppendJSON(b, metadata)
	if e.Draining {
		b = append(b, drainingSuffix[:len(drainingSuffix)-1]...)
	}
	if e.Addr == "" && metadata == nil || misread(service, e.ID, e.Addr) {
		b = append(b, `,"ID":`...)
		b = entry.AppendString(b, e.ID)
	}
	return append(entry.AppendMembers(b, extra), '}'), nil
}

func decodeUpdate(_, _ string, value []byte) (naming.Endpoint, error) {
	if e, ok := decodeCanonical(value); ok {
		return e, nil
	}
	e, members, err := decodeMembers(value)
	if err == nil {
		e.Metadata = entry.HideMembers(e.Metadata, members)
	}
	return e, err
}

// decodePlain decodes as the old package does, which ignores other members. The mark of
// an endpoint that drains is the exception: [GRPCResolver.Build] uses it.
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
	Draining entry.Mark
}

var updateMembers = []string{"Op", "Addr", "Metadata", "Draining"}

// decodeMembers returns the endpoint in a value, and the members that are not part of the
// endpoint.
func decodeMembers(value []byte) (e naming.Endpoint, members map[string]json.RawMessage, err error) {
	var u update
	if members, err = entry.DecodeObject(value, &u, &u.Draining, updateMembers...); err != nil {
		return e, nil, err
	}
	said := u.Addr != "" || entry.HasMember(value, "Addr")
	e = naming.Endpoint{Addr: u.Addr, Metadata: entry.OmitNull(u.Metadata), Draining: u.Draining.Draining}
	if id, ok := members["ID"]; ok && id[0] == '"' {
		delete(members, "ID")
		e.ID = "ID" // any text: see Codec.Decode
	}
	switch {
	case e.ID == "" && e.Addr == "" && e.Metadata == nil:
		return e, nil, errors.New("neither an address nor metadata")
	case !said:
		// An entry of another format that also has a member "metadata".
		return e, nil, errors.New("no member \"Addr\"")
	}
	return e, members, nil
}

// drainingSuffix ends the value of an endpoint that drains.
const drainingSuffix = `,"Draining":true}`

// decodeCanonical decodes a value that is spelled as encoding/json spells an Update, with
// our mark or without, and reports whether the value is. Nearly all values are spelled
// so, and this spares decoding each member.
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
	e.Addr, e.Metadata, e.Draining = string(addr), entry.OmitNull(metadata), draining
	return e, e.Addr != "" || e.Metadata != nil
}
