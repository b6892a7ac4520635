// Package consul keeps endpoints in Consul's service catalogue.
//
// [Store] is the [naming.Store]. It needs a client, which [NewClient] makes. NewClient
// bounds the answers that the client reads, which the api package's own client does
// not.
//
//	client, err := consul.NewClient(api.DefaultConfig())
//	if err != nil {
//		return err
//	}
//	c := naming.New(consul.New(client, nil), nil)
//	defer c.Close()
//
// An endpoint is a service of the catalogue. It is registered with the agent that the
// client talks to, and has a TTL check if it is under a lease. So other programs find
// the endpoints as they find any service, and services that other programs registered
// are endpoints here.
//
// Some things to know before you begin:
//
//   - The client should always reach the same agent, best the agent on the same host.
//   - The token needs service:write for the services that a program registers,
//     service:read for those it watches, and node:read.
//   - A dead process is listed until its lease ends, and stays in Consul for
//     Options.DeregisterAfter after that.
//   - A Store has 100 requests at most at a time. By default an agent accepts 200
//     connections from one address. See [Store] on connections.
//
// # How an endpoint is stored
//
// Name is the name of the service. Address and Port are the endpoint's address.
// Metadata that is an object is spread. Members that are strings go to Meta as they are.
// The list "tags" goes to Tags. A "weight" that is a whole number from 1 to 65,535 goes
// to Weights. Everything else goes to Meta, under keys that begin with "naming-": other
// metadata as JSON, the endpoint's ID, an address that is not host:port, and the mark of
// an endpoint that is draining. All of this is read back without loss. An endpoint that
// exceeds Consul's limits (64 pairs of Meta, of up to 512 bytes each) is
// [naming.ErrInvalid], and nothing is written.
//
// The ID of the service begins with the endpoint's ID, as far as a path can have it, and
// ends in a hash: "web-1~3f2a9c1d5b7e8a90". Each lease has service IDs of its own, and
// each registration has a number. Of several registrations of one endpoint, the highest
// number counts. So an old lease never touches what was put after it.
//
// # What others have registered
//
// An entry of another writer is an endpoint. Its address is the service's address, or
// else the node's, with the service's port, or with the port that Options.PortName
// names. Its metadata consists of its Meta, of its Tags as "tags", and of its weight as
// "weight". A weight of 1 is left out, since Consul gives it to every service without a
// weight. Its ID is the service's ID, '@' and the address. The reason is that a service
// ID is unique on its node only: "web" may be the ID on every node. If the service's ID
// is the address, it is the endpoint's ID alone. So the same service on two agents, as
// behind a load balancer, is one endpoint.
//
// An address that is neither a name nor an IP address is malformed, and so is a port
// outside of 1 to 65535. An IPv6 address may be in brackets. Sidecar proxies and gateways
// of the service mesh are left out, unless Options.IncludeProxies is set. Endpoints of
// other writers are NoDrainingMark, because their entries have no mark for draining.
//
// Consul registers its own servers as the service "consul", under the service ID
// "consul". These entries are not endpoints: no program announced them, and no gRPC
// server is behind their port. A service "consul" that programs register under other
// service IDs is a service like any other.
//
// # Other frameworks
//
// A [Codec] for Options.Codec makes the Store read the registrations of another
// framework's programs as these programs mean them, and lets them find what the Store
// puts. Package consulcodec has the codecs of kratos, go-micro and grpc-spring. What
// another program's Meta says of a "weight" or of "tags" is kept in a member "@entry" of
// the metadata: see that package.
//
// # Streaming
//
// An agent answers the blocking queries of a watch from a stream of changes that a
// server sends, or passes each query on to a server: use_streaming_backend in the
// agent's configuration says which. A Store does the same with both. The Store itself,
// not the agent, narrows a service by a tag. Snapshots, and what Services yields, are read
// from the servers and never from an agent's cache.
//
// # TLS
//
// Certificates are the client's affair. An *http.Transport whose TLSClientConfig has
// GetClientCertificate can replace its certificate while it is in use.
package consul
