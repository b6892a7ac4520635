// Package naming finds and announces the endpoints of gRPC services in etcd, Consul,
// memory or any other registry.
//
// # Which part is for you
//
//   - You call gRPC services: package [github.com/naming-go/naming/resolver] gives
//     gRPC the endpoints of a service, and package
//     [github.com/naming-go/naming/balancer] spreads the calls by weight, zone and load.
//   - You call HTTP services: package [github.com/naming-go/naming/httptransport] has an
//     http.RoundTripper. For other clients there are Builder.Watch of package resolver,
//     which yields what to call, and [Client.Watch], which yields what the registry has.
//   - You run a gRPC or an HTTP server: package [github.com/naming-go/naming/serve] keeps
//     it registered while it is healthy, and stops it without a failed call. For other
//     servers there is [Client.Register].
//   - Your framework is kratos, go-zero, kitex, go-kit or go-micro: the modules below
//     contrib take the place of its registry.
//   - You have a program on gRPC's former package naming, or on etcd's
//     clientv3/naming: [github.com/naming-go/naming/backend/etcd] has GRPCResolver,
//     and [Client.Resolve] works on every registry.
//   - You move services from one registry to another: package
//     [github.com/naming-go/naming/migrate] joins both in one Client.
//   - You write a backend for another registry: implement [Store], and test it with
//     package [github.com/naming-go/naming/conformance].
//
// # A first look
//
// A program has one [Client] for each registry. The registry itself is behind a
// [Store], which a backend implements: backend/etcd, backend/consul, backend/memory.
//
//	c := naming.New(store, nil)
//	defer c.Close()
//
//	// A server announces itself.
//	reg, err := c.Register(ctx, "greeter", naming.Endpoint{Addr: "10.0.0.7:9000"}, nil)
//
//	// Everybody else watches.
//	for view, err := range c.Watch(ctx, "greeter") {
//		if err != nil {
//			return err // ctx is done or c was closed; nothing else ends the loop
//		}
//		use(view.Endpoints)
//	}
//
// A Store is small. Everything that is hard to get right is in this package, once, and
// works the same on every registry: one watch that all readers share, a new watch
// after a failure, the difference between a failure and an empty set, fan-out to many
// readers, registrations that return after an outage. Package conformance tests that
// a Store keeps its contract.
//
// # Words
//
// The registry is the server that keeps the endpoints: etcd, Consul, ZooKeeper.
//
// A service is a non-empty UTF-8 name. Different names are different services: "a"
// has nothing to do with "a/b" or "ab".
//
// An [Endpoint] is one instance of a service. Its ID is unique within the service.
//
// A snapshot is the whole set of a service's endpoints at one moment. A [Batch] is a
// snapshot, or changes that took effect together.
//
// A [Lease] bounds the life of the endpoints put under it. When it is revoked, or not
// renewed for its time to live, the registry removes its endpoints.
//
// A [View] is what a reader gets: the endpoints, when the registry last confirmed
// them, whether they are stale, and why. A set is stale while its watch does not work.
//
// An endpoint is draining when its server is about to stop: clients use the endpoint
// only while the service has no other. An endpoint is withheld when the registry has it
// and says not to use it: maintenance mode, or a failed check. An endpoint is held when
// it vanished in a way that looks like a fault of the registry: it is not in the set,
// and is probably alive.
//
// # Taking an endpoint out
//
// A server that is about to stop drains itself: [Registration.Drain], or Close, which does
// so first. An operator takes out an endpoint of any program, without the program's help,
// with [Client.Mark], and puts the endpoint back in the same way. In a registry with a mark
// the endpoint is then draining. In a registry with a maintenance mode, such as Consul, the
// endpoint is withheld. A Registration keeps the mark that somebody else has set: see
// [RegistrationStatus].
//
// # What a reader is promised
//
// The states of an endpoint that a reader sees are a subsequence of the states that
// the registry held. Some may be left out. No state comes twice in a row, and none
// follows a newer one. A state that lasts is always seen.
//
// A failure of the registry changes nothing in the set. It makes the set stale, which
// the View and the log show. The set that is found afterwards replaces the old one in
// one step.
//
// # What is not promised
//
// Watches are not linearizable, and nothing here is a lock. While the registry is
// down, changes have no delivery time. A reader does not see every intermediate state.
// A dead process may stay listed for its time to live. An election of the registry
// starts that time again.
package naming
