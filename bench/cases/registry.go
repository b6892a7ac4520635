package cases

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/naming-go/naming/bench/peer"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/faultproxy"
)

// registry is the server of one trial, with the faults and changes that it can be given. A
// method without an error ends the trial if it fails.
type registry interface {
	// servers returns the addresses for the subject, which are those of the proxy.
	servers() peer.Servers
	proxy() *faultproxy.Proxy

	put(ctx context.Context, e peer.Entry) error
	remove(ctx context.Context, e peer.Entry) error
	// holds returns which of the addresses the registry contains for a service.
	holds(ctx context.Context, service string, addrs []string) ([]string, error)
	// evict removes what the subject registered at an address, as an operator would.
	evict(ctx context.Context, service, addr string) error
	// malformed returns malformed entries. entry returns a good one.
	malformed(entry func(id, addr string) peer.Entry) []peer.Entry
	// advance raises the counter of changes to n or more, with changes of another key.
	advance(ctx context.Context, n int) error

	compact()
	restart() // with the data it had
	wipe()    // without any
}

// retry calls f until f returns nil. A registry that has just come back may refuse calls.
func retry(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		once, cancel := context.WithTimeout(ctx, 3*time.Second)
		err := f(once)
		cancel()
		if err == nil || pause(ctx, 100*time.Millisecond) != nil {
			return err
		}
	}
}

// pause waits for d.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// many calls f n times, 32 at a time. It returns the first error, after which it makes
// no further calls.
func many(n int, f func(i int) error) error {
	calls, ctx := errgroup.WithContext(context.Background())
	calls.SetLimit(32)
	for i := 0; i < n && ctx.Err() == nil; i++ {
		calls.Go(func() error { return f(i) })
	}
	return calls.Wait()
}

type etcdServer struct {
	tb      testing.TB
	cluster *etcdtest.Cluster
	client  *clientv3.Client
	link    *faultproxy.Proxy
}

func startEtcd(tb testing.TB) *etcdServer {
	c := etcdtest.Start(tb, nil)
	return &etcdServer{tb, c, c.Client(tb), faultproxy.New(tb, c.Members[0].Addr)}
}

func (r *etcdServer) servers() peer.Servers    { return peer.Servers{Etcd: []string{r.link.Addr()}} }
func (r *etcdServer) proxy() *faultproxy.Proxy { return r.link }
func (r *etcdServer) compact()                 { r.cluster.Compact(r.tb) }
func (r *etcdServer) restart()                 { r.cluster.Restart(r.tb) }
func (r *etcdServer) wipe()                    { r.cluster.Wipe(r.tb) }

func (r *etcdServer) put(ctx context.Context, e peer.Entry) error {
	_, err := r.client.Put(ctx, e.Key, e.Value)
	return err
}

func (r *etcdServer) remove(ctx context.Context, e peer.Entry) error {
	_, err := r.client.Delete(ctx, e.Key)
	return err
}

// all returns every key. In the entries of every peer the address stands unchanged in the
// key or in the value, and no other trial has the same server.
func (r *etcdServer) all(ctx context.Context) (map[string]string, error) {
	resp, err := r.client.Get(ctx, "\x00", clientv3.WithFromKey())
	if err != nil {
		return nil, err
	}
	all := make(map[string]string)
	for _, kv := range resp.Kvs {
		all[string(kv.Key)] = string(kv.Value)
	}
	return all, nil
}

func (r *etcdServer) holds(ctx context.Context, _ string, addrs []string) ([]string, error) {
	all, err := r.all(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(addrs), func(a string) bool {
		for k, v := range all {
			if strings.Contains(k, a) || strings.Contains(v, a) {
				return false
			}
		}
		return true
	}), nil
}

func (r *etcdServer) evict(ctx context.Context, _, addr string) error {
	if ids := r.cluster.ListLeases(r.tb); len(ids) > 0 {
		for _, id := range ids {
			r.cluster.RevokeLease(r.tb, id)
		}
		return nil
	}
	all, err := r.all(ctx)
	if err != nil {
		return err
	}
	for k, v := range all {
		if strings.Contains(k, addr) || strings.Contains(v, addr) {
			err = r.remove(ctx, peer.Entry{Key: k})
		}
	}
	return err
}

func (r *etcdServer) malformed(entry func(id, addr string) peer.Entry) []peer.Entry {
	var bad []peer.Entry
	for i, value := range []string{"{not json", "null", "{}"} {
		e := entry(fmt.Sprint("bad", i), "127.0.0.1:9")
		e.Value = value
		bad = append(bad, e)
	}
	return append(bad, entry("bad", ""))
}

func (r *etcdServer) advance(ctx context.Context, n int) error {
	return many(max(n-int(r.cluster.Revision(r.tb)), 0)+1, func(int) error {
		_, err := r.client.Put(ctx, "elsewhere", "")
		return err
	})
}

type consulServer struct {
	tb     testing.TB
	agent  *consultest.Agent
	client *api.Client
	link   *faultproxy.Proxy
}

func startConsul(tb testing.TB, disk bool) *consulServer {
	a := consultest.Start(tb, &consultest.Options{Disk: disk})
	return &consulServer{tb, a, a.Client(tb), faultproxy.New(tb, a.Addr)}
}

func (r *consulServer) servers() peer.Servers    { return peer.Servers{Consul: r.link.Addr()} }
func (r *consulServer) proxy() *faultproxy.Proxy { return r.link }
func (r *consulServer) compact()                 {} // there is no history to drop
func (r *consulServer) restart()                 { r.agent.Restart(r.tb) }
func (r *consulServer) wipe()                    { r.agent.Wipe(r.tb) }

func (r *consulServer) put(ctx context.Context, e peer.Entry) error {
	return r.client.Agent().ServiceRegisterOpts(e.Service, api.ServiceRegisterOpts{}.WithContext(ctx))
}

func (r *consulServer) remove(ctx context.Context, e peer.Entry) error {
	return r.client.Agent().ServiceDeregisterOpts(e.Service.ID, (&api.QueryOptions{}).WithContext(ctx))
}

func (r *consulServer) instances(ctx context.Context, service string) ([]*api.ServiceEntry, error) {
	entries, _, err := r.client.Health().Service(service, "", true, (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
	return entries, err
}

func addrOf(e *api.ServiceEntry) string {
	return fmt.Sprintf("%s:%d", e.Service.Address, e.Service.Port)
}

func (r *consulServer) holds(ctx context.Context, service string, addrs []string) ([]string, error) {
	entries, err := r.instances(ctx, service)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(addrs), func(a string) bool {
		return !slices.ContainsFunc(entries, func(e *api.ServiceEntry) bool { return addrOf(e) == a })
	}), nil
}

func (r *consulServer) evict(ctx context.Context, service, addr string) error {
	entries, err := r.instances(ctx, service)
	for _, e := range entries {
		if err == nil && addrOf(e) == addr {
			err = r.client.Agent().ServiceDeregisterOpts(e.Service.ID, (&api.QueryOptions{}).WithContext(ctx))
		}
	}
	return err
}

func (r *consulServer) malformed(entry func(id, addr string) peer.Entry) []peer.Entry {
	nowhere, noPort := entry("bad0", "127.0.0.1:9"), entry("bad1", "127.0.0.1:9")
	nowhere.Service.Address, nowhere.Service.Port, nowhere.Service.TaggedAddresses = "", 0, nil
	noPort.Service.Port, noPort.Service.TaggedAddresses = 0, nil
	return []peer.Entry{nowhere, noPort}
}

func (r *consulServer) advance(ctx context.Context, n int) error {
	return many(max(n-int(r.agent.Index(r.tb)), 0)+1, func(i int) error {
		_, err := r.client.KV().Put(&api.KVPair{Key: "elsewhere", Value: []byte(fmt.Sprint(i))}, (&api.WriteOptions{}).WithContext(ctx))
		return err
	})
}
