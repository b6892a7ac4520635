// Package httptransport sends HTTP requests to the endpoints of services that are in a
// registry:
//
//	t := httptransport.New(resolver.NewBuilder(c, nil), nil)
//	defer t.Close()
//	client := &http.Client{Transport: t}
//	resp, err := client.Get("http://greeter/path")
//
// The host of the URL is the name of the service. A port after the name is ignored. Names
// that are not host names, such as names with slashes, need [Options.Service] or
// [Options.ServiceOf].
//
// # Which endpoint
//
// A [Transport] gets the endpoints from package resolver, as a grpc.ClientConn does, so
// the same rules hold. A draining endpoint gets no new request while there are others. An
// outage of the registry changes nothing. Held, withheld and cached endpoints and the
// panic threshold are as for gRPC: see the documentation of package resolver. An endpoint
// whose address [naming.CheckAddress] refuses is left out.
//
// Requests wait for the first set of the service, until their context is done. If the
// service has no endpoints, or cannot be looked up, requests fail with an error that
// names the service and the reason, and that is [ErrNoEndpoints].
//
// [Options.Balancer] is the load balancing policy, the same as package balancer has for
// gRPC. A request counts as the load of its endpoint until the end of the response body.
// The latency is the time until the response headers. A request without a response, and a
// response with the status 429 or 5xx other than 501, make the endpoint look slower, so
// that a server does not attract requests because it fails fast.
//
// # What is sent
//
// The request is sent to the endpoint's address. The Host header stays what the caller
// set: the host of the URL, or Request.Host. Response.Request is the caller's request, so
// a relative Location leads to the same service. An absolute Location with the address of
// one server leads to a service of that name, and fails. A server must not send one.
//
// With https the certificate is checked for the name of the service, or for
// [Options.TLSServerName]. Nothing in the registry can change that name.
//
// Addresses "unix:/path" and "unix-abstract:name" work. HTTP/2, upgrades of the protocol
// (101), trailers, "Expect: 100-continue" and bodies that are streamed work as in net/http.
//
// # Connections
//
// Every endpoint of a service has an http.Transport of its own, which keeps connections
// alive. The limits of [Options.Transport] are therefore limits for one endpoint, and not
// for all together. An http.Transport cannot close the connections to one host only: with
// one for all, connections to servers that left would stay open for IdleConnTimeout. When
// an address leaves the set, its idle connections are closed at once, and the others at
// the end of their response bodies.
//
// # Retries
//
// A request that failed before a response is sent to another endpoint, in two cases only:
//
//   - Nothing was sent: the endpoint could not be dialed, or its TLS certificate was
//     refused. Any method is retried, if its body was not read or can be read again
//     (Request.GetBody).
//   - The connection broke, and net/http would call the request replayable: it has no
//     body or GetBody, and the method is GET, HEAD, OPTIONS or TRACE, or the header has an
//     Idempotency-Key or X-Idempotency-Key.
//
// The second rule is that of the documentation of [http.Transport]. Such a request may
// reach two servers. A request is sent to [Options.MaxAttempts] endpoints at most.
//
// A request is never retried after its context is done, after a timeout, or after a
// response has begun, whatever the status of the response. Beneath this, net/http retries
// on a new connection to the same endpoint when a connection turns out to be dead that was
// idle before. A POST request that is sent at the moment when a server closes its idle
// connection fails, as with net/http. Give servers an idle timeout (http.Server.IdleTimeout)
// that is longer than IdleConnTimeout, whose default is 90 seconds.
//
// An endpoint that cannot be dialed is avoided while there are others:
//
//	time = min(1 s * 1.6^(failures in a row - 1), 30 s), +/- 20%
//
// After that time one request tries the endpoint. If all endpoints of a service are
// avoided, they are used anyway. The formula is gRPC's, with a shorter maximum:
// https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md
//
// # Proxies
//
// A Transport uses no proxy, neither one of the environment (HTTP_PROXY) nor one of
// Options.Transport. A proxy for plain HTTP looks up the host of the request, which is the
// name of a service and not in DNS.
package httptransport
