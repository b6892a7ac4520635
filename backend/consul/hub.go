package consul

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// hub is what tells the watches that have no blocking query of their own, and
// the lists of services, that something has changed. It is there while one of
// them is. Its queries cover whatever an endpoint is made of: services, checks
// and the nodes' addresses.
type hub struct {
	ctx    context.Context // done when a query has failed, or nobody is left
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	refs int // guarded by Store.mu

	poked chan struct{} // capacity 1: holds a token when something has changed
	ready chan struct{} // closed when changes are noticed
	calm  chan struct{} // capacity 1: holds a token when reading has become 0

	mu      sync.Mutex
	round   int
	next    chan struct{} // closed, and replaced, when a round begins; only closed when there will be none
	waiting int           // members that wait for the next round
	reading int           // members that have not ended the present round
}

// signals are the queries, with filters that leave nothing of the answers.
var signals = [][2]string{
	{"/v1/catalog/services", `ServiceName == ""`},
	{"/v1/catalog/nodes", `Node == ""`},
	{"/v1/health/state/any", `Status == ""`},
}

// join returns the hub. The caller leaves it.
func (s *Store) join() *hub {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hub == nil || s.hub.ctx.Err() != nil {
		h := &hub{
			poked: make(chan struct{}, 1),
			ready: make(chan struct{}),
			calm:  make(chan struct{}, 1),
			next:  make(chan struct{}),
		}
		h.ctx, h.cancel = context.WithCancelCause(context.Background())
		var armed sync.WaitGroup
		for _, signal := range signals {
			armed.Add(1)
			h.wg.Go(func() { s.listen(h, signal[0], signal[1], armed.Done) })
		}
		h.wg.Go(func() { armed.Wait(); close(h.ready); h.beat(s.SilenceBound()) })
		s.hub = h
	}
	s.hub.refs++
	return s.hub
}

// drop gives up what join returned. The last one ends the hub.
func (s *Store) drop(h *hub) {
	s.mu.Lock()
	h.refs--
	last := h.refs == 0
	if last && s.hub == h {
		s.hub = nil
	}
	s.mu.Unlock()
	if last {
		h.cancel(context.Canceled)
		h.wg.Wait()
	}
}

// listen pokes the hub at each change of an index. It calls armed when it
// notices changes, or never will.
func (s *Store) listen(h *hub, path, nothing string, armed func()) {
	armed = sync.OnceFunc(armed)
	defer armed()
	select {
	case s.shared <- struct{}{}:
	case <-h.ctx.Done():
		return
	}
	var asked time.Time // when the question that has no answer yet is over
	defer func() { release(s.shared, asked) }()
	b := bucket{every: time.Second / 10, burst: 20}
	first, answered := true, time.Now()
	for index := uint64(0); ; {
		if sleep(h.ctx, b.take(time.Now())) != nil {
			return
		}
		q := s.waiting(index)
		if index == 0 {
			q = s.fresh()
		}
		q.Filter = nothing
		q.NodeMeta = nil
		var ignored any
		var next uint64
		asked = over(q)
		err := s.bounded(h.ctx, func(ctx context.Context) error {
			meta, err := s.fetch(ctx, path, &ignored, q) // its slot lets it in
			if err == nil {
				next = max(meta.LastIndex, 1)
			}
			return err
		})
		if h.ctx.Err() == nil {
			asked = time.Time{}
		}
		if s.refused(err) && time.Since(answered) < s.SilenceBound() {
			if sleep(h.ctx, time.Second/2+rand.N(time.Second)) != nil {
				return
			}
			index = 0 // whatever has changed meanwhile
			continue
		}
		if err != nil {
			h.cancel(err)
			return
		}
		answered = time.Now()
		switch {
		case first:
			first = false
			armed()
		case next != index:
			h.poke()
		}
		if next < index {
			next = 0 // and read anew, which is a change again
		}
		index = next
	}
}

func (h *hub) poke() {
	select {
	case h.poked <- struct{}{}:
	default:
	}
}

// beat begins a round when something has changed, and then rests for as long as
// it took, or a millisecond for each that has read: where many programs use many
// services, Consul's servers are to answer something else, too.
func (h *hub) beat(limit time.Duration) {
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		close(h.next)
	}()
	for {
		select {
		case <-h.poked:
		case <-h.ctx.Done():
			return
		}
		began := time.Now()
		select {
		case <-h.calm:
		default:
		}
		h.mu.Lock()
		h.round++
		h.reading += h.waiting
		n := h.reading
		h.waiting = 0
		close(h.next)
		h.next = make(chan struct{})
		h.mu.Unlock()
		if n > 0 {
			t := time.NewTimer(limit)
			select {
			case <-h.calm:
			case <-t.C:
			case <-h.ctx.Done():
			}
			t.Stop()
		}
		if sleep(h.ctx, max(time.Since(began), time.Duration(n)*time.Millisecond)) != nil {
			return
		}
	}
}

// done says that a member has read.
func (h *hub) done() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.read()
}

// read is done with h.mu held.
func (h *hub) read() {
	if h.reading--; h.reading == 0 {
		select {
		case h.calm <- struct{}{}:
		default:
		}
	}
}

// mark is a moment from which on a hub has noticed all changes. The zero mark is
// none.
type mark struct {
	hub   *hub
	round int
}

// mark returns the present moment, none if there is no hub that is ready. What is
// asked after it needs not be asked again by a member of the same hub.
func (s *Store) mark() mark {
	s.mu.Lock()
	h := s.hub
	s.mu.Unlock()
	if h == nil {
		return mark{}
	}
	select {
	case <-h.ready:
		return h.mark()
	default:
		return mark{}
	}
}

func (h *hub) mark() mark {
	h.mu.Lock()
	defer h.mu.Unlock()
	return mark{h, h.round}
}

// follower reads something whenever it may have changed.
//
// A program may have thousands, each in a goroutine that nearly always waits. The
// runtime shrinks the stack of such a goroutine to what it needs, so that is kept
// small: what lasts is here, and what is done before or after waiting is in
// methods that have returned by then.
type follower struct {
	store *Store
	ctx   context.Context
	since mark // of what was read last
	// read is called when something may have changed, and then show, until
	// that returns false or read an error.
	read func() error
	show func() (more bool)

	hub     *hub
	next    <-chan struct{} // closed when the round begins that it waits for, or the hub ends; nil if that has begun
	counted bool            // the hub is to be told when it has read
	err     error
}

// follow returns nil when show returned false.
func (f *follower) follow() error {
	f.hub = f.store.join()
	defer f.store.drop(f.hub)
	for more := f.begin(); more; more = f.step() {
		f.wait()
	}
	return f.err
}

// begin waits until the hub notices changes. What has changed before is read now.
func (f *follower) begin() (more bool) {
	h := f.hub
	select {
	case <-h.ready:
	case <-h.ctx.Done():
		f.err = context.Cause(h.ctx)
		return false
	case <-f.ctx.Done():
		f.err = f.ctx.Err()
		return false
	}
	missed := f.since.hub != h
	if missed {
		f.since = h.mark()
		return f.look()
	}
	f.expect()
	return true
}

// expect chooses what to wait for.
func (f *follower) expect() {
	h := f.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	f.next = nil
	if h.round == f.since.round {
		f.next = h.next
		h.waiting++
	}
}

func (f *follower) wait() {
	if f.next == nil {
		return
	}
	// Each case is some bytes for as long as it waits.
	select {
	case <-f.next:
	case <-f.ctx.Done():
	}
}

// step does what there is to do after waiting, and reports whether to go on.
func (f *follower) step() (more bool) {
	if f.err = f.begun(); f.err != nil {
		return false
	}
	return f.look()
}

// begun returns an error if no round has begun, and none will.
func (f *follower) begun() error {
	h := f.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if f.next != nil {
		select {
		case <-f.next:
			if h.round == f.since.round {
				return context.Cause(h.ctx)
			}
			f.counted = true
		default:
			h.waiting--
			return f.ctx.Err()
		}
	}
	f.since.round = h.round
	return nil
}

// look reads and shows, and reports whether to go on.
func (f *follower) look() (more bool) {
	f.err = f.read()
	if f.counted {
		f.hub.done() // now, as the loop of a sequence may take its time
		f.counted = false
	}
	if f.err != nil || !f.show() {
		return false
	}
	f.expect()
	return true
}
