package gozero_test

import (
	"log"

	"github.com/zeromicro/go-zero/core/conf"
	"github.com/zeromicro/go-zero/zrpc"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/contrib/gozero"
)

// A zrpc server. Its configuration is that of any other, without the section Etcd.
func Example_server() {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"localhost:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	c := naming.New(etcd.New(client, &etcd.Options{Prefix: "/naming/"}), nil)
	defer c.Close()

	var config zrpc.RpcServerConf
	conf.MustLoad("greeter.yaml", &config)
	register, err := gozero.Publish(c, "greeter", config, func(s *grpc.Server) {
		// pb.RegisterGreeterServer(s, greeter)
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	server := zrpc.MustNewServer(config, register)
	defer server.Stop()
	server.Start()
}

// A zrpc client.
func Example_client() {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"localhost:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	c := naming.New(etcd.New(client, &etcd.Options{Prefix: "/naming/"}), nil)
	defer c.Close()

	greeter := zrpc.MustNewClient(zrpc.RpcClientConf{Target: "naming:///greeter"}, gozero.WithRegistry(c, nil))
	defer greeter.Conn().Close()
	// pb.NewGreeterClient(greeter.Conn())
}
