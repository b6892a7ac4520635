package balanceproof

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	_ "google.golang.org/grpc/balancer/leastrequest" // to compare with
	_ "google.golang.org/grpc/balancer/roundrobin"   // to compare with

	"github.com/naming-go/naming/balancer"
)

// Slow says what callers see of one slow server of ten.
type Slow struct {
	// Fast is how long a call takes at the other servers, and Slow at the slow one.
	Fast, Slow time.Duration
	// Rate is the number of calls in a second with each policy.
	Rate int
	// Rest is how long the slow server is fast before Back is measured.
	Rest     time.Duration
	Policies []BySlow
}

// BySlow is what the callers with one policy see.
type BySlow struct {
	Policy string
	Calls  int
	// P50 and P99 are quantiles of the time of a call.
	P50, P99 time.Duration
	// Share is the share of calls that the slow server got, from the moment when it became
	// slow. Later is its share of the second half of these calls. Back is its share after
	// it has been fast again for the time Slow.Rest, in the full form.
	Share, Later, Back float64
}

const (
	slowServers = 10
	leastLoaded = "least_loaded"
	// The first label of the calls of the second half, and of those after the slow server
	// has become fast again.
	laterLabel, backLabel = 20, 40
)

// slowPolicies are the policies that are compared, by name.
var slowPolicies = []struct{ name, config string }{
	{"round_robin", `{"loadBalancingConfig":[{"round_robin":{}}]}`},
	{"weighted", balancer.Config{}.ServiceConfig()},
	{"least_request_experimental", `{"loadBalancingConfig":[{"least_request_experimental":{}}]}`},
	{leastLoaded, balancer.Config{Pick: balancer.LeastLoaded}.ServiceConfig()},
}

// MeasureSlow calls ten servers with several policies in turn. One server becomes slow when
// the measurement begins.
func MeasureSlow(ctx context.Context, opts Options) (m Slow, err error) {
	// The times are long beside those that a busy machine adds.
	m = Slow{Fast: pickSize(&opts, 5*time.Millisecond, 20*time.Millisecond), Slow: pickSize(&opts, time.Second, 500*time.Millisecond), Rate: pickSize(&opts, 200, 150)}
	f := newFleet()
	defer f.close()
	var places []place
	for i := range slowServers {
		places = append(places, place{id: fmt.Sprint("server-", i), duration: m.Fast})
	}
	servers, err := f.startAll(ctx, places)
	defer func() { err = errors.Join(err, stopAll(servers)) }()
	if err != nil {
		return m, err
	}
	var configs []string
	for _, p := range slowPolicies {
		configs = append(configs, p.config)
	}
	clients, err := f.dialAll(configs...)
	defer closeAll(clients)
	if err != nil {
		return m, err
	}
	if err := reach(ctx, clients, servers...); err != nil {
		return m, err
	}
	n := pickSize(&opts, 400, 5_000)
	slow := servers[0]
	slow.work.Store(int64(m.Slow))
	times, later := inTurn(clients, n/2, m.Rate, 1), inTurn(clients, n/2, m.Rate, laterLabel)
	slow.work.Store(int64(m.Fast))
	if opts.Full {
		start := time.Now()
		inTurn(clients, n, m.Rate, 0)
		m.Rest = time.Since(start).Round(time.Second)
		inTurn(clients, n, m.Rate, backLabel)
	}
	for i, p := range slowPolicies {
		all := append(times[i], later[i]...)
		slices.Sort(all)
		m.Policies = append(m.Policies, BySlow{
			Policy: p.name, Calls: n,
			P50: quantile(all, 0.50), P99: quantile(all, 0.99),
			Share: share(servers, 1+i, laterLabel+i), Later: share(servers, laterLabel+i), Back: share(servers, backLabel+i),
		})
	}
	return m, callErr(clients)
}

// share returns the share of the calls with some labels that the first server got.
func share(servers []*server, labels ...int) float64 {
	var first, all int64
	for _, label := range labels {
		n := received(servers, int32(label))
		first += n[0]
		all += sum(n)
	}
	return float64(first) / max(float64(all), 1)
}

// inTurn has every client make n calls at a rate, one client after the other. A call does
// not wait for the end of others. The labels are first and the following, or 0 for all
// clients if first is 0. inTurn returns the times of the calls of each client.
func inTurn(clients []*client, n, rate int, first int32) [][]time.Duration {
	times := make([][]time.Duration, len(clients))
	for i := range times {
		times[i] = make([]time.Duration, n)
	}
	tick := time.NewTicker(time.Second / time.Duration(rate*len(clients)))
	defer tick.Stop()
	var calls sync.WaitGroup
	for k := range n * len(clients) {
		<-tick.C
		i, label := k%len(clients), first
		if first > 0 {
			label += int32(i)
		}
		calls.Go(func() { times[i][k/len(clients)], _ = clients[i].call(label) }) // the client counts errors
	}
	calls.Wait()
	return times
}

// quantile returns a quantile of sorted times.
func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
