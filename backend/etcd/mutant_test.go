package etcd_test

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestMutants plants bugs in what serves the watches.
func TestMutants(t *testing.T) {
	mutant.Run(t, ".", 1, []mutant.Mutant{
		{Name: "delivers a revision in parts", File: "stream.go",
			Old: "w.events, w.partly = r.Events, r.Fragment", New: "w.events, w.partly = r.Events, false", Test: "LargeAnswer/pinned/fragments"},
		{Name: "has gRPC's limit of an answer's size", File: "stream.go",
			Old: ", grpc.MaxCallRecvMsgSize(math.MaxInt32)", New: ", grpc.MaxCallRecvMsgSize(math.MaxInt32>>9)", Test: "LargeAnswer/pinned/one_message"},
		{Name: "keeps everything for a slow reader", File: "stream.go",
			Old: "const maxBehind = 1 << 16", New: "const maxBehind = 1 << 26", Test: "SlowWatch/pinned/too_much"},
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
			Old: "conn != nil && reflect.TypeOf", New: "conn != nil && false && reflect.TypeOf", Test: "Goroutines"},
		{Name: "believes in its IDs and in an order of answers", File: "stream.go",
			Old: "(l.ids || len(l.asked) == 0)", New: "true", Test: "Proxy"},
		{Name: "tells nobody that the stream has failed", File: "link.go",
			Old: "	l.wakeAll()\n", New: "", Test: "Faults/cut,_compact,_heal/pinned"},
		{Name: "does not know why a watch was canceled", File: "stream.go",
			Old: "return rpctypes.ErrCompacted", New: "return rpctypes.ErrFutureRev", Test: "CompactedMeanwhile/pinned"},
		{Name: "leaves watches that have ended", File: "stream.go",
			Old: "	w.events = nil\n	l.end(w)\n", New: "	w.events = nil\n", Test: "LeftEarly/pinned"},
		{Name: "does not begin at all keys", File: "stream.go",
			Old: "r.Key, r.RangeEnd = []byte{0}, []byte{0}", New: "r.Key, r.RangeEnd = []byte{0}, nil", Test: "WatchOfAll"},
		{Name: "takes any answer for its own", File: "stream.go",
			Old: "		if w != nil || len(l.asked) == 0 {\n			return errAnswer\n		}\n", New: "		if len(l.asked) == 0 {\n			return nil\n		}\n", Test: "SenselessAnswer"},
		{Name: "takes another watch's answer for its own", File: "stream.go",
			Old: "l.ids && r.WatchId != w.id", New: "false", Test: "SenselessAnswer"},
		{Name: "does not notice that the registry was replaced", File: "stream.go",
			Old: "cluster != 0 && cluster != w.cluster", New: "cluster != 0 && false", Test: "ReplacedBehindStream"},
	})
}
