package etcdcodec_test

import (
	"log"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/etcd/etcdcodec"
)

// A registry that a program shares with programs on kratos.
func Example() {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"localhost:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	c := naming.New(etcd.New(client, &etcd.Options{Codec: etcdcodec.Kratos()}), nil)
	defer c.Close()
}
