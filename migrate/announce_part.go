package migrate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/naming-go/naming"
)

const (
	// leaveTimeout bounds how long a part tries to remove the endpoint from a registry
	// that it leaves. Afterwards the lease of the endpoint ends by itself.
	leaveTimeout = 15 * time.Second

	// unregisteredTimeout bounds how long Close tries to remove the endpoint from a
	// registry in which the endpoint is not registered. An earlier attempt may have
	// stored the endpoint. Usually the registry is down, and waiting does not help.
	unregisteredTimeout = time.Second

	// registerRest is the rest after the Client of a registry was found closed.
	registerRest = time.Second

	// maxCarryRest bounds the rest between two attempts to carry the mark of an operator.
	maxCarryRest = time.Minute
)

// part keeps the endpoint of an announcement in one registry while the phase writes the
// registry. It does one thing at a time.
type part struct {
	// Set by newPart and never changed.
	a     *announcement
	side  sideIndex
	addr  string        // of the endpoint
	ended chan struct{} // closed when run has ended

	endErr error // why the endpoint stays listed: written before ended is closed, read afterwards

	// Owned by the goroutine of run.
	leaving     chan error         // not nil: the endpoint is being removed; has capacity 1 for the result
	cancelLeave context.CancelFunc // of leaving
	carryRest   time.Duration      // after the last attempt to carry a mark, which failed; 0: none failed
	carryDue    time.Time          // when the next attempt is due
}

func newPart(a *announcement, side sideIndex, addr string) *part {
	return &part{a: a, side: side, addr: addr, ended: make(chan struct{})}
}

// step is what a part does next.
type step int

const (
	stepWait step = iota // wait until something changes
	stepRegister
	stepApply // have the registry store the wanted content
	stepCarry // mark the endpoint as somebody else has marked it in the other registry
	stepLeave
	stepEnd
)

// run does one step after the other, until Close ends the part.
func (p *part) run() {
	defer close(p.ended)
	for {
		s := p.a.state.snapshot(p.side)
		next, due := p.decide(&s)
		switch next {
		case stepEnd:
			p.end(&s)
			return
		case stepRegister:
			p.registerIfNewest(&s)
		case stepLeave:
			p.leave(&s)
		case stepApply:
			p.apply(&s, due)
		case stepCarry:
			p.carryMark(&s)
		case stepWait:
			p.wait(s.turn, due)
		}
	}
}

// decide returns what to do in a state. The step has to be decided again at due, if due
// is not zero, and at the end of the turn.
func (p *part) decide(s *snapshot) (next step, due time.Time) {
	switch {
	case s.farewell != nil:
		return stepEnd, due
	case s.part.registration == nil && (s.written || s.part.inherited):
		return stepRegister, due
	case s.part.registration == nil:
		return stepWait, due
	}
	if !s.written && p.leaving == nil {
		var leaves bool
		if due, leaves = p.leaveDue(s); leaves && !time.Now().Before(due) {
			return stepLeave, due
		}
	}
	switch {
	case s.part.answered != s.version:
		return stepApply, due
	case s.part.carries && !time.Now().Before(p.carryDue):
		return stepCarry, due
	case s.part.carries && (due.IsZero() || p.carryDue.Before(due)):
		due = p.carryDue
	}
	return stepWait, due
}

// leaveDue returns when the endpoint may leave the registry, and false while that is not
// known, because the endpoint is not in the registry that counts.
func (p *part) leaveDue(s *snapshot) (due time.Time, ok bool) {
	if s.part.registration.Status().Err == naming.ErrReplaced {
		return s.unwritten, true // the entry belongs to a newer announcement, and so stays
	}
	if s.counting == noSide {
		return s.unwritten.Add(p.a.joined.opts.LeaveDelay), true
	}
	newest := p.a.joined.owners.newest(p.a.claim)
	if newest == nil {
		return due, false
	}
	st, ok := newest.state.partStatus(s.counting)
	if !ok || !st.Registered {
		return due, false
	}
	return after(s.unwritten, st.Since).Add(p.a.joined.opts.LeaveDelay), true
}

// registerIfNewest registers the endpoint, unless a newer announcement owns the endpoint:
// then it waits for the end of the turn.
func (p *part) registerIfNewest(s *snapshot) {
	switch newest, err := p.a.joined.owners.ifNewest(p.a, p.register); {
	case err != nil:
		p.wait(s.turn, time.Now().Add(registerRest))
	case !newest:
		p.wait(s.turn, time.Time{})
	}
}

// register registers the endpoint with the wanted content. It does not wait for the
// registry.
func (p *part) register() error {
	e, version := p.a.state.wantedEndpoint()
	r, err := p.a.joined.sides[p.side].client.Register(context.Background(), p.a.service, e, &p.a.opts)
	if err != nil {
		return err
	}
	p.a.state.setPresent(p.side, r, version)
	p.carryRest, p.carryDue = 0, time.Time{}
	return nil
}

// wait waits for the end of a turn, for due if it is not zero, or until the endpoint was
// removed.
func (p *part) wait(turn context.Context, due time.Time) {
	var timer <-chan time.Time
	if !due.IsZero() {
		t := time.NewTimer(time.Until(due))
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-turn.Done():
	case <-timer:
	case err := <-p.leaving:
		p.handleLeft(err)
	}
}

// apply has the registry store the wanted content, until the turn ends or due is reached.
func (p *part) apply(s *snapshot, due time.Time) {
	ctx, cancel := s.turn, context.CancelFunc(func() {})
	if !due.IsZero() {
		ctx, cancel = context.WithDeadline(s.turn, due)
	}
	defer cancel()
	r := s.part.registration
	if s.pends(drainingAspect) {
		set := r.Resume
		if s.want.draining {
			set = r.Drain
		}
		if !p.handleAnswer(drainingAspect, s.version, set(ctx)) {
			p.wait(s.turn, due)
			return
		}
	}
	if s.pends(metadataAspect) && !p.handleAnswer(metadataAspect, s.version, r.Update(ctx, s.want.metadata)) {
		p.wait(s.turn, due)
		return
	}
	if s.givenPends() && !p.confirmGiven(ctx, s) {
		p.wait(s.turn, due)
	}
}

// handleAnswer stores the answer of the registry to a version of an aspect. It reports
// false if the registry has not answered.
func (p *part) handleAnswer(which aspect, version versions, err error) bool {
	if err != nil && !errors.Is(err, naming.ErrInvalid) {
		return false
	}
	if err != nil {
		if cause := errors.Unwrap(err); cause != nil {
			err = cause // without the text that change adds
		}
		err = p.named(err)
	}
	p.a.state.setAnswer(p.side, which, version[which], err)
	p.a.poke()
	return true
}

// confirmGiven waits until the registry has the content that Register got, or refuses
// that content. It reports false if neither happened.
func (p *part) confirmGiven(ctx context.Context, s *snapshot) bool {
	r, unmarked := s.part.registration, s.part.unmarked
	err := r.Wait(ctx)
	if err != nil && errors.Is(err, naming.ErrInvalid) && unmarked == nil && p.mayUnmark(s) {
		// Maybe only the mark is refused. An endpoint without the mark is better than
		// none: readers that use both registries see the mark of the other one.
		unmarked = p.named(err)
		p.a.state.setUnmarked(p.side, unmarked)
		if err = r.Resume(ctx); err == nil {
			err = r.Wait(ctx)
		}
	}
	if err != nil && !errors.Is(err, naming.ErrInvalid) {
		return false
	}
	if err != nil {
		err = p.named(err)
	}
	for which := range aspects {
		if s.part.given[which] != s.version[which] || s.part.answered[which] == s.version[which] {
			continue
		}
		refused := err
		if refused == nil && which == drainingAspect {
			refused = unmarked
		}
		p.a.state.setAnswer(p.side, which, s.version[which], refused)
	}
	p.a.poke()
	return true
}

// carryMark marks the endpoint, which is registered, as somebody else has marked the endpoint in
// the other registry. It marks as the operator did, so that an operator can remove the mark. It
// also does so after the endpoint has left the other registry: an attempt before may have
// failed. A store that cannot mark leaves the endpoint as it is. What the program itself said of
// the mark since counts more.
func (p *part) carryMark(s *snapshot) {
	var err error
	other, present := p.a.state.partStatus(p.side.other())
	if (!present || other.MarkedByOther) && s.part.given[drainingAspect] == s.version[drainingAspect] {
		ctx, cancel := context.WithTimeout(s.turn, leaveTimeout)
		defer cancel()
		err = p.a.joined.sides[p.side].mark(ctx, p.a.service, p.a.id, true)
	}
	if err == nil || errors.Is(err, naming.ErrInvalid) {
		p.carryRest, p.carryDue = 0, time.Time{}
		p.a.state.setCarried(p.side)
		return
	}
	p.carryRest = min(max(registerRest, 2*p.carryRest), maxCarryRest)
	p.carryDue = time.Now().Add(p.carryRest)
}

// mayUnmark reports whether the endpoint may be registered without the mark that is
// wanted: the mark is not one that the program asked Register for, or another registry
// counts.
func (p *part) mayUnmark(s *snapshot) bool {
	const first = 1
	return s.want.draining && s.part.given[drainingAspect] == s.version[drainingAspect] &&
		(s.version[drainingAspect] > first || s.counting != p.side)
}

// named returns an error with the name of the registry.
func (p *part) named(err error) error {
	return fmt.Errorf("registry %q: %w", p.a.joined.sides[p.side].name, err)
}

// leave begins to remove the endpoint from the registry, without the draining mark. If
// the phase changes back meanwhile, the part registers the endpoint again at once, and
// the new registration keeps the entry.
func (p *part) leave(s *snapshot) {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	left := make(chan error, 1)
	p.leaving, p.cancelLeave = left, cancel
	p.a.state.setAbsent(p.side)
	go func() { left <- s.part.registration.Withdraw(ctx) }()
	p.a.poke()
}

// handleLeft records the result of leave.
func (p *part) handleLeft(err error) {
	p.cancelLeave()
	p.leaving, p.cancelLeave = nil, nil
	p.a.state.setLeft(p.side, err, time.Now().Add(p.a.opts.TTL))
	log, level := p.a.joined.log, slog.LevelDebug
	if err != nil {
		level = slog.LevelWarn
	}
	log.Log(context.Background(), level, "naming: endpoint left a registry", slog.String("service", p.a.service),
		slog.String("endpoint", p.a.id), slog.String("registry", p.a.joined.sides[p.side].name), slog.Any("err", err))
	p.a.poke()
}

// end removes the endpoint from the registry as the farewell says.
func (p *part) end(s *snapshot) {
	var err error
	if s.part.registration != nil {
		err = p.endRegistration(s)
	}
	if p.leaving != nil {
		err = errors.Join(err, p.awaitLeft(s.farewell.ctx))
	} else if time.Now().Before(s.part.leftUntil) {
		err = errors.Join(err, s.part.leftWith)
	}
	if err != nil {
		p.endErr = p.named(err)
	}
}

// awaitLeft waits for the end of leave, until ctx is done.
func (p *part) awaitLeft(ctx context.Context) error {
	defer p.cancelLeave()
	select {
	case err := <-p.leaving:
		return err
	case <-ctx.Done():
	}
	p.cancelLeave()
	return <-p.leaving
}

// endRegistration ends the registration. It does not wait for long if the endpoint is not
// registered.
func (p *part) endRegistration(s *snapshot) error {
	r, ctx := s.part.registration, s.farewell.ctx
	st := r.Status()
	failing := !st.Registered && st.Err != nil
	if failing {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, unregisteredTimeout)
		defer cancel()
	}
	if s.farewell.drain && !failing {
		return r.Close()
	}
	err := r.Withdraw(ctx)
	if failing && s.part.registered {
		return nil // the lease has ended, as far as is known
	}
	return err
}

// snapshot is what a part has to know of the state of its announcement.
type snapshot struct {
	turn      context.Context // done when the snapshot is too old
	written   bool            // the plan has the endpoint in the registry
	unwritten time.Time       // since when it does not
	counting  sideIndex
	part      partState
	want      content
	version   versions
	farewell  *farewell
}

func (s *announcementState) snapshot(i sideIndex) snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return snapshot{
		turn: s.turn, written: s.plan.written[i], unwritten: s.unwritten[i], counting: s.plan.counting,
		part: s.parts[i], want: s.want, version: s.version, farewell: s.farewell,
	}
}

// pends reports whether the registry has to be asked for the wanted aspect, other than by
// Register.
func (s *snapshot) pends(which aspect) bool {
	v := s.version[which]
	return s.part.answered[which] != v && s.part.given[which] != v
}

// givenPends reports whether the registry has to be asked whether it has wanted content
// that Register got.
func (s *snapshot) givenPends() bool {
	for which := range aspects {
		if v := s.version[which]; s.part.answered[which] != v && s.part.given[which] == v {
			return true
		}
	}
	return false
}
