package balanceproof

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/naming-go/naming/balancer"
)

// Weights says how calls are spread by weight.
type Weights struct {
	// First is before a change of the weights, and Second after it.
	First, Second ByWeight
	// Clients is the number of ClientConns.
	Clients int
	// Accepted is how many connections the servers accepted before the change, and
	// AcceptedAfter during and after it.
	Accepted, AcceptedAfter int64
}

// ByWeight has the weights of servers, and how many calls each server got.
type ByWeight struct {
	Weights []float64
	Calls   []int64
}

// Share returns the share of the calls that server i got, and the share that its weight
// says.
func (b ByWeight) Share(i int) (measured, computed float64) {
	return float64(b.Calls[i]) / float64(sum(b.Calls)), b.Weights[i] / sum(b.Weights)
}

// Deviation returns by which part of the computed share a measured share differs at most.
func (b ByWeight) Deviation() (greatest float64) {
	for i := range b.Weights {
		measured, computed := b.Share(i)
		greatest = max(greatest, math.Abs(measured/computed-1))
	}
	return greatest
}

var (
	weightsBefore = []float64{1, 1, 2, 3, 8}
	weightsAfter  = []float64{8, 3, 2, 1, 1}
)

// MeasureWeights calls five servers with different weights, and changes the weights while
// calls are made.
func MeasureWeights(ctx context.Context, opts Options) (Weights, error) {
	return measureWeights(ctx, balancer.Config{}.ServiceConfig(), pickSize(&opts, 10_000, 50_000))
}

// measureWeights makes calls before the change of the weights, and as many after it.
func measureWeights(ctx context.Context, config string, calls int) (w Weights, err error) {
	w = Weights{First: ByWeight{Weights: weightsBefore}, Second: ByWeight{Weights: weightsAfter}, Clients: 2}
	f := newFleet()
	defer f.close()
	var places []place
	for i, weight := range weightsBefore {
		places = append(places, place{id: fmt.Sprint("server-", i), weight: weight})
	}
	servers, err := f.startAll(ctx, places)
	defer func() { err = errors.Join(err, stopAll(servers)) }()
	if err != nil {
		return w, err
	}
	clients, err := f.dialAll(slices.Repeat([]string{config}, w.Clients)...)
	defer closeAll(clients)
	if err != nil {
		return w, err
	}
	if err := reach(ctx, clients, servers...); err != nil {
		return w, err
	}
	w.Accepted = accepts(servers)
	t := begin(clients, 32, 0)
	if w.First.Calls, err = t.measure(ctx, 1, servers, calls); err == nil {
		if err = changeWeights(ctx, clients, servers, weightsAfter); err == nil {
			w.Second.Calls, err = t.measure(ctx, 2, servers, calls)
		}
	}
	t.end()
	w.AcceptedAfter = accepts(servers) - w.Accepted
	return w, errors.Join(err, callErr(clients))
}

// changeWeights updates the registrations, and waits until all clients have the weights.
func changeWeights(ctx context.Context, clients []*client, servers []*server, weights []float64) error {
	want := make(map[string]string)
	for i, s := range servers {
		m := metadata(weights[i], "")
		want[s.id] = string(m)
		if err := s.reg.Update(ctx, m); err != nil {
			return err
		}
	}
	return awaitKnown(ctx, clients, want)
}
