package balancer_test

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

var mutants = []mutant.Mutant{
	{
		Name: "decodes everything",
		File: "picker.go",
		Old:  "if !bytes.Equal(n.Metadata, old.metadata) {",
		New:  "if !bytes.Equal(n.Metadata, nil) {",
		Test: "^TestDecodesOnlyChanges$",
	},
	{
		Name: "keeps the first weight",
		File: "picker.go",
		Old:  "if !bytes.Equal(n.Metadata, old.metadata) {",
		New:  "if !bytes.Equal(n.Metadata, old.metadata) && old.metadata == nil {",
		Test: "^TestWeights$",
	},
	{
		Name: "ignores gRPC's weights",
		File: "picker.go",
		Old:  "e.info.Store(&info{weight: w})",
		New:  "",
		Test: "^TestOtherResolvers$",
	},
	{
		Name: "takes a call that was not sent for a fast answer",
		File: "picker.go",
		Old:  "return false, info.BytesReceived",
		New:  "return false, true",
		Test: "^TestJudge$",
	},
	{
		Name: "forgets the end of calls that do not count",
		File: "picker.go",
		Old:  "\t\tload.End()\n\t\treturn\n",
		New:  "\t\treturn\n",
		Test: "^TestInFlight$",
	},
	{
		Name: "waits for an endpoint of the subset that failed",
		File: "policy.go",
		Old:  "return c != nil && c.failed.Load()",
		New:  "return false && c.failed.Load()",
		Test: "^TestSubset",
	},
	{
		Name: "keeps the replacements of a subset",
		File: "policy.go",
		Old:  "if n := p.need(); n != p.top.selected {",
		New:  "if n := p.need(); n > p.top.selected {",
		Test: "^TestSubset$",
	},
	{
		Name: "takes the weight of any endpoint of an address",
		File: "policy.go",
		Old:  "if _, ok := seen[k]; ok || len(e.Addresses) == 0 {",
		New:  "if _, ok := seen[k]; ok && i > 2 || len(e.Addresses) == 0 {",
		Test: "^TestOtherResolvers$",
	},
	{
		Name: "changes the slice that ClientConns share",
		File: "policy.go",
		Old:  "kept = slices.Clone(all[:i])",
		New:  "kept = all[:i]",
		Test: "^TestKeepsTheResolversSlice$",
	},
	{
		Name: "chooses among endpoints that are not connected",
		File: "picker.go",
		Old:  "if children[i].State.ConnectivityState != connectivity.Ready {",
		New:  "if children[i].State.ConnectivityState == connectivity.Idle {",
		Test: "^Test(Zones|SubsetOfFailedEndpoints)$",
	},
	{
		Name: "ignores a misspelt member",
		File: "config.go",
		Old:  "case !slices.Contains(members, name):",
		New:  "case !slices.Contains(members, name) && name == \"\":",
		Test: "^TestParseConfigErrors$",
	},
	{
		Name: "ignores the load",
		File: "picker.go",
		Old:  "LeastLoaded: c.Pick == LeastLoaded,",
		New:  "LeastLoaded: c.Pick == \"\",",
		Test: "^TestInFlight$|^TestLeastLoaded$",
	},
}

func TestMutants(t *testing.T) { mutant.Run(t, ".", 1, mutants) }
