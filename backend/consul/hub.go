package consul

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// hub wakes its members when something has changed: the watches without a blocking
// query of their own, and the lists of services. It exists while it has a member. Its
// queries cover everything that an endpoint consists of: services, checks, and the
// addresses of nodes.
//
// The members read in rounds. A change begins a round, and all members that wait are
// woken at once. The next round begins when they have read, and after a rest.
type hub struct {
	ctx    context.Context // done when a query has failed, with its error as the cause, or when the last member has left
	cancel context.CancelFunc
	group  *errgroup.Group

	members int // guarded by Store.shared.mu

	ready   chan struct{} // closed when all queries notice changes
	changed chan struct{} // capacity 1: holds a token when something has changed
	allRead chan struct{} // capacity 1: holds a token when rounds.reading has become 0

	rounds struct {
		mu      sync.Mutex
		number  int
		next    chan struct{} // closed and replaced when a round begins; closed for good when there will be no round
		waiting int           // members that wait for the next round
		reading int           // members that have not finished the present round
	}
}

// signals are the queries of a hub. Their filters leave nothing of the answers, as only
// the index matters.
var signals = [][2]string{
	{"/v1/catalog/services", `ServiceName == ""`},
	{"/v1/catalog/nodes", `Node == ""`},
	{"/v1/health/state/any", `Status == ""`},
}

// joinHub returns the hub. The caller calls leaveHub.
func (s *Store) joinHub() *hub {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	if s.shared.hub == nil || s.shared.hub.ctx.Err() != nil {
		s.shared.hub = s.newHub()
	}
	s.shared.hub.members++
	return s.shared.hub
}

func (s *Store) newHub() *hub {
	h := &hub{
		ready:   make(chan struct{}),
		changed: make(chan struct{}, 1),
		allRead: make(chan struct{}, 1),
	}
	h.rounds.next = make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	h.group, h.ctx = errgroup.WithContext(ctx)
	armed := make(chan struct{}, len(signals))
	for _, signal := range signals {
		l := &listener{store: s, hub: h, path: signal[0], filter: signal[1]}
		h.group.Go(func() error { return l.run(func() { armed <- struct{}{} }) })
	}
	h.group.Go(func() error {
		h.run(armed, s.SilenceBound())
		return nil
	})
	return h
}

// leaveHub gives back what joinHub returned. The last member ends the hub.
func (s *Store) leaveHub(h *hub) {
	if s.removeMember(h) {
		h.cancel()
		_ = h.group.Wait() // the members have got its error as the cause of h.ctx
	}
}

func (s *Store) removeMember(h *hub) (last bool) {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	h.members--
	last = h.members == 0
	if last && s.shared.hub == h {
		s.shared.hub = nil
	}
	return last
}

// listener is a query of a hub. Only its goroutine uses it.
type listener struct {
	store        *Store
	hub          *hub
	path, filter string

	index    uint64    // of the last answer; 0: read anew
	armed    bool      // there was an answer, so changes are noticed
	answered time.Time // when the last answer came
	over     time.Time // when the query without an answer is over at Consul; zero: no such query
}

// run notes each change of the index in the hub, until the hub ends or a query fails.
// It calls armed once changes are noticed.
func (l *listener) run(armed func()) error {
	s, ctx := l.store, l.hub.ctx
	if s.gates.shared.Acquire(ctx, 1) != nil {
		return nil // the hub has ended
	}
	defer func() { releaseAt(s.gates.shared, l.over) }()
	pace := bucket{every: time.Second / 10, burst: 20}
	l.answered = time.Now()
	for {
		if sleep(ctx, pace.spend(time.Now(), 1)) != nil {
			return nil
		}
		index, err := l.ask(ctx)
		if s.refused(err) && time.Since(l.answered) < s.SilenceBound() {
			if sleep(ctx, time.Second/2+rand.N(time.Second)) != nil {
				return nil
			}
			l.index = 0 // anything may have changed meanwhile
			continue
		}
		if err != nil {
			return err
		}
		l.answered = time.Now()
		l.note(index, armed)
	}
}

// ask makes the query and returns the index of the answer.
func (l *listener) ask(ctx context.Context) (index uint64, err error) {
	q := l.store.nextQuery(l.index)
	q.Filter = l.filter
	q.NodeMeta = nil
	l.over = overAt(q)
	err = l.store.bounded(ctx, func(ctx context.Context) error {
		var ignored any
		meta, err := l.store.fetch(ctx, l.path, &ignored, q) // gates.shared admits it
		if err == nil {
			index = max(meta.LastIndex, 1)
		}
		return err
	})
	if ctx.Err() == nil {
		l.over = time.Time{}
	}
	return index, err
}

// note notes the index of an answer.
func (l *listener) note(index uint64, armed func()) {
	switch {
	case !l.armed:
		l.armed = true
		armed()
	case index != l.index:
		l.hub.noteChange()
	}
	if index < l.index {
		index = 0 // the query is made anew, and its answer is a change again
	}
	l.index = index
}

func (h *hub) noteChange() {
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

// run waits until all queries are armed, and then runs rounds until the hub ends. limit
// bounds the time that a round waits for its members.
func (h *hub) run(armed <-chan struct{}, limit time.Duration) {
	defer h.endRounds()
	for range signals {
		select {
		case <-armed:
		case <-h.ctx.Done():
			return
		}
	}
	close(h.ready)
	for {
		select {
		case <-h.changed:
		case <-h.ctx.Done():
			return
		}
		began := time.Now()
		n := h.beginRound()
		if n > 0 {
			h.awaitReads(limit)
		}
		// The rest lets Consul's servers answer other requests, where many programs
		// use many services.
		if sleep(h.ctx, max(time.Since(began), time.Duration(n)*time.Millisecond)) != nil {
			return
		}
	}
}

// beginRound wakes the members that wait, and returns how many members read.
func (h *hub) beginRound() (reading int) {
	select {
	case <-h.allRead: // of an earlier round
	default:
	}
	r := &h.rounds
	r.mu.Lock()
	defer r.mu.Unlock()
	r.number++
	r.reading += r.waiting
	r.waiting = 0
	close(r.next)
	r.next = make(chan struct{})
	return r.reading
}

// awaitReads waits until the members have read, or until limit has passed.
func (h *hub) awaitReads(limit time.Duration) {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-h.allRead:
	case <-t.C:
	case <-h.ctx.Done():
	}
}

func (h *hub) endRounds() {
	h.rounds.mu.Lock()
	defer h.rounds.mu.Unlock()
	close(h.rounds.next)
}

// memberHasRead notes that a member has read in the present round.
func (h *hub) memberHasRead() {
	h.rounds.mu.Lock()
	defer h.rounds.mu.Unlock()
	if h.rounds.reading--; h.rounds.reading == 0 {
		select {
		case h.allRead <- struct{}{}:
		default:
		}
	}
}

// moment is a moment after which a hub has noticed all changes. The zero moment means
// that no hub has.
type moment struct {
	hub   *hub
	round int
}

// hubMoment returns the present moment of the hub, and the zero moment if no hub is
// ready. A member of the same hub need not repeat a read that was made after the
// moment.
func (s *Store) hubMoment() moment {
	h := s.currentHub()
	if h == nil {
		return moment{}
	}
	select {
	case <-h.ready:
		return h.moment()
	default:
		return moment{}
	}
}

func (s *Store) currentHub() *hub {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	return s.shared.hub
}

func (h *hub) moment() moment {
	h.rounds.mu.Lock()
	defer h.rounds.mu.Unlock()
	return moment{h, h.rounds.number}
}
