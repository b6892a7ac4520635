package etcd_test

import (
	"context"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/internal/etcdtest"
)

// TestFieldR8EditedByHand runs "etcdctl put KEY VALUE" on the key of a registration, with
// the same value and with another. The put takes the key from the lease. The Client puts
// the entry under the lease again. The entry goes when the server stops, in order or not.
func TestFieldR8EditedByHand(t *testing.T) {
	t.Parallel()
	r := newRig(t, etcdtest.Start(t, nil), nil)
	client := naming.New(r, &naming.Options{Logger: silent})
	t.Cleanup(client.Close)
	g, err := client.Register(t.Context(), "svc", naming.Endpoint{Addr: "a:1"}, &naming.RegisterOptions{TTL: 2 * time.Second, Wait: true, DrainDelay: -1})
	must(t, err)
	ours := r.value(t, "svc/a:1")

	// leased waits until the key is under a lease, and returns the lease's ID.
	leased := func() clientv3.LeaseID {
		t.Helper()
		kv, err := r.await(t, "svc/a:1", func(kv *mvccpb.KeyValue) bool {
			return kv != nil && kv.Lease != 0 && string(kv.Value) == ours
		})
		if err != nil {
			t.Fatalf("the key is not under a lease with its old value: %v; value %q; status %+v", err, r.value(t, "svc/a:1"), g.Status())
		}
		return clientv3.LeaseID(kv.Lease)
	}
	first := leased()
	for _, value := range []string{ours, `{"Op":0,"Addr":"a:1","Metadata":{"weight":2}}`, ours} {
		r.put(t, "svc/a:1", value)
		if again := leased(); again != first {
			t.Errorf("the key is under lease %x, want the lease from before the edit, %x", again, first)
		}
	}

	// The server stops in order, right after an edit that the Client has not noticed.
	r.put(t, "svc/a:1", ours)
	must(t, g.Close())
	if v := r.value(t, "svc/a:1"); v != "" {
		t.Errorf("after Close the key has the value %s", v)
	}

	// The server stops without order: nothing renews the lease.
	g, err = client.Register(t.Context(), "svc", naming.Endpoint{Addr: "a:1"}, &naming.RegisterOptions{TTL: 2 * time.Second, Wait: true, DrainDelay: -1})
	must(t, err)
	leased()
	r.put(t, "svc/a:1", ours)
	id := leased()
	for _, p := range r.proxies {
		p.BlackHole()
	}
	if _, err := r.await(t, "svc/a:1", func(kv *mvccpb.KeyValue) bool { return kv == nil }); err != nil {
		t.Fatalf("the key under lease %x is still there after the time to live: %v", id, err)
	}
	r.heal()
}

// await waits until ok returns true for a key below the prefix, and returns the key. ok
// gets nil if the key does not exist.
func (r *rig) await(t *testing.T, key string, ok func(*mvccpb.KeyValue) bool) (*mvccpb.KeyValue, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), returnBound)
	defer cancel()
	resp, err := r.admin.Get(ctx, r.prefix+key)
	if err != nil {
		return nil, err
	}
	var kv *mvccpb.KeyValue
	if len(resp.Kvs) == 1 {
		kv = resp.Kvs[0]
	}
	if ok(kv) {
		return kv, nil
	}
	for resp := range r.admin.Watch(ctx, r.prefix+key, clientv3.WithRev(resp.Header.Revision+1)) {
		if err := resp.Err(); err != nil {
			return nil, err
		}
		for _, ev := range resp.Events {
			kv = ev.Kv
			if ev.Type == clientv3.EventTypeDelete {
				kv = nil
			}
			if ok(kv) {
				return kv, nil
			}
		}
	}
	return nil, context.Cause(ctx)
}
