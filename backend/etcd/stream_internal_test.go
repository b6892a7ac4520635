package etcd

import (
	"errors"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// newTestLink returns a link without a server. Nothing checks how long it is silent.
func newTestLink(t *testing.T) *link {
	l := New(&clientv3.Client{}, nil).newLink()
	l.cancel(nil)
	l.wg.Wait()
	l.ctx, l.cancel = t.Context(), func(error) {}
	return l
}

// newAskedStream returns a stream that has asked for n watches.
func newAskedStream(t *testing.T, n int) (*streamTransport, []*streamSubscription) {
	tr := newStreamTransport(newTestLink(t))
	var subs []*streamSubscription
	for i := range n {
		s := tr.subscribe(t.Context(), "dir/", position{epoch: epoch{cluster: 7}, revision: int64(i)})
		tr.echoes = true
		tr.nextRequest()
		subs = append(subs, s.(*streamSubscription))
	}
	return tr, subs
}

// TestSenselessAnswer checks that an answer that belongs to no watch ends the link.
func TestSenselessAnswer(t *testing.T) {
	for name, answer := range map[string]func(subs []*streamSubscription) *pb.WatchResponse{
		"of another watch": func(subs []*streamSubscription) *pb.WatchResponse {
			return &pb.WatchResponse{Created: true, WatchId: subs[2].id}
		},
		"twice": func(subs []*streamSubscription) *pb.WatchResponse {
			return &pb.WatchResponse{Created: true, WatchId: subs[0].id}
		},
	} {
		tr, subs := newAskedStream(t, 3)
		if err := tr.route(&pb.WatchResponse{Created: true, WatchId: subs[0].id}); err != nil {
			t.Fatal(err)
		}
		if err := tr.route(answer(subs)); !errors.Is(err, errAnswer) {
			t.Errorf("%s: %v", name, err)
		}
	}
	tr, subs := newAskedStream(t, 1)
	if err := tr.route(&pb.WatchResponse{Created: true, WatchId: subs[0].id}); err != nil {
		t.Fatal(err)
	}
	if err := tr.route(&pb.WatchResponse{Created: true, WatchId: 5}); !errors.Is(err, errAnswer) {
		t.Errorf("an answer that was not asked for: %v", err)
	}
	// An answer may arrive after its watch was canceled.
	if err := tr.route(&pb.WatchResponse{WatchId: 5, Events: []*mvccpb.Event{{}}}); err != nil {
		t.Error(err)
	}
}

// TestReplacedBehindStream replaces the registry behind a proxy. The watch must end, and its
// subscription must be canceled.
func TestReplacedBehindStream(t *testing.T) {
	tr, subs := newAskedStream(t, 1)
	for _, r := range []*pb.WatchResponse{
		{Header: &pb.ResponseHeader{}, Created: true, WatchId: subs[0].id}, // etcd's proxy sends no cluster ID here.
		{Header: &pb.ResponseHeader{ClusterId: 7}, WatchId: subs[0].id, Events: []*mvccpb.Event{{}}},
		{Header: &pb.ResponseHeader{ClusterId: 8}, WatchId: subs[0].id, Events: []*mvccpb.Event{{}}},
	} {
		if err := tr.route(r); err != nil {
			t.Fatal(err)
		}
	}
	if events, err := subs[0].takeEvents(); len(events) != 1 || err != errReplaced {
		t.Errorf("%d events, %v", len(events), err)
	}
	if r := tr.nextRequest(); r.GetCancelRequest().GetWatchId() != subs[0].id {
		t.Errorf("the next request is %v", r)
	}
}
