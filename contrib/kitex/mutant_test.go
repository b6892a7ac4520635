package kitexnaming

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestMutants plants faults, and checks that the tests find them.
func TestMutants(t *testing.T) { mutant.Run(t, ".", 1, mutants) }

var mutants = []mutant.Mutant{
	{
		Name: "drains for less than kitex's interval",
		File: "registry.go",
		Old:  "DefaultDrainDelay = 6 * time.Second",
		New:  "DefaultDrainDelay = 4 * time.Second",
		Test: "^TestRegister$",
	}, {
		Name: "waits for a registry that is down",
		File: "registry.go",
		Old:  "	r.options.Wait = false\n",
		New:  "",
		Test: "^TestRegisterWhileTheRegistryIsDown$",
	}, {
		Name: "announces the host in place of every address",
		File: "registry.go",
		Old:  `r.host != "" && (host == "" || ip != nil && ip.IsUnspecified())`,
		New:  `r.host != "" && (ip == nil || ip != nil)`,
		Test: "^TestAddresses$",
	}, {
		Name: "announces any address",
		File: "registry.go",
		Old:  "if err := naming.CheckAddress(addr); err != nil {",
		New:  "if err := naming.CheckAddress(addr); err != nil && r.host != \"\" {",
		Test: "^TestAddresses$",
	}, {
		Name: "forgets which registration has the entry",
		File: "registry.go",
		Old:  "		o.byKey[k] = reg\n",
		New:  "		if former == nil {\n			o.byKey[k] = reg\n		}\n",
		Test: "^TestRegisterAgain$",
	}, {
		Name: "lets a large weight fill the memory",
		File: "instances.go",
		Old:  "if sum > maxWeightSum {",
		New:  "if sum < 0 {",
		Test: "^TestWeightSum$",
	}, {
		Name: "takes a weight of 0 for a weight",
		File: "instances.go",
		Old:  "&& number > 0:",
		New:  "&& number >= 0:",
		Test: "^TestWeightAndTags$",
	}, {
		Name: "overlooks a change of tags",
		File: "instances.go",
		Old:  "!maps.Equal(tagsOf(was), tagsOf(in))",
		New:  "!maps.Equal(tagsOf(was), tagsOf(was))",
		Test: "^TestDiff$",
	}, {
		Name: "gives up a known set when the Client is closed",
		File: "resolver.go",
		Old:  "	if a := w.answer.Load(); a != nil && a.err == nil {\n		return\n	}\n",
		New:  "",
		Test: "^TestReasons$",
	}, {
		Name: "keeps a failed watch",
		File: "resolver.go",
		Old:  "	r.open.remove(w)\n",
		New:  "",
		Test: "^TestReasons$",
	}, {
		Name: "watches an unused service for ever",
		File: "resolver.go",
		Old:  "	if left <= 0 {\n		o.delete(w)",
		New:  "	if left < -time.Hour {\n		o.delete(w)",
		Test: "^TestIdle$",
	}, {
		Name: "ends the watch of a service in use",
		File: "resolver.go",
		Old:  "	w.used = time.Now()\n	if byPush",
		New:  "	if isNew {\n		w.used = time.Now()\n	}\n	if byPush",
		Test: "^TestIdle$",
	}, {
		Name: "ends the watch that was used last",
		File: "resolver.go",
		Old:  "w.used.Before(oldest.used)",
		New:  "w.used.After(oldest.used)",
		Test: "^TestBounded$",
	}, {
		Name: "does not bound the watches",
		File: "resolver.go",
		Old:  "if len(o.byService) >= o.most {",
		New:  "if len(o.byService) >= 1000*o.most {",
		Test: "^TestBounded$",
	}, {
		Name: "pushes nothing",
		File: "resolver.go",
		Old:  "			if r.open.mayPush(w) {",
		New:  "			if false {",
		Test: "^TestPush$",
	}, {
		Name: "watches a service because of its own pushes",
		File: "resolver.go",
		Old:  "		w.pushed = w.used\n",
		New:  "",
		Test: "^TestPushKeepsNoWatch$",
	}, {
		Name: "has a cache of its own",
		File: "resolver.go",
		Old:  "	opts.Cacheable = true\n",
		New:  "",
		Test: "^TestPushReachesKitex$",
	}, {
		Name: "has the caches of another interval",
		File: "resolver.go",
		Old:  "r.balancers(lbcache.Options{})",
		New:  "r.balancers(lbcache.Options{RefreshInterval: 6e9})",
		Test: "^TestPushFindsTheBalancers$",
	}, {
		Name: "has one name for all Resolvers",
		File: "resolver.go",
		Old:  "fmt.Sprintf(\"naming-%d\", resolvers.Add(1))",
		New:  "fmt.Sprintf(\"naming-%d\", resolvers.Add(0))",
		Test: "^TestNames$",
	},
}
