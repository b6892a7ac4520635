package migrate

import (
	"testing"

	"github.com/naming-go/naming/internal/mutant"
)

// TestMutantsOfReader plants typical bugs in the reader of two registries, one at a time,
// and expects a test to fail for each. The tests have the hold off, which would mask some of
// the bugs.
func TestMutantsOfReader(t *testing.T) {
	mutant.Run(t, ".", 2, readerMutants)
}

var readerMutants = []mutant.Mutant{
	{
		Name: "lets a registry that failed wait while the other one changes",
		File: "feed.go",
		Old:  "			fol.Retry()\n		}\n	}\n}\n\n// setLists",
		New:  "			continue\n		}\n	}\n}\n\n// setLists",
		Test: "TestReaderHurries",
	},
	{
		Name: "leaves a registry that the other one does not cover",
		File: "publish.go",
		Old:  "	covers := len(w.uncovered) == 0 && (len(w.leadUsable) > 0 || len(w.usable) == 0)\n",
		New:  "	covers := true\n",
		Test: "TestPublishHistories",
	}, {
		Name: "counts the endpoints instead of comparing them",
		File: "publish.go",
		Old:  "	covers := len(w.uncovered) == 0 && (len(w.leadUsable) > 0 || len(w.usable) == 0)\n",
		New:  "	covers := len(lead.usable) >= len(other.usable)\n",
		Test: "TestPublishHistories",
	}, {
		Name: "reads an error as an empty registry",
		File: "publish.go",
		Old:  "	w := merge(c.lead, m.withKept(views), m, c.narrow)\n",
		New:  "	seen := *views\n	for i := range seen {\n		if !seen[i].fresh {\n			seen[i] = view{synced: true}\n		}\n	}\n	w := merge(c.lead, &seen, m, c.narrow)\n",
		Test: "TestPublishHistories",
	}, {
		Name: "uses the first registry that is not empty",
		File: "publish.go",
		Old:  "	w := merge(c.lead, m.withKept(views), m, c.narrow)\n",
		New:  "	w := merge(c.lead, m.withKept(views), m, c.narrow)\n	if len(w.leadUsable) > 0 {\n		w.usable, w.withheld, w.uncovered = w.leadUsable, w.leadWithheld, nil\n	}\n",
		Test: "TestPublishHistories",
	}, {
		Name: "keeps what left in order while a registry is stale",
		File: "merge.go",
		Old:  "	return !x.views[i].fresh && has(x.memory.left[i.other()], addr)\n",
		New:  "	return false && has(x.memory.left[i.other()], addr)\n",
		Test: "TestPublishLeftInOrder",
	}, {
		Name: "observes what left in order after the set was published",
		File: "publish.go",
		Old:  "	m = m.observe(views)\n	r := publish(c, views, &m)\n",
		New:  "	r := publish(c, views, &m)\n	m = m.observe(views)\n",
		Test: "TestPublishLeftInOrder",
	}, {
		Name: "publishes an empty set before both registries have answered",
		File: "publish.go",
		Old:  "	if len(w.usable) == 0 && !(lead.synced && other.synced) {\n		return result{}\n	}\n",
		New:  "",
		Test: "TestPublishHistories|TestReaderFirstWaitAfterAnswer",
	}, {
		Name: "does not wait for the first set of the second registry",
		File: "publish.go",
		Old:  "	case !m.published && !m.waited && (lead.pending() || other.pending()):\n		return result{}\n",
		New:  "",
		Test: "TestReaderFirstSet",
	}, {
		Name: "reads an unknown phase as Old",
		File: "publish.go",
		Old:  "	case !known:\n		return choice{lead: oldSide}\n",
		New:  "	case !known:\n		return choose(State{}, true, false)\n",
		Test: "TestReaderUnknownPhase",
	}, {
		Name: "does not pass Retry on",
		File: "feed.go",
		Old:  "		if fol != nil {\n			fol.Retry()\n",
		New:  "		if fol != nil {\n			_ = fol\n",
		Test: "TestReaderRetry",
	}, {
		Name: "shows copies under IDs of their own",
		File: "natives.go",
		Old:  "		if n, ok := Native(e); ok && x.claimCopy(&n) {\n			x.usable",
		New:  "		if n, ok := Native(e); ok && x.claimCopy(&n) {\n			n.ID = e.ID\n			x.usable",
		Test: "TestReaderHold|TestPublishEqual",
	}, {
		Name: "ignores the draining mark of the other registry",
		File: "merge.go",
		Old:  "	case !own && (x.drains(i, e.Addr) || x.drains(j, e.Addr)):\n",
		New:  "	case !own && x.drains(i, e.Addr):\n",
		Test: "TestPublishHistories",
	}, {
		Name: "waits for the proof of a watch after an outage of both registries",
		File: "feed.go",
		Old:  "is.synced, is.fresh, is.failed = v.Synced, live, v.Stale()\n",
		New:  "is.synced, is.fresh, is.failed = v.Synced, live && !v.Stale(), v.Stale()\n",
		Test: "TestReaderRetry",
	}, {
		Name: "goes on watching a registry that the reader left",
		File: "publish.go",
		Old:  "	watch[c.lead.other()] = !m.hasLeft(c) || compare\n",
		New:  "	watch[c.lead.other()] = true\n",
		Test: "TestReaderClosesWatch",
	}, {
		Name: "does not keep what vanishes before the other registry has answered",
		File: "publish.go",
		Old:  "	w := merge(c.lead, m.withKept(views), m, c.narrow)\n",
		New:  "	w := merge(c.lead, views, m, c.narrow)\n",
		Test: "TestReaderKeeps|TestPublishHistories",
	}, {
		Name: "keeps for ever what vanished while the other registry did not answer",
		File: "feed.go",
		Old:  "		is.late = f.isLate(sideIndex(i))\n",
		New:  "		is.late = false && f.isLate(sideIndex(i))\n",
		Test: "TestReaderKeeps",
	}, {
		Name: "does not wake at the end of the wait for the other registry",
		File: "feed.go",
		Old:  "		f.wakeAfter(f.j.opts.FirstWait - time.Since(r.kept[i]))\n",
		New:  "",
		Test: "TestReaderKeeps",
	}, {
		Name: "does not keep what moves to a registry that was down",
		File: "publish.go",
		Old:  "func (v *view) awaited() bool { return !v.fresh && !v.late }\n",
		New:  "func (v *view) awaited() bool { return v.pending() && !v.late }\n",
		Test: "TestReaderKeepsMoved",
	}, {
		Name: "does not wake for a moment that came during a call of Next",
		File: "feed.go",
		Old:  "	d = max(d, 1)\n",
		New:  "",
		Test: "TestReaderKeepsNothing",
	}, {
		Name: "keeps what left in order while the other registry has not answered",
		File: "keep.go",
		Old:  " || isDraining(e) {\n",
		New:  " {\n",
		Test: "TestPublishKeeps",
	}, {
		Name: "keeps an entry whose address another entry has",
		File: "keep.go",
		Old:  " || e.Addr != \"\" && has(addrs, e.Addr)",
		New:  " || e.Addr != \"\" && has(addrs, e.ID)",
		Test: "TestPublishKeeps",
	}, {
		Name: "leaves a registry that may have what the lead has lost",
		File: "publish.go",
		Old:  " || !covers || keeps || ",
		New:  " || !covers || keeps && false || ",
		Test: "TestPublishKeeps",
	}, {
		Name: "reports a fallback for a moment without coverage",
		File: "feed_report.go",
		Old:  "f.j.opts.FallbackAfter - time.Since(r.wideSince); left > 0 {",
		New:  "f.j.opts.FallbackAfter - time.Since(r.wideSince); left > time.Hour {",
		Test: "TestReaderFallback",
	}, {
		Name: "overlooks an endpoint that drains in one registry only",
		File: "merge.go",
		Old:  "a.Addr == b.Addr && a.Draining == b.Draining && bytes",
		New:  "a.Addr == b.Addr && bytes",
		Test: "TestPublishHistories",
	}, {
		Name: "looks for copies behind the copies",
		File: "natives.go",
		Old:  "return id(&list[i]) >= copyPrefix })",
		New:  "return id(&list[i]) >= copyPrefix+copyPrefix })",
		Test: "TestPublishEqual|TestReaderHold",
	}, {
		Name: "takes for gone what was draining and is still there",
		File: "publish.go",
		Old:  "		delete(gone, e.Addr)\n",
		New:  "		_ = e\n",
		Test: "TestPublishHistories",
	}, {
		Name: "makes IDs that are too long",
		File: "merge.go",
		Old:  "	if len(id)+len(suffix) > naming.MaxID {\n		id = \"\"\n	}\n",
		New:  "",
		Test: "TestPublishAliases",
	},
}
