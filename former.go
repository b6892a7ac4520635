// For programs on gRPC's former package naming, and on etcd's clientv3/naming: the types
// and methods that they keep using. Other programs use Client.Watch, Client.Register and
// Client.Follow.

package naming

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// ErrWatcherClosed is, for programs on gRPC's former package naming, the error of
// [Watcher.Next] after the Watcher or its Client was closed. Next returns no other error.
var ErrWatcherClosed = errors.New("naming: watcher closed")

// Operation is what a [Change] or an [Update] does. It keeps the values, and so the
// JSON, of the type of the same name in gRPC's former package naming.
type Operation uint8

const (
	// Add puts an endpoint: a new one, or a new state of one that exists.
	Add Operation = iota
	// Delete removes an endpoint.
	Delete
)

// String returns "Add", "Delete", or the number of another operation.
func (op Operation) String() string {
	switch op {
	case Add:
		return "Add"
	case Delete:
		return "Delete"
	}
	return "Operation(" + strconv.Itoa(int(op)) + ")"
}

// Update is, for programs on gRPC's former package naming, one change to a service.
// The type is frozen. Its JSON,
//
//	{"Op":0,"Addr":"10.0.0.7:9000","Metadata":null}
//
// is what etcd's old clientv3/naming stored, and what backend/etcd stores by
// default.
type Update struct {
	// Op says whether the endpoint was added (or changed) or deleted.
	Op Operation
	// Addr is the address that gRPC dials.
	Addr string
	// Metadata is what encoding/json makes of the entry's metadata: nil, a bool, a
	// float64, a string, a []any or a map[string]any. If one number is too large for
	// a float64, all numbers are of type json.Number. All watchers of a service share
	// one value, so a receiver must not modify it. A sender may use any value that
	// encoding/json can marshal.
	Metadata any
}

// Watcher reads, for programs on gRPC's former package naming, the changes of one
// service. [Client.Resolve] returns one.
type Watcher interface {
	// Next returns the full set of the service on its first call, as Updates with
	// Op Add. The slice is empty, not nil, if the service has no endpoints. Every
	// later call blocks until something changed. It returns the net changes since
	// the call before, at least one: deletions first, each group in the order of the
	// endpoints' IDs. A Delete has the address and the metadata that were last
	// returned for the endpoint. A change of metadata is one Add. A change of
	// address under the same ID is a Delete and an Add. Apply the whole slice before
	// you act on the result.
	//
	// The slice belongs to the caller. The metadata in it is shared.
	//
	// Next waits for as long as it takes: neither a registry that is down nor a
	// watch that broke makes it return an error. After Close, and after the Client
	// was closed, it always returns [ErrWatcherClosed].
	//
	// It may be called concurrently. Each change then goes to one of the calls.
	Next() ([]*Update, error)

	// Close ends the watcher and makes a blocked Next return. It may be called at
	// any time, from any goroutine, more than once.
	Close()
}

// Resolver makes Watchers, for programs on gRPC's former package naming. [Client]
// implements it. For the resolver of today's gRPC see package resolver.
type Resolver interface {
	// Resolve returns a Watcher of the service named target. It does not wait for
	// the registry.
	Resolve(target string) (Watcher, error)
}

// Resolve returns, for programs on gRPC's former package naming, a [Watcher] of a
// service. It does not wait for the registry. The watcher has no goroutine of its
// own. Its memory is proportional to the changes that Next has yet to return, and at
// most to the size of the set.
//
// The error is [ErrInvalid] or [ErrClientClosed].
func (c *Client) Resolve(target string) (Watcher, error) {
	cur, err := c.newCursor(target, nil)
	if err != nil {
		return nil, fmt.Errorf("naming: resolve %q: %w", target, err)
	}
	return &watcher{cur}, nil
}

// Update makes, for programs on gRPC's former package naming, changes to a service:
// all of them or none, where the registry can. The address of an Update is the ID of
// its endpoint. The endpoint has no lease: it stays until it is deleted. A server
// that announces itself uses [Client.Register], and [Registration.Update] to change its
// metadata.
//
// The error is [ErrInvalid] if an Op is neither Add nor Delete, if an Update has
// neither Addr nor Metadata, or if Metadata cannot be marshaled.
func (c *Client) Update(ctx context.Context, service string, updates ...Update) error {
	if err := c.check(service); err != nil {
		return err
	}
	changes := make([]Change, len(updates))
	for i, u := range updates {
		m, err := json.Marshal(u.Metadata)
		if err != nil {
			return fmt.Errorf("%w: %v of %q in service %q: metadata: %w", ErrInvalid, u.Op, u.Addr, service, err)
		}
		changes[i] = Change{Op: u.Op, Endpoint: Endpoint{Addr: u.Addr, Metadata: m}}
	}
	err := c.request(orBackground(ctx), func(ctx context.Context) error {
		return c.applyOnce(ctx, service, changes)
	})
	if err != nil {
		return fmt.Errorf("naming: update %q: %w", service, err)
	}
	return nil
}

// applyOnce makes changes without a lease to the store or the composite.
func (c *Client) applyOnce(ctx context.Context, service string, changes []Change) error {
	if c.composite != nil {
		return c.composite.Apply(ctx, service, changes)
	}
	return c.answered(c.store.Apply(ctx, service, changes...))
}

// watcher is the Watcher of Client.Resolve.
type watcher struct{ cursor *cursor }

func (w *watcher) Next() ([]*Update, error) {
	c := w.cursor
	for {
		select {
		case <-c.done:
			return nil, ErrWatcherClosed
		default:
		}
		n, more := c.readNews()
		if n = n.usable(); !n.empty() {
			return updates(n), nil
		}
		select {
		case <-more:
		case <-c.done:
		}
	}
}

func (w *watcher) Close() { w.cursor.close() }

// updates puts news in the form of the old package.
func updates(n news) []*Update {
	count := len(n.set)
	for _, c := range n.changes {
		if c.removes() {
			count++
		}
		if c.new != nil {
			count++
		}
	}
	list := make([]Update, 0, count)
	for _, e := range n.set {
		list = append(list, Update{Add, e.Addr, e.metadata()})
	}
	for _, c := range n.changes {
		if c.removes() {
			list = append(list, Update{Delete, c.old.Addr, c.old.metadata()})
		}
	}
	for _, c := range n.changes {
		if c.new != nil {
			list = append(list, Update{Add, c.new.Addr, c.new.metadata()})
		}
	}
	ptrs := make([]*Update, count)
	for i := range list {
		ptrs[i] = &list[i]
	}
	return ptrs
}

// removes reports whether an address that was there is to be forgotten.
func (c change) removes() bool {
	return c.old != nil && (c.new == nil || c.new.Addr != c.old.Addr)
}
