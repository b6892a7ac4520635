package migrate

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestMutantsParity plants bugs in the comparison of two registries.
func TestMutantsParity(t *testing.T) {
	mutant.Run(t, ".", 1, []mutant.Mutant{
		{Name: "compares numbers of endpoints", File: "parity.go",
			Old: "	for _, p := range places {\n", New: "	for _, p := range places {\n		if r.OldCount == r.NewCount {\n			break\n		}\n", Test: "TestCompare$"},
		{Name: "counts a copy as missing", File: "parity.go",
			Old: "e.Endpoint, e.copied = Native(e.Endpoint); e.copied != copies", New: "_, e.copied = Native(e.Endpoint); e.copied != copies", Test: "TestCompare$"},
		{Name: "counts a copy beside its native", File: "parity.go",
			Old: "if e.copied && (has(ids, e.ID) || e.Addr != \"\" && has(addrs, e.Addr)) {", New: "if false {", Test: "TestCompare$"},
		{Name: "counts endpoints that drain", File: "parity.go",
			Old: "return !e.draining && !e.withheld", New: "return !e.withheld", Test: "TestCompare$"},
		{Name: "counts endpoints that are withheld", File: "parity.go",
			Old: "return !e.draining && !e.withheld", New: "return !e.draining", Test: "TestCompare$"},
		{Name: "compares by ID", File: "parity.go",
			Old: "	return place{addr: e.Addr}", New: "	return place{id: e.ID}", Test: "TestCompare$"},
		{Name: "does not notice one of two endpoints at an address", File: "parity.go",
			Old: "x.mismatch(o, best(next))", New: "_ = best", Test: "TestCompare$"},
		{Name: "depends on the order", File: "parity.go",
			Old: "	slices.SortFunc(all, compareEntries)\n", New: "", Test: "TestCompareProperties"},
		{Name: "compares a registry that has not answered", File: "parity.go",
			Old: "	if !r.Known {\n		return r\n	}\n", New: "", Test: "TestCompareStatus"},
		{Name: "does not compare metadata", File: "parity.go",
			Old: "if !bytes.Equal(a.Metadata, b.Metadata) {", New: "if false {", Test: "TestCompare$"},
		{Name: "accepts more than the operator", File: "accept.go",
			Old: "			return false\n", New: "			return true\n", Test: "TestParseAccept"},
		{Name: "takes a loss for a refusal", File: "loss.go",
			Old: "if l.Err != nil && e.Draining {", New: "if false {", Test: "TestLosses$"},
		{Name: "compares the records of the migration", File: "parity.go",
			Old: "return isOwnService(name) || ", New: "return ", Test: "TestCompareStores$"},
		{Name: "reads one service after the other", File: "parity.go",
			Old: "compareAtOnce = 8", New: "compareAtOnce = 1", Test: "TestCompareStoresAtOnce"},
		{Name: "reports a difference at once", File: "monitor.go",
			Old: "now.Sub(s.since) < m.after", New: "now.Sub(s.since) < 0", Test: "TestMonitorDebounces"},
		{Name: "never reports a difference of sets that change", File: "monitor.go",
			Old: "is != s.is || s.since.IsZero()", New: "true", Test: "TestMonitorDataThatChange"},
		{Name: "takes each value for another difference", File: "monitor.go",
			Old: "m.Old.Addr}, m.Fields...)", New: "m.Old.Addr, string(m.Old.Metadata)}, m.Fields...)", Test: "TestMonitorDataThatChange"},
		{Name: "compares on each change", File: "monitor.go",
			Old: "compareEvery = time.Second", New: "compareEvery = time.Millisecond", Test: "TestMonitorCoalesces"},
		{Name: "takes a stale registry for an equal one", File: "monitor.go",
			Old: "	if !s.comparable || r == nil && s.pending {", New: "	if s.comparable && r == nil && s.pending {", Test: "TestMonitorStale"},
		{Name: "counts the time while a registry is stale", File: "monitor.go",
			Old: "	s.since = time.Time{}\n	if s.reported", New: "	if s.reported", Test: "TestMonitorStale"},
		{Name: "leaves a difference reported after the end", File: "monitor.go",
			Old: "case s.ended && s.last != nil:", New: "case false:", Test: "TestMonitorEnds/end"},
		{Name: "leaves a difference reported after close", File: "monitor.go",
			Old: "if info, ok := m.over(); ok {", New: "if info, ok := m.over(); ok && false {", Test: "TestMonitorEnds/close"},
		{Name: "does not wait for a call", File: "monitor.go",
			Old: "if busy := m.setClosed(); busy != nil {", New: "if busy := m.setClosed(); busy != nil && false {", Test: "TestMonitorCalls"},
	})
}
