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
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/faultproxy"
	"github.com/naming-go/naming/internal/mutant"
	"github.com/naming-go/naming/internal/servertest"
)

// reader is a program's Client on the store, which watches "svc".
type reader struct {
	*rig
	client *naming.Client
	views  chan naming.View // has the newest View only
	empty  chan struct{}    // has a token if the reader ever got an empty set
	n      int
}

func newReader(t *testing.T, r *rig) *reader {
	t.Helper()
	rd := &reader{rig: r, views: make(chan naming.View, 1), empty: make(chan struct{}, 1)}
	rd.client = naming.New(r, &naming.Options{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	t.Cleanup(rd.client.Close)
	rd.put(t, "svc/stays", `{"Op":0,"Addr":"stays:1","Metadata":null}`)
	go func() {
		for v, err := range rd.client.Watch(context.Background(), "svc") {
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

// converge waits until the reader has the endpoints that etcd has, and is fresh.
func (rd *reader) converge(t *testing.T) {
	t.Helper()
	want := rd.truth(t)
	deadline := time.After(90 * time.Second) // Backoff and the proof that a watch works take this long.
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

// change puts one entry and deletes another, with a client that bypasses the proxies.
func (rd *reader) change(t *testing.T) {
	t.Helper()
	rd.n++
	servertest.Poll(t, "etcd accepts no change", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := rd.admin.Txn(ctx).Then(
			clientv3.OpPut(fmt.Sprintf("%ssvc/%d", rd.prefix, rd.n), fmt.Sprintf(`{"Op":0,"Addr":"a:%d","Metadata":null}`, rd.n)),
			clientv3.OpDelete(fmt.Sprintf("%ssvc/%d", rd.prefix, rd.n-1))).Commit()
		return err
	})
}

// neverEmpty fails the test if the reader ever got an empty set.
func (rd *reader) neverEmpty(t *testing.T) {
	t.Helper()
	select {
	case <-rd.empty:
		t.Error("the reader got an empty set")
	default:
	}
}

// lives runs fault as often as rounds(short) says, and checks that the readers converge
// after each fault. Readers live for five rounds only: a Client whose watches break
// again and again waits longer each time, up to half a minute. A fault that takes long
// has a crowd of readers at once, and each reader counts as a round.
func lives(t *testing.T, short, crowd int, fault func(t *testing.T, rds readers), begin func(t *testing.T) *etcdtest.Cluster) {
	const life = 5
	n := (rounds(short) + crowd - 1) / crowd
	var took []time.Duration
	for done := 0; done < n; done += life {
		if !t.Run(fmt.Sprint(done), func(t *testing.T) {
			cluster := begin(t)
			var rds readers
			for range crowd {
				rds = append(rds, newReader(t, newRig(t, cluster, nil)))
			}
			for range min(life, n-done) {
				begun := time.Now()
				fault(t, rds)
				for _, rd := range rds {
					rd.converge(t)
				}
				took = append(took, time.Since(begun))
			}
			for _, rd := range rds {
				rd.neverEmpty(t)
			}
		}) {
			return
		}
	}
	slices.Sort(took)
	t.Logf("%d rounds of %v (median), at most %v, with %d readers", len(took), took[len(took)/2], took[len(took)-1], crowd)
}

type readers []*reader

func (rds readers) links(f func(*faultproxy.Proxy)) {
	for _, rd := range rds {
		rd.each(f)
	}
}

func (rds readers) change(t *testing.T) {
	t.Helper()
	for _, rd := range rds {
		rd.change(t)
	}
}

func (rds readers) stale(t *testing.T) {
	t.Helper()
	for _, rd := range rds {
		rd.stale(t)
	}
}

func TestFaults(t *testing.T) {
	// A black hole that ends as soon as it is noticed would prove less than a long one.
	hole := time.Duration(0)
	if mutant.Full() {
		hole = 30 * time.Second
	}
	for _, f := range []struct {
		name         string
		short, crowd int
		fault        func(t *testing.T, cluster *etcdtest.Cluster, rds readers)
	}{
		{"cut, compact, heal", 5, 1, func(t *testing.T, cluster *etcdtest.Cluster, rds readers) {
			rds.links((*faultproxy.Proxy).Cut)
			rds.change(t)
			rds.change(t)
			cluster.Compact(t)
			rds.links((*faultproxy.Proxy).Heal)
		}},
		{"black hole", 2, 10, func(t *testing.T, _ *etcdtest.Cluster, rds readers) {
			over := time.After(hole)
			rds.links((*faultproxy.Proxy).BlackHole)
			rds.change(t)
			rds.stale(t)
			<-over
			rds.links((*faultproxy.Proxy).Heal)
		}},
		{"deaf", 2, 10, func(t *testing.T, _ *etcdtest.Cluster, rds readers) {
			rds.links((*faultproxy.Proxy).DropDownstream)
			rds.change(t)
			rds.stale(t)
			rds.links((*faultproxy.Proxy).Heal)
		}},
		{"stopped", 2, 1, func(t *testing.T, cluster *etcdtest.Cluster, rds readers) {
			cluster.Pause(t)
			rds.stale(t)
			cluster.Continue(t)
			rds.change(t)
		}},
		{"kill -9, restart", 3, 1, func(t *testing.T, cluster *etcdtest.Cluster, rds readers) {
			cluster.Kill(t)
			cluster.Restart(t)
			rds.change(t)
		}},
		{"torn answers", 5, 1, func(t *testing.T, _ *etcdtest.Cluster, rds readers) {
			rds.links(func(p *faultproxy.Proxy) { p.CutAfter(300) })
			rds.change(t)
			rds.links((*faultproxy.Proxy).Heal)
			rds.change(t)
		}},
		{"malformed", 5, 1, func(t *testing.T, _ *etcdtest.Cluster, rds readers) {
			for i, v := range []string{"{not json", "null", "{}", "[]", strings.Repeat("[", 100_000)} {
				rds[0].put(t, fmt.Sprint("svc/bad", i), v)
			}
			rds.change(t)
		}},
	} {
		for _, release := range releases {
			t.Run(f.name+"/"+string(release), func(t *testing.T) {
				t.Parallel()
				cluster := etcdtest.Start(t, &etcdtest.Options{Release: release})
				lives(t, f.short, f.crowd, func(t *testing.T, rds readers) { f.fault(t, cluster, rds) },
					func(*testing.T) *etcdtest.Cluster { return cluster })
			})
		}
	}
}

// stale waits until the reader gets a stale View.
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
			t.Fatal("etcd fell silent, and the reader got no stale View")
		}
	}
}

// TestAfterLongOutage checks that a caller that asks again finds a registry that is back,
// however long the client itself would rest before it connects. A rest of an hour stands for
// that after a long outage.
func TestAfterLongOutage(t *testing.T) {
	c := etcdtest.Start(t, nil)
	for name, call := range map[string]func(context.Context, *rig, naming.Lease) error{
		"apply": func(ctx context.Context, r *rig, _ naming.Lease) error {
			return r.Apply(ctx, "svc", add("a", "10.0.0.1:80"))
		},
		"renew": func(ctx context.Context, _ *rig, l naming.Lease) error { return l.Renew(ctx) },
		"watch": func(ctx context.Context, r *rig, _ naming.Lease) error {
			for _, err := range r.Watch(ctx, "svc") {
				return err
			}
			return ctx.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c, func(cfg *clientv3.Config) {
				slow := backoff.Config{BaseDelay: time.Hour, Multiplier: 1, MaxDelay: time.Hour}
				cfg.DialOptions = append(cfg.DialOptions, grpc.WithConnectParams(grpc.ConnectParams{Backoff: slow, MinConnectTimeout: servertest.Patience}))
			})
			l, err := r.Grant(t.Context(), time.Hour)
			must(t, err)
			must(t, call(t.Context(), r, l))
			r.each((*faultproxy.Proxy).Cut)
			for down := 0; down < 3; { // the first attempt may have begun before the fault
				if call(t.Context(), r, l) != nil {
					down++
				}
			}
			r.heal()
			servertest.Poll(t, "the registry is back and is not asked", func() error { return call(t.Context(), r, l) })
		})
	}
}

// TestWiped replaces the server by an empty server with the same name and address: a
// young server, a server that is thousands of revisions ahead, and a server whose
// revisions the new server overtakes before a reader is connected again.
func TestWiped(t *testing.T) {
	for _, c := range []struct {
		name      string
		before    int
		overtaken bool
	}{
		{"young", 0, false}, {"far behind", 3000, false}, {"overtaken", 0, true},
	} {
		for _, release := range releases {
			t.Run(c.name+"/"+string(release), func(t *testing.T) {
				t.Parallel()
				var cluster *etcdtest.Cluster
				lives(t, 1, 1, func(t *testing.T, rds readers) {
					rd := rds[0]
					rd.advance(t, c.before)
					rd.change(t)
					rd.converge(t)
					before := cluster.Revision(t)
					rd.each((*faultproxy.Proxy).Cut)
					cluster.Wipe(t)
					rd.n += 100
					rd.put(t, "svc/stays", fmt.Sprintf(`{"Op":0,"Addr":"stays:%d","Metadata":null}`, rd.n))
					rd.change(t)
					if c.overtaken {
						rd.advance(t, int(before)+50)
					}
					rd.heal()
					rd.converge(t)
					rd.change(t)
				}, func(t *testing.T) *etcdtest.Cluster {
					cluster = etcdtest.Start(t, &etcdtest.Options{Release: release})
					return cluster
				})
			})
		}
	}
}

// advance makes n revisions.
func (rd *reader) advance(t *testing.T, n int) {
	t.Helper()
	const writers = 50
	errs := make(chan error, writers)
	for range writers {
		go func() {
			var err error
			for range (n + writers - 1) / writers {
				if err == nil {
					_, err = rd.admin.Put(t.Context(), rd.prefix+"elsewhere", "x")
				}
			}
			errs <- err
		}()
	}
	for range writers {
		must(t, <-errs)
	}
}

func TestThreeMembers(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, &etcdtest.Options{Members: 3})
	started := func(*testing.T) *etcdtest.Cluster { return cluster }
	t.Run("leader moved", func(t *testing.T) {
		lives(t, 3, 1, func(t *testing.T, rds readers) {
			cluster.MoveLeader(t)
			rds.change(t)
		}, started)
	})
	t.Run("member lost", func(t *testing.T) {
		i := 0
		lives(t, 3, 1, func(t *testing.T, rds readers) {
			m := cluster.Members[i%3]
			i++
			m.Kill(t)
			rds.change(t)
			rds[0].converge(t)
			m.Restart(t)
			rds.change(t)
		}, started)
	})
	// A member without a quorum answers with its own state. A Store rejects this
	// state if it is older than a state that the Store has seen.
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
		same(t, "a list of a Store that has seen no state", list(t, fresh, "svc"), "+a:1=a:1")
		same(t, "a list of a Store that has seen the same state", list(t, s, "svc"), "+a:1=a:1")
		var ended error
		for _, err := range s.Watch(t.Context(), "svc") {
			ended = err // First nil with the snapshot, then the error: no leader.
		}
		if !etcdError(ended) {
			t.Errorf("a watch without a leader ended with %v", ended)
		}
		for _, m := range cluster.Members[1:] {
			m.Restart(t)
		}
	})
}

// TestTokenExpiry checks that a stream whose token has expired accepts new watches after
// a moment, and that running watches go on.
func TestTokenExpiry(t *testing.T) {
	each(t, func(t *testing.T, release etcdtest.Release) {
		cluster := etcdtest.Start(t, &etcdtest.Options{Release: release, TokenTTL: time.Second, Args: []string{"--bcrypt-cost=4"}})
		cluster.EnableAuth(t, etcdtest.User{Name: "app", Password: "secret", Prefix: "/rig/"})
		r := newRig(t, cluster, func(cfg *clientv3.Config) { cfg.Username, cfg.Password = "app", "secret" })
		running := follow(t, r, "running")
		same(t, "a watch", batch(t, running), "snapshot ")
		for i := range rounds(2) {
			// A change of the user's roles invalidates the tokens of all streams.
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
		// A password that is no longer valid has the error ErrPermission.
		cluster.SetPassword(t, "app", "changed")
		err := r.Apply(t.Context(), "svc", add("", "a:1"))
		if !errors.Is(err, naming.ErrPermission) || !etcdError(err) {
			t.Errorf("with a wrong password: %v", err)
		}
	})
}

// TestLeaseRevoked revokes a lease, as an operator may.
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
				t.Fatal("LeaseID does not return the lease's ID")
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
