package gokitnaming_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/go-kit/kit/endpoint"
	"github.com/go-kit/kit/sd"
	"github.com/go-kit/kit/sd/etcdv3"
	"github.com/go-kit/kit/sd/lb"
	kithttp "github.com/go-kit/kit/transport/http"
	"github.com/go-kit/log"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/naming-go/naming"
	etcdnaming "github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/etcd/etcdcodec"
	gokitnaming "github.com/naming-go/naming/contrib/gokit"
	"github.com/naming-go/naming/internal/doortest"
)

// TestDoors plays restarts, outages and wipes on servers and clients of go-kit, on go-kit's
// own service discovery and on ours.
func TestDoors(t *testing.T) {
	theirs, ours := door("go-kit 0.13.0, its sd/etcdv3", openTheirs), door("go-kit 0.13.0, contrib/gokit", openOurs)
	doortest.CompareOnEtcd(t, "go-kit", theirs, ours, doortest.Options{})
}

// discovery is service discovery for one program.
type discovery struct {
	registrar func(service, addr string) sd.Registrar
	instancer func(service string) (sd.Instancer, error)
	close     func()
}

// openTheirs returns go-kit's service discovery, with leases of three seconds.
func openTheirs(tb testing.TB, etcd []string) discovery {
	ctx, cancel := context.WithCancel(context.Background())
	client, err := etcdv3.NewClient(ctx, etcd, etcdv3.ClientOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	return discovery{
		registrar: func(service, addr string) sd.Registrar {
			return etcdv3.NewRegistrar(client, etcdv3.Service{
				Key: "/services/" + service + "/" + addr, Value: addr, TTL: etcdv3.NewTTLOption(time.Second, 3*time.Second),
			}, log.NewNopLogger())
		},
		instancer: func(service string) (sd.Instancer, error) {
			return etcdv3.NewInstancer(client, "/services/"+service+"/", log.NewNopLogger())
		},
		close: cancel,
	}
}

// openOurs returns our service discovery, with the entries of go-kit and leases of three
// seconds.
func openOurs(tb testing.TB, etcd []string) discovery {
	cli, err := clientv3.New(clientv3.Config{Endpoints: etcd, Logger: zap.NewNop()})
	if err != nil {
		tb.Fatal(err)
	}
	store := etcdnaming.New(cli, &etcdnaming.Options{Codec: etcdcodec.GoKit()})
	c := naming.New(store, &naming.Options{Logger: quiet, Hold: naming.Hold{IncludeNoDrainingMark: true}})
	return discovery{
		registrar: func(service, addr string) sd.Registrar {
			return gokitnaming.NewRegistrar(c, service, naming.Endpoint{Addr: addr},
				&gokitnaming.RegistrarOptions{Register: &naming.RegisterOptions{TTL: 3 * time.Second}})
		},
		instancer: func(service string) (sd.Instancer, error) { return gokitnaming.NewInstancer(c, service, nil), nil },
		close: func() {
			c.Close()
			cli.Close()
		},
	}
}

// door returns servers and clients of go-kit.
func door(name string, open func(tb testing.TB, etcd []string) discovery) doortest.Door {
	return doortest.Door{
		Name: name,
		Serve: func(tb testing.TB, etcd []string, service, addr string) (stop func()) {
			s := serve(tb, addr)
			d := open(tb, etcd)
			r := d.registrar(service, addr)
			r.Register()
			return func() {
				r.Deregister()
				if err := s.Shutdown(context.Background()); err != nil {
					tb.Error(err)
				}
				d.close()
			}
		},
		Dial: func(tb testing.TB, etcd []string, service string) (func(context.Context) (string, error), func()) {
			d := open(tb, etcd)
			i, err := d.instancer(service)
			if err != nil {
				tb.Fatal(err)
			}
			endpointer := sd.NewEndpointer(i, factory, log.NewNopLogger())
			balancer := lb.NewRoundRobin(endpointer)
			call := func(ctx context.Context) (string, error) {
				where, err := balancer.Endpoint()
				if err != nil {
					return "", err
				}
				addr, err := where(ctx, nil)
				return fmt.Sprint(addr), err
			}
			return call, func() {
				endpointer.Close()
				i.Stop()
				d.close()
			}
		},
	}
}

// serve serves go-kit's HTTP transport. The answer to each request is addr.
func serve(tb testing.TB, addr string) *http.Server {
	lis, err := net.Listen("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	s := &http.Server{Handler: kithttp.NewServer(
		func(context.Context, any) (any, error) { return addr, nil },
		kithttp.NopRequestDecoder,
		func(_ context.Context, w http.ResponseWriter, response any) error {
			_, err := io.WriteString(w, response.(string))
			return err
		},
	)}
	go s.Serve(lis)
	return s
}

// factory returns the endpoint of an instance.
func factory(instance string) (endpoint.Endpoint, io.Closer, error) {
	target := &url.URL{Scheme: "http", Host: instance, Path: "/"}
	return kithttp.NewClient(http.MethodGet, target, kithttp.EncodeJSONRequest, func(_ context.Context, r *http.Response) (any, error) {
		b, err := io.ReadAll(r.Body)
		return string(b), err
	}).Endpoint(), nil, nil
}
