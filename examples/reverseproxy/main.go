// Command reverseproxy passes HTTP requests on to the servers of a service, which it finds
// in the registry. By default the registry is in memory, and the program has two servers of
// its own. With etcd or Consul it passes requests on to servers of other programs, such as
// examples/both:
//
//	go run ./examples/reverseproxy                 # then: curl http://127.0.0.1:8080/
//	go run ./examples/reverseproxy -servers 0 -store 'etcd://localhost:2379?prefix=/naming/'
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/open"
	"github.com/naming-go/naming/httptransport"
	"github.com/naming-go/naming/resolver"
)

// service is the HTTP service of examples/both. Its gRPC service has another name: a client
// must find endpoints of its own protocol only.
const service = "greeter-http"

func main() {
	store := flag.String("store", "memory:", "the registry, as a `URL` of package backend/open")
	servers := flag.Int("servers", 2, "how many servers to start within this program")
	flag.Parse()
	if flag.NArg() > 0 {
		log.Fatalf("unexpected argument %q: name the registry with -store", flag.Arg(0))
	}
	c, _, err := open.Client(context.Background(), *store, nil)
	if err != nil {
		log.Fatal(err)
	}
	for range *servers {
		if err := startServer(c); err != nil {
			log.Fatal(err)
		}
	}
	transport := httptransport.New(resolver.NewBuilder(c, nil), nil)
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", newProxy(transport)))
}

// newProxy returns a handler that passes requests on to the service.
func newProxy(transport http.RoundTripper) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: service})
			r.SetXForwarded()
			r.Out.Host = r.In.Host // the servers see the host that the client asked for
		},
		// ReverseProxy calls ErrorHandler for a request without a response. When a response
		// breaks off, the status has been sent, and ReverseProxy closes the connection to
		// the client.
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			log.Printf("%s %s: %v", r.Method, r.URL.Path, err) // for operators, not for clients
			if errors.Is(err, httptransport.ErrNoEndpoints) {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			w.WriteHeader(http.StatusBadGateway)
		},
	}
}

// startServer starts a server of the service, which runs until the program ends. A
// server that is to leave without a lost request closes its Registration first.
func startServer(c *naming.Client) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addr := lis.Addr().String()
	go http.Serve(lis, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("hello from " + addr + "\n"))
	}))
	_, err = c.Register(context.Background(), service, naming.Endpoint{Addr: addr}, &naming.RegisterOptions{Wait: true})
	return err
}
