package etcd

import (
	"bytes"
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
)

// follower follows the keys that begin with dir, from the revision after a
// snapshot on.
//
// A program may have thousands, each in a goroutine that nearly always waits. The
// runtime shrinks the stack of such a goroutine to what it needs, so that is kept
// small: what lasts is here, and what is done before or after waiting is in
// methods that have returned by then.
type follower struct {
	store *Store
	ctx   context.Context
	dir   string
	from  state
	// visit is called with the events of one or more answers. It returns false
	// to end, or an error.
	visit func([]*clientv3.Event) (bool, error)
	last  int64 // the revision of the last event

	tries   int
	visited bool
	err     error
	link    *link
	watch   *watch // nil if the link has no stream of its own
}

// follow returns nil when visit returned false.
func (f *follower) follow() error {
	for f.try() {
	}
	return f.err
}

// try follows on one link, and reports whether to try on another.
func (f *follower) try() bool {
	defer f.leave()
	if !f.join() {
		f.followWatcher()
	} else {
		for f.wait(); f.step(); f.wait() {
		}
	}
	return f.again()
}

// join reports whether the link has a stream of its own.
func (f *follower) join() bool {
	f.link = f.store.join()
	f.link.begin(f.dir, f.from.at)
	if f.link.watcher == nil {
		f.watch = f.link.add(f.dir, f.from)
	}
	return f.watch != nil
}

func (f *follower) leave() {
	if f.watch != nil {
		f.link.drop(f.watch)
		f.watch = nil
	}
	f.store.leave(f.link)
}

func (f *follower) wait() {
	select {
	case <-f.watch.news:
	case <-f.ctx.Done():
	}
}

// step takes what there is, and reports whether to go on.
func (f *follower) step() bool {
	if f.err = f.ctx.Err(); f.err != nil {
		return false
	}
	events, err := f.link.take(f.watch)
	if !f.pass(events) {
		return false
	}
	f.err = err
	return err == nil
}

// pass passes events on, and reports whether to go on.
func (f *follower) pass(events []*clientv3.Event) bool {
	if len(events) == 0 {
		return true
	}
	if f.err = f.check(events); f.err != nil {
		return false
	}
	if f.err = f.store.saw(f.from.epoch, f.last); f.err != nil {
		return false
	}
	f.visited = true
	var more bool
	more, f.err = f.visit(events)
	return more && f.err == nil
}

// check returns an error if events make no sense.
func (f *follower) check(events []*clientv3.Event) error {
	f.last = max(f.last, f.from.at+1)
	for _, ev := range events {
		if ev == nil || ev.Kv == nil {
			return fmt.Errorf("%w: an event without a key", errAnswer)
		}
		switch kv := ev.Kv; {
		case ev.Type != clientv3.EventTypePut && ev.Type != clientv3.EventTypeDelete:
			return fmt.Errorf("%w: an event of type %d", errAnswer, ev.Type)
		case !bytes.HasPrefix(kv.Key, []byte(f.dir)):
			return fmt.Errorf("%w: an event of the key %q in a watch of %q", errAnswer, naming.SafeText(string(kv.Key)), f.dir)
		case kv.ModRevision < f.last:
			return fmt.Errorf("%w: an event at revision %d after %d", errAnswer, kv.ModRevision, f.last)
		}
		f.last = ev.Kv.ModRevision
	}
	return nil
}

// again decides whether to try again. The stream may have been opened with a
// token that is not good any more. A new stream gets a new one. Some releases
// call that a lack of permission, which a new token cannot mend twice. A learner
// refuses every stream, and the next one is another member's.
func (f *follower) again() bool {
	old := f.store.client.Username != "" && (unknownToken(f.err) || f.tries == 0 && refused(f.err))
	other := elsewhere(f.err) && f.tries < 2*f.store.members()
	if f.visited || !old && !other || !wait(f.ctx, f.tries) {
		return false
	}
	f.store.retire(f.link)
	f.tries++
	return true
}

// followWatcher follows with a Watcher of the user's.
func (f *follower) followWatcher() {
	l := f.link
	ctx, cancel := context.WithCancel(l.context(f.ctx))
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	// It is resumed at the last revision heard of, which must not be compacted
	// meanwhile.
	answers := l.watcher.Watch(ctx, f.dir, clientv3.WithPrefix(), clientv3.WithRev(f.from.at+1), clientv3.WithProgressNotify())
	for {
		var r clientv3.WatchResponse
		open := true
		select {
		case r, open = <-answers:
		case <-ctx.Done():
			open = false
		}
		if !open || r.Canceled {
			f.err = f.ctx.Err()
			if f.err == nil {
				f.err = l.failure()
			}
			if f.err == nil && !open {
				f.err = errClosed
			}
			if f.err == nil {
				f.err = typed(r.Err())
			}
			return
		}
		if f.err = r.Err(); f.err != nil {
			return
		}
		l.hear(r.Header.Revision)
		if c := r.Header.ClusterId; c != 0 && c != f.from.cluster {
			f.err = errReplaced
			return
		}
		if !f.pass(r.Events) {
			return
		}
	}
}
