package resolver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/attributes"
	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/naming-go/naming"
)

// A change that comes while others do is published when none came for
// quietTime, or when the oldest has waited for maxWait.
const (
	quietTime = 5 * time.Millisecond
	maxWait   = 50 * time.Millisecond
)

// ClientConns that wait to be told for busyTime get more goroutines that see to it,
// up to half of the processors: a balancer may take milliseconds for a large set,
// and calls are to go on meanwhile. Those that are stuck do not count: they are when
// nobody was told for stallTime, or twice what telling one took last, up to maxStall.
const (
	busyTime  = time.Millisecond
	stallTime = 20 * time.Millisecond
	maxStall  = 200 * time.Millisecond
)

// A ClientConn for which a change is work of heavyTime or more, connects to what is
// new besides, while its process makes calls, and the servers are busy with all who
// do so at the same time. So there is a rest before the next one is told, of
// restFactor times what the work took, up to maxRest: for as long as nobody has
// waited for longer than restsEnd, which a server that is withdrawn survives.
const (
	heavyTime  = 200 * time.Microsecond
	restFactor = 3
	maxRest    = 10 * time.Millisecond
	restsEnd   = 500 * time.Millisecond
)

// state is what ClientConns are told: endpoints, or why there are none. It is
// never modified.
type state struct {
	number     uint64 // counts the states of a target
	endpoints  []grpcresolver.Endpoint
	addresses  []grpcresolver.Address // of the endpoints, if that was asked for
	attributes *attributes.Attributes // nil, or those of a cached set
	err        error
	urgent     bool // calls wait for it, fail until it is told, or go where the registry says not to call
}

// equal reports whether a ClientConn can be told either of two states.
func (s *state) equal(o *state) bool {
	return s.err == nil && o.err == nil && s.attributes == o.attributes && equalEndpoints(s.endpoints, o.endpoints)
}

// target is what the ClientConns of one service share: one Follower and what is
// made of it. Changes come in through wake, and go through run, a goroutine that
// exists only while there are some, to the ClientConns.
type target struct {
	builder *Builder
	service string
	users   int // ClientConns, also those being built; guarded by builder.mu

	once     sync.Once
	startErr error
	source   source

	// What has to be done. This mutex is held for moments only, so that wake
	// never holds up the registry.
	wakeMu  sync.Mutex
	running bool        // somebody is at work: run, or start
	pending time.Time   // when the oldest change came that Next has not been asked for; zero if there is none
	latest  time.Time   // when the newest change came
	timer   *time.Timer // until the first state: makes it slow, or late
	slow    bool        // the registry has been silent long enough for the cache to be used
	late    bool        // the registry has been silent for too long
	loaded  *loaded     // what was in the cache, until it is looked at
	ending  *time.Timer // wakes run at the end of a takeover; nil before the first
	closed  bool
	done    chan struct{} // nil until somebody waits for it; closed when closed is set
	work    sync.WaitGroup

	// Used by whoever is at work.
	set         *set
	synced      bool
	failure     error // of the registry, before it is synced
	cached      cacheUse
	publishedAt time.Time
	emptiness   string // the error that was published last, if that is the present state
	panicked    bool   // it was logged that too few endpoints are usable
	notes       []func()
	saver       *saver // nil: there is no cache

	mu    sync.Mutex
	state *state // nil: nothing is known yet
	conns []*conn
	// The ClientConns that have not been told the state, and that nobody is
	// telling anything, in a list. While there are some, somebody is in deliver,
	// or on the way to it.
	first, last *conn
	since       time.Time     // when the list was empty last
	tellers     int           // calls of deliver that are not stuck
	stalls      int           // counts how often all were
	told        int           // ClientConns, since tick was called last
	took        time.Duration // to tell one
	ticking     bool
	ticker      *time.Timer // calls tick if ticking; nil until needed
}

// cacheUse is how far the use of the cache has come.
type cacheUse int

const (
	notAsked cacheUse = iota
	loading
	noUse
	inUse
)

func newTarget(b *Builder, service string) *target {
	t := &target{
		builder: b,
		service: service,
		running: true, // until start is through
		set:     &set{threshold: b.threshold},
		cached:  noUse,
	}
	if b.cache != nil {
		t.cached = notAsked
		t.saver = &saver{cache: b.cache, service: service}
	}
	return t
}

// start begins to follow the service and takes what is known already. Of
// several calls the first one does it, and the others wait.
func (t *target) start() error {
	var notes []func()
	t.once.Do(func() {
		source, err := t.builder.follow(t.service, t.wake)
		if err != nil {
			t.startErr = err
			return
		}
		t.source = source
		t.step()
		notes, t.notes = t.notes, nil
		t.wakeMu.Lock()
		defer t.wakeMu.Unlock()
		if t.state == nil {
			t.wait()
		}
		if t.pending.IsZero() {
			t.running = false
		} else {
			t.work.Go(t.run)
		}
	})
	// Not within Do: the logger is the caller's code, and may build a ClientConn.
	for _, note := range notes {
		note()
	}
	return t.startErr
}

// note has f, which logs something, called when no lock is held.
func (t *target) note(f func()) { t.notes = append(t.notes, f) }

// wait sets the timer for what is to be done if the registry goes on to say
// nothing. t.wakeMu is held.
func (t *target) wait() {
	first := min(cacheWait, t.builder.firstAnswer/2)
	switch {
	case t.builder.cache == nil:
		t.timer = time.AfterFunc(t.builder.firstAnswer, t.tooLate)
	case !t.slow:
		t.timer = time.AfterFunc(first, t.tooSlow)
	default:
		t.timer = time.AfterFunc(t.builder.firstAnswer-first, t.tooLate)
	}
}

// join adds a ClientConn, and tells it what is known.
func (t *target) join(c *conn) {
	s := t.add(c)
	if s == nil {
		return
	}
	c.tell(s)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.noteTold(c, s)
	// Once here, and if there is more by now, not at the expense of Build.
	if c.phase == waiting {
		t.help()
	}
}

// add adds a ClientConn, and returns the state that it is to be told, nil if nothing is
// known yet.
func (t *target) add(c *conn) *state {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.index = len(t.conns)
	t.conns = append(t.conns, c)
	if t.state != nil {
		c.phase = telling
	}
	return t.state
}

// leave removes a ClientConn. t.mu is held.
func (t *target) leave(c *conn) {
	end := len(t.conns) - 1
	t.conns[end].index = c.index
	t.conns[c.index] = t.conns[end]
	t.conns[end] = nil
	t.conns = t.conns[:end]
}

// close ends a target that has no ClientConns any more, and waits until nothing
// of it runs.
func (t *target) close() {
	t.wakeMu.Lock()
	t.closed = true
	if t.done != nil {
		close(t.done)
	}
	for _, timer := range []*time.Timer{t.timer, t.ending} {
		if timer != nil {
			timer.Stop()
		}
	}
	t.wakeMu.Unlock()
	if t.source != nil {
		t.source.Close()
	}
	if t.saver != nil {
		t.saver.close()
	}
	t.work.Wait()
}

// wake is called when Next may have something new. It does not block.
func (t *target) wake() {
	t.wakeMu.Lock()
	defer t.wakeMu.Unlock()
	t.poke()
}

// poke sees to it that run looks at the source. t.wakeMu is held.
func (t *target) poke() {
	if t.closed {
		return
	}
	t.latest = time.Now()
	if t.pending.IsZero() {
		t.pending = t.latest
	}
	if !t.running {
		t.running = true
		t.work.Go(t.run)
	}
}

// tooLate is called when the first answer is overdue.
func (t *target) tooLate() {
	t.wakeMu.Lock()
	defer t.wakeMu.Unlock()
	t.late = true
	t.poke()
}

// tooSlow is called when the first answer takes so long that the cache is used.
func (t *target) tooSlow() {
	t.wakeMu.Lock()
	defer t.wakeMu.Unlock()
	if t.closed || t.timer == nil {
		return // answered as the timer fired
	}
	t.slow = true
	t.wait()
	t.poke()
}

// run takes the changes that there are, and tells them to the ClientConns itself:
// what comes alone passes through no other hands. What comes meanwhile is
// somebody else's, as are the ClientConns if enough are at it.
func (t *target) run() {
	t.collect()
	t.step()
	notes := t.notes
	t.notes = nil
	for _, note := range notes {
		note()
	}
	t.wakeMu.Lock()
	if t.closed || t.pending.IsZero() {
		t.running = false
	} else {
		t.work.Go(t.run)
	}
	t.wakeMu.Unlock()
	t.mu.Lock()
	stalls, room := t.stalls, t.tellers < t.builder.atOnce
	switch {
	case room:
		t.tellers++
	case t.first != nil && !t.ticking:
		t.tickLater() // they may be stuck
	}
	t.mu.Unlock()
	if room {
		t.deliver(stalls)
	}
}

// ended returns a channel that is closed when closed is set.
func (t *target) ended() <-chan struct{} {
	t.wakeMu.Lock()
	defer t.wakeMu.Unlock()
	if t.done == nil {
		t.done = make(chan struct{}) // not before: most never need it
		if t.closed {
			close(t.done)
		}
	}
	return t.done
}

// collect waits until it is time to publish what is pending.
func (t *target) collect() {
	if !t.synced {
		return // there are few before that, and all are urgent
	}
	for {
		t.wakeMu.Lock()
		first, latest := t.pending, t.latest
		t.wakeMu.Unlock()
		if first.Sub(t.publishedAt) >= quietTime {
			return
		}
		due := latest.Add(quietTime)
		if end := first.Add(maxWait); end.Before(due) {
			due = end
		}
		wait := time.Until(due)
		if wait <= 0 {
			return
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-t.ended():
			timer.Stop()
			return
		}
	}
}

// step takes what is new, and publishes what comes of it.
func (t *target) step() {
	t.wakeMu.Lock()
	t.pending = time.Time{}
	slow, late, loaded := t.slow, t.late, t.loaded
	t.loaded = nil
	t.wakeMu.Unlock()
	first, news := !t.synced, false
	// The endpoints and the status of one event need not be of the same moment:
	// what just came back may be missing from the endpoints and not be held any
	// more either. They are once there is no other event.
	for event, ok := t.source.Next(); ok; event, ok = t.source.Next() {
		news = true
		if event.Status.Synced {
			t.synced = true
			t.set.take(event)
		} else {
			t.failure = event.Status.Err
		}
	}
	switch {
	case t.synced:
		if news || t.set.takenOver(time.Now()) {
			t.publishSet(first)
			t.watchTakeover()
		}
	case loaded != nil:
		t.publishCached(loaded, late)
	case t.cached == notAsked && (t.failure != nil || slow):
		// It is read by a goroutine that nobody waits for.
		t.cached = loading
		go t.loadCache()
	case t.cached == noUse && t.failure != nil && news:
		t.publish(&state{err: t.lookupError()})
	case late && t.current() == nil:
		t.publish(&state{err: t.lookupError()})
	}
}

// publishSet publishes what the registry told, if it is anything else.
func (t *target) publishSet(first bool) {
	changed, urgent := t.set.publish(time.Now())
	if t.saver != nil {
		t.saver.tell(!t.set.stale && len(t.set.held) == 0, t.set.takeEdited(), t.set.contents())
	}
	log := t.builder.log
	if first && t.cached == inUse {
		t.note(func() {
			log.Info("naming: the registry answered, saved endpoints are no longer used", slog.String("service", t.service))
		})
	}
	t.tellPanic()
	list := t.set.published
	if len(list) == 0 {
		// Why there are none may change while there are none.
		if err := t.errorf("%s", t.set.whyEmpty()); changed || first || err.Error() != t.emptiness {
			t.emptiness = err.Error()
			t.publish(&state{err: err})
		}
		return
	}
	t.emptiness = ""
	if changed || first { // else it is an error, for example: the endpoints stay
		s := t.endpoints(list)
		s.urgent = urgent
		t.publish(s)
	}
}

// watchTakeover sets the timer that wakes run at the end of a takeover.
func (t *target) watchTakeover() {
	end := t.set.takeover
	t.wakeMu.Lock()
	defer t.wakeMu.Unlock()
	switch {
	case t.closed || end.IsZero() && t.ending == nil:
	case end.IsZero():
		t.ending.Stop()
	case t.ending == nil:
		t.ending = time.AfterFunc(time.Until(end), t.wake)
	default:
		t.ending.Reset(time.Until(end))
	}
}

// tellPanic logs when too few endpoints are usable, and when enough are again.
func (t *target) tellPanic() {
	if t.set.panicking == t.panicked {
		return
	}
	t.panicked = t.set.panicking
	level, text := slog.LevelInfo, "naming: enough endpoints are usable again, no others are used"
	if t.panicked {
		level, text = slog.LevelWarn, "naming: too few endpoints are usable, those that failed a check or are held are used as well"
	}
	log, endpoints := t.builder.log, len(t.set.published)
	t.note(func() {
		log.Log(context.Background(), level, text, slog.String("service", t.service), slog.Int("endpoints", endpoints))
	})
}

// publishCached publishes what was in the cache, while the registry has not
// answered. If nothing in the cache can be used, and the first answer is overdue
// (late), it publishes why there are no endpoints.
func (t *target) publishCached(l *loaded, late bool) {
	t.set.take(naming.Event{Batch: naming.Batch{Snapshot: true, Put: l.endpoints, Withheld: l.withheld}})
	t.set.publish(time.Now())
	if len(t.set.published) == 0 {
		t.cached = noUse
		if t.failure != nil || late && t.current() == nil {
			t.publish(&state{err: t.lookupError()})
		}
		return
	}
	t.cached = inUse
	log, failure, used := t.builder.log, naming.SafeError(t.failure), len(t.set.published)
	t.note(func() {
		log.Warn("naming: the registry does not answer, saved endpoints are used", slog.String("service", t.service),
			slog.Any("err", failure), slog.Duration("age", time.Since(l.at)), slog.Int("endpoints", used), slog.Int("withheld", len(l.withheld)))
	})
	t.tellPanic()
	s := t.endpoints(t.set.published)
	s.attributes = attributes.New(cachedKey{}, l.at)
	t.publish(s)
}

// endpoints returns the state of a list.
func (t *target) endpoints(list []grpcresolver.Endpoint) *state {
	s := &state{endpoints: list}
	if t.builder.addresses {
		s.addresses = make([]grpcresolver.Address, len(list))
		for i, e := range list {
			s.addresses[i] = e.Addresses[0]
			//lint:ignore SA1019 this is the one place where it is still of use: an Address outside of an Endpoint
			s.addresses[i].BalancerAttributes = e.Attributes
		}
	}
	return s
}

// lookupError says why there are no endpoints, while the registry has not
// answered.
func (t *target) lookupError() error {
	if t.failure != nil {
		return t.errorf("cannot be looked up: %v", t.failure)
	}
	return t.errorf("cannot be looked up: no answer from the registry in %v", t.builder.firstAnswer)
}

// errorf returns an error that names the service. It has the text of its cause
// and not the cause: gRPC would take the status that a registry's client wraps
// in its errors for that of the call, and end calls that wait for ready. The text
// reaches the callers of RPCs and their logs, so it has the form of
// [naming.SafeText], whatever the registry answered.
func (t *target) errorf(format string, args ...any) error {
	service := t.service[:min(len(t.service), maxServiceText)]
	return errors.New(naming.SafeText(fmt.Sprintf("naming: service %q ", service) + fmt.Sprintf(format, args...)))
}

// maxServiceText is how much of the name of a service is in an error, in bytes: it
// leaves room for what is wrong.
const maxServiceText = 200

func (t *target) current() *state {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state
}

// publish makes s the state, which deliver has to tell the ClientConns.
func (t *target) publish(s *state) {
	t.publishedAt = time.Now()
	t.wakeMu.Lock()
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	t.wakeMu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	s.number = 1
	if old := t.state; old == nil {
		s.urgent = true
	} else {
		s.number = old.number + 1
		// Endpoints from the cache may have gone long ago.
		s.urgent = s.urgent || old.err != nil || s.err != nil || old.attributes != nil || old.urgent && t.first != nil
	}
	t.state = s
	for _, c := range t.conns {
		if c.phase == idle {
			t.push(c)
		}
	}
}

// push puts c at the end of the list. t.mu is held.
func (t *target) push(c *conn) {
	c.phase = waiting
	if t.first == nil {
		t.first, t.since = c, time.Now()
	} else {
		t.last.next = c
	}
	t.last = c
}

// help has a goroutine more deliver. t.mu is held.
func (t *target) help() {
	t.tellers++
	stalls := t.stalls
	t.work.Go(func() { t.deliver(stalls) })
}

// delivery is the state of a call of deliver.
type delivery struct {
	stalls int           // target.stalls when this delivery was counted in target.tellers
	last   time.Time     // when the last ClientConn was done
	before time.Duration // how long the last ClientConn took
}

// deliver tells the ClientConns in the list the state, one after the other. Most
// are done with it in no time, and for those that are not there is tick. The caller
// has counted this one of the tellers when there had been that many stalls.
func (t *target) deliver(stalls int) {
	d := delivery{stalls: stalls, last: time.Now()}
	for {
		c, s := t.next(&d)
		if c == nil {
			return
		}
		c.tell(s)
		if rest := t.end(&d, c, s); rest > 0 {
			t.rest(rest)
			d.last = time.Now()
		}
	}
}

// next takes a ClientConn out of the list, and returns it and what to tell it. It
// returns nil if there is nothing left to do for this delivery.
func (t *target) next(d *delivery) (*conn, *state) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.first != nil {
		if t.stalls != d.stalls { // it was not stuck for good
			if t.tellers >= t.builder.atOnce {
				if !t.ticking {
					t.tickLater() // those who have its place may be stuck
				}
				return nil, nil
			}
			t.tellers++
			d.stalls = t.stalls
		}
		c := t.first
		t.first, c.next = c.next, nil
		c.phase = idle
		if c.closed {
			continue
		}
		if t.first != nil && !t.ticking {
			t.tickLater()
		}
		c.phase = telling
		return c, t.state
	}
	if t.stalls == d.stalls {
		t.tellers--
	}
	if t.ticking {
		t.ticking = false
		t.ticker.Stop()
	}
	return nil, nil
}

// end notes that c was told s, and returns how long to rest before the next one is
// told, where the last ones took a long time.
func (t *target) end(d *delivery, c *conn, s *state) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.noteTold(c, s)
	now := time.Now()
	t.took = now.Sub(d.last)
	d.last = now
	// A single slow delivery was probably preempted: only two in a row count.
	heavy := min(t.took, d.before)
	d.before = t.took
	if heavy < heavyTime || t.first == nil || t.state.urgent || now.Sub(t.since) >= restsEnd {
		return 0
	}
	return min(restFactor*heavy, maxRest)
}

// noteTold notes that c was told s. If there is another state by then, c is in the list
// afterwards. t.mu is held.
func (t *target) noteTold(c *conn, s *state) {
	t.told++
	c.phase = idle
	switch {
	case c.closed:
		if c.quiet != nil {
			close(c.quiet)
		}
	case t.state != s:
		t.push(c)
	}
}

// rest waits for d, or until the target is closed.
func (t *target) rest(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.ended():
	}
}

// tickLater sees to it that tick is called. t.mu is held.
func (t *target) tickLater() {
	t.ticking, t.told = true, 0
	d := min(max(stallTime, 2*t.took), maxStall)
	if t.tellers < t.builder.atOnce {
		d = busyTime
	}
	if t.ticker == nil {
		t.ticker = time.AfterFunc(d, t.tick)
	} else {
		t.ticker.Reset(d)
	}
}

// tick is called when ClientConns have been waiting for a while. That others take
// long, or block, must not hold them up, so there are more calls of deliver: as many
// again, or twice as many as are stuck.
func (t *target) tick() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.first == nil {
		t.ticking = false
		return
	}
	more := 0
	if room := t.builder.atOnce - t.tellers; room > 0 {
		more = min(t.tellers, room)
	} else if t.told == 0 {
		more = 2 * t.stall()
	}
	n := 0
	for c := t.first; c != nil && n < more; c = c.next {
		n++
	}
	for range n {
		t.help()
	}
	t.tickLater()
}

// stall does not count those who tell any more, and returns how many there were. t.mu
// is held.
func (t *target) stall() (tellers int) {
	tellers, t.tellers = t.tellers, 0
	t.stalls++
	return tellers
}
