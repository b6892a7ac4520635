// Package etcd keeps endpoints in etcd.
//
// [Store] is the [naming.Store] on an etcd client of yours:
//
//	c := naming.New(etcd.New(client, &etcd.Options{Prefix: "/naming/"}), nil)
//
// Set a Prefix in a new deployment: [Options] says why. Without a Prefix, keys and
// values are shared with programs on etcd's former package clientv3/naming and on its
// present one, client/v3/naming. With another [Codec] they are shared with programs on
// other frameworks, such as kratos, go-zero, go-kit, kitex or go-micro: see package
// [github.com/naming-go/naming/backend/etcd/etcdcodec].
//
// The documentation of [Store] says what a Store promises, what it costs the server and
// which rights it needs. etcd 3.4 is the oldest release that is tested against.
//
// # From clientv3/naming
//
// A program that was written for etcd's former package clientv3/naming, on gRPC's former
// package naming, changes its imports to
//
//	import (
//		etcdnaming "github.com/naming-go/naming/backend/etcd"
//		"github.com/naming-go/naming"
//		clientv3 "go.etcd.io/etcd/client/v3"
//	)
//
// and the line that dials. gRPC has neither grpc.RoundRobin nor grpc.WithBalancer today:
// [GRPCResolver] is a resolver.Builder.
//
//	conn, err := grpc.Dial("my-service", grpc.WithBalancer(grpc.RoundRobin(r)), ...) // was
//	conn, err := grpc.NewClient("etcd:///my-service", grpc.WithResolvers(r), ...)    // is
//
// grpc.NewClient does not connect by itself, and so does not block, with grpc.WithBlock or
// without. The first call waits for the service if it is made with
// grpc.WaitForReady(true).
//
// The examples of [GRPCResolver] are those of the former package: register an endpoint,
// dial, force a delete, register under a lease.
//
// It differs from the former package only in this:
//
//   - A watch that broke, or that fell behind a compaction, goes on with what has changed
//     meanwhile. The old watch ended for good.
//   - Deletions after a compaction do not panic.
//   - errors.Is(err, naming.ErrWatcherClosed) holds for a closed watcher.
//   - Next may be called concurrently.
//   - A put that changes nothing is not reported.
//   - Values without an address and metadata are left out. So are values without a member
//     "Addr", and values that exceed the limits of package naming.
//   - An update with neither an address nor metadata is refused.
//
// New programs register with a Client, which renews leases and puts back what was lost.
//
// # Beside client/v3/naming
//
// etcd's present package client/v3/naming has the same keys and values. Its
// endpoints.Manager and resolver may share them with a Store, in both directions. Three
// things differ.
//
// A Manager may add keys that are deeper than its target, such as "off/svc/sub/two" for
// the target "off/svc", whose resolver then has that endpoint. A Store counts it as an
// endpoint of the service "off/svc/sub", unless Options.Deep says that everything below
// a service's path is the service's.
//
// The ID of an endpoint is what follows the target in the key. A Store escapes slashes
// and percent signs there. With Options.Deep it does not.
//
// A Store marks an endpoint that drains with a member "Draining" beside Metadata. The
// Manager does not know the member, and its watches do not show it. A Manager's own entry
// is never marked. A program that reads mostly such entries sets Options.NoDrainingMark:
// then an orderly stop of their servers is not a loss that [naming.Hold] would bridge.
package etcd
