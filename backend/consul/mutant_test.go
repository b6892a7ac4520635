package consul

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestMutants plants bugs that others have had, and asks the tests that need no
// agent to notice.
func TestMutants(t *testing.T) {
	mutant.Run(t, ".", 1, []mutant.Mutant{
		{Name: "goes on with an index that went backwards", File: "watch.go",
			Old: "			index, vain = 0, true\n			continue", New: "			index, vain = next, true\n			continue", Test: "IndexRules"},
		{Name: "shows what came with an index that went backwards", File: "watch.go",
			Old: "			index, vain = 0, true\n			continue", New: "			next = 0", Test: "IndexRules"},
		{Name: "asks with index 0 and so never waits", File: "read.go",
			Old: "index = max(meta.LastIndex, 1)", New: "index = meta.LastIndex", Test: "IndexRules"},
		{Name: "takes any replica's word for a snapshot", File: "read.go",
			Old: "RequireConsistent: !s.opts.AllowStale, ", New: "", Test: "IndexRules"},
		{Name: "waits for an answer for ever", File: "read.go",
			Old: "context.WithTimeout(ctx, bound)", New: "context.WithTimeout(ctx, 100*bound)", Test: "IndexRules"},
		{Name: "asks as often as it is answered", File: "pace.go",
			Old: "	return sleep(ctx, d)\n}\n\nfunc sleep", New: "	return sleep(ctx, 0*d)\n}\n\nfunc sleep", Test: "HotAnswers"},
		{Name: "asks as often when there is no news", File: "pace.go",
			Old: "if vain {", New: "if false {", Test: "HotAnswers"},
		{Name: "is woken by what is no news", File: "read.go",
			Old: "!ok || !old.Equal(d.endpoint)", New: "true || !ok || !old.Equal(d.endpoint)", Test: "HotAnswers"},
		{Name: "has weights that Consul refuses", File: "codec.go",
			Old: "n == 0 || n > maxWeight || ", New: "n == 0 || ", Test: "RoundTrip"},
		{Name: "cuts a character in two", File: "codec.go",
			Old: "!utf8.RuneStart(value[n])", New: "false", Test: "RoundTrip"},
		{Name: "makes nothing of an empty list of tags", File: "codec.go",
			Old: "len(list) == 0 || ", New: "", Test: "RoundTrip"},
		{Name: "lets a member take the place of a key of ours", File: "codec.go",
			Old: "!strings.HasPrefix(lower, reserved) && ", New: "", Test: "RoundTrip"},
		{Name: "does not tell an escaped name from a plain one", File: "names.go",
			Old: "if plain(name) && !isEscaped(name) {", New: "if plain(name) {", Test: "Names"},
	})
}
