package consul

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
)

// The keys of Meta that are ours. All begin with reserved.
const (
	reserved = "naming-"

	metaID   = "naming-id"   // the endpoint's ID; what has it is ours
	metaGen  = "naming-gen"  // the registration's number: of several with one ID, the highest counts
	metaAddr = "naming-addr" // Addr, where Address and Port cannot say it
	metaForm = "naming-form" // what kind of metadata there is; missing: none
	metaJSON = "naming-json" // what of the metadata has no other place
	metaPeer = "naming-peer" // how many Tags come before the endpoint's own, for the readers that a Codec is for

	metaDraining = "naming-draining" // "true": the endpoint is draining
)

// The values of metaForm.
const (
	formObject   = "object"        // members in Meta, Tags and metaJSON
	formWeighted = "object+weight" // the same, and the weight in Weights
	formValue    = "value"         // no object: all of it is in metaJSON
)

// The limits of Consul, in bytes.
const (
	maxPairs = 64
	maxKey   = 128
	maxValue = 512
)

// encode returns what is to be registered for an endpoint, but for its IDs and
// its check. The error tells of a limit of Consul that the endpoint cannot meet.
func encode(e naming.Endpoint, gen uint64, codec *Codec) (*api.AgentServiceRegistration, error) {
	r := &api.AgentServiceRegistration{Meta: map[string]string{metaGen: strconv.FormatUint(gen, 10)}}
	put(r.Meta, metaID, e.ID)
	if host, port, ok := splitAddr(e.Addr); ok {
		r.Address, r.Port = host, port
	} else {
		put(r.Meta, metaAddr, e.Addr)
	}
	if e.Draining {
		r.Meta[metaDraining] = "true"
	}
	var peer []string
	if codec != nil {
		peer = codec.encode(e, r)
		r.Meta[metaPeer] = strconv.Itoa(len(peer))
	}
	if len(e.Metadata) > 0 {
		fixed := len(r.Meta)
		members, isObject := decodeObject(e.Metadata)
		if !isObject {
			r.Meta[metaForm] = formValue
			put(r.Meta, metaJSON, compact(e.Metadata))
		} else if encodeObject(r, members, true); len(r.Meta) > maxPairs {
			// Many short members take less room together.
			for key := range r.Meta {
				if !strings.HasPrefix(key, reserved) || strings.HasPrefix(key, metaJSON) {
					delete(r.Meta, key)
				}
			}
			encodeObject(r, members, false)
		}
		if n := len(r.Meta); n > maxPairs {
			return nil, fmt.Errorf("metadata of %d bytes is too large for Consul: it takes %d pairs of a service's Meta, and there is room for %d", len(e.Metadata), n-fixed, maxPairs-fixed)
		}
	}
	if n := len(r.Meta); n > maxPairs {
		return nil, fmt.Errorf("an ID of %d bytes and an address of %d are too large for Consul: they take %d pairs of a service's Meta, of %d", len(e.ID), len(e.Addr), n, maxPairs)
	}
	r.Tags = append(peer, r.Tags...)
	return r, nil
}

// encodeObject puts the members of an object to their places. spread says that
// strings go to Meta.
func encodeObject(r *api.AgentServiceRegistration, members map[string]json.RawMessage, spread bool) {
	r.Meta[metaForm] = formObject
	rest := make(map[string]json.RawMessage)
	for key, value := range members {
		var s string
		switch {
		case key == "tags" && decodeTags(value, &r.Tags):
		case key == "weight" && decodeWeight(value, &r.Weights):
			r.Meta[metaForm] = formWeighted
		case spread && plainKey(key) && value[0] == '"' && json.Unmarshal(value, &s) == nil && len(s) <= maxValue:
			r.Meta[key] = s
		default:
			rest[key] = value
		}
	}
	if len(rest) > 0 {
		put(r.Meta, metaJSON, marshal(rest))
	}
}

// plainKey reports whether a member's name can be a key of Meta.
func plainKey(key string) bool {
	if key == "" || len(key) > maxKey {
		return false
	}
	for i := range len(key) {
		if c := key[i]; !letterOrDigit(c) && c != '-' && c != '_' {
			return false
		}
	}
	lower := strings.ToLower(key)
	return !strings.HasPrefix(lower, reserved) && !strings.HasPrefix(lower, "consul-")
}

// decodeTags reports whether value is a list of strings, and not empty.
func decodeTags(value json.RawMessage, tags *[]string) bool {
	var list []*string
	if json.Unmarshal(value, &list) != nil || len(list) == 0 || slices.Contains(list, nil) {
		return false
	}
	*tags = make([]string, len(list))
	for i, s := range list {
		(*tags)[i] = *s
	}
	return true
}

const maxWeight = 65535

// decodeWeight reports whether value is a weight as Consul has them.
func decodeWeight(value json.RawMessage, weights **api.AgentWeights) bool {
	n, err := strconv.ParseUint(string(value), 10, 32)
	if err != nil || n == 0 || n > maxWeight || strconv.FormatUint(n, 10) != string(value) {
		return false
	}
	*weights = &api.AgentWeights{Passing: int(n), Warning: 1}
	return true
}

// splitAddr returns the two parts of an address, if they make the same again and
// Consul takes them.
func splitAddr(addr string) (host string, port int, ok bool) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil || host == "" || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return "", 0, false
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		return "", 0, false // Consul refuses it
	}
	port, err = strconv.Atoi(p)
	if err != nil || port < 1 || port > 65535 || net.JoinHostPort(host, strconv.Itoa(port)) != addr {
		return "", 0, false
	}
	if naming.CheckAddress(addr) != nil {
		return "", 0, false // who reads it as another's entry would refuse it
	}
	return host, port, true
}

// put puts a value, in pieces if need be: the first under key, the next under
// key-1 and so on.
func put(meta map[string]string, key, value string) {
	for i := 0; ; i++ {
		n := min(len(value), maxValue)
		for n < len(value) && !utf8.RuneStart(value[n]) {
			n--
		}
		meta[piece(key, i)] = value[:n]
		if value = value[n:]; value == "" {
			return
		}
	}
}

func piece(key string, i int) string {
	if i == 0 {
		return key
	}
	return key + "-" + strconv.Itoa(i)
}

// get undoes put.
func get(meta map[string]string, key string) (value string, ok bool) {
	value, ok = meta[key]
	for i := 1; ok && i < maxPairs; i++ { // encode writes no more
		more, there := meta[piece(key, i)]
		if !there {
			break
		}
		value += more
	}
	return value, ok
}

// instance is an entry of the catalogue, as far as it matters here.
type instance struct {
	Node struct {
		Node    string
		Address string
	}
	Service struct {
		ID                       string
		Service                  string
		Tags                     []string
		Address                  string
		TaggedAddresses          urls
		SocketPath               string
		Meta                     map[string]string
		Port                     int
		Ports                    []port
		Kind                     string
		Weights                  struct{ Passing, Warning int }
		CreateIndex, ModifyIndex uint64
	}
	Checks checks
}

// port is one of several that a service has, each with a name.
type port struct {
	Name    string
	Port    int
	Default bool
}

// urls are those of an entry's TaggedAddresses that are URLs, as nobody but a
// Codec's peer has. All others are copies of its address that Consul has added.
type urls map[string]string

// UnmarshalJSON decodes TaggedAddresses.
func (u *urls) UnmarshalJSON(b []byte) error {
	if !bytes.Contains(b, []byte("://")) {
		return nil
	}
	var all map[string]struct{ Address string }
	if json.Unmarshal(b, &all) != nil {
		return nil // one entry must not spoil the others
	}
	*u = make(urls)
	for name, a := range all {
		if strings.Contains(a.Address, "://") {
			(*u)[name] = a.Address
		}
	}
	return nil
}

// typical reports whether an entry is a service, and not a proxy or a gateway of
// the service mesh.
func (i *instance) typical() bool {
	return i.Service.Kind == "" || i.Service.Kind == string(api.ServiceKindTypical)
}

// key is where the entry is.
func (i *instance) key() string { return i.Node.Node + "/" + i.Service.ID }

// digest stands for where an entry is and what it says of its endpoint. Different
// ones have different digests.
type digest [16]byte

func (i *instance) digest() digest {
	b, keys := make([]byte, 0, 512), make([]string, 0, 16)
	number := func(n int) { b = binary.AppendVarint(b, int64(n)) }
	str := func(s string) {
		number(len(s))
		b = append(b, s...)
	}
	object := func(m map[string]string) {
		number(len(m))
		keys = slices.AppendSeq(keys[:0], maps.Keys(m))
		slices.Sort(keys)
		for _, key := range keys {
			str(key)
			str(m[key])
		}
	}
	s := &i.Service
	for _, s := range [...]string{i.Node.Node, i.Node.Address, s.ID, s.Address, s.SocketPath} {
		str(s)
	}
	str(s.Kind)
	number(s.Port)
	number(len(s.Ports))
	for _, p := range s.Ports {
		str(p.Name)
		number(p.Port)
		if p.Default {
			str(p.Name)
		}
	}
	number(s.Weights.Passing)
	if i.warning() {
		number(s.Weights.Warning)
	}
	number(len(s.Tags))
	for _, tag := range s.Tags {
		str(tag)
	}
	object(s.Meta)
	object(s.TaggedAddresses)
	sum := sha256.Sum256(b)
	return digest(sum[:16])
}

// address returns the address of an entry that is not ours. portName is which of
// its ports is meant, if it has one of that name; what is there of the address is
// returned with an error, too.
func (i *instance) address(portName string) (string, error) {
	if path := i.Service.SocketPath; path != "" {
		return "unix:" + path, nil
	}
	host, number := cmp.Or(i.Service.Address, i.Node.Address), i.port(portName)
	if number == 0 {
		// Consul has services without a port. Nobody could dial one, unless the
		// address says more than Consul knows of.
		return host, naming.CheckAddress(host)
	}
	host, err := plainHost(host)
	if err == nil && (number < 1 || number > 65535) {
		err = fmt.Errorf("port %d is not from 1 to 65535", number)
	}
	addr := net.JoinHostPort(host, strconv.Itoa(number))
	if err == nil {
		err = naming.CheckAddress(addr)
	}
	return addr, err
}

// port returns the port of that name, or else the one that is the default.
func (i *instance) port(name string) int {
	number := i.Service.Port
	for _, p := range i.Service.Ports {
		switch {
		case name != "" && p.Name == name:
			return p.Port
		case p.Default && number == 0:
			number = p.Port
		}
	}
	return number
}

// plainHost returns a host as gRPC dials it: an IPv6 address loses a pair of
// brackets, as others register it with them.
func plainHost(host string) (string, error) {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok {
			if ip, err := netip.ParseAddr(inner); err == nil && ip.Is6() {
				return inner, nil
			}
		}
	}
	if strings.Contains(host, ":") {
		if ip, err := netip.ParseAddr(host); err != nil || !ip.Is6() {
			return host, fmt.Errorf("host %q is neither a name nor an IP address", naming.SafeText(host))
		}
		return host, nil
	}
	if host == "" || strings.ContainsFunc(host, func(r rune) bool {
		return r <= ' ' || r == 0x7f || strings.ContainsRune(`/\?#@%[]{}<>"`, r) || unicode.IsSpace(r)
	}) {
		return host, fmt.Errorf("host %q is neither a name nor an IP address", naming.SafeText(host))
	}
	return host, nil
}

// id returns the endpoint's ID, and whether the entry is ours.
func (i *instance) id(o *Options) (id string, ours bool) {
	if id, ours := get(i.Service.Meta, metaID); ours {
		return id, true
	}
	if addr, _ := i.address(o.PortName); addr != i.Service.ID {
		return i.Service.ID + "@" + addr, false
	}
	return i.Service.ID, false
}

// gen returns the number of the registration, 0 if it has none.
func (i *instance) gen() uint64 {
	gen, _ := strconv.ParseUint(i.Service.Meta[metaGen], 10, 64)
	return gen
}

// endpoint returns the endpoint of the entry.
func (i *instance) endpoint(o *Options) (naming.Endpoint, error) {
	id, ours := i.id(o)
	e := naming.Endpoint{ID: id}
	var err error
	if ours {
		e.Unleased = i.Service.ID == serviceID(noLease, i.Service.Service, id)
		err = i.ours(&e)
		e.NoDrain = o.NoDrainingMark && !e.Draining
	} else {
		err = i.others(&e, o)
		e.NoDrain = true
	}
	if err == nil {
		err = naming.CheckEndpoint(e)
	}
	return e, err
}

// others completes the endpoint of an entry of another writer.
func (i *instance) others(e *naming.Endpoint, o *Options) error {
	addr, addrErr := i.address(o.PortName)
	e.Addr = addr
	if o.Codec == nil {
		e.Metadata = i.entry().metadata()
	} else if err := o.Codec.decode(i, e); err != nil {
		return err
	}
	if e.Addr == addr { // a Codec may know of a better one
		return addrErr
	}
	return naming.CheckAddress(e.Addr)
}

// ours completes the endpoint of an entry that encode made.
func (i *instance) ours(e *naming.Endpoint) error {
	meta := i.Service.Meta
	var there bool
	if e.Addr, there = get(meta, metaAddr); !there {
		e.Addr = net.JoinHostPort(i.Service.Address, strconv.Itoa(i.Service.Port))
		if _, _, ok := splitAddr(e.Addr); !ok {
			return fmt.Errorf("address %q and port %d are not host and port", naming.SafeText(i.Service.Address), i.Service.Port)
		}
	}
	e.Draining = meta[metaDraining] == "true"
	rest, hasRest := get(meta, metaJSON)
	if hasRest && !json.Valid([]byte(rest)) {
		return fmt.Errorf("%s is not JSON", metaJSON)
	}
	tags := i.Service.Tags
	if n, ok := meta[metaPeer]; ok {
		n, err := strconv.Atoi(n)
		if err != nil || n < 0 || n > len(tags) {
			return fmt.Errorf("%s is not a number of its %d tags", metaPeer, len(tags))
		}
		tags = tags[n:]
	}
	members := make(map[string]json.RawMessage)
	form, hasForm := meta[metaForm]
	switch {
	case !hasForm:
		return nil
	case form == formValue:
		if !hasRest {
			return fmt.Errorf("%s is missing", metaJSON)
		}
		e.Metadata = json.RawMessage(rest)
		return nil
	case form == formObject || form == formWeighted:
		if hasRest {
			var ok bool
			if members, ok = decodeObject([]byte(rest)); !ok {
				return fmt.Errorf("%s is not an object", metaJSON)
			}
		}
	default:
		return fmt.Errorf("%s is %q, which is unknown", metaForm, form)
	}
	for key, value := range meta {
		// What is in both places is there for the readers of a Codec as well.
		if _, ok := members[key]; !ok && !strings.HasPrefix(key, reserved) {
			members[key] = json.RawMessage(marshal(value))
		}
	}
	if len(tags) > 0 {
		members["tags"] = json.RawMessage(marshal(tags))
	}
	if weight := i.Service.Weights.Passing; form == formWeighted && weight > 0 {
		members["weight"] = json.RawMessage(strconv.Itoa(weight))
	}
	e.Metadata = json.RawMessage(marshal(members))
	return nil
}

// decodeObject reports whether b is an object, and returns its members.
func decodeObject(b []byte) (members map[string]json.RawMessage, ok bool) {
	if json.Unmarshal(b, &members) != nil || members == nil {
		return nil, false
	}
	return members, true
}

func compact(b []byte) string {
	var buf bytes.Buffer
	if json.Compact(&buf, b) != nil {
		return string(b)
	}
	return buf.String()
}

// marshal returns JSON, with no more escapes than need be.
func marshal(v any) string {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // strings and valid JSON
	}
	return strings.TrimSuffix(buf.String(), "\n")
}
