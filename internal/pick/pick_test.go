package pick

import (
	"math"
	"testing"
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

func TestWeights(t *testing.T) {
	for _, w := range [][]float64{
		{1}, {1, 1}, {1, 2, 7}, {1, 65535}, {65535, 1, 1}, {0, 0, 0}, {0, math.NaN(), -1, 3, math.Inf(1)},
		make([]float64, 10), make([]float64, 1000),
	} {
		for seed := range uint64(20) {
			if d := worst(New(Config{}, candidates(w...), seed), shares(w...), 100_000); d > 4 {
				t.Errorf("weights %v, seed %d: a candidate got %.1f calls more or less than its part", w[:min(len(w), 5)], seed, d)
			}
		}
	}
}
