package consul

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
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
	for i := 1; ok; i++ {
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
		Weights                  struct{ Passing int }
		CreateIndex, ModifyIndex uint64
	}
	Checks []struct{ Status string }
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
	number(s.Port)
	number(s.Weights.Passing)
	number(len(s.Tags))
	for _, tag := range s.Tags {
		str(tag)
	}
	object(s.Meta)
	object(s.TaggedAddresses)
	sum := sha256.Sum256(b)
	return digest(sum[:16])
}

// status is the worst of the checks'.
func (i *instance) status() string {
	worst := api.HealthPassing
	for _, c := range i.Checks {
		switch c.Status {
		case api.HealthPassing:
		case api.HealthWarning:
			if worst == api.HealthPassing {
				worst = api.HealthWarning
			}
		default:
			return api.HealthCritical
		}
	}
	return worst
}

// addr returns the address of the endpoint, if it is not ours.
func (i *instance) addr() string {
	host := i.Service.Address
	if host == "" {
		host = i.Node.Address
	}
	switch {
	case i.Service.SocketPath != "":
		return "unix:" + i.Service.SocketPath
	case i.Service.Port == 0:
		return host
	}
	return net.JoinHostPort(host, strconv.Itoa(i.Service.Port))
}

// id returns the endpoint's ID, and whether the entry is ours.
func (i *instance) id() (id string, ours bool) {
	if id, ours := get(i.Service.Meta, metaID); ours {
		return id, true
	}
	if addr := i.addr(); addr != i.Service.ID {
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
func (i *instance) endpoint(codec *Codec) (naming.Endpoint, error) {
	id, ours := i.id()
	e := naming.Endpoint{ID: id, Addr: i.addr()}
	if !utf8.ValidString(id) {
		return e, errors.New("an ID that is not UTF-8")
	}
	var err error
	switch {
	case ours:
		err = i.ours(&e)
	case codec != nil:
		err = codec.decode(i, &e)
	default:
		e.Metadata = i.entry().metadata()
	}
	if err == nil && !ours && e.Addr == i.addr() && i.Service.Port == 0 {
		// Consul has services without a port. Nobody could dial one, unless the
		// address says more than Consul knows of.
		err = naming.CheckAddress(e.Addr)
	}
	return e, err
}

// ours completes the endpoint of an entry that encode made.
func (i *instance) ours(e *naming.Endpoint) error {
	meta := i.Service.Meta
	if addr, ok := get(meta, metaAddr); ok {
		e.Addr = addr
	}
	rest, hasRest := get(meta, metaJSON)
	if hasRest && !json.Valid([]byte(rest)) {
		return fmt.Errorf("%s is not JSON", metaJSON)
	}
	tags := i.Service.Tags
	if n, ok := meta[metaPeer]; ok {
		n, err := strconv.Atoi(n)
		if err != nil || n < 0 || n > len(tags) {
			return fmt.Errorf("%s is no number of its %d tags", metaPeer, len(tags))
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
		if !strings.HasPrefix(key, reserved) {
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
