package roll

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/naming-go/naming/bench/actor"
	"github.com/naming-go/naming/bench/peer"
	"github.com/naming-go/naming/bench/peers"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/servertest"
)

// stranger has no resolver for gRPC.
var stranger = peer.Peer{Name: "stranger", Backend: "etcd", Open: func(context.Context, peer.Servers) (peer.Client, error) {
	return strangerClient{}, nil
}}

type strangerClient struct{}

func (strangerClient) Resolve(string, func(int, func(int) string)) (func(), error) {
	return nil, errors.ErrUnsupported
}
func (strangerClient) Dial(string) (string, []grpc.DialOption, error) {
	return "", nil, errors.ErrUnsupported
}
func (strangerClient) Register(context.Context, string, peer.Endpoint) (func(context.Context) error, error) {
	return func(context.Context) error { return nil }, nil
}
func (strangerClient) Close() {}

// frozen is a floor whose clients never learn of servers that start after them.
var frozen = func() peer.Peer {
	p, err := peers.Find("floor-etcd")
	if err != nil {
		panic(err)
	}
	open := p.Open
	p.Name = "frozen"
	p.Open = func(ctx context.Context, s peer.Servers) (peer.Client, error) {
		c, err := open(ctx, s)
		return frozenClient{c}, err
	}
	return p
}()

type frozenClient struct{ peer.Client }

func (c frozenClient) Dial(service string) (string, []grpc.DialOption, error) {
	known := make(chan []resolver.Address, 1)
	stop, err := c.Resolve(service, func(n int, addr func(int) string) {
		list := make([]resolver.Address, n)
		for i := range list {
			list[i].Addr = addr(i)
		}
		select {
		case known <- list:
		default:
		}
	})
	if err != nil {
		return "", nil, err
	}
	defer stop()
	m := manual.NewBuilderWithScheme("frozen")
	m.InitialState(resolver.State{Addresses: <-known})
	return "frozen:///" + service, []grpc.DialOption{
		grpc.WithResolvers(m), grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
	}, nil
}

func TestMain(m *testing.M) {
	actor.Main(Roles(append(peers.All(), stranger, frozen)))
	os.Exit(m.Run())
}

var short = Options{Servers: 6, Clients: 4, Rate: 200, Quiet: 500 * time.Millisecond, Batch: 2}

func TestOurs(t *testing.T) {
	p, err := peers.Find("ours-etcd")
	if err != nil {
		t.Fatal(err)
	}
	c := etcdtest.Start(t, nil)
	opts := short
	opts.Logf = t.Logf
	res, err := Run(t.Context(), p, peer.Servers{Etcd: c.Endpoints()}, opts)
	if err != nil {
		t.Fatal(err)
	}
	for name, phase := range map[string]Phase{"quiet": res.Quiet, "churn": res.Churn} {
		if phase.Calls == 0 || phase.Failed != 0 || phase.P99 < phase.P50 || phase.P50 <= 0 {
			t.Errorf("%s: %+v", name, phase)
		}
	}
	if res.CPU <= 0 || res.CPU > time.Duration(runtime.NumCPU())*(res.Took+time.Second) {
		t.Errorf("%v of processor time", res.CPU)
	}
}

// A peer that does not find new servers fails, instead of being fast.
func TestFrozen(t *testing.T) {
	c := etcdtest.Start(t, nil)
	opts := short
	opts.Patience = 5 * time.Second
	res, err := Run(t.Context(), frozen, peer.Servers{Etcd: c.Endpoints()}, opts)
	if err == nil || !strings.Contains(err.Error(), "connections, want those of 4 clients to 6 servers") {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestPeersThatCannot(t *testing.T) {
	if _, err := Run(t.Context(), stranger, peer.Servers{}, short); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("error %v, want %v", err, errors.ErrUnsupported)
	}
}

// Calls that fail are counted in the phase in which they were made, with an error.
func TestFailedCalls(t *testing.T) {
	conn, err := grpc.NewClient("passthrough:///127.0.0.1:1", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p := &process{conns: []*grpc.ClientConn{conn}}
	for _, req := range []message{{Do: "phase", Phase: churn}, {Do: "call", N: 100}} {
		if _, err := p.clientDo(req); err != nil {
			t.Fatal(err)
		}
	}
	servertest.Poll(t, "no failed call", func() error {
		reply, err := p.clientDo(message{Do: "report", Phase: churn})
		if err == nil && (reply.N == 0 || reply.Note == "") {
			err = errors.New("none")
		}
		return err
	})
	if reply, err := p.clientDo(message{Do: "report", Phase: quiet}); err != nil || reply.N != 0 || len(reply.Latencies) != 0 {
		t.Errorf("%+v, %v in a phase in which no call was made", reply, err)
	}
}
