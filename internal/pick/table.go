package pick

import "math/bits"

// table maps points of an interval to slots with different weights, in constant time on
// average. The interval is all of the unsigned 64-bit numbers. Every slot has a part of the
// interval as wide as its weight.
//
// The interval is also cut into as many cells of equal width as there are slots. The table
// knows the slot at the beginning of each cell. On average less than one more slot begins
// within a cell. This is the indexed search, or method of guide tables, of Chen and Asau
// (1974): Devroye, Non-Uniform Random Variate Generation, chapter III.2.4. The alias method
// would be as fast, and would scatter a slot's part over the interval, which would make the
// spread of successive points less even.
type table struct {
	ends  []uint64 // of the slots: the first point after each; the last is 0, for 2^64
	guide []int32  // of the cells
}

// newTable returns a table of slots with these weights, which must be positive.
func newTable(weights []float64) *table {
	n := len(weights)
	t := &table{ends: make([]uint64, n), guide: make([]int32, n)}
	var total float64
	for _, w := range weights {
		total += w
	}
	var sum float64
	var last uint64
	for i, w := range weights[:n-1] {
		sum += w
		// Sums are rounded. Every slot has at least one point nevertheless.
		last = max(uint64(min(sum/total, 1-1.0/(1<<52))*(1<<63))<<1, last+1)
		last = min(last, -uint64(n-1-i))
		t.ends[i] = last
	}
	i := int32(0)
	for c := range t.guide {
		for int(i) < n-1 && t.ends[i] <= cellStart(c, n) {
			i++
		}
		t.guide[c] = i
	}
	return t
}

// cellStart returns the first point x of cell c of n: the smallest with scaled(x, n) == c.
func cellStart(c, n int) uint64 {
	quotient, remainder := bits.Div64(uint64(c), 0, uint64(n))
	if remainder > 0 {
		quotient++
	}
	return quotient
}

// find returns the slot at a point.
func (t *table) find(x uint64) int {
	i := int(t.guide[scaled(x, len(t.guide))])
	for i < len(t.ends)-1 && x >= t.ends[i] {
		i++
	}
	return i
}

// start returns the first point of a slot. That of the slot after the last is 0, for 2^64.
func (t *table) start(slot int) uint64 {
	if slot == 0 {
		return 0
	}
	return t.ends[slot-1]
}
