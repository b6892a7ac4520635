package doctest

import (
	"context"
	"testing"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/servertest"
	"github.com/naming-go/naming/migrate"
	"github.com/naming-go/naming/migrate/bridge"
)

func readRecords(ctx context.Context, store naming.Store) error {
	return migrate.ReadRecords(ctx, store, nil).Err()
}

func writeRecord(ctx context.Context, store naming.Store) error {
	_, err := migrate.WriteRecord(ctx, store, nil, service, migrate.State{Phase: migrate.DualWrite})
	return err
}

// copyOne runs a Bridge until it has copied an endpoint that is in the source.
func copyOne(ctx context.Context, source, target, election naming.Store) error {
	ctx, cancel := context.WithTimeout(ctx, servertest.Patience)
	defer cancel()
	copied := false
	b, err := bridge.New(source, target, &bridge.Options{
		Election: election, Services: func(name string) bool { return name == service },
		Hooks: &bridge.Hooks{Copied: func(bridge.CopiedInfo) { copied = true; cancel() }},
	})
	if err != nil {
		return err
	}
	err = b.Run(ctx)
	if copied {
		return nil
	}
	if failure := b.Status().Err; failure != nil {
		return failure
	}
	return err
}

// putOne puts an endpoint.
func putOne(t *testing.T, store naming.Store, addr string) {
	t.Helper()
	err := store.Apply(t.Context(), service, naming.Change{Op: naming.Add, Endpoint: naming.Endpoint{Addr: addr}})
	if err != nil {
		t.Fatal(err)
	}
}

// TestRightsMigrateEtcd gives users of etcd the rights of a migration.
func TestRightsMigrateEtcd(t *testing.T) {
	t.Parallel()
	roles := rights(t, "role")
	cluster := etcdtest.Start(t, nil)
	cluster.EnableAuth(t)
	ctx := t.Context()
	role := func(name string) naming.Store {
		t.Helper()
		return addUser(t, cluster, name, grants(t, name, roles[name]))
	}

	allowed(t, "who changes phases writes a record", writeRecord(ctx, role("phases")))
	joined := role("joined")
	allowed(t, "a joined server reads records", readRecords(ctx, joined))
	allowed(t, "a joined server registers", register(ctx, joined, own))
	refused(t, "a joined server writes a record", writeRecord(ctx, joined), "")
	refused(t, "a server reads records", readRecords(ctx, role("server")), "right to read")

	target := role("bridge-target")
	source := new(memory.Store)
	putOne(t, source, own)
	allowed(t, "a bridge copies into etcd", copyOne(ctx, source, target, nil))
	putOne(t, target, "10.0.0.8:9000")
	allowed(t, "a bridge copies from etcd", copyOne(ctx, role("bridge-source"), new(memory.Store), nil))
	election := role("bridge-election")
	allowed(t, "a bridge copies from etcd, and elects there", copyOne(ctx, election, new(memory.Store), election))
	refused(t, "a bridge's source registers", tryToRegister(ctx, election, own), "")
}

// TestRightsMigrateConsul gives tokens the policies of a migration.
func TestRightsMigrateConsul(t *testing.T) {
	t.Parallel()
	policies := rights(t, "policy")
	agent := consultest.Start(t, &consultest.Options{ACL: true})
	ctx := t.Context()
	policy := func(name string) naming.Store {
		t.Helper()
		if policies[name] == "" {
			t.Fatalf("no policy %s", name)
		}
		return consul.New(consulClient(t, agent, policies[name]), nil)
	}

	allowed(t, "who changes phases writes a record", writeRecord(ctx, policy("phases")))
	joined := policy("joined")
	allowed(t, "a joined server reads records", readRecords(ctx, joined))
	allowed(t, "a joined server registers", register(ctx, joined, own))
	refused(t, "a joined server writes a record", writeRecord(ctx, joined), "")
	refused(t, "a server reads records", readRecords(ctx, policy("server")), "service:read")

	target := policy("bridge-target")
	source := new(memory.Store)
	putOne(t, source, own)
	allowed(t, "a bridge copies into Consul", copyOne(ctx, source, target, source))
	putOne(t, target, "10.0.0.8:9000")
	allowed(t, "a bridge copies from Consul", copyOne(ctx, policy("bridge-source"), new(memory.Store), nil))
}
