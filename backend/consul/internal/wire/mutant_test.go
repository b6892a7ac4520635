package wire_test

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestMutants plants bugs that others have had, and checks that a test finds them.
func TestMutants(t *testing.T) {
	mutant.Run(t, ".", 1, []mutant.Mutant{
		{Name: "has weights that Consul refuses", File: "encode.go",
			Old: "n == 0 || n > maxWeight || ", New: "n == 0 || ", Test: "RoundTrip"},
		{Name: "cuts a character in two", File: "meta.go",
			Old: "!utf8.RuneStart(value[n])", New: "!utf8.RuneStart(value[n]) && false", Test: "RoundTrip"},
		{Name: "makes nothing of an empty list of tags", File: "json.go",
			Old: "len(list) == 0 || ", New: "", Test: "RoundTrip"},
		{Name: "lets a member take the place of a key of ours", File: "encode.go",
			Old: "!strings.HasPrefix(lower, reserved) && ", New: "", Test: "RoundTrip"},
		{Name: "does not know of a service without an address", File: "address.go",
			Old: "host, number := cmp.Or(e.Service.Address, e.Node.Address), e.Port(portName)", New: "host, number := cmp.Or(e.Service.Address), e.Port(portName)", Test: "Others"},
		{Name: "takes any port of a name", File: "address.go",
			Old: "name != \"\" && p.Name == name", New: "name != \"\"", Test: "FieldC12"},
		{Name: "does not see where a tag ends", File: "digest.go",
			Old: "	d.number(len(s))\n", New: "", Test: "Digest"},
	})
}
