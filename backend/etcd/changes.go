package etcd

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// changeLoop delivers the changes of the keys that begin with dir, from the revision
// after a snapshot on.
//
// A program may have thousands of loops, each in a goroutine that nearly always waits.
// The runtime shrinks the stack of such a goroutine to a multiple of what the goroutine
// uses, so every frame counts: 130 bytes more once cost 5 KB for each watch. So what lasts
// is in this struct, on the heap, and the work before and after waiting is in methods that
// have returned by then.
type changeLoop struct {
	store *Store
	ctx   context.Context
	from  position
	// visit is called with the events of one or more answers. It returns false to end
	// the loop, or an error.
	visit func([]*clientv3.Event) (bool, error)

	check   eventCheck
	tries   int
	visited bool
	err     error
	link    *link
	sub     subscription
}

func (s *Store) newChangeLoop(ctx context.Context, dir string, from position, visit func([]*clientv3.Event) (bool, error)) *changeLoop {
	return &changeLoop{store: s, ctx: ctx, from: from, visit: visit, check: eventCheck{dir: dir, last: from.revision + 1}}
}

// run calls visit with the changes, until visit returns false or an error, or the watch
// fails. It returns nil if visit returned false.
func (c *changeLoop) run() error {
	for c.tryLink() {
	}
	return c.err
}

// tryLink delivers the changes that come on one link, and reports whether to try another
// link.
func (c *changeLoop) tryLink() bool {
	defer c.leaveLink()
	c.joinLink()
	for c.sub.await(c.ctx); c.deliver(); c.sub.await(c.ctx) {
	}
	return c.shouldRetry()
}

func (c *changeLoop) joinLink() {
	c.link = c.store.joinLink()
	c.link.noteStart(c.check.dir, c.from.revision)
	c.sub = c.link.transport.subscribe(c.ctx, c.check.dir, c.from)
}

func (c *changeLoop) leaveLink() {
	if c.sub != nil {
		c.sub.cancel()
		c.sub = nil
	}
	c.store.leaveLink(c.link)
}

// deliver passes on the events that have come, and reports whether the loop goes on.
func (c *changeLoop) deliver() bool {
	if c.err = c.ctx.Err(); c.err != nil {
		return false
	}
	events, err := c.sub.takeEvents()
	if len(events) > 0 && !c.visitEvents(events) {
		return false
	}
	c.err = err
	return err == nil
}

// visitEvents checks events and calls visit. It reports whether the loop goes on.
func (c *changeLoop) visitEvents(events []*clientv3.Event) bool {
	if c.err = c.check.check(events); c.err != nil {
		return false
	}
	if c.err = c.store.noteYielded(c.from.epoch, c.check.last); c.err != nil {
		return false
	}
	c.visited = true
	var more bool
	more, c.err = c.visit(events)
	return more && c.err == nil
}

// shouldRetry decides whether another link may help, before anything was delivered.
//
// The stream may have been opened with a token that has expired since. A new stream gets
// a new token. Some releases of etcd report such a token as a lack of permission: then a
// second new token does not help either. A learner refuses every stream, and the next
// stream is another member's.
func (c *changeLoop) shouldRetry() bool {
	token := c.store.client.Username != "" && (unknownToken(c.err) || c.tries == 0 && refused(c.err))
	member := elsewhere(c.err) && c.tries < 2*c.store.members()
	if c.visited || !token && !member || !wait(c.ctx, c.tries) {
		return false
	}
	c.store.retire(c.link)
	c.tries++
	return true
}
