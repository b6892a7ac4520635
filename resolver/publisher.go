package resolver

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/attributes"

	"github.com/naming-go/naming"
)

// publisher follows a service, keeps its set, and publishes a new state when there is
// one. Until the registry has answered, it publishes a saved set, or why there are no
// endpoints.
//
// Goroutines: Build calls start once, before anything else happens. A run of the
// debouncer calls run. A goroutine that nobody waits for reads the cache, and calls
// seed. The goroutine that closes the last ClientConn calls stop and then wait.
//
// Locks: while known is locked, the locks of the Follower, the debouncer, the
// dispatcher and the saver are taken. Nothing is called from outside while one of them
// is held, except for the debouncer's event. The logger is called without a lock: a
// step returns what is to be logged.
type publisher struct {
	// Constant after start.
	builder    *Builder
	service    string
	dispatcher *dispatcher
	source     source
	saver      *saver        // nil: no cache
	began      time.Time     // when start was called
	ended      chan struct{} // closed when the Client was closed

	debouncer debouncer
	known     knowledge
}

// knowledge is what the mutex of a publisher guards.
type knowledge struct {
	sync.Mutex
	set       *set
	synced    bool  // the set is the registry's
	failure   error // of the registry, before synced
	cache     cacheUse
	saved     *savedState // what was in the cache, until a step looks at it
	answered  bool        // something was published
	published time.Time   // when it was published last
	emptiness string      // the error that was published last, if that is the present state
	panicked  bool        // it was logged that too few endpoints are usable
	logs      []func()    // what the present step has to log
	ended     bool        // publisher.ended is closed
}

// cacheUse is how far the use of the cache has come.
type cacheUse int

const (
	cacheUnread cacheUse = iota
	cacheLoading
	cacheUnused // no cache, or nothing in it can be used
	cacheUsed
)

// cacheWait is how long the registry may be silent before a saved set is used, or half
// of Options.FirstAnswerTimeout if that is less. A longer time fails calls that could have
// been made. A shorter time uses old endpoints although the registry is merely slow.
const cacheWait = time.Second

func (p *publisher) init(b *Builder, service string, d *dispatcher) {
	p.builder, p.service, p.dispatcher = b, service, d
	p.ended = make(chan struct{})
	p.debouncer.run = p.run
	p.debouncer.timing.busy = true // until start is through
	p.known.set = &set{threshold: b.threshold}
	p.known.cache = cacheUnused
	if b.cache != nil {
		p.known.cache = cacheUnread
		p.saver = &saver{cache: b.cache, service: service}
	}
}

// start follows the service and publishes what is known already. It returns what the
// caller has to log.
func (p *publisher) start() (logs []func(), err error) {
	p.began = time.Now()
	source, err := p.builder.follow(p.service, p.debouncer.event)
	if err != nil {
		return nil, err
	}
	p.source = source
	o := p.step(time.Now())
	p.debouncer.finish(o.published, o.alarm)
	return o.logs, nil
}

// run publishes what is new, and then delivers it on the same goroutine. The next run
// may begin before the deliveries, which can block.
func (p *publisher) run() {
	o := p.step(time.Now())
	for _, log := range o.logs {
		log()
	}
	p.debouncer.finish(o.published, o.alarm)
	p.dispatcher.dispatch()
}

// outcome is what is left to do after a step.
type outcome struct {
	logs             []func()
	published, alarm time.Time // for debouncer.finish
}

// step reads what is new, and publishes what comes of it.
func (p *publisher) step(now time.Time) outcome {
	k := &p.known
	k.Lock()
	defer k.Unlock()
	p.debouncer.begin()
	first := !k.synced
	news := p.readEvents()
	if k.synced {
		k.saved = nil
	}
	switch {
	case !k.synced:
		p.stepUnsynced(now, news)
	case news || k.set.takenOver(now):
		p.publishSet(now, first)
	}
	o := outcome{logs: k.logs}
	if alarm := p.alarm(); alarm.After(now) { // this step did what was due by now
		o.alarm = alarm
	}
	k.logs = nil
	if k.synced { // the few changes before are all urgent
		o.published = k.published
	}
	return o
}

// readEvents applies what the source has, and reports whether that was anything.
//
// The endpoints and the status of one event need not be of the same moment: what just
// came back may be missing from the endpoints and not be held either. They agree once
// there is no other event.
func (p *publisher) readEvents() (news bool) {
	k := &p.known
	for event, ok := p.source.Next(); ok; event, ok = p.source.Next() {
		news = true
		if !k.ended && errors.Is(event.Status.Err, naming.ErrClientClosed) {
			k.ended = true
			close(p.ended)
		}
		if event.Status.Synced {
			k.synced = true
			k.set.apply(event)
		} else {
			k.failure = event.Status.Err
		}
	}
	return news
}

// stepUnsynced publishes what there is while the registry has not answered.
func (p *publisher) stepUnsynced(now time.Time, news bool) {
	k := &p.known
	silence := now.Sub(p.began)
	late := silence >= p.builder.firstAnswer && !k.answered
	if k.cache == cacheUnread && (k.failure != nil || silence >= p.patience()) {
		k.cache = cacheLoading
		go func() { p.seed(p.builder.cache.read(p.service)) }()
	}
	switch {
	case k.saved != nil:
		p.publishSaved(now, late)
	case k.cache == cacheUnused && k.failure != nil && news:
		p.publish(&state{err: p.lookupError()})
	case late:
		p.publish(&state{err: p.lookupError()})
	}
}

// patience returns how long the registry may be silent before the cache is used.
func (p *publisher) patience() time.Duration { return min(cacheWait, p.builder.firstAnswer/2) }

// alarm returns when a step is due without an event, zero if none is. p.known is
// locked.
func (p *publisher) alarm() time.Time {
	switch k := &p.known; {
	case k.synced:
		return k.set.takeover
	case k.answered:
		return time.Time{}
	case k.cache == cacheUnread:
		return p.began.Add(p.patience())
	default:
		return p.began.Add(p.builder.firstAnswer)
	}
}

// seed has the next step look at what was in the cache, unless the registry has answered
// by now.
func (p *publisher) seed(s *savedState) {
	if p.setSaved(s) {
		p.debouncer.event()
	}
}

func (p *publisher) setSaved(s *savedState) bool {
	k := &p.known
	k.Lock()
	defer k.Unlock()
	if k.synced { // nobody would release the set
		return false
	}
	k.saved = s
	return true
}

// publishSet publishes the set of the registry, if it differs from what was published.
func (p *publisher) publishSet(now time.Time, first bool) {
	k := &p.known
	changed, urgent := k.set.publish(now)
	if p.saver != nil {
		p.saver.update(!k.set.stale && len(k.set.held) == 0, k.set.resetEdited(), k.set.contents())
	}
	if first && k.cache == cacheUsed {
		p.log(slog.LevelInfo, "naming: the registry answered, saved endpoints are no longer used")
	}
	p.logPanic()
	if len(k.set.published) == 0 {
		// The reason may change while there are no endpoints.
		if err := serviceError(p.service, "%s", k.set.whyEmpty()); changed || first || err.Error() != k.emptiness {
			k.emptiness = err.Error()
			p.publish(&state{err: err})
		}
		return
	}
	k.emptiness = ""
	if changed || first { // a failure of the registry, for example, leaves the endpoints
		s := endpointsState(k.set.published, p.builder.addresses)
		s.urgent = urgent
		p.publish(s)
	}
}

// publishSaved publishes what was in the cache. If nothing in the cache can be used,
// it publishes why there are no endpoints, provided that the registry has failed or
// late says that its first answer is overdue.
func (p *publisher) publishSaved(now time.Time, late bool) {
	k := &p.known
	saved := k.saved
	k.saved = nil
	k.set.apply(naming.Event{Batch: naming.Batch{Snapshot: true, Put: saved.endpoints, Withheld: saved.withheld}})
	k.set.publish(now)
	if len(k.set.published) == 0 {
		k.cache = cacheUnused
		if k.failure != nil || late {
			p.publish(&state{err: p.lookupError()})
		}
		return
	}
	k.cache = cacheUsed
	p.log(slog.LevelWarn, "naming: the registry does not answer, saved endpoints are used", slog.Any("err", safeValue{k.failure}),
		slog.Duration("age", time.Since(saved.at)), slog.Int("endpoints", len(k.set.published)), slog.Int("withheld", len(saved.withheld)))
	p.logPanic()
	s := endpointsState(k.set.published, p.builder.addresses)
	s.attributes = attributes.New(cachedKey{}, saved.at)
	p.publish(s)
}

// publish hands a state to the dispatcher.
func (p *publisher) publish(s *state) {
	p.known.answered = true
	p.known.published = time.Now()
	p.dispatcher.publish(s)
}

// lookupError says why there are no endpoints, while the registry has not answered.
func (p *publisher) lookupError() error {
	return &lookupError{service: p.service, cause: p.known.failure, silence: p.builder.firstAnswer}
}

// logPanic logs when too few endpoints are usable, and when enough are again.
func (p *publisher) logPanic() {
	k := &p.known
	if k.set.panicking == k.panicked {
		return
	}
	k.panicked = k.set.panicking
	n := slog.Int("endpoints", len(k.set.published))
	if k.panicked {
		p.log(slog.LevelWarn, "naming: too few endpoints are usable, those that failed a check or are held are used as well", n)
	} else {
		p.log(slog.LevelInfo, "naming: enough endpoints are usable again, no others are used", n)
	}
}

// log has the caller of step log a line.
func (p *publisher) log(level slog.Level, text string, attrs ...slog.Attr) {
	p.known.logs = append(p.known.logs, func() {
		attrs = append([]slog.Attr{slog.String("service", p.service)}, attrs...)
		p.builder.log.LogAttrs(context.Background(), level, text, attrs...)
	})
}

// stop keeps further runs and saves from beginning.
func (p *publisher) stop() {
	p.debouncer.close()
	if p.source != nil {
		p.source.Close()
	}
	if p.saver != nil {
		p.saver.close()
	}
}

// wait waits for a run in progress. It is called after stop.
func (p *publisher) wait() { p.debouncer.wait() }
