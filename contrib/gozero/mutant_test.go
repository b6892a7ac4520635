package gozero_test

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestMutants plants faults, and checks that the tests find them.
func TestMutants(t *testing.T) { mutant.Run(t, ".", 1, mutants) }

var mutants = []mutant.Mutant{
	{
		Name: "drains after the server has stopped",
		File: "gozero.go",
		Old:  "proc.AddWrapUpListener(withdraw)",
		New:  "proc.AddShutdownListener(withdraw)",
		Test: "TestLife",
	}, {
		Name: "lets the process end before the endpoint is removed",
		File: "gozero.go",
		Old:  "	proc.AddShutdownListener(withdraw)\n",
		New:  "",
		Test: "TestShutdownWithdraws",
	}, {
		Name: "gives go-zero's balancers no addresses",
		File: "gozero.go",
		Old:  "o.WithAddresses, o.NoServiceConfig = true, true",
		New:  "o.WithAddresses, o.NoServiceConfig = false, true",
		Test: "TestBalancers",
	}, {
		Name: "overrides the balancer of the configuration",
		File: "gozero.go",
		Old:  "o.WithAddresses, o.NoServiceConfig = true, true",
		New:  "o.WithAddresses, o.NoServiceConfig = true, false",
		Test: "TestBalancers",
	}, {
		Name: "publishes a wildcard address",
		File: "gozero.go",
		Old:  `host != "" && (err != nil || !ip.IsUnspecified())`,
		New:  `host != "" && (err != nil || ip.IsValid())`,
		Test: "TestPublishAddress",
	}, {
		Name: "accepts a drain delay that is longer than the wrap-up time",
		File: "gozero.go",
		Old:  "case drain > wrapUp:",
		New:  "case drain > 2*wrapUp:",
		Test: "TestPublishStopTimes",
	}, {
		Name: "blocks until there is a server",
		File: "gozero.go",
		Old:  "zrpc.WithNonBlock()",
		New:  "zrpc.WithBlock()",
		Test: "TestClientBeforeServer",
	},
}
