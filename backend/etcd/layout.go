package etcd

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/naming-go/naming"
)

// layout maps endpoints to keys and keys to services. The key of an endpoint is
//
//	prefix + service + "/" + tail
//
// The tail is the endpoint's ID with "/" and "%" escaped. So the last slash of a
// key ends the name of the service, whatever the name. An address with a slash is
// the exception: programs on the old package's API put such an address into the
// key unescaped ("svc/unix:/run/svc.sock"). The address in the value
// distinguishes such a key from a key of the service "svc/unix:/run", see owns.
//
// A codec with Keys defines its own tail. With Options.Deep, and in a
// GRPCResolver, the tail is the unescaped ID.
type layout struct {
	prefix string // see keyPrefix
	codec  *Codec
	// deep says that every key below "service/" is an entry of the service, and
	// that the tail is its ID.
	deep bool
	// plain is the old package's rule: like deep, and endpoints are never marked
	// as draining.
	plain bool
	// noMarks says that no draining marks are written.
	noMarks bool
}

// keyPrefix returns the common prefix of all keys. A slash follows each part. So
// the prefix does not match the keys of a neighbour whose name begins with the same
// letters.
func keyPrefix(prefix, root string) string {
	if prefix != "" && !strings.HasSuffix(prefix, "/") && !strings.HasPrefix(root, "/") {
		prefix += "/"
	}
	if root != "" && !strings.HasSuffix(root, "/") {
		root += "/"
	}
	return prefix + root
}

// encode returns the value of an endpoint's entry. Every error wraps
// [naming.ErrInvalid].
func (l *layout) encode(service string, e naming.Endpoint) ([]byte, error) {
	fail := func(err error) ([]byte, error) {
		return nil, fmt.Errorf("%w: %v of %q in service %q: %w", naming.ErrInvalid, naming.Add, e.ID, service, err)
	}
	e.NoDrainingMark = l.noMarks || l.codec.NoDrainingMark
	switch {
	case e.Draining && l.codec.NoDrainingMark:
		return fail(errors.New("the format has no place for the mark of an endpoint that drains"))
	case e.Draining && l.noMarks:
		return fail(errors.New("the mark of an endpoint that drains is turned off (Options.NoDrainingMark)"))
	}
	if l.codec.Keys != nil {
		// The Store must not write a key that it reads as another endpoint's.
		tail := l.codec.Keys.Tail(e.ID)
		if id, mine := l.identify(service, tail); !mine || id != e.ID {
			return fail(errors.New("the format has no key for its ID"))
		}
	}
	value, err := l.codec.Encode(service, e)
	if err != nil {
		return fail(err)
	}
	return value, nil
}

// name returns the name of a service in keys.
func (l *layout) name(service string) string {
	if l.codec.Name != nil {
		return l.codec.Name(service)
	}
	return service
}

// dir returns the prefix of a service's keys.
func (l *layout) dir(service string) string { return l.prefix + l.name(service) + "/" }

// key returns the key under which the Store puts an endpoint.
func (l *layout) key(service, id string) string {
	switch {
	case l.codec.Keys != nil:
		return l.dir(service) + l.codec.Keys.Tail(id)
	case l.deep:
		return l.dir(service) + id
	}
	return l.dir(service) + escape(id)
}

// rawKey returns the key under which a program on the old package's API puts an
// endpoint with this ID. It returns false if the old package has no key for the ID, or has
// the Store's own key.
func (l *layout) rawKey(service, id string) (string, bool) {
	if l.deep || l.codec.Keys != nil || !odd(id) {
		return "", false
	}
	return l.dir(service) + id, true
}

// sure reports whether the key alone determines the service and the ID of an
// entry.
func (l *layout) sure(tail string) bool {
	return l.deep || l.plain || l.codec.Keys != nil || !odd(tail)
}

// identify returns the ID of an entry by its key. It returns false if the entry
// belongs to another service. If sure is false for the tail, the value decides
// instead, see owns.
func (l *layout) identify(service, tail string) (id string, mine bool) {
	switch {
	case l.codec.Keys != nil:
		name := l.name(service)
		owner, id, ok := l.codec.Keys.Split(name + "/" + tail)
		return id, ok && owner == name
	case l.plain && strings.Trim(tail, "/") == "":
		return tail + "/", true // An ID is never empty, and different tails have different IDs.
	case l.deep || l.plain:
		return tail, true
	}
	return tail, !strings.Contains(tail, "/") || slashed(tail)
}

// odd reports whether a tail has more than one reading: it has a slash or a
// percent sign.
func odd(tail string) bool { return strings.ContainsAny(tail, "/%") }

var escaper = strings.NewReplacer("%", "%25", "/", "%2F")

// escape returns the tail of an endpoint's key. unescape reverses it.
func escape(id string) string {
	if !odd(id) {
		return id
	}
	return escaper.Replace(id)
}

// unescape returns the ID for which escape returns tail. It returns false if
// there is no such ID.
func unescape(tail string) (string, bool) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(tail, "%")
		b.WriteString(before)
		switch {
		case !found:
			return b.String(), true
		case strings.HasPrefix(after, "25"):
			b.WriteByte('%')
		case strings.HasPrefix(after, "2F"):
			b.WriteByte('/')
		default:
			return "", false
		}
		tail = after[2:]
	}
}

// slashed reports whether addr has a slash in a place where an address may have
// one: in a path after a scheme.
func slashed(addr string) bool {
	scheme, _, found := strings.Cut(addr, "/")
	return found && strings.Contains(scheme, ":")
}

// entry returns the endpoint that the value at dir + tail stands for. If mine is
// false, the entry belongs to another service, and may be malformed. An error
// means that the entry is malformed. id is then the ID that an endpoint under
// this key would have.
func (l *layout) entry(service, tail string, value []byte) (e naming.Endpoint, id string, mine bool, err error) {
	id, mine = l.identify(service, tail)
	if !mine {
		return e, "", false, nil
	}
	e, err = l.codec.Decode(service, tail, value)
	if err == nil && !l.codec.valid && e.Metadata != nil && !json.Valid(e.Metadata) {
		err = errors.New("the metadata is not JSON")
	}
	if !l.sure(tail) {
		id, mine = l.owns(service, tail, &e, err == nil)
	}
	if err == nil && e.ID == "" && e.Addr == "" && e.Metadata == nil {
		err = errors.New("neither an address nor metadata")
	}
	e.ID = id
	if err == nil {
		err = checkEntry(e)
	}
	if e.NoDrainingMark = e.NoDrainingMark || l.plain || l.noMarks || l.codec.NoDrainingMark; e.NoDrainingMark {
		e.NoDrainingMark = !e.Info().Draining
	}
	return e, id, mine, err
}

// checkEntry returns an error for an endpoint that a Store must not deliver.
func checkEntry(e naming.Endpoint) error {
	switch {
	case e.ID == "" && e.Addr != "": // GRPCResolver.Update writes entries that have neither.
		return errors.New("the key has no ID")
	case !utf8.ValidString(e.ID):
		return errors.New("the key is not UTF-8")
	case !utf8.Valid(e.Metadata):
		return errors.New("the metadata is not UTF-8")
	}
	return naming.CheckEndpoint(e)
}

// owns returns the ID of the entry at service + "/" + tail, and reports whether
// the entry belongs to the service. good says that the value was decoded into e.
// Every well-formed entry belongs to exactly one service.
func (l *layout) owns(service, tail string, e *naming.Endpoint, good bool) (id string, mine bool) {
	// If the value names an ID, the last slash of the key ends the service's name.
	raw := good && e.ID == "" && slashed(e.Addr)
	if strings.Contains(tail, "/") {
		return tail, raw && tail == e.Addr
	}
	if raw && claimed(service, tail, e.Addr) {
		return tail, false
	}
	if good && e.ID == "" && tail == e.Addr {
		return tail, true
	}
	if id, ok := unescape(tail); ok {
		return id, true
	}
	return tail, true
}

// misread reports whether the Store would take an entry with these fields, under the
// Store's own key, for an entry of a program on the old package's API, whose ID and
// address are the tail of its key. The value of such an entry must name the ID.
func misread(service, id, addr string) bool {
	tail := escape(id)
	return tail == addr && tail != id || slashed(addr) && claimed(service, tail, addr)
}

// claimed reports whether an entry at service + "/" + tail is an entry of a
// service with a shorter name, whose tail is the whole address.
func claimed(service, tail, addr string) bool {
	rest, ok := strings.CutSuffix(service+"/"+tail, "/"+addr)
	return ok && rest != ""
}

// split returns the service and the tail of a key, by the shape of the key. It
// returns false for a key that belongs to something else. If unsure is true, the
// service's name may be shorter, and only the value determines it: see owner.
func (l *layout) split(key string) (service, tail string, unsure, ok bool) {
	path, ok := strings.CutPrefix(key, l.prefix)
	if !ok || !utf8.ValidString(path) {
		return "", "", false, false
	}
	if l.codec.Keys != nil {
		if service, _, ok = l.codec.Keys.Split(path); ok {
			tail, ok = strings.CutPrefix(path, service+"/")
		}
		return service, tail, false, ok && naming.CheckService(service) == nil
	}
	i := strings.LastIndexByte(path, '/')
	if i <= 0 || naming.CheckService(path[:i]) != nil {
		return "", "", false, false
	}
	service, tail = path[:i], path[i+1:]
	// The key may end in an address with a slash, such as unix:/run/svc.sock, after
	// a shorter service name.
	if j := strings.LastIndexByte(service, ':'); !l.deep && j > 0 && strings.LastIndexByte(service[:j], '/') > 0 {
		unsure = true
	}
	return service, tail, unsure, true
}

// owner returns the service that an entry belongs to, by the entry's key and
// value. It returns false if the key belongs to something else.
func (l *layout) owner(key string, value []byte) (service string, ok bool) {
	service, tail, unsure, ok := l.split(key)
	if !ok || !unsure {
		return service, ok
	}
	e, err := l.codec.Decode(service, tail, value)
	if err == nil && e.ID == "" && slashed(e.Addr) && claimed(service, tail, e.Addr) {
		return strings.TrimSuffix(service+"/"+tail, "/"+e.Addr), true
	}
	return service, true
}
