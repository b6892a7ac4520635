// Package resolver gives gRPC clients the endpoints of a service from a [naming.Client],
// whatever registry is behind the Client:
//
//	b := resolver.NewBuilder(c, nil)
//	conn, err := grpc.NewClient(b.Target("greeter"), grpc.WithResolvers(b), ...)
//
// Make one Builder for each naming.Client, and use it for any number of ClientConns. All
// ClientConns of one service share one watch of the registry, and one copy of the
// endpoints. Calls are spread over the endpoints with round_robin, unless the [Options]
// have another service config.
//
// # Targets
//
// A target is "naming:///service": the scheme of the [Options], an empty authority, and
// the name of the service with the escapes of a URL's path. The name may contain slashes.
// [Builder.Target] returns the target of any name. A target with an authority, a query or
// a fragment is an error.
//
// The name of the service is the ClientConn's default authority, and so the name for
// which TLS checks the certificate of a server. Nothing in the registry can change that
// name.
//
// # What gRPC gets
//
// Every endpoint with an address becomes one resolver.Endpoint, in the order of the IDs.
// Of several endpoints with one address, the first that is not draining represents all.
// Draining endpoints are left out while there are others.
//
// Held endpoints, whose loss looks like a fault of the registry (Held in
// [naming.Status]), are used only while nothing else is usable. Their addresses may
// belong to other services by now, and a place at the end of the list would mean nothing
// to round_robin. The first endpoints that are usable after a common loss, or after an
// outage of the registry, take over from the held ones. Held endpoints that were in the
// list stay in it for ten seconds more, so that the first server that is back does not
// get all calls.
//
// Withheld endpoints, which the registry says not to use ([naming.Withheld]), are left
// out at once. [Options.PanicThreshold] can make exceptions of endpoints that failed a
// check. They follow the usable endpoints, and [ReasonOf] distinguishes them. Of several
// endpoints with one address, a usable one counts.
//
// The attributes of a resolver.Endpoint have the naming.Endpoint. Load balancing policies
// get it with [EndpointOf]. A change of metadata makes no new connections. Where a proxy
// is in use (HTTPS_PROXY), gRPC's own wrapper around a resolver drops the attributes of
// endpoints. grpc.WithNoProxy keeps them. All ClientConns of a service get the same
// slices, which a policy must not modify.
//
// A "weight" in the metadata, rounded to a whole number from 1 to 65,535, is also where
// gRPC's own policies look for a weight. Of those in grpc-go 1.85, ring_hash uses the
// weight, and so does pick_first if it shuffles (shuffleAddressList). round_robin and
// least_request treat all endpoints alike. weighted_round_robin uses the load that
// servers report. The policy of package github.com/naming-go/naming/balancer uses weights and
// zones, as the registry has them.
//
// gRPC gets the whole set in one step. The first change after a quiet time is delivered
// at once. Changes that follow each other closely are collected until none came for 5 ms,
// for 50 ms at most.
//
// The ClientConns of one service get a change one after the other. Several goroutines
// deliver it if that takes long. Where each ClientConn takes 0.2 ms or more, as with
// hundreds of endpoints, there are rests between them, so that not all connect to new
// endpoints in the same moment. The rests delay the last ClientConn by half a second at
// most. A change is delivered without rests in three cases: the service had no endpoints,
// its endpoints came from the cache, or the registry withholds an endpoint in use. Calls
// fail then, or may go to endpoints that have gone.
//
// # Failures
//
// A registry that cannot be reached changes nothing in a known set: the last set stays,
// however long the outage is. Before the first set, gRPC gets the error of the registry,
// which fails calls that do not wait for ready. A registry that is silent for
// [Options.FirstAnswerTimeout] is an error as well.
//
// A service without endpoints fails such calls with the code Unavailable and a message
// that says so. If the registry withholds all endpoints, the message has their number and
// the reason. Text from the registry is cut and quoted in such messages, as by
// [naming.SafeText].
//
// A program that starts while the registry is down can use the endpoints that it, or its
// predecessor, knew: see [Options.CacheDir].
package resolver
