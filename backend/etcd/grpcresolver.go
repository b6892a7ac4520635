package etcd

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/resolver"
)

// GRPCResolver is the type of the same name in etcd's former package
// clientv3/naming, for programs that were written for it: they change the import
// and the line that dials, see the package's documentation. It reads and writes
// the same keys and values, so that old and new programs share one etcd.
//
// All that watch one target through one client share one watch, which goes on
// for an hour after the last of them has left. All methods may be called
// concurrently.
//
// A target has the old package's plain meaning: every key that begins with
// target + "/" is an entry of it, be there more slashes after that. [Store] is
// stricter.
//
// Update never marks an endpoint as draining, as the old package has no such mark.
// A server that a Client keeps in the same keys is marked when it stops: Build
// then directs calls to other servers, and a watcher of Resolve returns an Add
// with the address and metadata that the endpoint has already. The default
// [naming.Hold] applies to no endpoint without a mark.
type GRPCResolver struct {
	// Client is an initialized etcd client.
	Client *clientv3.Client
}

var (
	_ naming.Resolver      = (*GRPCResolver)(nil)
	_ grpcresolver.Builder = (*GRPCResolver)(nil)
)

// Update puts nm as JSON under the key target + "/" + nm.Addr if nm.Op is
// naming.Add, and deletes that key if it is naming.Delete. The options, such as
// clientv3.WithLease, go to the client's Put or Delete.
//
// An Op that is neither, an Update with neither Addr nor Metadata, and Metadata
// that is not for JSON have the gRPC status InvalidArgument and are
// naming.ErrInvalid. Other errors are the client's.
func (gr *GRPCResolver) Update(ctx context.Context, target string, nm naming.Update, opts ...clientv3.OpOption) error {
	if err := gr.check(target); err != nil {
		return err
	}
	if nm.Op != naming.Add && nm.Op != naming.Delete {
		return invalid("%v of %q in %q: unknown operation", nm.Op, nm.Addr, target)
	}
	if nm.Addr == "" && nm.Metadata == nil {
		return invalid("%v in %q: an update with neither an address nor metadata", nm.Op, target)
	}
	key := target + "/" + nm.Addr
	if nm.Op == naming.Delete {
		_, err := gr.Client.Delete(ctx, key, opts...)
		return err
	}
	value, err := json.Marshal(nm)
	if err != nil {
		return invalid("%v of %q in %q: metadata: %w", nm.Op, nm.Addr, target, err)
	}
	_, err = gr.Client.Put(ctx, key, string(value), opts...)
	return err
}

// Resolve returns a watcher of target. It does not wait for etcd.
//
// The watcher's Next returns the full set at first, at once when another watcher
// of target is there, and then one Update for each key that has changed, those
// that one transaction changed together. A Delete has the address and metadata
// that the key had last. Entries under different keys are different ones, also
// if they have the same address. What cannot be understood is left out.
//
// Next never returns an error for anything that etcd does; it goes on when etcd
// does. After Close, and after the client was closed, the error is
// naming.ErrWatcherClosed and has the gRPC status Unavailable.
func (gr *GRPCResolver) Resolve(target string) (naming.Watcher, error) {
	if err := gr.check(target); err != nil {
		return nil, err
	}
	sh := acquire(gr.Client)
	w, err := sh.client.Resolve(target)
	if err != nil {
		sh.release()
		return nil, &statusError{codes.Unavailable, err}
	}
	return &watcher{Watcher: w, release: sync.OnceFunc(sh.release)}, nil
}

// Scheme implements gRPC's resolver.Builder. It is "etcd": a target of
// grpc.NewClient is "etcd:///" and the target of Update.
func (gr *GRPCResolver) Scheme() string { return scheme }

const scheme = "etcd"

// Build implements gRPC's resolver.Builder, for grpc.WithResolvers. It is what
// package resolver does: it does not wait for etcd, and load is balanced by
// round_robin.
func (gr *GRPCResolver) Build(target grpcresolver.Target, cc grpcresolver.ClientConn, opts grpcresolver.BuildOptions) (grpcresolver.Resolver, error) {
	if gr.Client == nil {
		return nil, invalid("a GRPCResolver without a client")
	}
	sh := acquire(gr.Client)
	r, err := sh.builder.Build(target, cc, opts)
	if err != nil {
		sh.release()
		return nil, err
	}
	return &built{Resolver: r, release: sync.OnceFunc(sh.release)}, nil
}

func (gr *GRPCResolver) check(target string) error {
	if gr.Client == nil {
		return invalid("a GRPCResolver without a client")
	}
	if err := naming.CheckService(target); err != nil {
		return &statusError{codes.InvalidArgument, err}
	}
	return nil
}

// share is what the users of one client have in common.
type share struct {
	etcd    *clientv3.Client
	client  *naming.Client
	builder *resolver.Builder
	closed  func() bool // stops waiting for the client to be closed

	// Guarded by shares.
	users  int
	linger *time.Timer // not nil: nobody uses it, and this will drop it
}

// shares are the shares of all clients that are in use, or were a while ago. A
// GRPCResolver has no room for it: the old package's has one field, and programs
// have copies and several of the same client.
var shares struct {
	sync.Mutex
	of map[*clientv3.Client]*share
}

// shareGrace is that of a Client, by default, and for the same reason.
const shareGrace = time.Hour

// acquire returns the share of a client. The caller releases it.
func acquire(client *clientv3.Client) *share {
	shares.Lock()
	defer shares.Unlock()
	sh := shares.of[client]
	if sh == nil {
		s := New(client, &Options{Codec: &Codec{Encode: encodeUpdate, Decode: decodePlain, valid: true}})
		s.layout.plain = true
		sh = &share{etcd: client, client: naming.New(s, nil)}
		sh.builder = resolver.NewBuilder(sh.client, &resolver.Options{Scheme: scheme})
		if shares.of == nil {
			shares.of = make(map[*clientv3.Client]*share)
		}
		shares.of[client] = sh
		// Nobody can use a client after it was closed.
		sh.closed = context.AfterFunc(client.Ctx(), func() { sh.drop(false) })
	}
	if sh.linger != nil {
		sh.linger.Stop()
		sh.linger = nil
	}
	sh.users++
	return sh
}

func (sh *share) release() {
	shares.Lock()
	defer shares.Unlock()
	sh.users--
	if sh.users == 0 && shares.of[sh.etcd] == sh {
		sh.linger = time.AfterFunc(shareGrace, func() { sh.drop(true) })
	}
}

// drop forgets the share and ends all that it has, if it is unused or must go
// anyway.
func (sh *share) drop(ifUnused bool) {
	shares.Lock()
	if shares.of[sh.etcd] != sh || ifUnused && sh.users > 0 {
		shares.Unlock()
		return
	}
	delete(shares.of, sh.etcd)
	if sh.linger != nil {
		sh.linger.Stop()
	}
	shares.Unlock()
	sh.closed()
	sh.client.Close()
}

// watcher is the Watcher of Resolve.
type watcher struct {
	naming.Watcher
	release func()
}

func (w *watcher) Next() ([]*naming.Update, error) {
	updates, err := w.Watcher.Next()
	if err != nil {
		return nil, &statusError{codes.Unavailable, err}
	}
	return updates, nil
}

func (w *watcher) Close() {
	w.Watcher.Close()
	w.release()
}

// built is the Resolver of Build.
type built struct {
	grpcresolver.Resolver
	release func()
}

func (b *built) Close() {
	b.Resolver.Close()
	b.release()
}

// statusError has the gRPC status that the old package's errors had.
type statusError struct {
	code codes.Code
	err  error
}

func (e *statusError) Error() string              { return e.err.Error() }
func (e *statusError) Unwrap() error              { return e.err }
func (e *statusError) GRPCStatus() *status.Status { return status.New(e.code, e.err.Error()) }

func invalid(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &statusError{codes.InvalidArgument, fmt.Errorf("%w: %w", naming.ErrInvalid, err)}
}
