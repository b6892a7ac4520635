package etcd_test

import (
	"context"
	"log"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/naming-go/naming"
	etcdnaming "github.com/naming-go/naming/backend/etcd"
)

// Register an endpoint. It stays until it is deleted.
func ExampleGRPCResolver_Update() {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"localhost:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r := &etcdnaming.GRPCResolver{Client: client}
	err = r.Update(ctx, "my-service", naming.Update{Op: naming.Add, Addr: "1.2.3.4:9000", Metadata: map[string]any{"zone": "a"}})
	if err != nil {
		log.Fatal(err)
	}
}

// Dial a service, with the load balanced over its endpoints.
func ExampleGRPCResolver_Build() {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"localhost:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	r := &etcdnaming.GRPCResolver{Client: client}
	conn, err := grpc.NewClient("etcd:///my-service", grpc.WithResolvers(r),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
}

// Force the deletion of an endpoint, as an operator does after its server died.
func ExampleGRPCResolver_Update_delete() {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"localhost:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r := &etcdnaming.GRPCResolver{Client: client}
	if err := r.Update(ctx, "my-service", naming.Update{Op: naming.Delete, Addr: "1.2.3.4:9000"}); err != nil {
		log.Fatal(err)
	}
}

// Register an endpoint under a lease. The endpoint is deleted when the lease ends. The
// caller keeps the lease alive, and registers again after the lease is lost.
func ExampleGRPCResolver_Update_lease() {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"localhost:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	lease, err := client.Grant(ctx, 10)
	if err != nil {
		log.Fatal(err)
	}
	r := &etcdnaming.GRPCResolver{Client: client}
	err = r.Update(ctx, "my-service", naming.Update{Op: naming.Add, Addr: "1.2.3.4:9000"}, clientv3.WithLease(lease.ID))
	if err != nil {
		log.Fatal(err)
	}
}

// A Client on etcd.
func ExampleNew() {
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"localhost:2379"},
		// With keepalive pings, requests notice a dead connection too.
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	c := naming.New(etcdnaming.New(client, &etcdnaming.Options{
		Prefix:      "/naming/",
		OnMalformed: func(m *naming.MalformedError) { log.Print(m) },
	}), nil)
	defer c.Close()
	for view, err := range c.Watch(context.Background(), "greeter") {
		if err != nil {
			log.Print(err)
			break
		}
		log.Print(view.Endpoints)
	}
}
