package etcd

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
)

// link is what all watches of a Store are on, and what listens for signs of life
// there. It is there while a watch is, and when it has failed, a new watch makes
// a new one.
type link struct {
	store *Store
	// watcher is the user's, if the client's own was replaced by it. Else the
	// watches are on stream.
	watcher clientv3.Watcher
	stream
	md     metadata.MD     // of the stream
	ctx    context.Context // done when the link has failed or its last user has left
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	refs int // guarded by Store.mu

	began time.Time
	// heard is when the stream last showed that it lives, since began.
	heard atomic.Int64
	// need is the revision that an answer must have to end the silence. A
	// server that has not come as far as a watch starts, or as was heard, is
	// behind, and will catch up, or it is another one, and will not.
	need atomic.Int64
	key  atomic.Value // string: where a watch is permitted
}

var links atomic.Int64 // tells the streams of one client apart

// join returns the link for a new watch. The caller leaves it.
func (s *Store) join() *link {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		s.link = s.newLink()
	}
	s.link.refs++
	return s.link
}

func (s *Store) newLink() *link {
	l := &link{store: s, began: time.Now()}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	// Without a leader the stream ends, rather than to fall silent.
	l.md = metadata.Pairs(rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
	if conn := s.ownConn(s.client.Watcher, watcherType); conn != nil {
		l.todo, l.watches = make(chan struct{}, 1), make(map[int64]*watch)
		l.wg.Go(func() { l.receive(conn) })
	} else {
		l.watcher = s.client.Watcher
		// The client puts those watches on one stream whose contexts have the
		// same metadata.
		l.md.Set("naming-stream", fmt.Sprint(links.Add(1)))
	}
	l.wg.Go(l.listen)
	return l
}

// leave gives up what join returned. The last one ends the link.
func (s *Store) leave(l *link) {
	s.mu.Lock()
	l.refs--
	last := l.refs == 0
	if last && s.link == l {
		s.link = nil
	}
	s.mu.Unlock()
	if last {
		l.cancel(context.Canceled)
		l.wg.Wait()
	}
}

// retire makes sure that no new watch joins l.
func (s *Store) retire(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == l {
		s.link = nil
	}
}

// fail ends the link, and so all watches on it, with err.
func (l *link) fail(err error) {
	l.store.retire(l)
	l.cancel(err)
	l.wakeAll()
}

// failure returns what the link failed of, nil if it has not.
func (l *link) failure() error {
	if l.ctx.Err() == nil {
		return nil
	}
	return context.Cause(l.ctx)
}

// begin notes that a watch begins after a revision.
func (l *link) begin(dir string, rev int64) {
	l.key.Store(dir)
	l.reach(rev)
}

// reach raises need.
func (l *link) reach(rev int64) {
	for need := l.need.Load(); need < rev && !l.need.CompareAndSwap(need, rev); need = l.need.Load() {
	}
}

// hear notes an answer. Those on one stream are not in the order of their
// revisions.
func (l *link) hear(rev int64) {
	if rev >= l.need.Load() {
		l.heard.Store(int64(time.Since(l.began)))
		l.reach(rev)
	}
}

// listen probes the server after half of the bound of silence. It fails the link
// when the bound is over, or when the answer that a watch waits for is overdue.
func (l *link) listen() {
	bound := l.store.bound
	t := time.NewTimer(bound / 2)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-l.ctx.Done():
			return
		}
		if err := l.overdue(bound * 3 / 4); err != nil {
			l.fail(err)
			return
		}
		silence := time.Since(l.began) - time.Duration(l.heard.Load())
		switch {
		case silence >= bound:
			l.fail(fmt.Errorf("%w of %v", errSilent, bound))
			return
		case silence >= bound/2:
			l.probe(bound / 8)
			t.Reset(min(bound/8, bound-silence))
		default:
			t.Reset(min(bound/2-silence, bound/4))
		}
	}
}

// probe makes the server answer: it makes a watch and cancels it. A progress request
// would cost less. But releases before 3.4.25 and 3.5.8 may report progress that the
// watches have not made, and later releases answer only after a change since the
// last watch began.
func (l *link) probe(limit time.Duration) {
	key, _ := l.key.Load().(string)
	if l.watcher == nil {
		l.askProbe(key)
		return
	}
	ctx, cancel := context.WithTimeout(l.context(l.ctx), limit)
	defer cancel()
	r, ok := <-l.watcher.Watch(ctx, key, clientv3.WithCreatedNotify())
	if ok && r.Created {
		l.hear(r.Header.GetRevision())
	}
}

// context returns ctx with what leads to the link's stream.
func (l *link) context(ctx context.Context) context.Context {
	return metadata.NewOutgoingContext(ctx, l.md)
}
