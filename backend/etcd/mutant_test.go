package etcd_test

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestMutants plants bugs in what serves the watches.
func TestMutants(t *testing.T) {
	mutant.Run(t, ".", 1, []mutant.Mutant{
		{Name: "delivers a revision in parts", File: "stream.go",
			Old: "l.part(w, r.Fragment)", New: "l.part(w, false)", Test: "LargeAnswer/pinned/fragments"},
		{Name: "has gRPC's limit of an answer's size", File: "stream.go",
			Old: ", grpc.MaxCallRecvMsgSize(maxMessage)", New: ", grpc.MaxCallRecvMsgSize(maxMessage>>4)", Test: "LargeAnswer/pinned/one_message"},
		{Name: "keeps everything for a slow reader", File: "stream.go",
			Old: "const maxBehind = 1 << 16", New: "const maxBehind = 1 << 26", Test: "SlowWatch/pinned/too_much"},
		{Name: "keeps the parts of a revision, however large", File: "stream.go",
			Old: "maxKept      = 256 << 20", New: "maxKept      = 1 << 40", Test: "FieldE7HostileServer/fragments_without_end"},
		{Name: "keeps the parts of a revision, however many", File: "stream.go",
			Old: "maxFragments = 1 << 20", New: "maxFragments = 1 << 40", Test: "FieldE7HostileServer/a_revision_of_too_many"},
		{Name: "loses what a slow reader has not taken", File: "stream.go",
			Old: "append(w.events, r.Events...)", New: "r.Events", Test: "SlowWatch/pinned/^much"},
		{Name: "waits for a slow reader", File: "stream.go",
			Old: "	default:\n	}\n}\n\n// add adds", New: "	}\n}\n\n// add adds", Test: "SlowWatch/pinned/^much"},
		{Name: "leaves watches that were left early", File: "stream.go",
			Old: "if w.gone || w.rev == 0 {", New: "if w.rev == 0 {", Test: "LeftEarly/pinned"},
		{Name: "leaves signs of life", File: "stream.go",
			Old: "if w.gone || w.rev == 0 {", New: "if w.gone {", Test: "ManyWatches"},
		{Name: "gives one sign of life", File: "stream.go",
			Old: "		l.probing = false\n", New: "", Test: "ManyWatches"},
		{Name: "has a goroutine for each watch", File: "link.go",
			Old: "watcherType); conn != nil", New: "watcherType); conn != nil && false", Test: "Goroutines"},
		{Name: "believes in its IDs and in an order of answers", File: "stream.go",
			Old: "(l.ids || len(l.asked) == 0)", New: "true", Test: "Proxy"},
		{Name: "tells nobody that the stream has failed", File: "link.go",
			Old: "	l.wakeAll()\n", New: "", Test: "Faults/cut,_compact,_heal/pinned"},
		{Name: "does not know why a watch was canceled", File: "stream.go",
			Old: "return rpctypes.ErrCompacted", New: "return rpctypes.ErrFutureRev", Test: "CompactedMeanwhile/pinned"},
		{Name: "leaves watches that have ended", File: "stream.go",
			Old: "	l.forget(w)\n	l.end(w)\n", New: "	l.forget(w)\n", Test: "LeftEarly/pinned"},
		{Name: "does not begin at all keys", File: "stream.go",
			Old: "r.Key, r.RangeEnd = []byte{0}, []byte{0}", New: "r.Key, r.RangeEnd = []byte{0}, nil", Test: "WatchOfAll"},
		{Name: "takes any answer for its own", File: "stream.go",
			Old: "		if w != nil || len(l.asked) == 0 {\n			return fmt.Errorf(\"%w: a watch that was not asked for\", errAnswer)\n		}\n", New: "		if len(l.asked) == 0 {\n			return nil\n		}\n", Test: "SenselessAnswer"},
		{Name: "takes another watch's answer for its own", File: "stream.go",
			Old: "l.ids && r.WatchId != w.id", New: "false", Test: "SenselessAnswer"},
		{Name: "does not notice that the registry was replaced", File: "stream.go",
			Old: "cluster != 0 && cluster != w.cluster", New: "cluster != 0 && false", Test: "ReplacedBehindStream"},
	})
}
