package bridge

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
)

// Bridge copies the endpoints of a source to a target. [New] makes one. All methods may be
// called concurrently.
type Bridge struct {
	source, target naming.Store
	opts           Options
	hooks          Hooks
	copier         copier
	holder, by     string // of the election
	seenEpoch      atomic.Uint64

	state struct {
		mu      sync.Mutex
		running bool
		term    *term  // not nil while this Bridge works
		kept    func() // not nil: ends the renewal of an earlier term's leases
		status  Status
		reports reports
	}
}

// reports are what was logged, so that it is not logged again. It is part of Bridge.state,
// and guarded by its mu.
type reports struct {
	failing bool                     // calls of a registry fail
	losses  map[copyKey]migrate.Loss // of the present term
}

// maxLosses bounds how many losses a Bridge remembers.
const maxLosses = 100_000

// Status is what a [Bridge] does.
type Status struct {
	// Working says that the Bridge was elected and writes. A Bridge that runs and does
	// not work stands by.
	Working bool
	// Epoch is the number of the Bridge's election. It is 0 while the Bridge does not
	// work.
	Epoch uint64
	// Services is how many services are watched, and Copies is how many copies they have
	// in the target.
	Services, Copies int
	// StaleSource and StaleTarget are how many services the registries cannot vouch for,
	// because their watches fail. Nothing is deleted for these services.
	StaleSource, StaleTarget int
	// Blown has the deletions that the fuse stops. It is nil while the fuse is whole.
	Blown *Plan
	// Losses is how many endpoints cannot be copied, or only in part.
	Losses int
	// Err is the last failure of a registry, and nil after a success. It has the form of
	// [naming.SafeError].
	Err error
}

// New returns a Bridge from source to target. It makes no request. The Bridge does not own
// the Stores: the caller closes them after [Bridge.Run] has returned.
//
// The error is [naming.ErrInvalid] for a Store that is nil, for names that are equal or
// have characters that are not allowed, for an election on a registry that cannot elect,
// and for a target whose format cannot hold the ID of a copy.
func New(source, target naming.Store, opts *Options) (*Bridge, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	o = o.withDefaults()
	switch {
	case source == nil || target == nil:
		return nil, fmt.Errorf("bridge: %w: a nil store", naming.ErrInvalid)
	case sameStore(source, target):
		return nil, fmt.Errorf("bridge: %w: source and target are the same store", naming.ErrInvalid)
	}
	if o.Election == nil {
		o.Election = target
	}
	b := &Bridge{source: source, target: target, opts: o, hooks: *o.Hooks, holder: rand.Text(), by: host()}
	b.copier = copier{origin: o.SourceName, bridge: o.Name}
	b.copier.target, _ = target.(naming.Mapper)
	if err := errors.Join(o.check(), o.checkElection(), b.copier.check()); err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	return b, nil
}

// sameStore reports whether two stores are one. Stores that cannot be compared are not.
func sameStore(a, b naming.Store) bool {
	t := reflect.TypeOf(a)
	return t == reflect.TypeOf(b) && t.Comparable() && a == b
}

func (b *Bridge) election() naming.Store { return b.opts.Election }

// Run stands by until the Bridge is elected, and then copies, until ctx is done. It returns
// ctx.Err(), or an error at once if the Bridge runs already. The copies stay in the target
// under their leases. The entry of the election is removed, so that another Bridge goes on
// at once.
func (b *Bridge) Run(ctx context.Context) error {
	if !b.setRunning(true) {
		return fmt.Errorf("bridge: %w: the Bridge runs already", naming.ErrInvalid)
	}
	defer b.setRunning(false)
	defer b.stopKeeping()
	for deposed := 0; ; deposed++ {
		lead, err := b.campaign(ctx)
		if err != nil {
			return err
		}
		began := time.Now()
		t := b.newTerm(lead)
		err = t.run(ctx)
		lead.free(ctx)
		b.endWork(lead, err)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		b.keep(ctx, t.pool)
		if time.Since(began) > maxBackoff {
			deposed = 0
		}
		wait := backoff(deposed)
		if b.opts.NoElection {
			// Nothing but a higher epoch ends the work: against the contract, another
			// Bridge runs. Two that depose each other must not put all copies each time.
			wait = b.opts.TTL / 3
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// setRunning reports false if the Bridge runs already.
func (b *Bridge) setRunning(running bool) bool {
	b.state.mu.Lock()
	defer b.state.mu.Unlock()
	if running && b.state.running {
		return false
	}
	b.state.running = running
	return true
}

// keep renews the leases of a term that has ended, until another Bridge is known to be
// elected or this Bridge works again. The election's registry may be down for longer than the
// copies' time to live. A Bridge that was elected meanwhile has put the copies under its own
// leases, so that these renewals do not concern them.
func (b *Bridge) keep(ctx context.Context, p *leasePool) {
	b.stopKeeping()
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.run(ctx)
	}()
	b.setKept(func() {
		cancel()
		<-done
	})
}

// stopKeeping ends keep.
func (b *Bridge) stopKeeping() {
	if stop := b.setKept(nil); stop != nil {
		stop()
	}
}

// setKept sets the function that ends keep, and returns the last one.
func (b *Bridge) setKept(stop func()) (last func()) {
	b.state.mu.Lock()
	defer b.state.mu.Unlock()
	last, b.state.kept = b.state.kept, stop
	return last
}

// Status returns what the Bridge does now.
func (b *Bridge) Status() Status {
	b.state.mu.Lock()
	defer b.state.mu.Unlock()
	s := b.state.status
	if t := b.state.term; t != nil {
		s.Services, s.Copies = t.queue.len(), t.fuse.size()
		s.StaleSource, s.StaleTarget = t.staleness.of(sourceSide), t.staleness.of(targetSide)
	}
	s.Losses = len(b.state.reports.losses)
	return s
}

// beginWork notes that the Bridge writes from now on.
func (b *Bridge) beginWork(t *term, epoch uint64) {
	b.opts.Logger.Info("bridge: elected", b.attr(), slog.Uint64("epoch", epoch))
	b.noteEpoch(epoch)
	b.stopKeeping()
	b.setTerm(t, epoch)
	if f := b.hooks.Elected; f != nil {
		f(ElectedInfo{Epoch: epoch})
	}
}

func (b *Bridge) setTerm(t *term, epoch uint64) {
	b.state.mu.Lock()
	defer b.state.mu.Unlock()
	b.state.term = t
	b.state.status = Status{Working: t != nil, Epoch: epoch}
	b.state.reports = reports{losses: make(map[copyKey]migrate.Loss)}
}

// endWork notes that a term has ended.
func (b *Bridge) endWork(lead *leadership, why error) {
	epoch := lead.epoch.Load()
	b.setTerm(nil, 0)
	if !errors.Is(why, errDeposed) {
		return
	}
	b.opts.Logger.Warn("bridge: deposed, stands by", b.attr(), slog.Uint64("epoch", epoch), slog.Any("err", why))
	if f := b.hooks.Deposed; f != nil {
		f(DeposedInfo{Epoch: epoch, Err: why})
	}
}

// attr returns the attribute of log records that names the Bridge.
func (b *Bridge) attr() slog.Attr {
	return slog.String("bridge", b.opts.Name+": "+b.opts.SourceName+" to "+b.opts.TargetName)
}

// reportFailure reports a failed call of a registry. It warns once until the next success.
func (b *Bridge) reportFailure(service string, err error) {
	err = naming.SafeError(err)
	level := slog.LevelDebug
	if b.noteFailure(err) {
		level = slog.LevelWarn
	}
	b.opts.Logger.Log(context.Background(), level, "bridge: a registry failed, trying again", b.attr(), slog.String("service", naming.SafeText(service)), slog.Any("err", err))
	if f := b.hooks.Failed; f != nil {
		f(FailedInfo{Service: service, Err: err})
	}
}

// noteFailure reports whether the failure is the first since a success.
func (b *Bridge) noteFailure(err error) bool {
	b.state.mu.Lock()
	defer b.state.mu.Unlock()
	first := !b.state.reports.failing
	b.state.reports.failing, b.state.status.Err = true, err
	return first
}

// noteSuccess notes that a registry answered.
func (b *Bridge) noteSuccess() {
	if b.endFailure() {
		b.opts.Logger.Info("bridge: the registries answer again", b.attr())
	}
}

// endFailure reports whether a registry had failed before.
func (b *Bridge) endFailure() bool {
	b.state.mu.Lock()
	defer b.state.mu.Unlock()
	failed := b.state.reports.failing
	b.state.reports.failing, b.state.status.Err = false, nil
	return failed
}

// reportLoss reports a loss, unless the same loss was reported.
func (b *Bridge) reportLoss(id string, l migrate.Loss) {
	if !b.noteLoss(copyKey{l.Service, id}, l) {
		return
	}
	b.opts.Logger.Warn("bridge: an endpoint is not copied as it is", b.attr(), slog.String("service", naming.SafeText(l.Service)),
		slog.String("id", naming.SafeText(l.Endpoint.ID)), slog.Any("lost", l.Fields), slog.Any("err", l.Err))
	if f := b.hooks.Loss; f != nil {
		f(l)
	}
}

// noteLoss reports whether a loss is new.
func (b *Bridge) noteLoss(key copyKey, l migrate.Loss) bool {
	b.state.mu.Lock()
	defer b.state.mu.Unlock()
	losses := b.state.reports.losses
	was, ok := losses[key]
	if ok && (was.Err == nil) == (l.Err == nil) && was.Endpoint.Equal(l.Endpoint) || !ok && len(losses) >= maxLosses {
		return false
	}
	if losses != nil {
		losses[key] = l
	}
	return true
}

// forgetLoss notes that a copy is without loss, or is not wanted.
func (b *Bridge) forgetLoss(service, id string) {
	b.state.mu.Lock()
	defer b.state.mu.Unlock()
	delete(b.state.reports.losses, copyKey{service, id})
}

// reportFuse reports which deletions are stopped.
func (b *Bridge) reportFuse(t *term, p *Plan) {
	b.setBlown(t, p)
	if p.Blown {
		b.opts.Logger.Warn("bridge: too many copies would be deleted, all of them are kept", b.attr(),
			slog.Int("deletes", len(p.Deletes)), slog.String("digest", p.Digest))
	} else {
		b.opts.Logger.Info("bridge: the fuse is whole again", b.attr())
	}
	if f := b.hooks.FuseBlown; f != nil {
		f(FuseBlownInfo{Plan: p})
	}
	err := t.lead.publish(t.ctx, func(s *seat) { s.Digest, s.Deletes = p.Digest, len(p.Deletes) })
	if err != nil {
		b.reportFailure(Service, err)
	}
}

func (b *Bridge) setBlown(t *term, p *Plan) {
	b.state.mu.Lock()
	defer b.state.mu.Unlock()
	if b.state.term != t {
		return
	}
	b.state.status.Blown = nil
	if p.Blown {
		b.state.status.Blown = p
	}
}
