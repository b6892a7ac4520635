package etcd

import (
	"context"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// pageSize is how many entries are read at once.
const pageSize = 10_000

// epoch is one life of the registry and how much of it was seen. Revisions of
// different lives cannot be compared.
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

// saw notes that the state at rev is about to be yielded. It returns an error if
// the registry is another one by now than e was taken of.
func (s *Store) saw(e epoch, rev int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known.number != e.number {
		return errReplaced
	}
	s.known.rev = max(s.known.rev, rev)
	return nil
}

// wrote notes the revision of a change that this Store has made: whoever made it
// finds it when he reads.
func (s *Store) wrote(h *pb.ResponseHeader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known.cluster == 0 {
		s.known.cluster = h.GetClusterId()
	}
	if s.known.cluster == h.GetClusterId() {
		s.known.rev = max(s.known.rev, h.GetRevision())
	}
}

// accept decides whether a state may be yielded that was asked for when e was
// known, and returns what is known now.
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
		// It is the newest there is. It is held to what was known when the
		// question was put, not to what others have yielded since.
		s.known = epoch{number: e.number + 1, cluster: cluster}
	}
	s.known.rev = max(s.known.rev, rev)
	return s.known, true, nil
}

// state is where in the registry's history a snapshot is.
type state struct {
	epoch
	at int64 // its revision
}

// read visits every entry whose key begins with dir, at one revision. It returns
// when nothing of it runs any more.
func (s *Store) read(ctx context.Context, dir string, keysOnly bool, start func(n int), visit func(*mvccpb.KeyValue)) (state, error) {
	var opts []clientv3.OpOption
	if keysOnly {
		opts = append(opts, clientv3.WithKeysOnly())
	}
	st, err := s.readPages(ctx, dir, pageSize, opts, start, visit)
	if errors.Is(err, rpctypes.ErrCompacted) {
		// The revision of the first page is gone. A single page has no such
		// trouble, whatever its size.
		st, err = s.readPages(ctx, dir, 0, opts, start, visit)
	}
	return st, err
}

func (s *Store) readPages(ctx context.Context, dir string, limit int64, opts []clientv3.OpOption, start func(n int), visit func(*mvccpb.KeyValue)) (state, error) {
	first := append([]clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithLimit(limit)}, opts...)
	known := s.epoch()
	resp, err := s.get(ctx, dir, append(first, clientv3.WithSerializable())...)
	if err != nil {
		return state{}, err
	}
	e, ok, err := s.accept(known, resp.Header.ClusterId, resp.Header.Revision, false)
	if !ok && err == nil {
		known = s.epoch()
		if resp, err = s.get(ctx, dir, first...); err != nil {
			return state{}, err
		}
		e, _, err = s.accept(known, resp.Header.ClusterId, resp.Header.Revision, true)
	}
	if err != nil {
		return state{}, err
	}
	st := state{e, resp.Header.Revision}
	start(int(resp.Count))
	end := clientv3.GetPrefixRangeEnd(dir)
	if dir == "" {
		end = "\x00" // all keys
	}
	for {
		// The registry makes the next page while this one is decoded.
		var next chan page
		if resp.More && len(resp.Kvs) > 0 {
			next = make(chan page, 1)
			after := string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
			go func() {
				var p page
				p.resp, p.err = s.getPage(ctx, after, append([]clientv3.OpOption{
					clientv3.WithRange(end), clientv3.WithLimit(limit), clientv3.WithRev(st.at),
				}, opts...))
				next <- p
			}()
		}
		for _, kv := range resp.Kvs {
			visit(kv)
		}
		if next == nil {
			return st, nil
		}
		p := <-next
		if p.err != nil {
			return state{}, p.err
		}
		if resp = p.resp; resp.Header.ClusterId != st.cluster {
			return state{}, errReplaced
		}
	}
}

// page is the answer to a question for one.
type page struct {
	resp *clientv3.GetResponse
	err  error
}

// getPage asks any member that has come as far as the page's revision.
func (s *Store) getPage(ctx context.Context, key string, opts []clientv3.OpOption) (*clientv3.GetResponse, error) {
	resp, err := s.get(ctx, key, append(opts[:len(opts):len(opts)], clientv3.WithSerializable())...)
	if errors.Is(err, rpctypes.ErrFutureRev) {
		resp, err = s.get(ctx, key, opts...)
	}
	return resp, err
}

func (s *Store) get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	resp, err := s.do(ctx, clientv3.OpGet(key, opts...))
	return resp.Get(), err
}

// do makes one request on behalf of a sequence. It waits no longer than the
// bound of silence.
func (s *Store) do(ctx context.Context, op clientv3.Op) (clientv3.OpResponse, error) {
	bounded, cancel := context.WithTimeoutCause(ctx, s.bound, errSilent)
	defer cancel()
	resp, err := s.client.Do(bounded, op)
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		// The error says that a deadline was exceeded, which is not the caller's.
		return resp, fmt.Errorf("%w of %v: %v", errSilent, s.bound, err)
	}
	return resp, err
}
