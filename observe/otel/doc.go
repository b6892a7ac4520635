// Package otelnaming turns the hooks of package naming into OpenTelemetry
// metrics. It is not named after its directory, because programs that import it
// import go.opentelemetry.io/otel as well:
//
//	import otelnaming "github.com/naming-go/naming/observe/otel"
//
//	m, err := otelnaming.New(nil)
//	if err != nil {
//		return err
//	}
//	defer m.Close()
//	c := naming.New(store, &naming.Options{Hooks: m.Hooks()})
//	defer c.Close()
//
// # Metrics
//
// Counters. What a service is counted for is in the attribute
// naming.service.name; further attributes are named below.
//
//	naming.endpoint.registrations  {registration}  endpoints of this process that came to be in the registry;
//	                                               naming.registration.again: whether after a loss
//	naming.endpoint.registration.failures
//	                               {failure}       failed attempts to put endpoints of this process there, or their
//	                                               newest state; error.type
//	naming.endpoint.losses         {loss}          endpoints of this process that the registry lost; error.type
//	naming.endpoint.withdrawals    {withdrawal}    endpoints of this process that were closed; error.type if they
//	                                               may stay listed until their lease ends
//	naming.endpoint.holds          {hold}          endpoints that vanished and were held
//	naming.endpoint.releases       {release}       endpoints that are held no more;
//	                                               naming.release.reason: "back" or "expired", which it also is
//	                                               if the service is not watched any more
//	naming.watch.failures          {failure}       failures of watches and failed attempts to start them; error.type
//	naming.watch.resyncs           {resync}        new watches whose first snapshot replaced a known set
//	naming.watch.resync.changes    {change}        endpoints that these snapshots changed; both are of failed
//	                                               watches and of periodic full reads
//	naming.resolver.updates        {update}        sets of addresses handed to gRPC channels
//
// UpDownCounters, observed when metrics are collected.
//
//	naming.endpoint.registered     {endpoint}      endpoints of this process that are in the registry
//	naming.endpoint.held           {endpoint}      endpoints that are held
//	naming.endpoint.withheld       {endpoint}      endpoints that the registry has and says not to use;
//	                                               naming.withheld.reason: "maintenance" or "failed_check"
//	naming.watch.stale             {watch}         services whose endpoints are stale; without naming.service.name
//
// Gauges, observed when metrics are collected.
//
//	naming.watch.staleness         s               how long the endpoints have been stale; only while they are
//	naming.resolver.addresses      {address}       addresses in the set that was last handed to a gRPC channel
//
// The watch of the list of services counts as a watch, and has no
// naming.service.name; what it changes are services.
//
// The hooks do not tell that a gRPC channel is no more: the addresses are those
// that were handed out last, to whichever channel of the service. Close of
// [Metrics] ends that. When the watch of a service ends, because its last reader
// left or the Client was closed, it is not stale and holds nothing any more.
//
// Something is wrong while naming.watch.stale or naming.endpoint.held is not 0,
// or naming.endpoint.registered is less than what the process registered:
// it is not reported before an endpoint was registered for the first time, but
// naming.endpoint.registration.failures is when that fails.
//
// The number of series grows with the number of services and of error types
// only: no attribute holds an ID, an address or the text of an error. Where
// services are too many, a view of the SDK can drop naming.service.name from
// all but the gauges, whose values do not add up.
//
// Names, units and attributes follow the semantic conventions of OpenTelemetry:
//
//   - https://opentelemetry.io/docs/specs/semconv/general/naming/ (namespaces;
//     counters in the plural, UpDownCounters not),
//   - https://opentelemetry.io/docs/specs/semconv/general/metrics/ (units),
//   - https://opentelemetry.io/docs/specs/semconv/general/recording-errors/ and
//     https://opentelemetry.io/docs/specs/semconv/registry/attributes/error/
//     (error.type, absent on success).
package otelnaming
