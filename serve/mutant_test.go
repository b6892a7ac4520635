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
			Name: "cuts calls in progress off",
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
			Old:  "w.status == healthgrpc.HealthCheckResponse_SERVING",
			New:  "w.status != healthgrpc.HealthCheckResponse_NOT_SERVING",
			Test: "^TestOnlyServing$",
		},
		{
			Name: "misses what the health service said meanwhile",
			File: "serve.go",
			Old:  "\t\t\tcontinue // it took a while\n",
			New:  "\t\t\tselect {\n\t\t\tcase <-w.news:\n\t\t\tdefault:\n\t\t\t}\n",
			Test: "^TestServingAgainWhileItIsWithdrawn$",
		},
		{
			Name: "leaves the endpoint when the health service tells no more",
			File: "serve.go",
			Old:  "\t\tif reg != nil {\n\t\t\terr",
			New:  "\t\tif reg != nil && err == nil {\n\t\t\terr",
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
