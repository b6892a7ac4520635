// Package prometheusnaming turns the hooks of package naming into Prometheus
// metrics. It does not need OpenTelemetry. Its name differs from its directory, because
// programs that import it also import package prometheus of client_golang:
//
//	import prometheusnaming "github.com/naming-go/naming/observe/prometheus"
//
//	m, err := prometheusnaming.New(nil)
//	if err != nil {
//		return err
//	}
//	defer m.Close()
//	prometheus.MustRegister(m)
//	store := etcdnaming.New(client, &etcdnaming.Options{OnMalformed: m.Malformed})
//	c := naming.New(store, &naming.Options{Hooks: m.Hooks()})
//	defer c.Close()
//
// A program on two registries uses [NewMigration].
//
// # Metrics
//
// Counters, with their labels:
//
//	naming_endpoint_registrations_total{service,reason}
//		Endpoints of this process that were put into the registry. The reason is
//		"first", or "again" after a loss.
//	naming_endpoint_registration_failures_total{service,error_type}
//		Failed attempts to put endpoints of this process, or their newest state,
//		into the registry.
//	naming_endpoint_losses_total{service,error_type}
//		Endpoints of this process that the registry lost.
//	naming_endpoint_withdrawals_total{service,error_type}
//		Endpoints of this process that were closed. A non-empty error_type means
//		that they may stay listed until their lease ends.
//	naming_endpoint_holds_total{service}
//		Endpoints that vanished and were held.
//	naming_endpoint_releases_total{service,reason}
//		Endpoints that are no longer held. The reason is "back" or "expired". It
//		is "expired" also if the service is no longer watched.
//	naming_watch_failures_total{service,error_type}
//		Failures of watches, and failed attempts to start them.
//	naming_watch_resyncs_total{service}
//		New watches whose first snapshot replaced a known set.
//	naming_watch_resync_changes_total{service}
//		Endpoints that these snapshots changed. Both count failed watches and
//		periodic full reads.
//	naming_watch_malformed_entries_total{service}
//		Entries of the registry that could not be understood and were left out.
//		See Metrics.Malformed.
//	naming_resolver_updates_total{service}
//		Sets of addresses handed to gRPC channels.
//
// Gauges, computed when the metrics are collected:
//
//	naming_endpoint_registered{service}
//		Endpoints of this process that are in the registry.
//	naming_endpoint_held{service}
//		Endpoints that are held.
//	naming_endpoint_withheld{service,reason}
//		Endpoints that the registry has and says not to use. The reason is
//		"maintenance" or "failed_check".
//	naming_watch_stale
//		The number of services whose endpoints are stale.
//	naming_watch_staleness_seconds{service}
//		How long the endpoints have been stale. The series exists only while the
//		endpoints are stale.
//	naming_resolver_addresses{service}
//		Addresses in the set that was last handed to a gRPC channel.
//
// Gauges of a [Migration], beside all of the above with the label side. That label is
// empty for the joined Client, and the name of a registry for that registry alone:
//
//	naming_migration_phase{service}
//		The phase of a service, from 0 (old) to 7 (done). It is -1 while it is
//		not known.
//	naming_migration_fallback{service}
//		1 while the process needs both registries in a phase that uses one.
//	naming_migration_narrowed{service,side}
//		1 while the endpoints come from one registry alone. The side is the
//		registry that the reader prefers.
//	naming_migration_missing{service}
//		Endpoints that only the old registry has.
//	naming_migration_extra{service}
//		Endpoints that only the new registry has.
//	naming_migration_mismatch{service}
//		Endpoints that both registries have with different data. The last three
//		exist from the first difference on, until the phase compares the
//		registries no longer.
//
// A gauge of a service, except naming_watch_stale, exists only after the first event
// that concerns it. An endpoint whose first registration fails is therefore missing
// from naming_endpoint_registered, and naming_endpoint_registration_failures_total
// grows.
//
// The watch of the list of services counts as a watch. Its service is the empty
// string, and its changes are services.
//
// The hooks do not report that a gRPC channel was closed. The addresses stay those of
// the last update until [Metrics.Close]. When the watch of a service ends, because its
// last reader left or the Client was closed, its endpoints are neither stale nor held.
//
// The names are those that the Prometheus exporter of OpenTelemetry gives to the
// metrics of observe/otel. The labels are shorter.
//
// # Series
//
// The number of series grows with the number of services and of error types only. No
// label holds an ID, an address or the text of an error. [Options.DropService] removes
// the label service where services are too many.
//
// # Dashboard and alerts
//
// The directory of this package holds dashboard.json, a dashboard for Grafana, and
// alerts.yml, alerting rules for Prometheus. The dashboard needs the label service. The
// rules work without the label: an alert is then for all services of a process.
package prometheusnaming
