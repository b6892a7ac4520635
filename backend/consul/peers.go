package consul

import (
	"bytes"
	"cmp"
	"compress/zlib"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
)

// Codec is the format of another framework: what the entries mean that its
// programs register, and what a Store adds to its own for them to read. [Kratos],
// [GoMicro] and [GRPCSpring] return one; the zero Codec is not usable. Several Stores
// may use one Codec at once.
//
// An entry that a Store has put says the same to every Store, whatever the Codec
// of the one or the other.
//
// What an entry has beyond an address and metadata is kept in a member "@entry"
// of the metadata, an object, as the codecs of package backend/etcd do: what is
// read here with a framework's Codec and put there with the same framework's, or
// here again, has lost nothing. Its "Meta" has what is in the entry's Meta where
// something else takes that member's place.
type Codec struct {
	// decode completes the endpoint of an entry of another writer.
	decode func(*instance, *naming.Endpoint) error
	// encode adds to a registration, and returns the tags to put before the
	// endpoint's own.
	encode func(naming.Endpoint, *api.AgentServiceRegistration) []string
}

const (
	entryMember     = "@entry"
	endpointsMember = "endpoints" // of @entry
	metaMember      = "Meta"      // of @entry
)

// entry collects what an entry of another writer says.
type entry struct {
	members map[string]json.RawMessage // of the metadata
	aside   map[string]json.RawMessage // of @entry
	meta    map[string]json.RawMessage // of @entry's Meta
	tags    []string                   // that have no other meaning
}

// entry returns what an entry says to everybody.
func (i *instance) entry() *entry {
	e := &entry{
		members: make(map[string]json.RawMessage),
		aside:   make(map[string]json.RawMessage),
		meta:    make(map[string]json.RawMessage),
		tags:    i.Service.Tags,
	}
	for key, value := range i.Service.Meta {
		e.members[key] = json.RawMessage(marshal(value))
	}
	// Every service has two weights, and if nobody has said one, it is 1.
	weight := i.Service.Weights.Passing
	warning := i.warning()
	if warning {
		weight = i.Service.Weights.Warning
	}
	if weight > 1 || warning && weight == 1 && i.Service.Weights.Passing > 1 {
		e.set("weight", weight)
	}
	return e
}

// set sets a member, and puts aside what is in its place.
func (e *entry) set(name string, value any) {
	if old, ok := e.members[name]; ok {
		e.meta[name] = old
	}
	e.members[name] = json.RawMessage(marshal(value))
}

// says reports whether a member is s, or is made so.
func (e *entry) says(name, s string) bool {
	text := marshal(s)
	if old, ok := e.members[name]; ok {
		return string(old) == text
	}
	e.members[name] = json.RawMessage(text)
	return true
}

// metadata returns the metadata, nil if there are none.
func (e *entry) metadata() json.RawMessage {
	if len(e.tags) > 0 {
		e.set("tags", e.tags)
	}
	if len(e.meta) > 0 {
		e.aside[metaMember] = json.RawMessage(marshal(e.meta))
	}
	if len(e.aside) > 0 {
		e.members[entryMember] = json.RawMessage(marshal(e.aside))
	}
	if len(e.members) == 0 {
		return nil
	}
	return json.RawMessage(marshal(e.members))
}

// number makes a member that is a string a number if the string is one. The
// frameworks have nothing but strings, and here a weight is a number.
func (e *entry) number(name string) {
	value := e.members[name]
	if old, aside := e.meta[name]; aside { // what Meta says is what the framework goes by
		value = old
	}
	var s string
	if len(value) == 0 || json.Unmarshal(value, &s) != nil || !isNumber(s) {
		return
	}
	delete(e.meta, name)
	e.members[name] = json.RawMessage(s)
}

// isNumber reports whether s is a number in JSON.
func isNumber(s string) bool {
	return s != "" && (s[0] == '-' || '0' <= s[0] && s[0] <= '9') && json.Valid([]byte(s)) &&
		!strings.ContainsAny(s, " \t\r\n")
}

// weight returns a weight as the frameworks have it, if it is a number.
func weight(members map[string]json.RawMessage) (s string, ok bool) {
	s = string(members["weight"])
	return s, isNumber(s) && len(s) <= maxValue
}

// text returns the string that a member is.
func text(members map[string]json.RawMessage, name string) (s string, ok bool) {
	value := members[name]
	if len(value) == 0 || value[0] != '"' || json.Unmarshal(value, &s) != nil {
		return "", false
	}
	return s, true
}

// parts returns the members of an endpoint's metadata, its tags and the endpoints
// that are set aside, each empty if there is none.
func parts[T any](e naming.Endpoint) (members map[string]json.RawMessage, tags []string, endpoints []T) {
	members, _ = decodeObject(e.Metadata)
	if list, ok := members["tags"]; ok {
		decodeTags(list, &tags)
	}
	if aside, ok := decodeObject(members[entryMember]); ok {
		var list []*T
		if json.Unmarshal(aside[endpointsMember], &list) == nil && !slices.Contains(list, nil) {
			for _, v := range list {
				endpoints = append(endpoints, *v)
			}
		}
	}
	return members, tags, endpoints
}

// Kratos returns the format of kratos's Consul registry:
//
//	ID               1
//	Name             greeter
//	Address, Port    127.0.0.1, 8000
//	Tags             version=v1
//	Meta             zone: a
//	TaggedAddresses  http: http://127.0.0.1:8000, grpc: grpc://127.0.0.1:9000
//
// The address of an entry is that of its URL of scheme grpc, or else grpcs, and if
// it has neither, that of the service. The version becomes the metadata's member
// "version" unless Meta has another of that name or there are several; other tags
// are the member "tags". Meta's "weight", a string there, is the member "weight", a
// number. URLs other than grpc's to the service's address are kept as the member
// "endpoints" of "@entry".
//
// A Store puts the tag of the version, the weight in Meta, and the URLs; without
// other URLs, the URL of gRPC. The URLs are left out if the address of the endpoint
// is not host:port.
func Kratos() *Codec { return &Codec{decode: decodeKratos, encode: encodeKratos} }

const versionTag = "version="

func decodeKratos(i *instance, e *naming.Endpoint) error {
	f := i.entry()
	f.number("weight")
	if at := only(f.tags, versionTag); at >= 0 {
		version := f.tags[at][len(versionTag):]
		if version == "" || f.says("version", version) {
			f.tags = slices.Delete(slices.Clone(f.tags), at, at+1)
		}
	}
	list := slices.Sorted(maps.Values(i.Service.TaggedAddresses))
	first := func(raw string) bool { addr, err := hostOf(raw); return err == nil && addr == e.Addr }
	if at := slices.IndexFunc(list, first); at > 0 {
		raw := list[at]
		list = slices.Insert(slices.Delete(list, at, at+1), 0, raw)
	}
	if len(list) > 0 && !(len(list) == 1 && list[0] == grpcURL(e.Addr)) {
		f.aside[endpointsMember] = json.RawMessage(marshal(list))
	}
	addr, err := kratosAddr(list)
	if err != nil {
		return err
	}
	if addr != "" {
		e.Addr = addr
	}
	e.Metadata = f.metadata()
	return nil
}

// only returns where the only tag is that begins with prefix, -1 if there is no
// such tag or more than one.
func only(tags []string, prefix string) int {
	at := -1
	for i, tag := range tags {
		if strings.HasPrefix(tag, prefix) {
			if at >= 0 {
				return -1
			}
			at = i
		}
	}
	return at
}

// kratosAddr returns the address that gRPC dials, empty if there is none.
func kratosAddr(list []string) (string, error) {
	for _, scheme := range []string{"grpc://", "grpcs://"} {
		for _, raw := range list {
			if strings.HasPrefix(raw, scheme) {
				return hostOf(raw)
			}
		}
	}
	return "", nil
}

// hostOf returns the host and port of a URL.
func hostOf(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", err
	}
	if u.Hostname() == "" || u.Port() == "" || !utf8.ValidString(u.Host) {
		return "", fmt.Errorf("no host and port in %.100q", raw)
	}
	return u.Host, nil
}

func grpcURL(addr string) string { return (&url.URL{Scheme: "grpc", Host: addr}).String() }

func encodeKratos(e naming.Endpoint, r *api.AgentServiceRegistration) []string {
	members, tags, list := parts[string](e)
	// Those that came with it, if they still say where it is.
	addr, err := kratosAddr(list)
	if addr == "" && len(list) > 0 {
		addr, err = hostOf(list[0])
	}
	if err != nil || addr != e.Addr {
		list = nil
		if _, _, ok := splitAddr(e.Addr); ok {
			list = []string{grpcURL(e.Addr)}
		}
	}
	for _, raw := range list {
		u, err := url.Parse(raw)
		if err != nil || r.TaggedAddresses[u.Scheme].Address != "" {
			continue
		}
		if r.TaggedAddresses == nil {
			r.TaggedAddresses = make(map[string]api.ServiceAddress)
		}
		port, _ := strconv.ParseUint(u.Port(), 10, 16)
		r.TaggedAddresses[u.Scheme] = api.ServiceAddress{Address: raw, Port: int(port)}
	}
	if w, ok := weight(members); ok {
		r.Meta["weight"] = w
	}
	if slices.ContainsFunc(tags, func(tag string) bool { return strings.HasPrefix(tag, versionTag) }) {
		return nil
	}
	version, _ := text(members, "version")
	return []string{versionTag + version}
}

// GoMicro returns the format of go-micro's Consul registry:
//
//	ID             greeter-1
//	Name           greeter
//	Address, Port  127.0.0.1, 9000
//	Tags           t-789c…, e-789c…, v-789c…
//
// The tags are compressed JSON in hexadecimal: each t- a part of the metadata, each
// e- an endpoint in go-micro's sense, a method; and v- the version, which is no
// JSON. The older form is understood, too, in which they are plain (t={"zone":"a"}).
// Metadata is that of Meta and of the tags, the version its member "version", and
// methods the member "endpoints" of "@entry". Tags that are none of these, or say
// something else of a member than Meta does, are the member "tags".
//
// What a Store puts has such tags, for those members of the metadata that are
// strings, and for the weight, which is a number here and a string there, and in Meta
// as well. An entry whose tags are compressed data, but not of this form, is
// malformed, and so is one with more than half a megabyte of them.
func GoMicro() *Codec { return &Codec{decode: decodeGoMicro, encode: encodeGoMicro} }

// maxInflated bounds what the tags of an entry expand to, in bytes.
const maxInflated = naming.MaxMetadata / 2

func decodeGoMicro(i *instance, e *naming.Endpoint) error {
	f := i.entry()
	all := f.tags
	f.tags = nil
	var methods []json.RawMessage
	left := maxInflated
	version := false
	for _, tag := range all {
		kind, value, err := goMicroTag(tag, &left)
		if err != nil {
			return fmt.Errorf("tag %.40q: %w", tag, err)
		}
		understood := false
		switch kind {
		case 't':
			var pairs map[string]string
			if err := json.Unmarshal(value, &pairs); err != nil {
				return fmt.Errorf("tag %.40q: %w", tag, err)
			}
			understood = len(pairs) > 0
			for key, s := range pairs {
				understood = f.says(key, s) && understood
			}
		case 'e':
			if _, ok := decodeObject(value); !ok {
				return fmt.Errorf("tag %.40q: not a JSON object", tag)
			}
			methods = append(methods, json.RawMessage(compact(value)))
			understood = true
		case 'v':
			understood = !version && (len(value) == 0 || f.says("version", string(value)))
			version = true
		}
		if !understood {
			f.tags = append(f.tags, tag)
		}
	}
	f.number("weight")
	if len(methods) > 0 {
		f.aside[endpointsMember] = json.RawMessage(marshal(methods))
	}
	e.Metadata = f.metadata()
	return nil
}

// goMicroTag returns what a tag of go-micro's says, kind 0 for any other. It takes
// what it inflates from left.
func goMicroTag(tag string, left *int) (kind byte, value []byte, err error) {
	if len(tag) < 2 || !strings.Contains("tev", tag[:1]) {
		return 0, nil, nil
	}
	switch kind = tag[0]; {
	case tag[1] == '=' && (kind == 'v' || strings.HasPrefix(tag[2:], "{")):
		return kind, []byte(tag[2:]), nil
	case tag[1] != '-':
		return 0, nil, nil
	}
	// Others have tags like v-10, but the first two bytes tell.
	b, err := hex.DecodeString(tag[2:])
	if err != nil || len(b) < 2 || b[0] != 0x78 || (int(b[0])<<8|int(b[1]))%31 != 0 {
		return 0, nil, nil
	}
	r, err := zlib.NewReader(bytes.NewReader(b))
	if err != nil {
		return 0, nil, err
	}
	value, err = io.ReadAll(io.LimitReader(r, int64(*left)+1))
	switch *left -= len(value); {
	case err != nil:
		return 0, nil, err
	case *left < 0:
		return 0, nil, fmt.Errorf("the tags have more than %d bytes", maxInflated)
	case !utf8.Valid(value):
		return 0, nil, errors.New("not UTF-8")
	}
	return kind, value, nil
}

func encodeGoMicro(e naming.Endpoint, r *api.AgentServiceRegistration) (peer []string) {
	members, tags, methods := parts[json.RawMessage](e)
	if w, ok := weight(members); ok {
		r.Meta["weight"] = w
		members["weight"] = json.RawMessage(marshal(w))
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if s, ok := text(members, name); ok && name != "version" {
			peer = append(peer, "t-"+deflate(marshal(map[string]string{name: s})))
		}
	}
	for _, m := range methods {
		if _, ok := decodeObject(m); ok {
			peer = append(peer, "e-"+deflate(compact(m)))
		}
	}
	left := maxInflated
	if !slices.ContainsFunc(tags, func(tag string) bool { kind, _, _ := goMicroTag(tag, &left); return kind == 'v' }) {
		version, _ := text(members, "version")
		peer = append(peer, "v-"+deflate(version))
	}
	return peer
}

func deflate(s string) string {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	_, _ = io.WriteString(w, s) // to memory
	_ = w.Close()
	return hex.EncodeToString(b.Bytes())
}

// GRPCSpring returns the format of grpc-spring's servers with Spring Cloud Consul:
//
//	ID             greeter-1
//	Name           greeter
//	Address, Port  127.0.0.1, 8080
//	Meta           gRPC_port: 9090
//
// The port of gRPC is that of Meta, or of a tag gRPC_port=9090 as older versions
// have it, or else the service's; "gRPC.port" means the same in both. The service's
// own port, if it is another, is kept as the member "Port" of "@entry".
//
// What a Store puts has the port of gRPC for the service's port, where grpc-spring's
// clients look when Meta has none.
func GRPCSpring() *Codec { return &Codec{decode: decodeGRPCSpring, encode: encodeGRPCSpring} }

// springPorts are the names of the port of gRPC, newest first.
var springPorts = [...]string{"gRPC_port", "gRPC.port"}

const portMember = "Port" // of @entry

func decodeGRPCSpring(i *instance, e *naming.Endpoint) error {
	f := i.entry()
	value, found := springPort(i)
	if found {
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("%s %q is not from 1 to 65535", springPorts[0], naming.SafeText(value))
		}
		host, err := plainHost(cmp.Or(i.Service.Address, i.Node.Address))
		if err != nil {
			return err
		}
		if addr := net.JoinHostPort(host, strconv.FormatUint(n, 10)); addr != e.Addr {
			f.aside[portMember] = json.RawMessage(strconv.Itoa(i.Service.Port))
			e.Addr = addr
		}
	}
	for _, name := range springPorts {
		delete(f.members, name)
	}
	e.Metadata = f.metadata()
	return nil
}

func springPort(i *instance) (value string, ok bool) {
	for _, name := range springPorts {
		if value, ok := i.Service.Meta[name]; ok {
			return value, true
		}
	}
	for _, name := range springPorts {
		for _, tag := range i.Service.Tags {
			if value, ok := strings.CutPrefix(tag, name+"="); ok {
				return value, true
			}
		}
	}
	return "", false
}

func encodeGRPCSpring(naming.Endpoint, *api.AgentServiceRegistration) []string { return nil }
