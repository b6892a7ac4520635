package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/naming-go/naming"
)

// The limits of a server's answers. The limits of endpoints and services are in package
// naming.
const (
	// pageSize is how many entries are read at once. If so many entries are larger than
	// maxMessage, a tenth is read at once, and so on. Larger pages need fewer requests
	// and more memory, here and in the server.
	pageSize = 10_000
	// maxMessage is the largest answer that is accepted, in bytes.
	maxMessage = 64 << 20
	// maxRead is the largest set that is accepted, in bytes of keys and values.
	maxRead = 1 << 30
	// maxKeys is the largest number of keys that a read looks at. A service may have
	// fewer keys: the keys of "a/b" are read with those of "a".
	maxKeys = 5_000_000
)

// epoch is one life of the registry, and how much of it was seen. Revisions of different
// lives cannot be compared.
type epoch struct {
	number  int    // counts the lives
	cluster uint64 // 0: nothing was seen
	rev     int64  // the highest revision that was yielded or written
}

func (s *Store) epoch() epoch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known
}

// noteYielded records that the state at rev is about to be yielded. It returns an error if
// the registry was replaced since e.
func (s *Store) noteYielded(e epoch, rev int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known.number != e.number {
		return errReplaced
	}
	s.known.rev = max(s.known.rev, rev)
	return nil
}

// noteWritten records the revision of a change that this Store has made. Later reads of
// this Store must find the change.
func (s *Store) noteWritten(h *pb.ResponseHeader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known.cluster == 0 {
		s.known.cluster = h.GetClusterId()
	}
	if s.known.cluster == h.GetClusterId() {
		s.known.rev = max(s.known.rev, h.GetRevision())
	}
}

// accept decides whether a state may be yielded that was asked for when e was known. It
// returns the epoch of the state.
func (s *Store) accept(e epoch, cluster uint64, rev int64, linearizable bool) (epoch, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known.number != e.number {
		return e, false, errReplaced
	}
	if s.known.cluster == 0 {
		s.known.cluster = cluster
	}
	switch {
	case !linearizable:
		if cluster != s.known.cluster || rev < s.known.rev {
			return e, false, nil
		}
	case cluster != s.known.cluster, rev < e.rev:
		// It is the newest state. It is compared with e, which was known when the state was
		// asked for. Other watches may have yielded newer states since.
		s.known = epoch{number: e.number + 1, cluster: cluster}
	}
	s.known.rev = max(s.known.rev, rev)
	return s.known, true, nil
}

// position is the place of a snapshot in the registry's history.
type position struct {
	epoch
	revision int64
}

// pages checks the pages of a read as they come. Ascending keys make sure that the read
// ends.
type pages struct {
	dir   string
	at    int64  // the revision of the first page
	total int64  // how many entries that page says there are
	last  string // the key that was read last
	n     int64
	bytes int
}

// check returns an error if a page makes no sense or exceeds a limit.
func (p *pages) check(r *pb.RangeResponse) error {
	rev := r.GetHeader().GetRevision()
	if p.at == 0 {
		p.at, p.total = rev, r.Count
	}
	switch {
	case rev <= 0:
		return fmt.Errorf("%w: a read at revision %d", errAnswer, rev)
	case rev < p.at:
		return fmt.Errorf("%w: a page at revision %d of a read at %d", errAnswer, rev, p.at)
	case r.Count < 0:
		return fmt.Errorf("%w: %d entries", errAnswer, r.Count)
	case p.total > maxKeys:
		return fmt.Errorf("%w: %d entries; at most %d are read", errLimit, p.total, maxKeys)
	case r.More && len(r.Kvs) == 0:
		return fmt.Errorf("%w: an empty page that is not the last", errAnswer)
	}
	for _, kv := range r.Kvs {
		if err := p.checkEntry(kv); err != nil {
			return err
		}
	}
	switch {
	case p.n > p.total:
		return fmt.Errorf("%w: more than the %d entries that there are", errAnswer, p.total)
	case !r.More && p.n < p.total:
		return fmt.Errorf("%w: %d of the %d entries that there are", errAnswer, p.n, p.total)
	case p.bytes > maxRead:
		return fmt.Errorf("%w: entries of more than %d bytes", errLimit, maxRead)
	}
	return nil
}

// checkEntry returns an error if an entry does not belong to the read, or not after the
// entries before.
func (p *pages) checkEntry(kv *mvccpb.KeyValue) error {
	key := string(kv.GetKey())
	switch {
	case !strings.HasPrefix(key, p.dir):
		return fmt.Errorf("%w: the key %q in a read of %q", errAnswer, naming.SafeText(key), p.dir)
	case p.n > 0 && key <= p.last:
		return fmt.Errorf("%w: the key %q after %q", errAnswer, naming.SafeText(key), naming.SafeText(p.last))
	case kv.GetModRevision() <= 0 || kv.ModRevision > p.at:
		return fmt.Errorf("%w: the revision %d of the key %q in a read at %d", errAnswer, kv.GetModRevision(), naming.SafeText(key), p.at)
	}
	p.last = key
	p.n++
	p.bytes += len(kv.Key) + len(kv.Value)
	return nil
}

// readEntries calls start with the number of entries, about, and visit with every entry
// whose key begins with dir, all at one revision, until visit returns an error. start may
// be called again: then the read has begun again. readEntries returns after its
// goroutines have ended.
func (s *Store) readEntries(ctx context.Context, dir string, keysOnly bool, start func(n int), visit func(*mvccpb.KeyValue) error) (position, error) {
	r := &rangeRead{store: s, ctx: ctx, dir: dir, keysOnly: keysOnly, start: start, visit: visit}
	var err error
	for r.limit = pageSize; r.limit > 0; r.limit /= 10 {
		if err = r.readPages(); !tooLarge(err) {
			break
		}
	}
	if errors.Is(err, rpctypes.ErrCompacted) {
		// The revision of the first page is gone. A single page cannot fail that way,
		// whatever its size.
		r.limit = 0
		err = r.readPages()
	}
	return r.at, err
}

// tooLarge reports whether an answer was larger than maxMessage.
func tooLarge(err error) bool {
	return status.Code(err) == codes.ResourceExhausted && strings.Contains(err.Error(), "received message")
}

// rangeRead is a read of all entries whose keys begin with dir, page by page.
type rangeRead struct {
	store    *Store
	ctx      context.Context
	dir      string
	keysOnly bool
	start    func(n int)
	visit    func(*mvccpb.KeyValue) error

	limit int64 // entries of a page; 0: all in one page
	check pages
	at    position // of the first page
}

// request returns the request for the page that begins with a key.
func (r *rangeRead) request(from string) *pb.RangeRequest {
	req := &pb.RangeRequest{
		Key: []byte(from), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(r.dir)),
		Limit: r.limit, KeysOnly: r.keysOnly, Revision: r.at.revision,
	}
	if r.dir == "" { // all keys
		req.RangeEnd = []byte{0}
		if from == "" {
			req.Key = []byte{0}
		}
	}
	return req
}

func (r *rangeRead) readPages() error {
	r.at, r.check = position{}, pages{dir: r.dir}
	resp, err := r.firstPage()
	if err != nil {
		return err
	}
	r.start(int(min(r.check.total, naming.MaxEndpoints)))
	for {
		waitNext := r.fetchAfter(resp)
		for _, kv := range resp.Kvs {
			if err == nil {
				err = r.visit(kv)
			}
		}
		if waitNext == nil {
			return err
		}
		next, nextErr := waitNext() // also after an error: the goroutine must have ended
		if err == nil {
			err = nextErr
		}
		if err == nil {
			err = r.checkNext(next)
		}
		if err != nil {
			return err
		}
		resp = next
	}
}

// firstPage reads the first page, and fixes the position of the read.
func (r *rangeRead) firstPage() (*pb.RangeResponse, error) {
	known := r.store.epoch()
	resp, linearizable, err := r.store.readNewest(r.ctx, r.request(r.dir))
	if err != nil {
		return nil, err
	}
	if err := r.check.check(resp); err != nil {
		return nil, err
	}
	e, ok, err := r.store.accept(known, resp.Header.ClusterId, resp.Header.Revision, linearizable)
	if !ok && err == nil {
		err = errOlder
	}
	if err != nil {
		return nil, err
	}
	r.at = position{e, r.check.at}
	return resp, nil
}

// fetchAfter requests the page after resp in a goroutine, so that the registry makes it
// while resp is decoded. It returns a function that waits for the page, and nil if resp is
// the last page.
func (r *rangeRead) fetchAfter(resp *pb.RangeResponse) (wait func() (*pb.RangeResponse, error)) {
	if !resp.More {
		return nil
	}
	var g errgroup.Group
	var next *pb.RangeResponse
	req, cluster := r.request(r.check.last+"\x00"), r.at.cluster
	g.Go(func() (err error) {
		next, err = r.store.getPage(r.ctx, req, cluster)
		return err
	})
	return func() (*pb.RangeResponse, error) {
		err := g.Wait()
		return next, err
	}
}

// checkNext returns an error if a page after the first makes no sense.
func (r *rangeRead) checkNext(resp *pb.RangeResponse) error {
	if resp.GetHeader().GetClusterId() != r.at.cluster {
		return errReplaced
	}
	return r.check.check(resp)
}

// readNewest reads a first page. It asks for the newest state (linearizable), for which a
// member needs its quorum. Without a quorum, it asks for the state of any member, which
// may be old: etcd's proxy answers such a request from a cache that it does not update.
func (s *Store) readNewest(ctx context.Context, req *pb.RangeRequest) (resp *pb.RangeResponse, linearizable bool, err error) {
	// A member that has lost its leader then fails at once.
	resp, err = s.get(clientv3.WithRequireLeader(ctx), req, s.bound/2)
	if err == nil || ctx.Err() != nil || !leaderless(err) {
		return resp, true, err
	}
	req.Serializable = true
	old, serr := s.get(ctx, req, s.bound/2)
	if serr != nil {
		return nil, false, err
	}
	if e := s.epoch(); e.cluster != 0 && (old.GetHeader().GetClusterId() != e.cluster || old.GetHeader().GetRevision() < e.rev) {
		return nil, false, fmt.Errorf("%w; the member that answers has an older state than was seen", err)
	}
	return old, false, nil
}

// getPage reads a page after the first from any member that has reached its revision.
func (s *Store) getPage(ctx context.Context, req *pb.RangeRequest, cluster uint64) (*pb.RangeResponse, error) {
	req.Serializable = true
	resp, err := s.get(ctx, req, s.bound)
	if errors.Is(err, rpctypes.ErrFutureRev) || err == nil && resp.GetHeader().GetClusterId() != cluster {
		req.Serializable = false
		resp, err = s.get(ctx, req, s.bound)
	}
	return resp, err
}

// get makes a read on behalf of a sequence. When a member is unavailable, it asks the
// others, each once.
func (s *Store) get(ctx context.Context, req *pb.RangeRequest, bound time.Duration) (*pb.RangeResponse, error) {
	var resp *pb.RangeResponse
	err := s.bounded(ctx, bound, func(ctx context.Context) error {
		conn := s.ownConn(s.client.KV, kvType)
		if conn == nil {
			r, err := s.client.Do(ctx, op(req))
			if resp = (*pb.RangeResponse)(r.Get()); err == nil && resp == nil {
				err = errAnswer
			}
			return err
		}
		// The client's own KV would repeat the read up to a hundred times.
		for tries := max(s.members(), 2); ; tries-- {
			// etcd limits the size of a request, and not that of an answer.
			err := attempts(ctx, func(ctx context.Context, opt grpc.CallOption) (err error) {
				resp, err = pb.NewKVClient(conn).Range(ctx, req, opt, grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(maxSize(req)))
				return err
			})
			if err == nil {
				return nil
			}
			if tries == 1 || ctx.Err() != nil || status.Code(err) != codes.Unavailable && !elsewhere(err) {
				return rpctypes.Error(err)
			}
		}
	})
	return resp, err
}

// maxSize returns how large the answer to a read may be.
func maxSize(req *pb.RangeRequest) int {
	if req.Limit == 0 {
		return maxRead
	}
	return maxMessage
}

// op returns a read for the client's KV.
func op(req *pb.RangeRequest) clientv3.Op {
	opts := []clientv3.OpOption{clientv3.WithRange(string(req.RangeEnd)), clientv3.WithLimit(req.Limit), clientv3.WithRev(req.Revision)}
	if req.KeysOnly {
		opts = append(opts, clientv3.WithKeysOnly())
	}
	if req.Serializable {
		opts = append(opts, clientv3.WithSerializable())
	}
	return clientv3.OpGet(string(req.Key), opts...)
}

// do makes one request on behalf of a sequence. It waits no longer than the
// bound of silence.
func (s *Store) do(ctx context.Context, op clientv3.Op) (clientv3.OpResponse, error) {
	var resp clientv3.OpResponse
	err := s.bounded(ctx, s.bound, func(ctx context.Context) (err error) {
		resp, err = s.client.Do(ctx, op)
		return err
	})
	return resp, err
}

// bounded calls f with a context that ends after a time of silence.
func (s *Store) bounded(ctx context.Context, bound time.Duration, f func(context.Context) error) error {
	bounded, cancel := context.WithTimeoutCause(ctx, bound, errSilent)
	defer cancel()
	err := s.call(bounded, f)
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		// The error is about a deadline that is not the caller's.
		return fmt.Errorf("%w of %v: %v", errSilent, bound, naming.SafeError(err))
	}
	return err
}
