package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
)

// transport is how the watches of a link reach the server. There are two:
// [streamTransport], a gRPC stream of the Store's own, and [watcherTransport], the
// Watcher that a user put into the client. Both pass every answer through [feed.put] and
// every event through [eventCheck], so the same rules hold for both.
type transport interface {
	// subscribe asks for the changes of the keys that begin with dir, from the revision
	// after a position on. The caller cancels the subscription.
	subscribe(ctx context.Context, dir string, after position) subscription
	// probe makes the server answer. It blocks for limit at most.
	probe(dir string, limit time.Duration)
	// overdue returns an error if an answer that a subscription waits for has not come
	// within limit, even if the server answers something else.
	overdue(limit time.Duration) error
	// wakeAll ends every await, after the link has failed.
	wakeAll()
}

// subscription is one watch on a transport. Only one goroutine uses it.
type subscription interface {
	// await returns when there is something to take, when the link has failed, or when
	// ctx is done. It may return early.
	await(ctx context.Context)
	// takeEvents returns the events that have come, and the error that ended the
	// subscription. It never returns a part of a revision.
	takeEvents() ([]*clientv3.Event, error)
	cancel()
}

// The limits of what is kept for a reader. With more, the watch ends with an error, and
// its caller reads the snapshot anew.
const (
	// maxBehind is how many events are kept for a reader that does not take them. A
	// larger limit lets a slow reader fall further behind before it has to read the
	// snapshot again, and costs memory for each slow reader.
	maxBehind = 1 << 16
	// maxFragments is how many events of one revision are kept while its fragments
	// come.
	maxFragments = 1 << 20
	// maxKept is how many bytes of keys and values are kept at all.
	maxKept = 256 << 20
)

// answer is what a server says about one watch, on either transport.
type answer struct {
	cluster uint64 // 0: the server did not say, as etcd's proxy at times does not
	events  []*clientv3.Event
	partial bool  // the rest of the last event's revision follows
	ended   error // why the server ended the watch; nil if it goes on
}

// streamAnswer returns the answer in a message of the stream.
func streamAnswer(r *pb.WatchResponse) answer {
	a := answer{cluster: r.GetHeader().GetClusterId(), events: r.GetEvents(), partial: r.GetFragment()}
	switch {
	case r.GetCompactRevision() != 0:
		a.ended = rpctypes.ErrCompacted
	case !r.GetCanceled():
	case r.GetCancelReason() != "":
		a.ended = typed(errors.New(r.GetCancelReason()))
	default:
		a.ended = rpctypes.ErrFutureRev
	}
	return a
}

// watcherAnswer returns the answer in a response of the client's. The client joins
// fragments itself.
func watcherAnswer(r *clientv3.WatchResponse) answer {
	a := answer{cluster: r.Header.GetClusterId(), events: r.Events}
	if err := r.Err(); err != nil {
		a.ended = typed(err)
	}
	return a
}

// feed holds what came of one watch until its reader takes it.
type feed struct {
	cluster uint64 // the registry that the watch began in
	events  []*clientv3.Event
	bytes   int       // of the events' keys and values
	since   time.Time // when partial became true
	partial bool      // the last events are only a part of their revision's
	err     error     // ends the watch
}

// put checks an answer and keeps its events. It sets err if the answer ends the watch.
func (f *feed) put(a answer) {
	switch {
	case f.err != nil:
	case a.ended != nil:
		f.err = a.ended
	case a.cluster != 0 && a.cluster != f.cluster:
		f.err = errReplaced
	case len(a.events) > 0:
		f.keep(a)
	}
}

// keep adds the events of an answer, or ends the watch if they exceed a limit.
func (f *feed) keep(a answer) {
	bytes := f.bytes
	for _, ev := range a.events {
		bytes += len(ev.GetKv().GetKey()) + len(ev.GetKv().GetValue())
	}
	switch {
	case len(f.events) >= maxBehind && !f.partial:
		f.err = errBehind
	case len(f.events) > 0 && bytes > maxKept:
		f.err = fmt.Errorf("%w: more than %d bytes of changes wait for their reader", errLimit, maxKept)
	case len(f.events) > maxFragments:
		f.err = fmt.Errorf("%w: more than %d events of a revision", errLimit, maxFragments)
	}
	if f.err != nil {
		f.discard()
		return
	}
	if f.events == nil {
		f.events = a.events
	} else {
		f.events = append(f.events, a.events...)
	}
	f.bytes = bytes
	if a.partial && !f.partial {
		f.since = time.Now()
	}
	f.partial = a.partial
}

// take returns the events of whole revisions, and err.
func (f *feed) take() ([]*clientv3.Event, error) {
	if f.partial {
		return nil, f.err
	}
	events := f.events
	f.events, f.bytes = nil, 0
	return events, f.err
}

// discard releases the events that are kept.
func (f *feed) discard() { f.events, f.bytes, f.partial = nil, 0, false }

// eventCheck checks the events of one watch as its reader takes them. The reader does it,
// because a transport's receiver works for all watches.
type eventCheck struct {
	dir  string
	last int64 // the revision of the last event, or the first one that is expected
}

// check returns an error if an event makes no sense.
func (c *eventCheck) check(events []*clientv3.Event) error {
	for _, ev := range events {
		if ev == nil || ev.Kv == nil {
			return fmt.Errorf("%w: an event without a key", errAnswer)
		}
		switch kv := ev.Kv; {
		case ev.Type != clientv3.EventTypePut && ev.Type != clientv3.EventTypeDelete:
			return fmt.Errorf("%w: an event of type %d", errAnswer, ev.Type)
		case !bytes.HasPrefix(kv.Key, []byte(c.dir)):
			return fmt.Errorf("%w: an event of the key %q in a watch of %q", errAnswer, naming.SafeText(string(kv.Key)), c.dir)
		case kv.ModRevision < c.last:
			return fmt.Errorf("%w: an event at revision %d after %d", errAnswer, kv.ModRevision, c.last)
		}
		c.last = ev.Kv.ModRevision
	}
	return nil
}
