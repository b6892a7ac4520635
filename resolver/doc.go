// Package resolver lets gRPC clients find the endpoints of a service in a
// [naming.Client], whatever registry is behind it:
//
//	b := resolver.NewBuilder(c, nil)
//	conn, err := grpc.NewClient(b.Target("greeter"), grpc.WithResolvers(b), ...)
//
// One Builder serves any number of ClientConns. Those of one service share one
// watch of the registry and everything that is made of it.
//
// # Targets
//
// A target is "naming:///service": the scheme of the [Options], an empty
// authority, and the name of the service with the escapes of a URL's path. The
// name may contain slashes. [Builder.Target] makes one of any name. A target
// with an authority, a query or a fragment is an error.
//
// The name of the service is the ClientConn's default authority, and so the
// name that TLS checks a server's certificate against. Nothing in the registry
// has a say in that.
//
// # What gRPC is given
//
// Every endpoint with an address is one resolver.Endpoint, in the order of the
// IDs. Of several endpoints with one address, the first that is not draining
// represents all. Draining endpoints are left out while there are others. Endpoints
// that are held, because their loss looks like a fault of the registry (Held in
// [naming.Status]), are used only while nothing else is usable: their addresses may
// belong to other services by now, and a place at the end of the list means nothing
// to round_robin. The first endpoints that are usable after a common loss, or after an
// outage of the registry, take over from them: held endpoints that were in the list
// stay in it for ten seconds more, so that the first server that is back does not get
// the calls of all.
//
// Endpoints that the registry has and says not to use ([naming.Withheld]) are left
// out as soon as the registry says so. [Options.PanicThreshold] can make exceptions
// of those that failed a check. They follow the usable ones, and [ReasonOf] tells
// which they are. Of several endpoints with one address, a usable one counts.
//
// The naming.Endpoint is in the attributes of the resolver.Endpoint, where load
// balancing policies find it with [EndpointOf]. A change of metadata makes no
// new connections. Where a proxy is in force (HTTPS_PROXY), gRPC's own wrapper
// around a resolver drops the attributes of endpoints; grpc.WithNoProxy keeps
// them. All ClientConns of a service are given the same slices, which a policy
// must not modify.
//
// A "weight" in the metadata, rounded to a whole number from 1 to 65,535, is
// also where gRPC's own policies look for one. Of those in grpc-go 1.85, ring_hash
// does, and pick_first if it shuffles (shuffleAddressList). round_robin and
// least_request treat all endpoints alike, and weighted_round_robin goes by the
// load that servers report.
//
// The whole set is given to gRPC in one step, the first change after a quiet
// time at once. While changes come thick and fast, they are collected until
// none came for 5 ms, for 50 ms at most.
//
// ClientConns of one service are told one after the other, by more than one
// goroutine if they take long. Where it takes each 0.2 ms or more, as with hundreds
// of endpoints, there are rests between them, so that not all connect to new
// endpoints in the same moment: the last one may be told half a second later than
// without them. There are none while a service comes back that had no endpoints, or saved ones,
// and none when the registry withholds an endpoint that is in use.
//
// # Failures
//
// A registry that cannot be reached changes nothing in a set that is known: the
// last one stays, as long as it takes. Until there is one, the failure is reported
// to gRPC, where it fails the calls that do not wait for ready; and so is a
// registry that says nothing at all for [Options.FirstAnswer].
//
// A service that has no endpoints fails such calls with the code Unavailable and
// a message that says so. If the registry withholds all of them, the message says
// how many and why. What the registry says in such messages is cut and quoted as
// [naming.SafeText] does it.
//
// A program that starts while the registry is down can go on with the endpoints
// that it, or its predecessor, knew: see Cache in the [Options].
package resolver
