// Package gokitnaming is service discovery for go-kit on any naming Client: etcd, Consul,
// memory, or two registries during a migration. Its name differs from its directory, as
// programs that import it also import packages of go-kit:
//
//	import gokitnaming "github.com/naming-go/naming/contrib/gokit"
//
// Endpoints, factories, transports, balancers and middleware stay as they are. Instead of
//
//	client, err := etcdv3.NewClient(ctx, machines, etcdv3.ClientOptions{})
//	instancer, err := etcdv3.NewInstancer(client, "/services/greeter/", logger)
//	registrar := etcdv3.NewRegistrar(client, etcdv3.Service{Key: key, Value: addr}, logger)
//
// use
//
//	store := etcdnaming.New(cli, &etcdnaming.Options{Codec: etcdcodec.GoKit()})
//	c := naming.New(store, &naming.Options{Hold: naming.Hold{IncludeNoDrainingMark: true}})
//	defer c.Close()
//	instancer := gokitnaming.NewInstancer(c, "greeter", nil)
//	registrar := gokitnaming.NewRegistrar(c, "greeter", naming.Endpoint{Addr: addr}, nil)
//
// # What the program gets
//
//   - A registration never gives up. go-kit's registrar for etcd puts its key once, and
//     the key is gone for good when the lease is lost. go-kit's registrar for Consul
//     registers once.
//   - A watch never ends. go-kit's Instancer for etcd hears nothing more after its watch
//     was canceled, for example by a compaction.
//   - An outage of the registry changes nothing in a known set, and a registry that was
//     wiped does not empty the set: see [naming.Hold]. Instancers send no error once a set
//     is known, so that sd.InvalidateOnError never drops endpoints that work.
//   - A server that stops is drained: [Registrar.Deregister] returns after clients had time
//     to turn to other servers.
//   - A client that starts during an outage uses the set of [resolver.Options].CacheDir.
//   - The Client may be a migration from one registry to another: package
//     github.com/naming-go/naming/migrate.
//
// # Entries
//
// With etcdcodec.GoKit, entries have the form of go-kit's examples,
// /services/greeter/10.0.0.7:8080 = 10.0.0.7:8080, and programs on go-kit's own packages
// share them in both directions. That form has no draining mark and no metadata. An entry
// is then removed at the beginning of the drain delay instead of being marked, which go-kit
// clients see as well. Without the mark, a loss looks like an orderly stop, and endpoints
// are held only with Hold.IncludeNoDrainingMark. Without that option, a registry that was
// wiped leaves clients without instances until the first server is registered again. The
// other formats have the mark and metadata, except etcdcodec.GoZero.
//
// An instance is host:port, or a URL such as http://10.0.0.7:8080. The address of an
// endpoint is then the host and port of the URL, and the member "url" of its metadata is
// the URL.
//
// # Calls in progress
//
// An Endpointer closes the io.Closer of an instance as soon as the instance has left the
// set, which a server does when it begins to drain. A Closer that is a grpc.ClientConn
// cancels the calls in progress. [FinishCalls] wraps a factory so that they end first.
package gokitnaming
