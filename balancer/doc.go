// Package balancer is a gRPC load balancing policy that uses what the registry knows about
// endpoints: their weight and their zone. Import the package, which registers the policy
// under the name "naming", and choose the policy in the service config:
//
//	b := resolver.NewBuilder(c, &resolver.Options{
//		ServiceConfig: balancer.Config{Zone: "a"}.ServiceConfig(),
//	})
//
// or in any other service config:
//
//	{"loadBalancingConfig": [{"naming": {"pick": "least_loaded", "zone": "a"}}]}
//
// The members are those of [Config]. Without the import, gRPC does not know the name, and
// refuses such a service config.
//
// # Which policy
//
//   - Endpoints are alike, and calls are short: round_robin, gRPC's own, or "naming" without
//     members, which is the same with weights.
//   - Endpoints differ in what they can do, or a new version shall get one call of a hundred:
//     weights, in the metadata of the endpoints.
//   - Traffic between zones is slow or costs money: zone.
//   - Calls differ much in how long they take, or endpoints become slow at times: pick
//     "least_loaded".
//   - So many clients and servers that their connections are a burden: subset.
//
// They can be combined.
//
// # Weights
//
// An endpoint gets the part of the calls that its weight is of the sum of the weights of all
// connected endpoints. The weight is the member "weight" of the endpoint's metadata, a
// positive number, which need not be whole. An endpoint without a weight has weight 1.
// Weights are limited to the range from 1/65535 to 65535. For endpoints of other resolvers
// than this module's, the weight is that of gRPC's package experimental/balancer/weight.
//
// The endpoint of a call follows from a low-discrepancy sequence, so that an endpoint gets
// its part of any number of successive calls, up to about four calls. Different ClientConns
// start at different points.
//
// Weights and zones can change at any time. Connections stay.
//
// # Zones
//
// With [Config.Zone], calls go to endpoints of the same zone, the member "zone" of their
// metadata, as far as these can take the calls:
//
//	share of the own zone = min(1, 1.4 * zones * own / all)
//
// Here own and all are total weights, in the own zone and in all zones, and zones is the
// number of zones. Only connected endpoints count. So when connections fail, or when
// endpoints are drained, withheld or gone, other zones get more calls. With all endpoints of
// the own zone lost, the others get all calls. See [Config.ZoneFactor].
//
// # Least loaded
//
// Two endpoints are chosen by weight, and one of them gets the call (power of two choices).
// The second endpoint gets the call if cost2 <= cost1:
//
//	cost1 = latency1 * (inflight1 / weight1 + 0.5 / max(weight1, weight2))
//	cost2 = latency2 * (inflight2 + 1) / weight2
//
// So weights are exact while there is little to do. An endpoint gets fewer calls when calls
// queue up at it, or when it is at least twice as slow as others with at least its weight. A
// new version on trial with a small weight gets its part at most, even if the new version is
// fast.
// One call of 32 goes to the first endpoint without the comparison, if that endpoint is idle.
// An endpoint that was slow is found again in this way.
//
// In the comparison, one latency counts as at most twice the other. The latency of a server
// that begins to hang is not known before its calls end. Until then, the calls in flight keep
// others away.
//
// Calls in flight are those of the ClientConn, streams included. The latency is a mean of
// which a sample loses a factor e of its effect in 5 seconds. One of 8 calls of an endpoint
// is measured, from the choice of the endpoint to the end of the call. A call that succeeds
// after more than 30 seconds is a stream, and does not count for the latency. A latency
// counts up to 8 times the mean, so that single long streams have little effect. Calls that
// the caller canceled do not count. For services that have mainly streams of very different
// lengths, choose by weight.
//
// With the share f of calls that fail with Unavailable, DeadlineExceeded, ResourceExhausted,
// Internal, Unknown or DataLoss, an endpoint counts as 1/(1-f)^4 times as slow. So a server
// does not attract calls because it fails fast.
//
// # Subsets
//
// With [Config.Subset], a ClientConn connects to some of the endpoints only. Weight, zone
// and load then apply to these. An endpoint that cannot be reached is replaced by the next
// one of the client's order, until all endpoints are in use. So a subset never fails calls
// while other endpoints can be reached. See [Config.Client] and [Config.ClientNumber].
//
// # Connections
//
// Every endpoint in use has a connection, as with round_robin, made by a child policy
// pick_first. Of endpoints with the same addresses, the first one counts. Calls wait while
// no endpoint is connected and some are connecting, and fail with an error of a connection
// when all endpoints failed. Client-side health checks work as with round_robin.
//
// An update of n endpoints takes time in proportion to n, or to n log n with a subset.
// Metadata are decoded for new and changed endpoints only.
//
// # Policies of your own
//
// A policy of your own gets the data of the registry with resolver.EndpointOf, from the
// endpoint of each child of gRPC's package endpointsharding. The example of this package is a
// whole policy.
package balancer
