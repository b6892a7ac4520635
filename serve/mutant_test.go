package serve_test

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

func TestMutants(t *testing.T) {
	mutant.Run(t, ".", 1, []mutant.Mutant{
		{
			Name: "stops before the endpoint is withdrawn",
			File: "serve.go",
			Old:  "\tcase err = <-announced:\n\tcase",
			New:  "\tcase <-ctx.Done():\n\tcase",
			Test: "^TestOrder$",
		},
		{
			Name: "shuts the health service down first",
			File: "serve.go",
			Old:  "\tcase serveErr = <-served:\n\t\tcancel()\n",
			New:  "\tcase serveErr = <-served:\n\t\to.Health.(interface{ Shutdown() }).Shutdown()\n\t\tcancel()\n",
			Test: "^TestAcceptFails$",
		},
		{
			Name: "cuts off calls in progress",
			File: "serve.go",
			Old:  "s.GracefulStop()",
			New:  "s.Stop()",
			Test: "^Test(Order|AcceptFails)$",
		},
		{
			Name: "waits for calls in progress for ever",
			File: "serve.go",
			Old:  "case <-t.C:",
			New:  "case <-make(chan int):",
			Test: "^TestStopTimeout$",
		},
		{
			Name: "announces before the server accepts",
			File: "serve.go",
			Old:  "\tcase <-accepting:\n",
			New:  "\tdefault:\n",
			Test: "^Test(StoppedBefore|Order)$",
		},
		{
			Name: "takes any state for SERVING",
			File: "health.go",
			Old:  "w.status.last == healthgrpc.HealthCheckResponse_SERVING",
			New:  "w.status.last != healthgrpc.HealthCheckResponse_NOT_SERVING",
			Test: "^TestOnlyServing$",
		},
		{
			Name: "misses what the health service said while the endpoint was withdrawn",
			File: "serve.go",
			Old:  "\t\ta.forget()\n\t}\n\treturn nil\n",
			New:  "\t\ta.forget()\n\t\tselect {\n\t\tcase <-w.news:\n\t\tdefault:\n\t\t}\n\t\treturn nil\n\t}\n\treturn nil\n",
			Test: "^TestServingAgainWhileItIsWithdrawn$",
		},
		{
			Name: "leaves the endpoint when the watch of the health service ends",
			File: "serve.go",
			Old:  "return errors.Join(err, a.withdraw())",
			New:  "return err",
			Test: "^TestHealthServiceThatTellsNoMore$",
		},
		{
			Name: "guesses the address",
			File: "serve.go",
			Old:  "\tif err := naming.CheckAddress(addr); err != nil {\n",
			New:  "\taddr = strings.Replace(addr, \"[::]\", \"127.0.0.1\", 1)\n\tif err := naming.CheckAddress(addr); err != nil {\n",
			Test: "^TestNeverGuesses$",
		},
	})
}
