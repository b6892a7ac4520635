package pick

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// worst returns the largest difference between the calls that a candidate got within any of
// the first n calls, and its part of them.
func worst(p *Picker, shares []float64, n int) float64 {
	counts := make([]float64, len(shares))
	d := 0.0
	for k := 1; k <= n; k++ {
		counts[p.Pick()]++
		if k&(k-1) == 0 || k == n || k < 300 {
			for i, s := range shares {
				d = max(d, math.Abs(counts[i]-s*float64(k)))
			}
		}
	}
	return d
}

func shares(weights ...float64) []float64 {
	total := 0.0
	for _, w := range weights {
		total += Weight(w)
	}
	s := make([]float64, len(weights))
	for i, w := range weights {
		s[i] = Weight(w) / total
	}
	return s
}

func candidates(weights ...float64) []Candidate {
	all := make([]Candidate, len(weights))
	for i, w := range weights {
		all[i].Weight = w
	}
	return all
}

// calls is by how many calls a candidate's number may differ from its part of the calls, over
// any number of successive calls up to 100,000.
const calls = 4

func TestWeights(t *testing.T) {
	for _, w := range [][]float64{
		{1}, {1, 1}, {1, 2, 7}, {1, 65535}, {65535, 1, 1}, {0, 0, 0}, {0, math.NaN(), -1, 3, math.Inf(1)},
		{0.1, 0.9}, {math.SmallestNonzeroFloat64, math.MaxFloat64}, make([]float64, 10), make([]float64, 1000),
		slices.Concat(slices.Repeat([]float64{1e-9}, 300), []float64{1e9}),
	} {
		for seed := range seeds(20) {
			if d := worst(New(Config{}, candidates(w...), seed), shares(w...), 100_000); d > calls {
				t.Errorf("weights %v, seed %d: a candidate got %.1f calls more or less than its part", w[:min(len(w), 5)], seed, d)
			}
		}
	}
}

func TestWeight(t *testing.T) {
	for w, want := range map[float64]float64{
		0: 1, -1: 1, math.Inf(-1): 1, 1: 1, 0.5: 0.5, 7: 7, 1e9: MaxWeight, math.Inf(1): MaxWeight, 1e-300: MinWeight,
	} {
		if got := Weight(w); got != want {
			t.Errorf("Weight(%v) = %v, want %v", w, got, want)
		}
	}
	if got := Weight(math.NaN()); got != 1 {
		t.Errorf("Weight(NaN) = %v, want 1", got)
	}
}

// TestSeeds checks that clients do not all begin with the same endpoint.
func TestSeeds(t *testing.T) {
	counts := make([]int, 10)
	for seed := range uint64(1000) {
		counts[New(Config{}, make([]Candidate, 10), seed).Pick()]++
	}
	if slices.Min(counts) < 50 {
		t.Errorf("the first calls of 1000 clients: %v", counts)
	}
}

// in returns n candidates of weight 1 in a zone.
func in(zone string, n int) []Candidate {
	return slices.Repeat([]Candidate{{Zone: zone}}, n)
}

// zoneTests are candidates, and the share of the calls that zone "a" must get.
var zoneTests = []struct {
	name  string
	all   []Candidate
	zone  string
	f     float64
	share float64
}{
	{"even", slices.Concat(in("a", 3), in("b", 3), in("c", 3)), "a", 0, 1},
	{"own zone lost a third", slices.Concat(in("b", 3), in("a", 2), in("c", 3)), "a", 0, 1},
	{"own zone lost two thirds", slices.Concat(in("a", 1), in("b", 3), in("c", 3)), "a", 0, 1.4 * 3 / 7},
	{"another factor", slices.Concat(in("a", 1), in("b", 3), in("c", 3)), "a", 2, 2 * 3.0 / 7},
	{"factor 1", slices.Concat(in("a", 1), in("b", 3), in("c", 3)), "a", 1, 3.0 / 7},
	{"factor NaN", slices.Concat(in("a", 1), in("b", 3), in("c", 3)), "a", math.NaN(), 1.4 * 3 / 7},
	{"own zone lost", slices.Concat(in("b", 3), in("c", 3)), "a", 0, 0},
	{"only the own zone", in("a", 3), "a", 0, 1},
	{"other zones lost", slices.Concat(in("a", 1), in("b", 1)), "a", 0, 1},
	{"no zones", in("", 4), "a", 0, 0},
	{"some without a zone", slices.Concat(in("a", 1), in("", 9)), "a", 0, 0.28},
	{"weights", []Candidate{{Weight: 1, Zone: "a"}, {Weight: 2, Zone: "b"}, {Weight: 7, Zone: "b"}}, "a", 0, 0.28},
	{"caller without a zone", slices.Concat(in("a", 1), in("b", 9)), "", 0, 0.1},
}

func TestZones(t *testing.T) {
	for _, tt := range zoneTests {
		t.Run(tt.name, func(t *testing.T) {
			// Within the zone and outside of it, calls go by weight.
			var sum [2]float64
			for _, c := range tt.all {
				if c.Zone == "a" {
					sum[0] += Weight(c.Weight)
				} else {
					sum[1] += Weight(c.Weight)
				}
			}
			want := make([]float64, len(tt.all))
			for i, c := range tt.all {
				if c.Zone == "a" {
					want[i] = tt.share * Weight(c.Weight) / sum[0]
				} else {
					want[i] = (1 - tt.share) * Weight(c.Weight) / sum[1]
				}
			}
			p := New(Config{Zone: tt.zone, ZoneFactor: tt.f}, tt.all, 3)
			if got := p.LocalShare(); tt.zone != "" && math.Abs(got-tt.share) > 1e-9 {
				t.Errorf("LocalShare() = %v, want %v", got, tt.share)
			}
			if d := worst(p, want, 100_000); d > calls {
				t.Errorf("a candidate got %.1f calls more or less than its part", d)
			}
		})
	}
}

// TestZonesOfTheLeastLoaded checks that the choice by load stays on its side, however busy
// the own zone is.
func TestZonesOfTheLeastLoaded(t *testing.T) {
	for _, tt := range zoneTests {
		t.Run(tt.name, func(t *testing.T) {
			all := slices.Clone(tt.all)
			for i := range all {
				all[i].Load = new(Load)
				busy := i % 3 * 10
				if all[i].Zone == "a" {
					busy += 100
				}
				for range busy {
					all[i].Load.Begin()
				}
			}
			p := New(Config{Zone: tt.zone, ZoneFactor: tt.f, LeastLoaded: true}, all, 3)
			own := 0.0
			for range 10_000 {
				if all[p.Pick()].Zone == "a" {
					own++
				}
			}
			if tt.zone != "" && math.Abs(own-tt.share*10_000) > calls {
				t.Errorf("the own zone got %.0f of 10,000 calls, want %.0f", own, tt.share*10_000)
			}
		})
	}
}

// TestMeaningOfTheFactor checks the promise of Config.ZoneFactor: with callers spread evenly
// over the zones, no endpoint gets more than ZoneFactor times its part of an even spread
// because of the calls of its own zone.
func TestMeaningOfTheFactor(t *testing.T) {
	all := slices.Concat(in("a", 1), in("b", 5), in("c", 9))
	even := 1.0 / float64(len(all))
	for _, factor := range []float64{1, 1.2, 1.4, 3} {
		for zone, n := range map[string]float64{"a": 1, "b": 5, "c": 9} {
			share := New(Config{Zone: zone, ZoneFactor: factor}, all, 0).LocalShare()
			if got := share / 3 / n; got > factor*even+1e-9 {
				t.Errorf("factor %v: an endpoint of zone %s gets %.3f times its part from its own zone", factor, zone, got/even)
			}
		}
	}
}

// TestSecond checks that the second choice is another candidate than the first, and by weight.
func TestSecond(t *testing.T) {
	weights := []float64{1, 2, 3, 14}
	p := New(Config{LeastLoaded: true}, candidates(weights...), 0)
	for a := range weights {
		counts := make([]float64, len(weights))
		for i := range uint64(100_000) {
			counts[p.second(a, mix(i*golden))]++
		}
		for b, n := range counts {
			want := 0.0
			if b != a {
				want = weights[b] / (20 - weights[a]) * 100_000
			}
			if math.Abs(n-want) > 1500 {
				t.Errorf("first choice %d: second choice %d %.0f times, want %.0f", a, b, n, want)
			}
		}
	}
}

// TestTinySlots checks that slots whose part is less than the precision of a sum have a part.
func TestTinySlots(t *testing.T) {
	for _, tiny := range []float64{1e-18, 1e-300} {
		for _, w := range [][]float64{
			slices.Concat([]float64{1}, slices.Repeat([]float64{tiny}, 5000)),
			slices.Concat(slices.Repeat([]float64{tiny}, 5000), []float64{1}),
		} {
			tab := newTable(w)
			for i := range w[1:] {
				if start, end := tab.start(i), tab.start(i+1); start >= end || tab.find(start) != i || tab.find(end-1) != i {
					t.Fatalf("slot %d has the points from %d to %d, found as those of %d and %d", i, start, end, tab.find(start), tab.find(end-1))
				}
			}
		}
	}
}

func FuzzPicker(f *testing.F) {
	f.Add(uint64(1), []byte{1, 0, 200}, "a", 1.4)
	f.Fuzz(func(t *testing.T, seed uint64, data []byte, zone string, factor float64) {
		if len(data) == 0 {
			return
		}
		all := make([]Candidate, len(data))
		for i, b := range data {
			w := math.Pow(10, float64(b%64)-32)
			if b%64 == 63 {
				w = math.NaN()
			}
			all[i] = Candidate{Weight: w, Zone: string("ab"[b>>7]), Load: new(Load)}
		}
		for _, cfg := range []Config{{}, {Zone: zone, ZoneFactor: factor}, {LeastLoaded: true}, {LeastLoaded: true, Zone: "a", ZoneFactor: factor}} {
			p := New(cfg, all, seed)
			if s := p.LocalShare(); !(s >= 0 && s <= 1) {
				t.Fatalf("%+v: LocalShare() = %v", cfg, s)
			}
			for range 100 {
				i := p.Pick()
				if all[i].Load.Begin() {
					all[i].Load.Sample(0, 1, i%2 == 0)
				}
			}
			for i := range all {
				if cfg.LeastLoaded && len(all) > 1 {
					if b := p.second(min(i, p.n-1), seed); b < 0 || b >= p.n {
						t.Fatalf("%+v: second choice %d of %d", cfg, b, p.n)
					}
				}
			}
		}
	})
}

func TestAllocations(t *testing.T) {
	all := make([]Candidate, 10)
	for i := range all {
		all[i] = Candidate{Weight: float64(i), Zone: fmt.Sprint(i % 2), Load: new(Load)}
	}
	for _, cfg := range []Config{{}, {Zone: "1"}, {LeastLoaded: true}, {LeastLoaded: true, Zone: "1"}} {
		p := New(cfg, all, 1)
		if n := testing.AllocsPerRun(1000, func() {
			i := p.Pick()
			if all[i].Load.Begin() {
				all[i].Load.Sample(1, 1, false)
			} else {
				all[i].Load.End()
			}
		}); n != 0 {
			t.Errorf("%+v: %v allocations", cfg, n)
		}
	}
}

// seeds returns the number of seeds of a test: all with NAMING_FULL, and a quarter otherwise.
func seeds(all uint64) uint64 {
	if mutant.Full() {
		return all
	}
	return all / 4
}
