package kitexnaming_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/utils"
	"github.com/cloudwego/kitex/server"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	kitexnaming "github.com/naming-go/naming/contrib/kitex"
)

// A server and a client of one registry. A real program makes the Client of etcd or Consul,
// and passes the options to the functions that kitex generated.
func Example() {
	c := naming.New(&memory.Store{}, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	defer c.Close()

	r := kitexnaming.NewRegistry(c, &kitexnaming.RegistryOptions{
		Host:     os.Getenv("POD_IP"), // the server listens on all interfaces
		Register: &naming.RegisterOptions{DrainDelay: -1},
	})
	serverOption := server.WithRegistry(r)

	resolver := kitexnaming.NewResolver(c, nil)
	clientOption := client.WithResolver(resolver)

	_, _ = serverOption, clientOption // greeter.NewServer and greeter.NewClient get them

	// What kitex does with the options:
	info := &registry.Info{ServiceName: "greeter", Addr: utils.NewNetAddr("tcp", "10.0.0.7:8888"), Weight: 20, Tags: map[string]string{"zone": "a"}}
	if err := r.Register(info); err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = r.Deregister(info) }()
	for view := range c.Watch(context.Background(), "greeter") {
		if len(view.Endpoints) > 0 {
			break // The server is registered.
		}
	}
	result, err := resolver.Resolve(context.Background(), "greeter")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, instance := range result.Instances {
		zone, _ := instance.Tag("zone")
		fmt.Println(instance.Address(), instance.Weight(), zone)
	}
	// Output: 10.0.0.7:8888 20 a
}
