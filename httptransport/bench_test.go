package httptransport_test

import (
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/naming-go/naming/balancer"
	"github.com/naming-go/naming/httptransport"
)

// rotation sends requests to fixed addresses, one after the other.
type rotation struct {
	http.Transport
	addrs []string
	next  atomic.Uint64
}

func (r *rotation) RoundTrip(req *http.Request) (*http.Response, error) {
	out, u := *req, *req.URL
	u.Host = r.addrs[r.next.Add(1)%uint64(len(r.addrs))]
	out.URL = &u
	return r.Transport.RoundTrip(&out)
}

// BenchmarkRoundTrip measures one request at a time over loopback. The server takes most of
// the time, and its allocations count as well. static is an http.Transport with fixed
// addresses. The difference to static is what the registry costs.
func BenchmarkRoundTrip(b *testing.B) {
	var addrs []string
	for range 4 {
		addrs = append(addrs, serve(b, nil).addr)
	}
	static := &rotation{addrs: addrs}
	static.MaxIdleConnsPerHost = 100
	defer static.CloseIdleConnections()
	b.Run("static", func(b *testing.B) { benchmark(b, static) })
	for _, policy := range []string{balancer.Weighted, balancer.LeastLoaded} {
		w := newWorld(b, &httptransport.Options{Balancer: balancer.Config{Pick: policy}})
		w.put(at(addrs...)...)
		b.Run(policy, func(b *testing.B) { benchmark(b, w.Transport) })
	}
}

func benchmark(b *testing.B, rt http.RoundTripper) {
	for range 8 {
		send(b, rt)
	}
	b.ReportAllocs()
	for b.Loop() {
		send(b, rt)
	}
}

func send(b *testing.B, rt http.RoundTripper) {
	resp, err := rt.RoundTrip(request(b, "GET", nil))
	if err != nil {
		b.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
}

// BenchmarkOverhead compares a Transport with an http.Transport in turns, over a network in
// memory, so that what else the machine does concerns both. The metrics are medians.
func BenchmarkOverhead(b *testing.B) {
	n := newNetwork()
	defer n.serve("a:1", saying("a"))()
	defer n.serve("b:1", saying("b"))()
	w := newWorld(b, &httptransport.Options{Transport: n.transport()})
	w.put(at("a:1", "b:1")...)
	static := &rotation{addrs: []string{"a:1", "b:1"}}
	static.DialContext = n.dial
	defer static.CloseIdleConnections()
	defer w.CloseIdleConnections()
	var took [2][]time.Duration
	for i := 0; b.Loop(); i++ {
		for k, rt := range []http.RoundTripper{static, w.Transport} {
			if i%2 == 1 { // the second one may profit from the first
				k, rt = 1-k, []http.RoundTripper{w.Transport, static}[k]
			}
			start := time.Now()
			send(b, rt)
			took[k] = append(took[k], time.Since(start))
		}
	}
	for k, name := range []string{"static-ns", "naming-ns"} {
		slices.Sort(took[k])
		b.ReportMetric(float64(took[k][len(took[k])/2].Nanoseconds()), name)
	}
}
