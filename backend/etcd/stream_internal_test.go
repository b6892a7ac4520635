package etcd

import (
	"errors"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// asked returns a link that has asked for n watches.
func asked(n int) (*link, []*watch) {
	l := New(&clientv3.Client{}, nil).newLink()
	l.watcher = nil
	l.cancel(nil)
	l.wg.Wait()
	l.todo, l.watches = make(chan struct{}, 1), make(map[int64]*watch)
	var ws []*watch
	for i := range n {
		w := l.add("dir/", state{epoch: epoch{cluster: 7}, at: int64(i)})
		l.ids = true
		l.request()
		ws = append(ws, w)
	}
	return l, ws
}

// TestSenselessAnswer: answers that cannot be told whose they are end the link.
func TestSenselessAnswer(t *testing.T) {
	for name, answer := range map[string]func(ws []*watch) *pb.WatchResponse{
		"of another watch": func(ws []*watch) *pb.WatchResponse {
			return &pb.WatchResponse{Created: true, WatchId: ws[2].id}
		},
		"twice": func(ws []*watch) *pb.WatchResponse {
			return &pb.WatchResponse{Created: true, WatchId: ws[0].id}
		},
	} {
		l, ws := asked(3)
		if err := l.hand(&pb.WatchResponse{Created: true, WatchId: ws[0].id}); err != nil {
			t.Fatal(err)
		}
		if err := l.hand(answer(ws)); !errors.Is(err, errAnswer) {
			t.Errorf("%s: %v", name, err)
		}
	}
	l, ws := asked(1)
	if err := l.hand(&pb.WatchResponse{Created: true, WatchId: ws[0].id}); err != nil {
		t.Fatal(err)
	}
	if err := l.hand(&pb.WatchResponse{Created: true, WatchId: 5}); !errors.Is(err, errAnswer) {
		t.Errorf("not asked for: %v", err)
	}
	// The rest of what was said to a watch that has been left.
	if err := l.hand(&pb.WatchResponse{WatchId: 5, Events: []*mvccpb.Event{{}}}); err != nil {
		t.Error(err)
	}
}

// TestReplacedBehindStream: what is behind a proxy may become another registry.
func TestReplacedBehindStream(t *testing.T) {
	l, ws := asked(1)
	for _, r := range []*pb.WatchResponse{
		{Header: &pb.ResponseHeader{}, Created: true, WatchId: ws[0].id}, // etcd's proxy does not say
		{Header: &pb.ResponseHeader{ClusterId: 7}, WatchId: ws[0].id, Events: []*mvccpb.Event{{}}},
		{Header: &pb.ResponseHeader{ClusterId: 8}, WatchId: ws[0].id, Events: []*mvccpb.Event{{}}},
	} {
		if err := l.hand(r); err != nil {
			t.Fatal(err)
		}
	}
	if events, err := l.take(ws[0]); len(events) != 1 || err != errReplaced {
		t.Errorf("%d events, %v", len(events), err)
	}
	if r := l.request(); r.GetCancelRequest().GetWatchId() != ws[0].id {
		t.Errorf("then asks for %v", r)
	}
}
