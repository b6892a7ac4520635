package etcd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/naming-go/naming"
)

// The formats of other frameworks have a map of strings where an endpoint has
// metadata of any kind. The string members of metadata that is an object are
// members of the map, one to one. The rest of it, or all of it if it is no
// object, is the value of one more member, as JSON.
const restMember = "naming.metadata"

// flatten returns the map of strings for metadata.
func flatten(metadata json.RawMessage) map[string]string {
	if metadata == nil {
		return nil
	}
	flat := make(map[string]string)
	var members map[string]json.RawMessage
	if json.Unmarshal(metadata, &members) != nil || members == nil {
		flat[restMember] = string(appendJSON(nil, metadata))
		return flat
	}
	for name, m := range members {
		var s string
		if m[0] == '"' && name != restMember && json.Unmarshal(m, &s) == nil {
			flat[name] = s
			delete(members, name)
		}
	}
	if len(members) > 0 || len(flat) == 0 {
		flat[restMember] = string(encodeObject(members))
	}
	return flat
}

// unflatten returns the metadata for a map of strings.
func unflatten(flat map[string]string) json.RawMessage {
	if len(flat) == 0 {
		return nil
	}
	members := make(map[string]json.RawMessage, len(flat))
	for name, s := range flat {
		if name != restMember {
			members[name] = appendString(nil, s)
		}
	}
	if rest, ok := flat[restMember]; ok {
		var more map[string]json.RawMessage
		switch {
		case !json.Valid([]byte(rest)):
			members[restMember] = appendString(nil, rest) // it is another's
		case json.Unmarshal([]byte(rest), &more) == nil && more != nil:
			maps.Copy(members, more)
		case len(members) == 0:
			return noNull(json.RawMessage(rest))
		default:
			members[restMember] = appendString(nil, rest)
		}
	}
	return encodeObject(members)
}

func encodeObject(members map[string]json.RawMessage) json.RawMessage {
	if len(members) == 0 {
		return json.RawMessage("{}")
	}
	b := append([]byte{'{'}, appendMembers(nil, members)[1:]...)
	return append(b, '}')
}

// pop removes a member of metadata that is an object, if fits says so, and
// decodes it into v.
func pop(metadata json.RawMessage, name string, v any, fits func(json.RawMessage) bool) json.RawMessage {
	if !bytes.Contains(metadata, []byte(name)) {
		return metadata
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(metadata, &members) != nil {
		return metadata
	}
	m, ok := members[name]
	if !ok || !fits(m) || json.Unmarshal(m, v) != nil {
		return metadata
	}
	delete(members, name)
	if len(members) == 0 {
		return nil
	}
	return encodeObject(members)
}

// push adds a member to metadata that is an object, or none.
func push(metadata json.RawMessage, name string, value []byte) json.RawMessage {
	members := make(map[string]json.RawMessage)
	if metadata != nil && json.Unmarshal(metadata, &members) != nil {
		return metadata
	}
	if _, ok := members[name]; ok {
		return metadata
	}
	members[name] = value
	return encodeObject(members)
}

func isText(m json.RawMessage) bool { return m[0] == '"' && string(m) != `""` }

// isInt reports whether m is a number that strconv writes as m is written.
func isInt(m json.RawMessage) bool {
	i, err := strconv.Atoi(string(m))
	return err == nil && i > 0 && strconv.Itoa(i) == string(m)
}

// encodeEntry returns an object of the given members, in their order, and of
// those that came in an endpoint's metadata.
func encodeEntry(extra map[string]json.RawMessage, names []string, values ...any) ([]byte, error) {
	var b []byte
	for i, name := range names {
		v, err := json.Marshal(values[i])
		if err != nil {
			return nil, err
		}
		b = append(appendString(append(b, ','), name), ':')
		b = append(b, v...)
	}
	b = appendMembers(b, extra)
	b[0] = '{'
	return append(b, '}'), nil
}

var (
	kratosMembers  = []string{"id", "name", "version", "metadata", "endpoints"}
	kitexMembers   = []string{"network", "address", "weight", "tags"}
	goMicroMembers = []string{"name", "version", "metadata", "endpoints", "nodes"}
)

// Kratos returns the format of kratos's etcd registry, in its default namespace:
//
//	/microservices/greeter/1 = {"id":"1","name":"greeter","version":"v1","metadata":{"zone":"a"},"endpoints":["grpc://127.0.0.1:9000"]}
//
// The address of an entry is its first endpoint of scheme grpc or grpcs, or else
// its first endpoint. Its version becomes the metadata's member "version".
// Metadata is a map of strings: what else an endpoint's metadata has is in its
// member "naming.metadata", as JSON. What else an entry has, such as further
// endpoints, is in the metadata's member "@entry" as in [Default].
func Kratos() *Codec {
	return &Codec{Root: "/microservices/", Encode: encodeKratos, Decode: decodeKratos}
}

func encodeKratos(service string, e naming.Endpoint) ([]byte, error) {
	metadata, extra := takeEntry(e.Metadata, "id", "name", "version", "metadata")
	var version string
	metadata = pop(metadata, "version", &version, isText)
	endpoints := []string{}
	if e.Addr != "" {
		endpoints = append(endpoints, "grpc://"+e.Addr)
	}
	if m, ok := extra["endpoints"]; ok {
		// Those that came with it, if they still say where it is.
		var came []string
		if json.Unmarshal(m, &came) == nil && kratosAddr(came) == e.Addr {
			endpoints = came
		}
		delete(extra, "endpoints")
	}
	return encodeEntry(extra, kratosMembers, e.ID, service, version, flatten(metadata), endpoints)
}

func decodeKratos(_ string, value []byte) (e naming.Endpoint, err error) {
	members, err := object(value)
	if err != nil {
		return e, err
	}
	var (
		id, name, version string
		flat              map[string]string
		endpoints         []string
	)
	err = errors.Join(take(members, "id", &id), take(members, "name", &name), take(members, "version", &version),
		take(members, "metadata", &flat), take(members, "endpoints", &endpoints))
	if err != nil {
		return e, err
	}
	e.ID = "id" // every entry names its own
	e.Addr = kratosAddr(endpoints)
	e.Metadata = unflatten(flat)
	if version != "" {
		e.Metadata = push(e.Metadata, "version", appendString(nil, version))
	}
	if len(endpoints) == 0 && (e.Metadata == nil && id == "") {
		return e, errors.New("no endpoints")
	}
	if len(endpoints) > 1 || len(endpoints) == 1 && endpoints[0] != "grpc://"+e.Addr {
		if members["endpoints"], err = json.Marshal(endpoints); err != nil {
			return e, err
		}
	}
	e.Metadata = putEntry(e.Metadata, members)
	return e, nil
}

// kratosAddr returns the address that gRPC dials.
func kratosAddr(endpoints []string) string {
	for _, scheme := range []string{"grpc://", "grpcs://"} {
		for _, url := range endpoints {
			if addr, ok := strings.CutPrefix(url, scheme); ok {
				addr, _, _ = strings.Cut(addr, "?isSecure=")
				return addr
			}
		}
	}
	if len(endpoints) == 0 {
		return ""
	}
	if _, addr, ok := strings.Cut(endpoints[0], "://"); ok {
		return addr
	}
	return endpoints[0]
}

// Kitex returns the format of kitex's registry-etcd:
//
//	kitex/registry-etcd/greeter/127.0.0.1:9999 = {"network":"tcp","address":"127.0.0.1:9999","weight":10,"tags":{"zone":"a"}}
//
// The weight becomes the metadata's member "weight", and is taken from there if
// that is a positive integer; without one it is written as 0, which kitex takes
// for its default. Tags are a map of strings, and other members are kept, as
// with [Kratos].
func Kitex() *Codec {
	return &Codec{Root: "kitex/registry-etcd/", Encode: encodeKitex, Decode: decodeKitex}
}

func encodeKitex(_ string, e naming.Endpoint) ([]byte, error) {
	metadata, extra := takeEntry(e.Metadata, kitexMembers...)
	var weight int
	metadata = pop(metadata, "weight", &weight, isInt)
	network, addr := "tcp", e.Addr
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
	}
	return encodeEntry(extra, kitexMembers, network, addr, weight, flatten(metadata))
}

func decodeKitex(_ string, value []byte) (e naming.Endpoint, err error) {
	members, err := object(value)
	if err != nil {
		return e, err
	}
	var (
		network, addr string
		weight        int
		tags          map[string]string
	)
	err = errors.Join(take(members, "network", &network), take(members, "address", &addr),
		take(members, "weight", &weight), take(members, "tags", &tags))
	if err != nil {
		return e, err
	}
	if network == "" && addr == "" {
		return e, errors.New("no address")
	}
	e.ID = "address"
	e.Addr = addr
	if network == "unix" {
		e.Addr = "unix:" + addr
	}
	e.Metadata = unflatten(tags)
	if weight > 0 {
		e.Metadata = push(e.Metadata, "weight", strconv.AppendInt(nil, int64(weight), 10))
	}
	e.Metadata = putEntry(e.Metadata, members)
	return e, nil
}

// GoMicro returns the format of go-micro's etcd registry:
//
//	/micro/registry/greeter/greeter-1 = {"name":"greeter","version":"v1","metadata":null,"endpoints":[],"nodes":[{"metadata":{"zone":"a"},"id":"greeter-1","address":"127.0.0.1:9000"}]}
//
// There is one node in each entry, which has the address and the metadata, a map
// of strings as with [Kratos]. The version is the metadata's member "version".
// The service's metadata and endpoints, and other members, are kept as with
// [Default]. The keys have "-" for a slash in the name of a service: such names
// are not kept apart from those that have it anyway.
func GoMicro() *Codec {
	return &Codec{
		Root:   "/micro/registry/",
		Name:   func(service string) string { return strings.ReplaceAll(service, "/", "-") },
		Encode: encodeGoMicro, Decode: decodeGoMicro,
	}
}

type goMicroNode struct {
	Metadata map[string]string `json:"metadata"`
	ID       string            `json:"id"`
	Address  string            `json:"address"`
}

func encodeGoMicro(service string, e naming.Endpoint) ([]byte, error) {
	metadata, extra := takeEntry(e.Metadata, "name", "version", "nodes")
	var version string
	metadata = pop(metadata, "version", &version, isText)
	shared, endpoints := json.RawMessage("null"), json.RawMessage("[]")
	if m, ok := extra["metadata"]; ok {
		shared = m
		delete(extra, "metadata")
	}
	if m, ok := extra["endpoints"]; ok {
		endpoints = m
		delete(extra, "endpoints")
	}
	node := goMicroNode{flatten(metadata), e.ID, e.Addr}
	return encodeEntry(extra, goMicroMembers, service, version, shared, endpoints, []goMicroNode{node})
}

func decodeGoMicro(_ string, value []byte) (e naming.Endpoint, err error) {
	members, err := object(value)
	if err != nil {
		return e, err
	}
	var (
		name, version string
		nodes         []goMicroNode
	)
	err = errors.Join(take(members, "name", &name), take(members, "version", &version), take(members, "nodes", &nodes))
	if err != nil {
		return e, err
	}
	if len(nodes) == 0 || nodes[0].Address == "" && nodes[0].ID == "" {
		return e, errors.New("no node")
	}
	for name, m := range members {
		// What Encode writes for nothing.
		if text := string(m); text == "null" || name == "endpoints" && text == "[]" {
			delete(members, name)
		}
	}
	e.ID = "id"
	e.Addr = nodes[0].Address
	e.Metadata = unflatten(nodes[0].Metadata)
	if version != "" {
		e.Metadata = push(e.Metadata, "version", appendString(nil, version))
	}
	e.Metadata = putEntry(e.Metadata, members)
	return e, nil
}

// GoZero returns the format of go-zero's etcd publisher:
//
//	greeter.rpc/7587869134945672710 = 127.0.0.1:8080
//
// There is no metadata: an endpoint that has any is refused. go-zero's IDs are
// those of leases, in decimal.
func GoZero() *Codec {
	return &Codec{Encode: encodeBare, Decode: decodeBare}
}

// GoKit returns the format of go-kit's sd/etcdv3, with the keys of its
// convention:
//
//	/services/greeter/1.2.3.4:8080 = 1.2.3.4:8080
//
// A value that is a URL has its host and port for an address; the URL is kept as
// the metadata's member "url". Other metadata is refused.
func GoKit() *Codec {
	return &Codec{Root: "/services/", Encode: encodeGoKit, Decode: decodeGoKit}
}

func encodeBare(_ string, e naming.Endpoint) ([]byte, error) {
	if e.Metadata != nil {
		return nil, errors.New("the format has no metadata")
	}
	if !bareAddr(e.Addr) {
		return nil, fmt.Errorf("the format has no address like %q", e.Addr)
	}
	return []byte(e.Addr), nil
}

func decodeBare(_ string, value []byte) (e naming.Endpoint, err error) {
	if !bareAddr(string(value)) {
		return e, errors.New("no address")
	}
	e.ID = "id" // a key with an address in it would be no key of theirs
	e.Addr = string(value)
	return e, nil
}

// bareAddr reports whether a bare string can be taken for an address.
func bareAddr(s string) bool {
	if strings.ContainsAny(s, "{}\"<> \t\r\n\x00") {
		return false
	}
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		return path != ""
	}
	_, port, err := net.SplitHostPort(s)
	return err == nil && port != "" && !strings.Contains(s, "/")
}

func encodeGoKit(service string, e naming.Endpoint) ([]byte, error) {
	var url string
	rest := pop(e.Metadata, "url", &url, isText)
	if url != "" && rest == nil && hostOf(url) == e.Addr {
		return []byte(url), nil
	}
	return encodeBare(service, e)
}

func decodeGoKit(service string, value []byte) (e naming.Endpoint, err error) {
	if host := hostOf(string(value)); host != "" {
		e, err = decodeBare(service, []byte(host))
		e.Metadata = push(nil, "url", appendString(nil, string(value)))
		return e, err
	}
	return decodeBare(service, value)
}

// hostOf returns the host and port of a URL, empty if s is none.
func hostOf(s string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || scheme == "" || slices.Contains([]string{"unix", "unix-abstract"}, scheme) {
		return ""
	}
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	return rest
}
