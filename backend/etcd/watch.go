package etcd

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
)

// Watch implements [naming.Store]. Its bound for a registry that fell silent is
// Options.SilenceBound.
func (s *Store) Watch(ctx context.Context, service string) iter.Seq2[naming.Batch, error] {
	return func(yield func(naming.Batch, error) bool) {
		err := naming.CheckService(service)
		if err == nil {
			err = s.watch(ctx, service, yield)
			if err != nil {
				err = s.wrap(ctx, service, err)
			}
		}
		if err != nil {
			yield(naming.Batch{}, err)
		}
	}
}

// watch returns nil when yield returned false.
func (s *Store) watch(ctx context.Context, service string, yield func(naming.Batch, error) bool) error {
	f, err := s.begin(ctx, service, yield)
	if f == nil {
		return err
	}
	return f.follow()
}

// begin yields the snapshot, and returns what follows it; nil if nothing does.
func (s *Store) begin(ctx context.Context, service string, yield func(naming.Batch, error) bool) (*follower, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	v := &view{store: s, service: service, dir: s.layout.dir(service)}
	at, err := s.read(ctx, v.dir, false, v.start, v.put)
	if err != nil || !yield(v.snapshot(), nil) {
		return nil, err
	}
	return &follower{store: s, ctx: ctx, dir: v.dir, from: at, visit: func(events []*clientv3.Event) (bool, error) {
		b := v.batch(events)
		if v.n > naming.MaxEndpoints || len(v.odd) > naming.MaxEndpoints {
			return false, errEndpoints
		}
		return len(b.Put) == 0 && len(b.Deleted) == 0 || yield(b, nil), nil
	}}, nil
}

// view makes batches of the entries of a service.
type view struct {
	store   *Store
	service string
	dir     string
	first   []naming.Endpoint
	n       int // of entries, but for those of odd after the snapshot
	// odd are the endpoints whose IDs cannot be told from their keys alone, by
	// tail; nil if there is none.
	odd map[string]oddEndpoint
}

type oddEndpoint struct {
	naming.Endpoint
	rev int64
}

// start begins a snapshot of about n entries.
func (v *view) start(n int) {
	v.first = make([]naming.Endpoint, 0, n)
	v.n = 0
	v.odd = nil
}

// put adds an entry to the snapshot.
func (v *view) put(kv *mvccpb.KeyValue) error {
	tail := string(kv.Key[len(v.dir):])
	e, _, mine, err := v.store.layout.entry(v.service, tail, kv.Value)
	e.Unleased = kv.Lease == 0
	switch {
	case !mine:
		return nil
	case err != nil:
		v.malformed(kv, err)
	case !v.store.layout.sure(tail):
		v.keep(tail, e, kv.ModRevision)
	default:
		v.first = append(v.first, e)
	}
	if v.n++; v.n > naming.MaxEndpoints {
		return errEndpoints
	}
	return nil
}

func (v *view) malformed(kv *mvccpb.KeyValue, err error) {
	v.store.report(&naming.MalformedError{Service: v.service, Key: string(kv.Key), Err: err})
}

func (v *view) keep(tail string, e naming.Endpoint, rev int64) {
	if v.odd == nil {
		v.odd = make(map[string]oddEndpoint)
	}
	v.odd[tail] = oddEndpoint{e, rev}
}

// snapshot returns the snapshot that was begun with start.
func (v *view) snapshot() naming.Batch {
	b := naming.Batch{Snapshot: true, Put: v.first}
	v.first = nil
	for tail, e := range v.odd {
		if other, ok := v.twin(tail, e.ID); !ok || other.rev < e.rev || other.rev == e.rev && tail != e.ID {
			b.Put = append(b.Put, e.Endpoint)
		}
	}
	return b
}

// twin returns the endpoint of the same ID that is under another key: one that
// the Store put and one that a program on the old package's API did. The one
// that was put last counts, and the other if that is gone.
func (v *view) twin(tail, id string) (oddEndpoint, bool) {
	other := id
	if tail == id {
		other = escape(id)
	}
	e, ok := v.odd[other]
	return e, ok && other != tail && e.ID == id
}

// batch returns what events come to.
func (v *view) batch(events []*clientv3.Event) naming.Batch {
	var b naming.Batch
	if len(events) == 1 {
		v.event(events[0], func(id string, e *naming.Endpoint) { add(&b, id, e) })
		return b
	}
	net := make(map[string]*naming.Endpoint, len(events))
	for _, ev := range events {
		v.event(ev, func(id string, e *naming.Endpoint) { net[id] = e })
	}
	for id, e := range net {
		add(&b, id, e)
	}
	return b
}

// event calls set with the ID that an event is about and what the endpoint has
// become, nil if it is gone: not at all if the event is none of the service's,
// and twice if the key stands for another ID now.
func (v *view) event(ev *clientv3.Event, set func(id string, e *naming.Endpoint)) {
	tail := string(ev.Kv.Key[len(v.dir):])
	var now *naming.Endpoint
	if ev.Type != clientv3.EventTypeDelete {
		e, _, mine, err := v.store.layout.entry(v.service, tail, ev.Kv.Value)
		e.Unleased = ev.Kv.Lease == 0
		switch {
		case mine && err == nil:
			now = &e
		case mine:
			v.malformed(ev.Kv, err)
		}
		if mine && ev.IsCreate() && !odd(tail) {
			v.n++
		}
	} else if v.n > 0 && !odd(tail) {
		v.n--
	}
	if v.store.layout.sure(tail) {
		if id, mine := v.store.layout.identify(v.service, tail); mine {
			set(id, now)
		}
		return
	}
	was, had := v.odd[tail]
	if now != nil {
		v.keep(tail, *now, ev.Kv.ModRevision)
		set(now.ID, now)
	} else {
		delete(v.odd, tail)
	}
	if had && (now == nil || now.ID != was.ID) {
		if other, ok := v.twin(tail, was.ID); ok {
			set(was.ID, &other.Endpoint)
		} else {
			set(was.ID, nil)
		}
	}
}

func add(b *naming.Batch, id string, e *naming.Endpoint) {
	if e != nil {
		b.Put = append(b.Put, *e)
	} else {
		b.Deleted = append(b.Deleted, id)
	}
}

// Services implements [naming.Store]. It reads the keys of all entries, not
// their values, once, and has one watch of them. So an entry that cannot be
// understood counts: a service that has no others is listed. A key that is not
// made like an entry's, with a service's name, a slash and an ID, is nobody's.
//
// Without Options.Prefix, or a Codec with a Root, it looks at the whole
// registry, other programs' keys too.
func (s *Store) Services(ctx context.Context) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		if err := s.services(ctx, yield); err != nil {
			yield(nil, fmt.Errorf("etcd: services: %w", s.describe(ctx, needs(err, "read", "the keys that begin with %q", s.layout.prefix))))
		}
	}
}

// services returns nil when yield returned false.
func (s *Store) services(ctx context.Context, yield func([]string, error) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var (
		dir    = s.layout.prefix
		count  map[string]int    // of entries, by service
		unsure map[string]string // the service of each key that does not tell
		doubts []string          // such keys, of the snapshot
	)
	at, err := s.read(ctx, dir, true, func(int) {
		count, unsure, doubts = make(map[string]int), make(map[string]string), nil
	}, func(kv *mvccpb.KeyValue) error {
		switch service, _, doubt, ok := s.layout.split(string(kv.Key)); {
		case doubt:
			doubts = append(doubts, string(kv.Key))
		case ok:
			count[service]++
		}
		if len(count) > naming.MaxServices || len(doubts) > naming.MaxEndpoints {
			return errServices
		}
		return nil
	})
	if err != nil {
		return err
	}
	for most := MaxTxnOps; len(doubts) > 0; {
		keys := doubts[:min(most, len(doubts))]
		gets := make([]clientv3.Op, len(keys))
		for i, key := range keys {
			gets[i] = clientv3.OpGet(key, clientv3.WithRev(at.at))
		}
		resp, err := s.do(ctx, clientv3.OpTxn(nil, gets, nil))
		if err != nil && errors.Is(typed(err), rpctypes.ErrTooManyOps) && len(keys) > 1 {
			most = len(keys) / 2 // the server has a limit of its own
			continue
		}
		if err != nil {
			return err
		}
		doubts = doubts[len(keys):]
		for _, r := range resp.Txn().Responses {
			for _, kv := range r.GetResponseRange().GetKvs() {
				key := string(kv.GetKey())
				if !slices.Contains(keys, key) {
					return fmt.Errorf("%w: the key %q", errAnswer, naming.SafeText(key))
				}
				if service, ok := s.layout.owner(key, kv.Value); ok {
					count[service]++
					unsure[key] = service
				}
			}
		}
	}
	last := slices.Sorted(maps.Keys(count))
	if !yield(slices.Clone(last), nil) {
		return nil
	}
	lose := func(service string) {
		if count[service]--; count[service] <= 0 {
			delete(count, service)
		}
	}
	f := &follower{store: s, ctx: ctx, dir: dir, from: at, visit: func(events []*clientv3.Event) (bool, error) {
		before := len(count)
		changed := false
		for _, ev := range events {
			key := string(ev.Kv.Key)
			service, _, doubt, ok := s.layout.split(key)
			deleted := ev.Type == clientv3.EventTypeDelete
			switch {
			case !ok:
			case doubt:
				if was, ok := unsure[key]; ok {
					lose(was)
					delete(unsure, key)
				}
				if !deleted {
					if service, ok := s.layout.owner(key, ev.Kv.Value); ok {
						count[service]++
						unsure[key] = service
					}
				}
				changed = true
			case deleted:
				lose(service)
			case ev.IsCreate():
				count[service]++
				changed = changed || count[service] == 1
			}
		}
		if len(count) > naming.MaxServices || len(unsure) > naming.MaxEndpoints {
			return false, errServices
		}
		if !changed && len(count) == before {
			return true, nil
		}
		names := slices.Sorted(maps.Keys(count))
		if slices.Equal(names, last) {
			return true, nil
		}
		last = names
		return yield(slices.Clone(names), nil), nil
	}}
	return f.follow()
}
