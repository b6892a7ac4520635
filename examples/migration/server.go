package main

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/naming-go/naming"
)

// service is the name by which clients find the servers.
const service = "greeter"

// server is a gRPC server. It is registered where the phase of the migration says.
type server struct {
	name, addr   string
	program      *program
	grpc         *grpc.Server
	registration *naming.Registration
}

// startServer starts a server and registers it. accepted counts the connections that
// clients make to it.
func startServer(ctx context.Context, c *configuration, name string, accepted *atomic.Int64) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{name: name, addr: l.Addr().String(), grpc: grpc.NewServer()}
	healthpb.RegisterHealthServer(s.grpc, health.NewServer())
	go s.grpc.Serve(&countingListener{l, accepted})

	s.program, err = c.join(name)
	if err != nil {
		s.grpc.Stop()
		return nil, err
	}
	// A server that does not know the phase registers in both registries, which is safe.
	// This one waits, so that the table has the registrations of the phase only.
	if err := s.program.awaitPhase(ctx); err != nil {
		s.grpc.Stop()
		s.program.close()
		return nil, err
	}
	// Wait waits for the registry that counts in the present phase.
	s.registration, err = s.program.joined.Register(ctx, service, naming.Endpoint{Addr: s.addr},
		&naming.RegisterOptions{Wait: true, DrainDelay: 400 * time.Millisecond})
	if err != nil {
		s.grpc.Stop()
		s.program.close()
		return nil, err
	}
	return s, nil
}

// stop stops a server without dropping a call. It leaves both registries at once.
func (s *server) stop() error {
	err := s.registration.Close()
	s.grpc.GracefulStop()
	s.program.close()
	return err
}

// countingListener counts the connections that it accepts.
type countingListener struct {
	net.Listener
	accepted *atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return conn, err
}
