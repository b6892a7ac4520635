// For authors of backends: the checks that every Store applies to its arguments and
// to what it reads.

package naming

import (
	"encoding/json"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// CheckService returns an error if service is not a valid name of a service: it is
// empty, longer than [MaxServiceName], or not UTF-8. The error is [ErrInvalid] and has
// the name in its text.
func CheckService(service string) error {
	if service == "" {
		return fmt.Errorf("%w: empty service name", ErrInvalid)
	}
	if !utf8.ValidString(service) {
		return fmt.Errorf("%w: service name %q is not UTF-8", ErrInvalid, cut(service))
	}
	if len(service) > MaxServiceName {
		return fmt.Errorf("%w: service name of %d bytes; at most %d are allowed", ErrInvalid, len(service), MaxServiceName)
	}
	return nil
}

// Normalize checks the arguments of [Store.Apply]. It returns a copy of changes in
// which every ID is set and metadata that is null is nil. Every Store's Apply begins
// with it, so that all backends refuse the same arguments with the same text.
//
// The error is [ErrInvalid] and has the offending value in its text: a service name
// that [CheckService] refuses, an Op other than Add and Delete, an endpoint with
// neither ID nor Addr nor Metadata, an ID or Addr that [CheckEndpoint] refuses,
// metadata that is not JSON in UTF-8, an IfFree of a Change other than an Add with a
// lease, or a Reclaim without a condition.
func Normalize(service string, changes []Change) ([]Change, error) {
	if err := CheckService(service); err != nil {
		return nil, err
	}
	out := make([]Change, len(changes))
	for i, c := range changes {
		if c.Op != Add && c.Op != Delete {
			return nil, fmt.Errorf("%w: %v of %q in service %q: unknown operation", ErrInvalid, c.Op, c.Endpoint.Addr, service)
		}
		if c.IfFree && (c.Op != Add || c.Lease == nil) {
			return nil, fmt.Errorf("%w: %v of %q in service %q: IfFree without an Add under a lease", ErrInvalid, c.Op, c.Endpoint.Addr, service)
		}
		if c.Reclaim && (c.Lease == nil || c.Op == Add && !c.IfFree) {
			return nil, fmt.Errorf("%w: %v of %q in service %q: Reclaim without a condition on a lease", ErrInvalid, c.Op, c.Endpoint.Addr, service)
		}
		e, err := c.Endpoint.normalize()
		if err != nil {
			return nil, fmt.Errorf("%w: %v in service %q: %w", ErrInvalid, c.Op, service, err)
		}
		c.Endpoint = e
		out[i] = c
	}
	return out, nil
}

// normalize returns e with its ID set and metadata that is null as nil. It returns an
// error if Normalize refuses e.
func (e Endpoint) normalize() (Endpoint, error) {
	if isNull(e.Metadata) {
		e.Metadata = nil
	} else if !utf8.Valid(e.Metadata) {
		return e, fmt.Errorf("metadata %s of endpoint %q is not UTF-8", quoteSome(e.Metadata), e.Addr)
	} else if !json.Valid(e.Metadata) {
		return e, fmt.Errorf("metadata %s of endpoint %q is not JSON", quoteSome(e.Metadata), e.Addr)
	}
	if e.ID == "" {
		e.ID = e.Addr
	}
	e.NoDrainingMark, e.Unleased = false, false
	if err := CheckEndpoint(e); err != nil {
		return e, err
	}
	if e.ID == "" && e.Metadata == nil {
		return e, fmt.Errorf("endpoint with ID %q and address %q has no metadata either", e.ID, e.Addr)
	}
	return e, nil
}

// quoteSome quotes the start of b: an error names a value, and does not repeat a
// megabyte of it.
func quoteSome(b []byte) string {
	const most = 64
	if len(b) > most {
		return fmt.Sprintf("%q...", b[:most])
	}
	return fmt.Sprintf("%q", b)
}

// CheckID returns an error if [Store.Apply] refuses an endpoint with this ID in this
// service. The error is [ErrInvalid]. Every Store's Mark begins with CheckID.
func CheckID(service, id string) error {
	_, err := Normalize(service, []Change{{Op: Delete, Endpoint: Endpoint{ID: id}}})
	return err
}

// CheckEndpoint returns an error if e exceeds a limit, if its ID or Addr is not UTF-8,
// or if its Addr has a character that does not print. A Store calls it for every entry
// that it reads, and reports an entry that fails as a [MalformedError]. [Normalize]
// calls it for every change. It does not check that metadata is JSON.
//
// It is weaker than [CheckAddress], which checks a server's own address: other
// programs may store addresses that only they can dial.
func CheckEndpoint(e Endpoint) error {
	if err := e.checkSizes(); err != nil {
		return err
	}
	if !utf8.ValidString(e.ID) {
		return fmt.Errorf("ID %q is not UTF-8", cut(e.ID))
	}
	if !utf8.ValidString(e.Addr) {
		return fmt.Errorf("address %q is not UTF-8", cut(e.Addr))
	}
	if r, bad := unprintable(e.Addr); bad {
		return fmt.Errorf("the character %U in address %q", r, cut(e.Addr))
	}
	if deeper(e.Metadata, MaxDepth) {
		return fmt.Errorf("metadata nested deeper than %d levels", MaxDepth)
	}
	return nil
}

// checkSizes returns an error if a field of e exceeds its limit in bytes.
func (e *Endpoint) checkSizes() error {
	switch {
	case len(e.ID) > MaxID:
		return fmt.Errorf("an ID of %d bytes; at most %d are allowed", len(e.ID), MaxID)
	case len(e.Addr) > MaxAddr:
		return fmt.Errorf("an address of %d bytes; at most %d are allowed", len(e.Addr), MaxAddr)
	case len(e.Metadata) > MaxMetadata:
		return fmt.Errorf("metadata of %d bytes; at most %d are allowed", len(e.Metadata), MaxMetadata)
	}
	return nil
}

// unprintable returns the first character of s that has no place in an address.
func unprintable(s string) (rune, bool) {
	for _, r := range s {
		if r < 0x80 {
			if r < ' ' || r == 0x7f {
				return r, true
			}
		} else if !unicode.IsPrint(r) {
			return r, true
		}
	}
	return 0, false
}

// deeper reports whether arrays and objects in m are nested deeper than most. It
// counts brackets outside of strings, so that it also bounds text that is not JSON.
func deeper(m json.RawMessage, most int) bool {
	if len(m) <= most {
		return false
	}
	depth, quoted := 0, false
	for i := 0; i < len(m); i++ {
		switch c := m[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			if depth++; depth > most {
				return true
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return false
}
