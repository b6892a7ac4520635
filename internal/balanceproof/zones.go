package balanceproof

import (
	"context"
	"errors"
	"fmt"

	"github.com/naming-go/naming/balancer"
)

const (
	zones   = 3
	perZone = 3
)

// Zones says which share of the calls stays in the zone of the caller. Three zones have
// three servers each.
type Zones []ByZone

// ByZone is one situation.
type ByZone struct {
	// Own is the number of servers that are left in the own zone.
	Own int
	// Measured is the share of calls that these servers got. Computed is the share by the
	// formula of balancer.Config.ZoneFactor.
	Measured, Computed float64
	// Load is how many times the mean load of all servers a server of the own zone gets, if
	// all zones have as many callers: 0 if the zone has no server.
	Load  float64
	Calls int64
}

// zoneShare is the formula of balancer.Config.ZoneFactor for servers without weights.
func zoneShare(own, all, zones int) float64 {
	return min(1, balancer.DefaultZoneFactor*float64(zones)*float64(own)/float64(all))
}

// MeasureZones calls servers from zone "a", while servers of that zone leave.
func MeasureZones(ctx context.Context, opts Options) (Zones, error) {
	return measureZones(ctx, balancer.Config{Zone: "a"}.ServiceConfig(), pickSize(&opts, 2_000, 20_000))
}

// measureZones makes calls in each situation.
func measureZones(ctx context.Context, config string, calls int) (list Zones, err error) {
	f := newFleet()
	defer f.close()
	var places [zones][]place
	for z := range zones {
		for i := range perZone {
			zone := string(rune('a' + z))
			places[z] = append(places[z], place{id: fmt.Sprint(zone, "-", i), zone: zone})
		}
	}
	// The servers of the other zones are first. Later they get no call that would show
	// that they are connected.
	others, err := f.startAll(ctx, append(places[1], places[2]...))
	defer func() { err = errors.Join(err, stopAll(others)) }()
	if err != nil {
		return nil, err
	}
	clients, err := f.dialAll(config, config)
	defer closeAll(clients)
	if err != nil {
		return nil, err
	}
	if err := reach(ctx, clients, others...); err != nil {
		return nil, err
	}
	own, err := f.startAll(ctx, places[0])
	defer func() { err = errors.Join(err, stopAll(own)) }()
	if err != nil {
		return nil, err
	}
	if err := reach(ctx, clients, own...); err != nil {
		return nil, err
	}
	t := begin(clients, 32, 0)
	list, err = leaveZone(ctx, t, clients, own, others, calls)
	t.end()
	return list, errors.Join(err, callErr(clients))
}

// leaveZone measures with all servers of the own zone, with one, and with none.
func leaveZone(ctx context.Context, t *traffic, clients []*client, own, others []*server, calls int) (list Zones, err error) {
	for i, left := range []int{perZone, 1, 0} {
		gone := make(map[string]string)
		for _, s := range own[left:] {
			gone[s.id] = ""
		}
		if err := stopAll(own[left:]); err != nil {
			return nil, err
		}
		if err := awaitKnown(ctx, clients, gone); err != nil {
			return nil, err
		}
		n, err := t.measure(ctx, int32(1+i), append(own[:len(own):len(own)], others...), calls)
		if err != nil {
			return nil, err
		}
		z := ByZone{Own: left, Calls: sum(n), Measured: float64(sum(n[:len(own)])) / float64(sum(n))}
		zonesLeft := zones
		if left == 0 {
			zonesLeft--
		}
		z.Computed = zoneShare(left, left+len(others), zonesLeft)
		if left > 0 {
			z.Load = z.Computed / zones / float64(left) * float64(left+len(others))
		}
		list = append(list, z)
	}
	return list, nil
}
