package etcd

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd/internal/entry"
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
	if e.Addr == "" && metadata == nil || slashed(e.Addr) && claimed(service, escape(e.ID), e.Addr) {
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
	Draining entry.Mark
}

var updateMembers = []string{"Op", "Addr", "Metadata", "Draining"}

// decodeMembers returns the endpoint in a value and the members that are no part
// of it.
func decodeMembers(value []byte) (e naming.Endpoint, members map[string]json.RawMessage, err error) {
	var u update
	if members, err = entry.DecodeObject(value, &u, &u.Draining, updateMembers...); err != nil {
		return e, nil, err
	}
	said := u.Addr != "" || entry.HasMember(value, "Addr")
	e = naming.Endpoint{Addr: u.Addr, Metadata: entry.OmitNull(u.Metadata), Draining: u.Draining.Draining}
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
	e.Addr, e.Metadata, e.Draining = string(addr), entry.OmitNull(metadata), draining
	return e, e.Addr != "" || e.Metadata != nil
}
