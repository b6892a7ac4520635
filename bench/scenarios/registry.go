package scenarios

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming/bench/peer"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/etcdtest"
)

// registry is the registry to which a scenario writes.
type registry struct {
	scenario, backend string
	patience          time.Duration
	servers           peer.Servers
	member            *etcdtest.Member
	etcd              *clientv3.Client
	consul            *api.Client
	agent             *consultest.Agent
}

// endpoint returns the i-th endpoint of a service. Its ID is its address, as with programs
// that do not choose an ID.
func endpoint(i int) peer.Endpoint {
	addr := fmt.Sprintf("10.%d.%d.%d:9000", i>>16, i>>8&255, i&255)
	return peer.Endpoint{ID: addr, Addr: addr}
}

func endpoints(n int) []peer.Endpoint {
	list := make([]peer.Endpoint, n)
	for i := range list {
		list[i] = endpoint(i)
	}
	return list
}

func addrs(list []peer.Endpoint) []string {
	out := make([]string, len(list))
	for i, e := range list {
		out[i] = e.Addr
	}
	return out
}

// format returns the format of a peer's entries. Peers of one format can share a service,
// unless their children run at the same time.
func format(p peer.Peer) string {
	switch e := p.Entry("s", endpoint(0)); {
	case e.Service != nil:
		return "consul"
	case e.Value == endpoint(0).Addr:
		return "plain"
	default:
		return "json"
	}
}

// node is the node of the services that are written to Consul's catalogue. Writing them
// through an agent would take much longer.
const node = "bench"

// fill puts many endpoints.
func (reg *registry) fill(ctx context.Context, p peer.Peer, service string, list []peer.Endpoint) error {
	entries := make([]peer.Entry, len(list))
	for i, e := range list {
		entries[i] = p.Entry(service, e)
	}
	return reg.put(ctx, entries)
}

func (reg *registry) put(ctx context.Context, list []peer.Entry) error {
	if reg.backend == "etcd" {
		for len(list) > 0 {
			n := min(len(list), 128)
			ops := make([]clientv3.Op, n)
			for i, e := range list[:n] {
				ops[i] = clientv3.OpPut(e.Key, e.Value)
			}
			if _, err := reg.etcd.Txn(ctx).Then(ops...).Commit(); err != nil {
				return err
			}
			list = list[n:]
		}
		return nil
	}
	_, err := reg.consul.Catalog().Register(&api.CatalogRegistration{Node: node, Address: "127.0.0.1"}, (&api.WriteOptions{}).WithContext(ctx))
	if err != nil {
		return err
	}
	for len(list) > 0 {
		n := min(len(list), 64)
		ops := make(api.TxnOps, n)
		for i, e := range list[:n] {
			s := e.Service
			ops[i] = &api.TxnOp{Service: &api.ServiceTxnOp{Verb: api.ServiceSet, Node: node, Service: api.AgentService{
				ID: s.ID, Service: s.Name, Address: s.Address, Port: s.Port, Meta: s.Meta, Tags: s.Tags,
			}}}
		}
		ok, resp, _, err := reg.consul.Txn().Txn(ops, (&api.QueryOptions{}).WithContext(ctx))
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("transaction: %s", resp.Errors[0].What)
		}
		list = list[n:]
	}
	return nil
}

// add puts one endpoint beside those of fill. remove removes such an endpoint.
func (reg *registry) add(ctx context.Context, p peer.Peer, service string, e peer.Endpoint) error {
	if reg.backend == "etcd" {
		entry := p.Entry(service, e)
		_, err := reg.etcd.Put(ctx, entry.Key, entry.Value)
		return err
	}
	s := p.Entry(service, e).Service
	_, err := reg.consul.Catalog().Register(&api.CatalogRegistration{
		Node: node, Address: "127.0.0.1", SkipNodeUpdate: true,
		Service: &api.AgentService{ID: s.ID, Service: s.Name, Address: s.Address, Port: s.Port, Meta: s.Meta, Tags: s.Tags},
	}, (&api.WriteOptions{}).WithContext(ctx))
	return err
}

func (reg *registry) remove(ctx context.Context, p peer.Peer, service string, e peer.Endpoint) error {
	entry := p.Entry(service, e)
	if reg.backend == "etcd" {
		_, err := reg.etcd.Delete(ctx, entry.Key)
		return err
	}
	_, err := reg.consul.Catalog().Deregister(&api.CatalogDeregistration{Node: node, ServiceID: entry.Service.ID}, (&api.WriteOptions{}).WithContext(ctx))
	return err
}

// announce puts one endpoint as a server would, and withdraw removes it. On Consul both go
// through the agent.
func (reg *registry) announce(ctx context.Context, p peer.Peer, service string, e peer.Endpoint) error {
	if reg.backend == "etcd" {
		return reg.add(ctx, p, service, e)
	}
	return reg.consul.Agent().ServiceRegisterOpts(p.Entry(service, e).Service, api.ServiceRegisterOpts{}.WithContext(ctx))
}

func (reg *registry) withdraw(ctx context.Context, p peer.Peer, service string, e peer.Endpoint) error {
	if reg.backend == "etcd" {
		return reg.remove(ctx, p, service, e)
	}
	return reg.consul.Agent().ServiceDeregisterOpts(p.Entry(service, e).Service.ID, (&api.QueryOptions{}).WithContext(ctx))
}

// served returns an error unless the agent serves a new client.
func (reg *registry) served() error {
	t := &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext}
	defer t.CloseIdleConnections()
	resp, err := (&http.Client{Transport: t, Timeout: 10 * time.Second}).Get("http://" + reg.servers.Consul + "/v1/status/leader")
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// metrics returns the values of metrics of etcd.
func (reg *registry) metrics(names ...string) ([]float64, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: reg.patience}
	resp, err := client.Get(reg.member.Endpoint() + "/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	values := make([]float64, len(names))
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if i := slices.Index(names, name); i >= 0 {
			if values[i], err = strconv.ParseFloat(value, 64); err != nil {
				return nil, err
			}
		}
	}
	return values, lines.Err()
}
