package consul_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
)

// A server registers itself. Every program that looks for the server in Consul finds
// it, with zone in its Meta and a weight of 3.
func Example() {
	client, err := consul.NewClient(api.DefaultConfig())
	if err != nil {
		log.Fatal(err)
	}
	c := naming.New(consul.New(client, nil), nil)
	defer c.Close()

	ctx := context.Background()
	reg, err := c.Register(ctx, "greeter", naming.Endpoint{
		Addr:     "10.0.0.7:9000",
		Metadata: []byte(`{"zone":"eu-1a","weight":3}`),
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer reg.Close()

	for view, err := range c.Watch(ctx, "greeter") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(view.Endpoints)
	}
}

// A token that is replaced now and then is read for each request.
func ExampleOptions_token() {
	client, err := consul.NewClient(api.DefaultConfig())
	if err != nil {
		log.Fatal(err)
	}
	store := consul.New(client, &consul.Options{
		Token: func(context.Context) (string, error) {
			b, err := os.ReadFile("/run/secrets/consul-token")
			return string(b), err
		},
	})
	c := naming.New(store, nil)
	defer c.Close()
}
