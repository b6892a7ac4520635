package consul_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/mutant"
	"github.com/naming-go/naming/internal/servertest"
)

// TestConnections watches more services than an agent takes connections from one
// address, and sees every change (prometheus#6959, consul#7527).
func TestConnections(t *testing.T) {
	services := 300
	if mutant.Full() {
		services = 2000
	}
	agent := consultest.Start(t, nil)
	r := newRig(t, agent, func(c *api.Config, o *consul.Options) {
		c.Transport = &http.Transport{MaxIdleConnsPerHost: 200}
		o.Wait = 20 * time.Second
	})
	name := func(i int) string { return fmt.Sprintf("service-%04d", i) }
	// Half of them are there before.
	for i := range services / 2 {
		if err := r.Apply(t.Context(), name(i), add(nil, ep("a", "10.0.0.1:80", ""))...); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	type seen struct {
		service int
		addrs   string
	}
	news := make(chan seen, 4*services)
	for i := range services {
		wg.Go(func() {
			set := make(map[string]string)
			for b, err := range r.Watch(ctx, name(i)) {
				if err != nil {
					if ctx.Err() == nil {
						t.Errorf("%s: %v", name(i), err)
					}
					return
				}
				for _, id := range b.Deleted {
					delete(set, id)
				}
				for _, e := range b.Put {
					set[e.ID] = e.Addr
				}
				news <- seen{i, fmt.Sprint(set)}
			}
		})
	}
	var most atomic.Int64
	await := func(what string, left map[int]string) {
		t.Helper()
		timeout := time.After(2 * servertest.Patience)
		for len(left) > 0 {
			most.Store(max(most.Load(), int64(r.proxy.Stats().Open)))
			select {
			case s := <-news:
				if left[s.service] == s.addrs {
					delete(left, s.service)
				}
			case <-timeout:
				t.Fatalf("%s: %d services do not show it", what, len(left))
			}
		}
	}
	first := make(map[int]string)
	for i := range services {
		first[i] = "map[]"
		if i < services/2 {
			first[i] = "map[a:10.0.0.1:80]"
		}
	}
	await("first batch", first)

	// One change each, to some of them, put and taken away.
	var slowest time.Duration
	rounds := 20
	for n := range rounds {
		i := n * services / rounds
		began := time.Now()
		addr := fmt.Sprintf("10.1.0.%d:80", n)
		if err := r.Apply(t.Context(), name(i), add(nil, ep("a", addr, ""))...); err != nil {
			t.Fatal(err)
		}
		await("change", map[int]string{i: "map[a:" + addr + "]"})
		slowest = max(slowest, time.Since(began))
	}
	// And to all of them.
	all := make(map[int]string)
	began := time.Now()
	for i := range services {
		all[i] = "map[a:10.2.0.1:80]"
		if err := r.Apply(t.Context(), name(i), add(nil, ep("a", "10.2.0.1:80", ""))...); err != nil {
			t.Fatal(err)
		}
	}
	put := time.Since(began)
	await("change of all", all)
	t.Logf("%d services: at most %d connections; a change shown within %v; all changed within %v, and shown %v later",
		services, most.Load(), slowest.Round(time.Millisecond), put.Round(time.Millisecond), (time.Since(began) - put).Round(time.Millisecond))
	if n := most.Load(); n > 150 {
		t.Errorf("%d connections, want no more than 150", n)
	}

	// Nothing is asked while nothing changes. (A wait may just be over.)
	servertest.Poll(t, "it is never quiet", func() error {
		before := r.calls.Load()
		time.Sleep(time.Second)
		if n := r.calls.Load() - before; n > 5 {
			return fmt.Errorf("%d requests within a second", n)
		}
		return nil
	})

	// When the link breaks, all of them tell.
	for names, err := range r.Services(ctx) {
		if want := services; err != nil || len(names) != want || !slices.IsSorted(names) {
			t.Errorf("got %d services, %v, want %d", len(names), err, want)
		}
		break
	}
}

// TestSharedFails ends all watches that have no connection of their own when the
// link breaks, and nothing is left.
func TestSharedFails(t *testing.T) {
	agent := consultest.Start(t, nil)
	r := newRig(t, agent, nil)
	const services = 120
	ends, begun := make(chan error, services), make(chan struct{}, services)
	for i := range services {
		go func() {
			for _, err := range r.Watch(t.Context(), fmt.Sprint(i)) {
				if err != nil {
					ends <- err
					return
				}
				begun <- struct{}{}
			}
		}()
	}
	for range services {
		<-begun
	}
	servertest.Poll(t, "not all have asked", func() error {
		if n := r.flying.Load(); n != 103 {
			return fmt.Errorf("%d requests are waiting, want 103", n)
		}
		return nil
	})
	r.interrupt(t)
	for range services {
		select {
		case err := <-ends:
			if err == nil {
				t.Error("a watch ended without an error")
			}
		case <-time.After(servertest.Patience):
			t.Fatal("not all watches have ended")
		}
	}
}

// BenchmarkPropagation puts an endpoint and waits until a watch shows it. More
// than a hundred at once meet the limit of ten a second.
func BenchmarkPropagation(b *testing.B) {
	agent := consultest.Start(b, nil)
	r := newRig(b, agent, nil)
	for _, how := range []string{"Apply", "agent"} {
		b.Run(how, func(b *testing.B) {
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			news := make(chan struct{}, 1)
			service := fmt.Sprintf("%s%d", how, b.N)
			go func() {
				for _, err := range r.Watch(ctx, service) {
					if err != nil {
						return
					}
					news <- struct{}{}
				}
			}()
			<-news
			for n := 0; b.Loop(); n++ {
				addr := fmt.Sprintf("10.%d.%d.%d", n>>16, n>>8&0xff, n&0xff)
				var err error
				if how == "Apply" {
					err = r.Apply(ctx, service, add(nil, ep("a", addr+":80", ""))...)
				} else {
					err = r.admin.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: "a", Name: r.prefix + service, Address: addr, Port: 80})
				}
				if err != nil {
					b.Fatal(err)
				}
				<-news
			}
		})
	}
}
