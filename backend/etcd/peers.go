package etcd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/naming-go/naming"
)

// The formats of other frameworks have a map of strings where an endpoint has
// metadata of any kind. The string members of metadata that is an object are
// members of the map, one to one. A weight is a number in an endpoint's metadata
// and its decimal text in the map, where the frameworks look for it. The rest of
// the metadata, or all of it if it is not an object, is the value of one more member,
// as JSON, and what is there comes before the map's own member of the name.
const (
	restMember   = "naming.metadata"
	weightMember = "weight"
)

// weights is what text a format has for a weight in its map of strings.
type weights int

const (
	noWeights  weights = iota // none: the weight is elsewhere
	anyWeights                // any number
	intWeights                // an integer, and anything else counts as the default
)

// text returns the text for a weight, and reports whether that is all there is to
// it, so that number does not lose anything. It returns "" if the weight is unset.
func (w weights) text(m json.RawMessage) (text string, exact bool) {
	f, ok := weight(string(m))
	switch {
	case w == noWeights || !ok:
		return "", false
	case w == anyWeights || isInt(m):
		return string(m), true
	case f > 1<<53:
		return "", false
	}
	return strconv.FormatInt(int64(max(math.Round(f), 1)), 10), false
}

// number returns the JSON number for a member of the map.
func (w weights) number(name, s string) (json.RawMessage, bool) {
	if w == noWeights || name != weightMember {
		return nil, false
	}
	_, ok := weight(s)
	return json.RawMessage(s), ok
}

// weight returns the weight that s, a number as JSON has it, is of.
func weight(s string) (float64, bool) {
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil && f > 0 && json.Valid([]byte(s))
}

// flatten returns the map of strings for metadata.
func flatten(metadata json.RawMessage, w weights) map[string]string {
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
		exact := false
		switch {
		case name == restMember:
		case m[0] == '"' && json.Unmarshal(m, &s) == nil:
			flat[name] = s
			_, number := w.number(name, s)
			exact = !number // or it would come back as a number
		case name == weightMember:
			if s, exact = w.text(m); s != "" {
				flat[name] = s
			}
		}
		if exact {
			delete(members, name)
		}
	}
	if len(members) > 0 || len(flat) == 0 {
		flat[restMember] = string(encodeObject(members))
	}
	return flat
}

// unflatten returns the metadata for a map of strings.
func unflatten(flat map[string]string, w weights) json.RawMessage {
	if len(flat) == 0 {
		return nil
	}
	members := make(map[string]json.RawMessage, len(flat))
	for name, s := range flat {
		if n, ok := w.number(name, s); ok {
			members[name] = n
		} else if name != restMember {
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

// push adds a member to metadata that is an object, or none. If there is one by
// that name, or no place for it, push adds it to members, as [takeEntry] wants it.
func push(metadata json.RawMessage, name string, value []byte, members map[string]json.RawMessage) json.RawMessage {
	if full(metadata, name) {
		members[name] = value
		return metadata
	}
	object := make(map[string]json.RawMessage)
	_ = json.Unmarshal(metadata, &object)
	object[name] = value
	return encodeObject(object)
}

// full reports whether push has no place for a member.
func full(metadata json.RawMessage, name string) bool {
	if metadata == nil {
		return false
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(metadata, &members) != nil || members == nil {
		return true
	}
	_, there := members[name]
	return there
}

// pull undoes push: it removes a member from extra, or else from metadata.
func pull(metadata json.RawMessage, extra map[string]json.RawMessage, name string, v any, fits func(json.RawMessage) bool) json.RawMessage {
	if m, ok := extra[name]; ok {
		delete(extra, name)
		_ = json.Unmarshal(m, v) // it fits
		return metadata
	}
	return pop(metadata, name, v, fits)
}

var errNoAddress = errors.New("no address")

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

// The formats of kratos, kitex and go-micro are JSON objects, and those frameworks
// ignore members that they do not know. So an entry of ours has one more, last in
// these lists: "draining", true or false. An entry without it is of another
// writer, which has no way to mark it.
var (
	kratosMembers  = []string{"id", "name", "version", "metadata", "endpoints", "draining"}
	kitexMembers   = []string{"network", "address", "weight", "tags", "draining"}
	goMicroMembers = []string{"name", "version", "metadata", "endpoints", "nodes", "draining"}
)

// written returns the names of the members that an entry of e has, without the
// last one if no mark is written.
func written(e naming.Endpoint, names []string) []string {
	if e.NoDrain {
		return names[:len(names)-1]
	}
	return names
}

// Kratos returns the format of kratos's etcd registry, in its default namespace:
//
//	/microservices/greeter/1 = {"id":"1","name":"greeter","version":"v1","metadata":{"zone":"a","weight":"30"},"endpoints":["grpc://127.0.0.1:9000"],"draining":false}
//
// It is KratosScheme("grpc", "grpcs"): for servers without TLS, and for clients
// of both kinds.
//
// The version of an entry becomes the metadata's member "version". Metadata is a
// map of strings. Its member "weight", which kratos's selectors read, is a number
// in the endpoint's metadata, and stays a string if it does not parse as one. For
// kratos, the weight is rounded to an integer of at least 1. What else an
// endpoint's metadata has is in the map's member "naming.metadata", as JSON. What
// else an entry has, such as further endpoints, is in the metadata's member
// "@entry" as in [Default].
//
// The member "draining", which kratos ignores, is in what a Store writes: true for
// an endpoint that drains. An entry without it is kratos's own, and NoDrain. An
// endpoint without an address is refused.
func Kratos() *Codec { return KratosScheme("grpc", "grpcs") }

// KratosScheme returns the format of [Kratos] for the endpoints of a scheme, such
// as "grpcs" for servers with TLS, or "http".
//
// The endpoints of an entry are URLs. It is written with one, of the scheme. Its
// address is read from the first URL of the scheme, or else from the first of the
// next of the others, in the order in which they are given here. "grpc" with the
// older mark of TLS, the parameter isSecure=true, is "grpcs", and "http" likewise
// "https". An entry without a URL of any of the schemes is malformed: kratos
// itself has no endpoint for such an entry.
//
// A kratos client with TLS takes grpcs only, and one without takes grpc only.
func KratosScheme(scheme string, others ...string) *Codec {
	k := kratos{append([]string{scheme}, others...)}
	return &Codec{Root: "/microservices/", Encode: k.encode, Decode: k.decode, known: true}
}

type kratos struct{ schemes []string }

type kratosEntry struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	Version   string            `json:"version"`
	Metadata  map[string]string `json:"metadata"`
	Endpoints []string          `json:"endpoints"`
	Draining  mark              `json:"draining"`
}

// endpoints returns the URLs of an entry that we make.
func (k kratos) endpoints(addr string) []string { return []string{k.schemes[0] + "://" + addr} }

func (k kratos) encode(service string, e naming.Endpoint) ([]byte, error) {
	if e.Addr == "" {
		return nil, errNoAddress
	}
	endpoints := k.endpoints(e.Addr)
	metadata, extra := takeEntry(e.Metadata, func(rest json.RawMessage, name string, m json.RawMessage) bool {
		switch name {
		case "endpoints":
			// Those that came with it, if they still say where it is.
			var came []string
			if json.Unmarshal(m, &came) != nil || k.addr(came) != e.Addr || slices.Equal(came, endpoints) {
				return false
			}
			endpoints = came
			return true
		case "version":
			return isText(m) && full(rest, name)
		}
		return !isOneOf(name, kratosMembers)
	})
	if len(extra) == 0 || extra["endpoints"] == nil {
		endpoints = k.endpoints(e.Addr)
	}
	delete(extra, "endpoints")
	var version string
	metadata = pull(metadata, extra, "version", &version, isText)
	return encodeEntry(extra, written(e, kratosMembers), e.ID, service, version, flatten(metadata, intWeights), endpoints, e.Draining)
}

func (k kratos) decode(_, _ string, value []byte) (e naming.Endpoint, err error) {
	var entry kratosEntry
	members, err := decodeObject(value, &entry, &entry.Draining, kratosMembers...)
	if err != nil {
		return e, err
	}
	e.ID = "id" // every entry names its own
	if e.Addr = k.addr(entry.Endpoints); e.Addr == "" {
		return e, fmt.Errorf("no endpoint with the scheme %s", strings.Join(k.schemes, " or "))
	}
	e.Draining, e.NoDrain = entry.Draining.draining, !entry.Draining.known
	e.Metadata = unflatten(entry.Metadata, intWeights)
	if entry.Version != "" {
		e.Metadata = push(e.Metadata, "version", appendString(nil, entry.Version), members)
	}
	if !slices.Equal(entry.Endpoints, k.endpoints(e.Addr)) {
		if members["endpoints"], err = json.Marshal(entry.Endpoints); err != nil {
			return e, err
		}
	}
	e.Metadata = putEntry(e.Metadata, members)
	return e, nil
}

// addr returns the address of the endpoint to use, or "".
func (k kratos) addr(endpoints []string) string {
	for _, scheme := range k.schemes {
		for _, url := range endpoints {
			if s, addr := splitURL(url); strings.EqualFold(s, scheme) {
				return addr
			}
		}
	}
	return ""
}

// splitURL returns the scheme of an endpoint's URL and its address.
func splitURL(url string) (scheme, addr string) {
	scheme, addr, _ = strings.Cut(url, "://")
	addr, secure, _ := strings.Cut(addr, "?isSecure=")
	secure, _, _ = strings.Cut(secure, "&")
	if secure, err := strconv.ParseBool(secure); err == nil && secure && (scheme == "grpc" || scheme == "http") {
		scheme += "s"
	}
	if strings.HasPrefix(scheme, "http") {
		if i := strings.IndexAny(addr, "/?#"); i >= 0 && !strings.HasPrefix(addr, "unix:") {
			addr = addr[:i]
		}
	}
	return scheme, addr
}

// Kitex returns the format of kitex's registry-etcd:
//
//	kitex/registry-etcd/greeter/127.0.0.1:9999 = {"network":"tcp","address":"127.0.0.1:9999","weight":10,"tags":{"zone":"a"}}
//
// The weight becomes the metadata's member "weight", and is taken from there if
// that is a positive integer; without one it is written as 0, which kitex takes
// for its default. Tags are a map of strings, other members are kept, and an
// entry has a member "draining", as with [Kratos]. An endpoint without an address
// is refused.
func Kitex() *Codec {
	return &Codec{Root: "kitex/registry-etcd/", Encode: encodeKitex, Decode: decodeKitex, known: true}
}

func encodeKitex(_ string, e naming.Endpoint) ([]byte, error) {
	network, addr := "tcp", e.Addr
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
	}
	if addr == "" {
		return nil, errNoAddress
	}
	metadata, extra := takeEntry(e.Metadata, func(rest json.RawMessage, name string, m json.RawMessage) bool {
		switch name {
		case "network":
			var came string
			return json.Unmarshal(m, &came) == nil && !slices.Contains([]string{"", "tcp", "unix"}, came) && network == "tcp"
		case weightMember:
			return isInt(m) && full(rest, name)
		}
		return !isOneOf(name, kitexMembers)
	})
	if m, ok := extra["network"]; ok {
		delete(extra, "network")
		_ = json.Unmarshal(m, &network) // it fits
	}
	var weight int
	metadata = pull(metadata, extra, weightMember, &weight, isInt)
	return encodeEntry(extra, written(e, kitexMembers), network, addr, weight, flatten(metadata, noWeights), e.Draining)
}

type kitexEntry struct {
	Network  string            `json:"network"`
	Address  string            `json:"address"`
	Weight   int               `json:"weight"`
	Tags     map[string]string `json:"tags"`
	Draining mark              `json:"draining"`
}

func decodeKitex(_, _ string, value []byte) (e naming.Endpoint, err error) {
	var entry kitexEntry
	members, err := decodeObject(value, &entry, &entry.Draining, kitexMembers...)
	if err != nil {
		return e, err
	}
	if entry.Address == "" {
		return e, errNoAddress
	}
	e.ID = "address"
	e.Addr = entry.Address
	switch entry.Network {
	case "", "tcp":
	case "unix":
		e.Addr = "unix:" + entry.Address
	default:
		members["network"] = appendString(nil, entry.Network)
	}
	e.Draining, e.NoDrain = entry.Draining.draining, !entry.Draining.known
	e.Metadata = unflatten(entry.Tags, noWeights)
	if entry.Weight > 0 {
		e.Metadata = push(e.Metadata, weightMember, strconv.AppendInt(nil, int64(entry.Weight), 10), members)
	}
	e.Metadata = putEntry(e.Metadata, members)
	return e, nil
}

// GoMicro returns the format of go-micro's etcd registry:
//
//	/micro/registry/greeter/greeter-1 = {"name":"greeter","version":"v1","metadata":null,"endpoints":[],"nodes":[{"metadata":{"zone":"a"},"id":"greeter-1","address":"127.0.0.1:9000"}]}
//
// There is one node in each entry, which has the address and the metadata, a map
// of strings as with [Kratos]; the weight there may be any number. The version is
// the metadata's member "version". The service's metadata and endpoints, and other
// members, are kept as with [Default], and an entry has a member "draining" as
// with Kratos. An endpoint without an address is refused. The keys have "-" for a
// slash in the name of a service: such names are not kept apart from those that
// have it anyway.
func GoMicro() *Codec {
	return &Codec{
		Root:   "/micro/registry/",
		Name:   func(service string) string { return strings.ReplaceAll(service, "/", "-") },
		Encode: encodeGoMicro, Decode: decodeGoMicro, known: true,
	}
}

type goMicroNode struct {
	Metadata map[string]string `json:"metadata"`
	ID       string            `json:"id"`
	Address  string            `json:"address"`
}

// goMicroEntry leaves out the service's metadata and endpoints, which are kept as
// they are.
type goMicroEntry struct {
	Name     string        `json:"name"`
	Version  string        `json:"version"`
	Nodes    []goMicroNode `json:"nodes"`
	Draining mark          `json:"draining"`
}

// goMicroNothing reports whether a member of an entry is what Encode writes for
// nothing.
func goMicroNothing(name string, m json.RawMessage) bool {
	return string(m) == "null" || name == "endpoints" && string(m) == "[]"
}

func encodeGoMicro(service string, e naming.Endpoint) ([]byte, error) {
	if e.Addr == "" {
		return nil, errNoAddress
	}
	metadata, extra := takeEntry(e.Metadata, func(rest json.RawMessage, name string, m json.RawMessage) bool {
		switch name {
		case "metadata", "endpoints":
			return !goMicroNothing(name, m)
		case "version":
			return isText(m) && full(rest, name)
		}
		return !isOneOf(name, goMicroMembers) && !goMicroNothing(name, m)
	})
	var version string
	metadata = pull(metadata, extra, "version", &version, isText)
	shared, endpoints := json.RawMessage("null"), json.RawMessage("[]")
	if m, ok := extra["metadata"]; ok {
		shared = m
		delete(extra, "metadata")
	}
	if m, ok := extra["endpoints"]; ok {
		endpoints = m
		delete(extra, "endpoints")
	}
	node := goMicroNode{flatten(metadata, anyWeights), e.ID, e.Addr}
	return encodeEntry(extra, written(e, goMicroMembers), service, version, shared, endpoints, []goMicroNode{node}, e.Draining)
}

func decodeGoMicro(_, _ string, value []byte) (e naming.Endpoint, err error) {
	var entry goMicroEntry
	members, err := decodeObject(value, &entry, &entry.Draining, "name", "version", "nodes", "draining")
	if err != nil {
		return e, err
	}
	if len(entry.Nodes) == 0 {
		return e, errors.New("no node")
	}
	node := entry.Nodes[0]
	if node.Address == "" {
		return e, errNoAddress
	}
	for name, m := range members {
		if goMicroNothing(name, m) {
			delete(members, name)
		}
	}
	e.ID = "id"
	e.Addr = node.Address
	e.Draining, e.NoDrain = entry.Draining.draining, !entry.Draining.known
	e.Metadata = unflatten(node.Metadata, anyWeights)
	if entry.Version != "" {
		e.Metadata = push(e.Metadata, "version", appendString(nil, entry.Version), members)
	}
	e.Metadata = putEntry(e.Metadata, members)
	return e, nil
}

// GoZero returns the format of go-zero's etcd publisher:
//
//	greeter.rpc/7587869134945672710 = 127.0.0.1:8080
//
// The format has no metadata: a put of an endpoint with metadata is refused. An endpoint cannot be
// marked as draining. go-zero's IDs are those of leases, in decimal.
func GoZero() *Codec {
	return &Codec{Encode: encodeBare, Decode: decodeBare, NoDraining: true, known: true}
}

// GoKit returns the format of go-kit's sd/etcdv3, with the keys of its
// convention:
//
//	/services/greeter/1.2.3.4:8080 = 1.2.3.4:8080
//
// A value that is a URL has its host and port for an address; the URL is kept as
// the metadata's member "url". Other metadata is refused. An endpoint cannot be
// marked as draining.
func GoKit() *Codec {
	return &Codec{Root: "/services/", Encode: encodeGoKit, Decode: decodeGoKit, NoDraining: true, known: true}
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

func decodeBare(_, _ string, value []byte) (e naming.Endpoint, err error) {
	if !bareAddr(string(value)) {
		return e, errNoAddress
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

func decodeGoKit(service, tail string, value []byte) (e naming.Endpoint, err error) {
	if host := hostOf(string(value)); host != "" {
		e, err = decodeBare(service, tail, []byte(host))
		e.Metadata = push(nil, "url", appendString(nil, string(value)), nil)
		return e, err
	}
	return decodeBare(service, tail, value)
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
	return rest[strings.LastIndexByte(rest, '@')+1:]
}
