package etcd_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/etcd/etcdcodec"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/servertest"
)

// TestMarkOfRegistration marks an endpoint that another program keeps registered. The mark
// stays through an Update and a revoked lease, until an operator removes it.
func TestMarkOfRegistration(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, release etcdtest.Release) {
		r := newRig(t, etcdtest.Start(t, &etcdtest.Options{Release: release}), nil)
		program := naming.New(r, &naming.Options{Logger: silent})
		t.Cleanup(program.Close)
		operator := naming.New(r.store(nil), &naming.Options{Logger: silent})
		t.Cleanup(operator.Close)
		g, err := program.Register(t.Context(), "svc", naming.Endpoint{Addr: "a:1"}, &naming.RegisterOptions{TTL: 2 * time.Second, Wait: true, DrainDelay: -1})
		must(t, err)
		before, err := r.admin.Get(t.Context(), r.prefix+"svc/a:1")
		must(t, err)

		must(t, operator.Mark(t.Context(), "svc", "a:1", true))
		after, err := r.admin.Get(t.Context(), r.prefix+"svc/a:1")
		must(t, err)
		if was, is := before.Kvs[0], after.Kvs[0]; is.Lease != was.Lease || is.Version != was.Version+1 {
			t.Errorf("the entry was under lease %x in version %d, and is under lease %x in version %d", was.Lease, was.Version, is.Lease, is.Version)
		}
		adopted := func() error {
			if st := g.Status(); !st.Draining || !st.MarkedByOther || !st.Registered {
				return fmt.Errorf("status %+v", st)
			}
			return nil
		}
		servertest.Poll(t, "the mark is not adopted", adopted)
		must(t, g.Update(t.Context(), []byte(`{"weight":2}`)))
		const marked = `{"Op":0,"Addr":"a:1","Metadata":{"weight":2},"Draining":true}`
		if v := r.value(t, "svc/a:1"); v != marked {
			t.Errorf("after an Update the value is %s", v)
		}
		r.cluster.RevokeLease(t, clientv3.LeaseID(after.Kvs[0].Lease))
		servertest.Poll(t, "the endpoint does not return with its mark", func() error {
			if v := r.value(t, "svc/a:1"); v != marked {
				return fmt.Errorf("the value is %q", v)
			}
			return adopted()
		})
		must(t, operator.Mark(t.Context(), "svc", "a:1", false))
		servertest.Poll(t, "the mark is not given up", func() error {
			if st := g.Status(); st.Draining || st.MarkedByOther {
				return fmt.Errorf("status %+v", st)
			}
			return nil
		})
		if v := r.value(t, "svc/a:1"); v != `{"Op":0,"Addr":"a:1","Metadata":{"weight":2}}` {
			t.Errorf("after the removal of the mark the value is %s", v)
		}
	})
}

// TestMarkOfOtherWriters marks entries of other programs, whose members and lease stay.
func TestMarkOfOtherWriters(t *testing.T) {
	t.Parallel()
	r := newRig(t, etcdtest.Start(t, nil), nil)
	for _, x := range []struct {
		codec          *etcd.Codec
		id, key, value string
	}{
		{etcd.Default(), "a:1", "svc/a:1", `{"Op":0,"Addr":"a:1","Metadata":{"x":1.50,"y":[null]},"Zone":"z","Other":{"a":"b"}}`},
		{etcd.Default(), "unix:/run/a.sock", "svc/unix:/run/a.sock", `{"Op":0,"Addr":"unix:/run/a.sock","Metadata":"text"}`},
		{etcd.Default(), "b/1", "svc/b%2F1", `{"Op":0,"Addr":"a:2","Metadata":null}`},
		{etcdcodec.Kratos(), "1", "/microservices/svc/1", `{"id":"1","name":"svc","version":"v2","metadata":{"zone":"z"},"endpoints":["grpc://a:1","http://a:2"],"extra":7}`},
		{etcdcodec.Kitex(), "a:1", "kitex/registry-etcd/svc/a:1", `{"network":"tcp","address":"a:1","weight":10,"tags":{"zone":"z"}}`},
	} {
		lease, err := r.admin.Grant(t.Context(), 600)
		must(t, err)
		_, err = r.admin.Put(t.Context(), r.prefix+x.key, x.value, clientv3.WithLease(lease.ID))
		must(t, err)
		s := r.store(x.codec)
		before := listOf(t, s, "svc")
		must(t, s.Mark(t.Context(), "svc", x.id, true))
		resp, err := r.admin.Get(t.Context(), r.prefix+x.key)
		must(t, err)
		if kv := resp.Kvs[0]; kv.Lease != int64(lease.ID) {
			t.Errorf("%s: under lease %x, want %x", x.key, kv.Lease, lease.ID)
		}
		members := func(value []byte) (m map[string]any) {
			must(t, json.Unmarshal(value, &m))
			return m
		}
		was, is := members([]byte(x.value)), members(resp.Kvs[0].Value)
		for name := range maps.Keys(was) {
			if !strings.EqualFold(name, "metadata") && !strings.EqualFold(name, "tags") && !reflect.DeepEqual(was[name], is[name]) {
				t.Errorf("%s: member %s was %v and is %v", x.key, name, was[name], is[name])
			}
		}
		after := listOf(t, s, "svc")
		if len(after) != 1 || len(before) != 1 || !after[0].Draining || before[0].Draining {
			t.Fatalf("%s: before %+v, after %+v", x.key, before, after)
		}
		if after[0].Draining = false; !after[0].Equal(before[0]) {
			t.Errorf("%s: was %+v and is %+v", x.key, before[0], after[0])
		}
		must(t, s.Mark(t.Context(), "svc", x.id, false))
		if again := listOf(t, s, "svc"); len(again) != 1 || !again[0].Equal(before[0]) {
			t.Errorf("%s: was %+v and is %+v without the mark", x.key, before[0], again)
		}
		_, err = r.admin.Delete(t.Context(), r.prefix+x.key)
		must(t, err)
	}
}

// TestMarkRefused: a format without a place for the mark, and a mark that is turned off.
func TestMarkRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, etcdtest.Start(t, nil), nil)
	r.put(t, "svc/a:1", `{"Op":0,"Addr":"a:1","Metadata":null}`)
	before := r.calls.Load()
	for name, s := range map[string]*etcd.Store{
		"no marks": etcd.New(r.client, &etcd.Options{Prefix: r.prefix, NoDrainingMark: true}),
		"go-zero":  r.store(etcdcodec.GoZero()),
	} {
		err := s.Mark(t.Context(), "svc", "a:1", true)
		if !errors.Is(err, naming.ErrInvalid) || !strings.Contains(err.Error(), "mark") {
			t.Errorf("%s: got error %v, want ErrInvalid", name, err)
		}
	}
	if n := r.calls.Load() - before; n != 0 {
		t.Errorf("%d requests, want none", n)
	}
}

// TestMarkRights: the error of a user who may not write names the right and the key.
func TestMarkRights(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, &etcdtest.Options{Args: []string{"--bcrypt-cost=4"}})
	cluster.EnableAuth(t, etcdtest.User{Name: "app", Password: "secret", Prefix: "/other/"})
	r := newRig(t, cluster, func(cfg *clientv3.Config) { cfg.Username, cfg.Password = "app", "secret" })
	ctx, cancel := context.WithTimeout(t.Context(), servertest.Patience)
	defer cancel()
	err := r.Mark(ctx, "svc", "a:1", true)
	if !errors.Is(err, naming.ErrPermission) || !strings.Contains(err.Error(), "read and write the key") {
		t.Errorf("got error %v, want ErrPermission with the right and the key", err)
	}
}

// TestMarkTooLarge: an entry that is as large as the server allows has no room for the mark.
func TestMarkTooLarge(t *testing.T) {
	t.Parallel()
	const limit = 20000
	r := newRig(t, etcdtest.Start(t, &etcdtest.Options{Args: []string{fmt.Sprint("--max-request-bytes=", limit)}}), nil)
	value := func(size int) string {
		return fmt.Sprintf(`{"Op":0,"Addr":"a:1","Metadata":"%s"}`, strings.Repeat("x", size))
	}
	size, err := limit, errors.New("not put yet")
	for ; err != nil; size -= 4 {
		_, err = r.admin.Put(t.Context(), r.prefix+"svc/a:1", value(size))
		if size < limit/2 {
			t.Fatalf("a value of half the limit is refused: %v", err)
		}
	}
	if err := r.Mark(t.Context(), "svc", "a:1", true); !errors.Is(err, naming.ErrInvalid) {
		t.Errorf("got error %v, want ErrInvalid", err)
	}
	if list := listOf(t, r, "svc"); len(list) != 1 || list[0].Draining {
		t.Errorf("%d endpoints, want one without the mark", len(list))
	}
}
