package pick_test

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

var mutants = []mutant.Mutant{
	{
		Name: "prefers the own zone whatever it can take",
		File: "pick.go",
		Old:  "return min(1, factor*float64(len(zones))*own/total)",
		New:  "return min(1, factor*float64(len(zones))*own/total*1e9)",
		Test: "^TestZones$",
	},
	{
		Name: "forgets how many zones there are",
		File: "pick.go",
		Old:  "factor*float64(len(zones))*own/total",
		New:  "factor*own/total",
		Test: "^TestZones$",
	},
	{
		Name: "draws endpoints at random",
		File: "pick.go",
		Old:  "x := p.x.Add(golden)",
		New:  "x := mix(p.x.Add(golden))",
		Test: "^TestWeights$",
	},
	{
		Name: "starts every client at the same endpoint",
		File: "pick.go",
		Old:  "p.x.Store(mix(seed))",
		New:  "p.x.Store(mix(1))",
		Test: "^TestSeeds$",
	},
	{
		Name: "lets a weight of NaN through",
		File: "pick.go",
		Old:  "if !(w > 0) {",
		New:  "if w <= 0 {",
		Test: "^TestWeight$",
	},
	{
		Name: "leaves the zone for less load",
		File: "pick.go",
		Old:  "\tif a >= p.local {\n\t\tlow, high = p.local, p.n\n\t}\n",
		New:  "\thigh = p.n\n",
		Test: "^TestZonesOfTheLeastLoaded$",
	},
	{
		Name: "floods an endpoint with a small weight",
		File: "pick.go",
		Old:  "min(first.inverse, second.inverse)/2",
		New:  "second.inverse/2",
		Test: "^TestEvenLoad$",
	},
	{
		Name: "never tries a slow endpoint again",
		File: "pick.go",
		Old:  "if inflight == 0 && random%explore == 0 {",
		New:  "if inflight == 0 && random == 0 {",
		Test: "^TestRecovery$",
	},
	{
		Name: "takes a failure for a fast answer",
		File: "load.go",
		Old:  "\tcase failed:\n",
		New:  "\tcase false:\n",
		Test: "^TestFailingServer$|^TestSample",
	},
	{
		Name: "ignores failures",
		File: "load.go",
		Old:  "1 / max(square*square, 1/slowest)",
		New:  "1 + 0*square",
		Test: "^TestFailingServer$",
	},
	{
		Name: "ignores the latency",
		File: "load.go",
		Old:  "return min(la, ratio*lb) * fa, min(lb, ratio*la) * fb",
		New:  "return fa, fb",
		Test: "^TestSlowServer$",
	},
	{
		Name: "trusts the latency of before",
		File: "load.go",
		Old:  "min(lb, ratio*la) * fb",
		New:  "lb * fb",
		Test: "^TestHangingServer$",
	},
	{
		Name: "takes a stream's length for a latency",
		File: "load.go",
		Old:  "if elapsed > MaxLatency && !failed {",
		New:  "if elapsed > 1000*MaxLatency && !failed {",
		Test: "^TestSample$",
	},
	{
		Name: "gives tiny weights no part",
		File: "table.go",
		Old:  "last = min(last, -uint64(n-1-i))",
		New:  "",
		Test: "^TestTinySlots$",
	},
	{
		Name: "counts a failed endpoint for the subset",
		File: "subset.go",
		Old:  "if !failed(i) {",
		New:  "if i >= 0 {",
		Test: "^TestFirst$",
	},
	{
		Name: "gives all numbers the same part of the ring",
		File: "subset.go",
		Old:  "first = scaled(s.Number*golden, len(ids))",
		New:  "first = 0",
		Test: "^TestSubsetSpread$",
	},
	{
		Name: "depends on the order of the endpoints",
		File: "subset.go",
		Old:  "ranked{mix(hash(start, id)), int32(i)}",
		New:  "ranked{mix(uint64(i) + start + uint64(len(id))), int32(i)}",
		Test: "^TestSubset(OfAnyOrder|Disruption)$",
	},
}

func TestMutants(t *testing.T) { mutant.Run(t, ".", 1, mutants) }
