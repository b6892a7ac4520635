package balanceproof

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/naming-go/naming/balancer"
	"github.com/naming-go/naming/internal/pick"
)

// Subsets says how many connections servers have from clients with a subset.
type Subsets struct {
	// Computed is a large fleet, without connections: by name, and by number.
	Computed [2]Spread
	// Real is a smaller fleet, with connections.
	Real [2]RealSpread
}

// Spread is how the connections of a fleet are spread over its servers.
type Spread struct {
	Clients, Servers, Size int
	ByNumber               bool
	// PerServer has the number of connections of each server, sorted.
	PerServer []int
	// Leaving has, for each server that was taken out alone, how many connections all
	// clients then made.
	Leaving []int
}

// Min, Median and Max are of the connections of a server.
func (s Spread) Min() int    { return s.PerServer[0] }
func (s Spread) Median() int { return s.PerServer[len(s.PerServer)/2] }
func (s Spread) Max() int    { return s.PerServer[len(s.PerServer)-1] }

// Connections is the number of all connections.
func (s Spread) Connections() int { return s.Clients * s.Size }

// RealSpread is a Spread that was counted, and the one that was computed.
type RealSpread struct {
	Spread
	Computed Spread
}

// fleetOf describes clients and servers with subsets.
type fleetOf struct {
	clients, servers, size int
	byNumber               bool
}

func (o fleetOf) ids() []string {
	ids := make([]string, o.servers)
	for i := range ids {
		ids[i] = fmt.Sprintf("server-%03d", i)
	}
	return ids
}

// config is the service config of a client.
func (o fleetOf) config(i int) string {
	c := balancer.Config{Subset: o.size}
	if o.byNumber {
		c.ClientNumber = &i
	} else {
		c.Client = clientName(i)
	}
	return c.ServiceConfig()
}

func clientName(i int) string { return fmt.Sprintf("client-%04d", i) }

// choose returns the servers of each client's subset.
func (o fleetOf) choose(ids []string) [][]string {
	chosen := make([][]string, o.clients)
	for i := range chosen {
		s := pick.Subset{Client: clientName(i), Number: uint64(i), ByNumber: o.byNumber}
		for _, k := range s.Order(ids)[:o.size] {
			chosen[i] = append(chosen[i], ids[k])
		}
	}
	return chosen
}

// compute returns the Spread by package pick. It takes out each of the first servers, so
// many as leaving says, alone.
func (o fleetOf) compute(leaving int) Spread {
	s := Spread{Clients: o.clients, Servers: o.servers, Size: o.size, ByNumber: o.byNumber}
	ids := o.ids()
	chosen := o.choose(ids)
	count := make(map[string]int)
	for _, subset := range chosen {
		for _, id := range subset {
			count[id]++
		}
	}
	for _, id := range ids {
		s.PerServer = append(s.PerServer, count[id])
	}
	slices.Sort(s.PerServer)
	for k := range leaving {
		made := 0
		for i, subset := range o.choose(slices.Concat(ids[:k], ids[k+1:])) {
			for _, id := range subset {
				if !slices.Contains(chosen[i], id) {
					made++
				}
			}
		}
		s.Leaving = append(s.Leaving, made)
	}
	return s
}

// MeasureSubsets computes a large fleet, and connects a smaller one.
func MeasureSubsets(ctx context.Context, opts Options) (s Subsets, err error) {
	for i, byNumber := range []bool{false, true} {
		large := fleetOf{clients: 1_000, servers: 300, size: 20, byNumber: byNumber}
		s.Computed[i] = large.compute(pickSize(&opts, 3, 100))
		small := pickSize(&opts, fleetOf{clients: 30, servers: 12, size: 4}, fleetOf{clients: 200, servers: 60, size: 10})
		small.byNumber = byNumber
		if s.Real[i], err = small.measure(ctx); err != nil {
			return s, err
		}
	}
	return s, nil
}

// measure connects all clients, and takes out the first server.
func (o fleetOf) measure(ctx context.Context) (m RealSpread, err error) {
	m = RealSpread{Spread: Spread{Clients: o.clients, Servers: o.servers, Size: o.size, ByNumber: o.byNumber}, Computed: o.compute(1)}
	f := newFleet()
	defer f.close()
	var places []place
	for _, id := range o.ids() {
		places = append(places, place{id: id})
	}
	servers, err := f.startAll(ctx, places)
	defer func() { err = errors.Join(err, stopAll(servers)) }()
	if err != nil {
		return m, err
	}
	var configs []string
	for i := range o.clients {
		configs = append(configs, o.config(i))
	}
	clients, err := f.dialAll(configs...)
	defer closeAll(clients)
	if err != nil {
		return m, err
	}
	for _, c := range clients {
		c.conn.Connect()
	}
	if err := awaitOpen(ctx, servers, m.Connections()); err != nil {
		return m, err
	}
	for _, s := range servers {
		m.PerServer = append(m.PerServer, int(s.accepted.Load()))
	}
	slices.Sort(m.PerServer)
	before := accepts(servers)
	if err := servers[0].stop(); err != nil {
		return m, err
	}
	if err := awaitOpen(ctx, servers, m.Connections()); err != nil {
		return m, err
	}
	m.Leaving = []int{int(accepts(servers) - before)}
	for _, c := range clients {
		_, _ = c.call(0) // the client counts errors
	}
	return m, callErr(clients)
}

// awaitOpen waits until servers have n open connections.
func awaitOpen(ctx context.Context, servers []*server, n int) error {
	return await(ctx, fmt.Sprint(n, " connections are open"), func() bool {
		open := 0
		for _, s := range servers {
			open += int(s.open.Load())
		}
		return open == n
	})
}
