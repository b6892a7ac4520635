package consul

import (
	"context"
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
	next    chan struct{} // closed, and replaced, when a round begins
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
	first := true
	for index := uint64(0); ; first = false {
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
		if err != nil {
			h.cancel(err)
			return
		}
		switch {
		case first:
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

// await waits for a round after the one given, and returns it. counted says that
// done is to be called afterwards.
func (h *hub) await(ctx context.Context, after int) (round int, counted bool, err error) {
	h.mu.Lock()
	if h.round != after {
		defer h.mu.Unlock()
		return h.round, false, nil
	}
	next := h.next
	h.waiting++
	h.mu.Unlock()
	select {
	case <-next:
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.round, true, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-h.ctx.Done():
		err = context.Cause(h.ctx)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-next:
		h.read()
	default:
		h.waiting--
	}
	return 0, false, err
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

// follow calls read whenever something may have changed since a mark, and then
// show, until that returns false or read an error.
func (s *Store) follow(ctx context.Context, since mark, read func() error, show func() (more bool)) error {
	h := s.join()
	defer s.drop(h)
	select {
	case <-h.ready:
	case <-h.ctx.Done():
		return context.Cause(h.ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
	missed := since.hub != h // what has changed before the hub was ready is read now
	if missed {
		since = h.mark()
	}
	for counted := false; ; {
		var err error
		if !missed {
			if since.round, counted, err = h.await(ctx, since.round); err != nil {
				return err
			}
		}
		missed = false
		err = read()
		if counted {
			h.done() // now, as the loop of a sequence may take its time
		}
		if err != nil {
			return err
		}
		if !show() {
			return nil
		}
	}
}
