// Package kratosnaming is a registry for kratos 2 on any naming Client: etcd, Consul,
// memory, or two registries during a migration. Its name differs from its directory,
// because programs that import it also import package kratos:
//
//	import kratosnaming "github.com/naming-go/naming/contrib/kratos"
//
// The app, its servers, handlers, middleware and selectors stay as they are. Instead of
//
//	r := kratosetcd.New(cli)
//
// use
//
//	store := etcdnaming.New(cli, &etcdnaming.Options{Codec: etcdcodec.Kratos()})
//	c := naming.New(store, nil)
//	defer c.Close()
//	r := kratosnaming.New(c, nil)
//
// for kratos.Registrar, for WithDiscovery of both transports, and for everything else
// that takes a registry.Registrar or a registry.Discovery.
//
// # What the program gets
//
//   - A registration never gives up. kratos's registry for etcd makes five attempts
//     (MaxRetry) after a lease was lost, and then ends without an error.
//   - An outage of the registry changes nothing in a known set, and a registry that was
//     wiped does not empty the set: see [naming.Hold].
//   - A server that stops is drained. App.Stop calls Deregister before it stops the
//     servers, and Deregister returns after clients had time to turn to other servers.
//   - A client that starts during an outage uses the set of [resolver.Options].CacheDir.
//   - The Client may be a migration from one registry to another: package
//     github.com/naming-go/naming/migrate.
//
// # Entries
//
// With the codecs Kratos of packages etcdcodec and consulcodec, entries have kratos's own
// format, and programs on kratos's own registries share them in both directions. Entries
// of such programs have no draining mark, and are held only with
// [naming.Hold].IncludeNoDrainingMark. Any
// other format of a Store that has metadata also works, and keeps every field of an
// instance. The address of an endpoint is the address of one of the instance's URLs: see
// [Options].Schemes. The member "@entry" of the endpoint's metadata has all URLs, unless
// the first of Schemes and the address make up the only one.
//
// The members of an instance's Metadata are members of the endpoint's metadata. The member
// "weight", which kratos's selectors read, is a number there if kratos can read it: a
// positive integer. Version is the member "version". A reader gets other numbers as
// weights rounded to an integer of at least 1, and members that are not strings as JSON.
//
// # What to know of kratos
//
// Give the app time to stop: kratos.RegistrarTimeout bounds Deregister, and has to be
// longer than DrainDelay, one second by default. With less than five seconds more, an
// entry may stay until its lease ends. kratos's default is ten seconds.
//
// Stop an app with App.Stop or a signal. When the context of kratos.Context is done or a
// server fails, kratos stops its servers without Deregister. Close the Client after
// App.Run has returned: Close removes what is left.
//
// kratos's clients use a random subset of 25 instances, each client its own, unless
// kgrpc.WithSubset(0) or khttp.WithSubset(0) is set. The servers of a service have equal
// load only if clients are many.
//
// kratos's clients ignore an update without instances, and keep the last ones. So a
// client also calls the last server of a service after that server was removed.
//
// kratos's clients with TLS use grpcs and https URLs only, and clients without TLS use
// grpc and http URLs only.
package kratosnaming
