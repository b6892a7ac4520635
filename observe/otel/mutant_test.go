package otelnaming_test

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestMutants plants faults in the metrics, and checks that the tests find them.
func TestMutants(t *testing.T) {
	mutant.Run(t, ".", 1, []mutant.Mutant{
		{
			Name: "counts the metrics of both registries as one",
			File: "migration.go",
			Old:  "append(slices.Clone(o.Attributes), SideNameKey.String(name))",
			New:  "slices.Clone(o.Attributes)",
			Test: "TestMigrationSides",
		}, {
			Name: "counts a resync twice",
			File: "hooks.go",
			Old:  "	add(m.resyncs, 1, o)\n",
			New:  "	add(m.resyncs, 2, o)\n",
			Test: "TestStory",
		}, {
			Name: "goes on with the gauges of a closed Client",
			File: "metrics.go",
			Old:  "	if err := m.callback.Unregister(); err != nil {\n",
			New:  "	if err := error(nil); err != nil {\n",
			Test: "TestClose",
		}, {
			Name: "shows a negative number of held endpoints",
			File: "metrics.go",
			Old:  "max(r.held, 0)",
			New:  "r.held",
			Test: "TestReleaseBeforeHold",
		}, {
			Name: "forgets an endpoint with the first of its registrations",
			File: "metrics.go",
			Old:  "	if s.registered[id] > 1 {\n",
			New:  "	if s.registered[id] > 2 {\n",
			Test: "TestRegisteredByID",
		}, {
			Name: "does not tell failed checks from maintenance",
			File: "metrics.go",
			Old:  "	if r == naming.FailedCheck {\n",
			New:  "	if r == naming.FailedCheck && false {\n",
			Test: "TestFieldW1Metrics",
		},
	})
}
