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

// keeper renews the leases of a Store on one gRPC stream, as the client's KeepAlive does.
// A stream for each renewal would cost a check of its token each, which is expensive for
// the server. Two goroutines serve the stream: one sends and one receives.
//
// A keeper exists from the first renewal on, until every lease that was renewed on it
// has been revoked, was lost, or was not renewed for its time to live.
//
// Store.mu is locked before mu where both are.
type keeper struct {
	store  *Store          // never changes
	ctx    context.Context // done when the stream has failed or its last user has left
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	wakeup chan struct{} // capacity 1: has a token when there is something to send

	mu     sync.Mutex
	queue  []*renewal                      // guarded by mu: to be sent
	asked  map[clientv3.LeaseID][]*renewal // guarded by mu: sent and not answered, in order
	leases map[clientv3.LeaseID]time.Time  // guarded by mu: when each is given up
	idle   *time.Timer                     // guarded by mu: runs giveUp
	stray  int                             // guarded by mu: how many answers in a row match no renewal
}

// renewal is one request to renew a lease. A renewal whose caller has left keeps its place
// in asked: otherwise its answer would count as the answer to a later renewal.
type renewal struct {
	id   clientv3.LeaseID
	done chan struct{} // closed when err is set
	err  error
}

// errNoLeases ends a keeper that has no leases. A renewal returns it only if the lease
// is revoked at the same time.
var errNoLeases = errors.New("the lease was revoked while it was renewed")

// keeperFor returns the Store's keeper, and records that a lease is renewed on it now.
func (s *Store) keeperFor(l *lease, conn *grpc.ClientConn) *keeper {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keeper == nil {
		k := &keeper{
			store: s, wakeup: make(chan struct{}, 1),
			asked: make(map[clientv3.LeaseID][]*renewal), leases: make(map[clientv3.LeaseID]time.Time),
		}
		// Without a leader the stream ends. Otherwise it would fall silent.
		k.ctx, k.cancel = context.WithCancelCause(clientv3.WithRequireLeader(context.Background()))
		s.keeper = k
		k.wg.Go(func() { k.serve(conn) })
	}
	s.keeper.use(l)
	return s.keeper
}

// use records that a lease is renewed now.
func (k *keeper) use(l *lease) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.leases[l.id] = time.Now().Add(l.ttl)
	if k.idle == nil {
		k.idle = time.AfterFunc(l.ttl, k.giveUp)
	}
}

// giveUp ends the keeper once all of its leases have expired without a renewal.
func (k *keeper) giveUp() {
	k.store.mu.Lock()
	k.mu.Lock()
	var last time.Time
	now := time.Now()
	for id, until := range k.leases {
		if until.After(last) {
			last = until
		}
		if !until.After(now) {
			delete(k.leases, id)
		}
	}
	over := len(k.leases) == 0
	switch {
	case !over:
		k.idle.Reset(last.Sub(now))
	case k.store.keeper == k:
		k.store.keeper = nil
	}
	k.mu.Unlock()
	k.store.mu.Unlock()
	if over {
		k.cancel(errNoLeases)
	}
}

// forget removes an ended lease from the keeper. If it was the last lease, forget
// ends the keeper and returns after the keeper's goroutines have ended.
func (s *Store) forget(id clientv3.LeaseID) {
	s.mu.Lock()
	k := s.keeper
	over := false
	if k != nil {
		k.mu.Lock()
		delete(k.leases, id)
		if over = len(k.leases) == 0; over {
			s.keeper = nil
			k.idle.Stop()
		}
		k.mu.Unlock()
	}
	s.mu.Unlock()
	if over {
		k.cancel(errNoLeases)
		k.wg.Wait()
	}
}

// fail ends the keeper with err.
func (k *keeper) fail(err error) {
	k.store.mu.Lock()
	if k.store.keeper == k {
		k.store.keeper = nil
	}
	k.mu.Lock()
	if k.idle != nil {
		k.idle.Stop()
	}
	k.mu.Unlock()
	k.store.mu.Unlock()
	k.cancel(err)
}

// enqueue queues a renewal for the sender.
func (k *keeper) enqueue(id clientv3.LeaseID) *renewal {
	r := &renewal{id: id, done: make(chan struct{})}
	k.mu.Lock()
	k.queue = append(k.queue, r)
	k.mu.Unlock()
	select {
	case k.wakeup <- struct{}{}:
	default:
	}
	return r
}

// nextRequest returns the next request to send, or nil.
func (k *keeper) nextRequest() *pb.LeaseKeepAliveRequest {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.queue) == 0 {
		k.queue = nil
		return nil
	}
	r := k.queue[0]
	k.queue = k.queue[1:]
	k.asked[r.id] = append(k.asked[r.id], r)
	return &pb.LeaseKeepAliveRequest{ID: int64(r.id)}
}

// serve opens the stream and routes the answers, until the keeper ends.
func (k *keeper) serve(conn *grpc.ClientConn) {
	open := func(ctx context.Context, conn *grpc.ClientConn) (recv func() (*pb.LeaseKeepAliveResponse, error), err error) {
		s, err := pb.NewLeaseClient(conn).LeaseKeepAlive(ctx, grpc.WaitForReady(true))
		if err != nil {
			return nil, err
		}
		k.wg.Go(func() { k.send(s) })
		return s.Recv, nil
	}
	receive(k.ctx, k.store, conn, open, k.route, k.fail)
}

// send sends the requests, until the stream ends.
func (k *keeper) send(s pb.Lease_LeaseKeepAliveClient) {
	for {
		select {
		case <-k.wakeup:
		case <-k.ctx.Done():
			return
		}
		for r := k.nextRequest(); r != nil; r = k.nextRequest() {
			if s.Send(r) != nil {
				return // Recv returns the reason
			}
		}
	}
}

// route gives an answer to the oldest renewal of the lease. It returns an error after too
// many answers that match no renewal.
func (k *keeper) route(a *pb.LeaseKeepAliveResponse) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	id := clientv3.LeaseID(a.ID)
	rs := k.asked[id]
	if len(rs) == 0 {
		if k.stray++; k.stray > maxStray {
			return fmt.Errorf("%w: %d renewals in a row that were not asked for", errAnswer, k.stray)
		}
		return nil
	}
	k.stray = 0
	r := rs[0]
	if rs[0] = nil; len(rs) == 1 {
		delete(k.asked, id)
	} else {
		k.asked[id] = rs[1:]
	}
	if a.TTL <= 0 {
		r.err = rpctypes.ErrLeaseNotFound
	}
	close(r.done)
	return nil
}

// maxRenewal is how long a renewal waits for its answer on the shared stream before it
// tries a new stream. A longer wait leaves less time for the second stream. A shorter
// wait ends streams of servers that are only slow.
const maxRenewal = 2 * time.Second

// minRenewal is the shortest wait that ends the shared stream. A caller with little time
// must not end the stream for all others.
const minRenewal = 250 * time.Millisecond

// renew renews a lease. A renewal may be repeated: when the stream breaks or is silent,
// renew tries a second stream.
func (s *Store) renew(ctx context.Context, l *lease) error {
	conn := s.ownConn(s.client.Lease, leaseType)
	if conn == nil {
		_, err := s.client.KeepAliveOnce(ctx, l.id)
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.bound, errSilent)
	defer cancel()
	patience := maxRenewal
	if deadline, ok := ctx.Deadline(); ok {
		patience = min(patience, time.Until(deadline)/2)
	}
	if patience < minRenewal {
		patience = 0
	}
	again, err := s.renewOnStream(ctx, l, conn, patience)
	if again {
		_, err = s.renewOnStream(ctx, l, conn, 0)
	}
	return err
}

// renewOnStream renews a lease on the shared stream. After patience, if that is not 0, it
// ends a stream that is silent. It reports whether a new stream may help.
func (s *Store) renewOnStream(ctx context.Context, l *lease, conn *grpc.ClientConn, patience time.Duration) (again bool, err error) {
	k := s.keeperFor(l, conn)
	r := k.enqueue(l.id)
	var silent <-chan time.Time
	if patience > 0 {
		t := time.NewTimer(patience)
		defer t.Stop()
		silent = t.C
	}
	select {
	case <-r.done:
		return false, r.err
	case <-k.ctx.Done():
		err = context.Cause(k.ctx)
		return !errors.Is(err, errDisconnected) && !refused(err), err
	case <-silent:
		err = fmt.Errorf("%w of %v to a renewal", errSilent, patience)
		k.fail(err)
		return true, err
	case <-ctx.Done():
		err = context.Cause(ctx)
		if errors.Is(err, errSilent) {
			k.fail(err)
		}
		return false, err
	}
}
