// Package transfer copies the entries of one registry to another, once. It never replaces an
// entry that it did not write, unless its caller says so.
//
// An entry without a lease is copied as it is. An entry under a lease belongs to a program
// that runs. A copy without a lease would outlive the program, so the caller decides what
// becomes of such entries: see Leased. Package bridge of the library copies for as long as
// programs change.
package transfer

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/steer"
	"github.com/naming-go/naming/migrate"
)

// Leased says what becomes of an entry that is under a lease.
type Leased string

// The values of Leased. The empty value means that nobody has decided: such an entry is
// Undecided.
const (
	Skip      Leased = "skip"      // it is not copied
	Keep      Leased = "keep"      // its copy is under a lease of Run
	Permanent Leased = "permanent" // its copy has no lease
)

// Options says what is copied, and how.
type Options struct {
	// Services are the names of the services. Without names, all are copied, except those
	// of package migrate.
	Services []string
	// Accept is what the format of the target may lose. "id" also accepts that the target
	// has an address under another ID.
	Accept migrate.Accept
	// Overwrite says to replace entries of the target that have other content.
	Overwrite bool
	Leased    Leased
	// Timeout bounds each request. 0 means no bound.
	Timeout time.Duration
}

// bound returns the context of a request.
func (o Options) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if o.Timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, o.Timeout)
}

// list reads a service. which names the registry in an error.
func (o Options) list(ctx context.Context, c *naming.Client, which, service string) (naming.View, error) {
	ctx, cancel := o.bound(ctx)
	defer cancel()
	v, err := c.List(ctx, service)
	if err != nil {
		return v, fmt.Errorf("the %s: %w", which, err)
	}
	return v, nil
}

// Action is what becomes of an entry.
type Action string

// The actions. An entry that is Undecided, Conflict or Lossy is a reason to say that a copy
// is not complete.
const (
	Write     Action = "write"
	Overwrite Action = "overwrite"
	Same      Action = "same"      // the target has the entry
	Left      Action = "left"      // the entry is not to be copied
	Undecided Action = "undecided" // the entry is under a lease, and Leased is empty
	Conflict  Action = "conflict"  // the target has another entry in its place
	Lossy     Action = "lossy"     // the format of the target loses what is not accepted
)

// Item is an entry and what becomes of it.
type Item struct {
	Service  string
	Endpoint naming.Endpoint
	Action   Action
	// Why is the reason of an action other than Write. It is safe to print.
	Why string
	// Lost are the fields that the target loses, also those that are accepted.
	Lost []string

	want naming.Endpoint // what readers of the target get
}

// Plan is what a copy does. The Items are sorted by service and ID.
type Plan struct {
	Items []Item
	opts  Options
}

// Count returns how many items have one of some actions.
func (p *Plan) Count(actions ...Action) (n int) {
	for i := range p.Items {
		if slices.Contains(actions, p.Items[i].Action) {
			n++
		}
	}
	return n
}

// parallel is how many services are read at once.
const parallel = 16

// Make reads both registries and returns what a copy would do. It writes nothing.
func Make(ctx context.Context, from, to naming.Store, opts Options) (*Plan, error) {
	names := slices.Compact(slices.Sorted(slices.Values(opts.Services)))
	if len(names) == 0 {
		listing, cancel := opts.bound(ctx)
		var err error
		names, err = steer.Services(listing, from)
		cancel()
		if err != nil {
			return nil, fmt.Errorf("the source: %w", err)
		}
	}
	discard := &naming.Options{Logger: slog.New(slog.DiscardHandler)}
	source, target := naming.New(from, discard), naming.New(to, discard)
	defer target.Close()
	defer source.Close()
	lists := make([][]Item, len(names))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, name := range names {
		group.Go(func() error {
			s, err := opts.list(ctx, source, "source", name)
			if err != nil {
				return err
			}
			t, err := opts.list(ctx, target, "target", name)
			if err != nil {
				return err
			}
			lists[i], err = opts.items(to, s, t)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return &Plan{Items: slices.Concat(lists...), opts: opts}, nil
}

// items decides about the entries of a service.
func (o Options) items(to naming.Store, source, target naming.View) ([]Item, error) {
	losses, err := migrate.Losses(to, source.Service, source.Endpoints)
	if err != nil {
		return nil, err
	}
	lost := make(map[string]migrate.Loss, len(losses))
	for _, l := range losses {
		lost[l.Endpoint.ID] = l
	}
	byID, byAddr := make(map[string]naming.Endpoint), make(map[string]naming.Endpoint)
	for _, e := range steer.Present(target) {
		byID[e.ID] = e
		// A bridge removes its copy when the entry itself appears.
		if _, isCopy := migrate.Native(e); e.Addr != "" && !isCopy {
			byAddr[e.Addr] = e
		}
	}
	var items []Item
	for _, e := range source.Endpoints {
		item := Item{Service: source.Service, Endpoint: e, want: e}
		l, lossy := lost[e.ID]
		if lossy {
			item.Lost, item.want = l.Fields, l.Got
		}
		item.Action, item.Why = o.decide(item, l, lossy, byID, byAddr)
		items = append(items, item)
	}
	for _, w := range source.Withheld {
		items = append(items, Item{Service: source.Service, Endpoint: w.Endpoint, Action: Left, Why: "the source says not to use the entry: " + w.Reason.String()})
	}
	slices.SortStableFunc(items, func(a, b Item) int { return strings.Compare(a.Endpoint.ID, b.Endpoint.ID) })
	return items, nil
}

// decide returns what becomes of an entry that the source has, and why.
func (o Options) decide(item Item, l migrate.Loss, lossy bool, byID, byAddr map[string]naming.Endpoint) (Action, string) {
	e := item.Endpoint
	_, isCopy := migrate.Native(e)
	leased := !e.Unleased
	switch {
	case isCopy:
		return Left, "the entry is a copy of a bridge"
	case e.Draining || e.Info().Draining:
		return Left, "the entry is draining"
	case leased && o.Leased == Skip:
		return Left, "the entry is under the lease of a program"
	case leased && o.Leased == "":
		return Undecided, "the entry is under the lease of a program"
	case lossy && !l.Accepted(o.Accept):
		return Lossy, l.String()
	}
	there, taken := byID[item.want.ID]
	other, sameAddr := byAddr[item.want.Addr]
	switch {
	case taken && there.Equal(item.want):
		return Same, "the target has the entry"
	case taken && !o.Overwrite:
		return Conflict, "the target has another entry with the ID"
	case taken:
		return Overwrite, "the target has another entry with the ID, which is replaced"
	case sameAddr && o.Accept.Covers([]string{"id"}):
		return Same, "the target has the address, with the ID " + naming.SafeText(other.ID)
	case sameAddr:
		return Conflict, "the target has the address with another ID: " + naming.SafeText(other.ID)
	}
	return Write, ""
}
