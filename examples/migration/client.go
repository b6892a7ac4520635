package main

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/naming-go/naming/examples/internal/demo"
	"github.com/naming-go/naming/resolver"
)

// client is a gRPC client. It reads the registries that the phase of the migration says.
type client struct {
	program *program
	conn    *grpc.ClientConn
	traffic *demo.Traffic
}

// startClient connects a client to the servers. Calls fail fast: a call does not wait
// for a server, and gRPC does not retry it.
func startClient(c *configuration, name string) (*client, error) {
	p, err := c.join(name)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("naming:///"+service,
		grpc.WithResolvers(resolver.NewBuilder(p.joined.Client, nil)),
		grpc.WithDisableRetry(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		p.close()
		return nil, err
	}
	return &client{program: p, conn: conn, traffic: demo.NewTraffic()}, nil
}

func (c *client) stop() {
	_ = c.conn.Close() // an error says that it was closed before
	c.program.close()
}

// reads returns which registry the client uses: "old", "new" or "both".
func (c *client) reads() string {
	r := c.program.joined.Status(service).Reader
	switch {
	case r == nil || r.Endpoints == 0:
		return "none"
	case r.Narrow:
		return r.Lead
	}
	return "both"
}
