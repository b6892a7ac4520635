package balanceproof

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/naming-go/naming/balancer"
)

// Rolling says what callers see of a restart of all servers, one after the other.
type Rolling struct {
	// Each of the Servers is restarted Rounds times.
	Servers, Rounds int
	Policies        []ByRolling
}

// ByRolling is what the callers with one policy see.
type ByRolling struct {
	Policy        string
	Calls, Failed int64
}

const rollingServers = 6

// rollingPolicies are the policies of the callers, by name.
var rollingPolicies = func() (list []struct{ name, config string }) {
	number := 3
	for _, p := range []struct {
		name   string
		config balancer.Config
	}{
		{"weighted", balancer.Config{}},
		{"zone", balancer.Config{Zone: "a"}},
		{leastLoaded, balancer.Config{Pick: balancer.LeastLoaded}},
		{"least_loaded, zone", balancer.Config{Pick: balancer.LeastLoaded, Zone: "a"}},
		{"subset by name", balancer.Config{Subset: 2, Client: "client"}},
		{"subset by number", balancer.Config{Subset: 2, ClientNumber: &number}},
		{"all together", balancer.Config{Pick: balancer.LeastLoaded, Zone: "a", Subset: 4}},
	} {
		list = append(list, struct{ name, config string }{p.name, p.config.ServiceConfig()})
	}
	return append(list, struct{ name, config string }{"round_robin", slowPolicies[0].config})
}()

// MeasureRolling restarts all servers while calls are made with every policy. A call that
// fails is counted, and is not an error.
func MeasureRolling(ctx context.Context, opts Options) (r Rolling, err error) {
	r.Servers, r.Rounds = rollingServers, pickSize(&opts, 1, 3)
	f := newFleet()
	defer f.close()
	places := make([]place, rollingServers)
	for i := range places {
		places[i] = place{
			id: fmt.Sprint("server-", i), zone: string(rune('a' + i%zones)), weight: float64(1 + i%2), duration: 5 * time.Millisecond,
		}
	}
	servers, err := f.startAll(ctx, places)
	defer func() { err = errors.Join(err, stopAll(servers)) }()
	if err != nil {
		return r, err
	}
	var configs []string
	for _, p := range rollingPolicies {
		configs = append(configs, p.config)
	}
	clients, err := f.dialAll(configs...)
	defer closeAll(clients)
	if err != nil {
		return r, err
	}
	t := begin(clients, 2, pickSize(&opts, 40*time.Millisecond, 2*time.Millisecond))
	for range r.Rounds {
		if err = restartAll(ctx, f, clients, servers, places); err != nil {
			break
		}
	}
	t.end()
	for i, p := range rollingPolicies {
		r.Policies = append(r.Policies, ByRolling{p.name, clients[i].calls.Load(), clients[i].failed.Load()})
	}
	return r, err
}

// restartAll restarts one server after the other, and waits after each until all clients
// have made calls.
func restartAll(ctx context.Context, f *fleet, clients []*client, servers []*server, places []place) error {
	for i, s := range servers {
		if err := s.stop(); err != nil {
			return err
		}
		next, err := f.start(ctx, places[i])
		if err != nil {
			return err
		}
		servers[i] = next
		for _, c := range clients {
			before := c.calls.Load()
			if err := await(ctx, "a client has made calls", func() bool { return c.calls.Load() >= before+5 }); err != nil {
				return err
			}
		}
	}
	return nil
}

// Failed returns how many calls failed, and how many were made.
func (r Rolling) Failed() (failed, calls int64) {
	for _, p := range r.Policies {
		failed += p.Failed
		calls += p.Calls
	}
	return failed, calls
}
