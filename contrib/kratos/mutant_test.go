package kratosnaming_test

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

func TestMutants(t *testing.T) { mutant.Run(t, ".", 1, mutants) }

var mutants = []mutant.Mutant{
	{
		Name: "takes what is not known for an empty set",
		File: "watcher.go",
		Old:  "s.last == nil && len(list) == 0 ||",
		New:  "",
		Test: "^TestStart$",
	},
	{
		Name: "removes an instance without draining it",
		File: "registry.go",
		Old:  "_ = g.Close() // logs its error",
		New:  "_ = g.Withdraw(ctx)",
		Test: "^TestDeregisterDrains$",
	},
	{
		Name: "keeps an app from starting while the registry is down",
		File: "registry.go",
		Old:  "context.WithTimeout(ctx, answerTimeout)",
		New:  "context.WithTimeout(ctx, time.Hour)",
		Test: "^TestRegisterWhileDown$",
	},
	{
		Name: "keeps an app running while the registry is down",
		File: "registry.go",
		Old:  "\tcase <-closed:\n\tcase <-ctx.Done():\n",
		New:  "\tcase <-closed:\n\t\treturn g.Close()\n\tcase <-ctx.Done():\n",
		Test: "^TestDeregisterReturnsNil$",
	},
	{
		Name: "keeps an instance whose app was stopped",
		File: "registry.go",
		Old:  "if errors.Is(ctx.Err(), context.Canceled) {",
		New:  "if false {",
		Test: "^TestRegisterCanceled$",
	},
	{
		Name: "loses updates",
		File: "registry.go",
		Old:  "err = g.Update(wait, e.Metadata)",
		New:  "",
		Test: "^TestRegisterAgainUpdates$",
	},
	{
		Name: "shows the draining mark as a change",
		File: "watcher.go",
		Old:  "\ta.Draining = b.Draining\n",
		New:  "",
		Test: "^TestRegisterAgainUpdates$",
	},
	{
		Name: "leaks a sequence that has ended",
		File: "watcher.go",
		Old:  "s.stop() // the sequence waits for it",
		New:  "",
		Test: "^TestStop$",
	},
	{
		Name: "loses URLs",
		File: "instance.go",
		Old:  "entry[endpointsMember] = s.Endpoints",
		New:  "_ = s.Endpoints",
		Test: "^TestRoundTrip$",
	},
	{
		Name: "writes weights that other programs cannot read",
		File: "instance.go",
		Old:  "members[weightMember] = w\n",
		New:  "members[weightMember] = s.Metadata[weightMember]\n",
		Test: "^TestWeight$",
	},
}
