package main

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/resolver"
)

// dial returns a connection to the servers that the registry lists. Calls fail
// fast: a call does not wait for a server, and gRPC does not retry it.
func dial(c *naming.Client) (*grpc.ClientConn, error) {
	return grpc.NewClient("naming:///"+service,
		grpc.WithResolvers(resolver.NewBuilder(c, nil)),
		grpc.WithDisableRetry(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
}
