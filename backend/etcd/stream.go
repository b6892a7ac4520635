package etcd

import (
	"errors"
	"math"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// stream is the gRPC stream of a link and the watches on it. Two goroutines serve
// it, whatever the number of watches: one that sends and one that receives. The
// one that receives waits for nobody, or a server that waits for it to receive
// would not take what the other sends.
//
// The client's own Watcher would do, but for what it does to resume watches,
// which a Store does not want, and what it costs: a goroutine and some kilobytes
// for each watch, two more hands for each answer to pass through, and a new watch
// only when the one before was answered.
type stream struct {
	mu      sync.Mutex
	todo    chan struct{}    // capacity 1: has a token when there is something to send
	waiting []*watch         // to be created
	asked   []*watch         // asked for and not yet answered, in order
	watches map[int64]*watch // created
	cancels []int64          // IDs of watches to be canceled
	lastID  int64
	probing bool // a sign of life was asked for and not given
	// ids says that the server gives watches the IDs that it was asked to, and
	// answers in the order in which it was asked, as etcd does. Its proxy does
	// neither, so it is asked for one watch at a time.
	ids bool
}

// firstID is beyond those that a server would give by itself.
const firstID = 1 << 32

// maxBehind is how many events are kept for a reader that does not take them.
// With more, the watch ends, and its caller reads anew.
const maxBehind = 1 << 16

// watch is one watch on a stream. Its reader takes the events.
type watch struct {
	dir     string
	rev     int64 // the first; 0: it is a probe, without a reader
	id      int64
	cluster uint64
	news    chan struct{} // capacity 1: has a token when there is something to take

	// Guarded by link.mu.
	events []*clientv3.Event
	partly bool // the last events are but some of their revision's
	gone   bool // the reader has left
	err    error
}

func (w *watch) wake() {
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// add adds a watch of the keys that begin with dir, from the revision after a
// state on. The caller drops it.
func (l *link) add(dir string, from state) *watch {
	w := &watch{dir: dir, rev: from.at + 1, cluster: from.cluster, news: make(chan struct{}, 1)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, w)
	l.wakeSender()
	if l.failure() != nil {
		w.wake()
	}
	return w
}

// askProbe asks for a sign of life.
func (l *link) askProbe(dir string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.probing {
		l.probing = true
		l.waiting = append(l.waiting, &watch{dir: dir})
		l.wakeSender()
	}
}

// drop ends a watch.
func (l *link) drop(w *watch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.gone = true
	w.events = nil
	l.end(w)
}

// end has a watch canceled if it is there. l.mu is held.
func (l *link) end(w *watch) {
	if l.watches[w.id] == w {
		delete(l.watches, w.id)
		l.cancels = append(l.cancels, w.id)
		l.wakeSender()
	}
}

func (l *link) wakeSender() {
	select {
	case l.todo <- struct{}{}:
	default:
	}
}

// wakeAll wakes the readers of all watches, as the link has failed.
func (l *link) wakeAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.watches {
		w.wake()
	}
	for _, ws := range [][]*watch{l.asked, l.waiting} {
		for _, w := range ws {
			w.wake()
		}
	}
}

// take returns the events that have come, and the error that ends the watch, if
// one does.
func (l *link) take(w *watch) ([]*clientv3.Event, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var events []*clientv3.Event
	if !w.partly {
		events, w.events = w.events, nil
	}
	if w.err != nil {
		return events, w.err
	}
	return events, l.failure()
}

// receive opens the stream and hands on what comes, until the link ends.
func (l *link) receive(conn *grpc.ClientConn) {
	// As the client does: its limit of a message's size is no limit by default,
	// and fragments are smaller than etcd's limit of a request.
	s, err := pb.NewWatchClient(conn).Watch(l.context(l.ctx), grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(math.MaxInt32))
	if err == nil {
		l.wg.Go(func() { l.send(s) })
	}
	for err == nil {
		var r *pb.WatchResponse
		if r, err = s.Recv(); err == nil {
			l.hear(r.Header.GetRevision())
			err = l.hand(r)
		}
	}
	l.fail(err)
}

// hand hands an answer to its watch. It returns an error if the answer makes no
// sense.
func (l *link) hand(r *pb.WatchResponse) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.watches[r.WatchId]
	if r.Created {
		if w != nil || len(l.asked) == 0 {
			return errAnswer
		}
		if w = l.asked[0]; !r.Canceled && l.ids && r.WatchId != w.id {
			return errAnswer
		}
		l.created(w, r)
	}
	if w == nil || w.err != nil {
		return nil
	}
	cluster := r.Header.GetClusterId() // 0 from the proxy at times
	switch {
	case r.Canceled || r.CompactRevision != 0:
		w.err = reason(r)
	case cluster != 0 && cluster != w.cluster && w.rev != 0:
		w.err = errReplaced
	case len(r.Events) == 0:
		return nil
	case len(w.events) >= maxBehind && !w.partly:
		w.events = nil
		w.err = errBehind
	case w.events == nil:
		w.events, w.partly = r.Events, r.Fragment
	default:
		w.events, w.partly = append(w.events, r.Events...), r.Fragment
	}
	if w.err != nil {
		l.end(w) // which etcd wants also of a watch that it canceled as too old
	}
	if !w.partly {
		w.wake()
	}
	return nil
}

// reason returns why etcd canceled a watch.
func reason(r *pb.WatchResponse) error {
	switch {
	case r.CompactRevision != 0:
		return rpctypes.ErrCompacted
	case r.CancelReason != "":
		return typed(errors.New(r.CancelReason))
	default:
		return rpctypes.ErrFutureRev
	}
}

// created notes the answer to the first watch asked for. l.mu is held.
func (l *link) created(w *watch, r *pb.WatchResponse) {
	l.asked[0] = nil
	l.asked = l.asked[1:]
	if len(l.asked) == 0 {
		l.asked = nil
	}
	if w.rev == 0 {
		l.probing = false
	}
	if !r.Canceled {
		l.ids = l.ids || r.WatchId == w.id
		w.id = r.WatchId
		l.watches[w.id] = w
		if w.gone || w.rev == 0 {
			l.end(w)
		}
	}
	l.wakeSender()
}

// send sends what is to be sent, until the stream ends.
func (l *link) send(s pb.Watch_WatchClient) {
	for {
		select {
		case <-l.todo:
		case <-l.ctx.Done():
			return
		}
		for r := l.request(); r != nil; r = l.request() {
			if s.Send(r) != nil {
				return // Recv says why
			}
		}
	}
}

// request returns what is to be sent next, nil if nothing is.
func (l *link) request() *pb.WatchRequest {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.cancels); n > 0 {
		id := l.cancels[n-1]
		if l.cancels = l.cancels[:n-1]; n == 1 {
			l.cancels = nil
		}
		return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}
	}
	for len(l.waiting) > 0 && (l.ids || len(l.asked) == 0) {
		w := l.waiting[0]
		l.waiting[0] = nil
		if l.waiting = l.waiting[1:]; len(l.waiting) == 0 {
			l.waiting = nil
		}
		if w.gone {
			continue
		}
		l.lastID++
		w.id = firstID + l.lastID
		l.asked = append(l.asked, w)
		return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: w.request()}}
	}
	return nil
}

func (w *watch) request() *pb.WatchCreateRequest {
	r := &pb.WatchCreateRequest{
		Key: []byte(w.dir), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(w.dir)),
		StartRevision: w.rev, WatchId: w.id, Fragment: true,
	}
	switch {
	case w.rev == 0:
		r.RangeEnd = nil
	case w.dir == "":
		r.Key, r.RangeEnd = []byte{0}, []byte{0} // all keys
	}
	return r
}
