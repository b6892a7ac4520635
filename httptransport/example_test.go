package httptransport_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/balancer"
	"github.com/naming-go/naming/httptransport"
	"github.com/naming-go/naming/resolver"
)

// An HTTP client of a service that is found in a registry.
func Example() {
	ctx := context.Background()
	c := naming.New(new(memory.Store), nil)
	defer c.Close()

	// A server, and its entry in the registry.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s", r.Host)
	}))
	defer server.Close()
	addr := server.Listener.Addr().String()
	if err := c.Update(ctx, "greeter", naming.Update{Op: naming.Add, Addr: addr}); err != nil {
		log.Fatal(err)
	}

	// The client. One Transport serves all services of the registry.
	t := httptransport.New(resolver.NewBuilder(c, nil), nil)
	defer t.Close()
	client := &http.Client{Transport: t}
	resp, err := client.Get("http://greeter/")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(text))
	// Output: hello greeter
}

// A name with a slash is not a host. Here the service is a header's, and requests go to the
// endpoints of a zone that have the least to do.
func ExampleNew() {
	c := naming.New(new(memory.Store), nil)
	defer c.Close()
	t := httptransport.New(resolver.NewBuilder(c, nil), &httptransport.Options{
		ServiceOf: func(r *http.Request) string { return "shop/" + r.Header.Get("Shop-Service") },
		Balancer:  balancer.Config{Pick: balancer.LeastLoaded, Zone: "east"},
	})
	defer t.Close()
	req, err := http.NewRequest("GET", "http://shop.example/", nil)
	if err != nil {
		log.Fatal(err)
	}
	req.Header.Set("Shop-Service", "cart")
	_, err = t.RoundTrip(req)
	fmt.Println(err)
	// Output: naming: service "shop/cart" has no endpoints
}
