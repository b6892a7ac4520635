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

// A program changes its registry by changing the URL, and behaves the same. So it does on
// two registries, in each phase of a migration.
func TestProgram(t *testing.T) {
	memory := runProgram(t, "memory:")
	t.Logf("in memory:\n%s", strings.Join(memory, "\n"))
	etcd := "etcd://" + etcdtest.Start(t, nil).Members[0].Addr + "?prefix=/naming/"
	consul := "consul://" + consultest.Start(t, nil).Addr + "?prefix=naming."
	for _, url := range []string{
		etcd,
		consul,
		"migrate:?phase=old&from=" + consul + "&to=" + etcd,
		"migrate:?phase=union&from=" + etcd + "&to=" + consul,
		"migrate:?phase=prefer-new&share=1&from=" + consul + "&to=" + etcd,
		"migrate:?phase=done&from=" + consul + "&to=" + etcd,
		"migrate:?phases=records&from=" + consul + "&to=" + etcd, // without a record: unknown
	} {
		if got := runProgram(t, url); !slices.Equal(got, memory) {
			t.Errorf("%s: the diary is\n%s\nand in memory it is\n%s", url, strings.Join(got, "\n"), strings.Join(memory, "\n"))
		}
	}
}

// program is servers and a client that know only the URL of their registry.
type program struct {
	t     *testing.T
	ctx   context.Context
	url   string
	c     *naming.Client
	conn  *grpc.ClientConn
	names map[string]string // of servers, by address
	diary []string          // everything that happened
}

func (p *program) note(format string, args ...any) {
	p.diary = append(p.diary, fmt.Sprintf(format, args...))
}

// call calls a server and returns its name.
func (p *program) call() (server string, err error) {
	var at peer.Peer
	_, err = healthpb.NewHealthClient(p.conn).Check(p.ctx, new(healthpb.HealthCheckRequest), grpc.Peer(&at))
	if err != nil {
		return "", err
	}
	return p.names[at.Addr.String()], nil
}

// answering waits until calls go to exactly these servers.
func (p *program) answering(want ...string) {
	servertest.Poll(p.t, fmt.Sprint(p.url, ": calls do not go to ", want), func() error {
		var got []string
		for range 2 * len(want) {
			server, err := p.call()
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
	p.note("calls go to %v", want)
}

// listed notes the endpoints and the list of services.
func (p *program) listed() {
	view, err := p.c.List(p.ctx, "greeter")
	if err != nil {
		p.t.Fatal(err)
	}
	want := []string{}
	for i, e := range view.Endpoints {
		want = []string{"greeter"}
		var metadata any // the order of the members of an object does not matter
		if err := json.Unmarshal(e.Metadata, &metadata); err != nil {
			p.t.Error(err)
		}
		p.note("listed is %s with %v", e.ID, metadata)
		if p.names[e.Addr] != e.ID {
			p.t.Errorf("endpoint %d has the address %s of server %q", i, e.Addr, p.names[e.Addr])
		}
	}
	// The list of services may change some time after the endpoints.
	limited, cancel := context.WithTimeout(p.ctx, 30*time.Second)
	defer cancel()
	for services, err := range p.c.Services(limited) {
		if err != nil {
			p.t.Fatalf("%s: services are not %v: %v", p.url, want, err)
		}
		if slices.Equal(services, want) {
			break
		}
	}
	p.note("services are %v", want)
}

// server is a running server.
type server struct {
	stop context.CancelFunc
	done chan error
	reg  *naming.Registration
}

// start starts a server and waits until it is registered.
func (p *program) start(name string) *server {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	p.names[lis.Addr().String()] = name
	s, h := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(s, h)
	ctx, stop := context.WithCancel(p.ctx)
	r := &server{stop: stop, done: make(chan error, 1)}
	registered := make(chan *naming.Registration, 1)
	go func() {
		r.done <- serve.Run(ctx, p.c, "greeter", s, lis, &serve.Options{
			ID: name, Metadata: []byte(`{"zone":"a","weight":2,"tags":["x"],"more":[1,null]}`), Health: h,
			Register:       &naming.RegisterOptions{TTL: 5 * time.Second},
			OnRegistration: func(reg *naming.Registration) { registered <- reg },
		})
	}()
	r.reg = <-registered
	if err := r.reg.Wait(p.ctx); err != nil {
		p.t.Fatal(err)
	}
	return r
}

// drain updates server a, and drains and resumes server b.
func (p *program) drain(a, b *server) {
	if err := a.reg.Update(p.ctx, []byte(`{"zone":"b"}`)); err != nil {
		p.t.Fatal(err)
	}
	if err := b.reg.Drain(p.ctx); err != nil {
		p.t.Fatal(err)
	}
	p.answering("a")
	p.listed()
	if err := b.reg.Resume(p.ctx); err != nil {
		p.t.Fatal(err)
	}
	p.answering("a", "b")
}

// leave stops server a while calls are made. None of them fails.
func (p *program) leave(a *server) {
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
			if _, err := p.call(); err != nil {
				failed.Add(1)
			}
			calls.Add(1)
		}
	}()
	a.stop()
	p.note("server a ends with %v", <-a.done)
	close(leave)
	<-counted
	p.note("while it left, calls were made: %v, and %d failed", calls.Load() > 0, failed.Load())
}

// runProgram runs two servers and a client, and returns the diary.
func runProgram(t *testing.T, url string) (diary []string) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c, done, err := open.Client(ctx, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := done(); err != nil {
			t.Error(err)
		}
	}()
	p := &program{t: t, ctx: ctx, url: url, c: c, names: make(map[string]string)}
	builder := resolver.NewBuilder(p.c, nil)
	p.conn, err = grpc.NewClient(builder.Target("greeter"), grpc.WithResolvers(builder), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer p.conn.Close()

	p.listed()
	_, err = p.call()
	p.note("a call without servers is %v: %v", status.Code(err), strings.Contains(err.Error(), "greeter"))
	a := p.start("a")
	p.answering("a")
	b := p.start("b")
	p.answering("a", "b")
	p.listed()
	p.drain(a, b)
	p.leave(a)
	p.answering("b")
	p.listed()
	for _, u := range []naming.Update{{}, {Addr: "c:1", Metadata: json.RawMessage("{")}} {
		err := c.Update(ctx, "greeter", u)
		p.note("to put %q is invalid: %v", u.Addr, errors.Is(err, naming.ErrInvalid))
	}
	b.stop()
	p.note("server b ends with %v", <-b.done)
	servertest.Poll(t, url+": calls still succeed", func() error {
		if _, err := p.call(); status.Code(err) != codes.Unavailable {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
	p.listed()
	return p.diary
}
