package tui

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/live"
)

// Once returns all services of the registry as of one moment, in no order. It reads each
// service once, and ends when ctx is done.
//
// A registry that cannot be asked is an error at once, unless the Client is on several
// registries: then another may answer until ctx is done.
func Once(ctx context.Context, c *naming.Client) ([]*Row, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	o := &once{board: NewBoard(), end: cancel, open: make(map[string]bool)}
	err := live.Run(ctx, c, live.Options{OnList: o.list, OnUpdate: o.update})
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errComplete):
		return o.board.Rows(time.Now()), nil
	case cause == nil:
		return nil, err
	case o.err != nil:
		return nil, o.err
	default:
		return nil, fmt.Errorf("no answer from the registry: %w", cause)
	}
}

// errComplete ends Once: all services were read.
var errComplete = errors.New("all services were read")

// once is one call of Once. live.Run makes one call at a time.
type once struct {
	board  *Board
	end    context.CancelCauseFunc
	err    error           // the last failure
	listed bool            // open has the services of the list
	open   map[string]bool // the services that are not read yet
}

func (o *once) list(v naming.View) {
	o.board.List(v)
	if o.fail(v); !v.Synced {
		return
	}
	o.listed = true
	for _, e := range v.Endpoints {
		if !o.board.row(e.ID).Status.Synced {
			o.open[e.ID] = true
		}
	}
	o.check()
}

func (o *once) update(u live.Update) {
	o.board.Update(u)
	if o.fail(u.View); u.View.Synced || u.Gone {
		delete(o.open, u.View.Service)
	}
	o.check()
}

// fail notes a failure, and ends Once if no other registry can answer.
func (o *once) fail(v naming.View) {
	if v.Err != nil && !v.Synced {
		if o.err = v.Err; len(v.Sides) == 0 {
			o.end(v.Err)
		}
	}
}

func (o *once) check() {
	if o.listed && len(o.open) == 0 {
		o.end(errComplete)
	}
}
