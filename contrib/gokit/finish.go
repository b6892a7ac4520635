package gokitnaming

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/go-kit/kit/endpoint"
	"github.com/go-kit/kit/sd"
)

// closeDelay is how long an instance stays open without calls. It is for callers that got
// the endpoint from a balancer before the instance left, and have not begun the call. A
// longer delay keeps connections to servers that have stopped. A shorter delay may fail
// such a call on a busy machine.
const closeDelay = time.Second

// FinishCalls returns a factory that lets calls in progress end before an instance is
// closed. Use it around factories whose io.Closer cancels calls, such as one that closes a
// grpc.ClientConn:
//
//	endpointer := sd.NewEndpointer(instancer, gokitnaming.FinishCalls(factory), logger)
//
// The Close of an instance returns nil at once. The io.Closer of f is closed a second
// later, or when the last call has ended if that is later. Its error is lost, as it is in
// go-kit. Calls that never end keep the instance open.
func FinishCalls(f sd.Factory) sd.Factory {
	return func(instance string) (endpoint.Endpoint, io.Closer, error) {
		e, closer, err := f(instance)
		if err != nil || closer == nil {
			return e, closer, err
		}
		c := &calls{closer: closer}
		return func(ctx context.Context, request any) (any, error) {
			c.add(1)
			defer c.add(-1)
			return e(ctx, request)
		}, c, nil
	}
}

// calls are the calls to an instance.
type calls struct {
	closer io.Closer // of the factory

	mu         sync.Mutex
	inProgress int  // guarded by mu
	closing    bool // guarded by mu; Close was called
	last       bool // guarded by mu; closer is closed after the last call
}

// Close implements io.Closer: see [FinishCalls].
func (c *calls) Close() error {
	if c.beginClose() {
		time.AfterFunc(closeDelay, func() {
			if c.endAfterLast() {
				_ = c.closer.Close()
			}
		})
	}
	return nil
}

// add counts calls, and closes the instance after the last one.
func (c *calls) add(n int) {
	if c.count(n) {
		_ = c.closer.Close()
	}
}

// count reports whether the caller has to close the instance.
func (c *calls) count(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inProgress += n
	return c.claim()
}

// beginClose reports whether Close is called for the first time.
func (c *calls) beginClose() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := !c.closing
	c.closing = true
	return first
}

// endAfterLast reports whether the caller has to close the instance. Otherwise the end of
// the last call does.
func (c *calls) endAfterLast() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = true
	return c.claim()
}

// claim reports once whether nothing keeps the instance open. mu is held.
func (c *calls) claim() bool {
	if !c.last || c.inProgress > 0 {
		return false
	}
	c.last = false
	return true
}
