package kratosnaming_test

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-kratos/kratos/v2"
	"github.com/go-kratos/kratos/v2/log"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	kratosnaming "github.com/naming-go/naming/contrib/kratos"
)

// An app and a client of kratos. A program with servers on several machines has a Store on
// etcd or Consul instead of the memory.
func Example() {
	log.SetLogger(log.NewFilter(log.GetLogger(), log.FilterLevel(log.LevelError)))
	c := naming.New(new(memory.Store), &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	defer c.Close()

	// Instead of: r := kratosetcd.New(cli)
	r := kratosnaming.New(c, nil)

	started := make(chan struct{})
	app := kratos.New(
		kratos.ID("greeter-1"),
		kratos.Name("greeter"),
		kratos.Server(kgrpc.NewServer(kgrpc.Address("127.0.0.1:0"))),
		kratos.Registrar(r),
		kratos.AfterStart(func(context.Context) error { close(started); return nil }),
	)
	ended := make(chan error)
	go func() { ended <- app.Run() }()
	<-started

	conn, err := kgrpc.DialInsecure(context.Background(),
		kgrpc.WithEndpoint("discovery:///greeter"),
		kgrpc.WithDiscovery(r),
		kgrpc.WithSubset(0), // all servers, not 25 of them
		kgrpc.WithTimeout(10*time.Second),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	answer, err := grpc_health_v1.NewHealthClient(conn).Check(context.Background(), &grpc_health_v1.HealthCheckRequest{})
	fmt.Println(answer.GetStatus(), err)

	// Clients turn to other servers before this one stops.
	if err := app.Stop(); err != nil {
		fmt.Println(err)
	}
	fmt.Println(<-ended)
	// Output:
	// SERVING <nil>
	// <nil>
}
