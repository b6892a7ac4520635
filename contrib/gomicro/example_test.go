package gomicro_test

import (
	"log"

	"go-micro.dev/v4"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/contrib/gomicro"
)

// A go-micro service on this registry.
func Example() {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"localhost:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	c := naming.New(etcd.New(client, &etcd.Options{Prefix: "/naming/"}), nil)
	defer c.Close()

	service := micro.NewService(
		micro.Name("greeter"),
		micro.Registry(gomicro.New(c, nil)),
	)
	service.Init()
	// pb.RegisterGreeterHandler(service.Server(), new(Greeter))
	if err := service.Run(); err != nil {
		log.Fatal(err)
	}
}
