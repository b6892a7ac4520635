package balancer

import (
	"fmt"
	"net/url"
	"testing"

	grpcbalancer "google.golang.org/grpc/balancer"
	_ "google.golang.org/grpc/balancer/leastrequest" // to compare with
	_ "google.golang.org/grpc/balancer/roundrobin"   // to compare with
)

func mustParse(target string) *url.URL {
	u, err := url.Parse(target)
	if err != nil {
		panic(err)
	}
	return u
}

// kinds are the policies of the benchmarks and of TestAllocations.
var kinds = []struct {
	name, policy, config string
	metadata             func(i int) string
}{
	{"round_robin", "round_robin", `{}`, none},
	{"equal", Name, `{}`, none},
	{"weighted", Name, `{}`, weights},
	{"zone", Name, `{"zone":"a"}`, zones},
	{"subset", Name, `{"subset":5,"client":"c"}`, weights},
	{"least_loaded", Name, `{"pick":"least_loaded"}`, none},
	{"least_loaded_zone", Name, `{"pick":"least_loaded","zone":"a"}`, zones},
	{"gRPCs_least_request", "least_request_experimental", `{}`, none},
}

func none(int) string      { return "" }
func weights(i int) string { return fmt.Sprintf(`{"weight":%d}`, 1+i%7) }
func zones(i int) string   { return fmt.Sprintf(`{"weight":%d,"zone":%q}`, 1+i%7, string(rune('a'+i%3))) }

// BenchmarkPick measures a pick and the end of the call.
func BenchmarkPick(b *testing.B) {
	for _, n := range []int{10, 1000} {
		for _, k := range kinds {
			b.Run(fmt.Sprintf("%s/%d", k.name, n), func(b *testing.B) {
				conn, _ := start(b, k.policy, k.config, fleet(b, n, k.metadata))
				picker := conn.state.Picker
				b.ReportAllocs()
				b.ResetTimer()
				for b.Loop() {
					pickOnce(b, picker)
				}
			})
		}
	}
}

func pickOnce(tb testing.TB, p grpcbalancer.Picker) {
	r, err := p.Pick(grpcbalancer.PickInfo{})
	if err != nil {
		tb.Fatal(err)
	}
	if r.Done != nil {
		r.Done(grpcbalancer.DoneInfo{BytesSent: true, BytesReceived: true})
	}
}

// BenchmarkConnect measures how the policy gets from no connection to all.
func BenchmarkConnect(b *testing.B) {
	for _, k := range kinds[:7] {
		state := fleet(b, 1000, k.metadata)
		b.Run(k.name, func(b *testing.B) {
			for b.Loop() {
				start(b, k.policy, k.config, state)
			}
		})
	}
}

// BenchmarkUpdate measures an update of all endpoints.
func BenchmarkUpdate(b *testing.B) {
	for _, k := range kinds[:7] {
		state := fleet(b, 1000, k.metadata)
		b.Run(k.name, func(b *testing.B) {
			_, lb, config := startWith(b, k.policy, k.config, state)
			b.ReportAllocs()
			for b.Loop() {
				if err := lb.UpdateClientConnState(grpcbalancer.ClientConnState{ResolverState: state, BalancerConfig: config}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
