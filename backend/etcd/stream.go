package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

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
	probing bool // a probe was sent and not answered
	// since is when what is waiting or asked began to wait for an answer.
	since time.Time
	parts int // how many watches wait for the rest of a revision
	stray int // how many answers in a row were no watch's
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

// The limits of what is kept of a revision that comes in fragments, and of what
// is kept at all, for a watch.
const (
	maxFragments = 1 << 20   // events
	maxKept      = 256 << 20 // bytes of keys and values
)

// maxStray is how many answers in a row may be about watches that are not there.
// Some are: what was on its way when a watch was canceled.
const maxStray = 1 << 16

// watch is one watch on a stream. Its reader takes the events.
type watch struct {
	dir     string
	rev     int64 // the first; 0: it is a probe, without a reader
	id      int64
	cluster uint64
	news    chan struct{} // capacity 1: has a token when there is something to take

	// Guarded by link.mu.
	events []*clientv3.Event
	bytes  int       // of events
	partly bool      // the last events are but some of their revision's
	since  time.Time // when partly became true
	gone   bool      // the reader has left
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
	l.enqueue(w)
	if l.failure() != nil {
		w.wake()
	}
	return w
}

// askProbe sends a probe on the stream.
func (l *link) askProbe(dir string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.probing {
		l.probing = true
		l.enqueue(&watch{dir: dir})
	}
}

// enqueue has a watch asked for. l.mu is held.
func (l *link) enqueue(w *watch) {
	if len(l.waiting)+len(l.asked) == 0 {
		l.since = time.Now()
	}
	l.waiting = append(l.waiting, w)
	l.wakeSender()
}

// overdue returns an error if etcd has not answered for a while what a watch
// waits for, whatever else it says.
func (l *link) overdue(limit time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting)+len(l.asked) > 0 && time.Since(l.since) >= limit {
		return fmt.Errorf("%w: a watch was asked for %v ago", errSilent, limit)
	}
	if l.parts > 0 {
		for _, w := range l.watches {
			if w.partly && time.Since(w.since) >= limit {
				return fmt.Errorf("%w: the rest of a revision is missing for %v", errSilent, limit)
			}
		}
	}
	return nil
}

// drop ends a watch.
func (l *link) drop(w *watch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.gone = true
	l.forget(w)
	l.end(w)
}

// forget lets go of what is kept for a watch. l.mu is held.
func (l *link) forget(w *watch) {
	w.events, w.bytes = nil, 0
	l.part(w, false)
}

// part notes whether a watch waits for the rest of a revision. l.mu is held.
func (l *link) part(w *watch, partly bool) {
	switch {
	case partly && !w.partly:
		w.since = time.Now()
		l.parts++
	case !partly && w.partly:
		l.parts--
	}
	w.partly = partly
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
		events, w.events, w.bytes = w.events, nil, 0
	}
	if w.err != nil {
		return events, w.err
	}
	return events, l.failure()
}

// receive opens the stream and hands on the answers, until the link ends.
func (l *link) receive(conn *grpc.ClientConn) {
	open := func(ctx context.Context, conn *grpc.ClientConn) (recv func() (*pb.WatchResponse, error), err error) {
		// Fragments are smaller than etcd's limit of a request, unless a single
		// event is not.
		s, err := pb.NewWatchClient(conn).Watch(l.context(ctx), grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(maxMessage))
		if err != nil {
			return nil, err
		}
		l.wg.Go(func() { l.send(s) })
		return s.Recv, nil
	}
	hand := func(r *pb.WatchResponse) error {
		l.hear(r.GetHeader().GetRevision())
		return l.hand(r)
	}
	receive(l.ctx, l.store, conn, open, hand, l.fail)
}

// hand hands an answer to its watch. It returns an error if the answer makes no
// sense.
func (l *link) hand(r *pb.WatchResponse) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.watches[r.WatchId]
	if r.Created {
		if w != nil || len(l.asked) == 0 {
			return fmt.Errorf("%w: a watch that was not asked for", errAnswer)
		}
		if w = l.asked[0]; !r.Canceled && l.ids && r.WatchId != w.id {
			return fmt.Errorf("%w: the watch %d, and %d was asked for", errAnswer, r.WatchId, w.id)
		}
		l.created(w, r)
	}
	if w == nil {
		if l.stray++; l.stray > maxStray {
			return fmt.Errorf("%w: %d in a row about no watch", errAnswer, l.stray)
		}
		return nil
	}
	l.stray = 0
	if w.err != nil || w.gone {
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
	default:
		l.keep(w, r)
	}
	if w.err != nil {
		l.end(w) // which etcd wants also of a watch that it canceled as too old
	}
	if !w.partly {
		w.wake()
	}
	return nil
}

// keep keeps the events of an answer for the watch's reader. l.mu is held.
func (l *link) keep(w *watch, r *pb.WatchResponse) {
	bytes := w.bytes
	for _, ev := range r.Events {
		bytes += len(ev.GetKv().GetKey()) + len(ev.GetKv().GetValue())
	}
	switch {
	case len(w.events) >= maxBehind && !w.partly:
		w.err = errBehind
	case len(w.events) > 0 && bytes > maxKept:
		w.err = fmt.Errorf("%w: more than %d bytes of changes wait for their reader", errLimit, maxKept)
	case len(w.events) > maxFragments:
		w.err = fmt.Errorf("%w: more than %d events of a revision", errLimit, maxFragments)
	}
	if w.err != nil {
		l.forget(w)
		return
	}
	if w.events == nil {
		w.events = r.Events
	} else {
		w.events = append(w.events, r.Events...)
	}
	w.bytes = bytes
	l.part(w, r.Fragment)
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
	l.since = time.Now()
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
