package etcd_test

import (
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/conformance"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/faultproxy"
	"github.com/naming-go/naming/internal/mutant"
)

func TestConformance(t *testing.T) {
	each(t, func(t *testing.T, release etcdtest.Release) {
		t.Run("1 member", func(t *testing.T) { conform(t, &etcdtest.Options{Release: release}) })
		if release == etcdtest.Pinned {
			t.Run("3 members", func(t *testing.T) { conform(t, &etcdtest.Options{Release: release, Members: 3}) })
		}
	})
}

func conform(t *testing.T, o *etcdtest.Options) {
	t.Parallel() // It waits most of the time.
	quiet := time.Second
	if !mutant.Full() {
		quiet = 300 * time.Millisecond
	}
	// Tokens are fetched often here.
	o.Args = append(o.Args, "--bcrypt-cost=4")
	cluster := etcdtest.Start(t, o)
	cluster.EnableAuth(t, etcdtest.User{Name: "app", Password: "secret", Prefix: "/rig/"})
	conformance.Run(t, conformance.Harness{
		New: func(t *testing.T) naming.Store {
			return newRig(t, cluster, func(cfg *clientv3.Config) {
				cfg.Username, cfg.Password = "app", "secret"
			})
		},
		// A watch that has only yielded its snapshot is not on the stream yet. An
		// interruption has no effect on it. So the suite interrupts it again.
		Interrupt: func(t *testing.T, s naming.Store) { s.(*rig).each((*faultproxy.Proxy).Reset) },
		Silence: func(t *testing.T, s naming.Store) func() {
			s.(*rig).each((*faultproxy.Proxy).BlackHole)
			return s.(*rig).heal
		},
		SilenceBound: bound,
		Down: func(t *testing.T, s naming.Store) func() {
			s.(*rig).each((*faultproxy.Proxy).Cut)
			return s.(*rig).heal
		},
		Deny: func(t *testing.T, s naming.Store) func() {
			cluster.Deny(t, "app")
			return func() { cluster.Allow(t, "app") }
		},
		Cause: etcdError,
		// An idle watch makes no requests. It only sends messages on the open
		// stream.
		Calls: func(s naming.Store) int { return int(s.(*rig).calls.Load()) },
		Malformed: func(t *testing.T, s naming.Store, service, id string) string {
			return spoil(t, s.(*rig), service, id, "{not JSON")
		},
		Beyond: func(t *testing.T, s naming.Store, service, id string) string {
			deep := strings.Repeat("[", naming.MaxDepth+1) + strings.Repeat("]", naming.MaxDepth+1)
			return spoil(t, s.(*rig), service, id, `{"Op":0,"Addr":"10.0.0.1:80","Metadata":`+deep+`}`)
		},
		Lose: func(t *testing.T, s naming.Store, l naming.Lease) {
			cluster.RevokeLease(t, etcd.LeaseID(l))
		},
		Reported: func(s naming.Store) []naming.MalformedError {
			r := s.(*rig)
			r.mu.Lock()
			defer r.mu.Unlock()
			return append([]naming.MalformedError(nil), r.reported...)
		},
		TTL:   time.Second,
		Quiet: quiet,
	})
}

// spoil puts a value under the key of an endpoint, and returns the key.
func spoil(t *testing.T, r *rig, service, id, value string) string {
	t.Helper()
	key := service + "/" + strings.NewReplacer("%", "%25", "/", "%2F").Replace(id)
	r.put(t, key, value)
	// A member that lags would answer a list without this value. A linearizable
	// read makes the member catch up.
	for _, m := range r.cluster.Members {
		_, err := r.cluster.Client(t, m.Endpoint()).Get(t.Context(), r.prefix)
		must(t, err)
	}
	return r.prefix + key
}
