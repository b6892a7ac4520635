package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/faultproxy"
	"github.com/naming-go/naming/internal/mutant"
	"github.com/naming-go/naming/internal/servertest"
)

const (
	// fleetTTL is the time to live of a fleet's registrations.
	fleetTTL = 2 * time.Second
	// returnBound is how long after a fault a registration may take to be in etcd
	// again on a busy machine, and a reader to be fresh. They need less: a call that
	// times out, and one wait of a backoff that doubled during the fault.
	returnBound = 30 * time.Second
)

var silent = slog.New(slog.NewTextHandler(io.Discard, nil))

// fleet is a small deployment: a program that registers three endpoints of "svc", a
// program that reads them, and an operator who reads etcd directly. Each program has
// its own link to etcd.
type fleet struct {
	*rig          // of the program that registers
	audience *rig // of the program that reads
	regs     []*naming.Registration
	readers  *naming.Client

	mu      sync.Mutex
	view    naming.View
	watched map[string]bool // the set according to the Watcher's updates
	bare    bool            // a View had neither Endpoints nor Held
}

var fleetAddrs = []string{"a:1", "a:2", "a:3"}

func newFleet(t *testing.T, c *etcdtest.Cluster, change func(*clientv3.Config)) *fleet {
	t.Helper()
	f := &fleet{rig: newRig(t, c, change), audience: newRig(t, c, change), watched: make(map[string]bool)}
	f.audience.prefix = f.prefix
	f.audience.Store = f.audience.store(nil)
	f.announce(t, fleetTTL)
	f.read(t)
	f.converge(t)
	return f
}

// announce registers the endpoints.
func (f *fleet) announce(t *testing.T, ttl time.Duration) {
	t.Helper()
	client := naming.New(f.rig, &naming.Options{Logger: silent})
	t.Cleanup(client.Close)
	ctx, cancel := context.WithTimeout(t.Context(), returnBound)
	defer cancel()
	for _, addr := range fleetAddrs {
		g, err := client.Register(ctx, "svc", naming.Endpoint{Addr: addr}, &naming.RegisterOptions{TTL: ttl, DrainDelay: -1, Wait: true})
		must(t, err)
		f.regs = append(f.regs, g)
	}
}

// read starts the readers.
func (f *fleet) read(t *testing.T) {
	t.Helper()
	f.readers = naming.New(f.audience, &naming.Options{Logger: silent})
	w, err := f.readers.Resolve("svc")
	must(t, err)
	var wg sync.WaitGroup
	t.Cleanup(func() { f.readers.Close(); wg.Wait() })
	wg.Go(func() {
		for v, err := range f.readers.Watch(context.Background(), "svc") {
			if err != nil {
				return
			}
			f.mu.Lock()
			f.view = v
			f.bare = f.bare || len(v.Endpoints)+len(v.Held) == 0
			f.mu.Unlock()
		}
	})
	wg.Go(func() {
		for {
			updates, err := w.Next()
			if err != nil {
				return
			}
			f.mu.Lock()
			for _, u := range updates {
				if u.Op == naming.Add {
					f.watched[u.Addr] = true
				} else {
					delete(f.watched, u.Addr)
				}
			}
			f.mu.Unlock()
		}
	})
}

// converge waits until all readers have what etcd has and are not stale, and checks that
// no reader ever got an empty set. After a long outage a set stays stale for up to a
// minute, until a watch has proved that it works.
func (f *fleet) converge(t *testing.T) {
	t.Helper()
	servertest.Poll(t, "no convergence", func() error {
		truth := f.truth(t)
		f.mu.Lock()
		defer f.mu.Unlock()
		view := text(naming.Batch{Put: f.view.Endpoints})
		var told naming.Batch
		for _, addr := range slices.Sorted(maps.Keys(f.watched)) {
			told.Put = append(told.Put, naming.Endpoint{ID: addr, Addr: addr})
		}
		if view != truth || text(told) != truth || f.view.Stale() || len(f.view.Held) > 0 || len(f.watched) != len(fleetAddrs) {
			return fmt.Errorf("etcd has %s\nthe View has %s, held %v (stale: %v, %v)\nthe Watcher has %s",
				truth, view, f.view.Held, f.view.Stale(), f.view.Err, text(told))
		}
		return nil
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.bare {
		t.Error("a reader got an empty set")
	}
}

// missing returns nil if etcd has the endpoints under leases that live, and each
// endpoint was put after the given revision.
func (f *fleet) missing(t *testing.T, after int64) error {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	leases := make(map[int64]bool)
	for _, addr := range fleetAddrs {
		resp, err := f.admin.Get(ctx, f.prefix+"svc/"+addr)
		switch {
		case err != nil:
			return err
		case len(resp.Kvs) == 0:
			return errors.New("etcd has no " + addr)
		case resp.Kvs[0].CreateRevision <= after:
			return errors.New("the fault did not remove " + addr)
		}
		leases[resp.Kvs[0].Lease] = true
	}
	for id := range leases {
		resp, err := f.admin.TimeToLive(ctx, clientv3.LeaseID(id))
		if err != nil {
			return err
		}
		if resp.TTL <= 0 {
			return fmt.Errorf("lease %x has expired", id)
		}
	}
	for _, g := range f.regs {
		if s := g.Status(); !s.Registered {
			return fmt.Errorf("etcd has the endpoints, and the status of a registration is %+v", s)
		}
	}
	return nil
}

// back waits until etcd has the endpoints again, and returns how long it took.
func (f *fleet) back(t *testing.T, after int64) time.Duration {
	t.Helper()
	begun := time.Now()
	servertest.Poll(t, "the endpoints are not back", func() error {
		err := f.missing(t, after)
		if err != nil {
			err = fmt.Errorf("%w; the first registration: %+v", err, f.regs[0].Status())
		}
		return err
	})
	took := time.Since(begun)
	if took > returnBound {
		t.Errorf("the endpoints were back after %v, want at most %v", took, returnBound)
	}
	return took
}

// stay checks that the leases are renewed: the endpoints must stay for d.
func (f *fleet) stay(t *testing.T, d time.Duration) {
	t.Helper()
	servertest.Poll(t, "no time passes", func() func() error {
		begun := time.Now()
		return func() error {
			if got := f.truth(t); strings.Count(got, "+") != len(fleetAddrs) {
				t.Fatalf("the endpoints do not stay: after %v etcd has %s", time.Since(begun), got)
			}
			if time.Since(begun) < d {
				return errors.New("wait")
			}
			return nil
		}
	}())
}

// gone waits until etcd has none of the endpoints.
func (f *fleet) gone(t *testing.T) {
	t.Helper()
	servertest.Poll(t, "the leases do not expire", func() error {
		if got := f.truth(t); got != "" {
			return errors.New(got)
		}
		return nil
	})
}

// overdue waits until every registration reports that its lease may have ended.
func (f *fleet) overdue(t *testing.T) {
	t.Helper()
	servertest.Poll(t, "the registrations do not notice", func() error {
		for _, g := range f.regs {
			if s := g.Status(); s.Registered || s.Err == nil {
				return fmt.Errorf("%+v", s)
			}
		}
		return nil
	})
}

// revision returns etcd's revision. A test compares it with the revisions after a fault.
func (f *fleet) revision(t *testing.T) int64 {
	t.Helper()
	resp, err := f.admin.Get(t.Context(), f.prefix)
	must(t, err)
	return resp.Header.Revision
}

func (f *fleet) everyLink(do func(*faultproxy.Proxy)) {
	f.each(do)
	f.audience.each(do)
}

// TestRegistrationReturns checks that after every fault of etcd, or of the link to etcd,
// the endpoints return to etcd and to the readers, and that readers never get an empty
// set. Every round has new Clients, whose backoffs have not grown yet.
func TestRegistrationReturns(t *testing.T) {
	app := func(cfg *clientv3.Config) { cfg.Username, cfg.Password = "app", "secret" }
	for _, c := range []struct {
		name string
		opts etcdtest.Options
		auth bool
		old  bool // run on 3.4 in the short form too
		// fault returns 0, or the revision after which the endpoints must have
		// been put, if the fault removed them for sure.
		fault func(t *testing.T, c *etcdtest.Cluster, f *fleet, round int) int64
	}{
		{name: "wiped, young", old: true, fault: func(t *testing.T, c *etcdtest.Cluster, f *fleet, _ int) int64 {
			c.Wipe(t)
			return 0
		}},
		{name: "wiped, was thousands of revisions ahead", fault: func(t *testing.T, c *etcdtest.Cluster, f *fleet, _ int) int64 {
			for range 3000 {
				f.put(t, "elsewhere", "x")
			}
			f.converge(t)
			c.Wipe(t)
			return 0
		}},
		{name: "wiped, overtaken unseen", fault: func(t *testing.T, c *etcdtest.Cluster, f *fleet, _ int) int64 {
			f.everyLink((*faultproxy.Proxy).Cut)
			before := f.revision(t)
			c.Wipe(t)
			for range before + 50 {
				f.put(t, "elsewhere", "x")
			}
			f.everyLink((*faultproxy.Proxy).Heal)
			return before
		}},
		{name: "lease revoked", old: true, fault: func(t *testing.T, c *etcdtest.Cluster, f *fleet, _ int) int64 {
			before := f.revision(t)
			resp, err := f.admin.Get(t.Context(), f.prefix+"svc/", clientv3.WithPrefix())
			must(t, err)
			revoked := make(map[int64]bool)
			for _, kv := range resp.Kvs {
				if !revoked[kv.Lease] {
					revoked[kv.Lease] = true
					c.RevokeLease(t, clientv3.LeaseID(kv.Lease))
				}
			}
			return before
		}},
		{name: "keys deleted", old: true, fault: func(t *testing.T, c *etcdtest.Cluster, f *fleet, round int) int64 {
			before := f.revision(t)
			if round%2 == 0 {
				_, err := f.admin.Delete(t.Context(), f.prefix+"svc/", clientv3.WithPrefix())
				must(t, err)
				return before
			}
			_, err := f.admin.Delete(t.Context(), f.prefix+"svc/a:2")
			must(t, err)
			return 0
		}},
		{name: "kill -9, restart", fault: func(t *testing.T, c *etcdtest.Cluster, f *fleet, _ int) int64 {
			c.Kill(t)
			c.Restart(t)
			return 0
		}},
		{name: "black hole beyond the TTL", fault: func(t *testing.T, c *etcdtest.Cluster, f *fleet, round int) int64 {
			before := f.revision(t)
			f.each((*faultproxy.Proxy).BlackHole)
			if round%2 == 1 {
				f.audience.each((*faultproxy.Proxy).BlackHole) // Otherwise the readers see all endpoints vanish.
			}
			f.gone(t)
			f.overdue(t)
			f.everyLink((*faultproxy.Proxy).Heal)
			return before
		}},
		{name: "stopped beyond the TTL", fault: func(t *testing.T, c *etcdtest.Cluster, f *fleet, _ int) int64 {
			c.Pause(t)
			f.overdue(t)
			c.Continue(t)
			return 0
		}},
		{name: "token expired", auth: true, opts: etcdtest.Options{TokenTTL: time.Second}, fault: func(t *testing.T, c *etcdtest.Cluster, f *fleet, round int) int64 {
			// The user's tokens become invalid, those of open streams too.
			c.SetPassword(t, "app", "secret")
			if round%2 == 1 {
				return 0
			}
			before := f.revision(t)
			_, err := f.admin.Delete(t.Context(), f.prefix+"svc/", clientv3.WithPrefix())
			must(t, err)
			return before
		}},
		{name: "leader moved", opts: etcdtest.Options{Members: 3}, fault: func(t *testing.T, c *etcdtest.Cluster, f *fleet, _ int) int64 {
			c.MoveLeader(t)
			return 0
		}},
		{name: "member lost", opts: etcdtest.Options{Members: 3}, fault: func(t *testing.T, c *etcdtest.Cluster, f *fleet, round int) int64 {
			lost := c.Members[round%3]
			if round%2 == 0 {
				lost = c.Leader(t)
			}
			lost.Kill(t)
			f.back(t, 0)
			f.converge(t)
			f.stay(t, 2*fleetTTL)
			lost.Restart(t)
			return 0
		}},
	} {
		for _, release := range releases {
			if release != etcdtest.Pinned && (c.auth || !c.old && !mutant.Full()) {
				continue // The documentation of Store describes tokens before 3.5.
			}
			t.Run(c.name+"/"+string(release), func(t *testing.T) {
				t.Parallel()
				o := c.opts
				o.Release = release
				cluster := etcdtest.Start(t, &o)
				var change func(*clientv3.Config)
				if c.auth {
					cluster.EnableAuth(t, etcdtest.User{Name: "app", Password: "secret", Prefix: "/rig/"})
					change = app
				}
				var took []time.Duration
				for round := range rounds(1) {
					t.Run(fmt.Sprint(round), func(t *testing.T) {
						f := newFleet(t, cluster, change)
						after := c.fault(t, cluster, f, round)
						took = append(took, f.back(t, after))
						f.converge(t)
						f.stay(t, fleetTTL*3/2)
						f.converge(t)
					})
				}
				if slices.Sort(took); len(took) > 0 {
					t.Logf("back after %v (median), at most %v, %d times", took[len(took)/2], took[len(took)-1], len(took))
				}
			})
		}
	}
}

// TestTokenIdle runs with tokens that expire between any two requests, because they are
// not used. The token of the stream of watches expires too.
func TestTokenIdle(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, &etcdtest.Options{TokenTTL: time.Second})
	cluster.EnableAuth(t, etcdtest.User{Name: "app", Password: "secret", Prefix: "/rig/"})
	app := func(cfg *clientv3.Config) { cfg.Username, cfg.Password = "app", "secret" }
	f := &fleet{rig: newRig(t, cluster, app), audience: newRig(t, cluster, app), watched: make(map[string]bool)}
	f.audience.prefix = f.prefix
	// The stream sends its first probe only after its token has expired.
	f.audience.Store = f.audience.quiet(10 * time.Second)
	f.rig.Store = f.rig.quiet(10 * time.Second)
	f.announce(t, 9*time.Second) // renewed every 3
	f.read(t)
	f.converge(t)
	for i := range max(1, rounds(1)/5) {
		// Renewals do not keep the token of watches alive. After two failed requests
		// the third would be too late.
		f.stay(t, 4*time.Second)
		must(t, f.Apply(t.Context(), "other", add("x", fmt.Sprint("b:", i))))
		same(t, "a list", list(t, f.audience, "other"), fmt.Sprint("+x=b:", i))
		c := follow(t, f.audience, "other")
		same(t, "a new watch", batch(t, c), fmt.Sprint("snapshot +x=b:", i))
		f.stay(t, 3*time.Second)
		must(t, f.Apply(t.Context(), "other", add("x", fmt.Sprint("c:", i))))
		same(t, "a watch", batch(t, c), fmt.Sprint("+x=c:", i))
		f.converge(t)
	}
	f.stay(t, 9*time.Second)
	for _, g := range f.regs {
		if s := g.Status(); !s.Registered || s.Err != nil {
			t.Errorf("a registration: %+v", s)
		}
	}
}
