package gomicro_test

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestMutants plants faults, and checks that the tests find them.
func TestMutants(t *testing.T) { mutant.Run(t, ".", 1, mutants) }

var mutants = []mutant.Mutant{
	{
		Name: "reports what has gone before what is new",
		File: "watcher.go",
		Old:  "	for _, e := range gone {\n		results = append(results, result(\"delete\", service, e))\n	}\n",
		New:  "	for _, e := range gone {\n		results = append([]*registry.Result{result(\"delete\", service, e)}, results...)\n	}\n",
		Test: "TestChangesNeverEmpty",
	}, {
		Name: "takes a registry that does not answer for an empty one",
		File: "gomicro.go",
		Old:  "if r.empty(ctx, name) {",
		New:  "if true {",
		Test: "TestStartWhileDown",
	}, {
		Name: "forgets what GetService returned",
		File: "watcher.go",
		Old:  "w.follow(o.Service, known)",
		New:  "w.follow(o.Service, known[:0])",
		Test: "TestWatchBeginsAtGetService",
	}, {
		Name: "leaves a cache with what it stored too late",
		File: "watcher.go",
		Old:  "w.send(changes(service, byID(answer), known))",
		New:  "_ = answer",
		Test: "TestLateAnswer",
	}, {
		Name: "registers an unchanged node again",
		File: "gomicro.go",
		Old:  "if ok && old.endpoint.Equal(e) && old.ttl == ttl {",
		New:  "if ok && old.ttl == ttl && r == nil {",
		Test: "TestRegisterAgain",
	}, {
		Name: "leaves the old version of a node",
		File: "watcher.go",
		Old:  "			gone = append(gone, old)\n",
		New:  "",
		Test: "TestRegisterAgain",
	}, {
		Name: "reports an update for a draining mark",
		File: "watcher.go",
		Old:  "	a.Draining, b.Draining = false, false\n",
		New:  "",
		Test: "TestLastNodeDrains",
	}, {
		Name: "loses the schema of the methods",
		File: "metadata.go",
		Old:  `entry["endpoints"] = s.Endpoints`,
		New:  `entry["endpoint"] = s.Endpoints`,
		Test: "TestRoundTrip$",
	}, {
		Name: "gives go-micro nil pointers from the registry",
		File: "metadata.go",
		Old:  "func(e *registry.Endpoint) bool { return e == nil })",
		New:  "func(e *registry.Endpoint) bool { return false })",
		Test: "TestForeignMetadata",
	}, {
		Name: "fails Register while the registry is down",
		File: "gomicro.go",
		Old:  "err != nil && ctx.Err() == nil {",
		New:  "err != nil {",
		Test: "TestStartWhileDown",
	},
}
