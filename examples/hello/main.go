// Command hello registers a gRPC server, finds it by the name of its service, and calls it.
package main

import (
	"context"
	"log"
	"net"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/resolver"
	"github.com/naming-go/naming/serve"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	pb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
)

func main() {
	ctx, stop := context.WithCancel(context.Background())
	store := new(memory.Store) // or etcd.New(must(clientv3.New(clientv3.Config{Endpoints: []string{"127.0.0.1:2379"}})), nil)
	c := naming.New(store, nil)
	defer c.Close()
	lis := must(net.Listen("tcp", "127.0.0.1:0"))
	server, status, stopped := grpc.NewServer(), health.NewServer(), make(chan error)
	pb.RegisterHealthServer(server, status) // Your services go here.
	go func() { stopped <- serve.Run(ctx, c, "greeter", server, lis, &serve.Options{Health: status}) }()

	creds := grpc.WithTransportCredentials(insecure.NewCredentials())
	conn := must(grpc.NewClient("naming:///greeter", grpc.WithResolvers(resolver.NewBuilder(c, nil)), creds))
	defer conn.Close()
	var from peer.Peer
	answer := must(pb.NewHealthClient(conn).Check(ctx, &pb.HealthCheckRequest{}, grpc.WaitForReady(true), grpc.Peer(&from)))
	log.Printf("%v says %v", from.Addr, answer.Status)
	stop() // The server leaves the registry. Then it ends its calls and stops.
	log.Print("stopped, error: ", <-stopped)
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
