package balanceproof

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestMutants plants faults of the policy that package balancer's own tests might miss if
// gRPC were different from what these tests take it for.
func TestMutants(t *testing.T) {
	const picker = "../../balancer/picker.go"
	t.Setenv(shortVariable, "1")
	mutant.Run(t, ".", 0, []mutant.Mutant{
		{
			Name: "takes all weights for equal",
			File: picker,
			Old:  "weight: i.Weight, zone: i.Zone}",
			New:  "zone: i.Zone}",
			Test: "^TestWeights$",
		},
		{
			Name: "keeps the first metadata",
			File: picker,
			Old:  "	if !bytes.Equal(n.Metadata, old.metadata) {\n",
			New:  "	if !bytes.Equal(n.Metadata, old.metadata) && old.metadata == nil {\n",
			Test: "^TestWeights$",
		},
		{
			Name: "ignores zones",
			File: picker,
			Old:  "weight: i.Weight, zone: i.Zone}",
			New:  "weight: i.Weight}",
			Test: "^TestZones$",
		},
		{
			Name: "does not look at the load",
			File: picker,
			Old:  "LeastLoaded: c.Pick == LeastLoaded,",
			New:  "LeastLoaded: false,",
			Test: "^TestSlow$",
		},
	})
}
