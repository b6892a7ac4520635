package httpproof

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestMutants: the proof finds servers that stop too early, and requests that are handled
// twice.
func TestMutants(t *testing.T) {
	mutant.Run(t, ".", 0, []mutant.Mutant{
		{
			Name: "stops a server before it is withdrawn",
			File: "servers.go",
			Old:  "\terr := s.reg.Close()\n",
			New:  "\t_ = s.http.Close()\n\ttime.Sleep(time.Second)\n\terr := s.reg.Close()\n",
			Test: "^TestMemory$",
		},
		{
			Name: "handles a request twice",
			File: "servers.go",
			Old:  "\tif r.Method == http.MethodPost {\n\t\tl.handle(r.URL.Path)\n",
			New:  "\tif r.Method == http.MethodPost {\n\t\tl.handle(r.URL.Path)\n\t\tl.handle(r.URL.Path)\n",
			Test: "^TestMemory$",
		},
	})
}
