package main

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/naming-go/naming"
)

// service is the name by which clients find the servers.
const service = "greeter"

// server is a gRPC server and its entry in the registry. The one service that it
// has is gRPC's own health service, for want of a better one that needs no
// generated code.
type server struct {
	name, addr   string
	grpc         *grpc.Server
	registration *naming.Registration
}

// startServer starts a server and announces it.
func startServer(ctx context.Context, c *naming.Client, name string) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{name: name, addr: l.Addr().String(), grpc: grpc.NewServer()}
	healthpb.RegisterHealthServer(s.grpc, health.NewServer())
	go s.grpc.Serve(l)

	// From here on the registration is kept, whatever happens to the registry.
	// Wait is for the story's sake: a real server need not wait.
	s.registration, err = c.Register(ctx, service, naming.Endpoint{Addr: s.addr}, &naming.RegisterOptions{Wait: true})
	if err != nil {
		s.grpc.Stop()
		return nil, err
	}
	return s, nil
}

// stop stops a server the way that drops no call: it goes on serving until
// clients know that it leaves, and then until the last call has ended.
func (s *server) stop() error {
	err := s.registration.Close()
	s.grpc.GracefulStop()
	return err
}
