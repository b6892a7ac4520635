package migrate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/naming-go/naming"
)

// announcement is the [naming.Announcement] of a joined Client: one endpoint in up to two
// registries.
//
// Each registry has a part, which is a goroutine. A part registers the endpoint while the
// phase has the endpoint in the registry, and leaves the registry afterwards. A part never
// waits for a call to the other registry. The goroutine of run follows the phase, publishes the status,
// and calls the program's functions.
type announcement struct {
	// Set by newAnnouncement and never changed.
	joined  *Joined
	service string
	id      string // of the endpoint
	opts    naming.RegisterOptions
	parts   [2]*part
	wake    chan struct{} // capacity 1: holds a token when run has to look at something
	closing chan struct{} // closed when Close has begun
	ended   chan struct{} // closed when run has ended
	closed  chan struct{} // closed when Close has ended

	closeErr   error  // the result of Close: written before closed is closed, read afterwards
	stopPhases func() // ends the notifications of the Source; set by announce
	claim      *claim // set by owners.add

	reported reported          // owned by run
	state    announcementState // has its own lock
}

// announce starts to announce an endpoint. When it returns, the new announcement owns the
// entry in every registry in which an older announcement of the endpoint may have put it.
// The older one may be closed at once.
func (j *Joined) announce(service string, e naming.Endpoint, opts naming.RegisterOptions) (naming.Announcement, error) {
	a := newAnnouncement(j, service, e, opts)
	j.seen.use(service)
	a.stopPhases = j.phases.Notify(a.poke)
	a.state.setPlan(a.readPhase())
	older, err := j.owners.add(a)
	if err != nil {
		a.stopPhases()
		j.seen.release(service)
		return nil, err
	}
	if older != nil {
		older.poke()
	}
	a.poke()
	go a.run()
	for _, p := range a.parts {
		go p.run()
	}
	return a, nil
}

func newAnnouncement(j *Joined, service string, e naming.Endpoint, opts naming.RegisterOptions) *announcement {
	a := &announcement{
		joined: j, service: service, id: e.ID, opts: opts,
		wake:    make(chan struct{}, 1),
		closing: make(chan struct{}),
		ended:   make(chan struct{}),
		closed:  make(chan struct{}),
	}
	if a.opts.DrainDelay == 0 {
		a.opts.DrainDelay = -1 // Register takes 0 for the default
	}
	a.opts.Wait = false
	a.opts.OnChange = func(naming.RegistrationStatus) { a.poke() }
	a.reported.onChange = opts.OnChange
	a.state.init(e)
	for i := range a.parts {
		a.parts[i] = newPart(a, sideIndex(i), e.Addr)
	}
	return a
}

// poke has run look at the phase and at the parts. It does not block.
func (a *announcement) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// run follows the phase and the parts until Close ends it.
func (a *announcement) run() {
	defer close(a.ended)
	for {
		select {
		case <-a.wake:
			a.look()
		case <-a.state.ending():
			return
		}
	}
}

// look reads the phase and the status of the parts, reports what changed, and ends the
// calls that have their result. Calls end last, so that a caller that waited finds that
// all hooks were called.
func (a *announcement) look() {
	plan := a.readPhase()
	newest := a.joined.owners.isNewest(a)
	a.state.setPlan(plan)
	a.report(a.state.refresh(newest))
	a.state.settle()
}

// readPhase returns what the present phase means for the endpoint.
func (a *announcement) readPhase() plan {
	j := a.joined
	state, known := j.state(a.service)
	j.seen.report(j, a.service)
	return planOf(state, known, [2]bool{j.sides[oldSide].readOnly, j.sides[newSide].readOnly})
}

func (a *announcement) Status() naming.RegistrationStatus { return a.state.currentStatus() }

func (a *announcement) Wait(ctx context.Context) error {
	for {
		err := a.await(ctx, a.state.ask(bothAspects, nil))
		if !errors.Is(err, naming.ErrReplaced) {
			return err
		}
		newer := a.joined.owners.newest(a.claim)
		if newer == nil || newer == a {
			continue
		}
		err = newer.await(ctx, newer.state.ask(bothAspects, nil))
		if err == nil || ctx.Err() != nil || errors.Is(err, naming.ErrInvalid) {
			return err
		}
		if errors.Is(err, naming.ErrReplaced) {
			continue
		}
		select { // the newer one closes, and then another one owns the entry
		case <-newer.closed:
		case <-a.closing:
		case <-ctx.Done():
		}
	}
}

func (a *announcement) Update(ctx context.Context, metadata json.RawMessage) error {
	changes, err := naming.Normalize(a.service, []naming.Change{{Endpoint: naming.Endpoint{ID: a.id, Addr: a.parts[oldSide].addr, Metadata: metadata}}})
	if err != nil {
		return err
	}
	return a.change(ctx, metadataAspect, func(c *content) { c.metadata = changes[0].Endpoint.Metadata })
}

func (a *announcement) Drain(ctx context.Context) error {
	return a.change(ctx, drainingAspect, func(c *content) { c.draining = true })
}

func (a *announcement) Resume(ctx context.Context) error {
	return a.change(ctx, drainingAspect, func(c *content) { c.draining = false })
}

// change changes the wanted content, and waits until the registry that counts has it.
func (a *announcement) change(ctx context.Context, which aspect, f func(*content)) error {
	select {
	case <-a.closing:
		return naming.ErrRegistrationClosed
	default:
	}
	if !a.joined.owners.isNewest(a) {
		return naming.ErrReplaced
	}
	return a.await(ctx, a.state.ask(which, f))
}

// await waits for a call. If ctx is done first, the content stays wanted.
func (a *announcement) await(ctx context.Context, c *call) error {
	a.poke()
	select {
	case err := <-c.done: // also if ctx is done or the announcement closed
		return err
	default:
	}
	defer a.state.forgetCall(c)
	select {
	case err := <-c.done:
		return err
	case <-a.closing:
		return naming.ErrRegistrationClosed
	case <-ctx.Done():
		if err := a.Status().Err; err != nil {
			return fmt.Errorf("%w; the last attempt failed: %w", ctx.Err(), err)
		}
		return ctx.Err()
	}
}

func (a *announcement) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), a.opts.CloseTimeout)
	defer cancel()
	return a.close(ctx, true)
}

func (a *announcement) Withdraw(ctx context.Context) error { return a.close(ctx, false) }

// close ends the announcement. All parts end at the same time. drain says that they mark
// the endpoint as draining first.
func (a *announcement) close(ctx context.Context, drain bool) error {
	if !a.state.setClosed(farewell{ctx: ctx, drain: drain}) {
		<-a.closed // a sync.Once would stop the time of a synctest bubble
		return a.closeErr
	}
	close(a.closing)
	defer close(a.closed)
	a.stopPhases()
	replaced := !a.joined.owners.isNewest(a)
	var errs [2]error
	for i, p := range a.parts {
		<-p.ended
		errs[i] = p.endErr
	}
	a.state.endRun()
	<-a.ended
	a.joined.seen.release(a.service)
	a.state.setWithdrawn()
	heir, owned := a.joined.owners.remove(a)
	if heir != nil {
		heir.poke()
	}
	if replaced || !owned {
		return nil
	}
	a.closeErr = errors.Join(errs[:]...)
	a.reportWithdrawn(a.closeErr)
	return a.closeErr
}

// after returns the later of two times.
func after(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
