package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/faultproxy"
	"github.com/naming-go/naming/internal/servertest"
)

// reader is what a program has: a Registry on the store, watching "svc".
type reader struct {
	*rig
	registry *naming.Registry
	views    chan naming.View // the newest only
	empty    chan struct{}    // has a token if an empty set was ever shown
	n        int
}

func newReader(t *testing.T, r *rig) *reader {
	t.Helper()
	rd := &reader{rig: r, views: make(chan naming.View, 1), empty: make(chan struct{}, 1)}
	rd.registry = naming.New(r, &naming.Options{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	t.Cleanup(rd.registry.Close)
	rd.put(t, "svc/stays", `{"Op":0,"Addr":"stays:1","Metadata":null}`)
	go func() {
		for v, err := range rd.registry.Watch(context.Background(), "svc") {
			if err != nil {
				return
			}
			if len(v.Endpoints) == 0 {
				select {
				case rd.empty <- struct{}{}:
				default:
				}
			}
			select {
			case <-rd.views:
			default:
			}
			rd.views <- v
		}
	}()
	rd.converge(t)
	return rd
}

// converge waits until the reader has what etcd has, and says that it is fresh.
func (rd *reader) converge(t *testing.T) {
	t.Helper()
	want := rd.truth(t)
	deadline := time.After(60 * time.Second)
	last := "nothing"
	for {
		select {
		case v := <-rd.views:
			last = text(naming.Batch{Put: v.Endpoints})
			if last == want && !v.Stale() {
				return
			}
			last += fmt.Sprintf(" (stale: %v, %v)", v.Stale(), v.Err)
		case <-deadline:
			t.Fatalf("no convergence:\nthe reader has %s\netcd has       %s", last, want)
		}
	}
}

// change changes something behind everybody's back.
func (rd *reader) change(t *testing.T) {
	t.Helper()
	rd.n++
	servertest.Poll(t, "etcd takes no changes", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := rd.admin.Txn(ctx).Then(
			clientv3.OpPut(fmt.Sprintf("%ssvc/%d", rd.prefix, rd.n), fmt.Sprintf(`{"Op":0,"Addr":"a:%d","Metadata":null}`, rd.n)),
			clientv3.OpDelete(fmt.Sprintf("%ssvc/%d", rd.prefix, rd.n-1))).Commit()
		return err
	})
}

// neverEmpty fails if the reader was ever shown an empty set.
func (rd *reader) neverEmpty(t *testing.T) {
	t.Helper()
	select {
	case <-rd.empty:
		t.Error("the reader was shown an empty set")
	default:
	}
}

func TestFaults(t *testing.T) {
	each(t, func(t *testing.T, release etcdtest.Release) {
		t.Parallel()
		cluster := etcdtest.Start(t, &etcdtest.Options{Release: release})
		for _, f := range []struct {
			name   string
			rounds int
			fault  func(t *testing.T, rd *reader)
		}{
			{"cut, compact, heal", 5, func(t *testing.T, rd *reader) {
				rd.each((*faultproxy.Proxy).Cut)
				rd.change(t)
				rd.change(t)
				cluster.Compact(t)
				rd.heal()
			}},
			{"black hole", 2, func(t *testing.T, rd *reader) {
				rd.each((*faultproxy.Proxy).BlackHole)
				rd.change(t)
				rd.stale(t)
				rd.heal()
			}},
			{"deaf", 2, func(t *testing.T, rd *reader) {
				rd.each((*faultproxy.Proxy).DropDownstream)
				rd.change(t)
				rd.stale(t)
				rd.heal()
			}},
			{"stopped", 2, func(t *testing.T, rd *reader) {
				cluster.Pause(t)
				rd.stale(t)
				cluster.Continue(t)
				rd.change(t)
			}},
			{"kill -9, restart", 3, func(t *testing.T, rd *reader) {
				cluster.Kill(t)
				cluster.Restart(t)
				rd.change(t)
			}},
			{"torn answers", 5, func(t *testing.T, rd *reader) {
				rd.each(func(p *faultproxy.Proxy) { p.CutAfter(300) })
				rd.change(t)
				rd.heal()
				rd.change(t)
			}},
			{"malformed", 5, func(t *testing.T, rd *reader) {
				for i, v := range []string{"{not json", "null", "{}", "[]", strings.Repeat("[", 100_000)} {
					rd.put(t, fmt.Sprint("svc/bad", i), v)
				}
				rd.change(t)
			}},
		} {
			t.Run(f.name, func(t *testing.T) {
				rd := newReader(t, newRig(t, cluster, nil))
				for range rounds(f.rounds) {
					f.fault(t, rd)
					rd.converge(t)
				}
				rd.neverEmpty(t)
			})
		}
	})
}

// stale waits until the reader is told that its set is stale.
func (rd *reader) stale(t *testing.T) {
	t.Helper()
	deadline := time.After(10*bound + 10*time.Second)
	for {
		select {
		case v := <-rd.views:
			if v.Stale() {
				return
			}
		case <-deadline:
			t.Fatal("the reader is not told that etcd fell silent")
		}
	}
}

// TestWiped: the server is replaced by an empty one, of the same name and at the
// same address, also after thousands of revisions, and the new one comes further
// than the old one was before anybody is there to see it.
func TestWiped(t *testing.T) {
	each(t, func(t *testing.T, release etcdtest.Release) {
		t.Parallel()
		for _, c := range []struct {
			name          string
			before, after int
		}{
			{"young", 0, 0}, {"far behind", 3000, 0}, {"overtaken", 0, 300},
		} {
			t.Run(c.name, func(t *testing.T) {
				for range max(1, rounds(1)/10) {
					cluster := etcdtest.Start(t, &etcdtest.Options{Release: release})
					rd := newReader(t, newRig(t, cluster, nil))
					write := func(n int) {
						for range n {
							rd.put(t, "elsewhere", "x")
						}
					}
					write(c.before)
					rd.change(t)
					rd.converge(t)
					rd.each((*faultproxy.Proxy).Cut)
					cluster.Wipe(t)
					rd.n = 100
					rd.put(t, "svc/stays", `{"Op":0,"Addr":"stays:2","Metadata":null}`)
					rd.change(t)
					write(c.after)
					rd.heal()
					rd.converge(t)
					rd.change(t)
					rd.converge(t)
					rd.neverEmpty(t)
				}
			})
		}
	})
}

func TestThreeMembers(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, &etcdtest.Options{Members: 3})
	t.Run("leader moved", func(t *testing.T) {
		rd := newReader(t, newRig(t, cluster, nil))
		for range rounds(3) {
			cluster.MoveLeader(t)
			rd.change(t)
			rd.converge(t)
		}
		rd.neverEmpty(t)
	})
	t.Run("member lost", func(t *testing.T) {
		rd := newReader(t, newRig(t, cluster, nil))
		for i := range rounds(3) {
			m := cluster.Members[i%3]
			m.Kill(t)
			rd.change(t)
			rd.converge(t)
			m.Restart(t)
			rd.change(t)
			rd.converge(t)
		}
		rd.neverEmpty(t)
	})
	// A member that is cut off from its quorum answers with what it has, and
	// not if that is older than what was seen before.
	t.Run("no quorum", func(t *testing.T) {
		r := newRig(t, cluster, nil)
		must(t, r.Apply(t.Context(), "svc", add("", "a:1")))
		survivor := cluster.Members[0]
		client := cluster.Client(t, survivor.Endpoint())
		s := etcd.New(client, &etcd.Options{Prefix: r.prefix, SilenceBound: bound})
		servertest.Poll(t, "the member lags", func() error {
			if got := list(t, s, "svc"); got != "+a:1=a:1" {
				return errors.New(got)
			}
			return nil
		})
		fresh := etcd.New(client, &etcd.Options{Prefix: r.prefix, SilenceBound: bound})
		for _, m := range cluster.Members[1:] {
			m.Kill(t)
		}
		same(t, "a list of one who has seen nothing newer", list(t, fresh, "svc"), "+a:1=a:1")
		same(t, "a list of one who has seen the same", list(t, s, "svc"), "+a:1=a:1")
		var ended error
		for _, err := range s.Watch(t.Context(), "svc") {
			ended = err // the snapshot, and then: no leader
		}
		if !etcdError(ended) {
			t.Errorf("a watch without a leader ended with %v", ended)
		}
		for _, m := range cluster.Members[1:] {
			m.Restart(t)
		}
	})
}

// TestTokenExpiry: a stream that was opened with a token that has expired takes
// new watches still, after a moment, and running ones go on.
func TestTokenExpiry(t *testing.T) {
	each(t, func(t *testing.T, release etcdtest.Release) {
		cluster := etcdtest.Start(t, &etcdtest.Options{Release: release, TokenTTL: time.Second, Args: []string{"--bcrypt-cost=4"}})
		cluster.EnableAuth(t, etcdtest.User{Name: "app", Password: "secret", Prefix: "/rig/"})
		r := newRig(t, cluster, func(cfg *clientv3.Config) { cfg.Username, cfg.Password = "app", "secret" })
		running := follow(t, r, "running")
		same(t, "a watch", batch(t, running), "snapshot ")
		for i := range rounds(2) {
			// The token that was given to each stream is forgotten.
			cluster.Deny(t, "app")
			cluster.Allow(t, "app")
			service := fmt.Sprint("svc", i)
			c := follow(t, r, service)
			same(t, "a new watch", batch(t, c), "snapshot ")
			must(t, r.Apply(t.Context(), service, add("", "a:1")))
			same(t, "a new watch", batch(t, c), "+a:1=a:1")
			must(t, r.Apply(t.Context(), "running", add("x", fmt.Sprint("a:", i))))
			same(t, "the running watch", batch(t, running), fmt.Sprint("+x=a:", i))
		}
		// A password that is not right any more is told apart.
		cluster.SetPassword(t, "app", "changed")
		err := r.Apply(t.Context(), "svc", add("", "a:1"))
		if !errors.Is(err, naming.ErrPermission) || !etcdError(err) {
			t.Errorf("with a wrong password: %v", err)
		}
	})
}

// TestLeaseRevoked: an operator revokes a lease.
func TestLeaseRevoked(t *testing.T) {
	each(t, func(t *testing.T, release etcdtest.Release) {
		cluster := etcdtest.Start(t, &etcdtest.Options{Release: release})
		r := newRig(t, cluster, nil)
		for range rounds(2) {
			l, err := r.Grant(t.Context(), 1500*time.Millisecond)
			must(t, err)
			same(t, "the time to live", l.TTL(), 2*time.Second)
			ch := add("", "a:1")
			ch.Lease = l
			must(t, r.Apply(t.Context(), "svc", ch))
			if !slices.Contains(cluster.ListLeases(t), etcd.LeaseID(l)) {
				t.Fatal("LeaseID is not the lease's")
			}
			cluster.RevokeLease(t, etcd.LeaseID(l))
			same(t, "a list", list(t, r, "svc"), "")
			if err := l.Renew(t.Context()); !errors.Is(err, naming.ErrLeaseLost) || !etcdError(err) {
				t.Errorf("Renew: %v", err)
			}
			if err := r.Apply(t.Context(), "svc", ch); !errors.Is(err, naming.ErrLeaseLost) {
				t.Errorf("Apply: %v", err)
			}
			must(t, l.Revoke(t.Context()))
		}
	})
}

// TestManyWatches: 2,000 watches are on one stream, and one sign of life is for
// all of them.
func TestManyWatches(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, nil)
	r := newRig(t, cluster, nil)
	var cs []<-chan naming.Batch
	const n = 2000
	for i := range n {
		cs = append(cs, follow(t, r, fmt.Sprint("svc", i)))
	}
	for _, c := range cs {
		same(t, "a watch", batch(t, c), "snapshot ")
	}
	servertest.Poll(t, "not all watch", func() error {
		if got := cluster.Metric(t, "etcd_debugging_mvcc_watcher_total"); got != n {
			return fmt.Errorf("%v watchers", got)
		}
		return nil
	})
	if calls := r.calls.Load(); calls != n+1 {
		t.Errorf("%d requests and streams for %d watches", calls, n)
	}
	up := r.proxies[0].Stats().Up
	quiet := time.NewTimer(3 * bound)
	defer quiet.Stop()
	<-quiet.C
	if up = r.proxies[0].Stats().Up - up; up > 20_000 {
		t.Errorf("%d idle watches have sent %d bytes", n, up)
	}
	var changes []naming.Change
	changes = append(changes, add("", "a:1"))
	for i, c := range cs {
		must(t, r.Apply(t.Context(), fmt.Sprint("svc", i), changes...))
		same(t, "a watch", batch(t, c), "+a:1=a:1")
	}
}
