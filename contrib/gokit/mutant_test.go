package gokitnaming_test

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

func TestMutants(t *testing.T) {
	mutant.Run(t, ".", 1, []mutant.Mutant{
		{
			Name: "sends an error after a set",
			File: "instancer.go",
			Old:  "case err != nil && known:",
			New:  "case false:",
			Test: "^TestOutage$",
		},
		{
			Name: "takes an empty set for an error",
			File: "instancer.go",
			Old:  "case len(set.Endpoints) == 0 && !known:",
			New:  "case len(set.Endpoints) == 0:",
			Test: "^TestEvents$",
		},
		{
			Name: "sends old events to slow receivers",
			File: "instancer.go",
			Old:  "\t\tcase <-changed: // a nil channel never proceeds\n\t\t\tcontinue\n",
			New:  "",
			Test: "^TestSlowReceiver$",
		},
		{
			Name: "shares lists between receivers",
			File: "instancer.go",
			Old:  "event.Instances = slices.Clone(event.Instances)",
			New:  "",
			Test: "^TestEvents$",
		},
		{
			Name: "sends to a channel that was deregistered",
			File: "instancer.go",
			Old:  "\tclose(r.quit)\n\t<-r.ended\n",
			New:  "",
			Test: "^TestEvents$",
		},
		{
			Name: "registers twice",
			File: "registrar.go",
			Old:  "if r.registration == nil {",
			New:  "if true {",
			Test: "^TestRegistrar$",
		},
		{
			Name: "cancels calls in progress",
			File: "finish.go",
			Old:  "!c.last || c.inProgress > 0",
			New:  "!c.last",
			Test: "^TestFinishCalls$",
		},
		{
			Name: "closes an instance under callers that have its endpoint",
			File: "finish.go",
			Old:  "time.AfterFunc(closeDelay,",
			New:  "time.AfterFunc(0,",
			Test: "^TestFinishCallsIdle$",
		},
	})
}
