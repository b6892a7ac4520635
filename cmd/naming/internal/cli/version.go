package cli

import (
	"runtime/debug"
	"strings"
)

// version returns what the build says of this program: the version of the module, the commit
// of a build from a checkout, and the version of Go.
func version(info *debug.BuildInfo, ok bool) string {
	if !ok {
		return "of an unknown version"
	}
	parts := []string{info.Main.Version}
	if parts[0] == "" {
		parts[0] = "(devel)"
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			parts = append(parts, "commit "+s.Value)
		case s.Key == "vcs.modified" && s.Value == "true":
			parts = append(parts, "with local changes")
		}
	}
	return strings.Join(append(parts, info.GoVersion), ", ")
}
