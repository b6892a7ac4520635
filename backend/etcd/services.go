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

// Services implements [naming.Store]. It reads the keys of all entries once, without
// their values, and then has one watch of them. So an entry that cannot be understood
// counts: a service that has no other entry is listed. A key that has not the shape of an
// entry's, a service's name, a slash and an ID, belongs to no service.
//
// Without Options.Prefix, or a Codec with a Root, Services looks at the whole registry,
// the keys of other programs included.
func (s *Store) Services(ctx context.Context) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		if err := s.watchServices(ctx, yield); err != nil {
			yield(nil, fmt.Errorf("etcd: services: %w", s.describe(ctx, needs(err, "read", "the keys that begin with %q", s.layout.prefix))))
		}
	}
}

// watchServices returns nil when yield returned false.
func (s *Store) watchServices(ctx context.Context, yield func([]string, error) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	list := &serviceList{layout: &s.layout}
	from, err := s.readEntries(ctx, s.layout.prefix, true, list.start, list.addKey)
	if err == nil {
		err = s.readDoubtful(ctx, list, from.revision)
	}
	if err != nil {
		return err
	}
	list.refresh()
	if !yield(slices.Clone(list.names), nil) {
		return nil
	}
	return s.newChangeLoop(ctx, s.layout.prefix, from, func(events []*clientv3.Event) (bool, error) {
		affected := list.apply(events)
		if list.tooLarge() {
			return false, errServices
		}
		return !affected || !list.refresh() || yield(slices.Clone(list.names), nil), nil
	}).run()
}

// readDoubtful reads the values of the doubtful keys at the revision of the snapshot, and
// adds their services to the list.
func (s *Store) readDoubtful(ctx context.Context, list *serviceList, rev int64) error {
	for most := MaxTxnOps; len(list.doubtful) > 0; {
		keys := list.doubtful[:min(most, len(list.doubtful))]
		gets := make([]clientv3.Op, len(keys))
		for i, key := range keys {
			gets[i] = clientv3.OpGet(key, clientv3.WithRev(rev))
		}
		resp, err := s.do(ctx, clientv3.OpTxn(nil, gets, nil))
		if err != nil && errors.Is(typed(err), rpctypes.ErrTooManyOps) && len(keys) > 1 {
			most = len(keys) / 2 // the server has a limit of its own
			continue
		}
		if err != nil {
			return err
		}
		list.doubtful = list.doubtful[len(keys):]
		for _, r := range resp.Txn().Responses {
			for _, kv := range r.GetResponseRange().GetKvs() {
				key := string(kv.GetKey())
				if !slices.Contains(keys, key) {
					return fmt.Errorf("%w: the key %q", errAnswer, naming.SafeText(key))
				}
				list.setOwner(key, kv.Value)
			}
		}
	}
	return nil
}

// serviceList counts the entries of each service.
type serviceList struct {
	layout   *layout
	count    map[string]int    // of entries, by service
	owners   map[string]string // the service of each key whose value names it
	doubtful []string          // such keys of the snapshot, not read yet
	names    []string          // the services at the last refresh, sorted
}

// start begins a snapshot.
func (l *serviceList) start(int) {
	l.count, l.owners, l.doubtful = make(map[string]int), make(map[string]string), nil
}

// addKey adds an entry of the snapshot, of which only the key is known.
func (l *serviceList) addKey(kv *mvccpb.KeyValue) error {
	switch service, _, doubtful, ok := l.layout.split(string(kv.Key)); {
	case doubtful:
		l.doubtful = append(l.doubtful, string(kv.Key))
	case ok:
		l.count[service]++
	}
	if l.tooLarge() {
		return errServices
	}
	return nil
}

func (l *serviceList) tooLarge() bool {
	return len(l.count) > naming.MaxServices || len(l.doubtful) > naming.MaxEndpoints || len(l.owners) > naming.MaxEndpoints
}

// refresh updates names, and reports whether they have changed.
func (l *serviceList) refresh() bool {
	names := slices.Sorted(maps.Keys(l.count))
	changed := !slices.Equal(names, l.names)
	l.names = names
	return changed
}

// setOwner counts a doubtful key for the service that its value names.
func (l *serviceList) setOwner(key string, value []byte) {
	if service, ok := l.layout.owner(key, value); ok {
		l.count[service]++
		l.owners[key] = service
	}
}

// subtract counts one entry of a service less.
func (l *serviceList) subtract(service string) {
	if l.count[service]--; l.count[service] <= 0 {
		delete(l.count, service)
	}
}

// apply applies events, and reports whether the set of services may have changed.
func (l *serviceList) apply(events []*clientv3.Event) (affected bool) {
	before := len(l.count)
	for _, ev := range events {
		key := string(ev.Kv.Key)
		service, _, doubtful, ok := l.layout.split(key)
		deleted := ev.Type == clientv3.EventTypeDelete
		switch {
		case !ok:
		case doubtful:
			l.applyDoubtful(key, ev.Kv.Value, deleted)
			affected = true
		case deleted:
			l.subtract(service)
		case ev.IsCreate():
			l.count[service]++
			affected = affected || l.count[service] == 1
		}
	}
	return affected || len(l.count) != before
}

// applyDoubtful applies an event of a key whose value names the service.
func (l *serviceList) applyDoubtful(key string, value []byte, deleted bool) {
	if was, ok := l.owners[key]; ok {
		l.subtract(was)
		delete(l.owners, key)
	}
	if !deleted {
		l.setOwner(key, value)
	}
}
