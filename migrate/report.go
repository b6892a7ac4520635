package migrate

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/naming-go/naming"
)

// Report is the difference between the endpoints of one service in two registries.
// [Compare] returns one. The endpoints of a Report are those that clients see: a copy of
// a bridge has the ID and the metadata of its native endpoint.
type Report struct {
	// Service is the name of the service.
	Service string
	// Known says that both registries have answered. If it is false, nothing was
	// compared.
	Known bool

	// Missing are the endpoints of the old registry whose address the new registry
	// does not have. Extra are the endpoints of the new registry whose address the old
	// registry does not have. Endpoints that are draining or withheld are in neither.
	// Each list is sorted by ID.
	Missing, Extra []naming.Endpoint
	// Mismatch are the addresses that both registries have with different data,
	// sorted by the ID in the old registry.
	Mismatch []Mismatch
	// Accepted is the number of addresses with different data that are not in
	// Mismatch, because [Comparison.Accept] has all fields that differ.
	Accepted int

	// Copies are the usable endpoints that the new registry has only as a bridge's
	// copy, and OldCopies those of the old registry. They keep a service complete, but
	// end with the bridge. Each list is sorted by ID.
	Copies, OldCopies []naming.Endpoint
	// Unmappable are the endpoints of the old registry that the format of the new
	// registry refuses, if [Comparison.Target] was set and knows.
	Unmappable []Loss

	// OldCount and NewCount are the numbers of usable endpoints.
	OldCount, NewCount int
	// OldAsOf and NewAsOf are when each registry vouched for its endpoints last.
	OldAsOf, NewAsOf time.Time
	// OldStale and NewStale say that a registry no longer vouches for its endpoints.
	OldStale, NewStale bool
}

// Mismatch is an address that two registries have with different data.
type Mismatch struct {
	// Old and New are the endpoint in both registries.
	Old, New naming.Endpoint
	// Fields are the names of what differs: see [Accept].
	Fields []string
}

// Equal reports whether both registries have answered, and have the same addresses with
// the same data.
func (r *Report) Equal() bool {
	return r.Known && len(r.Missing) == 0 && len(r.Extra) == 0 && len(r.Mismatch) == 0
}

// String returns the numbers of the report in one line.
func (r *Report) String() string {
	if !r.Known {
		return "not compared"
	}
	s := fmt.Sprintf("%d missing, %d extra, %d with other data", len(r.Missing), len(r.Extra), len(r.Mismatch))
	if fields := r.mismatchFields(); len(fields) > 0 {
		s += " (" + strings.Join(fields, ", ") + ")"
	}
	return s + fmt.Sprintf(", %d only as copies; %d endpoints in the old registry, %d in the new", len(r.Copies), r.OldCount, r.NewCount)
}

// mismatchFields returns the names of all fields that differ, sorted.
func (r *Report) mismatchFields() []string {
	names := make(map[string]struct{})
	for i := range r.Mismatch {
		for _, f := range r.Mismatch[i].Fields {
			names[f] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(names))
}
