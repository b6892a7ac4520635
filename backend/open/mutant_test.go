package open_test

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestMutants plants typical bugs in the opening of Clients, one at a time, and expects a
// test to fail for each.
func TestMutants(t *testing.T) {
	mutant.Run(t, ".", 1, []mutant.Mutant{
		{
			Name: "closes the store before the Client",
			File: "migrate.go",
			Old:  "slices.Backward(*c)",
			New:  "slices.All(*c)",
			Test: "TestClientCloses",
		}, {
			Name: "keeps records in the format of another framework",
			File: "migrate.go",
			Old:  "	if len(params) == len(t.params) {\n",
			New:  "	if len(params) >= 0 {\n",
			Test: "TestMigrateRecords",
		}, {
			Name: "leaves open what a failure makes useless",
			File: "migrate.go",
			Old:  "		_ = opened.close() // err is why nothing could be used\n",
			New:  "",
			Test: "TestClientCloses",
		}, {
			Name: "exchanges the registry that cannot be written",
			File: "migrate.go",
			Old:  "params.Get(\"read-only\") == param}",
			New:  "params.Get(\"read-only\") != param}",
			Test: "TestMigrateOptions|TestClient$",
		}, {
			Name: "accepts one registry as both",
			File: "migrate.go",
			Old:  "from == to && m",
			New:  "from == to+\"x\" && m",
			Test: "TestClientInvalid",
		},
	})
}
