// Package kitexnaming gives kitex servers and clients the registry of a naming.Client. It
// replaces kitex's own registry package in one line on each side:
//
//	svr := greeter.NewServer(handler, server.WithRegistry(kitexnaming.NewRegistry(c, nil)), ...)
//	cli, err := greeter.NewClient("greeter", client.WithResolver(kitexnaming.NewResolver(c, nil)))
//
// Behind the Client is any Store: etcd, Consul, memory. Servers and clients that still use
// kitex-contrib/registry-etcd share the registry with a Store in their format
// (etcdcodec.Kitex). Package migrate joins two registries in one Client.
//
// # Servers
//
// A server is registered until it is deregistered. It returns by itself after an outage of
// the registry, after a wipe, and after somebody deleted its entry. A registry that is down
// does not keep a server from starting.
//
// kitex deregisters a server before it closes the listener: server.Run, when it gets the
// exit signal, and server.Stop call Deregister, and then stop accepting. Deregister marks
// the endpoint as draining, waits for the drain delay and removes the endpoint. The server
// serves meanwhile. The whole stop takes
//
//	DrainDelay + time to remove the endpoint + the server's ExitWaitTime (5 s by default)
//
// The drain delay must be longer than the time in which the last client reads a change.
// The slowest clients are those of kitex-contrib/registry-etcd, and clients with a load
// balancer of their own: they read every five seconds. So [DefaultDrainDelay] is six. For
// clients of kitex-contrib/registry-etcd, set NoDrainingMark in the options of the etcd
// Store as well: they do not know the mark, and must see the entry removed.
//
// # Clients
//
// A Resolver answers from memory. One watch of the registry feeds all kitex clients of a
// service. Which endpoints a client gets is what package
// github.com/naming-go/naming/resolver says: draining and withheld endpoints are left out,
// and an outage or a wipe of the registry changes nothing.
//
// kitex reads a Resolver every five seconds. With kitex's default load balancer, a Resolver
// also has kitex read every change at once. With a load balancer of the program's own
// (client.WithLoadBalancer), kitex reads every Options.RefreshInterval of kitex's package
// lbcache. A read costs no request, so one second is a good interval:
//
//	client.WithLoadBalancer(lb, &lbcache.Options{RefreshInterval: time.Second})
//
// A service without usable endpoints is an error with the reason. kitex fails calls with
// this error only if it has no instances of the service yet. Otherwise kitex logs the error
// and goes on with the last instances.
//
// # Weights and tags
//
// The metadata of an endpoint is a JSON object. A server's weight is the member "weight",
// and each of its tags is a string member. etcdcodec.Kitex writes such metadata as the
// weight and the tags of kitex-contrib/registry-etcd, and reads them back. A client gets
// every member as a tag except the weight. Members other than strings have their JSON text.
//
// A weight is rounded to a whole number from 1 to 65,535. An endpoint without a positive
// weight has kitex's default, 10. If the weights of a service add up to more than 65,536,
// all are reduced in proportion, as kitex's round robin keeps a table of that size.
package kitexnaming
