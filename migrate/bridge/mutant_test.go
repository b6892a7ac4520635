package bridge_test

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestMutants plants the faults of other bridges, one at a time, and expects a test to fail
// for each.
func TestMutants(t *testing.T) { mutant.Run(t, ".", 3, mutants) }

var mutants = []mutant.Mutant{
	{
		Name: "copies under the ID of the native endpoint",
		File: "form.go",
		Old:  "	e.ID = migrate.CopyID(c.origin, native.ID)\n",
		New:  "	e.ID = native.ID\n",
		Test: "TestCopy|TestNotCopied",
	}, {
		Name: "deletes unconditionally",
		File: "write.go",
		Old:  "naming.Endpoint{ID: d.ID}, Lease: s.ledger[d.ID].lease.Lease}",
		New:  "naming.Endpoint{ID: d.ID}}",
		Test: "TestFuse$|TestRestart",
	}, {
		Name: "relies on the source's hold in place of the fuse",
		File: "fuse.go",
		Old:  "	blown := a.exceeds(f.opts) || f.total.exceeds(f.opts)\n",
		New:  "	blown := false\n",
		Test: "TestFuse$|TestWipedWhileStopped",
	}, {
		Name: "does not count the deletions of all services together",
		File: "fuse.go",
		Old:  "	blown := a.exceeds(f.opts) || f.total.exceeds(f.opts)\n",
		New:  "	blown := a.exceeds(f.opts)\n",
		Test: "TestFuseOfAllServices",
	}, {
		Name: "takes over copies whenever it sees one",
		File: "service.go",
		Old:  "	if _, ok := s.inherited[e.ID]; ok {\n",
		New:  "	if s.ledger[e.ID] == nil {\n",
		Test: "TestCopyOfAnother",
	}, {
		Name: "answers every put of another Bridge",
		File: "decide.go",
		Old:  "	return r.edited && d.due(r.putAt.Add(repairEvery))\n",
		New:  "	return r.edited\n",
		Test: "TestDuel",
	}, {
		Name: "answers every deletion by another program at once",
		File: "decide.go",
		Old:  "	if r.gone && !d.due(r.putAt.Add(repairDelay(r.repairs))) {\n		return false\n	}\n",
		New:  "",
		Test: "TestFight",
	}, {
		Name: "copies copies",
		File: "service.go",
		Old:  "isCopy || e.Addr == \"\" || n.natives",
		New:  "isCopy && false || e.Addr == \"\" || n.natives",
		Test: "TestNotCopied",
	}, {
		Name: "deletes before the source has answered",
		File: "decide.go",
		Old:  "	may := d.source.fresh() && d.target.fresh()\n",
		New:  "	may := !d.source.status.Stale() && d.target.fresh()\n",
		Test: "TestSlowSourceAtStart",
	}, {
		Name: "deletes what a stale source does not have",
		File: "decide.go",
		Old:  "	may := d.source.fresh() && d.target.fresh()\n",
		New:  "	may := d.source.status.Synced && d.target.fresh()\n",
		Test: "TestStaleSource",
	}, {
		Name: "deletes what a stale target has by itself",
		File: "decide.go",
		Old:  "	may := d.source.fresh() && d.target.fresh()\n",
		New:  "	may := d.source.fresh()\n",
		Test: "TestStaleTarget",
	}, {
		Name: "deletes what the source's Client holds",
		File: "decide.go",
		Old:  "		case !may || held[nativeID]:\n",
		New:  "		case !may || held[nativeID] && false:\n",
		Test: "TestHeldSource",
	}, {
		Name: "removes before it adds",
		File: "write.go",
		Old:  "	if len(w.puts) > 0 {\n",
		New:  "	if len(w.puts) > 0 && len(w.deletes) == 0 {\n",
		Test: "TestAddBeforeRemove",
	}, {
		Name: "revokes the leases of its copies when it stops",
		File: "term.go",
		Old:  "	all := t.queue.close()\n	wg.Wait()\n",
		New:  "	all := t.queue.close()\n	wg.Wait()\n	for _, l := range t.pool.leases {\n		_ = l.Revoke(context.Background())\n	}\n",
		Test: "TestLeases|TestRestart|TestWipedWhileStopped",
	}, {
		Name: "works on when the election's lease may have ended",
		File: "election.go",
		Old:  "	return l.lease == nil || time.Since(l.start) < time.Duration(l.deadline.Load())\n",
		New:  "	return true\n",
		Test: "TestElectionElsewhere|TestPaused",
	}, {
		Name: "works on when a copy has a higher epoch",
		File: "term.go",
		Old:  "	if s.highest > epoch {\n",
		New:  "	if false {\n",
		Test: "TestHigherEpoch",
	}, {
		Name: "approves a plan that has changed",
		File: "fuse.go",
		Old:  "	if !p.Blown || p.Digest != digest {\n",
		New:  "	if !p.Blown {\n",
		Test: "TestFuse$",
	}, {
		Name: "copies endpoints that the target has by itself",
		File: "service.go",
		Old:  " || n.natives[e.Addr] {\n		",
		New:  " {\n		",
		Test: "TestNativeWins|TestBothDirectionsSameServer",
	}, {
		Name: "counts what left in order",
		File: "service.go",
		Old:  "	if r.leaving || ",
		New:  "	if ",
		Test: "TestDraining",
	}, {
		Name: "keeps no lease for the copies of a predecessor while the source is down",
		File: "decide.go",
		Old:  "	if at := d.began.Add(adoptAfter); !d.source.status.Synced && at.After(d.now) {\n",
		New:  "	if at := d.began.Add(1000 * adoptAfter); !d.source.status.Synced && at.After(d.now) {\n",
		Test: "TestSourceDownAtStart",
	}, {
		Name: "forgets a put that failed and may have taken effect",
		File: "write.go",
		Old:  "		return t.putSingly(s, sent)\n	}\n",
		New:  "		return t.putSingly(s, sent)\n	}\n	for _, p := range sent {\n		if before[p.id].lease == nil {\n			delete(s.ledger, p.id)\n		}\n	}\n",
		Test: "TestUncertainPut",
	},
}
