package migrate

import (
	"time"

	"github.com/naming-go/naming"
)

// Report is the difference between the endpoints of one service in two registries.
// Endpoints correspond if they have the same address. Copies of a bridge count as the
// endpoints that they are copies of.
type Report struct {
	// Service is the name of the service.
	Service string
	// Missing are the endpoints of the old registry whose address the new one does
	// not have, and Extra those of the new one that the old one does not have. Both
	// are sorted by ID. Endpoints that are draining are in neither.
	Missing, Extra []naming.Endpoint
	// Mismatch are the endpoints that both have, with different data.
	Mismatch []Mismatch
	// Copies are the endpoints that the new registry has only as a bridge's copy.
	// They keep a service complete, but end with the bridge.
	Copies []naming.Endpoint
	// OldCount and NewCount are the numbers of usable endpoints.
	OldCount, NewCount int
	// OldAsOf and NewAsOf are when each registry vouched for its endpoints last.
	OldAsOf, NewAsOf time.Time
}

// Mismatch is an endpoint that two registries have with different data.
type Mismatch struct {
	// Old and New are the endpoint in both registries.
	Old, New naming.Endpoint
	// Fields names what differs: "id", "metadata", "weight", "zone", "version",
	// "tags", "draining" or "withheld".
	Fields []string
}

// Equal reports whether the registries have the same endpoints with the same data.
func (r *Report) Equal() bool {
	return len(r.Missing) == 0 && len(r.Extra) == 0 && len(r.Mismatch) == 0
}
