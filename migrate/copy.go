package migrate

import (
	"strings"

	"github.com/naming-go/naming"
)

// CopyID returns the ID of a copy that a bridge makes of endpoint id of the registry
// that is named origin: "~origin~id". The name of the registry stands in the ID, because
// every format has room for an ID, and every reader sees it.
func CopyID(origin, id string) string { return "~" + origin + "~" + id }

// ParseCopyID returns the parts of the ID of a copy, and false for any other ID.
func ParseCopyID(id string) (origin, native string, ok bool) {
	rest, ok := strings.CutPrefix(id, "~")
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
	e.Metadata, _ = splitMark(e.Metadata)
	return e, true
}
