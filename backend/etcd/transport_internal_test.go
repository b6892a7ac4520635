package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// testServer is the server's side of one watch, for each transport.
type testServer interface {
	transport(l *link) transport
	// say sends an answer after the watch has begun.
	say(t *testing.T, r *pb.WatchResponse)
}

// streamServer answers on a streamTransport.
type streamServer struct {
	tr *streamTransport
	id int64
}

func (s *streamServer) transport(l *link) transport {
	s.tr = newStreamTransport(l)
	return s.tr
}

func (s *streamServer) say(t *testing.T, r *pb.WatchResponse) {
	for s.id == 0 {
		<-s.tr.wakeup
		q := s.tr.nextRequest().GetCreateRequest()
		if q.StartRevision != 11 || string(q.Key) != "dir/" || string(q.RangeEnd) != "dir0" {
			t.Errorf("the request is %v", q)
		}
		s.id = q.WatchId
		s.routeTo(t, &pb.WatchResponse{Created: true})
	}
	s.routeTo(t, r)
}

func (s *streamServer) routeTo(t *testing.T, r *pb.WatchResponse) {
	r.WatchId = s.id
	s.tr.link.hear(r.GetHeader().GetRevision())
	if err := s.tr.route(r); err != nil {
		t.Error(err)
	}
}

// watcherServer answers on a watcherTransport. It joins fragments, as etcd's client does.
type watcherServer struct {
	c      chan clientv3.WatchResponse
	joined []*clientv3.Event
}

func (s *watcherServer) transport(l *link) transport { return newWatcherTransport(l, s) }

func (s *watcherServer) Watch(context.Context, string, ...clientv3.OpOption) clientv3.WatchChan {
	return s.c
}
func (s *watcherServer) RequestProgress(context.Context) error { return nil }
func (s *watcherServer) Close() error                          { return nil }

func (s *watcherServer) say(_ *testing.T, r *pb.WatchResponse) {
	s.joined = append(s.joined, clientEvents(r.Events)...)
	if r.Fragment {
		return
	}
	c := clientv3.WatchResponse{Events: s.joined, CompactRevision: r.CompactRevision, Canceled: r.Canceled || r.CompactRevision != 0}
	if c.Canceled {
		c.Events = nil
	}
	c.Header = r.Header
	s.joined = nil
	s.c <- c
}

func clientEvents(events []*mvccpb.Event) []*clientv3.Event {
	var list []*clientv3.Event
	for _, ev := range events {
		list = append(list, (*clientv3.Event)(ev))
	}
	return list
}

// TestTransports checks that both transports deliver the same changes and refuse the same
// answers.
func TestTransports(t *testing.T) {
	errLink := errors.New("the link has failed")
	put := func(rev int64, key string) *mvccpb.Event {
		return &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: rev}}
	}
	say := func(cluster uint64, evs ...*mvccpb.Event) *pb.WatchResponse {
		return &pb.WatchResponse{Header: &pb.ResponseHeader{ClusterId: cluster, Revision: 20}, Events: evs}
	}
	part := func(evs ...*mvccpb.Event) *pb.WatchResponse {
		r := say(7, evs...)
		r.Fragment = true
		return r
	}
	end := say(7, put(99, "dir/end"))
	for _, tt := range []struct {
		name    string
		answers []*pb.WatchResponse
		fail    bool // the link fails after the answers
		want    []string
		err     error // nil means that the loop ends at the key dir/end
	}{
		{"changes", []*pb.WatchResponse{say(7, put(11, "dir/a")), say(7, put(12, "dir/b"), put(12, "dir/c")), end}, false, []string{"dir/a@11", "dir/b@12", "dir/c@12", "dir/end@99"}, nil},
		{"no cluster", []*pb.WatchResponse{say(0, put(11, "dir/a")), end}, false, []string{"dir/a@11", "dir/end@99"}, nil},
		{"progress", []*pb.WatchResponse{say(7), say(7), end}, false, []string{"dir/end@99"}, nil},
		{"fragments", []*pb.WatchResponse{part(put(11, "dir/a")), part(put(11, "dir/b")), say(7, put(11, "dir/c")), end}, false, []string{"dir/a@11", "dir/b@11", "dir/c@11", "dir/end@99"}, nil},
		{"canceled between fragments", []*pb.WatchResponse{part(put(11, "dir/a")), {Header: &pb.ResponseHeader{}, Canceled: true}}, false, nil, rpctypes.ErrFutureRev},
		{"canceled", []*pb.WatchResponse{{Header: &pb.ResponseHeader{}, Canceled: true}}, false, nil, rpctypes.ErrFutureRev},
		{"compacted", []*pb.WatchResponse{{Header: &pb.ResponseHeader{}, Canceled: true, CompactRevision: 15}}, false, nil, rpctypes.ErrCompacted},
		{"compacted, not said to be canceled", []*pb.WatchResponse{{Header: &pb.ResponseHeader{}, CompactRevision: 15}}, false, nil, rpctypes.ErrCompacted},
		{"replaced", []*pb.WatchResponse{say(8, put(11, "dir/a"))}, false, nil, errReplaced},
		{"replaced, in a progress notification", []*pb.WatchResponse{say(8)}, false, nil, errReplaced},
		{"no entry", []*pb.WatchResponse{say(7, &mvccpb.Event{})}, false, nil, errAnswer},
		{"unknown type", []*pb.WatchResponse{say(7, &mvccpb.Event{Type: 9, Kv: put(11, "dir/a").Kv})}, false, nil, errAnswer},
		{"foreign key", []*pb.WatchResponse{say(7, put(11, "other/a"))}, false, nil, errAnswer},
		{"before the snapshot", []*pb.WatchResponse{say(7, put(10, "dir/a"))}, false, nil, errAnswer},
		{"revisions backwards", []*pb.WatchResponse{say(7, put(13, "dir/a"), put(12, "dir/b"))}, false, nil, errAnswer},
		{"the link fails", []*pb.WatchResponse{say(7)}, true, nil, errLink},
		{"the link fails later", []*pb.WatchResponse{say(7, put(11, "dir/a"))}, true, []string{"dir/a@11"}, errLink},
	} {
		for name, srv := range map[string]testServer{"stream": &streamServer{}, "watcher": &watcherServer{c: make(chan clientv3.WatchResponse)}} {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				l := newTestLink(t)
				l.ctx, l.cancel = context.WithCancelCause(t.Context())
				s := l.store
				s.link, s.known = l, epoch{cluster: 7}
				l.transport = srv.transport(l)
				got, visited, result := []string(nil), make(chan int, 100), make(chan error, 1)
				go func() {
					result <- s.newChangeLoop(t.Context(), "dir/", position{epoch: s.known, revision: 10}, func(events []*clientv3.Event) (bool, error) {
						for _, ev := range events {
							got = append(got, fmt.Sprintf("%s@%d", ev.Kv.Key, ev.Kv.ModRevision))
						}
						visited <- len(got)
						return string(events[len(events)-1].Kv.Key) != "dir/end", nil
					}).run()
				}()
				for _, r := range tt.answers {
					srv.say(t, r)
				}
				if tt.fail {
					for n := 0; n < len(tt.want); n = <-visited {
					}
					l.fail(errLink)
				}
				if err := <-result; !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
					t.Errorf("the watch ended with %v, want %v", err, tt.err)
				}
				if !slices.Equal(got, tt.want) {
					t.Errorf("delivered %q, want %q", got, tt.want)
				}
			})
		}
	}
}

// TestTransportsContext checks that the context of a loop ends the loop on both transports.
func TestTransportsContext(t *testing.T) {
	for name, srv := range map[string]testServer{"stream": &streamServer{}, "watcher": &watcherServer{c: make(chan clientv3.WatchResponse)}} {
		l := newTestLink(t)
		l.ctx, l.cancel = context.WithCancelCause(t.Context())
		l.store.link = l
		l.transport = srv.transport(l)
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() { result <- l.store.newChangeLoop(ctx, "dir/", position{revision: 10}, nil).run() }()
		cancel()
		if err := <-result; err != context.Canceled {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReconnectEvery checks how often a Store makes its client connect.
func TestReconnectEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r reconnects
		if !r.due() || r.due() {
			t.Error("the first call is due, and the second one is not")
		}
		time.Sleep(reconnectEvery - time.Nanosecond)
		if r.due() {
			t.Errorf("a call is due before %v", reconnectEvery)
		}
		time.Sleep(time.Nanosecond)
		if !r.due() || r.due() {
			t.Errorf("one call is due after %v", reconnectEvery)
		}
	})
}
