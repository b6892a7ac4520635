package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/naming-go/naming"
)

const (
	// workers is how many services are reconciled at the same time.
	workers = 16
	// epochWait bounds how long a Bridge that was elected waits for all copies of the
	// target, whose marks it reads, before it writes.
	epochWait = 10 * time.Second
	// alarmAfter is how long changes of the stopped deletions are collected.
	alarmAfter = time.Second
	// blownEvery is how often the services are looked at whose deletions are stopped.
	blownEvery = 5 * time.Second
	// minBackoff and maxBackoff bound the wait before a service is tried again.
	minBackoff, maxBackoff = 100 * time.Millisecond, 30 * time.Second
)

// term is the work of a Bridge from one election to the next.
type term struct {
	b      *Bridge
	opts   *Options
	copier copier
	lead   *leadership
	queue  *queue
	pool   *leasePool
	fuse   *fuse
	pace   *pacer
	source *naming.Client
	target *naming.Client

	ctx context.Context
	end context.CancelCauseFunc

	highest   atomic.Uint64 // the highest epoch in a mark
	staleness staleness
}

func (b *Bridge) newTerm(lead *leadership) *term {
	t := &term{
		b: b, opts: &b.opts, copier: b.copier, lead: lead, queue: newQueue(),
		pool: newLeasePool(b.target, b.opts.TTL), fuse: newFuse(b.opts.Fuse), pace: newPacer(b.opts.Rate),
	}
	t.source = b.client(b.source, b.opts.SourceName, b.opts.Hold, &naming.Hooks{Stale: t.noteListStale(sourceSide)})
	t.target = b.client(b.target, b.opts.TargetName, naming.Hold{Disabled: true}, &naming.Hooks{Stale: t.noteListStale(targetSide)})
	t.pool.lostAny = func() { t.queue.pushAll(nil) }
	t.pool.failed = func(err error) { b.reportFailure("", err) }
	return t
}

// client returns a Client on a registry.
func (b *Bridge) client(store naming.Store, name string, hold naming.Hold, hooks *naming.Hooks) *naming.Client {
	return naming.New(store, &naming.Options{Hooks: hooks, Logger: slog.New(demoted{b.opts.Logger.Handler()}).With("registry", name), IdleGrace: -1, Hold: hold})
}

// run works until ctx is done or the term ends, and returns why.
func (t *term) run(ctx context.Context) error {
	t.ctx, t.end = context.WithCancelCause(ctx)
	defer t.end(nil)
	var wg sync.WaitGroup
	wg.Go(func() { t.followNames(sourceSide, t.source) })
	wg.Go(func() { t.followNames(targetSide, t.target) })
	wg.Go(func() { t.pool.run(t.ctx) })
	wg.Go(func() { t.end(t.lead.keep(t.ctx)) })
	wg.Go(func() { t.end(t.b.watchSeat(t.ctx, t)) })
	wg.Go(t.watchFuse)
	wg.Go(t.begin)
	for range workers {
		wg.Go(t.work)
	}
	<-t.ctx.Done()
	all := t.queue.close()
	wg.Wait()
	for _, s := range all {
		s.close()
	}
	t.source.Close()
	t.target.Close()
	return context.Cause(t.ctx)
}

// close ends the watches of a service.
func (s *tracked) close() {
	if s.sourceFeed != nil {
		s.sourceFeed.Close()
		s.targetFeed.Close()
	}
}

// followNames tracks the services of a side.
func (t *term) followNames(side int, c *naming.Client) {
	for names, err := range c.Services(t.ctx) {
		if err != nil {
			return // ctx is done
		}
		set := make(map[string]bool, len(names))
		for _, n := range names {
			if t.opts.copies(n) {
				set[n] = true
			}
		}
		for _, s := range t.queue.setNames(side, set) {
			t.open(s)
		}
	}
}

// open starts the watches of a service that is new.
func (t *term) open(s *tracked) {
	wake := func() { t.queue.push(s) }
	source, err := t.source.Follow(s.name, wake)
	if err == nil {
		var target *naming.Follower
		if target, err = t.target.Follow(s.name, wake); err == nil {
			s.sourceFeed, s.targetFeed = source, target
		} else {
			source.Close()
		}
	}
	if err != nil {
		t.b.reportFailure(s.name, err)
		t.queue.noteRead(s)
		t.queue.done(s, time.Time{})
		return
	}
	t.queue.done(s, time.Now())
}

// begin waits until the epochs in the target's marks are known. From then on the workers
// write.
func (t *term) begin() {
	if !t.awaitCopies() {
		return
	}
	epoch := max(t.highest.Load(), t.lead.seen) + 1
	for tries := 0; ; tries++ {
		err := t.lead.publish(t.ctx, func(s *seat) { s.Epoch = epoch })
		if err == nil {
			break
		}
		t.b.reportFailure(Service, err)
		if sleep(t.ctx, backoff(tries)) != nil {
			return
		}
	}
	t.b.beginWork(t, epoch)
	t.lead.epoch.Store(epoch)
	t.queue.pushAll(nil)
}

// awaitCopies waits until the copies of the target are known. A service that cannot be read
// is waited for until epochWait after the list of services. It returns false if ctx is done.
func (t *term) awaitCopies() bool {
	var expired <-chan time.Time
	for {
		names, copies := t.queue.isRead()
		if names && copies {
			return true
		}
		if names && expired == nil {
			expired = time.After(epochWait)
		}
		select {
		case <-t.queue.progress:
		case <-expired:
			return true
		case <-t.ctx.Done():
			return false
		}
	}
}

// backoff returns how long to wait after a number of failures.
func backoff(failures int) time.Duration {
	bound := min(minBackoff<<min(failures, 16), maxBackoff)
	return bound/2 + rand.N(bound/2)
}

// work reconciles services until the queue is closed.
func (t *term) work() {
	for s := t.queue.pop(); s != nil; s = t.queue.pop() {
		t.queue.done(s, t.reconcile(s))
	}
}

// reconcile makes the copies of a service what they are to be. It returns when to do so
// again.
func (t *term) reconcile(s *tracked) (next time.Time) {
	if s.sourceFeed == nil {
		return next
	}
	paced := false
	for t.ctx.Err() == nil {
		t.read(s)
		if !t.mayWrite(s) {
			return next
		}
		if time.Now().Before(s.retryAt) {
			return s.retryAt // events do not shorten the wait after a failure
		}
		w := t.decide(s.service)
		switch {
		case len(w.puts)+len(w.deletes) == 0:
			if s.idle() && t.queue.drop(s) {
				t.fuse.forget(s.name)
				t.forgetStale(s)
				s.close()
			}
			return w.next
		case !paced:
			// The wait may be long, so that the decision is made anew after the wait.
			if t.pace.wait(t.ctx) != nil {
				return next
			}
			paced = true
			continue
		}
		paced = false
		if err := t.carryOut(s.service, w); err != nil {
			if t.ctx.Err() != nil {
				return next
			}
			s.failures++
			s.retryAt = time.Now().Add(backoff(s.failures))
			t.b.reportFailure(s.name, err)
			return s.retryAt
		}
		s.failures = 0
	}
	return next
}

// read applies what the watches of a service have.
func (t *term) read(s *tracked) {
	for e, ok := s.sourceFeed.Next(); ok; e, ok = s.sourceFeed.Next() {
		s.applySource(t.copier, e)
	}
	for e, ok := s.targetFeed.Next(); ok; e, ok = s.targetFeed.Next() {
		s.applyTarget(t.copier, t.lead.epoch.Load(), e)
	}
	t.noteStale(s, sourceSide, s.source.status)
	t.noteStale(s, targetSide, s.target.status)
	if s.target.status.Synced {
		t.noteEpoch(s.highest)
		t.queue.noteRead(s)
	}
}

func (t *term) noteEpoch(epoch uint64) {
	for {
		was := t.highest.Load()
		if epoch <= was || t.highest.CompareAndSwap(was, epoch) {
			return
		}
	}
}

// mayWrite reports whether the Bridge may write. It ends the term if another Bridge was
// elected since.
func (t *term) mayWrite(s *tracked) bool {
	epoch := t.lead.epoch.Load()
	if epoch == 0 {
		return false
	}
	if s.highest > epoch {
		t.end(fmt.Errorf("%w: a copy of service %q has epoch %d, and the own epoch is %d", errDeposed, naming.SafeText(s.name), s.highest, epoch))
		return false
	}
	if !t.lead.valid() {
		t.end(fmt.Errorf("%w: the election's lease was not renewed in time", errDeposed))
		return false
	}
	return true
}

var errDeposed = errors.New("deposed")

// watchFuse reports which deletions are stopped, until ctx is done.
func (t *term) watchFuse() {
	var last string
	tick := time.NewTicker(blownEvery)
	defer tick.Stop()
	for {
		select {
		case <-t.fuse.changed:
			if sleep(t.ctx, alarmAfter) != nil {
				return
			}
		case <-tick.C:
		case <-t.ctx.Done():
			return
		}
		if p := t.fuse.plan(); p.Digest != last {
			last = p.Digest
			t.b.reportFuse(t, p)
		}
		t.queue.pushAll(append([]string{}, t.fuse.blown()...))
	}
}
