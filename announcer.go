package naming

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// announcer is the [Announcement] of a Client on one registry. Its keeper does the work.
type announcer struct {
	// Set by newAnnouncer and never changed.
	client   *Client
	service  string
	id, addr string // of the endpoint
	opts     RegisterOptions
	claim    *claim
	ctx      context.Context    // of the keeper
	cancel   context.CancelFunc // ends the keeper
	done     chan struct{}      // closed when the keeper has ended
	wake     chan struct{}      // capacity 1: holds a token when the keeper has to look at something
	closing  chan struct{}      // closed when Close has begun
	closed   chan struct{}      // closed when Close has ended
	closeErr error              // the result of Close: written before closed is closed, read afterwards

	intent intent  // has its own lock
	keeper *keeper // owned by the goroutine of keeper.run, and by Close after that has ended
}

// newAnnouncer returns an announcer of an endpoint. The caller either starts or discards
// the announcer.
func (c *Client) newAnnouncer(service string, e Endpoint, o RegisterOptions) (*announcer, error) {
	g := &announcer{
		client: c, service: service, id: e.ID, addr: e.Addr, opts: o,
		done:    make(chan struct{}),
		closing: make(chan struct{}),
		closed:  make(chan struct{}),
		wake:    make(chan struct{}, 1),
		intent: intent{
			status:  RegistrationStatus{Since: time.Now(), Draining: e.Draining},
			want:    e,
			version: 1,
		},
	}
	// Before the first put, so that the watch misses no deletion after it.
	cursor, err := c.newCursor(service, g.poke)
	if err != nil {
		return nil, err
	}
	g.keeper = newKeeper(g, cursor)
	g.ctx, g.cancel = context.WithCancel(c.ctx)
	return g, nil
}

// start starts the keeper.
func (g *announcer) start() { go g.keeper.run(g.ctx) }

// discard frees an announcer that was not started.
func (g *announcer) discard() {
	g.cancel()
	g.keeper.cursor.close()
}

func (g *announcer) Status() RegistrationStatus { return g.intent.currentStatus() }

func (g *announcer) Wait(ctx context.Context) error {
	ctx = orBackground(ctx)
	for {
		err := g.await(ctx, g.ask(false, false, nil))
		newer := g.claim.newest()
		if !errors.Is(err, ErrReplaced) || newer == nil {
			return err
		}
		err = newer.await(ctx, newer.ask(false, false, nil))
		if err == nil || ctx.Err() != nil || errors.Is(err, ErrInvalid) {
			return err
		}
		if errors.Is(err, ErrReplaced) {
			continue
		}
		select { // the newer one closes, and then another one owns the entry
		case <-g.claim.ownershipLost(newer):
		case <-g.closing:
		case <-ctx.Done():
		}
	}
}

func (g *announcer) Update(ctx context.Context, metadata json.RawMessage) error {
	e, err := Endpoint{ID: g.id, Addr: g.addr, Metadata: metadata}.normalize()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return g.await(ctx, g.ask(false, false, func(want *Endpoint) { want.Metadata = e.Metadata }))
}

func (g *announcer) Drain(ctx context.Context) error {
	return g.await(ctx, g.ask(true, false, func(want *Endpoint) { want.Draining = true }))
}

func (g *announcer) Resume(ctx context.Context) error {
	return g.await(ctx, g.ask(false, false, func(want *Endpoint) { want.Draining = false }))
}

func (g *announcer) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), g.opts.CloseTimeout)
	defer cancel()
	return g.close(ctx, g.opts.CloseTimeout, g.opts.DrainDelay)
}

func (g *announcer) Withdraw(ctx context.Context) error { return g.close(ctx, 0, 0) }

// poke has the keeper look at the wanted content and at the endpoint. It does not block.
func (g *announcer) poke() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}
