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

// GRPCResolver replaces the type of the same name in etcd's former package
// clientv3/naming. A program that was written for that package changes the import
// and the line that dials: see the package's documentation. GRPCResolver reads and
// writes the same keys and values. So old and new programs share one etcd.
//
// All watchers and resolvers of one target through one client share one watch. The
// watch goes on for an hour after its last user has left. All methods may be called
// concurrently.
//
// A target has the same meaning as in the old package: every key that begins with
// target + "/" is an entry of the target, even if more slashes follow. [Store] is
// stricter.
//
// Update never marks an endpoint as draining, because the old package has no such
// mark. A server that a Client registers under the same keys is marked when it
// stops. Build then directs calls to other servers. A watcher of Resolve returns an
// Add with the endpoint's unchanged address and metadata. The default [naming.Hold]
// does not apply to endpoints without a mark.
type GRPCResolver struct {
	// Client is an initialized etcd client.
	Client *clientv3.Client
}

var (
	_ naming.Resolver      = (*GRPCResolver)(nil)
	_ grpcresolver.Builder = (*GRPCResolver)(nil)
)

// Update puts nm as JSON under the key target + "/" + nm.Addr if nm.Op is
// naming.Add, and deletes the key if nm.Op is naming.Delete. The options, such as
// clientv3.WithLease, are passed to the client's Put or Delete.
//
// Update returns an error that wraps naming.ErrInvalid, with the gRPC status
// InvalidArgument, for an invalid target, without a client, for another Op, for an
// update with neither Addr nor Metadata, and for Metadata that JSON cannot encode.
// Other errors are the client's.
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
// The watcher's first Next returns the full set. It returns at once if the target
// is already watched. Each later Next returns one Update for each key that has
// changed. Changes of one transaction are returned together. A Delete has the last
// address and metadata of the key. Entries under different keys are different
// endpoints, even if they have the same address. Malformed entries are left out.
//
// Next returns no error when etcd fails: it goes on when etcd is back. After Close,
// and after the client was closed, Next returns an error that wraps
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

// Scheme returns "etcd". It implements gRPC's resolver.Builder. A target of
// grpc.NewClient is "etcd:///" and the target of Update.
func (gr *GRPCResolver) Scheme() string { return scheme }

const scheme = "etcd"

// Build returns a resolver of a target for a gRPC connection. It implements gRPC's
// resolver.Builder, for grpc.WithResolvers, on package resolver. Build does not wait
// for etcd. The connection balances load with round_robin.
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

// share has the Client and the Builder that all GRPCResolvers of one etcd client share.
type share struct {
	etcd    *clientv3.Client
	client  *naming.Client
	builder *resolver.Builder
	closed  func() bool // stops waiting for the client to be closed

	// Guarded by shares.
	users  int
	linger *time.Timer // drops the share, which has no user; nil while it has one
}

// shares has the shares of all clients in use, or out of use for less than
// shareGrace. A GRPCResolver cannot hold its share: the old package's type has only
// one field, and a program may copy a GRPCResolver or make several for one client.
var shares struct {
	sync.Mutex
	of map[*clientv3.Client]*share
}

// shareGrace is how long an unused share is kept. A Client's default IdleGrace has
// the same value, for the same reason.
const shareGrace = time.Hour

// acquire returns the share of a client. The caller must release the share.
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
		// A closed client is of no use: its share can go.
		sh.closed = context.AfterFunc(client.Ctx(), func() { sh.drop(false) })
	}
	if sh.linger != nil {
		sh.linger.Stop()
		sh.linger = nil
	}
	sh.users++
	return sh
}

// release ends the use of a share. The share is dropped after shareGrace without a
// user.
func (sh *share) release() {
	shares.Lock()
	defer shares.Unlock()
	sh.users--
	if sh.users == 0 && shares.of[sh.etcd] == sh {
		sh.linger = time.AfterFunc(shareGrace, func() { sh.drop(true) })
	}
}

// drop forgets the share and closes its Client. If ifUnused is true, it does
// nothing while the share has users.
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
