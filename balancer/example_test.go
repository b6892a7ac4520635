package balancer_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"sync/atomic"

	"google.golang.org/grpc"
	grpcbalancer "google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/endpointsharding"
	"google.golang.org/grpc/balancer/pickfirst"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/serviceconfig"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/balancer"
	"github.com/naming-go/naming/resolver"
)

// A client that prefers servers of its own zone.
func Example() {
	c := naming.New(new(memory.Store), nil)
	defer c.Close()
	b := resolver.NewBuilder(c, &resolver.Options{
		ServiceConfig: balancer.Config{Zone: "eu-1a"}.ServiceConfig(),
	})
	conn, err := grpc.NewClient(b.Target("greeter"), grpc.WithResolvers(b),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Println(balancer.Config{Zone: "eu-1a"}.ServiceConfig())
	// Output: {"loadBalancingConfig":[{"naming":{"zone":"eu-1a"}}]}
}

// The rest of this file is a policy that calls endpoints of one version only. Its name in a
// service config is "by_version", and its configuration is {"version":"..."}.

func init() { grpcbalancer.Register(versionBuilder{}) }

// versionConfig is the configuration.
type versionConfig struct {
	serviceconfig.LoadBalancingConfig `json:"-"`

	Version string `json:"version"`
}

type versionBuilder struct{}

func (versionBuilder) Name() string { return "by_version" }

// ParseConfig makes versionBuilder a balancer.ConfigParser.
func (versionBuilder) ParseConfig(text json.RawMessage) (serviceconfig.LoadBalancingConfig, error) {
	c := new(versionConfig)
	return c, json.Unmarshal(text, c)
}

func (versionBuilder) Build(cc grpcbalancer.ClientConn, opts grpcbalancer.BuildOptions) grpcbalancer.Balancer {
	p := &versionPolicy{ClientConn: cc}
	// A child policy for each endpoint. The policy is the ClientConn of endpointsharding,
	// and gets the states of all children in UpdateState.
	p.Balancer = endpointsharding.NewBalancer(p, opts, grpcbalancer.Get(pickfirst.Name).Build, endpointsharding.Options{})
	return p
}

// versionPolicy is the policy: a Balancer for gRPC, and a ClientConn for endpointsharding.
type versionPolicy struct {
	grpcbalancer.Balancer   // endpointsharding
	grpcbalancer.ClientConn // gRPC's

	version atomic.Value // a string
}

// UpdateClientConnState gets the configuration and the endpoints.
func (p *versionPolicy) UpdateClientConnState(s grpcbalancer.ClientConnState) error {
	c, ok := s.BalancerConfig.(*versionConfig)
	if !ok {
		return grpcbalancer.ErrBadResolverState
	}
	p.version.Store(c.Version)
	s.BalancerConfig = nil // of the children
	return p.Balancer.UpdateClientConnState(s)
}

// UpdateState gets the states of all endpoints, after a change of any of them or of the
// registry's data.
func (p *versionPolicy) UpdateState(s grpcbalancer.State) {
	if s.ConnectivityState == connectivity.Ready {
		picker := new(versionPicker)
		for _, child := range endpointsharding.ChildStatesFromPicker(s.Picker) {
			// The data of the registry: always the newest, as this is not kept.
			e, _ := resolver.EndpointOf(child.Endpoint)
			if child.State.ConnectivityState == connectivity.Ready && e.Info().Version == p.version.Load() {
				picker.ready = append(picker.ready, child.State.Picker)
			}
		}
		if len(picker.ready) > 0 { // else any version is better than none
			s.Picker = picker
		}
	}
	p.ClientConn.UpdateState(s)
}

// versionPicker takes the connected endpoints of the version in turn.
type versionPicker struct {
	ready []grpcbalancer.Picker
	next  atomic.Uint32
}

func (p *versionPicker) Pick(info grpcbalancer.PickInfo) (grpcbalancer.PickResult, error) {
	return p.ready[p.next.Add(1)%uint32(len(p.ready))].Pick(info)
}

// A load balancing policy of your own that uses the data of the registry: here the version.
func Example_ownPolicy() {
	ctx := context.Background()
	c := naming.New(new(memory.Store), nil)
	defer c.Close()
	versions := make(map[string]string)
	for _, version := range []string{"1", "2", "2"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		server := grpc.NewServer()
		defer server.Stop()
		healthpb.RegisterHealthServer(server, health.NewServer())
		go server.Serve(l)
		versions[l.Addr().String()] = version
		if err := c.Update(ctx, "greeter", naming.Update{
			Op: naming.Add, Addr: l.Addr().String(), Metadata: json.RawMessage(`{"version":"` + version + `"}`),
		}); err != nil {
			log.Fatal(err)
		}
	}

	b := resolver.NewBuilder(c, &resolver.Options{
		ServiceConfig: `{"loadBalancingConfig":[{"by_version":{"version":"2"}}]}`,
	})
	conn, err := grpc.NewClient(b.Target("greeter"), grpc.WithResolvers(b),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	// Any endpoint is called until one of version 2 is connected.
	for called := ""; called != "2"; {
		var p peer.Peer
		if _, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Peer(&p)); err != nil {
			log.Fatal(err)
		}
		called = versions[p.Addr.String()]
	}
	for range 3 {
		var p peer.Peer
		if _, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Peer(&p)); err != nil {
			log.Fatal(err)
		}
		fmt.Println("version", versions[p.Addr.String()])
	}
	// Output:
	// version 2
	// version 2
	// version 2
}
