package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/naming-go/naming"
)

// approvalTTL is how long an approval waits for the Bridge that works.
const approvalTTL = time.Minute

// approval is an entry that approves a plan.
type approval struct {
	Digest string `json:"digest"`
	By     string `json:"by,omitempty"`
}

// Approve lets the deletions through that have this digest, and no others: see
// [Status.Blown] and [FuseBlownInfo]. If the plan has changed, it does nothing, and the
// error is a [*DigestError] with the present digest.
//
// A Bridge that does not work itself approves the plan of the one that works: a command
// makes a Bridge with the same options and calls Approve without Run. The approval is then
// an entry of [Service] in the election's registry, which lapses after a minute. Approve
// returns when the entry is there.
func (b *Bridge) Approve(ctx context.Context, digest string) error {
	if t := b.working(); t != nil {
		return t.approve(digest)
	}
	if b.opts.NoElection {
		return fmt.Errorf("bridge: approve: %w: a Bridge without elections is approved in its own process", naming.ErrInvalid)
	}
	c := b.electionClient()
	defer c.Close()
	v, err := c.List(ctx, Service)
	if err != nil {
		return fmt.Errorf("bridge: approve: %w", err)
	}
	s, occupied := findSeat(v, b.opts.seatID())
	if !occupied {
		return errors.New("bridge: approve: no Bridge works for this migration and direction")
	}
	if digest == "" || s.Digest != digest {
		return &DigestError{Got: digest, Want: s.Digest}
	}
	lease, err := b.election().Grant(ctx, approvalTTL)
	if err != nil {
		return fmt.Errorf("bridge: approve: %w", err)
	}
	metadata, err := json.Marshal(approval{Digest: digest, By: b.by})
	if err != nil {
		return fmt.Errorf("bridge: approve: %w", err)
	}
	err = b.election().Apply(ctx, Service, naming.Change{Op: naming.Add, Endpoint: naming.Endpoint{ID: b.opts.approvalID(), Metadata: metadata}, Lease: lease})
	if err != nil {
		return fmt.Errorf("bridge: approve: %w", err)
	}
	return nil
}

// working returns the term of this Bridge, or nil.
func (b *Bridge) working() *term {
	b.state.mu.Lock()
	defer b.state.mu.Unlock()
	return b.state.term
}

// approve lets the deletions of a plan through.
func (t *term) approve(digest string) error {
	services, err := t.fuse.approve(digest)
	if err != nil {
		return err
	}
	t.b.opts.Logger.Info("bridge: deletions approved", t.b.attr(), slog.String("digest", digest))
	t.queue.pushAll(services)
	return nil
}

// applyApproval approves the plan that another process has approved. An approval of
// another plan has no effect.
func (b *Bridge) applyApproval(v naming.View, t *term) {
	for _, e := range v.Endpoints {
		var a approval
		if e.ID == b.opts.approvalID() && json.Unmarshal(e.Metadata, &a) == nil {
			_ = t.approve(a.Digest) // the error is that of a plan that has changed since
		}
	}
}
