// Package consul keeps endpoints in Consul's service catalogue.
//
// [Store] is the [naming.Store] on a client of one's own, which [NewClient] makes
// with limits that the api package's does not have:
//
//	c := naming.New(consul.New(client, nil), nil)
//
// Endpoints are services of the catalogue, registered through the agent that the
// client talks to, with a TTL check for those under a lease. Other programs find
// them as they find any service, and the services that other programs have
// registered are endpoints here.
//
// # How an endpoint is stored
//
// The service's Name is that of the service, Address and Port are the endpoint's
// address. Metadata that is an object is spread: members that are strings go to
// Meta as they are, the list "tags" goes to Tags, and a "weight" that is a whole
// number from 1 to 65,535 goes to Weights. What has no such place goes to Meta as
// JSON under keys that begin with "naming-", and so do the endpoint's ID, an address
// that is not host:port, and the mark of an endpoint that is draining. It is all read
// back without loss. What does not
// fit into Consul's limits (64 pairs of Meta, of up to 512 bytes each) is
// [naming.ErrInvalid], and nothing is written.
//
// The service's ID begins with the endpoint's, as far as a path can have it, and
// ends in a hash: "web-1~3f2a9c1d5b7e8a90". A registration under a lease has a
// service ID of its own, which no other lease knows, and each has a number, of which the highest among those of one endpoint
// counts. So an old lease never touches what was put since.
//
// # What others have registered
//
// An entry of another writer is an endpoint whose address is that of the service,
// or else of its node, with the service's port, or the port of the name that
// Options.PortName says; its metadata are its Meta, its
// Tags as "tags", and its weight as "weight" unless that is 1, which is also what
// a service has that was given none. Its ID is the service's ID, '@' and the
// address, or only the service's ID where that is the address: service IDs are
// unique on a node only, and "web" may be the ID on every one. The same service
// on two agents, as behind a load balancer, so is one endpoint.
//
// An address that is neither a name nor an IP address, and a port that is not from 1
// to 65535, are malformed; an IPv6 address may be in brackets. Sidecar proxies and
// gateways of the service mesh are left out, unless Options.IncludeProxies is set.
// Endpoints of other writers are NoDrain: their entries have no mark for it.
//
// The service "consul", which is the servers themselves, is a service like any
// other.
//
// What else another's Meta says of a "weight" or "tags" is kept under "@entry": see
// [Codec]. With [Kratos], [GoMicro] or [GRPCSpring] for Options.Codec, the registrations of those
// frameworks' programs say what they say to each other, and theirs find what a
// Store puts.
//
// # Streaming
//
// Agents answer the blocking queries of a watch from a stream of changes that they
// get from a server, or pass each on to one: that is what use_streaming_backend in
// the agent's configuration says, and a Store does the same with both. What is
// narrowed by a tag is narrowed here and not by the agent. Snapshots and what
// Services yields are read from the servers, never from an agent's cache.
//
// # TLS
//
// Certificates are the client's affair. An *http.Transport whose TLSClientConfig
// has GetClientCertificate can replace its own while it is in use.
package consul
