package open_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/open"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/servertest"
	"github.com/naming-go/naming/resolver"
	"github.com/naming-go/naming/serve"
)

// A program goes from one registry to another by its URL, and behaves the same.
func TestProgram(t *testing.T) {
	memory := program(t, "memory:")
	t.Logf("in memory:\n%s", strings.Join(memory, "\n"))
	for _, url := range []string{
		"etcd://" + etcdtest.Start(t, nil).Members[0].Addr + "?prefix=/naming/",
		"consul://" + consultest.Start(t, nil).Addr + "?prefix=naming.",
	} {
		if got := program(t, url); !slices.Equal(got, memory) {
			t.Errorf("%s: what happened is\n%s\nand in memory\n%s", url, strings.Join(got, "\n"), strings.Join(memory, "\n"))
		}
	}
}

// program runs servers and a client, which know of the registry nothing but its
// URL, and returns what happened.
func program(t *testing.T, url string) (diary []string) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	store, done, err := open.Store(ctx, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := done(); err != nil {
			t.Error(err)
		}
	}()
	c := naming.New(store, nil)
	defer c.Close()

	// The client is there first.
	names := make(map[string]string) // of servers, by address
	builder := resolver.NewBuilder(c, nil)
	conn, err := grpc.NewClient(builder.Target("greeter"), grpc.WithResolvers(builder), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	call := func() (server string, err error) {
		var p peer.Peer
		_, err = healthpb.NewHealthClient(conn).Check(ctx, new(healthpb.HealthCheckRequest), grpc.Peer(&p))
		if err != nil {
			return "", err
		}
		return names[p.Addr.String()], nil
	}
	note := func(format string, args ...any) { diary = append(diary, fmt.Sprintf(format, args...)) }
	// answering waits until just these servers answer, one after the other.
	answering := func(want ...string) {
		servertest.Poll(t, fmt.Sprint(url, ": calls do not go to ", want), func() error {
			var got []string
			for range 2 * len(want) {
				server, err := call()
				if err != nil {
					return err
				}
				got = append(got, server)
			}
			slices.Sort(got)
			if !slices.Equal(slices.Compact(got), want) {
				return fmt.Errorf("they go to %v", got)
			}
			return nil
		})
		note("calls go to %v", want)
	}
	listed := func() {
		view, err := c.List(ctx, "greeter")
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range view.Endpoints {
			var metadata any // the order of an object's members does not count
			if err := json.Unmarshal(e.Metadata, &metadata); err != nil {
				t.Error(err)
			}
			note("listed is %s with %v", e.ID, metadata)
			if names[e.Addr] != e.ID {
				t.Errorf("endpoint %d has the address %s, which is that of %q", i, e.Addr, names[e.Addr])
			}
		}
		// The names are watched, and known some time after the endpoints.
		want := []string{}
		if len(view.Endpoints) > 0 {
			want = append(want, "greeter")
		}
		limited, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		for services, err := range c.Services(limited) {
			if err != nil {
				t.Fatalf("%s: services are not %v: %v", url, want, err)
			}
			if slices.Equal(services, want) {
				break
			}
		}
		note("services are %v", want)
	}

	listed()
	_, err = call()
	note("a call without servers is %v: %v", status.Code(err), strings.Contains(err.Error(), "greeter"))

	type running struct {
		stop context.CancelFunc
		done chan error
		reg  *naming.Registration
	}
	start := func(name string) *running {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		names[lis.Addr().String()] = name
		s, h := grpc.NewServer(), health.NewServer()
		healthpb.RegisterHealthServer(s, h)
		ctx, stop := context.WithCancel(ctx)
		p := &running{stop: stop, done: make(chan error, 1)}
		registered := make(chan *naming.Registration, 1)
		go func() {
			p.done <- serve.Run(ctx, c, "greeter", s, lis, &serve.Options{
				ID: name, Metadata: []byte(`{"zone":"a","weight":2,"tags":["x"],"more":[1,null]}`), Health: h,
				Register:       &naming.RegisterOptions{TTL: 5 * time.Second},
				OnRegistration: func(reg *naming.Registration) { registered <- reg },
			})
		}()
		p.reg = <-registered
		if err := p.reg.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		return p
	}
	a := start("a")
	answering("a")
	b := start("b")
	answering("a", "b")
	listed()

	if err := a.reg.Update(ctx, []byte(`{"zone":"b"}`)); err != nil {
		t.Fatal(err)
	}
	if err := b.reg.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	answering("a")
	listed()
	if err := b.reg.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	answering("a", "b")

	// No call fails while a server leaves in order.
	var calls, failed atomic.Int64
	leave := make(chan struct{})
	counted := make(chan struct{})
	go func() {
		defer close(counted)
		for {
			select {
			case <-leave:
				return
			default:
			}
			if _, err := call(); err != nil {
				failed.Add(1)
			}
			calls.Add(1)
		}
	}()
	a.stop()
	note("server a ends with %v", <-a.done)
	close(leave)
	<-counted
	note("while it left, calls were made: %v, and %d failed", calls.Load() > 0, failed.Load())
	answering("b")
	listed()

	// What the registry refuses.
	for _, e := range []naming.Endpoint{{}, {Addr: "c:1", Metadata: []byte("{")}} {
		err := store.Apply(ctx, "greeter", naming.Change{Endpoint: e})
		note("to put %q is invalid: %v", e.Addr, errors.Is(err, naming.ErrInvalid))
	}

	b.stop()
	note("server b ends with %v", <-b.done)
	servertest.Poll(t, url+": calls find no error", func() error {
		if _, err := call(); status.Code(err) != codes.Unavailable {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
	listed()
	return diary
}
