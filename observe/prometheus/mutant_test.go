package prometheusnaming_test

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestMutants plants faults in the metrics, and checks that the tests find them.
func TestMutants(t *testing.T) {
	mutant.Run(t, ".", 1, []mutant.Mutant{
		{
			Name: "exchanges the metrics of both registries",
			File: "migration.go",
			Old:  "{&m.Old, oldName}, {&m.New, newName}",
			New:  "{&m.Old, newName}, {&m.New, oldName}",
			Test: "TestMigrationSides",
		}, {
			Name: "counts a resync twice",
			File: "hooks.go",
			Old:  "	m.add(m.counters.resyncs, 1, info.Service)\n",
			New:  "	m.add(m.counters.resyncs, 2, info.Service)\n",
			Test: "TestStory",
		}, {
			Name: "goes on with the gauges of a closed Client",
			File: "metrics.go",
			Old:  "m.closed.Store(true)",
			New:  "m.closed.Store(false)",
			Test: "TestClose",
		}, {
			Name: "shows a negative number of held endpoints",
			File: "state.go",
			Old:  "max(v.held, 0)",
			New:  "v.held",
			Test: "TestReleaseBeforeHold",
		}, {
			Name: "forgets an endpoint with the first of its registrations",
			File: "state.go",
			Old:  "	if v.registered[id] > 1 {\n",
			New:  "	if v.registered[id] > 2 {\n",
			Test: "TestRegisteredByID",
		}, {
			Name: "shows the highest phase of all services",
			File: "migration.go",
			Old:  "min(r.phase, s.phase)",
			New:  "max(r.phase, s.phase)",
			Test: "TestMigrationDropService",
		}, {
			Name: "panics for a name that is not UTF-8",
			File: "metrics.go",
			Old:  "values[i] = strings.ToValidUTF8(v, \"\\uFFFD\")",
			New:  "values[i] = strings.ToLower(v)",
			Test: "TestNotUTF8",
		},
	})
}
