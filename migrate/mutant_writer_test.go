package migrate_test

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestMutantsOfWriter plants typical bugs in the writing side, one at a time, and expects
// a test to fail for each.
func TestMutantsOfWriter(t *testing.T) {
	mutant.Run(t, ".", 2, writerMutants)
}

var writerMutants = []mutant.Mutant{
	{
		Name: "does not carry the mark of an operator",
		File: "announce_part.go",
		Old:  "		return stepCarry, due\n",
		New:  "		return stepWait, due\n",
		Test: "TestMarkIsCarried",
	}, {
		Name: "carries the mark for ever",
		File: "announce_part.go",
		Old:  "		p.a.state.setCarried(p.side)\n",
		New:  "		p.carryDue = time.Now().Add(time.Second)\n",
		Test: "TestMarkIsCarriedOnce",
	}, {
		Name: "forgets a mark that it could not carry before the endpoint left the other registry",
		File: "announce_part.go",
		Old:  "	if (!present || other.MarkedByOther) && s",
		New:  "	if present && other.MarkedByOther && s",
		Test: "TestMarkIsCarriedLater",
	}, {
		Name: "carries the mark although the program resumed",
		File: "announce_part.go",
		Old:  " && s.part.given[drainingAspect] == s.version[drainingAspect] {\n		ctx",
		New:  " {\n		ctx",
		Test: "TestMarkIsNotCarriedAfterResume",
	}, {
		Name: "does not resume what an operator has marked",
		File: "announce_state.go",
		Old:  " || which == drainingAspect && s.markedByOther() {",
		New:  " {",
		Test: "TestMarkInBoth",
	}, {
		Name: "does not report the mark of an operator",
		File: "announce_report.go",
		Old:  " && a.MarkedByOther == b.MarkedByOther",
		New:  "",
		Test: "TestMarkInBoth",
	}, {
		Name: "marks in one registry",
		File: "composite.go",
		Old:  "c.sides[i].mark(ctx,",
		New:  "c.sides[0].mark(ctx,",
		Test: "TestMarkInBoth|TestMarkOfOneRegistry",
	}, {
		Name: "marks in a read-only registry",
		File: "composite.go",
		Old:  "		if c.sides[i].readOnly {\n",
		New:  "		if c.sides[i].readOnly && false {\n",
		Test: "TestMarkOfReadOnly",
	},
	{
		Name: "reports a change of the registry that counts as a loss",
		File: "announce_report.go",
		Old:  "	case r.listed && now.lost(r.by):\n",
		New:  "	case r.listed:\n",
		Test: "TestCountingIsNotALoss|TestUnknownIsNotALoss|TestHooksBalance",
	}, {
		Name: "does not report a loss before the registry that counts has the endpoint",
		File: "announce_report.go",
		Old:  " || i != noSide && !n.parts[i].Registered\n",
		New:  "\n",
		Test: "TestCountingIsNotALoss",
	}, {
		Name: "reports an endpoint as registered again that was not lost",
		File: "announce_report.go",
		Old:  "		if r.listed {\n			return\n		}\n",
		New:  "		if was.Registered {\n			return\n		}\n",
		Test: "TestCountingIsNotALoss|TestHooksBalance",
	}, {
		Name: "leaves a registry at once",
		File: "announce_part.go",
		Old:  "leaves && !time.Now().Before(due) {",
		New:  "leaves || !leaves {",
		Test: "TestWriterFollowsPhases|TestLeaveWaits",
	}, {
		Name: "does not wait for the registry that counts",
		File: "announce_part.go",
		Old:  "	if !ok || !st.Registered {\n		return due, false\n	}\n",
		New:  "",
		Test: "TestLeaveWaitsForDownRegistry",
	}, {
		Name: "marks an endpoint that leaves as draining",
		File: "announce_part.go",
		Old:  "left <- s.part.registration.Withdraw(ctx)",
		New:  "defer context.AfterFunc(ctx, cancel)(); left <- s.part.registration.Close()",
		Test: "TestLeaveWaitsForDownRegistry",
	}, {
		Name: "waits for the delay since the change of the phase only",
		File: "announce_part.go",
		Old:  "after(s.unwritten, st.Since).Add(",
		New:  "s.unwritten.Add(",
		Test: "TestLeaveWaitsForDownRegistry",
	}, {
		Name: "waits for the delay since the registration only",
		File: "announce_part.go",
		Old:  "after(s.unwritten, st.Since).Add(",
		New:  "st.Since.Add(",
		Test: "TestLeaveAfterMissedState",
	}, {
		Name: "ignores that it missed a state",
		File: "announce_state.go",
		Old:  "		case missed, s.unwritten[i].IsZero():",
		New:  "		case missed && s.unwritten[i].IsZero(), s.unwritten[i].IsZero():",
		Test: "TestLeaveAfterMissedState",
	}, {
		Name: "registers the endpoint of an older announcement again",
		File: "announce_owners.go",
		Old:  "	if a.claim.owner() != a {\n		return false, nil\n	}\n",
		New:  "",
		Test: "TestOlderStaysAway",
	}, {
		Name: "does not take over what an older announcement leaves",
		File: "announce_owners.go",
		Old:  " && (older == nil || !older.state.isPresent(sideIndex(i))) {",
		New:  " {",
		Test: "TestReplacedWhileLeaving",
	}, {
		Name: "waits in Close for a registry without the endpoint",
		File: "announce_part.go",
		Old:  "	failing := !st.Registered && st.Err != nil\n",
		New:  "	failing := st.Closed\n",
		Test: "TestCloseWithRegistryDown",
	}, {
		Name: "writes the old registry only while the phase is unknown",
		File: "announce_plan.go",
		Old:  "written: [2]bool{true, true}, counting",
		New:  "written: [2]bool{true, false}, counting",
		Test: "TestUnknownAtStart",
	}, {
		Name: "writes a registry that is read-only",
		File: "announce_plan.go",
		Old:  "p.written[i] && !ro",
		New:  "p.written[i] || ro && false",
		Test: "TestReadOnly",
	}, {
		Name: "keeps a refused change in the other registry",
		File: "announce_state.go",
		Old:  "		s.setWant(which, s.accepted)\n",
		New:  "		_ = s.accepted\n",
		Test: "TestRefusedByCounting",
	}, {
		Name: "leaves out an endpoint whose mark has no place",
		File: "announce_part.go",
		Old:  "unmarked == nil && p.mayUnmark(s) {",
		New:  "unmarked == nil && p.mayUnmark(s) && s.farewell != nil {",
		Test: "TestRegisterDraining",
	}, {
		Name: "reports the removal in Close as a loss",
		File: "announce_state.go",
		Old:  "	if s.farewell != nil {\n		// The removal is",
		New:  "	if s.farewell != nil && s.replaced {\n		// The removal is",
		Test: "TestRemovalIsNotALoss",
	}, {
		Name: "has the older one away from where the newer one was",
		File: "announce_owners.go",
		Old:  "[2]bool{a.state.isPresent(oldSide), a.state.isPresent(newSide)}",
		New:  "[2]bool{}",
		Test: "TestHeirStaysListed",
	}, {
		Name: "two goroutines report the phase of a service",
		File: "seen.go",
		Old:  "	if e.busy {\n		return nil\n	}\n",
		New:  "",
		Test: "TestPhaseReportsInOrder",
	}, {
		Name: "does not read the phase again that changed during a report",
		File: "seen.go",
		Old:  "	e.asked = true\n	if e.busy {\n		return nil\n	}\n",
		New:  "	if e.busy {\n		return nil\n	}\n	e.asked = true\n",
		Test: "TestPhaseReportsAgain",
	}, {
		Name: "keeps the phases of services that are not used",
		File: "seen.go",
		Old:  "		delete(s.byService, service)\n",
		New:  "",
		Test: "TestPhaseReportsForget",
	},
}
