package etcd

import (
	"context"
	"fmt"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// streamTransport is a gRPC stream of the Store's own, with all watches of a link on it.
// Two goroutines serve it, whatever the number of watches: one sends and one receives.
// The receiver must never block. The server may wait for it before it reads our requests,
// and both sides would deadlock.
//
// The client's own Watcher is not used, for two reasons. It resumes watches, which a
// Store does not want. And it costs a goroutine and some kilobytes for each watch, passes
// each answer through two more goroutines, and asks for a watch only when the watch
// before was answered.
type streamTransport struct {
	link   *link
	md     metadata.MD
	wakeup chan struct{} // capacity 1: has a token when there is something to send

	mu       sync.Mutex
	queue    []*streamSubscription         // guarded by mu: to be asked for
	asked    []*streamSubscription         // guarded by mu: asked for and not yet answered, in order
	active   map[int64]*streamSubscription // guarded by mu: created, by watch ID
	canceled []int64                       // guarded by mu: IDs of watches to cancel
	lastID   int64                         // guarded by mu
	probing  bool                          // guarded by mu: a probe was queued and not answered
	since    time.Time                     // guarded by mu: since when the head of asked, or queue, waits
	partials int                           // guarded by mu: how many subscriptions wait for the rest of a revision
	stray    int                           // guarded by mu: how many answers in a row were about no watch
	// echoes says that the server gives watches the IDs that we ask for, and answers in
	// the order of our requests, as etcd does. etcd's proxy does neither. Until an
	// answer has shown that the server does, we ask for one watch at a time. Guarded by
	// mu.
	echoes bool
}

// firstID is beyond the IDs that a server chooses by itself.
const firstID = 1 << 32

// maxStray is how many answers in a row may be about watches that do not exist. Some
// are: answers that were under way when their watch was canceled.
const maxStray = 1 << 16

// streamSubscription is one watch on the stream.
type streamSubscription struct {
	transport *streamTransport
	dir       string
	from      int64         // the first revision; 0: a probe, without a reader
	news      chan struct{} // capacity 1: has a token when there is something to take

	id   int64 // guarded by transport.mu
	feed       // guarded by transport.mu
	gone bool  // guarded by transport.mu: the reader has left
}

func newStreamTransport(l *link) *streamTransport {
	return &streamTransport{
		link: l, md: requireLeader(),
		wakeup: make(chan struct{}, 1), active: make(map[int64]*streamSubscription),
	}
}

func (t *streamTransport) subscribe(_ context.Context, dir string, after position) subscription {
	s := &streamSubscription{
		transport: t, dir: dir, from: after.revision + 1, news: make(chan struct{}, 1),
		feed: feed{cluster: after.cluster},
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.enqueueLocked(s)
	if t.link.failure() != nil {
		s.wake()
	}
	return s
}

// probe queues a watch that is canceled as soon as the server has answered it.
func (t *streamTransport) probe(dir string, _ time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.probing {
		t.probing = true
		t.enqueueLocked(&streamSubscription{transport: t, dir: dir})
	}
}

func (t *streamTransport) enqueueLocked(s *streamSubscription) {
	if len(t.queue)+len(t.asked) == 0 {
		t.since = time.Now()
	}
	t.queue = append(t.queue, s)
	t.wakeSender()
}

func (t *streamTransport) overdue(limit time.Duration) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue)+len(t.asked) > 0 && time.Since(t.since) >= limit {
		return fmt.Errorf("%w: a watch was asked for %v ago", errSilent, limit)
	}
	if t.partials == 0 {
		return nil
	}
	for _, s := range t.active {
		if s.partial && time.Since(s.since) >= limit {
			return fmt.Errorf("%w: the rest of a revision is missing for %v", errSilent, limit)
		}
	}
	return nil
}

func (t *streamTransport) wakeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.active {
		s.wake()
	}
	for _, list := range [][]*streamSubscription{t.asked, t.queue} {
		for _, s := range list {
			s.wake()
		}
	}
}

func (t *streamTransport) wakeSender() {
	select {
	case t.wakeup <- struct{}{}:
	default:
	}
}

func (s *streamSubscription) wake() {
	select {
	case s.news <- struct{}{}:
	default:
	}
}

func (s *streamSubscription) await(ctx context.Context) {
	select {
	case <-s.news:
	case <-ctx.Done():
	}
}

func (s *streamSubscription) takeEvents() ([]*clientv3.Event, error) {
	s.transport.mu.Lock()
	defer s.transport.mu.Unlock()
	events, err := s.take()
	if err == nil {
		err = s.transport.link.failure()
	}
	return events, err
}

func (s *streamSubscription) cancel() {
	s.transport.mu.Lock()
	defer s.transport.mu.Unlock()
	s.gone = true
	s.transport.updateFeedLocked(s, s.discard)
	s.transport.endLocked(s)
}

// updateFeedLocked calls f, which changes the feed of s, and keeps partials up to date.
func (t *streamTransport) updateFeedLocked(s *streamSubscription, f func()) {
	before := s.partial
	f()
	switch {
	case s.partial && !before:
		t.partials++
	case before && !s.partial:
		t.partials--
	}
}

// endLocked has the watch of s canceled, if the server has it.
func (t *streamTransport) endLocked(s *streamSubscription) {
	if t.active[s.id] == s {
		delete(t.active, s.id)
		t.canceled = append(t.canceled, s.id)
		t.wakeSender()
	}
}

// serve opens the stream and routes the answers, until the link ends.
func (t *streamTransport) serve(conn *grpc.ClientConn) {
	open := func(ctx context.Context, conn *grpc.ClientConn) (recv func() (*pb.WatchResponse, error), err error) {
		// Fragments are smaller than etcd's limit of a request, unless a single event is
		// larger.
		s, err := pb.NewWatchClient(conn).Watch(metadata.NewOutgoingContext(ctx, t.md), grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(maxMessage))
		if err != nil {
			return nil, err
		}
		t.link.wg.Go(func() { t.send(s) })
		return s.Recv, nil
	}
	route := func(r *pb.WatchResponse) error {
		t.link.hear(r.GetHeader().GetRevision())
		return t.route(r)
	}
	receive(t.link.ctx, t.link.store, conn, open, route, t.link.fail)
}

// route puts an answer into the feed of its subscription. It returns an error if the
// answer cannot be assigned to a watch.
func (t *streamTransport) route(r *pb.WatchResponse) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.active[r.WatchId]
	if r.Created {
		if s != nil || len(t.asked) == 0 {
			return fmt.Errorf("%w: a watch that was not asked for", errAnswer)
		}
		if s = t.asked[0]; !r.Canceled && t.echoes && r.WatchId != s.id {
			return fmt.Errorf("%w: the watch %d, and %d was asked for", errAnswer, r.WatchId, s.id)
		}
		t.createdLocked(s, r)
	}
	if s == nil {
		if t.stray++; t.stray > maxStray {
			return fmt.Errorf("%w: %d in a row about no watch", errAnswer, t.stray)
		}
		return nil
	}
	t.stray = 0
	if s.err == nil && !s.gone && s.from != 0 {
		t.putLocked(s, streamAnswer(r))
	}
	return nil
}

// putLocked puts an answer into the feed of s and wakes its reader. A watch that has
// failed is canceled: etcd wants that also of a watch that it canceled as too old.
func (t *streamTransport) putLocked(s *streamSubscription, a answer) {
	t.updateFeedLocked(s, func() { s.put(a) })
	if s.err != nil {
		t.endLocked(s)
	}
	if s.err != nil || len(a.events) > 0 && !s.partial {
		s.wake()
	}
}

// createdLocked applies the answer to the first watch that was asked for.
func (t *streamTransport) createdLocked(s *streamSubscription, r *pb.WatchResponse) {
	t.asked[0] = nil
	t.asked = t.asked[1:]
	if len(t.asked) == 0 {
		t.asked = nil
	}
	t.since = time.Now()
	if s.from == 0 {
		t.probing = false
	}
	if !r.Canceled {
		t.echoes = t.echoes || r.WatchId == s.id
		s.id = r.WatchId
		t.active[s.id] = s
		if s.gone || s.from == 0 {
			t.endLocked(s)
		}
	}
	t.wakeSender()
}

// send sends the requests, until the stream ends.
func (t *streamTransport) send(s pb.Watch_WatchClient) {
	for {
		select {
		case <-t.wakeup:
		case <-t.link.ctx.Done():
			return
		}
		for r := t.nextRequest(); r != nil; r = t.nextRequest() {
			if s.Send(r) != nil {
				return // Recv returns the reason
			}
		}
	}
}

// nextRequest returns the next request to send, or nil. Cancels come
// first: they free the server's memory.
func (t *streamTransport) nextRequest() *pb.WatchRequest {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.canceled); n > 0 {
		id := t.canceled[n-1]
		if t.canceled = t.canceled[:n-1]; n == 1 {
			t.canceled = nil
		}
		return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}
	}
	for len(t.queue) > 0 && (t.echoes || len(t.asked) == 0) {
		s := t.queue[0]
		t.queue[0] = nil
		if t.queue = t.queue[1:]; len(t.queue) == 0 {
			t.queue = nil
		}
		if s.gone {
			continue
		}
		t.lastID++
		s.id = firstID + t.lastID
		t.asked = append(t.asked, s)
		return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: s.request()}}
	}
	return nil
}

func (s *streamSubscription) request() *pb.WatchCreateRequest {
	r := &pb.WatchCreateRequest{
		Key: []byte(s.dir), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(s.dir)),
		StartRevision: s.from, WatchId: s.id, Fragment: true,
	}
	switch {
	case s.from == 0:
		r.RangeEnd = nil
	case s.dir == "":
		r.Key, r.RangeEnd = []byte{0}, []byte{0} // all keys
	}
	return r
}
