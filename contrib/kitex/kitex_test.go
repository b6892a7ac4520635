package kitexnaming

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/loadbalance"
	"github.com/cloudwego/kitex/pkg/loadbalance/lbcache"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/internal/servertest"
)

// fleet starts kitex servers that are registered in the store. stop stops one of them.
func fleet(t *testing.T, store *memory.Store, n int) (addrs []string, stop []func()) {
	t.Helper()
	r := NewRegistry(newClient(t, store), &RegistryOptions{Register: &naming.RegisterOptions{DrainDelay: 2 * time.Second}})
	for _, port := range servertest.Ports(t, n) {
		addr := servertest.Addr(port)
		addrs = append(addrs, addr)
		stop = append(stop, serve(t, r, greeter, addr))
	}
	servertest.Poll(t, "the kitex servers are registered", func() error {
		if got := listed(t, store); len(got) < n {
			return fmt.Errorf("%d of %d", len(got), n)
		}
		return nil
	})
	return addrs, stop
}

// TestPushReachesKitex checks that a real kitex client has a change at once. The client
// itself reads the Resolver once an hour.
func TestPushReachesKitex(t *testing.T) {
	store := &memory.Store{}
	addrs, stop := fleet(t, store, 2)
	defer stop[0]()
	defer stop[1]()
	r := newResolver(NewResolver(newClient(t, store), nil).(*clientResolver).follow)
	r.push = r.balancers(lbcache.Options{RefreshInterval: time.Hour})
	hourly := lbcache.Options{RefreshInterval: time.Hour, Cacheable: true}
	call, closeClient := dial(t, greeter, client.WithResolver(r), client.WithLoadBalancer(loadbalance.NewWeightedBalancer(), &hourly))
	defer closeClient()
	seen := make(map[string]bool)
	for range 20 {
		addr, err := call(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen[addr] = true
	}
	if len(seen) != 2 {
		t.Errorf("kitex called %v of %v", seen, addrs)
	}
	// The server goes on: kitex itself turns away from one that does not accept.
	if err := store.Mark(t.Context(), greeter, addrs[1], true); err != nil {
		t.Fatal(err)
	}
	servertest.Poll(t, "kitex calls the server that is not draining", func() error {
		for range 20 {
			addr, err := call(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if addr != addrs[0] {
				return fmt.Errorf("a call went to %s", addr)
			}
		}
		return nil
	})
}

// TestPushFindsTheBalancers checks that the push and a client with kitex's defaults have one
// cache of balancers. If kitex names its caches otherwise, changes wait for kitex's reads.
func TestPushFindsTheBalancers(t *testing.T) {
	store := &memory.Store{}
	_, stop := fleet(t, store, 1)
	defer stop[0]()
	r := NewResolver(newClient(t, store), nil).(*clientResolver)
	call, closeClient := dial(t, greeter, client.WithResolver(r))
	defer closeClient()
	if _, err := call(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.push(greeter)
	caches, _ := lbcache.Dump().(map[string]any)
	var names []string
	for name := range caches {
		if strings.HasPrefix(name, r.Name()+"|") {
			names = append(names, name)
		}
	}
	if len(names) != 1 {
		t.Errorf("caches of %s: %q, want one", r.Name(), names)
	}
}

// TestRestartWithoutAFailedCall replaces a kitex server under calls.
func TestRestartWithoutAFailedCall(t *testing.T) {
	store := &memory.Store{}
	_, stop := fleet(t, store, 2)
	defer stop[0]()
	call, closeClient := dial(t, greeter, client.WithResolver(NewResolver(newClient(t, store), nil)))
	defer closeClient()
	done := make(chan struct{})
	go func() {
		defer close(done)
		stop[1]()
	}()
	for calls := 0; ; calls++ {
		if _, err := call(t.Context()); err != nil {
			t.Fatalf("after %d calls: %v", calls, err)
		}
		select {
		case <-done:
			return
		default:
		}
	}
}
