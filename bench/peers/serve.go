package peers

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/serve"
)

// Serve serves and registers, as a user of this library does instead of Register. See
// package roll.
func (c *ours) Serve(ctx context.Context, service string, s *grpc.Server, lis net.Listener, h *health.Server) error {
	return serve.Run(ctx, c.client, service, s, lis, &serve.Options{Health: h, Register: &naming.RegisterOptions{TTL: ttl}})
}
