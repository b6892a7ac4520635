// Package otelnaming turns the hooks of package naming into OpenTelemetry
// metrics. Its name differs from its directory, because programs that import it import
// go.opentelemetry.io/otel as well:
//
//	import otelnaming "github.com/naming-go/naming/observe/otel"
//
//	m, err := otelnaming.New(nil)
//	if err != nil {
//		return err
//	}
//	defer m.Close()
//	store := etcdnaming.New(client, &etcdnaming.Options{OnMalformed: m.Malformed})
//	c := naming.New(store, &naming.Options{Hooks: m.Hooks()})
//	defer c.Close()
//
// A program on two registries uses [NewMigration].
//
// # Metrics
//
// Counters. The attribute naming.service.name holds the name of the service. Other
// attributes are named below.
//
//	naming.endpoint.registrations  {registration}  endpoints of this process that were put into the registry;
//	                                               naming.registration.again: true after a loss
//	naming.endpoint.registration.failures
//	                               {failure}       failed attempts to put endpoints of this process, or their
//	                                               newest state, into the registry; error.type
//	naming.endpoint.losses         {loss}          endpoints of this process that the registry lost; error.type
//	naming.endpoint.withdrawals    {withdrawal}    endpoints of this process that were closed; error.type if they
//	                                               may stay listed until their lease ends
//	naming.endpoint.holds          {hold}          endpoints that vanished and were held
//	naming.endpoint.releases       {release}       endpoints that are no longer held;
//	                                               naming.release.reason: "back" or "expired"; "expired" also if
//	                                               the service is no longer watched
//	naming.watch.failures          {failure}       failures of watches and failed attempts to start them; error.type
//	naming.watch.resyncs           {resync}        new watches whose first snapshot replaced a known set
//	naming.watch.resync.changes    {change}        endpoints that these snapshots changed; both count failed
//	                                               watches and periodic full reads
//	naming.watch.malformed.entries {entry}         entries of the registry that could not be understood and were
//	                                               left out; see Metrics.Malformed
//	naming.resolver.updates        {update}        sets of addresses handed to gRPC channels
//
// UpDownCounters, observed when metrics are collected.
//
//	naming.endpoint.registered     {endpoint}      endpoints of this process that are in the registry
//	naming.endpoint.held           {endpoint}      endpoints that are held
//	naming.endpoint.withheld       {endpoint}      endpoints that the registry has and says not to use;
//	                                               naming.withheld.reason: "maintenance" or "failed_check"
//	naming.watch.stale             {watch}         services whose endpoints are stale; without naming.service.name
//	naming.migration.fallback      {service}       services that need both registries in a phase that uses one
//	naming.migration.narrowed      {service}       services whose endpoints come from one registry alone;
//	                                               naming.side.name: the registry that the reader prefers
//
// Gauges, observed when metrics are collected.
//
//	naming.watch.staleness         s               how long the endpoints have been stale; only while they are
//	naming.resolver.addresses      {address}       addresses in the set that was last handed to a gRPC channel
//	naming.migration.phase         {phase}         phase of a service, from 0 (old) to 7 (done); -1 while it is not known
//	naming.migration.missing       {endpoint}      endpoints that only the old registry has
//	naming.migration.extra         {endpoint}      endpoints that only the new registry has
//	naming.migration.mismatch      {endpoint}      endpoints that both registries have with different data
//
// The metrics naming.migration are those of a [Migration]. Each of the others is reported
// three times by a Migration: for the joined Client, and with naming.side.name for each
// registry. The last three of these gauges are reported from the first difference on,
// until the phase compares the registries no longer.
//
// The watch of the list of services counts as a watch. It has no
// naming.service.name, and its changes are services.
//
// The hooks do not report that a gRPC channel was closed. The addresses stay those of
// the last update until [Metrics.Close]. When the watch of a service ends, because its
// last reader left or the Client was closed, its endpoints are neither stale nor held.
//
// An operator should look when naming.watch.stale or naming.endpoint.held is not 0, or
// when naming.endpoint.registered is less than what the process registered.
// naming.endpoint.registered of a service is reported from its first registration on.
// If the first registration fails, naming.endpoint.registration.failures grows.
//
// The number of series grows with the number of services and of error types only. No
// attribute holds an ID, an address or the text of an error. Where services are too
// many, a view of the SDK can drop naming.service.name from all instruments except the
// gauges, whose values do not add up.
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
