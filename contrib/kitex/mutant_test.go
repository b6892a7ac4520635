package kitexnaming

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestMutants plants faults, and checks that the tests find them.
func TestMutants(t *testing.T) {
	mutant.Run(t, ".", 1, []mutant.Mutant{
		{
			Name: "overlooks a change of tags",
			File: "instances.go",
			Old:  "!maps.Equal(tagsOf(was), tagsOf(in))",
			New:  "!maps.Equal(tagsOf(was), tagsOf(was))",
			Test: "^TestDiff$",
		}, {
			Name: "has a cache of its own",
			File: "resolver.go",
			Old:  "	opts.Cacheable = true\n",
			New:  "",
			Test: "^TestPushReachesKitex$",
		},
	})
}
