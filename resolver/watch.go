package resolver

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	grpcresolver "google.golang.org/grpc/resolver"

	"github.com/naming-go/naming"
)

// Set is what a client of a service should call, as [Builder.Watch] yields it.
type Set struct {
	// Endpoints are the endpoints to call, in the order of their IDs, one for each
	// address. Usable endpoints come before others. The slice belongs to the receiver.
	// The metadata of the endpoints is shared and must not be modified.
	Endpoints []naming.Endpoint

	// Err is why Endpoints is empty, and nil if Endpoints is not empty. The service has
	// no endpoints, or the registry withholds all of them, or the registry has not
	// answered yet. A later Set has endpoints when the cause is over. The text of Err has
	// the form of [naming.SafeText].
	Err error

	// CachedAt is when the registry last vouched for the Endpoints, if they are from the
	// cache ([Options.CacheDir]). Otherwise CachedAt is zero.
	CachedAt time.Time
}

// Watch yields what a client of a service should call, for clients other than gRPC. A Set
// has the endpoints that a ClientConn would get at the same moment, by the same rules and
// options: draining endpoints are left out, held endpoints are used if nothing else is
// usable, an outage of the registry changes nothing. [naming.Client.Watch] yields what the
// registry has.
//
// Watch yields the first Set as soon as the endpoints are known, or the reason why they
// are not. It yields another Set whenever the endpoints or the reason changed. A slow
// reader gets the newest Set and skips the Sets between. It does not delay other readers.
//
// The sequence ends with an error, and a zero Set, when ctx is done (ctx.Err()) or the
// Client was closed ([naming.ErrClientClosed]), and at once if the service name is
// [naming.ErrInvalid]. It holds no resources before it is ranged over and after the loop.
// It may be ranged over more than once.
func (b *Builder) Watch(ctx context.Context, service string) iter.Seq2[Set, error] {
	return func(yield func(Set, error) bool) {
		if err := b.sets(ctx, service, yield); err != nil {
			yield(Set{}, fmt.Errorf("naming: watch %q: %w", service, err))
		}
	}
}

// sets is Watch. It returns nil when yield returned false.
func (b *Builder) sets(ctx context.Context, service string, yield func(Set, error) bool) error {
	if ctx == nil {
		ctx = context.Background()
	}
	if err := naming.CheckService(service); err != nil {
		return err
	}
	f := &feed{news: make(chan struct{}, 1)}
	c := &conn{cc: f, target: b.acquire(service)}
	if err := c.target.start(); err != nil {
		b.release(c.target)
		return err
	}
	defer c.Close()
	c.target.dispatcher.join(c)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.target.publisher.ended:
			return naming.ErrClientClosed
		case <-f.news:
		}
		// Several may be ready: nothing is yielded after an end.
		if err := c.target.end(ctx); err != nil {
			return err
		}
		if !yield(newSet(f.current()), nil) {
			return nil
		}
	}
}

// end returns why a reader of the target ends, or nil.
func (t *target) end(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.publisher.ended:
		return naming.ErrClientClosed
	default:
		return nil
	}
}

// newSet returns the Set of a state of gRPC's, or of the reason why the service has no
// endpoints.
func newSet(s grpcresolver.State, err error) Set {
	if err != nil {
		return Set{Err: err}
	}
	set := Set{Endpoints: make([]naming.Endpoint, len(s.Endpoints))}
	for i, e := range s.Endpoints {
		set.Endpoints[i] = *memberOf(e).endpoint
	}
	set.CachedAt, _ = CachedAt(s)
	return set
}

// feed is the ClientConn of Watch. It keeps the last state.
type feed struct {
	grpcresolver.ClientConn // nil: a conn without a service config calls nothing else

	news chan struct{} // capacity 1
	last lastState
}

// lastState is what the mutex of a feed guards.
type lastState struct {
	sync.Mutex
	state grpcresolver.State
	err   error
}

// UpdateState implements the ClientConn of gRPC's package resolver. A state without
// endpoints is ignored: ReportError follows with the reason.
func (f *feed) UpdateState(s grpcresolver.State) error {
	if len(s.Endpoints) > 0 {
		f.set(s, nil)
	}
	return nil
}

// ReportError implements the ClientConn of gRPC's package resolver.
func (f *feed) ReportError(err error) { f.set(grpcresolver.State{}, err) }

func (f *feed) set(s grpcresolver.State, err error) {
	f.last.Lock()
	defer f.last.Unlock()
	f.last.state, f.last.err = s, err
	select {
	case f.news <- struct{}{}:
	default:
	}
}

func (f *feed) current() (grpcresolver.State, error) {
	f.last.Lock()
	defer f.last.Unlock()
	return f.last.state, f.last.err
}
