package zerodrop

import (
	"os"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/faultproxy"
)

// Etcd returns a new etcd cluster of three. It ends with tb. Servers and clients
// of the scenarios have a client of etcd each, and reach it through proxies.
func Etcd(tb testing.TB) Backend { return EtcdOf(tb, 3) }

// EtcdOf is Etcd with a cluster of any size. The last three verbs need three members.
func EtcdOf(tb testing.TB, members int) Backend {
	c := etcdtest.Start(tb, &etcdtest.Options{Members: members})
	var proxies []*faultproxy.Proxy
	var endpoints []string
	for _, m := range c.Members {
		p := faultproxy.New(tb, m.Addr)
		proxies = append(proxies, p)
		endpoints = append(endpoints, p.Addr())
	}
	// The scenarios make calls fail on purpose. The client would log every such call.
	if os.Getenv("ETCD_CLIENT_DEBUG") == "" {
		os.Setenv("ETCD_CLIENT_DEBUG", "fatal")
	}
	return Backend{
		Name:       "etcd",
		URL:        "etcd://" + endpoints[0] + "?prefix=" + prefix,
		Servers:    newEtcdStore(tb, c.Config(endpoints...)),
		Clients:    newEtcdStore(tb, c.Config(endpoints...)),
		TTL:        3 * time.Second,
		DrainDelay: 300 * time.Millisecond,
		Close:      4 * time.Second,
		Settle:     90 * time.Second,
		Verbs:      etcdVerbs(tb, c, proxies),
	}
}

// prefix is the beginning of all keys.
const prefix = "/zerodrop/"

// newEtcdStore returns a store on a client of its own. The client ends with tb.
func newEtcdStore(tb testing.TB, config clientv3.Config) *etcd.Store {
	// The client reconnects soon after a link has healed. A longer backoff would be
	// safe as well, and would make a run longer.
	quick := backoff.DefaultConfig
	quick.BaseDelay, quick.MaxDelay = 20*time.Millisecond, 500*time.Millisecond
	config.DialOptions = append(config.DialOptions, grpc.WithConnectParams(grpc.ConnectParams{Backoff: quick, MinConnectTimeout: time.Second}))
	client, err := clientv3.New(config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = client.Close() })
	return etcd.New(client, &etcd.Options{Prefix: prefix, SilenceBound: 5 * time.Second})
}

func etcdVerbs(tb testing.TB, c *etcdtest.Cluster, proxies []*faultproxy.Proxy) Verbs {
	each := func(f func(*faultproxy.Proxy)) func() error {
		return func() error {
			for _, p := range proxies {
				f(p)
			}
			return nil
		}
	}
	// A verb of the cluster that fails ends the test.
	verb := func(f func(testing.TB)) func() error {
		return func() error { f(tb); return nil }
	}
	var lost *etcdtest.Member
	return Verbs{
		Down:    each((*faultproxy.Proxy).Cut),
		Up:      each((*faultproxy.Proxy).Heal),
		Restart: verb(c.Restart),
		Silence: verb(c.Pause),
		Speak:   verb(c.Continue),
		Delay: func(d time.Duration) error {
			return each(func(p *faultproxy.Proxy) { p.Delay(d / 2) })() // in both directions
		},
		Wipe: verb(c.Wipe),
		ExpireLeases: verb(func(tb testing.TB) {
			for _, id := range c.ListLeases(tb) {
				c.RevokeLease(tb, id)
			}
		}),
		BreakWatches: each((*faultproxy.Proxy).Reset),
		ChangeLeader: verb(func(tb testing.TB) { c.MoveLeader(tb) }),
		LoseMember: verb(func(tb testing.TB) {
			lost = c.Leader(tb)
			lost.Kill(tb)
		}),
		RegainMember: verb(func(tb testing.TB) { lost.Restart(tb) }),
	}
}
