// Package etcd keeps endpoints in etcd.
//
// [Store] is the [naming.Store] on a client of one's own:
//
//	c := naming.New(etcd.New(client, nil), nil)
//
// It shares keys and values with programs on etcd's former package
// clientv3/naming and on its present one, client/v3/naming, and with another
// [Codec] those of kratos, go-zero, go-kit, kitex or go-micro.
//
// # From clientv3/naming
//
// A program that was written for etcd's former package clientv3/naming, on
// gRPC's former package naming, changes its imports to
//
//	import (
//		etcdnaming "github.com/naming-go/naming/backend/etcd"
//		"github.com/naming-go/naming"
//		clientv3 "go.etcd.io/etcd/client/v3"
//	)
//
// and the line that dials, since gRPC has neither grpc.RoundRobin nor
// grpc.WithBalancer any more: [GRPCResolver] is a resolver.Builder.
//
//	conn, err := grpc.Dial("my-service", grpc.WithBalancer(grpc.RoundRobin(r)), ...) // was
//	conn, err := grpc.NewClient("etcd:///my-service", grpc.WithResolvers(r), ...)    // is
//
// grpc.NewClient does not connect by itself, and so does not block, with
// grpc.WithBlock or without; the first call waits for the service if it is made
// with grpc.WaitForReady(true).
//
// The examples of [GRPCResolver] are those of the former package: register an
// endpoint, dial, force a delete, register under a lease.
//
// It differs from the former package only in this: a watch that broke, or that
// fell behind a compaction, goes on with what has changed meanwhile, where the
// old one ended for good; deletions after a compaction do not panic;
// errors.Is(err, naming.ErrWatcherClosed) holds for a closed watcher;
// Next may be called concurrently; a put that changes nothing is not reported;
// values without an address and metadata are left out, and so are those without a
// member "Addr" and those that exceed the limits of package naming; an update with
// neither an address nor metadata is refused.
//
// New programs register with a Client, which renews leases and puts back what
// was lost.
//
// # Beside client/v3/naming
//
// etcd's present package client/v3/naming has the same keys and values, and its
// endpoints.Manager and resolver may share them with a Store, in both directions.
// Three things differ.
//
// A Manager may add keys that are deeper than its target: "off/svc/sub/two" for
// the target "off/svc", whose resolver then has that endpoint. A Store takes it
// for an endpoint of the service "off/svc/sub", unless Options.Deep says that all
// that is below a service's path is the service's.
//
// The ID of an endpoint is what follows the target in the key, and a Store escapes
// slashes and percent signs there. With Options.Deep it does not.
//
// A Store marks an endpoint that drains with a member "Draining" beside Metadata,
// which the Manager does not know and its watches do not show. An entry of a
// Manager is never marked, so a program that reads mostly such entries sets
// Options.NoDrainingMark: an orderly stop of their servers is then no loss that
// [naming.Hold] would hold on to.
package etcd
