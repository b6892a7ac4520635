package doctest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/servertest"
)

// rights returns the blocks of docs/rights.md with a marker of a kind, by the name that
// the marker has.
func rights(t *testing.T, kind string) map[string]string {
	t.Helper()
	all, err := blocks("docs/rights.md", readDoc(t, "docs/rights.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for _, b := range all {
		if name, ok := strings.CutPrefix(b.marker, kind+": "); ok {
			found[name] = b.text
		}
	}
	return found
}

// grant is a grant-permission of etcdctl.
type grant struct {
	kind     clientv3.PermissionType
	key, end string
}

func grants(t *testing.T, role, text string) []grant {
	t.Helper()
	var all []grant
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "etcdctl role grant-permission "+role+" ")
		if !ok {
			continue
		}
		rest, prefix := strings.CutPrefix(rest, "--prefix=true ")
		kind, key, _ := strings.Cut(rest, " ")
		g := grant{key: key}
		if prefix {
			g.end = clientv3.GetPrefixRangeEnd(key)
		}
		switch kind {
		case "read":
			g.kind = clientv3.PermissionType(clientv3.PermRead)
		case "write":
			g.kind = clientv3.PermissionType(clientv3.PermWrite)
		case "readwrite":
			g.kind = clientv3.PermissionType(clientv3.PermReadWrite)
		default:
			t.Fatalf("%q", line)
		}
		all = append(all, g)
	}
	if len(all) == 0 {
		t.Fatalf("role %s has no rights", role)
	}
	return all
}

const own, service = "10.0.0.7:9000", "greeter"

// register registers an endpoint, waits for it, and withdraws it.
func register(ctx context.Context, store naming.Store, addr string) error {
	c := naming.New(store, nil)
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, servertest.Patience)
	defer cancel()
	reg, err := c.Register(ctx, service, naming.Endpoint{Addr: addr}, &naming.RegisterOptions{Wait: true, DrainDelay: -1})
	if err != nil {
		return err
	}
	return reg.Close()
}

// tryToRegister is register for a user who may not. It returns why the first attempt failed.
func tryToRegister(ctx context.Context, store naming.Store, addr string) error {
	result := make(chan error, 1)
	report := func(err error) {
		select {
		case result <- err:
		default:
		}
	}
	c := naming.New(store, &naming.Options{Hooks: &naming.Hooks{
		Registered:     func(naming.RegisteredInfo) { report(nil) },
		RegisterFailed: func(i naming.RegisterFailedInfo) { report(i.Err) },
	}})
	defer c.Close()
	if _, err := c.Register(ctx, service, naming.Endpoint{Addr: addr}, &naming.RegisterOptions{DrainDelay: -1}); err != nil {
		return err
	}
	select {
	case err := <-result:
		return err
	case <-time.After(servertest.Patience):
		return errors.New("no attempt ends")
	}
}

func watch(ctx context.Context, store naming.Store) error {
	for _, err := range store.Watch(ctx, service) {
		return err
	}
	return errors.New("no answer")
}

func list(ctx context.Context, store naming.Store) error {
	for _, err := range store.Services(ctx) {
		return err
	}
	return errors.New("no answer")
}

func allowed(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

func refused(t *testing.T, what string, err error, right string) {
	t.Helper()
	if !errors.Is(err, naming.ErrPermission) || !strings.Contains(err.Error(), right) {
		t.Errorf("%s: %v, want ErrPermission with %q", what, err, right)
	}
}

// addUser adds a user with rights and returns a Store of theirs.
func addUser(t *testing.T, cluster *etcdtest.Cluster, name string, rights []grant) naming.Store {
	t.Helper()
	root, ctx := cluster.Client(t), t.Context()
	_, err := root.RoleAdd(ctx, name)
	for _, g := range rights {
		if err == nil {
			_, err = root.RoleGrantPermission(ctx, name, g.key, g.end, g.kind)
		}
	}
	if err == nil {
		_, err = root.UserAdd(ctx, name, "secret")
	}
	if err == nil {
		_, err = root.UserGrantRole(ctx, name, name)
	}
	if err != nil {
		t.Fatal(err)
	}
	config := cluster.Config()
	config.Username, config.Password = name, "secret"
	client, err := clientv3.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return etcd.New(client, &etcd.Options{Prefix: "/naming/"})
}

// TestRightsEtcd gives users the rights of docs/rights.md.
func TestRightsEtcd(t *testing.T) {
	t.Parallel()
	roles := rights(t, "role")
	cluster := etcdtest.Start(t, nil)
	cluster.EnableAuth(t)
	ctx := t.Context()
	user := func(name string, rights []grant) naming.Store { return addUser(t, cluster, name, rights) }
	role := func(name string) naming.Store { return user(name, grants(t, name, roles[name])) }

	s := role("client")
	allowed(t, "a client watches", watch(ctx, s))
	refused(t, "a client registers", tryToRegister(ctx, s, own), "")
	refused(t, "a client lists services", list(ctx, s), "right to read")

	s = role("server")
	allowed(t, "a server registers", register(ctx, s, "10.0.0.8:9000"))
	allowed(t, "a server watches", watch(ctx, s))
	refused(t, "a server lists services", list(ctx, s), "right to read")

	s = role("own-key")
	allowed(t, "a server with its own key registers", register(ctx, s, own))
	refused(t, "a server with its own key registers another", tryToRegister(ctx, s, "10.0.0.8:9000"), "")

	s = user("no-watch", grants(t, "own-key", roles["own-key"])[:1])
	allowed(t, "a server without the right to read registers", register(ctx, s, own))
	refused(t, "a server without the right to read watches", watch(ctx, s), "right to read")

	s = user("no-read", []grant{{kind: clientv3.PermissionType(clientv3.PermWrite), key: "/naming/greeter/" + own}})
	allowed(t, "a server that may only write registers", register(ctx, s, own))
	refused(t, "a server that may only write registers again after a loss", loseLease(t, cluster, s), "read and write")

	s = role("lister")
	allowed(t, "a lister lists services", list(ctx, s))
	allowed(t, "a lister watches", watch(ctx, s))
}

// loseLease registers an endpoint and revokes its lease. It returns why the endpoint is
// not put again.
func loseLease(t *testing.T, cluster *etcdtest.Cluster, store naming.Store) error {
	failed := make(chan error, 1)
	c := naming.New(store, &naming.Options{Hooks: &naming.Hooks{RegisterFailed: func(i naming.RegisterFailedInfo) {
		select {
		case failed <- i.Err:
		default:
		}
	}}})
	defer c.Close()
	reg, err := c.Register(t.Context(), service, naming.Endpoint{Addr: own}, &naming.RegisterOptions{
		Wait: true, TTL: 2 * time.Second, DrainDelay: -1, CloseTimeout: time.Second,
	})
	if err != nil {
		return err
	}
	defer reg.Close()
	for _, id := range cluster.ListLeases(t) {
		cluster.RevokeLease(t, id)
	}
	select {
	case err = <-failed:
	case <-time.After(servertest.Patience):
	}
	return err
}

// consulClient returns a client with a token that has rules.
func consulClient(t *testing.T, agent *consultest.Agent, rules string) *api.Client {
	t.Helper()
	config := agent.Config()
	config.Token = agent.CreateToken(t, rules).Secret
	c, err := consul.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestRightsConsul gives tokens the policies of docs/rights.md.
func TestRightsConsul(t *testing.T) {
	t.Parallel()
	policies := rights(t, "policy")
	agent := consultest.Start(t, &consultest.Options{ACL: true})
	ctx := t.Context()
	client := func(rules string) *api.Client { return consulClient(t, agent, rules) }
	policy := func(name string) naming.Store {
		t.Helper()
		if policies[name] == "" {
			t.Fatalf("no policy %s", name)
		}
		return consul.New(client(policies[name]), nil)
	}
	without := func(name, rule string) naming.Store {
		t.Helper()
		before, rest, ok := strings.Cut(policies[name], rule)
		_, after, _ := strings.Cut(rest, "}\n")
		if !ok {
			t.Fatalf("policy %s has no %s", name, rule)
		}
		return consul.New(client(before+after), nil)
	}

	server := policy("server")
	allowed(t, "a server registers", register(ctx, server, own))
	allowed(t, "a server watches", watch(ctx, server))
	refused(t, "a server without node:read registers", tryToRegister(ctx, without("server", "node_prefix"), own), "node:read")
	refused(t, "a server without service:write registers", tryToRegister(ctx, without("server", "service "), own), "")

	// An endpoint stays from here on.
	err := server.Apply(ctx, service, naming.Change{Op: naming.Add, Endpoint: naming.Endpoint{Addr: own}})
	allowed(t, "a server puts an endpoint", err)

	s := policy("client")
	allowed(t, "a client watches", watch(ctx, s))
	refused(t, "a client registers", tryToRegister(ctx, s, own), "")
	refused(t, "a client without node:read watches", watch(ctx, without("client", "node_prefix")), "node:read")
	refused(t, "a client without service:read watches", watch(ctx, without("client", "service ")), "service:read")

	allowed(t, "a lister lists services", list(ctx, policy("lister")))
	refused(t, "a lister without service:read", list(ctx, without("lister", "service_prefix")), "")

	maintain(t, client(policies["operator"]), client(policies["server"]))
	if err := server.Apply(ctx, service, naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{Addr: own}}); err != nil {
		t.Error(fmt.Errorf("a server deletes: %w", err))
	}
}

// maintain takes a service and a node out of use, with the tokens of an operator and of
// a server.
func maintain(t *testing.T, operator, ordinary *api.Client) {
	t.Helper()
	entries, _, err := operator.Catalog().Service(service, "", nil)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v", entries, err)
	}
	id := entries[0].ServiceID
	allowed(t, "an operator takes a service out", operator.Agent().EnableServiceMaintenance(id, "rights"))
	allowed(t, "an operator takes a node out", operator.Agent().EnableNodeMaintenance("rights"))
	allowed(t, "a server's token takes its service out", ordinary.Agent().EnableServiceMaintenance(id, "rights"))
	if err := ordinary.Agent().EnableNodeMaintenance("rights"); err == nil {
		t.Error("a server's token took the node out")
	}
	allowed(t, "the end of maintenance", errors.Join(operator.Agent().DisableNodeMaintenance(), operator.Agent().DisableServiceMaintenance(id)))
}
