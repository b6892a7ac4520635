package bridge

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
)

// Plan is what a [Bridge] would do, or does not do because the fuse is blown.
type Plan struct {
	// Puts are the copies that are to be put.
	Puts []Put
	// Deletes are the copies that are to be deleted. They are sorted by service and ID.
	Deletes []Delete
	// Losses are the endpoints that the target cannot hold as the source has them.
	// Those whose Err is nil are copied in part.
	Losses []migrate.Loss
	// Blown says that the deletions that count exceed the fuse.
	Blown bool
	// Digest identifies the deletions that count for the fuse: see [Bridge.Approve]. It
	// is empty if no deletion counts.
	Digest string
}

// Put is a copy that is to be put.
type Put struct {
	// Service is the name of the service.
	Service string
	// Endpoint is the copy.
	Endpoint naming.Endpoint
}

// Delete is a copy that is to be deleted.
type Delete struct {
	// Service is the name of the service. ID is the ID of the copy.
	Service, ID string
	// Addr is the address of the copy.
	Addr string
	// Counts says that no known reason explains the deletion, so that it counts for the
	// fuse.
	Counts bool
}

func compareDeletes(a, b Delete) int {
	return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.ID, b.ID))
}

// seal sorts the lists of a plan and sets its digest.
func (p *Plan) seal() {
	slices.SortFunc(p.Puts, func(a, b Put) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Endpoint.ID, b.Endpoint.ID))
	})
	slices.SortFunc(p.Losses, func(a, b migrate.Loss) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Endpoint.ID, b.Endpoint.ID))
	})
	slices.SortFunc(p.Deletes, compareDeletes)
	p.Digest = digest(p.Deletes)
}

// digest returns the digest of the deletions that count, which are sorted. It depends on
// the services and IDs alone.
func digest(deletes []Delete) string {
	h, counted := sha256.New(), false
	for _, d := range deletes {
		if d.Counts {
			counted = true
			_, _ = fmt.Fprintf(h, "%d:%s%d:%s", len(d.Service), d.Service, len(d.ID), d.ID) // a hash returns no error
		}
	}
	if !counted {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// DigestError is the error of [Bridge.Approve] for a digest that is not that of the
// present plan.
type DigestError struct {
	// Got is the digest that was to be approved. Want is that of the present plan. It is
	// empty if nothing waits for an approval.
	Got, Want string
}

// Error returns a text with both digests.
func (e *DigestError) Error() string {
	if e.Want == "" {
		return "bridge: no deletion waits for an approval"
	}
	return fmt.Sprintf("bridge: the plan is not %.32q: its digest is %q", e.Got, e.Want)
}
