package etcd_test

import (
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
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
	t.Parallel() // it mostly waits
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
		Interrupt: func(t *testing.T, s naming.Store) {
			// A watch that has only yielded its snapshot has nothing to lose
			// yet: it is not on the stream.
			s.(*rig).settle()
			s.(*rig).each((*faultproxy.Proxy).Reset)
		},
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
		// The one thing that an idle watch asks is no request, but a message
		// on the stream that is there.
		Calls: func(s naming.Store) int { return int(s.(*rig).calls.Load()) },
		Malformed: func(t *testing.T, s naming.Store, service, id string) string {
			r := s.(*rig)
			key := service + "/" + strings.NewReplacer("%", "%25", "/", "%2F").Replace(id)
			r.put(t, key, "{not JSON")
			// A member that lags must not answer a list as though it were not
			// there: a linearizable read makes it catch up.
			for _, m := range cluster.Members {
				_, err := cluster.Client(t, m.Endpoint()).Get(t.Context(), r.prefix)
				must(t, err)
			}
			return r.prefix + key
		},
		Reported: func(s naming.Store) []naming.Malformed {
			r := s.(*rig)
			r.mu.Lock()
			defer r.mu.Unlock()
			return append([]naming.Malformed(nil), r.reported...)
		},
		TTL:   time.Second,
		Quiet: quiet,
	})
}
