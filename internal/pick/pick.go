// Package pick chooses the endpoint of a call: by weight, by zone, and by load. It knows
// neither gRPC nor HTTP. A [Picker] chooses among the endpoints that can take calls now. A
// [Load] measures what an endpoint has to do. A [Subset] chooses the endpoints that a
// client connects to.
package pick

import (
	"math"
	"math/bits"
	"sync/atomic"
)

const (
	// MaxWeight and MinWeight bound the weights. [Weight] applies both. MaxWeight is
	// also the bound that package resolver has for gRPC's own policies.
	MaxWeight = math.MaxUint16
	MinWeight = 1.0 / MaxWeight

	// DefaultZoneFactor is the default of Config.ZoneFactor. The number is Envoy's
	// default for the same purpose, there called overprovisioning factor:
	// https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/overprovisioning
	DefaultZoneFactor = 1.4
)

// Weight returns the weight that a Picker uses for w: 1 for a weight that is missing (0),
// negative or not a number, and otherwise w within [MinWeight, MaxWeight].
func Weight(w float64) float64 {
	if !(w > 0) { // also if it is NaN
		return 1
	}
	return min(max(w, MinWeight), MaxWeight)
}

// Candidate is an endpoint that can take calls now.
type Candidate struct {
	// Weight is the endpoint's share of the calls relative to the other endpoints, as
	// for [Weight].
	Weight float64
	// Zone is where the endpoint runs. The empty zone is a zone like others.
	Zone string
	// Load is the endpoint's load, for Config.LeastLoaded. It may be nil otherwise, or
	// if the load is not known.
	Load *Load
}

// Config says how a Picker chooses. The zero value chooses by weight alone.
type Config struct {
	// LeastLoaded chooses two endpoints by weight, and takes the one that has less to
	// do: see [Picker.Pick].
	LeastLoaded bool

	// Zone is the zone of the caller. Empty means that zones have no effect.
	Zone string

	// ZoneFactor bounds the load that the preference of the own zone puts on the
	// endpoints of the zone:
	//
	//	share of the own zone = min(1, ZoneFactor * zones * own / all)
	//
	// where own is the weight of the candidates in the own zone, all that of all
	// candidates, and zones the number of zones that have candidates. If callers are
	// spread evenly over the zones, then an endpoint gets at most ZoneFactor times
	// the calls that it would get if nobody looked at zones. The rest of the calls
	// goes to all other zones, by weight. As only endpoints count that can take calls
	// now, the rest grows when endpoints of the own zone fail, drain or vanish.
	//
	// A higher factor keeps more calls in the zone when it has lost endpoints. A lower
	// factor protects the endpoints that are left. A value that is not positive means
	// [DefaultZoneFactor].
	ZoneFactor float64
}

// Picker chooses endpoints. It is made for one set of candidates. Its methods may be called
// concurrently.
type Picker struct {
	// Constant.
	leastLoaded bool
	share       float64 // of the own zone
	n           int     // candidates that can be chosen
	index       []int32 // of a slot: the index in all; nil: the same
	table       *table  // nil: all slots have the same weight
	slots       []slot  // for least loaded
	local       int     // slots below this one are in the own zone; n if zones do not matter

	_ [64]byte // The counter changes with every call. What is above is constant.
	x atomic.Uint64
	_ [64]byte
}

// slot is what the choice by load has to know of a candidate.
type slot struct {
	load    *Load
	inverse float64 // of the weight
}

// golden is the golden ratio minus 1, as a fraction of 2^64. Its multiples, modulo 1, are
// a Kronecker sequence, and of all such sequences the one with the smallest discrepancy:
// any number of successive points is spread evenly over the interval from 0 to 1. See
// Kuipers, Niederreiter: Uniform Distribution of Sequences, chapter 2.3.
const golden = 0x9e3779b97f4a7c15

// New returns a Picker of all, which New does not keep. Pickers with different seeds start
// at different points of their sequence.
func New(cfg Config, all []Candidate, seed uint64) *Picker {
	p := &Picker{leastLoaded: cfg.LeastLoaded, n: len(all), local: len(all), share: 1}
	p.x.Store(mix(seed))
	if len(all) == 0 {
		return p
	}
	scale := [2]float64{1, 1} // of the weights in the own zone, and in others
	if cfg.Zone != "" {
		p.share = localShare(&cfg, all)
		p.index, p.local, scale = divide(p.share, cfg.Zone, all)
		p.n = len(p.index)
	}
	weights := make([]float64, p.n)
	equal := true
	for i := range weights {
		s := scale[0]
		if i >= p.local {
			s = scale[1]
		}
		weights[i] = Weight(all[p.at(i)].Weight) * s
		equal = equal && weights[i] == weights[0]
	}
	if !equal {
		p.table = newTable(weights)
	}
	if cfg.LeastLoaded {
		p.slots = make([]slot, p.n)
		for i := range p.slots {
			c := &all[p.at(i)]
			p.slots[i] = slot{load: c.Load, inverse: 1 / Weight(c.Weight)}
		}
	}
	return p
}

// at returns the index of a slot in the candidates.
func (p *Picker) at(slot int) int {
	if p.index != nil {
		return int(p.index[slot])
	}
	return slot
}

// Len returns the number of candidates that Pick chooses from. It is less than the number
// of all candidates if the own zone gets all calls.
func (p *Picker) Len() int { return p.n }

// LocalShare returns the share of the calls that the own zone gets: 1 if zones have no
// effect.
func (p *Picker) LocalShare() float64 { return p.share }

// Pick returns the index of the candidate for the next call. It must not be called if the
// Picker has no candidates. Pick takes the same time for any number of candidates,
// allocates nothing and takes no lock.
//
// The choice by weight is the next point of a low-discrepancy sequence. So every candidate
// gets its part of any number of successive calls, up to a few calls. The share of the own
// zone is as exact.
//
// With LeastLoaded, that choice is the first of two candidates. The second is a random
// one, by weight, of the first one's side: the own zone or the others. The second takes
// the call if it has less to do even with the call:
//
//	cost1 = latency1 * (inflight1 / weight1 + 0.5 / max(weight1, weight2))
//	cost2 = latency2 * (inflight2 + 1) / weight2
//	cost2 <= cost1
//
// So weights are exact while no candidate has more to do than its weight says. A candidate
// that is twice as slow as others loses calls even when it is idle, to candidates with at
// least its weight. A fast candidate with a small weight, such as a new version on trial,
// gets its part at most. See [Load].
func (p *Picker) Pick() int {
	x := p.x.Add(golden)
	var i int
	if p.table != nil {
		i = p.table.find(x)
	} else {
		i = scaled(x, p.n)
	}
	if p.leastLoaded {
		i = p.lessLoaded(i, mix(x))
	}
	return p.at(i)
}

// scaled returns floor(x / 2^64 * n).
func scaled(x uint64, n int) int {
	hi, _ := bits.Mul64(x, uint64(n))
	return int(hi)
}

// mix returns a number that looks random for each x. It is the finalizer of splitmix64:
// Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// explore is one of how many calls goes to the first choice whatever it is known for, so
// that an endpoint that was slow gets a chance.
const explore = 32

// lessLoaded returns the slot a, or another one of the same side that has less to do.
func (p *Picker) lessLoaded(a int, random uint64) int {
	b := p.second(a, random)
	if b == a {
		return a
	}
	first, second := &p.slots[a], &p.slots[b]
	if first.load == nil || second.load == nil {
		return a
	}
	inflight := first.load.inflight()
	if inflight == 0 && random%explore == 0 {
		first.load.wanted.Store(true)
		return a
	}
	latency1, latency2 := latencies(first.load, second.load)
	cost1 := latency1 * (float64(inflight)*first.inverse + min(first.inverse, second.inverse)/2)
	cost2 := latency2 * float64(second.load.inflight()+1) * second.inverse
	if cost2 <= cost1 {
		return b
	}
	return a
}

// second returns a random slot other than a from the same side as a, by weight. It returns
// a if the side has no other.
func (p *Picker) second(a int, random uint64) int {
	low, high := 0, p.local
	if a >= p.local {
		low, high = p.local, p.n
	}
	if high-low < 2 {
		return a
	}
	if p.table == nil {
		b := low + scaled(random, high-low-1)
		if b >= a {
			b++
		}
		return b
	}
	// A point in the side's interval without that of a.
	t := p.table
	width := t.start(high) - t.start(low) // modulo 2^64, as is all that follows
	own := t.start(a+1) - t.start(a)
	point, _ := bits.Mul64(random, width-own)
	point += t.start(low)
	if point >= t.start(a) {
		point += own
	}
	return t.find(point)
}

// localShare returns the share of the calls that stays in the own zone, as described for
// Config.ZoneFactor.
func localShare(cfg *Config, all []Candidate) float64 {
	zones := make(map[string]struct{})
	var own, total float64
	last := ""
	for i := range all {
		w := Weight(all[i].Weight)
		total += w
		if all[i].Zone == cfg.Zone {
			own += w
		}
		if i == 0 || all[i].Zone != last {
			last = all[i].Zone
			zones[last] = struct{}{}
		}
	}
	switch {
	case own == 0:
		return 0
	case len(zones) == 1:
		return 1
	}
	factor := cfg.ZoneFactor
	if !(factor > 0) {
		factor = DefaultZoneFactor
	}
	return min(1, factor*float64(len(zones))*own/total)
}

// divide returns the candidates that get calls, first the ones of the own zone, which gets a
// share of the calls; how many of them are in the own zone; and the factors of the weights in
// the own zone, and in the others.
func divide(share float64, zone string, all []Candidate) (index []int32, local int, scale [2]float64) {
	var sum [2]float64
	index = make([]int32, 0, len(all))
	for i := range all {
		if all[i].Zone == zone {
			index = append(index, int32(i))
			sum[0] += Weight(all[i].Weight)
		} else {
			sum[1] += Weight(all[i].Weight)
		}
	}
	local = len(index)
	scale = [2]float64{1, 1}
	if share == 1 {
		return index, local, scale
	}
	for i := range all {
		if all[i].Zone != zone {
			index = append(index, int32(i))
		}
	}
	if local > 0 {
		scale = [2]float64{share / sum[0], (1 - share) / sum[1]}
	}
	return index, local, scale
}
