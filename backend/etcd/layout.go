package etcd

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/naming-go/naming"
)

// layout is where entries are and whose they are. The key of an endpoint is
//
//	prefix + root + service + "/" + tail
//
// and the tail is its ID with "/" and "%" escaped, so that the last slash of a
// key ends the name of the service whatever the name. The exception are
// addresses with a slash in them, as programs on the old package's API put them
// there raw ("svc/unix:/run/svc.sock"): such a key is told from one of a service
// "svc/unix:/run" by the address in the value, see owns.
type layout struct {
	prefix string // Options.Prefix and Codec.Root
	codec  *Codec
	// plain is the old package's rule: whatever is below "service/" is an entry
	// of the service, and its ID is the tail as it is.
	plain bool
}

// dir is what the keys of a service begin with.
func (l *layout) dir(service string) string {
	if l.codec.Name != nil {
		service = l.codec.Name(service)
	}
	return l.prefix + service + "/"
}

// key is where the Store puts an endpoint.
func (l *layout) key(service, id string) string { return l.dir(service) + escape(id) }

// rawKey is where a program on the old package's API would have put an endpoint
// of that ID, if that is elsewhere.
func (l *layout) rawKey(service, id string) (string, bool) {
	if !odd(id) {
		return "", false
	}
	return l.dir(service) + id, true
}

// odd reports whether what a tail stands for cannot be told from the tail alone.
func odd(tail string) bool { return strings.ContainsAny(tail, "/%") }

var escaper = strings.NewReplacer("%", "%25", "/", "%2F")

func escape(id string) string {
	if !odd(id) {
		return id
	}
	return escaper.Replace(id)
}

// unescape returns the ID that escape makes tail of, and false if there is none.
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
	if !l.plain && strings.Contains(tail, "/") && !slashed(tail) {
		return e, "", false, nil
	}
	e, err = l.codec.Decode(service, value)
	if err == nil {
		err = check(&e)
	}
	id, mine = tail, true
	if !l.plain {
		id, mine = l.owns(service, tail, &e, err == nil)
	}
	if err == nil && !utf8.ValidString(id) {
		err = fmt.Errorf("the key is not UTF-8")
	}
	e.ID = id
	return e, id, mine, err
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

// check refuses what an endpoint cannot be.
func check(e *naming.Endpoint) error {
	switch {
	case e.ID == "" && e.Addr == "" && e.Metadata == nil:
		return fmt.Errorf("neither an address nor metadata")
	case !utf8.ValidString(e.Addr) || !utf8.Valid(e.Metadata):
		return fmt.Errorf("not UTF-8")
	}
	return nil
}

// split returns the service and the tail that a key stands for by its shape, and
// false for a key that is no entry's. unsure says that the value decides.
func (l *layout) split(key string) (service, tail string, unsure, ok bool) {
	rest, ok := strings.CutPrefix(key, l.prefix)
	if !ok {
		return "", "", false, false
	}
	i := strings.LastIndexByte(rest, '/')
	if i <= 0 || !utf8.ValidString(rest) {
		return "", "", false, false
	}
	service, tail = rest[:i], rest[i+1:]
	// A scheme and a path that may be an address, after what may be a service.
	if j := strings.LastIndexByte(service, ':'); j > 0 && strings.LastIndexByte(service[:j], '/') > 0 {
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
	e, err := l.codec.Decode(service, value)
	if err == nil && e.ID == "" && slashed(e.Addr) && claimed(service, tail, e.Addr) {
		return strings.TrimSuffix(service+"/"+tail, "/"+e.Addr), true
	}
	return service, true
}
