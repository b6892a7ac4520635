package etcd

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
)

// watcherTransport is a Watcher that the user put into the client: one with a namespace,
// or an embedded server's.
type watcherTransport struct {
	link    *link
	watcher clientv3.Watcher
	md      metadata.MD // of the stream
}

var watcherStreams atomic.Int64 // numbers the streams of the program's clients

func newWatcherTransport(l *link, w clientv3.Watcher) *watcherTransport {
	t := &watcherTransport{link: l, watcher: w, md: requireLeader()}
	// The client puts watches on one stream whose contexts have the same metadata.
	t.md.Set("naming-stream", fmt.Sprint(watcherStreams.Add(1)))
	return t
}

func (t *watcherTransport) subscribe(ctx context.Context, dir string, after position) subscription {
	s := &watcherSubscription{transport: t, dir: dir, from: after.revision + 1, feed: feed{cluster: after.cluster}}
	s.ctx, s.stop = context.WithCancel(metadata.NewOutgoingContext(ctx, t.md))
	s.unlink = context.AfterFunc(t.link.ctx, s.stop)
	return s
}

func (t *watcherTransport) probe(dir string, limit time.Duration) {
	ctx, cancel := context.WithTimeout(metadata.NewOutgoingContext(t.link.ctx, t.md), limit)
	defer cancel()
	r, ok := <-t.watcher.Watch(ctx, dir, clientv3.WithCreatedNotify())
	if ok && r.Created {
		t.link.hear(r.Header.GetRevision())
	}
}

// overdue returns nil: the client resumes watches by itself.
func (t *watcherTransport) overdue(time.Duration) error { return nil }

// wakeAll does nothing: the context of each subscription ends with the link's.
func (t *watcherTransport) wakeAll() {}

// watcherSubscription is a watch of the user's Watcher.
type watcherSubscription struct {
	transport *watcherTransport
	dir       string
	from      int64
	ctx       context.Context
	stop      context.CancelFunc
	unlink    func() bool
	answers   clientv3.WatchChan // nil before the first await
	feed
}

func (s *watcherSubscription) await(context.Context) {
	if s.answers == nil {
		// The client resumes the watch at the last revision that it heard of. Progress
		// notifications raise that revision: it must not be compacted meanwhile.
		s.answers = s.transport.watcher.Watch(s.ctx, s.dir, clientv3.WithPrefix(), clientv3.WithRev(s.from), clientv3.WithProgressNotify())
	}
	select {
	case r, open := <-s.answers:
		s.receive(&r, open)
	case <-s.ctx.Done():
		s.fail(errClosed)
	}
}

// receive puts a response into the feed. A closed channel has no response.
func (s *watcherSubscription) receive(r *clientv3.WatchResponse, open bool) {
	if !open {
		s.fail(errClosed)
		return
	}
	a := watcherAnswer(r)
	if a.ended != nil {
		s.fail(a.ended)
		return
	}
	s.transport.link.hear(r.Header.GetRevision())
	s.put(a)
}

// fail ends the subscription with err. If the link has failed, its error is the reason.
func (s *watcherSubscription) fail(err error) {
	if failure := s.transport.link.failure(); failure != nil {
		err = failure
	}
	s.put(answer{ended: err})
}

func (s *watcherSubscription) takeEvents() ([]*clientv3.Event, error) { return s.take() }

func (s *watcherSubscription) cancel() {
	s.unlink()
	s.stop()
}
