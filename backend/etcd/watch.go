package etcd

import (
	"context"
	"iter"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
)

// Watch implements [naming.Store]. Its bound for a registry that fell silent is
// Options.SilenceBound.
func (s *Store) Watch(ctx context.Context, service string) iter.Seq2[naming.Batch, error] {
	return func(yield func(naming.Batch, error) bool) {
		err := naming.CheckService(service)
		if err == nil {
			err = s.watchService(ctx, service, yield)
			if err != nil {
				err = s.wrap(ctx, service, err)
			}
		}
		if err != nil {
			yield(naming.Batch{}, err)
		}
	}
}

// watchService returns nil when yield returned false.
func (s *Store) watchService(ctx context.Context, service string, yield func(naming.Batch, error) bool) error {
	c, err := s.yieldSnapshot(ctx, service, yield)
	if c == nil {
		return err
	}
	return c.run()
}

// yieldSnapshot reads and yields the snapshot. It returns the loop that delivers the
// changes, and nil if there is an error or yield returned false. It is a function of its
// own to keep the stack of the waiting goroutine small: see changeLoop.
func (s *Store) yieldSnapshot(ctx context.Context, service string, yield func(naming.Batch, error) bool) (*changeLoop, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	set := &entrySet{store: s, service: service, dir: s.layout.dir(service)}
	from, err := s.readEntries(ctx, set.dir, false, set.start, set.add)
	if err != nil || !yield(set.snapshot(), nil) {
		return nil, err
	}
	return s.newChangeLoop(ctx, set.dir, from, func(events []*clientv3.Event) (bool, error) {
		b := set.apply(events)
		if set.n > naming.MaxEndpoints || len(set.odd) > naming.MaxEndpoints {
			return false, errEndpoints
		}
		return len(b.Put) == 0 && len(b.Deleted) == 0 || yield(b, nil), nil
	}), nil
}

// entrySet makes batches of the entries of a service. It keeps the endpoints that events
// alone do not determine, and the number of the others.
type entrySet struct {
	store   *Store
	service string
	dir     string
	first   []naming.Endpoint // of the snapshot
	n       int               // entries; after the snapshot, without those of odd
	// odd are the endpoints whose keys alone do not determine their IDs, by tail. It
	// is nil if there are no such endpoints.
	odd map[string]oddEndpoint
}

type oddEndpoint struct {
	naming.Endpoint
	rev int64
}

// start begins a snapshot of about n entries.
func (s *entrySet) start(n int) {
	s.first = make([]naming.Endpoint, 0, n)
	s.n = 0
	s.odd = nil
}

// add adds an entry to the snapshot.
func (s *entrySet) add(kv *mvccpb.KeyValue) error {
	tail := string(kv.Key[len(s.dir):])
	e, mine, err := s.decode(tail, kv)
	switch {
	case !mine:
		return nil
	case err != nil:
	case !s.store.layout.sure(tail):
		s.setOdd(tail, e, kv.ModRevision)
	default:
		s.first = append(s.first, e)
	}
	if s.n++; s.n > naming.MaxEndpoints {
		return errEndpoints
	}
	return nil
}

// decode returns the endpoint of an entry and whether the entry belongs to the service.
// It reports an entry that is malformed.
func (s *entrySet) decode(tail string, kv *mvccpb.KeyValue) (e naming.Endpoint, mine bool, err error) {
	e, _, mine, err = s.store.layout.entry(s.service, tail, kv.Value)
	e.Unleased = kv.Lease == 0
	if mine && err != nil {
		s.store.report(&naming.MalformedError{Service: s.service, Key: string(kv.Key), Err: err})
	}
	return e, mine, err
}

func (s *entrySet) setOdd(tail string, e naming.Endpoint, rev int64) {
	if s.odd == nil {
		s.odd = make(map[string]oddEndpoint)
	}
	s.odd[tail] = oddEndpoint{e, rev}
}

// snapshot returns the snapshot that start began.
func (s *entrySet) snapshot() naming.Batch {
	b := naming.Batch{Snapshot: true, Put: s.first}
	s.first = nil
	for tail, e := range s.odd {
		if other, ok := s.twin(tail, e.ID); !ok || other.rev < e.rev || other.rev == e.rev && tail != e.ID {
			b.Put = append(b.Put, e.Endpoint)
		}
	}
	return b
}

// twin returns the endpoint of the same ID under another key. One of the two was put by a
// Store and the other by a program on the old package's API. The endpoint that was put
// last counts, and the other one once that is gone.
func (s *entrySet) twin(tail, id string) (oddEndpoint, bool) {
	other := id
	if tail == id {
		other = escape(id)
	}
	e, ok := s.odd[other]
	return e, ok && other != tail && e.ID == id
}

// apply applies events to the set, and returns their net effect.
func (s *entrySet) apply(events []*clientv3.Event) naming.Batch {
	var b naming.Batch
	if len(events) == 1 {
		s.applyEvent(events[0], func(id string, e *naming.Endpoint) { addChange(&b, id, e) })
		return b
	}
	net := make(map[string]*naming.Endpoint, len(events))
	for _, ev := range events {
		s.applyEvent(ev, func(id string, e *naming.Endpoint) { net[id] = e })
	}
	for id, e := range net {
		addChange(&b, id, e)
	}
	return b
}

func addChange(b *naming.Batch, id string, e *naming.Endpoint) {
	if e != nil {
		b.Put = append(b.Put, *e)
	} else {
		b.Deleted = append(b.Deleted, id)
	}
}

// applyEvent calls set with the ID that an event is about and the new state of the
// endpoint, nil if the endpoint is gone. It does not call set if the event belongs to
// another service. It calls set twice if the key now stands for another ID.
func (s *entrySet) applyEvent(ev *clientv3.Event, set func(id string, e *naming.Endpoint)) {
	tail := string(ev.Kv.Key[len(s.dir):])
	now := s.decodeEvent(tail, ev)
	if !s.store.layout.sure(tail) {
		s.applyOdd(tail, now, ev.Kv.ModRevision, set)
	} else if id, mine := s.store.layout.identify(s.service, tail); mine {
		set(id, now)
	}
}

// decodeEvent returns the endpoint that an event puts, or nil if the endpoint cannot be
// used. It keeps n up to date.
func (s *entrySet) decodeEvent(tail string, ev *clientv3.Event) *naming.Endpoint {
	if ev.Type == clientv3.EventTypeDelete {
		if s.n > 0 && !odd(tail) {
			s.n--
		}
		return nil
	}
	e, mine, err := s.decode(tail, ev.Kv)
	if mine && ev.IsCreate() && !odd(tail) {
		s.n++
	}
	if !mine || err != nil {
		return nil
	}
	return &e
}

// applyOdd is applyEvent for a key whose value determines the ID.
func (s *entrySet) applyOdd(tail string, now *naming.Endpoint, rev int64, set func(id string, e *naming.Endpoint)) {
	was, had := s.odd[tail]
	if now != nil {
		s.setOdd(tail, *now, rev)
		set(now.ID, now)
	} else {
		delete(s.odd, tail)
	}
	if !had || now != nil && now.ID == was.ID {
		return
	}
	if other, ok := s.twin(tail, was.ID); ok {
		set(was.ID, &other.Endpoint)
	} else {
		set(was.ID, nil)
	}
}
