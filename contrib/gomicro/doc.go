// Package gomicro lets go-micro's servers and clients use a [naming.Client] as their
// registry:
//
//	service := micro.NewService(
//		micro.Name("greeter"),
//		micro.Registry(gomicro.New(c, nil)),
//	)
//
// Nothing else changes: servers, clients, selectors and wrappers are those of go-micro.
// The package is for go-micro v4. The interface of the registry is the same in v5.0.0.
//
// # What a go-micro node becomes
//
// Each node of a service is one endpoint: the node's Id is the endpoint's ID, and the node's
// Address its Addr. The metadata of the endpoint is an object with these members:
//
//   - each pair of the node's Metadata, as a string. A "weight" that is a number is a number,
//     so that the load balancing policies of this library find it.
//   - "version": the Version of the service.
//   - "@entry": an object with the members "endpoints", the Endpoints of the service, which
//     are the schema of its methods, and "metadata", the Metadata of the service. If the
//     node's Metadata has a version of its own, the Version of the service is here as well.
//
// This is the metadata that the codecs of go-micro's own entries make, etcdcodec.GoMicro and
// consulcodec.GoMicro. So nodes survive a round trip through a Store with any codec that
// keeps metadata, and with the two codecs go-micro's own registries see the same services.
// Consul has no place for the metadata of a service beside that of a node.
//
// Metadata of other programs that is not a string becomes a string of JSON. The names
// "@entry" and "@metadata" are refused in a node's Metadata.
//
// # What clients see
//
// GetService and Watch have what a client should call, as resolver.Builder.Watch says: nodes
// that drain are left out while there are others, nodes that vanished in a wipe of the
// registry stay, and an outage changes nothing. A change of many nodes never passes through
// an empty set: Watch reports new nodes before it reports that others are gone.
//
// go-micro's selector keeps what GetService returned, and follows Watch. It reads only what
// comes after Watch was called. So a Watcher begins with what has changed since GetService
// last returned the service.
//
// # What differs from go-micro's etcd registry
//
//   - A registration is renewed by the Client, not by RegisterInterval, and is put again
//     within its time to live after a loss. Register, which go-micro calls at each
//     RegisterInterval, compares and returns.
//   - A node always has a lease. Without RegisterTTL, the lease lives for 15 seconds, and
//     go-micro's registry leaves the entry of a crashed server forever.
//   - Deregister drains: it marks the node, waits for the drain delay, and removes the node.
//     go-micro's server calls it first when it stops, and serves until Deregister returns.
//     So a supervisor must wait for a second longer, or for the drain delay that is set.
//   - Init with addresses or TLS has no effect: the connection is that of the Client.
package gomicro
