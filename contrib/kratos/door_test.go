package kratosnaming_test

import (
	"context"
	"testing"
	"time"

	kratosetcd "github.com/go-kratos/kratos/contrib/registry/etcd/v2"
	"github.com/go-kratos/kratos/v2"
	"github.com/go-kratos/kratos/v2/log"
	"github.com/go-kratos/kratos/v2/registry"
	kgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/naming-go/naming"
	etcdnaming "github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/etcd/etcdcodec"
	kratosnaming "github.com/naming-go/naming/contrib/kratos"
	"github.com/naming-go/naming/internal/doortest"
)

// TestDoors plays restarts, outages and wipes on kratos's servers and clients, on kratos's
// own registry and on ours.
func TestDoors(t *testing.T) {
	log.SetLogger(log.NewFilter(log.GetLogger(), log.FilterLevel(log.LevelFatal)))
	theirs, ours := door("kratos 2.9.2, its etcd registry", openTheirs), door("kratos 2.9.2, contrib/kratos", openOurs)
	// kratos notices that a lease has ended, and makes five attempts of three seconds.
	doortest.CompareOnEtcd(t, "kratos", theirs, ours, doortest.Options{Outage: 24 * time.Second})
}

// openTheirs returns kratos's registry, with leases of three seconds.
func openTheirs(cli *clientv3.Client) (kratosRegistry, func()) {
	r := kratosetcd.New(cli, kratosetcd.RegisterTTL(3*time.Second))
	return kratosRegistry{r, r}, func() {}
}

// openOurs returns our registry, with the entries of kratos and leases of three seconds.
func openOurs(cli *clientv3.Client) (kratosRegistry, func()) {
	c := naming.New(etcdnaming.New(cli, &etcdnaming.Options{Codec: etcdcodec.Kratos()}), &naming.Options{Logger: quiet})
	r := kratosnaming.New(c, &kratosnaming.Options{
		Register: &naming.RegisterOptions{TTL: 3 * time.Second},
		Logger:   quiet,
	})
	return kratosRegistry{r, r}, c.Close
}

// door returns servers and clients of kratos on a registry.
func door(name string, open func(*clientv3.Client) (kratosRegistry, func())) doortest.Door {
	connect := func(tb testing.TB, endpoints []string) (kratosRegistry, func()) {
		cli, err := clientv3.New(clientv3.Config{Endpoints: endpoints, Logger: zap.NewNop()})
		if err != nil {
			tb.Fatal(err)
		}
		r, end := open(cli)
		return r, func() {
			end()
			cli.Close()
		}
	}
	return doortest.Door{
		Name: name,
		Serve: func(tb testing.TB, etcd []string, service, addr string) (stop func()) {
			r, end := connect(tb, etcd)
			stopApp := serve(tb, r, service, addr)
			return func() {
				stopApp()
				end()
			}
		},
		Dial: func(tb testing.TB, etcd []string, service string) (func(context.Context) (string, error), func()) {
			r, end := connect(tb, etcd)
			conn, err := kgrpc.DialInsecure(context.Background(), kgrpc.WithEndpoint("discovery:///"+service), kgrpc.WithDiscovery(r))
			if err != nil {
				tb.Fatal(err)
			}
			call := func(ctx context.Context) (string, error) {
				var addr wrapperspb.StringValue
				err := conn.Invoke(ctx, "/doors.Where/Where", &emptypb.Empty{}, &addr)
				return addr.Value, err
			}
			return call, func() {
				conn.Close()
				end()
			}
		},
	}
}

// serve runs an app of kratos, and returns when the app has started. stop ends the app in
// kratos's own way.
func serve(tb testing.TB, r registry.Registrar, service, addr string) (stop func()) {
	s := kgrpc.NewServer(kgrpc.Address(addr))
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "doors.Where",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Where", Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			return wrapperspb.String(addr), decode(new(emptypb.Empty))
		}}},
	}, addr)
	started, ended := make(chan struct{}), make(chan error, 1)
	app := kratos.New(kratos.ID(addr), kratos.Name(service), kratos.Server(s), kratos.Registrar(r),
		kratos.AfterStart(func(context.Context) error { close(started); return nil }))
	go func() { ended <- app.Run() }()
	select {
	case <-started:
	case err := <-ended:
		tb.Errorf("app.Run: %v", err)
		return func() {}
	}
	return func() {
		if err := app.Stop(); err != nil {
			tb.Logf("app.Stop of %s: %v", addr, err)
		}
		if err := <-ended; err != nil {
			tb.Logf("app.Run of %s: %v", addr, err)
		}
	}
}
