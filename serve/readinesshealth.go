package serve

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
	grpcstatus "google.golang.org/grpc/status"
)

// readinessEvery is the time between two looks of a Watch.
const readinessEvery = 250 * time.Millisecond

// Health returns a gRPC health service that says SERVING while r is ready, and NOT_SERVING
// otherwise, for supervisors that probe gRPC, such as the probes of Kubernetes:
//
//	healthpb.RegisterHealthServer(s, readiness.Health())
//
// It answers for the empty name, which stands for the server as a whole. Other names are
// unknown to it: Check returns [codes.NotFound], and Watch sends SERVICE_UNKNOWN, as
// gRPC's health checking protocol says. Watch sends a change within a quarter of a second,
// and returns when its stream ends. All methods may be called concurrently.
//
// NOT_SERVING begins with the draining mark, while clients still send calls. It suits a
// supervisor, which sends no calls. Clients that check the health of a server themselves
// need a *health.Server in Options.Health, which Run shuts down later.
//
// The service is an output of Run, and [Options.Health] is an input. An endpoint that waits
// for its own readiness would never be registered. Options with such a Health and the same
// [Options.Readiness] are an error, [naming.ErrInvalid]. A server with this service sets
// [Options.Ready], or Options.Health to a service that it does not register.
func (r *Readiness) Health() healthgrpc.HealthServer { return &readinessHealth{readiness: r} }

// readinessHealth is a Readiness as a health service.
type readinessHealth struct {
	healthgrpc.UnimplementedHealthServer
	readiness *Readiness
}

func (h *readinessHealth) status() healthgrpc.HealthCheckResponse_ServingStatus {
	if h.readiness.Ready() == nil {
		return healthgrpc.HealthCheckResponse_SERVING
	}
	return healthgrpc.HealthCheckResponse_NOT_SERVING
}

// Check returns the status.
func (h *readinessHealth) Check(_ context.Context, req *healthgrpc.HealthCheckRequest) (*healthgrpc.HealthCheckResponse, error) {
	if req.GetService() != "" {
		return nil, grpcstatus.Error(codes.NotFound, "unknown service")
	}
	return &healthgrpc.HealthCheckResponse{Status: h.status()}, nil
}

// List returns the status of the server as a whole.
func (h *readinessHealth) List(context.Context, *healthgrpc.HealthListRequest) (*healthgrpc.HealthListResponse, error) {
	return &healthgrpc.HealthListResponse{
		Statuses: map[string]*healthgrpc.HealthCheckResponse{"": {Status: h.status()}},
	}, nil
}

// Watch sends the status and its changes until the stream ends.
func (h *readinessHealth) Watch(req *healthgrpc.HealthCheckRequest, stream healthgrpc.Health_WatchServer) error {
	ctx := stream.Context()
	if h.readiness.isLoop(ctx) {
		return fmt.Errorf("Options.Health: %w", errLoop)
	}
	if req.GetService() != "" {
		if err := stream.Send(&healthgrpc.HealthCheckResponse{Status: healthgrpc.HealthCheckResponse_SERVICE_UNKNOWN}); err != nil {
			return err
		}
		<-ctx.Done()
		return grpcstatus.FromContextError(ctx.Err()).Err()
	}
	tick := time.NewTicker(readinessEvery)
	defer tick.Stop()
	last := healthgrpc.HealthCheckResponse_UNKNOWN
	for {
		if now := h.status(); now != last {
			if err := stream.Send(&healthgrpc.HealthCheckResponse{Status: now}); err != nil {
				return err
			}
			last = now
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return grpcstatus.FromContextError(ctx.Err()).Err()
		}
	}
}
