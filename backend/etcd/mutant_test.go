package etcd_test

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestMutants plants bugs in the code that serves watches.
func TestMutants(t *testing.T) {
	mutant.Run(t, ".", 1, []mutant.Mutant{
		{Name: "delivers a revision in parts", File: "subscription.go",
			Old: "f.partial = a.partial", New: "f.partial = false", Test: "LargeAnswer/pinned/fragments"},
		{Name: "limits the size of answers as gRPC does", File: "stream.go",
			Old: ", grpc.MaxCallRecvMsgSize(maxMessage)", New: ", grpc.MaxCallRecvMsgSize(maxMessage>>4)", Test: "LargeAnswer/pinned/one_message"},
		{Name: "keeps every event for a slow reader", File: "subscription.go",
			Old: "maxBehind = 1 << 16", New: "maxBehind = 1 << 26", Test: "SlowWatch/pinned/too_much"},
		{Name: "keeps fragments of a revision without a limit of bytes", File: "subscription.go",
			Old: "maxKept = 256 << 20", New: "maxKept = 1 << 40", Test: "FieldE7HostileServer/fragments_without_end"},
		{Name: "keeps fragments of a revision without a limit of events", File: "subscription.go",
			Old: "maxFragments = 1 << 20", New: "maxFragments = 1 << 40", Test: "FieldE7HostileServer/a_revision_of_too_many"},
		{Name: "loses events that a slow reader has not read", File: "subscription.go",
			Old: "append(f.events, a.events...)", New: "a.events", Test: "SlowWatch/pinned/^much"},
		{Name: "waits for a slow reader", File: "stream.go",
			Old: "case s.news <- struct{}{}:\n	default:\n", New: "case s.news <- struct{}{}:\n", Test: "SlowWatch/pinned/^much"},
		{Name: "does not cancel watches that were left early", File: "stream.go",
			Old: "if s.gone || s.from == 0 {", New: "if s.from == 0 {", Test: "LeftEarly/pinned"},
		{Name: "does not cancel its probes", File: "stream.go",
			Old: "if s.gone || s.from == 0 {", New: "if s.gone {", Test: "ManyWatches"},
		{Name: "probes once", File: "stream.go",
			Old: "		t.probing = false\n", New: "", Test: "ManyWatches"},
		{Name: "has a goroutine for each watch", File: "link.go",
			Old: "watcherType); conn != nil", New: "watcherType); conn != nil && false", Test: "Goroutines"},
		{Name: "trusts its IDs and the order of answers", File: "stream.go",
			Old: "(t.echoes || len(t.asked) == 0)", New: "true", Test: "Proxy"},
		{Name: "does not wake watches when the stream has failed", File: "link.go",
			Old: "	l.transport.wakeAll()\n", New: "", Test: "Faults/cut,_compact,_heal/pinned"},
		{Name: "does not know why a watch was canceled", File: "subscription.go",
			Old: "a.ended = rpctypes.ErrCompacted", New: "a.ended = rpctypes.ErrFutureRev", Test: "CompactedMeanwhile/pinned"},
		{Name: "does not cancel watches that have ended", File: "stream.go",
			Old: "s.discard)\n	s.transport.endLocked(s)\n", New: "s.discard)\n", Test: "LeftEarly/pinned"},
		{Name: "does not watch all keys", File: "stream.go",
			Old: "r.Key, r.RangeEnd = []byte{0}, []byte{0}", New: "r.Key, r.RangeEnd = []byte{0}, nil", Test: "WatchOfAll"},
		{Name: "accepts an answer that no watch asked for", File: "stream.go",
			Old: "		if s != nil || len(t.asked) == 0 {\n			return fmt.Errorf(\"%w: a watch that was not asked for\", errAnswer)\n		}\n", New: "		if len(t.asked) == 0 {\n			return nil\n		}\n", Test: "SenselessAnswer"},
		{Name: "accepts an answer for another watch", File: "stream.go",
			Old: "t.echoes && r.WatchId != s.id", New: "false", Test: "SenselessAnswer"},
		{Name: "does not wake the reader of a watch that ends within a revision", File: "stream.go",
			Old: "s.err != nil || len(a.events) > 0 && !s.partial", New: "len(a.events) > 0 && !s.partial", Test: "Transports"},
		{Name: "does not notice that the link of a Watcher has failed", File: "watcher.go",
			Old: "	if failure := s.transport.link.failure(); failure != nil {\n		err = failure\n	}\n", New: "", Test: "Transports"},
		{Name: "does not check the keys of events", File: "subscription.go",
			Old: "case !bytes.HasPrefix(kv.Key, []byte(c.dir)):", New: "case false && !bytes.HasPrefix(kv.Key, []byte(c.dir)):", Test: "Transports"},
		{Name: "accepts revisions that go back", File: "subscription.go",
			Old: "case kv.ModRevision < c.last:", New: "case kv.ModRevision < 0:", Test: "Transports"},
		{Name: "does not notice that the registry was replaced", File: "subscription.go",
			Old: "a.cluster != 0 && a.cluster != f.cluster", New: "a.cluster != 0 && false", Test: "ReplacedBehindStream"},
		{Name: "maps an endpoint to what is put, and not to what is read", File: "map.go",
			Old: "return read, nil", New: "_ = read\n	return e, nil", Test: "^TestMap$/^kratos"},
		{Name: "maps an entry of another service", File: "map.go",
			Old: "err == nil && !mine", New: "err == nil && !mine && false", Test: "MapToAnotherService"},
	})
}

// TestMarkMutants plants bugs in Mark.
func TestMarkMutants(t *testing.T) {
	mutant.Run(t, ".", 1, []mutant.Mutant{
		{Name: "takes an entry that it marks from its lease", File: "mark.go",
			Old: ", clientv3.WithIgnoreLease()", New: "", Test: "TestMarkOfRegistration/pinned"},
		{Name: "marks what it has read before", File: "mark.go",
			Old: "			guards = append(guards, clientv3.Compare(clientv3.ModRevision(key), \"=\", kv.ModRevision))\n", New: "", Test: "TestConformance/pinned/1_member/MarkRace"},
		{Name: "does not find the entry of a program on the old API", File: "mark.go",
			Old: "{found.own[p], found.raw[p]}", New: "{found.own[p]}", Test: "TestMarkOfOtherWriters"},
		{Name: "asks before it refuses a mark", File: "mark.go",
			Old: "	if s.layout.noMarks || s", New: "	if s", Test: "TestMarkRefused"},
	})
}

// TestMutantsOfCalls plants bugs in the keys and values that calls write, and in how calls
// find an etcd that is back.
func TestMutantsOfCalls(t *testing.T) {
	mutant.Run(t, ".", 1, []mutant.Mutant{
		{Name: "does not name an ID that is escaped to the address", File: "layout.go",
			Old: "return tail == addr && tail != id || slashed(addr)", New: "return slashed(addr)", Test: "FuzzEncode"},
		{Name: "reads an address as the ID although the value names one", File: "layout.go",
			Old: "good && e.ID == \"\" && tail == e.Addr", New: "good && tail == e.Addr", Test: "FuzzEncode"},
		{Name: "names a key twice in a transaction", File: "apply.go",
			Old: "if found.shareKey(plans) {", New: "if found.shareKey(plans) && false {", Test: "RawKeyOfAnother"},
		{Name: "waits for the client's backoff", File: "conn.go",
			Old: "		conn.ResetConnectBackoff()\n", New: "", Test: "AfterLongOutage"},
		{Name: "makes the client connect with every call", File: "conn.go",
			Old: "time.Since(r.last) < reconnectEvery", New: "time.Since(r.last) < 0", Test: "ReconnectEvery"},
	})
}
