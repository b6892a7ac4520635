package etcd

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/metadata"
)

// link is what all watches of a Store share: one transport, and one goroutine that
// notices when the server falls silent. A link exists while there is a watch. When a link
// has failed, the next watch makes a new one.
type link struct {
	store     *Store
	transport transport
	ctx       context.Context // done when the link has failed or its last user has left
	cancel    context.CancelCauseFunc
	wg        sync.WaitGroup
	refs      int // guarded by Store.mu

	began time.Time
	// heard is when the server last answered, since began.
	heard atomic.Int64
	// need is the revision that an answer must have to end the silence. A server that
	// has not reached the revision at which a watch starts, or that was heard, is either
	// behind, and will catch up, or it is another server, and will not.
	need atomic.Int64
	key  atomic.Value // string: keys that begin with it may be watched
}

// joinLink returns the link for a new watch. The caller leaves it.
func (s *Store) joinLink() *link {
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
	if conn := s.ownConn(s.client.Watcher, watcherType); conn != nil {
		t := newStreamTransport(l)
		l.transport = t
		l.wg.Go(func() { t.serve(conn) })
	} else {
		l.transport = newWatcherTransport(l, s.client.Watcher)
	}
	l.wg.Go(l.guardSilence)
	return l
}

// requireLeader returns the metadata with which a stream ends when its member has no
// leader. Without the metadata the stream would fall silent.
func requireLeader() metadata.MD {
	return metadata.Pairs(rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
}

// leaveLink undoes joinLink. The last user ends the link.
func (s *Store) leaveLink(l *link) {
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
	l.transport.wakeAll()
}

// failure returns the error that the link failed with, and nil if it has not failed.
func (l *link) failure() error {
	if l.ctx.Err() == nil {
		return nil
	}
	return context.Cause(l.ctx)
}

// noteStart records that a watch of dir starts after a revision.
func (l *link) noteStart(dir string, rev int64) {
	l.key.Store(dir)
	l.raiseNeed(rev)
}

func (l *link) raiseNeed(rev int64) {
	for need := l.need.Load(); need < rev && !l.need.CompareAndSwap(need, rev); need = l.need.Load() {
	}
}

// hear records an answer. Answers on one stream are not in the order of their revisions.
func (l *link) hear(rev int64) {
	if rev >= l.need.Load() {
		l.heard.Store(int64(time.Since(l.began)))
		l.raiseNeed(rev)
	}
}

// guardSilence probes the server after half of the bound of silence. It fails the link
// when the bound is over, or when the answer that a watch waits for is overdue.
//
// The probe makes a watch and cancels it. A progress request would cost less. But
// releases before 3.4.25 and 3.5.8 may report progress that the watches have not made,
// and later releases answer only after a change since the last watch began.
func (l *link) guardSilence() {
	bound := l.store.bound
	t := time.NewTimer(bound / 2)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-l.ctx.Done():
			return
		}
		if err := l.transport.overdue(bound * 3 / 4); err != nil {
			l.fail(err)
			return
		}
		silence := time.Since(l.began) - time.Duration(l.heard.Load())
		switch {
		case silence >= bound:
			l.fail(fmt.Errorf("%w of %v", errSilent, bound))
			return
		case silence >= bound/2:
			key, _ := l.key.Load().(string)
			l.transport.probe(key, bound/8)
			t.Reset(min(bound/8, bound-silence))
		default:
			t.Reset(min(bound/2-silence, bound/4))
		}
	}
}
