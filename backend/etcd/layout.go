package etcd

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/naming-go/naming"
)

// layout is where entries are and whose they are. The key of an endpoint is
//
//	prefix + service + "/" + tail
//
// and the tail is its ID with "/" and "%" escaped, so that the last slash of a
// key ends the name of the service whatever the name. The exception are
// addresses with a slash in them, as programs on the old package's API put them
// there raw ("svc/unix:/run/svc.sock"): the address in the value
// distinguishes such a key from one of a service "svc/unix:/run", see owns.
//
// A codec with Keys has a tail of its own kind instead, and with Options.Deep,
// and in a GRPCResolver, the tail is the ID as it is.
type layout struct {
	prefix string // see keyPrefix
	codec  *Codec
	// deep says that whatever is below "service/" is an entry of the service,
	// and that the tail is its ID.
	deep bool
	// plain is the old package's rule: as deep, and endpoints are never marked.
	plain bool
	// noMarks says that no draining marks are written.
	noMarks bool
}

// keyPrefix returns what all keys begin with. Each of its parts is a path, so
// that it captures nothing of a neighbour whose name begins like it.
func keyPrefix(prefix, root string) string {
	if prefix != "" && !strings.HasSuffix(prefix, "/") && !strings.HasPrefix(root, "/") {
		prefix += "/"
	}
	if root != "" && !strings.HasSuffix(root, "/") {
		root += "/"
	}
	return prefix + root
}

// encode returns the value of an endpoint's entry. The error is [naming.ErrInvalid].
func (l *layout) encode(service string, e naming.Endpoint) ([]byte, error) {
	fail := func(err error) ([]byte, error) {
		return nil, fmt.Errorf("%w: %v of %q in service %q: %w", naming.ErrInvalid, naming.Add, e.ID, service, err)
	}
	e.NoDrain = l.noMarks || l.codec.NoDraining
	switch {
	case e.Draining && l.codec.NoDraining:
		return fail(errors.New("the format has no place for the mark of an endpoint that drains"))
	case e.Draining && l.noMarks:
		return fail(errors.New("the mark of an endpoint that drains is turned off (Options.NoDrainingMark)"))
	}
	if l.codec.Keys != nil {
		// A key that is read as another endpoint's must not be written.
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

// name returns what stands for a service in a key.
func (l *layout) name(service string) string {
	if l.codec.Name != nil {
		return l.codec.Name(service)
	}
	return service
}

// dir is what the keys of a service begin with.
func (l *layout) dir(service string) string { return l.prefix + l.name(service) + "/" }

// key is where the Store puts an endpoint.
func (l *layout) key(service, id string) string {
	switch {
	case l.codec.Keys != nil:
		return l.dir(service) + l.codec.Keys.Tail(id)
	case l.deep:
		return l.dir(service) + id
	}
	return l.dir(service) + escape(id)
}

// rawKey is where a program on the old package's API would have put an endpoint
// of that ID, if that is elsewhere.
func (l *layout) rawKey(service, id string) (string, bool) {
	if l.deep || l.codec.Keys != nil || !odd(id) {
		return "", false
	}
	return l.dir(service) + id, true
}

// sure reports whether the key alone says whose an entry is and by which ID.
func (l *layout) sure(tail string) bool {
	return l.deep || l.plain || l.codec.Keys != nil || !odd(tail)
}

// identify returns the ID of an entry by its key, and false if the entry belongs
// to another service. Unless sure, the value decides.
func (l *layout) identify(service, tail string) (id string, mine bool) {
	switch {
	case l.codec.Keys != nil:
		name := l.name(service)
		owner, id, ok := l.codec.Keys.Split(name + "/" + tail)
		return id, ok && owner == name
	case l.plain && strings.Trim(tail, "/") == "":
		return tail + "/", true // no ID is empty, and the others stay apart
	case l.deep || l.plain:
		return tail, true
	}
	return tail, !strings.Contains(tail, "/") || slashed(tail)
}

// odd reports whether a tail alone leaves open what it stands for.
func odd(tail string) bool { return strings.ContainsAny(tail, "/%") }

var escaper = strings.NewReplacer("%", "%25", "/", "%2F")

func escape(id string) string {
	if !odd(id) {
		return id
	}
	return escaper.Replace(id)
}

// unescape returns the ID that escape makes tail of, or false.
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

// slashed reports whether addr has a slash and the shape of an address that may:
// a scheme, and then a path.
func slashed(addr string) bool {
	scheme, _, found := strings.Cut(addr, "/")
	return found && strings.Contains(scheme, ":")
}

// entry makes an endpoint of what is at dir + tail. If mine is false, it belongs
// to another service, which does not mean that it can be understood. An error
// says that it cannot, and id is then what an endpoint there would be known by.
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
	if e.NoDrain = e.NoDrain || l.plain || l.noMarks || l.codec.NoDraining; e.NoDrain {
		e.NoDrain = !e.Info().Draining
	}
	return e, id, mine, err
}

// checkEntry refuses what no program may be given.
func checkEntry(e naming.Endpoint) error {
	switch {
	case e.ID == "" && e.Addr != "": // without either, it is Update's
		return errors.New("the key has no ID")
	case !utf8.ValidString(e.ID):
		return errors.New("the key is not UTF-8")
	case !utf8.Valid(e.Metadata):
		return errors.New("not UTF-8")
	}
	return naming.CheckEndpoint(e)
}

// owns decides whose the entry at service + "/" + tail is, and by which ID.
// Every entry that can be understood belongs to exactly one service.
func (l *layout) owns(service, tail string, e *naming.Endpoint, good bool) (id string, mine bool) {
	// With an ID in its value, the entry was put by its key's last slash.
	raw := good && e.ID == "" && slashed(e.Addr)
	if strings.Contains(tail, "/") {
		return tail, raw && tail == e.Addr
	}
	if raw && claimed(service, tail, e.Addr) {
		return tail, false
	}
	if good && tail == e.Addr {
		return tail, true
	}
	if id, ok := unescape(tail); ok {
		return id, true
	}
	return tail, true
}

// claimed reports whether an entry at service + "/" + tail would be taken for
// one of a shorter service, whose tail is the whole address.
func claimed(service, tail, addr string) bool {
	rest, ok := strings.CutSuffix(service+"/"+tail, "/"+addr)
	return ok && rest != ""
}

// split returns the service and the tail that a key stands for by its shape, and
// false for a key that belongs to something else. unsure says that the value decides.
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
	// A scheme and a path that may be an address, after what may be a service.
	if j := strings.LastIndexByte(service, ':'); !l.deep && j > 0 && strings.LastIndexByte(service[:j], '/') > 0 {
		unsure = true
	}
	return service, tail, unsure, true
}

// owner returns the service that an entry belongs to, by its key and its value.
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
