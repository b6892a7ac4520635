// Package peer describes to the bench a way to find and announce services. An adapter is a
// file of package peers that makes a [Peer].
package peer

import (
	"context"

	"github.com/hashicorp/consul/api"
	"google.golang.org/grpc"
)

// Servers are the registries that a run has started.
type Servers struct {
	Etcd   []string // client endpoints, host:port
	Consul string   // the address of the HTTP API, host:port
}

// Endpoint is an instance of a service.
type Endpoint struct {
	ID       string // unique within its service
	Addr     string // host:port
	Metadata map[string]string
}

// Peer is a library, or a raw client that serves as a floor.
type Peer struct {
	Name    string
	Backend string // "etcd" or "consul"
	// Module is the path of the Go module whose version the report names.
	Module string
	// Floor says that the peer is a raw client, which ignores faults.
	Floor bool
	// Entry returns the entry that the peer's own registrar writes for an endpoint.
	Entry func(service string, e Endpoint) Entry
	// Open connects a process to the servers. It is called once in a process.
	Open func(ctx context.Context, s Servers) (Client, error)
}

// Entry is an endpoint in the form of a registry.
type Entry struct {
	Key, Value string                        // etcd
	Service    *api.AgentServiceRegistration // Consul, without a check
}

// Client is a peer in one process. Its methods may be called concurrently.
type Client interface {
	// Resolve adds a consumer of a service. update is called, one call at a time, with
	// every set that the peer gives to gRPC, or to its user if the peer has no
	// resolver for gRPC. A set has n addresses, and addr returns the i-th. update must
	// not keep addr.
	Resolve(service string, update func(n int, addr func(i int) string)) (stop func(), err error)
	// Dial returns the target and the options of a gRPC client that balances with
	// round_robin. The error is errors.ErrUnsupported if the peer has no resolver for
	// gRPC.
	Dial(service string) (target string, opts []grpc.DialOption, err error)
	// Register registers an endpoint with the peer's own registrar, and keeps the
	// endpoint alive until deregister is called. The error is errors.ErrUnsupported if
	// the peer has no registrar.
	Register(ctx context.Context, service string, e Endpoint) (deregister func(context.Context) error, err error)
	Close()
}
