package migrate

import (
	"strings"

	"github.com/naming-go/naming"
)

// copyPrefix is how the ID of a copy begins.
const copyPrefix = "~"

// CopyID returns the ID of a copy that a bridge makes of endpoint id of the registry
// that is named origin: "~origin~id". The name of the registry stands in the ID, because
// every format has room for an ID, and every reader sees the ID.
func CopyID(origin, id string) string { return copyPrefix + origin + "~" + id }

// ParseCopyID returns the parts of the ID of a copy, and false for any other ID.
func ParseCopyID(id string) (origin, native string, ok bool) {
	rest, ok := strings.CutPrefix(id, copyPrefix)
	if !ok {
		return "", "", false
	}
	origin, native, ok = strings.Cut(rest, "~")
	return origin, native, ok && origin != "" && native != ""
}

// Native returns the endpoint that e is a copy of: with the ID of the native endpoint,
// and without the mark in the metadata. It returns e itself, and false, if e is not a
// copy.
func Native(e naming.Endpoint) (native naming.Endpoint, isCopy bool) {
	_, id, ok := ParseCopyID(e.ID)
	if !ok {
		return e, false
	}
	e.ID = id
	e.Metadata, _, _ = splitMark(e.Metadata)
	return e, true
}

// CheckName returns an error if the name of a registry has no place in the ID of a copy:
// it has 1 to 64 characters, which are letters, digits, '-', '_' and '.'. The error is
// [naming.ErrInvalid].
func CheckName(name string) error { return checkName(name) }
