package etcd

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
)

// The types of a client's own parts. A part of another type is the user's, and requests
// must go through it.
var (
	watcherType = reflect.TypeOf(clientv3.NewWatchFromWatchClient(nil, nil))
	kvType      = reflect.TypeOf(clientv3.NewKVFromKVClient(nil, nil))
	leaseType   = reflect.TypeOf(clientv3.NewLeaseFromLeaseClient(nil, nil, 0))
)

// ownConn returns the client's connection if part is the client's own part, and nil if the
// user has replaced it.
func (s *Store) ownConn(part any, own reflect.Type) *grpc.ClientConn {
	if reflect.TypeOf(part) != own {
		return nil
	}
	return s.client.ActiveConnection()
}

// refusalTick is how often a call that waits for a connection checks whether all members
// refuse. The call fails after two such checks in a row: after half a second, in which a
// server that restarts may return. A shorter tick reports an outage earlier, and fails
// calls during short restarts.
const refusalTick = 250 * time.Millisecond

// refusal cancels a context when no member can be connected to. Without it, the client
// lets a call wait as long as its context lasts.
type refusal struct {
	conn   *grpc.ClientConn
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	timer   *time.Timer // guarded by mu
	refused bool        // guarded by mu: the connection was refused at the last look
	stopped bool        // guarded by mu
}

// watchRefusal returns a refusal whose context is canceled when no member can be connected
// to, with a member's refusal as the cause. The caller calls stop when there is an answer
// or a stream. stop does not cancel the context.
func watchRefusal(ctx context.Context, conn *grpc.ClientConn) *refusal {
	r := &refusal{conn: conn}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	if conn != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.timer = time.AfterFunc(refusalTick, r.look)
	}
	return r
}

func (r *refusal) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
	if r.timer != nil {
		r.timer.Stop()
	}
}

func (r *refusal) look() {
	var why error
	if r.ctx.Err() == nil {
		why = disconnected(r.conn)
	}
	r.mu.Lock()
	again := r.refused
	r.refused = why != nil
	over := r.stopped || r.ctx.Err() != nil || again && why != nil
	if !over {
		r.timer.Reset(refusalTick)
	}
	over = over && !r.stopped && why != nil
	r.mu.Unlock()
	if over {
		r.cancel(fmt.Errorf("%w: %w", errDisconnected, why))
	}
}

// reconnectEvery is the least time between two requests of a Store that its client connect.
// A shorter time would load the network of a server that is down with more attempts, and a
// longer time would delay every program after an outage.
const reconnectEvery = 5 * time.Second

// reconnects is when a Store last made its client connect. Its method may be called
// concurrently.
type reconnects struct {
	mu   sync.Mutex
	last time.Time // guarded by mu
}

// due reports whether the client is to connect now, and notes that it does.
func (r *reconnects) due() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.last.IsZero() && time.Since(r.last) < reconnectEvery {
		return false
	}
	r.last = time.Now()
	return true
}

// reconnect makes a client that has no connection try its members, if it rests between two
// attempts. The rest of gRPC grows up to two minutes, in which every call fails although the
// registry is back (https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md). The
// callers of a Store have a backoff of their own, and each of their calls is to find out.
func (s *Store) reconnect(conn *grpc.ClientConn) {
	if conn != nil && conn.GetState() == connectivity.TransientFailure && s.reconnects.due() {
		conn.ResetConnectBackoff()
	}
}

// call calls f with a context that ends early when no member can be connected to. Its
// error is then errDisconnected.
func (s *Store) call(ctx context.Context, f func(context.Context) error) error {
	conn := s.client.ActiveConnection()
	s.reconnect(conn)
	r := watchRefusal(ctx, conn)
	defer r.cancel(nil)
	defer r.stop()
	err := f(r.ctx)
	if err != nil && ctx.Err() == nil && r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	return err
}

// maxAttempts is how often the client may make one call of the Store's.
const maxAttempts = 4

// attempts calls f, which makes a call with the option. It ends the call when the client
// has made the call maxAttempts times. After some errors, such as a refused token, the
// client's interceptor would make the call a hundred times.
func attempts(ctx context.Context, f func(context.Context, grpc.CallOption) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var last error
	n := 0
	err := f(ctx, grpc.OnFinish(func(err error) {
		mu.Lock()
		defer mu.Unlock()
		n++
		if last = err; n == maxAttempts && err != nil {
			cancel()
		}
	}))
	mu.Lock()
	defer mu.Unlock()
	if err != nil && n >= maxAttempts && last != nil {
		return last
	}
	return err
}

// disconnected returns the error of the last attempt to connect. It returns nil
// while the connection is up or the first attempt lasts.
func disconnected(conn *grpc.ClientConn) error {
	if conn == nil || conn.GetState() != connectivity.TransientFailure {
		return nil
	}
	// A call that does not wait fails at once, and sends nothing. If there is a connection
	// by now, the call asks for the member's status, which does no harm.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	err := conn.Invoke(ctx, pb.Maintenance_Status_FullMethodName, &pb.StatusRequest{}, new(pb.StatusResponse), grpc.WaitForReady(false))
	if status.Code(err) != codes.Unavailable {
		return nil
	}
	return err
}

// streamConn returns the connection for a stream, and a function that releases it. It is
// the client's connection, unless the previous stream failed before an answer. Then it is
// a connection of its own to the next member. The client uses its members in turn, one for
// each request, and each try makes a read, or fetches a token, before its stream. So the
// streams of all tries could be on the same member.
func (s *Store) streamConn(conn *grpc.ClientConn) (*grpc.ClientConn, func()) {
	s.mu.Lock()
	mute := s.mute
	s.mu.Unlock()
	members := s.client.Endpoints()
	if mute == 0 || len(members) < 2 {
		return conn, func() {}
	}
	own, err := s.client.Dial(members[mute%len(members)])
	if err != nil {
		return conn, func() {}
	}
	return own, func() { _ = own.Close() } // an error loses nothing: the stream has ended
}

// noteStream records whether there was an answer on a stream.
func (s *Store) noteStream(heard bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if heard {
		s.mute = 0
	} else {
		s.mute++
	}
}

// receive opens a stream and calls route with each answer, until the stream or route
// fails. It calls fail with that error, and then ends the stream. If the stream fails
// before the first answer, the Store opens the next stream on another connection.
func receive[R any](ctx context.Context, s *Store, conn *grpc.ClientConn, open func(context.Context, *grpc.ClientConn) (recv func() (*R, error), err error), route func(*R) error, fail func(error)) {
	conn, release := s.streamConn(conn)
	defer release()
	s.reconnect(conn)
	refusal := watchRefusal(ctx, conn)
	defer refusal.cancel(nil)
	recv, err := open(refusal.ctx, conn)
	refusal.stop()
	if err != nil && ctx.Err() == nil && refusal.ctx.Err() != nil {
		err = context.Cause(refusal.ctx)
	}
	heard := false
	for err == nil {
		var r *R
		if r, err = recv(); err == nil {
			if !heard {
				heard = true
				s.noteStream(true)
			}
			err = route(r)
		}
	}
	if cause := context.Cause(ctx); !heard && cause != context.Canceled && cause != errNoLeases {
		s.noteStream(false) // it has failed: it did not end because nothing uses it
	}
	fail(err)
}

var errLearner = rpctypes.Error(rpctypes.ErrGRPCNotSupportedForLearner)

// members returns how many members the client knows.
func (s *Store) members() int { return len(s.client.Endpoints()) }

// elsewhere reports whether another member may accept what a member has refused: a learner
// refuses streams.
func elsewhere(err error) bool {
	return err != nil && errors.Is(typed(err), errLearner)
}

// leaderless reports whether an error means that a member has lost the quorum, or did not
// reach the quorum in time.
func leaderless(err error) bool {
	if errors.Is(err, errSilent) {
		return true
	}
	err = typed(err)
	for _, e := range []error{
		rpctypes.ErrNoLeader, rpctypes.ErrNotLeader, rpctypes.ErrLeaderChanged, rpctypes.ErrUnhealthy, rpctypes.ErrTimeout,
		rpctypes.ErrTimeoutDueToLeaderFail, rpctypes.ErrTimeoutDueToConnectionLost, rpctypes.ErrTimeoutWaitAppliedIndex, errLearner,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
