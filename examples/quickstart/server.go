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

// server is a gRPC server and its entry in the registry. Its only service is
// gRPC's health service, which needs no generated code here.
type server struct {
	name, addr   string
	grpc         *grpc.Server
	registration *naming.Registration
}

// startServer starts a server and registers it.
func startServer(ctx context.Context, c *naming.Client, name string) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{name: name, addr: l.Addr().String(), grpc: grpc.NewServer()}
	healthpb.RegisterHealthServer(s.grpc, health.NewServer())
	go s.grpc.Serve(l)

	// The Client keeps the registration from here on, through every failure of the
	// registry. Wait serves the story only. A real server need not wait.
	s.registration, err = c.Register(ctx, service, naming.Endpoint{Addr: s.addr}, &naming.RegisterOptions{Wait: true})
	if err != nil {
		s.grpc.Stop()
		return nil, err
	}
	return s, nil
}

// stop stops a server without dropping a call. The server goes on serving until
// clients know that it leaves, and then until the last call has ended.
func (s *server) stop() error {
	err := s.registration.Close()
	s.grpc.GracefulStop()
	return err
}
