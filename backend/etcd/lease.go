package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/naming-go/naming"
)

// lease is a naming.Lease.
type lease struct {
	store *Store
	id    clientv3.LeaseID
	ttl   time.Duration
}

// Grant implements [naming.Store].
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (naming.Lease, error) {
	if ttl <= 0 {
		return nil, fmt.Errorf("%w: time to live %v of a lease", naming.ErrInvalid, ttl)
	}
	seconds := int64(ttl / time.Second)
	if ttl%time.Second > 0 {
		seconds++
	}
	l, err := s.grant(ctx, seconds)
	if err != nil {
		return nil, fmt.Errorf("etcd: grant: %w", s.describe(ctx, err))
	}
	return l, nil
}

func (s *Store) grant(ctx context.Context, seconds int64) (*lease, error) {
	var resp *clientv3.LeaseGrantResponse
	err := s.call(ctx, func(ctx context.Context) (err error) {
		conn := s.ownConn(s.client.Lease, leaseType)
		if conn == nil {
			resp, err = s.client.Grant(ctx, seconds)
			return err
		}
		return attempts(ctx, func(ctx context.Context, opt grpc.CallOption) error {
			r, err := pb.NewLeaseClient(conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: seconds}, opt, grpc.WaitForReady(true))
			resp = &clientv3.LeaseGrantResponse{ID: clientv3.LeaseID(r.GetID()), TTL: r.GetTTL(), Error: r.GetError()}
			return rpctypes.Error(err)
		})
	})
	switch {
	case err != nil:
		return nil, err
	case resp.Error != "":
		return nil, errors.New(resp.Error)
	case resp.ID == clientv3.NoLease:
		return nil, fmt.Errorf("%w: a lease without an ID", errAnswer)
	case resp.TTL <= 0 || resp.TTL > clientv3.MaxLeaseTTL:
		return nil, fmt.Errorf("%w: a lease of %d seconds", errAnswer, resp.TTL)
	}
	return &lease{store: s, id: resp.ID, ttl: time.Duration(resp.TTL) * time.Second}, nil
}

// LeaseID returns the ID of a lease of a Store, for [clientv3.WithLease]. It returns
// [clientv3.NoLease] for nil and for a lease of another backend.
func LeaseID(l naming.Lease) clientv3.LeaseID {
	if l, ok := l.(*lease); ok {
		return l.id
	}
	return clientv3.NoLease
}

// TTL implements [naming.Lease].
func (l *lease) TTL() time.Duration { return l.ttl }

// Renew implements [naming.Lease].
func (l *lease) Renew(ctx context.Context) error {
	for try := 0; ; try++ {
		err := l.store.renew(ctx, l)
		if err == nil {
			return nil
		}
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			l.store.forget(l.id)
		}
		other := elsewhere(err) && try < 2*l.store.members()
		token := unknownToken(err) && l.store.client.Username != ""
		if !token && !other || !wait(ctx, try) {
			return fmt.Errorf("etcd: renew lease %x: %w", l.id, l.store.describe(ctx, err))
		}
	}
}

// Revoke implements [naming.Lease].
func (l *lease) Revoke(ctx context.Context) error {
	var resp *clientv3.LeaseRevokeResponse
	err := l.store.call(ctx, func(ctx context.Context) (err error) {
		resp, err = l.store.client.Revoke(ctx, l.id)
		return err
	})
	lost := errors.Is(err, rpctypes.ErrLeaseNotFound)
	if err != nil && !lost {
		return fmt.Errorf("etcd: revoke lease %x: %w", l.id, l.store.describe(ctx, needs(err, "write", "every key under the lease")))
	}
	if !lost {
		l.store.noteWritten(resp.Header)
	}
	l.store.forget(l.id)
	return nil
}
