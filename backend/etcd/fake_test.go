package etcd_test

import (
	"context"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
)

// answers are the false answers of a fake server. Each function gets the true answer
// and returns the answer to send. A nil function means the true answer.
type answers struct {
	read  func(*pb.RangeRequest, *pb.RangeResponse) (*pb.RangeResponse, error)
	write func(*pb.ResponseHeader) (*pb.ResponseHeader, error)
	txn   func(*pb.TxnResponse) (*pb.TxnResponse, error)
	// watch gets the answer to a request for a watch, and alive gets the answer to
	// a renewal. The answers that they return are sent instead. If the error is not
	// nil, the stream then ends with it.
	watch func(*pb.WatchCreateRequest, *pb.WatchResponse) ([]*pb.WatchResponse, error)
	alive func(*pb.LeaseKeepAliveResponse) ([]*pb.LeaseKeepAliveResponse, error)
	grant func(*pb.LeaseGrantResponse) (*pb.LeaseGrantResponse, error)
	login func(*pb.AuthenticateResponse) (*pb.AuthenticateResponse, error)
	// silent says that the fake answers no request.
	silent bool
}

// fake is an etcd of one member in memory. After lie it gives false answers. Its
// leases do not expire.
type fake struct {
	pb.UnimplementedKVServer
	pb.UnimplementedWatchServer
	pb.UnimplementedLeaseServer
	pb.UnimplementedAuthServer
	pb.UnimplementedMaintenanceServer

	server *grpc.Server
	net    *bufconn.Listener

	mu       sync.Mutex
	lies     answers
	rev      int64
	kvs      map[string]*mvccpb.KeyValue
	history  []*mvccpb.Event
	leases   map[int64]int64
	lastID   int64
	watches  map[*fakeWatch]struct{}
	breaks   chan struct{} // closed and replaced to end all streams
	requests int           // unary calls, streams, and messages on streams
}

type fakeWatch struct {
	id    int64
	begin []byte
	end   []byte
	out   chan *pb.WatchResponse
}

func newFake(t *testing.T) *fake {
	f := &fake{
		server: grpc.NewServer(), net: bufconn.Listen(1 << 20), rev: 10,
		kvs: make(map[string]*mvccpb.KeyValue), leases: make(map[int64]int64),
		watches: make(map[*fakeWatch]struct{}), breaks: make(chan struct{}),
	}
	pb.RegisterKVServer(f.server, f)
	pb.RegisterWatchServer(f.server, f)
	pb.RegisterLeaseServer(f.server, f)
	pb.RegisterAuthServer(f.server, f)
	pb.RegisterMaintenanceServer(f.server, f)
	go func() { _ = f.server.Serve(f.net) }()
	t.Cleanup(f.server.Stop)
	return f
}

// client returns a client of the fake.
func (f *fake) client(t *testing.T, user string) *clientv3.Client {
	t.Helper()
	// The client's log would bury the test's own. Another test may set the variable
	// to the same value.
	must(t, os.Setenv("ETCD_CLIENT_DEBUG", "fatal"))
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"passthrough:///fake"}, Username: user, Password: user,
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return f.net.DialContext(ctx)
		})},
	})
	must(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// lie makes the fake answer with a from now on, and ends all streams.
func (f *fake) lie(a answers) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lies = a
	close(f.breaks)
	f.breaks = make(chan struct{})
}

// asked counts a request, and returns the false answers of the fake. If the fake is
// silent, asked returns when ctx ends, with an error.
func (f *fake) asked(ctx context.Context) (answers, error) {
	f.mu.Lock()
	f.requests++
	a := f.lies
	f.mu.Unlock()
	if a.silent {
		<-ctx.Done()
		return a, ctx.Err()
	}
	return a, nil
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests
}

// header returns the header of an answer. The caller holds f.mu.
func (f *fake) header() *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: 7, MemberId: 1, RaftTerm: 2, Revision: f.rev}
}

func in(key string, begin, end []byte) bool {
	switch {
	case len(end) == 0:
		return key == string(begin)
	case len(end) == 1 && end[0] == 0:
		return key >= string(begin)
	}
	return key >= string(begin) && key < string(end)
}

func (f *fake) Status(ctx context.Context, _ *pb.StatusRequest) (*pb.StatusResponse, error) {
	_, err := f.asked(ctx)
	return &pb.StatusResponse{}, err
}

func (f *fake) Authenticate(ctx context.Context, _ *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	a, err := f.asked(ctx)
	r := &pb.AuthenticateResponse{Token: "token"}
	if err == nil && a.login != nil {
		return a.login(r)
	}
	return r, err
}

func (f *fake) Range(ctx context.Context, q *pb.RangeRequest) (*pb.RangeResponse, error) {
	a, err := f.asked(ctx)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	r := f.read(q)
	f.mu.Unlock()
	if a.read != nil {
		return a.read(q, r)
	}
	return r, nil
}

// read reads the newest state. The caller holds f.mu.
func (f *fake) read(q *pb.RangeRequest) *pb.RangeResponse {
	r := &pb.RangeResponse{Header: f.header()}
	for _, key := range slices.Sorted(maps.Keys(f.kvs)) {
		if !in(key, q.Key, q.RangeEnd) {
			continue
		}
		r.Count++
		if q.Limit > 0 && int64(len(r.Kvs)) == q.Limit {
			r.More = true
			continue
		}
		r.Kvs = append(r.Kvs, f.kvs[key])
	}
	return r
}

func (f *fake) Put(ctx context.Context, q *pb.PutRequest) (*pb.PutResponse, error) {
	a, err := f.asked(ctx)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.rev++
	err = f.put(q)
	h := f.header()
	f.mu.Unlock()
	if err == nil && a.write != nil {
		h, err = a.write(h)
	}
	return &pb.PutResponse{Header: h}, err
}

// put puts an entry at the present revision. The caller holds f.mu.
func (f *fake) put(q *pb.PutRequest) error {
	if _, ok := f.leases[q.Lease]; q.Lease != 0 && !ok {
		return rpctypes.ErrGRPCLeaseNotFound
	}
	kv := &mvccpb.KeyValue{Key: q.Key, Value: q.Value, Lease: q.Lease, CreateRevision: f.rev, ModRevision: f.rev, Version: 1}
	if old := f.kvs[string(q.Key)]; old != nil {
		kv.CreateRevision, kv.Version = old.CreateRevision, old.Version+1
	}
	f.kvs[string(q.Key)] = kv
	f.publish(&mvccpb.Event{Type: mvccpb.PUT, Kv: kv})
	return nil
}

func (f *fake) remove(key string) {
	if f.kvs[key] != nil {
		delete(f.kvs, key)
		f.publish(&mvccpb.Event{Type: mvccpb.DELETE, Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: f.rev}})
	}
}

// publish sends an event to the watches of its key. The caller holds f.mu.
func (f *fake) publish(ev *mvccpb.Event) {
	f.history = append(f.history, ev)
	for w := range f.watches {
		if in(string(ev.Kv.Key), w.begin, w.end) {
			select {
			case w.out <- &pb.WatchResponse{Header: f.header(), WatchId: w.id, Events: []*mvccpb.Event{ev}}:
			default:
			}
		}
	}
}

func (f *fake) DeleteRange(ctx context.Context, q *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	a, err := f.asked(ctx)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.rev++
	f.remove(string(q.Key))
	h := f.header()
	f.mu.Unlock()
	if a.write != nil {
		h, err = a.write(h)
	}
	return &pb.DeleteRangeResponse{Header: h}, err
}

func (f *fake) Txn(ctx context.Context, q *pb.TxnRequest) (*pb.TxnResponse, error) {
	a, err := f.asked(ctx)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.rev++
	r, err := f.do(q)
	f.mu.Unlock()
	if err == nil && a.txn != nil {
		return a.txn(r)
	}
	return r, err
}

// do makes a transaction. The caller holds f.mu.
func (f *fake) do(q *pb.TxnRequest) (*pb.TxnResponse, error) {
	r := &pb.TxnResponse{Header: f.header(), Succeeded: true}
	for _, c := range q.Compare {
		kv := f.kvs[string(c.Key)]
		var have, want int64
		switch c.Target {
		case pb.Compare_LEASE:
			have, want = kv.GetLease(), c.GetLease()
		case pb.Compare_CREATE:
			have, want = kv.GetCreateRevision(), c.GetCreateRevision()
		case pb.Compare_MOD:
			have, want = kv.GetModRevision(), c.GetModRevision()
		}
		r.Succeeded = r.Succeeded && have == want
	}
	ops := q.Success
	if !r.Succeeded {
		ops = q.Failure
	}
	for _, op := range ops {
		answer := &pb.ResponseOp{}
		switch o := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			answer.Response = &pb.ResponseOp_ResponseRange{ResponseRange: f.read(o.RequestRange)}
		case *pb.RequestOp_RequestPut:
			if err := f.put(o.RequestPut); err != nil {
				return nil, err
			}
			answer.Response = &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{}}
		case *pb.RequestOp_RequestDeleteRange:
			f.remove(string(o.RequestDeleteRange.Key))
			answer.Response = &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: &pb.DeleteRangeResponse{}}
		case *pb.RequestOp_RequestTxn:
			inner, err := f.do(o.RequestTxn)
			if err != nil {
				return nil, err
			}
			answer.Response = &pb.ResponseOp_ResponseTxn{ResponseTxn: inner}
		}
		r.Responses = append(r.Responses, answer)
	}
	return r, nil
}

func (f *fake) LeaseGrant(ctx context.Context, q *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	a, err := f.asked(ctx)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.lastID++
	f.leases[f.lastID] = q.TTL
	r := &pb.LeaseGrantResponse{Header: f.header(), ID: f.lastID, TTL: q.TTL}
	f.mu.Unlock()
	if a.grant != nil {
		return a.grant(r)
	}
	return r, nil
}

func (f *fake) LeaseRevoke(ctx context.Context, q *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	a, err := f.asked(ctx)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.rev++
	delete(f.leases, q.ID)
	for key, kv := range f.kvs {
		if kv.Lease == q.ID {
			f.remove(key)
		}
	}
	h := f.header()
	f.mu.Unlock()
	if a.write != nil {
		h, err = a.write(h)
	}
	return &pb.LeaseRevokeResponse{Header: h}, err
}

func (f *fake) LeaseKeepAlive(s pb.Lease_LeaseKeepAliveServer) error {
	return f.stream(s.Context(), func() (func() error, error) {
		q, err := s.Recv()
		return func() error {
			a, err := f.asked(s.Context())
			if err != nil {
				return err
			}
			f.mu.Lock()
			rs := []*pb.LeaseKeepAliveResponse{{Header: f.header(), ID: q.ID, TTL: f.leases[q.ID]}}
			f.mu.Unlock()
			if a.alive != nil {
				rs, err = a.alive(rs[0])
			}
			for _, r := range rs {
				if e := s.Send(r); e != nil {
					return e
				}
			}
			return err
		}, err
	}, nil, nil)
}

func (f *fake) Watch(s pb.Watch_WatchServer) error {
	out := make(chan *pb.WatchResponse, 1000)
	mine := make(map[int64]*fakeWatch)
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, w := range mine {
			delete(f.watches, w)
		}
	}()
	return f.stream(s.Context(), func() (func() error, error) {
		q, err := s.Recv()
		return func() error {
			a, err := f.asked(s.Context())
			if err != nil {
				return err
			}
			f.mu.Lock()
			var rs []*pb.WatchResponse
			create := q.GetCreateRequest()
			if create != nil {
				w := &fakeWatch{id: create.WatchId, begin: create.Key, end: create.RangeEnd, out: out}
				mine[w.id] = w
				f.watches[w] = struct{}{}
				rs = append(rs, &pb.WatchResponse{Header: f.header(), WatchId: w.id, Created: true})
				past := &pb.WatchResponse{Header: f.header(), WatchId: w.id}
				for _, ev := range f.history {
					if create.StartRevision > 0 && ev.Kv.ModRevision >= create.StartRevision && in(string(ev.Kv.Key), w.begin, w.end) {
						past.Events = append(past.Events, ev)
					}
				}
				if len(past.Events) > 0 && a.watch == nil {
					rs = append(rs, past)
				}
			} else if c := q.GetCancelRequest(); c != nil {
				delete(f.watches, mine[c.WatchId])
				rs = append(rs, &pb.WatchResponse{Header: f.header(), WatchId: c.WatchId, Canceled: true})
			}
			f.mu.Unlock()
			if create != nil && a.watch != nil {
				rs, err = a.watch(create, rs[0])
			}
			for _, r := range rs {
				if e := s.Send(r); e != nil {
					return e
				}
			}
			return err
		}, err
	}, out, s.Send)
}

// stream serves a stream: it receives requests, answers each, and sends the
// messages of out. It returns when the client or the fake ends the stream.
func (f *fake) stream(ctx context.Context, receive func() (answer func() error, err error), out <-chan *pb.WatchResponse, send func(*pb.WatchResponse) error) error {
	f.mu.Lock()
	f.requests++
	breaks := f.breaks
	f.mu.Unlock()
	type received struct {
		answer func() error
		err    error
	}
	requests := make(chan received)
	go func() {
		for {
			answer, err := receive()
			select {
			case requests <- received{answer, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	for {
		select {
		case r := <-requests:
			if r.err != nil {
				return nil
			}
			if err := r.answer(); err != nil {
				return err
			}
		case r := <-out:
			if err := send(r); err != nil {
				return err
			}
		case <-breaks:
			return status.Error(codes.Unavailable, "the fake ends the stream")
		case <-ctx.Done():
			return nil
		}
	}
}
