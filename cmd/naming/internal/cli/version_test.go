package cli

import (
	"runtime/debug"
	"testing"
)

func TestVersion(t *testing.T) {
	revision := []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"}}
	for _, x := range []struct {
		info *debug.BuildInfo
		want string
	}{
		{nil, "of an unknown version"},
		{&debug.BuildInfo{GoVersion: "go1.26.8"}, "(devel), go1.26.8"},
		{&debug.BuildInfo{GoVersion: "go1.26.8", Main: debug.Module{Version: "v1.2.3"}}, "v1.2.3, go1.26.8"},
		{&debug.BuildInfo{GoVersion: "go1.26.8", Settings: revision}, "(devel), commit abc, with local changes, go1.26.8"},
		{&debug.BuildInfo{GoVersion: "go1.26.8", Settings: revision[:1]}, "(devel), commit abc, go1.26.8"},
	} {
		if got := version(x.info, x.info != nil); got != x.want {
			t.Errorf("version: got %q, want %q", got, x.want)
		}
	}
}
