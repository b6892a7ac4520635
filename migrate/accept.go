package migrate

import (
	"fmt"
	"slices"
	"strings"
)

// Accept is what an operator accepts to be different in two registries, or to be lost in
// the format of another registry. Its elements are names of fields:
//
//   - "id": the ID of the endpoint
//   - "address": its address, in the spelling of the format
//   - "weight", "zone", "version", "tags": the reserved members of its metadata
//   - "metadata": all other metadata, and metadata that are not an object
//   - "draining": one registry says that it is draining, and the other one does not
//   - "draining-mark": the entry has no place for the mark that it is draining
//   - "withheld": one registry says not to use it, and the other one does not
//
// The zero value accepts nothing.
type Accept []string

// The names of fields.
const (
	fieldID           = "id"
	fieldAddress      = "address"
	fieldWeight       = "weight"
	fieldZone         = "zone"
	fieldVersion      = "version"
	fieldTags         = "tags"
	fieldMetadata     = "metadata"
	fieldDraining     = "draining"
	fieldDrainingMark = "draining-mark"
	fieldWithheld     = "withheld"
)

var allFields = []string{
	fieldID, fieldAddress, fieldWeight, fieldZone, fieldVersion, fieldTags, fieldMetadata, fieldDraining, fieldDrainingMark, fieldWithheld,
}

// ParseAccept returns the Accept of a list of names, separated by commas. An empty text
// accepts nothing. A name that is not the name of a field is an error.
func ParseAccept(list string) (Accept, error) {
	var a Accept
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			continue
		}
		if !slices.Contains(allFields, name) {
			return nil, fmt.Errorf("migrate: %.64q is not the name of a field: the names are %s", name, strings.Join(allFields, ", "))
		}
		if !slices.Contains(a, name) {
			a = append(a, name)
		}
	}
	return a, nil
}

// String returns the list that [ParseAccept] parses.
func (a Accept) String() string { return strings.Join(a, ",") }

// Covers reports whether a has all of the fields. It is false for an empty list: a
// difference without a field has another reason.
func (a Accept) Covers(fields []string) bool {
	for _, f := range fields {
		if !slices.Contains(a, f) {
			return false
		}
	}
	return len(fields) > 0
}
