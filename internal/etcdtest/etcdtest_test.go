package etcdtest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming/internal/servertest"
)

// releases runs f with each release, in parallel.
func releases(t *testing.T, f func(t *testing.T, r Release)) {
	for _, r := range []Release{Pinned, V34} {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			f(t, r)
		})
	}
}

// limit returns a context that ends after d.
func limit(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func put(t *testing.T, c *clientv3.Client, key string, opts ...clientv3.OpOption) int64 {
	t.Helper()
	resp, err := c.Put(limit(t, servertest.Patience), key, key, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

func count(t *testing.T, c *clientv3.Client, key string) int64 {
	t.Helper()
	resp, err := c.Get(limit(t, servertest.Patience), key, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	return resp.Count
}

func TestServer(t *testing.T) {
	releases(t, func(t *testing.T, r Release) {
		c := Start(t, &Options{Release: r, ProgressInterval: 100 * time.Millisecond})
		m, client := c.Members[0], c.Client(t)
		put(t, client, "a")

		// Kill and Restart keep the data and the port.
		m.Kill(t)
		if m.Up() {
			t.Error("a killed server is up")
		}
		if _, err := client.Get(limit(t, 100*time.Millisecond), "a"); err == nil {
			t.Error("a killed server answers")
		}
		m.Restart(t)
		if n := count(t, client, "a"); n != 1 {
			t.Errorf("%d keys after a restart, want 1", n)
		}

		// Pause: connections stay open, and requests get no answer.
		m.Pause(t)
		if _, err := client.Get(limit(t, 300*time.Millisecond), "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a paused server answers %v, want no answer", err)
		}
		if m.Up() {
			t.Error("a paused server is up")
		}
		c.Continue(t)
		count(t, client, "a")

		// ProgressInterval: progress notifications arrive.
		ctx := limit(t, servertest.Patience)
		wctx, cancel := context.WithCancel(ctx)
		if resp := <-client.Watch(wctx, "nothing", clientv3.WithProgressNotify()); !resp.IsProgressNotify() {
			t.Errorf("got %+v, want a notification", resp)
		}
		cancel()

		// Compact: the history before the current revision is gone.
		first := put(t, client, "b")
		last := put(t, client, "b")
		if rev := c.Compact(t); rev != last {
			t.Errorf("compacted at %d, want %d", rev, last)
		}
		resp := <-client.Watch(ctx, "b", clientv3.WithRev(first))
		if !errors.Is(resp.Err(), rpctypes.ErrCompacted) {
			t.Errorf("watch from revision %d: %v, want %v", first, resp.Err(), rpctypes.ErrCompacted)
		}

		// Leases.
		lease, err := client.Grant(ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		if lease.TTL != 1 {
			t.Errorf("TTL %d s, want the requested 1 s", lease.TTL)
		}
		lease, err = client.Grant(ctx, 3600)
		if err != nil {
			t.Fatal(err)
		}
		put(t, client, "leased", clientv3.WithLease(lease.ID))
		if ids := c.ListLeases(t); !slices.Contains(ids, lease.ID) {
			t.Errorf("leases %v, want %v among them", ids, lease.ID)
		}
		c.RevokeLease(t, lease.ID)
		if n := count(t, client, "leased"); n != 0 {
			t.Error("the key of a revoked lease is still there")
		}

		// Metrics.
		const watchers = "etcd_debugging_mvcc_watcher_total"
		servertest.Poll(t, "watchers remain", func() error {
			if n := c.Metric(t, watchers); n != 0 {
				return fmt.Errorf("%v", n)
			}
			return nil
		})
		wctx, cancel = context.WithCancel(ctx)
		defer cancel()
		for range 3 {
			<-client.Watch(wctx, "x", clientv3.WithCreatedNotify())
		}
		if n := c.Metric(t, watchers); n != 3 {
			t.Errorf("%v watchers, want 3", n)
		}

		// Wipe: only the address is the same.
		c.Wipe(t)
		if rev := c.Revision(t); rev != 1 {
			t.Errorf("revision %d of a wiped server, want 1", rev)
		}
		if n := count(t, client, "a"); n != 0 {
			t.Error("a wiped server has keys")
		}
		if n := len(c.ListLeases(t)); n != 0 {
			t.Errorf("a wiped server has %d leases", n)
		}
	})
}

func TestCluster(t *testing.T) {
	releases(t, func(t *testing.T, r Release) {
		c := Start(t, &Options{Release: r, Members: 3})
		client := c.Client(t)
		put(t, client, "a")
		old := c.Leader(t)
		next := c.MoveLeader(t)
		if next == old || next != c.Leader(t) {
			t.Errorf("MoveLeader from %s returned %s, and the leader is %s", old.Name, next.Name, c.Leader(t).Name)
		}

		// A cluster of three works without one member.
		next.Kill(t)
		if l := c.Leader(t); l == next {
			t.Error("the leader is the dead member")
		}
		put(t, client, "b")
		c.Compact(t)
		next.Restart(t)
		if l := c.Leader(t); l == next {
			t.Log("the leader is the restarted member")
		}

		// A cluster does not answer if all members are paused.
		c.Pause(t)
		if _, err := client.Get(limit(t, 300*time.Millisecond), "a"); err == nil {
			t.Error("a paused cluster answers")
		}
		c.Continue(t)
		c.Restart(t)
		if n := count(t, client, ""); n != 2 {
			t.Errorf("%d keys after a restart, want 2", n)
		}
		c.Wipe(t)
		if rev := c.Revision(t); rev != 1 {
			t.Errorf("revision %d of a wiped cluster, want 1", rev)
		}
		if n := len(c.Endpoints()); n != 3 {
			t.Errorf("%d endpoints, want 3", n)
		}
	})
}

func TestAuth(t *testing.T) {
	releases(t, func(t *testing.T, r Release) {
		c := Start(t, &Options{Release: r, TokenTTL: time.Second})
		stranger := c.Client(t)
		c.EnableAuth(t, User{Name: "alice", Password: "secret", Prefix: "a/"})
		ctx := limit(t, servertest.Patience)
		if _, err := stranger.Get(ctx, "a/1"); !errors.Is(err, rpctypes.ErrUserEmpty) {
			t.Errorf("without a user: %v, want %v", err, rpctypes.ErrUserEmpty)
		}
		config := c.Config()
		config.Username, config.Password = "alice", "secret"
		alice, err := clientv3.New(config)
		if err != nil {
			t.Fatal(err)
		}
		defer alice.Close()
		if _, err := alice.Get(ctx, "a/", clientv3.WithPrefix()); err != nil {
			t.Error(err)
		}
		if _, err := alice.Get(ctx, "b/1"); !errors.Is(err, rpctypes.ErrPermissionDenied) {
			t.Errorf("another prefix: %v, want %v", err, rpctypes.ErrPermissionDenied)
		}

		c.Deny(t, "alice")
		if _, err := alice.Get(ctx, "a/1"); !errors.Is(err, rpctypes.ErrPermissionDenied) {
			t.Errorf("denied: %v, want %v", err, rpctypes.ErrPermissionDenied)
		}
		c.Allow(t, "alice")
		put(t, alice, "a/1")

		// An unused token expires. The client replaces an expired token in its own
		// calls, so useToken sends a token without the client.
		login, err := alice.Authenticate(ctx, "alice", "secret")
		if err != nil {
			t.Fatal(err)
		}
		servertest.Poll(t, "the token does not expire", func() error {
			// Each use prolongs the token's life: wait for more than the TTL.
			timer := time.NewTimer(2500 * time.Millisecond)
			defer timer.Stop()
			<-timer.C
			if err := useToken(ctx, c, login.Token); !errors.Is(err, rpctypes.ErrInvalidAuthToken) {
				return fmt.Errorf("a read with the token: %v, want %v", err, rpctypes.ErrInvalidAuthToken)
			}
			return nil
		})

		// The verbs know root's password, and work after a restart too. A new
		// password applies at the next login.
		c.SetPassword(t, "alice", "other")
		if _, err := alice.Authenticate(ctx, "alice", "secret"); !errors.Is(err, rpctypes.ErrAuthFailed) {
			t.Errorf("old password: %v, want %v", err, rpctypes.ErrAuthFailed)
		}
		c.Restart(t)
		c.Compact(t)
		c.Wipe(t)
		if _, err := stranger.Get(ctx, "a/1"); err != nil {
			t.Errorf("after a wipe: %v", err)
		}
	})
}

func TestTLS(t *testing.T) {
	releases(t, func(t *testing.T, r Release) {
		c := Start(t, &Options{Release: r, TLS: true})
		addr := c.Members[0].Addr
		put(t, c.Client(t), "a")
		c.Members[0].Metric(t, "etcd_server_has_leader")

		config := c.Config()
		config.TLS.Certificates = nil
		config.DialTimeout = 0
		anonymous, err := clientv3.New(config)
		if err != nil {
			t.Fatal(err)
		}
		defer anonymous.Close()
		if _, err := anonymous.Get(limit(t, 300*time.Millisecond), "a"); err == nil {
			t.Error("a client without a certificate is served")
		}

		before := servertest.ServedSerial(t, addr, c.ClientTLS())
		c.RotateCertificate(t, time.Hour)
		if servertest.ServedSerial(t, addr, c.ClientTLS()) == before {
			t.Error("the server presents the certificate from before the rotation")
		}
		put(t, c.Client(t), "a")

		c.RotateCertificate(t, -time.Hour)
		conn, err := tls.Dial("tcp", addr, c.ClientTLS())
		if err == nil {
			conn.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("a handshake with an expired certificate: %v, want an error with %q", err, "expired")
		}
		c.Compact(t)
		c.Restart(t)
	})
}
